"""Experiment trackers behind one contract: none, and Weights & Biases.

A tracker gets copies only: everything that counts is in the run folder. It remembers what it has been sent, so the
whole history, or the whole folder of figures, can be sent again and again.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal

from pydantic import ValidationError

from lib.environment import needing, secret
from lib.evidence.results import Results
from lib.network import refused_certificate
from lib.params import Params, project_root
from lib.privacy import masked, public
from lib.refusals import Refusal, echo
from lib.runs.run import Run

PROJECT = "imgae-dx"  # the project's name at Weights & Biases
PATIENCE = 6.0  # seconds in which its server must answer
UPLOAD = 120.0  # seconds that a finished run waits for its upload; what is left can be sent later
MODES: dict[str, Literal["online", "offline", "disabled"]] = {
    **{"": "offline", "offline": "offline", "dryrun": "offline"},
    **{"online": "online", "run": "online", "disabled": "disabled"},
}
"""What WANDB_MODE may say, and what it means; older versions of wandb said run and dryrun."""


class TrackingError(Refusal):
    """Weights & Biases cannot be used as the environment says; the message says what to do."""


class Tracker:
    """What a run's stages tell a tracker; this one takes nothing."""

    def log(self, method: str, history: Sequence[Mapping[str, float]]) -> None:
        """Take the rows of a method's history, one per epoch, that are new."""

    def figures(self, folder: Path) -> None:
        """Take the figures in `folder`, as PNG, that are new or have changed."""

    def summarise(self, values: Mapping[str, float]) -> None:
        """Take the numbers that stand for the run."""

    def finish(self) -> None:
        """Close the tracker; it takes nothing after that."""


def open_tracker(params: Params, folder: Path) -> Tracker:
    """Return the tracker that the settings name; a tracker that this process left open is closed first.

    Raises TrackingError for an environment that Weights & Biases cannot work with.
    """
    if wandb := sys.modules.get("wandb"):
        with suppress(Exception):  # of one that has ended, and has said so
            wandb.finish()
    mode = wandb_mode(params)
    return Tracker() if mode == "disabled" else WandB(params, folder, mode)


def wandb_mode(params: Params) -> Literal["online", "offline", "disabled"]:
    """Return how a run is tracked, by its settings and WANDB_MODE.

    TrackingError if that is another word, or if the package wandb is missing.
    """
    said = os.environ.get("WANDB_MODE", "").strip()
    if params.tracking == "off":
        return "disabled"
    if mode := MODES.get(said.lower()):
        with needing("tracking", f"tracking: {params.tracking}", TrackingError):
            import wandb  # noqa: F401  # here: it takes 0.7 s, and only a run that is tracked needs it
        return mode
    raise TrackingError(
        f"WANDB_MODE={echo(said)} is not a mode of this run: set it to online, offline or disabled (shared is for "
        "several processes that write one run, and this one writes alone)"
    )


def finish(run: Run, tracker: Tracker, results: Results | None = None) -> None:
    """End a run: give its figures and headline numbers to the tracker, close it, mark the run as ok, keep its files."""
    tracker.figures(run.folder / "figures")
    if results and results.evaluation:
        methods = results.evaluation.methods
        tracker.summarise({f"{name}/auroc": found.auroc.value for name, found in methods.items()})
        tracker.summarise({f"{name}/average_precision": f.average_precision.value for name, f in methods.items()})
    tracker.finish()
    run.finish()


def _or_end(method: Callable[..., None]) -> Callable[..., None]:
    """Let the run go on where its tracker fails: the tracker says so once, and takes nothing from then on."""

    @wraps(method)
    def take(self: "WandB", *arguments: Any) -> None:
        if self._ended:
            return
        try:
            method(self, *arguments)
        except Exception as error:
            self._ended = True
            reason = " ".join(masked(str(error)).split()) or type(error).__name__
            print(f"tracking has ended ({reason}): the run goes on; {self._later()}", file=sys.stderr)

    return take


class WandB(Tracker):
    """Weights & Biases, which gets the settings as others may see them, and nothing of the machine but its load."""

    def __init__(self, params: Params, folder: Path, mode: Literal["online", "offline"]) -> None:
        """Start a run of the folder's name, which keeps its files in the folder.

        Online it needs a key: the one that wandb knows, else WANDB_API_KEY from the environment or Colab's secrets.
        Without one, or if the server refuses it or does not answer, the run stays offline and a message says why and
        how to upload it.
        """
        os.environ["WANDB_MODE"] = mode  # wandb reads it, and takes fewer words
        try:
            import wandb
            from requests.utils import get_netrc_auth

            why = ""
            if mode == "online":
                session = wandb.setup().settings
                server, key = session.base_url, session.api_key or secret("WANDB_API_KEY")
                key = key or (get_netrc_auth(server) or ("", ""))[1]
                if not (why := why_offline(server, key)):
                    try:
                        self._run = _start(params, folder, "online", key)
                    except Exception as error:  # also of a network that has gone since
                        why = f"{server} does not start the run ({' '.join(str(error).split())})"
            if mode == "offline" or why:
                self._run = _start(params, folder, "offline")
        except Exception as error:  # pydantic's and wandb's own, for one of many WANDB_ variables
            wrong = error.errors() if isinstance(error, ValidationError) else []  # the values may be secret
            reason = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in wrong) or " ".join(str(error).split())
            raise TrackingError(
                f"Weights & Biases cannot start ({reason}): correct the environment's WANDB_ variables, restart the "
                "kernel if wandb has died in it, or write tracking: off"
            ) from error
        if why:
            print(f"{why}: tracking goes on offline; {self._later()}", file=sys.stderr)
        self._ended = False
        self._rows: dict[str, int] = {}
        self._figures: dict[str, int] = {}

    def _later(self) -> str:
        return f"upload it later with `wandb sync {shlex.quote(self._run.settings.sync_dir)}`"

    @_or_end
    def log(self, method: str, history: Sequence[Mapping[str, float]]) -> None:
        """Log the new rows, each value as "method/key"."""
        if method not in self._rows:
            self._run.define_metric(f"{method}/*", step_metric=f"{method}/epoch")
        for row in history[self._rows.get(method, 0) :]:
            self._run.log({f"{method}/{key}": value for key, value in row.items()})
        self._rows[method] = len(history)

    @_or_end
    def figures(self, folder: Path) -> None:
        """Log the new figures as "figures/name"."""
        import wandb

        for file in sorted(folder.glob("*.png")):
            changed = file.stat().st_mtime_ns
            if self._figures.get(file.name) != changed:
                self._run.log({f"figures/{file.stem}": wandb.Image(str(file))})
                self._figures[file.name] = changed

    @_or_end
    def summarise(self, values: Mapping[str, float]) -> None:
        """Put the numbers into the run's summary."""
        self._run.summary.update(dict(values))

    @_or_end
    def finish(self) -> None:
        """Write what is pending, and close the run."""
        self._run.finish()


def _start(params: Params, folder: Path, mode: Literal["online", "offline"], key: str | None = None) -> Any:
    import wandb

    chosen: dict[str, Any] = {"x_disable_meta": True, "x_disable_machine_info": True, "disable_git": True}
    chosen |= {"console": "off", "save_code": False}  # what is printed, and code, names folders
    chosen |= dict.fromkeys(("program", "program_relpath", "program_abspath"), PROJECT)  # in place of its path
    limits = {"finish_timeout": UPLOAD} | ({"init_timeout": PATIENCE} if mode == "online" else {})
    chosen |= {name: seconds for name, seconds in limits.items() if f"WANDB_{name.upper()}" not in os.environ}
    known = {name: value for name, value in chosen.items() if name in wandb.Settings.model_fields}
    return wandb.init(
        project=PROJECT,
        name=folder.name,
        dir=folder,
        mode=mode,
        config=public(params.model_dump(), project_root(folder.parent), params.places),
        settings=wandb.Settings(api_key=key, host="", **known),  # no key in the environment, which a cell may print
    )


def why_offline(server: str, key: str) -> str:
    """Return why a W&B server cannot be used with this key, or "" if it can; within `PATIENCE` seconds."""
    import requests  # wandb brings it

    if not key:
        return "no WANDB_API_KEY, in the environment or Colab's secrets"
    answers: SimpleQueue[str] = SimpleQueue()

    def ask() -> None:
        question = {"query": "query { viewer { id } }"}
        try:
            answer = requests.post(f"{server}/graphql", json=question, auth=("api", key), timeout=2 * PATIENCE)
            refused = answer.status_code in (401, 403) or (answer.ok and not answer.json()["data"]["viewer"])
            wrong = f"{server} refuses the key: correct WANDB_API_KEY, or `wandb login --relogin`"
            answers.put(wrong if refused else "" if answer.ok else f"{server} answers {answer.status_code}")
        except requests.RequestException as error:
            answers.put(f"{server} cannot be reached ({refused_certificate(error) or type(error).__name__})")
        except (ValueError, KeyError, TypeError):
            answers.put(f"{server} does not answer as Weights & Biases does")

    Thread(target=ask, daemon=True).start()  # for the search for a server's name has no time limit
    try:
        return answers.get(timeout=PATIENCE)
    except Empty:
        return f"{server} has not answered within {PATIENCE:.0f} s"
