"""What a sweep varies, as a user writes it, such as `seed=0..4 ra_beta_neg=64,128`: words -> the settings of each run.

| written as | values |
|---|---|
| `64,128,256` | these |
| `[unet],[ra]` | lists, in brackets |
| `0..4` | the whole numbers from 0 to 4 |
| `linear:0:0.1:5`, `log:1e-4:1e-2:5` | 5 numbers from the first to the second, equally far apart, or by equal factors |
| `uniform:0:0.1`, `loguniform:1e-4:1e-2` | one drawn at random for each draw |

Every value of one setting meets every value of the others.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lib.params import Params
from lib.refusals import Refusal, echo
from lib.strict_yaml import Misread, load

PLACES = ("data_dir", "keep_in", "run_dir")  # a comma is a part of the path
SPACED: dict[str, Callable[..., np.ndarray]] = {"linear": np.linspace, "log": np.geomspace}
DRAWN = ("uniform", "loguniform")
LONGEST = 100  # characters of a run's name
MOST = 10_000  # runs


class GridError(Refusal):
    """What a sweep should vary cannot be read, or names no runs."""


def grid(words: Mapping[str, str], draws: int = 0, draw_seed: int = 0) -> list[dict[str, str]]:
    """Return the settings of each run, each value as it would be written for one run.

    `draws` is how often the settings that are drawn at random are drawn, by a generator with this seed; it is 0 if and
    only if there are none. GridError says what cannot be read.
    """
    random = {name: text for name, text in words.items() if text.partition(":")[0] in DRAWN}
    if bool(random) != bool(draws):
        found = f"{', '.join(random)} to be drawn" if random else f"--draws {draws}, and nothing to draw"
        raise GridError(f"{found}: give both a setting such as learning_rate=loguniform:1e-4:1e-2 and --draws N")
    fixed = [[(name, value) for value in _values(name, text)] for name, text in words.items() if name not in random]
    generator = np.random.default_rng(draw_seed)
    drawn = [[(name, _draw(name, text, generator)) for name, text in random.items()] for _ in range(max(draws, 1))]
    count = len(drawn) * int(np.prod([len(axis) for axis in fixed], dtype=float))
    if count > MOST:
        raise GridError(f"{count:,} runs; a sweep has at most {MOST:,}: give fewer values, or several sweeps")
    settings = [dict([*one, *of_draw]) for of_draw in drawn for one in itertools.product(*fixed)]
    return [{name: one[name] for name in words} for one in settings]


def _values(name: str, text: str) -> list[str]:
    """Return the values that a text stands for, each as text."""
    if name in PLACES:
        return [text]
    if whole := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text):
        lowest, highest = map(int, whole.groups())
        if not 0 <= highest - lowest < MOST:
            raise GridError(f"{name}={echo(text)}: expected up to {MOST:,} whole numbers, the lowest first, as in 0..4")
        return [str(number) for number in range(lowest, highest + 1)]
    kind, *bounds = text.split(":")
    values = _between_commas(text)
    if kind in SPACED:
        first, last, count = _numbers(name, text, bounds, f"{kind}:FIRST:LAST:COUNT", kind == "log")
        if not (count.is_integer() and 2 <= count <= MOST):
            raise GridError(f"{name}={echo(text)}: COUNT is {count:g}, expected a whole number of 2 or more")
        values = [_written(name, value) for value in SPACED[kind](first, last, int(count))]
    if twice := [value for value in values if values.count(value) > 1]:
        raise GridError(f"{name}={echo(text)} gives {echo(twice[0])} twice: give each value once")
    return values


def _draw(name: str, text: str, generator: np.random.Generator) -> str:
    kind, *bounds = text.split(":")
    first, last = _numbers(name, text, bounds, f"{kind}:LOWEST:HIGHEST", kind == "loguniform")
    if kind == "loguniform":
        return _written(name, float(np.exp(generator.uniform(np.log(first), np.log(last)))))
    return _written(name, generator.uniform(first, last))


def _numbers(name: str, text: str, bounds: Sequence[str], form: str, positive: bool) -> list[float]:
    try:
        numbers = [float(bound) for bound in bounds]
    except ValueError:
        numbers = []
    if len(numbers) != form.count(":") or not np.isfinite(numbers).all() or numbers[0] >= numbers[1]:
        raise GridError(f"{name}={echo(text)}: expected {form}, with numbers of which the first is the lower one")
    if positive and numbers[0] <= 0:
        raise GridError(f"{name}={echo(text)}: factors need a first number above 0")
    return numbers


def _written(name: str, value: float) -> str:
    """Return a number with four significant digits, or a whole one for a setting that wants it."""
    field = Params.model_fields.get(name)
    return str(round(value)) if field and field.annotation is int else f"{value:.4g}"


def _between_commas(text: str) -> list[str]:
    """Return the parts of a text between commas that stand in no brackets."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def read_grid(file: Path) -> dict[str, str]:
    """Read a grid file, which gives each setting a text as above, a value, or a list of values; return them as texts.

    GridError if it cannot be read.
    """
    try:
        content = load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise GridError(f"grid file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GridError(f"{file} is not text in UTF-8; save it as UTF-8") from None
    except Misread as error:
        raise GridError(f"{file}:{error.line}: {error}") from None
    if not isinstance(content, dict) or not content:
        raise GridError(f"{file} holds no settings: expected lines of `name: [value, value]`")
    return {str(name): _text(str(name), value) for name, value in content.items()}


def _text(name: str, value: Any) -> str:
    if value == []:
        raise GridError(f"{name} has no values in the grid file: give one or more")
    values = value if isinstance(value, list) else [value]
    return ",".join(one if isinstance(one, str) else json.dumps(one) for one in values)


def names(settings: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a name for each run, made of the settings that differ between runs; it is the name of its folder."""
    runs = list(settings)
    varied = [name for name in runs[0] if len({one[name] for one in runs}) > 1]
    written = [",".join(f"{name}={_plain(one[name])}" for name in varied) or "run" for one in runs]
    return [
        name if len(name) <= LONGEST and written.count(name) == 1 else f"{name[: LONGEST - 9]}-{_digest(one)}"
        for name, one in zip(written, runs, strict=True)
    ]


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")


def _digest(settings: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
