"""`imgae-train`, `imgae-evaluate`, `imgae-run`, `imgae-shards`, `imgae-cache`: thin fronts to what chapters call."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from traitlets.config import Config

from lib.data.caches import caches, remove
from lib.data.dataset import load_data
from lib.data.source import cache_folder, problem_counts
from lib.data.sources import open_source
from lib.data.stream import write_shards
from lib.environment import secret
from lib.figures.charts import loss_curves
from lib.methods.method import Method
from lib.params import Params, project_root
from lib.privacy import VARIABLE, masked, with_secrets
from lib.refusals import echo
from lib.runs.command import command
from lib.runs.comparison import comparable
from lib.runs.draw import draw
from lib.runs.evaluate import audit, locate
from lib.runs.evaluate import evaluate as evaluate_comparison
from lib.runs.prepare import prepare
from lib.runs.report import summary
from lib.runs.run import Run
from lib.runs.score import score
from lib.runs.status import RUNNER
from lib.runs.tracking import finish, open_tracker, wandb_mode
from lib.runs.train import load
from lib.runs.train import train as train_method
from lib.strict_yaml import Misread
from lib.strict_yaml import load as load_yaml

NOTEBOOK = Path("notebooks/Anomaly_Detection_Research_Colab.ipynb")


def train(arguments: Sequence[str] | None = None) -> int:
    """`imgae-train params/x.yaml`: train the file's methods without a notebook."""
    parser = _parser("imgae-train", "Train the methods of a params file, without a notebook.")
    params, base = _settings(parser, arguments)
    with Run.start(params, base) as run:
        tracker = open_tracker(run.params, run.folder)
        prepared = prepare(params, base)
        _print_problems(prepared.data.problems)
        for name in params.methods:
            trained = train_method(run, name, prepared, tracker)
            run.save_figure(loss_curves(trained.history), f"{name}-losses")
        finish(run, tracker)
    print(f"trained {' and '.join(params.methods)}: {run.folder}\nnext: imgae-evaluate {run.folder}")
    return 0


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`imgae-evaluate RUN`: score a trained run, compare it with the runs beside it, write results and figures."""
    parser = argparse.ArgumentParser(
        "imgae-evaluate",
        description="Score and evaluate a run that has been trained. A stage whose inputs have not changed is skipped.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, for example runs/ra")
    parser.add_argument("--force", action="store_true", help="run every stage, whether its inputs have changed or not")
    typed = parser.parse_args(arguments)
    again = typed.force
    if again:
        print("--force: every stage runs")
    with Run.open(typed.run) as run:
        tracker = open_tracker(run.params, run.folder)
        prepared = prepare(run.params, run.folder)
        trained: dict[str, Method] = {name: load(run, name, prepared.split).method for name in run.params.methods}
        scored = score(run, prepared, trained, again=again)
        locate(run, prepared, scored, again=again)
        comparison = comparable(run)
        evaluate_comparison(run, comparison, again=again)
        results = audit(run, prepared, comparison, trained, again=again)
        draw(run, prepared, scored, comparison, again=again)
        finish(run, tracker, results)
    print(comparison.found.to_string(index=False), summary(results), run.folder / "results.json", sep="\n\n")
    return 0


def run(arguments: Sequence[str] | None = None) -> int:
    """`imgae-run params/x.yaml`: execute the notebook; leave it, its report and the final status in the run folder."""
    import papermill  # here: the other commands do without a notebook

    from lib.runs.page import publish, write_report

    params, base = _settings(_parser("imgae-run", "Execute the notebook with a params file."), arguments)
    places = [base / NOTEBOOK, Path(__file__).parents[2] / NOTEBOOK]  # a user's own file may lie outside the checkout
    notebook = next((place for place in places if place.is_file()), None)
    if notebook is None:
        found = f"{places[-1]} is not there"
        print(
            f"{found}: work in a checkout of the repository, and run `python build_notebook.py` there", file=sys.stderr
        )
        return 2
    wandb_mode(params)  # refused now, and not by a cell
    with Run.start(params, base) as run:
        partial, report = run.folder / "partial.ipynb", run.folder / "report.html"
        # inherited by the kernel, which starts in this process's folder and works under this process's lock
        before, inherited = dict(os.environ), {"IMGAE_DX_ROOT": str(base), RUNNER: str(run.folder)}
        if address := with_secrets(params.data_dir, secret(VARIABLE)):
            inherited[VARIABLE] = address  # the notebook does not show it
        os.environ |= inherited
        try:
            papermill.execute_notebook(
                notebook,
                partial,
                parameters=params.model_dump(),
                kernel_name="python3",
                kernel_manager_class=own_kernel(),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                coalesce_streams=True,
                config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # or each start warns of plain TCP
            )
        except Exception:
            print(f"\nfailed: the cells that ran are in {partial}, the reason in status.json", file=sys.stderr)
            raise
        finally:
            for name in inherited:
                os.environ.pop(name)
            os.environ |= before
            if partial.is_file():
                publish(partial, base, params.places)
        partial.replace(executed := run.folder / "notebook.ipynb")
        write_report(executed, report)
        text = summary(run.results())
        run.finish()
    print("", text, f"report: {report}", sep="\n")
    return 0


def own_kernel() -> type:
    """Return a kernel manager that starts this interpreter, whatever other kernel is installed as python3."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class OwnKernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _without_installed_ones(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

    return OwnKernel


def shards(arguments: Sequence[str] | None = None) -> int:
    """`imgae-shards params/x.yaml --to ADDRESS`: write a source's images as parquet shards, to stream from."""
    parser = _parser("imgae-shards", "Check the images of a params file's source and write them as parquet shards.")
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="a folder, s3://, gs://, hf://: docs/USAGE.md")
    params, base = _settings(parser, arguments)
    source = open_source(params, base)
    data = load_data(source, params)
    _print_problems(data.problems)
    address = parser.parse_args(arguments).to
    address = address if "://" in address else str(Path(os.path.expanduser(address)).resolve())
    write_shards(source, data.records, address)
    print(f"{len(data.records):,} images: {address}\nto use them: source: stream, data_dir: {address}")
    return 0


def cache(arguments: Sequence[str] | None = None) -> int:
    """`imgae-cache list`, `remove NAME…`, `purge`: the caches of prepared images, and the space that they take."""
    parser = argparse.ArgumentParser("imgae-cache", description="List and remove caches of prepared images not in use.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="list them, the longest unused first")
    named = actions.add_parser("remove", help="remove the caches of these names")
    named.add_argument("names", nargs="+", metavar="NAME", help="as `imgae-cache list` prints it")
    purge = actions.add_parser("purge", help="remove all caches")
    purge.add_argument("--days", type=int, metavar="N", help="only those that were not used for N days, 1 or more")
    typed = parser.parse_args(arguments)
    if typed.action == "purge" and typed.days is not None and typed.days < 1:
        purge.error(f"--days {typed.days}: expected 1 or more; without --days, all caches are removed")
    found = {one.folder.name: one for one in caches(cache_folder())}
    if typed.action == "list":
        for name, one in found.items():
            state = "in use" if one.in_use else f"last used {one.used:%Y-%m-%d}"
            print(f"{name}  {one.images:9,} images of {one.side:4} px  {one.bytes / 1e6:10,.1f} MB  {state}")
        print(f"{len(found)} caches in {cache_folder()}, {sum(one.bytes for one in found.values()) / 1e6:,.1f} MB")
        return 0
    names = typed.names if typed.action == "remove" else found
    if unknown := [name for name in names if name not in found]:
        print(f"{unknown[0]} is no cache in {cache_folder()}: `imgae-cache list` prints their names", file=sys.stderr)
        return 2
    if typed.action == "purge" and typed.days is not None:
        names = [name for name in names if (datetime.now() - found[name].used).days >= typed.days]
    removed = {name: remove(found[name].folder) for name in names}
    for name, gone in removed.items():
        print(f"{name}  {'removed' if gone else 'kept: a process uses it'}")
    freed = sum(found[name].bytes for name, gone in removed.items() if gone)
    print(f"{sum(removed.values())} of {len(found)} caches removed, {freed / 1e6:,.1f} MB")
    return 0 if typed.action == "purge" or all(removed.values()) else 2


def _print_problems(problems: pd.DataFrame) -> None:
    for problem, count in problem_counts(problems).items():
        print(f"{count:,} images: {problem}")


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument("params", type=Path, help="a YAML file of settings, for example params/ra.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="override the file")
    return parser


def _settings(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[Params, Path]:
    """Read a params file and `--set`; return the settings, with absolute paths, and the project folder.

    Relative paths in the file start from the project folder, those on the command line from the working folder.
    """
    typed = parser.parse_args(arguments)
    assignments = [_assignment(parser, text) for text in typed.set]
    names = [name for name, _ in assignments]
    if twice := [name for name in names if names.count(name) > 1]:
        parser.error(f"--set gives {twice[0]} twice; keep one")
    params = Params.from_yaml(typed.params, **dict(assignments))
    base = project_root(typed.params.resolve().parent)
    run_dir = str(base / (params.run_dir or f"runs/{typed.params.stem}"))
    return params.with_paths_under(base).model_copy(update={"run_dir": run_dir}), base


def _assignment(parser: argparse.ArgumentParser, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or "/" in key:  # an address, of which = is a part
        parser.error(f"--set expects key=value, found {echo(text)}")
    if key in ("data_dir", "keep_in", "run_dir") and "://" not in value:
        return key, str(Path(os.path.expanduser(value)).resolve()) if value else ""
    try:
        return key, json.loads(value)  # numbers as Python reads them: 1e-4 too
    except (ValueError, RecursionError):
        try:
            return key, load_yaml(value)
        except Misread as error:
            parser.error(f"--set {masked(text)[:200]}: {error}")


train_command = command(train)
evaluate_command = command(evaluate)
run_command = command(run)
shards_command = command(shards)
cache_command = command(cache)
