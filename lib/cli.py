"""`imgae-train`, `imgae-evaluate`, `imgae-run`, `imgae-shards`: thin fronts to the functions that the chapters call."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from traitlets.config import Config

from lib import comparison
from lib.arms import ARMS
from lib.charts import curves, false_alarms, forest, score_distributions
from lib.dataset import Sides, Split, SplitError, load_data
from lib.figures import cases, loss_curves
from lib.keeping import KeepingError
from lib.method import Method
from lib.params import ParameterError, Params, project_root
from lib.report import summary
from lib.runs import Run, RunError
from lib.source import SourceError, problem_counts
from lib.sources import Source, open_source
from lib.stream import write_shards
from lib.training import Diverged, TrainingError

NOTEBOOK = Path("notebooks/Anomaly_Detection_Research_Colab.ipynb")


def train(arguments: Sequence[str] | None = None) -> int:
    """`imgae-train params/x.yaml`: train the file's methods without a notebook."""
    params, base = _settings(
        _parser("imgae-train", "Train the methods of a params file, without a notebook."), arguments
    )
    run = Run.start(params, base)
    try:
        _, split, images = _data(params, base)
        for name in params.methods:
            torch.manual_seed(params.seed)  # the same first weights whichever method trained before
            history = run.train(name, ARMS[name](params), split, images)
            run.save_figure(loss_curves(history), f"{name}-losses")
    except (Exception, KeyboardInterrupt) as error:
        run.mark("failed", f"{type(error).__name__}: {error}")
        raise
    run.finish()
    print(f"trained {' and '.join(params.methods)}: {run.folder}\nnext: imgae-evaluate {run.folder}")
    return 0


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`imgae-evaluate RUN`: score a trained run, compare it with the runs beside it, write results and figures."""
    parser = argparse.ArgumentParser("imgae-evaluate", description="Score and evaluate a run that has been trained.")
    parser.add_argument("run", type=Path, help="the run's folder, for example runs/ra")
    run = Run.open(parser.parse_args(arguments).run)
    run.track()
    params = run.params
    source, split, images = _data(params, run.folder)
    trained: dict[str, Method] = {}
    histories: dict[str, list[dict[str, float]]] = {}
    for name in params.methods:
        trained[name] = ARMS[name](params)
        histories[name] = run.load(name, trained[name])
    scored = run.score(trained, histories, source, split, images)
    table, found = comparison.comparable(run)
    comparison.evaluate(run, table)
    results = comparison.explain(run, table, trained, split, images)
    evaluation, methods = results["evaluation"], list(results["methods"])
    roc, precision_recall = curves(table, methods, params.label_column, evaluation)
    run.save_figure(roc, "roc")
    run.save_figure(precision_recall, "precision-recall")
    run.save_figure(score_distributions(table, methods, params.label_column, evaluation), "scores")
    run.save_figure(forest(evaluation, "findings"), "findings")
    run.save_figure(forest(evaluation, "strata"), "strata")
    run.save_figure(false_alarms(table, methods, params.label_column), "false-alarms")
    test = table[table["side"] == "test"].reset_index(drop=True)
    for method in trained:
        figure = cases(images.test, scored.reconstructed, test, method, params.label_column, scored.lesions)
        run.save_figure(figure, f"{method}-cases")
    run.finish()
    print(found.to_string(index=False), summary(results), run.folder / "results.json", sep="\n\n")
    return 0


def run(arguments: Sequence[str] | None = None) -> int:
    """`imgae-run params/x.yaml`: execute the notebook; leave it, its report and the final status in the run folder."""
    import papermill  # here: the other commands do without a notebook

    from lib.page import write_report

    params, base = _settings(_parser("imgae-run", "Execute the notebook with a params file."), arguments)
    folder = params.folder(base)
    places = [base / NOTEBOOK, Path(__file__).parents[1] / NOTEBOOK]  # a user's own file may lie outside the checkout
    notebook = next((place for place in places if place.is_file()), None)
    if notebook is None:
        print(f"{places[-1]} is not there: build it with `python build_notebook.py`", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["IMGAE_DX_ROOT"] = str(base)  # the kernel starts where this process stands, and inherits this
    partial, executed, report = folder / "partial.ipynb", folder / "notebook.ipynb", folder / "report.html"
    record = Run(params, folder)
    record.refuse_other_settings()  # before anything is marked: a finished run stays what it is
    try:
        papermill.execute_notebook(
            notebook,
            partial,
            parameters=params.model_dump(),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            coalesce_streams=True,
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),  # or each start warns of plain TCP
        )
    except (Exception, KeyboardInterrupt) as error:
        record.mark("failed", f"{type(error).__name__}: {str(error)[-2000:]}")
        print(f"\nfailed; what was executed is in {partial}, the reason in {folder / 'status.json'}", file=sys.stderr)
        raise
    partial.replace(executed)
    write_report(executed, report)
    record.mark("ok")
    record.keep()
    print("", summary(record.results()), f"report: {report}", sep="\n")
    return 0


def shards(arguments: Sequence[str] | None = None) -> int:
    """`imgae-shards params/x.yaml --to ADDRESS`: write a source's images as parquet shards, to stream from."""
    parser = _parser("imgae-shards", "Check the images of a params file's source and write them as parquet shards.")
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="a folder, s3://, gs://, hf://; see the README")
    params, base = _settings(parser, arguments)
    source = open_source(params, base)
    data = load_data(source, params)
    for reason, count in problem_counts(data.problems).items():
        print(f"{count:,} images: {reason}")
    address = parser.parse_args(arguments).to
    address = address if "://" in address else str(Path(address).expanduser().resolve())
    write_shards(source, data.records, address)
    print(f"{len(data.records):,} images: {address}\nto use them: source: stream, data_dir: {address}")
    return 0


def _data(params: Params, base: Path) -> tuple[Source, Split, Sides]:
    source = open_source(params, base)
    data = load_data(source, params)
    split = data.split(params)
    return source, split, data.sides(split)


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument("params", type=Path, help="a YAML file of settings, for example params/ra.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="win over the file")
    return parser


def _settings(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[Params, Path]:
    """Read a params file and `--set`; return the settings, with absolute paths, and the project they belong to.

    A relative path in the file starts from the project around the file, one on the command line from where it is typed.
    """
    given = parser.parse_args(arguments)
    base = project_root(given.params.resolve().parent)
    params = Params.from_yaml(given.params, **dict(_assignment(parser, text) for text in given.set))
    run_dir = str(base / (params.run_dir or f"runs/{given.params.stem}"))
    return params.with_paths_under(base).model_copy(update={"run_dir": run_dir}), base


def _assignment(parser: argparse.ArgumentParser, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        parser.error(f"--set wants key=value, found {text!r}")
    if key in ("data_dir", "keep_in", "run_dir") and "://" not in value:
        return key, str(Path(value).expanduser().resolve()) if value else ""
    try:
        return key, json.loads(value)  # numbers as Python reads them: 1e-4 too
    except ValueError:
        try:
            return key, yaml.safe_load(value)
        except yaml.YAMLError:
            parser.error(f"--set {text}: YAML cannot read the value")


def _command(function: Callable[[], int]) -> Callable[[], int]:
    """A command line's form of a function: what its user can mend is said in a line, without a traceback."""

    def command() -> int:
        try:
            return function()
        except (ParameterError, SourceError, SplitError, TrainingError, RunError, KeepingError, Diverged) as error:
            print(error, file=sys.stderr)
            return 2

    return command


train_command, evaluate_command, run_command, shards_command = map(_command, (train, evaluate, run, shards))
