"""What the commands do once their words are understood: run the stages that chapters call, and say what came of it."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from lib.data.caches import caches, remove
from lib.data.dataset import load_data
from lib.data.source import LEFT_OUT, cache_folder, problem_counts
from lib.data.sources import open_source
from lib.data.stream import write_shards
from lib.environment import NAME, needing, secret
from lib.figures.charts import loss_curves
from lib.figures.tables import scored_images
from lib.methods.method import Method
from lib.params import Params
from lib.privacy import VARIABLE, with_secrets
from lib.runs.command import result
from lib.runs.comparison import comparable
from lib.runs.draw import draw
from lib.runs.evaluate import audit, locate
from lib.runs.evaluate import evaluate as evaluate_comparison
from lib.runs.export import export_model
from lib.runs.gallery import GALLERY, write_gallery
from lib.runs.layout import PROBLEMS, SCORES
from lib.runs.model import open_model
from lib.runs.new_images import NO_OBJECT, Asked, write_scores
from lib.runs.places import CARD
from lib.runs.prepare import prepare
from lib.runs.report import over_seeds, summary
from lib.runs.run import Run, RunError
from lib.runs.score import score
from lib.runs.seeds import STUDY, evaluate_seeds, train_seeds
from lib.runs.shown_run import shown_run
from lib.runs.status import RUNNER
from lib.runs.study import read_study
from lib.runs.tracking import finish, open_tracker, wandb_mode
from lib.runs.train import load
from lib.runs.train import train as train_method

MOST = 20  # rows that are printed
UNDONE = {LEFT_OUT: "could not be used", NO_OBJECT: "got no DICOM object"}
"""The problems of an image with which imgae-score ends in status 3, and what it then says of so many images."""
NOTEBOOK = Path("notebooks/Anomaly_Detection_Research_Colab.ipynb")


def train(params: Params, base: Path) -> int:
    """Train the methods; `base` is the project folder."""
    with Run.start(params, base) as run:
        tracker = open_tracker(run.params, run.folder)
        prepared = prepare(params, base)
        _print_problems(prepared.data.problems)
        for name in params.methods:
            trained = train_method(run, name, prepared, tracker)
            run.save_figure(loss_curves(trained.history), f"{name}-losses")
        train_seeds(run, prepared)
        finish(run, tracker)
    result(f"trained {' and '.join(params.methods)}: {run.folder}\nnext: imgae-evaluate {run.folder}")
    return 0


def evaluate(folder: Path, *, again: bool) -> int:
    """Score a trained run, compare it with those it names, write results and figures; `again`: every stage."""
    if again:
        print("--force: every stage runs")
    with Run.open(folder) as run:
        tracker = open_tracker(run.params, run.folder)
        prepared = prepare(run.params, run.folder)
        trained: dict[str, Method] = {name: load(run, name, prepared.split).method for name in run.params.methods}
        scored = score(run, prepared, trained, again=again)
        locate(run, prepared, scored, again=again)
        comparison = comparable(run)
        evaluate_comparison(run, comparison, again=again)
        results = audit(run, prepared, comparison, trained, again=again)
        draw(run, prepared, scored, comparison, again=again)
        study = evaluate_seeds(run, prepared, again=again)
        finish(run, tracker, results)
    texts = [comparison.found.to_string(index=False), summary(results), *([over_seeds(study)] if study else [])]
    result("\n\n".join(texts), "", run.folder / "results.json")
    return 0


def score_images(
    place: str, images: Sequence[str], to: Path | None, asked: tuple[float, bool, bool, bool, bool]
) -> int:
    """Score images by the model at a place; write the scores, print the most anomalous, and say what they promise."""
    model = open_model(place)
    folder = to or Path(f"scores-{model.name}")
    found = write_scores(model, images, Asked(*asked), folder)
    lost = found.problems[found.problems["consequence"] == LEFT_OUT]
    for problem in lost.itertuples():
        print(f"{problem.image}: {problem.problem}", file=sys.stderr)
    if others := len(found.problems) - len(lost):
        print(f"{others:,} more {'remark' if others == 1 else 'remarks'} in {folder / PROBLEMS}", file=sys.stderr)
    if found.before and not found.new:
        done = f"{found.before:,} of {found.before + len(lost):,} images were scored before, and nothing was done"
        result(f"{done}: remove {folder}, or name another folder with --to, to score them again")
    if not len(found.table):
        result(f"no image was scored; why not: {folder / PROBLEMS}")
    else:
        first, *_ = model.fitted.fits
        ranked = found.table.sort_values(f"{first}, p", kind="stable")
        result("", scored_images(ranked.head(MOST), list(model.fitted.fits)).to_string(index=False))
        if len(ranked) > MOST:
            result(f"... and {len(ranked) - MOST:,} images that are less anomalous by {first}")
        result("", found.about["promise"], found.about["unlike"], f"{found.about['use']}: {folder / SCORES}")
    counts = found.problems["consequence"].value_counts()
    if undone := [f"{counts[what]:,} {says}" for what, says in UNDONE.items() if what in counts]:
        print(f"exit status 3: of the images {' and '.join(undone)}; {folder / PROBLEMS} says why", file=sys.stderr)
    return 3 if undone else 0


def export(run: Path, to: Path, *, primary: bool, half: bool, onnx: bool) -> int:
    """Write a run's model into a folder that can be handed on."""
    export_model(run, to, primary=primary, half=half, onnx=onnx)
    size = sum(file.stat().st_size for file in to.iterdir())
    result(f"{to}: {size / 1e6:.1f} MB; read its {CARD} before you hand it on\nto use it: imgae-score {to} IMAGE")
    return 0


def run(params: Params, base: Path) -> int:
    """Execute the notebook; leave it, its report and the final status in the run folder."""
    notebook = find_notebook(base)
    with needing("notebook", "imgae-run", RunError):  # here: the other commands do without a notebook
        import ipykernel  # noqa: F401
        import papermill
        from traitlets.config import Config

        from lib.runs.page import publish, write_report
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
        write_gallery(shown_run(run), run.folder / GALLERY)
        write_report(executed, report, GALLERY)
        text = summary(run.results())
        if (study := run.folder / STUDY).is_file() and params.seeds:
            text += f"\n\n{over_seeds(read_study(study))}"
        run.finish()
    result("", text, f"report: {report}")
    return 0


def find_notebook(base: Path) -> Path:
    """Return the notebook of the project folder or of the checkout around this file; RunError says how to get it."""
    checkout = Path(__file__).parents[2]
    for place in (base / NOTEBOOK, checkout / NOTEBOOK):  # a user's own params file may lie outside the checkout
        if place.is_file():
            return place
    if (checkout / "build_notebook.py").is_file():
        raise RunError(f"{checkout / NOTEBOOK} is not there: run `python build_notebook.py` in {checkout}")
    raise RunError(
        f"imgae-run executes the project's notebook, which is not installed with {NAME}: clone the repository and run "
        "`make` or `pip install --editable '.[notebook]'` in it; imgae-train and imgae-evaluate do without a notebook"
    )


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


def shards(params: Params, base: Path, address: str) -> int:
    """Write a source's images as parquet shards at the address."""
    source = open_source(params, base)
    data = load_data(source, params)
    _print_problems(data.problems)
    address = address if "://" in address else str(Path(os.path.expanduser(address)).resolve())
    write_shards(source, data.records, address)
    result(f"{len(data.records):,} images: {address}\nto use them: source: stream, data_dir: {address}")
    return 0


def list_caches() -> int:
    """Print the caches of prepared images, and the space that they take."""
    found = caches(cache_folder())
    for one in found:
        state = "in use" if one.in_use else f"last used {one.used:%Y-%m-%d}"
        print(f"{one.folder.name}  {one.images:9,} images of {one.side:4} px  {one.bytes / 1e6:10,.1f} MB  {state}")
    print(f"{len(found)} caches in {cache_folder()}, {sum(one.bytes for one in found) / 1e6:,.1f} MB")
    return 0


def remove_caches(names: Sequence[str] | None, days: int) -> int:
    """Remove the caches of these names, or all that were not used for some days."""
    found = {one.folder.name: one for one in caches(cache_folder())}
    if unknown := [name for name in names or () if name not in found]:
        print(f"{unknown[0]} is no cache in {cache_folder()}: `imgae-cache list` prints their names", file=sys.stderr)
        return 2
    wanted = [name for name in found if (datetime.now() - found[name].used).days >= days] if names is None else names
    removed = {name: remove(found[name].folder) for name in wanted}
    for name, gone in removed.items():
        print(f"{name}  {'removed' if gone else 'kept: a process uses it'}")
    freed = sum(found[name].bytes for name, gone in removed.items() if gone)
    print(f"{sum(removed.values())} of {len(found)} caches removed, {freed / 1e6:,.1f} MB")
    return 0 if names is None or all(removed.values()) else 2


def _print_problems(problems: pd.DataFrame) -> None:
    for problem, count in problem_counts(problems).items():
        print(f"{count:,} images: {problem}", file=sys.stderr)
