"""The run folder: all files of a run, written so that an interruption loses nothing that was finished.

`status.json` (running, ok or failed, and why), `params.json`, `split.json`, `problems.csv`, `metrics.jsonl` (one row
per epoch and method), `yardstick.json` (what principal components achieve), `checkpoints/`, `reconstructions/`,
`scores.parquet` (one row per image), `candidates.parquet` and `candidates.csv` (every score of every kept epoch),
`curve.parquet` (the test images' scores after each kept epoch), `results.json`, `stages.json` (what each stage has read
and written), `figures/` (PNG; charts also as SVG), `tables/*.csv`; a runner adds the executed `notebook.ipynb` and
`report.html`.
"""

import errno
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from pydantic import BaseModel, ValidationError

from lib.data.dataset import Split
from lib.evidence.marks import Yardstick
from lib.evidence.results import VERSION, Results
from lib.files import replacing, write_csv, write_json
from lib.params import ParameterError, Params
from lib.runs.keeping import Keeper
from lib.runs.status import RunError, Status, after_each_cell, reason, stoppable

Model = TypeVar("Model", bound=BaseModel)


class Run:
    """One run's folder: its paths, its status, and its files, each written and read whole.

    `Run.open` reads. Whoever writes does so in its context, as in `with Run.start(…) as run`, or in a notebook after
    `Run.start`: then this process alone works in the folder, and an error marks the run as failed.
    """

    def __init__(self, params: Params, folder: Path) -> None:
        self.params, self.folder = params, folder
        self._status, self._context = Status(folder), ExitStack()
        self._finished = False

    @classmethod
    def start(cls, params: Params, base: Path) -> "Run":
        """Create or reopen the folder of these settings, a relative one under `base`, lock it, mark it as running.

        Raises RunError if the folder cannot be used, if another process works in it, or if it holds weights that were
        trained under other settings.
        """
        try:
            run = cls(params.with_paths_under(base), params.folder(base))
        except RuntimeError as error:  # how Python before 3.13 reports links that lead to each other
            raise RunError(f"run_dir={params.run_dir!r} leads nowhere ({error}): choose another") from None
        keeper = run.keeper  # before the folder is created: it may be refused
        run._status.claim()
        run.refuse_other_settings()
        if keeper:
            keeper.take()
        write_json(run.folder / "params.json", run.params.model_dump())
        run.mark("running")
        after_each_cell(run.fail)
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open a folder that a run has left; RunError if it is none."""
        file = folder / "params.json"
        if not file.is_file():
            raise RunError(f"{folder} is not a run folder: it has no params.json")
        settings = _content(file, "start the run again with its settings, which writes it anew")
        earlier = {"preset": "standard", "split_seed": settings.get("seed", 0)}  # before there were such settings
        try:
            return cls(Params(**earlier | settings), folder.resolve())
        except ParameterError as error:
            raise RunError(f"{file} was written by another version or is damaged ({error})") from None

    def refuse_other_settings(self) -> None:
        """Raise RunError if the folder holds weights that were trained under other settings than the run's."""
        if not any((self.folder / "checkpoints").glob("*.pt")):
            return
        if not (file := self.folder / "params.json").is_file():
            return  # the checkpoints hold their settings too, and are compared before training
        remedy = "remove it and start again: the checkpoints hold their settings too"
        saved, now = {"epochs": 0} | _content(file, remedy), self.params.training_settings()
        pairs = [f"{key}: {saved.get(key)!r} saved, {now[key]!r} now" for key in now if saved.get(key) != now[key]]
        if saved["epochs"] > self.params.epochs:
            pairs.append(f"epochs: {saved['epochs']} saved, {self.params.epochs} now; the number can only rise")
        if pairs:
            raise RunError(
                f"{self.folder} was trained under other settings ({', '.join(pairs)}): "
                "choose another run_dir, or remove it"
            )

    def __enter__(self) -> "Run":
        """Lock the folder and mark the run as running; RunError if another process works in it."""
        self._status.claim()
        self.mark("running")
        self._context.enter_context(stoppable())
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Mark the run as failed if an error, Ctrl-C, SIGTERM or SIGHUP has ended the work; release the folder."""
        self._context.close()
        if error:
            self.fail(error)
        self._status.release()

    def mark(self, status: str, why: str = "") -> None:
        """Write the run's status: running, ok or failed."""
        self._status.mark(status, why)

    def fail(self, error: BaseException) -> None:
        """Mark the run as failed by this error; a run that is finished stays so."""
        if not self._finished:
            try:
                self.mark("failed", reason(error))
            except OSError as full:  # the status stays running, and is read as cut
                print(f"status.json cannot be written ({full.strerror})", file=sys.stderr)

    def status(self) -> str:
        """Return the run's status: running, ok, failed, cut (its process is gone), or unknown (it has none)."""
        return self._status.read()

    def finish(self) -> None:
        """Mark the run as ok and keep its files; a figure that is saved later is kept at once.

        Under `imgae-run` the runner does so, when the report is written too.
        """
        if self._status.claimed:
            self.mark("ok")
            self._finished = True
            self.keep()

    @cached_property
    def keeper(self) -> Keeper | None:
        """The keeper of copies in the folder `keep_in`; None without one."""
        return Keeper(Path(self.params.keep_in), self.folder) if self.params.keep_in else None

    def keep(self) -> None:
        """Copy new and changed files to `keep_in`, if it is set."""
        if self.keeper:
            self.keeper.keep_all()

    def checkpoint(self, method: str) -> Path:
        """Return the file of a method's weights."""
        return self.folder / "checkpoints" / f"{method}.pt"

    def write_split(self, split: Split) -> None:
        """Write split.json and problems.csv; RunError if the folder holds weights that saw another split."""
        file = self.folder / "split.json"
        remedy = "remove it and start again: the checkpoints hold the split's hash too"
        saved = _content(file, remedy).get("hash") if file.is_file() else split.hash
        if saved != split.hash and any((self.folder / "checkpoints").glob("*.pt")):
            raise RunError(
                f"{self.folder} was trained on split {saved}, but the images now give split {split.hash}: train again "
                "in another run_dir, or restore the images"
            )
        write_json(file, split.manifest)
        write_csv(self.folder / "problems.csv", split.problems, index=False)

    def log(self, method: str, history: Sequence[Mapping[str, float]]) -> None:
        """Replace a method's rows of metrics.jsonl, and copy its checkpoints to `keep_in`.

        Rows of a damaged file are dropped: training and evaluating write each method's again, from its checkpoint.
        """
        try:
            rows = [row for row in self._metrics() if row["method"] != method]
        except RunError as error:
            print(f"{error}; written anew", file=sys.stderr)
            rows = []
        rows += [{"method": method, **row} for row in history]
        with replacing(self.folder / "metrics.jsonl") as out:
            out.writelines((json.dumps(row) + "\n").encode() for row in rows)
        if self.keeper:
            self.keeper.keep_checkpoints()

    def history(self, method: str) -> list[dict[str, float]]:
        """Return a method's rows of metrics.jsonl, one per epoch."""
        rows = [row for row in self._metrics() if row["method"] == method]
        return [{key: value for key, value in row.items() if key != "method"} for row in rows]

    def _metrics(self) -> list[dict[str, Any]]:
        file = self.folder / "metrics.jsonl"
        try:
            rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
            return [{**row, "method": str(row["method"])} for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{file} is damaged ({error}): imgae-evaluate {self.folder} makes it again") from None

    def write_yardstick(self, yardstick: Yardstick) -> None:
        """Write yardstick.json, beside which the health in metrics.jsonl is read."""
        write_json(self.folder / "yardstick.json", yardstick.model_dump(mode="json"))

    def yardstick(self) -> Yardstick:
        """Read yardstick.json; RunError if training has not written it."""
        if not (file := self.folder / "yardstick.json").is_file():
            raise RunError(f"{self.folder} has no yardstick.json: an older version has trained it; train it again")
        remedy = "remove it, and train again"
        return _validated(Yardstick, file, _content(file, remedy), remedy)

    def write_scores(self, table: pd.DataFrame) -> None:
        """Write scores.parquet."""
        with replacing(self.folder / "scores.parquet") as out:
            table.to_parquet(out, index=False)

    def write_curve(self, table: pd.DataFrame) -> None:
        """Write curve.parquet."""
        with replacing(self.folder / "curve.parquet") as out:
            table.to_parquet(out, index=False)

    def curve(self) -> pd.DataFrame:
        """Read curve.parquet, the test images' scores at each kept point of training; RunError if it cannot be read."""
        return read_table(self._scored("curve.parquet"), self.remedy)

    def scores(self) -> pd.DataFrame:
        """Read scores.parquet, a row per image: record, side, every score; RunError if it cannot be read."""
        return read_table(self._scored("scores.parquet"), self.remedy)

    def write_results(self, results: Results) -> Results:
        """Write results.json, and return the results."""
        write_json(self.folder / "results.json", results.model_dump(mode="json"))
        return results

    def results(self) -> Results:
        """Read results.json; RunError if there is none, if it is damaged, or if an older version has written it."""
        file = self._scored("results.json")
        content = _content(file, self.remedy)
        if content.get("version") != VERSION:
            raise RunError(
                f"{file} was written by an older version: run `imgae-evaluate {self.folder}` to write it again"
            )
        return _validated(Results, file, content, self.remedy)

    @property
    def remedy(self) -> str:
        """What makes a damaged file of scores or results again; a run that was kept for a study has no status."""
        if (self.folder / "status.json").is_file():
            return f"imgae-evaluate {self.folder} makes it again"
        return "keep the run again, with imgae-study FOLDER RUN"

    def _scored(self, name: str) -> Path:
        if not (file := self.folder / name).is_file():
            raise RunError(f"{self.folder} has no {name} yet: score it first (imgae-evaluate {self.folder})")
        return file

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Write figures/<name>.png, and .svg for a chart without images; return the figure, to be shown."""
        figure.set_label(name)  # by which the report finds the file
        file = self.folder / "figures" / f"{name}.png"
        with replacing(file) as out:
            figure.savefig(out, format="png", dpi=150, bbox_inches="tight")
        if not any(ax.images for ax in figure.axes):  # as vectors, images would become larger and no sharper
            same = rc_context({"svg.fonttype": "none", "svg.hashsalt": name})  # text as text; the same bytes every time
            with replacing(file.with_suffix(".svg")) as out, same:
                figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
        if self._finished:
            self.keep()
        return figure

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write tables/<name>.csv."""
        write_csv(self.folder / "tables" / f"{name}.csv", table)


def _content(file: Path, remedy: str) -> dict[str, Any]:
    """Return what a JSON file holds; RunError with the `remedy` if it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise RunError(f"{file} is damaged (it holds {type(content).__name__}, not an object): {remedy}")
    return content


def _validated(kind: type[Model], file: Path, content: dict[str, Any], remedy: str) -> Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise RunError(f"{file} is damaged ({place}: {wrong['msg']}): {remedy}") from None


def read_table(file: Path, remedy: str) -> pd.DataFrame:
    """Return what a parquet file holds; RunError with the `remedy` if it is missing or damaged."""
    try:
        return pd.read_parquet(file)
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):  # of the disk, and not of the file
            raise
        raise RunError(f"{file} is damaged ({str(error).splitlines()[0]}): {remedy}") from None
