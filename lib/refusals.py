"""What a user can mend: the class of such errors, and the sentences in which a wrong setting is refused."""

import difflib
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from lib.privacy import masked

MOST = 20  # sentences at once


class Refusal(ValueError):
    """An error whose message says what was found, what was wanted and what to do; commands print nothing else."""


class _Short(reprlib.Repr):
    """`repr`, short and without the secrets of an address."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(masked(x), level)


_short = _Short()
_short.maxstring = _short.maxother = _short.maxlong = 120
_short.maxlist = _short.maxdict = 12


def echo(value: object) -> str:
    """Return a value as it is echoed in a message: a long one loses its middle, and an address its secrets."""
    return _short.repr(value)


def explain(problems: Sequence[Mapping[str, Any]], schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return pydantic's errors as sentences, one a line; `schemas` holds each setting's JSON schema by its name."""
    lines = list(dict.fromkeys(_sentence(problem, schemas) for problem in problems[: 10 * MOST]))
    more = [f"... and more, {len(problems)} in all"] if len(lines) > MOST else []
    return "\n".join(lines[:MOST] + more)


def _sentence(problem: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]]) -> str:
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    name, value = masked(str(problem["loc"][0]))[:100], problem["input"]
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, schemas, n=1, cutoff=0.0)[0]
        return f"{name}={echo(value)}: there is no such parameter; did you mean {near}? Known: {', '.join(schemas)}"
    where = name + "".join(f"[{step}]" for step in problem["loc"][1:])
    wanted = allowed(schemas[name])
    return f"{where}={echo(value)} is {type(value).__name__}; {name} wants {wanted}{_hint(problem, name, value)}"


def _hint(problem: Mapping[str, Any], name: str, value: Any) -> str:
    kinds = {"int_type": int, "float_type": float}
    if isinstance(value, str) and (plain := _plain(value, kinds.get(problem["type"]))):
        return f" (this is text: YAML reads 1e-4 as text; write {plain}, without quotes)"
    if problem["type"] == "list_type" and isinstance(value, str) and value.startswith("["):
        written = f"{name}: {masked(value)[:100]}"
        return f' (this is text: write it without quotes; for papermill, -y "{written}" in place of -p)'
    if problem["type"] == "list_type":
        return f" (write [{masked(str(value))[:100]}])"
    if problem["type"] == "string_type" and isinstance(value, bool | int | float):
        return " (put it in quotes)"
    if problem["type"] == "literal_error":
        choices = re.findall(r"'([\w-]+)'", problem["ctx"]["expected"])
        like = difflib.get_close_matches(str(value)[:100], choices, n=1)
        return f"; did you mean {like[0]}?" if like else ""
    return ""


def allowed(schema: Mapping[str, Any]) -> str:
    """Return the values that a field's JSON schema allows, in words."""
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    if schema["type"] == "array":
        fewest = f", at least {schema['minItems']} in all" if "minItems" in schema else ""
        return f"a list, each entry {allowed(schema['items'])}{fewest}"
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    words = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false"}[
        schema["type"]
    ]
    return ", ".join([words, *(f"{text} {schema[key]:,}" for key, text in limits.items() if key in schema)])


def _plain(text: str, kind: type | None) -> str:
    """Return how YAML reads `text` as a number of this kind, or "" if it is none."""
    try:
        number = float(text)
    except ValueError:
        return ""
    if kind is int:
        return str(int(number)) if number.is_integer() else ""
    return repr(number) if kind is float and math.isfinite(number) else ""
