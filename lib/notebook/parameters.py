"""The notebook's parameters cell: generated from `Params`, and read back with what papermill injects below it."""

import ast
import json
import re
import textwrap
from collections.abc import Mapping, Set
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lib.params import PRESETS, ParameterError, Params
from lib.refusals import allowed
from lib.strict_yaml import NUMBER

TITLE = "# @title Parameters"
INJECTED_TITLE = "# Parameters"  # papermill's first line in the cell that it injects
FIRST = (
    "preset",
    "methods",
    "source",
    "data_dir",
    "image_size",
    "epochs",
    "seed",
    "run_dir",
)  # what most runs change, in order
WIDTH = 120  # characters of a line
KINDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}  # JSON's name of a type -> Python's


def parameters_cell(model: type[BaseModel] = Params) -> str:
    """Return the source of the cell: plain values with form field and help, those that most runs change first.

    There is one cell, because papermill injects its values below the first tagged cell: a second would undo them.
    """
    names = sorted(model.model_fields, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    lines, schemas = [TITLE], model.model_json_schema()["properties"]
    for title, common in {"What most runs change": True, "Everything else": False}.items():
        group = [name for name in names if (name in FIRST) == common]
        lines += ["", f"# @markdown **{title}**"] if group else []
        lines += [line for name in group for line in field_lines(name, model.model_fields[name], schemas[name])]
    return "\n".join(lines)


def field_lines(name: str, field: FieldInfo, schema: Mapping[str, Any]) -> list[str]:
    """Return the line that sets a parameter, its help at the end, or above where the line would be too wide.

    The form field states the allowed values if Colab has a word for them; otherwise the help does. What the preset sets
    is None, to be left open.
    """
    try:
        kind = KINDS.get(schema.get("type", "")) or f"list[{KINDS[schema['items']['type']]}]"
    except KeyError:
        raise TypeError(
            f"Params.{name} has no form field: {schema}; wanted text, a number, true or false, or a list of one"
        ) from None
    form: dict[str, Any] | list[str] = schema.get("enum") or {"type": schema["type"].replace("array", "raw")}
    if isinstance(form, dict):
        form |= {limit[:3]: schema[limit] for limit in ("minimum", "maximum") if limit in schema}
    value = str(field.default) if isinstance(field.default, bool) else json.dumps(field.default, ensure_ascii=False)
    if presets := schema.get("presets"):
        value, form = "None", {"type": "raw"}
    shape = f"= {value}  # @param {json.dumps(form, ensure_ascii=False, separators=(',', ':'))}"
    typed = f"{name}: {kind} {shape}"
    line = f"{name} {shape}" if presets or len(typed) > WIDTH else typed  # papermill reads no type with | None
    unsaid = presets or schema["type"] == "array" or any(limit.startswith("exclusive") for limit in schema)
    about = f"{field.description} ({allowed(schema).partition(', ')[2]})" if unsaid else field.description or ""
    if presets:
        about += f"; None: {', '.join(f'{name} {value}' for name, value in zip(PRESETS, presets, strict=True))}"
    if len(f"{line} # {about}") <= WIDTH:
        return [f"{line} # {about}"]
    return [*(f"# {part}" for part in textwrap.wrap(about, WIDTH - 2, break_on_hyphens=False)), line]


def read_parameters(namespace: Mapping[str, Any], model: type[Params] = Params) -> Params:
    """Return what the parameters cell, and the cell that papermill injected below it, set in `namespace`.

    Names and values are read from the text of those two cells. So a misspelt name, which Python and papermill accept,
    is found, and a chapter may use a parameter's name for a value of its own. Of each cell the last run counts, and
    the later cell wins. Without cells, as in an IDE, the names in `namespace` count.

    Raises:
        ParameterError: A setting is wrong, computed, set twice in a cell or written in another base; or a later cell
            sets one to a plain value, which has no effect there.

    """
    cells = [_below_magic(cell) for cell in namespace.get("In", [])]
    own = [n for n, cell in enumerate(cells) if _is_parameters(cell, model.model_fields.keys())]
    injected = [n for n, cell in enumerate(cells) if cell.split("\n")[0].rstrip() == INJECTED_TITLE]
    for number in range(max(own, default=0), len(cells)):
        if number not in own + injected and (ignored := _plainly_set(cells[number], model.model_fields.keys())):
            raise ParameterError(
                f"In[{number}] sets {', '.join(ignored)}, which has no effect there: the settings are read from the "
                f"cell that begins with `{TITLE}`. Set them there, then run that cell and this one again. If "
                f"In[{number}] is meant to be that cell, write this line above it; else choose other names"
            )
    read = sorted(own[-1:] + injected[-1:])
    settings = {} if read else {name: namespace[name] for name in model.model_fields if name in namespace}
    for number in read:
        settings |= settings_in(cells[number])
    return model(**settings)


def settings_in(cell: str) -> dict[str, Any]:
    """Return the plain values that a parameters cell sets, by name; ParameterError names the line that is wrong."""
    try:
        tree = ast.parse(cell)
    except SyntaxError as error:
        why = f", {error.msg}" if "leading zeros" in error.msg else ""
        raise ParameterError(f"the parameters cell is not plain Python, line {error.lineno}{why}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            written = ast.get_source_segment(cell, node) or ""
            if not NUMBER.fullmatch(written):
                raise ParameterError(
                    f"line {node.lineno} of the parameters cell: {written} is not a plain number; write {node.value!r}"
                )
    settings: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for statement in tree.body:
        for name, value in settings_of(statement).items():
            if name in settings:
                raise ParameterError(
                    f"line {statement.lineno} of the parameters cell sets {name} again, first in line {lines[name]}; "
                    "keep one"
                )
            settings[name], lines[name] = value, statement.lineno
    return settings


def settings_of(node: ast.stmt) -> dict[str, Any]:
    """Return the plain values that a line sets, by name; ParameterError if it computes one, or does anything else."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        found = ast.unparse(node).split("\n")[0]
        raise ParameterError(f"`{found}` does not set a parameter; the cell takes lines `name = value` only")
    if node.value is None:
        raise ParameterError("a line of the parameters cell has a name and no value: write name = value")
    try:
        value = ast.literal_eval(node.value)
    except ValueError:
        found = ast.unparse(node.value)
        raise ParameterError(f"{found} is computed; the parameters cell takes plain values only") from None
    settings: dict[str, Any] = {}
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        parts, values = (target.elts, value) if isinstance(target, ast.Tuple) else ([target], [value])
        settings |= zip(map(ast.unparse, parts), values, strict=True)
    return settings


def _plainly_set(cell: str, known: Set[str]) -> list[str]:
    """Return the parameters that a cell sets, outside functions and loops, to a value made of no other names."""
    try:
        nodes: list[ast.stmt] = ast.parse(cell).body
    except SyntaxError:
        return []
    found = []
    for node in nodes:
        if isinstance(node, ast.If | ast.With | ast.Try):
            nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
            names = [inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)]
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]
            found += [name for name in stored if name in known and known >= {*names}]
    return found


def _below_magic(cell: str) -> str:
    """Return a cell of IPython's `In` as Python, without a `%%time` above it."""
    magic = re.fullmatch(r"get_ipython\(\)\.run_cell_magic\('\w+', '.*?', ('.*'|\".*\")\)\s*", cell, re.S)
    try:
        return ast.literal_eval(magic[1]) if magic else cell
    except (SyntaxError, ValueError):  # it looks like that, and a reader wrote it
        return cell


def _is_parameters(cell: str, known: Set[str]) -> bool:
    """Say whether this is the parameters cell: by its title, or, if a reader took that, by what it assigns."""
    titled = re.match(rf"(#.*\n|[^\S\n]*\n)*{TITLE}[^\S\n]*({{.*}})?[^\S\n]*$", cell, re.M)
    return bool(titled) or len(known & set(re.findall(r"^(\w+)\s*(?::[^=\n]*)?=", cell, re.M))) > len(known) / 2
