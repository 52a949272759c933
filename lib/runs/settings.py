"""A params file and `--set` on the command line -> the settings of a run."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.privacy import masked
from lib.refusals import echo
from lib.runs.command import Parser
from lib.strict_yaml import Misread
from lib.strict_yaml import load as load_yaml

if TYPE_CHECKING:
    from lib.params import Params

SETTINGS = """\
A params file holds the settings that differ from the defaults; those of the project are in params/. All settings are
explained in docs/USAGE.md, "Choose the settings". A wrong one is refused with what it may be.
"""


def settings_parser(program: str, description: str) -> Parser:
    """Return a parser that takes a params file and `--set`."""
    parser = Parser(program, long=True, description=description, epilog=SETTINGS)
    parser.add_argument("params", type=Path, help="a YAML file of settings, for example params/ra.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="override the file")
    return parser


def read_settings(parser: Parser, arguments: Sequence[str] | None) -> "tuple[Params, Path]":
    """Read a params file and `--set`; return the settings, with absolute paths, and the project folder."""
    typed = parser.parse_args(arguments)
    words = words_of(parser, typed.set)
    return settings_of(typed.params, {name: value_of(parser, name, text) for name, text in words.items()})


def settings_of(file: Path, values: dict[str, Any]) -> "tuple[Params, Path]":
    """Read a params file, whose settings `values` override; return them with absolute paths, and the project folder.

    Relative paths in the file start from the project folder, those on the command line from the working folder.
    """
    from lib.params import Params, project_root

    params = Params.from_yaml(file, **values)
    base = project_root(file.resolve().parent)
    run_dir = str(base / (params.run_dir or f"runs/{file.stem}"))
    return params.with_paths_under(base).model_copy(update={"run_dir": run_dir}), base


def words_of(parser: Parser, texts: Sequence[str]) -> dict[str, str]:
    """Return what `--set` gives each setting, as text."""
    words: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or "/" in name:  # an address, of which = is a part
            parser.error(f"--set expects key=value, found {echo(text)}")
        if name in words:
            parser.error(f"--set gives {name} twice; keep one")
        words[name] = value
    return words


def value_of(parser: Parser, name: str, text: str) -> Any:
    """Return the value that a text gives a setting."""
    if name in ("data_dir", "keep_in", "run_dir") and "://" not in text:
        return str(Path(os.path.expanduser(text)).resolve()) if text else ""
    try:
        read = json.loads(text)  # numbers as Python reads them: 1e-4 too
    except (ValueError, RecursionError):
        try:
            read = load_yaml(text)
        except Misread as error:
            parser.error(f"--set {masked(f'{name}={text}')[:200]}: {error}")
    if name == "compare_with" and isinstance(read, list):
        return [str(Path(os.path.expanduser(str(path))).resolve()) for path in read]
    return read
