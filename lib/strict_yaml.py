"""YAML as a person reads it: what YAML 1.1 takes for something else is refused, by line."""

import re
from typing import Any

import yaml

NUMBER = re.compile(
    r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.([0-9]+([eE][-+]?[0-9]+)?|inf|nan)", re.I
)
DROPPED = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")  # 2024-01-05 is text, << a name


class Misread(ValueError):
    """A text that is not YAML, or that YAML reads otherwise than its writer meant; `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason[:500])
        self.line = line


def load(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        Misread: It is not YAML, sets a name twice, writes a number in base 8, 16 or 60 or with underscores, holds an
            alias (a few lines of them can stand for more than fits into memory) or a tag, or is nested too deeply.

    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Misread(mark.line + 1 if mark else 1, f"this is not YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Misread(
            line, f"this is not YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        ) from None
    except RecursionError:
        raise Misread(1, "this is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """The safe loader, without what is refused or dropped."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in DROPPED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise Misread(event.start_mark.line + 1, f"*{event.anchor} is an alias; write out what it stands for")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:100]
            raise Misread(event.start_mark.line + 1, f"{tag} is a tag; write the value alone, text in quotes")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise Misread(line, f"{name} is set twice, first in line {lines[name]}; keep one")
            lines[name] = line
        return super().construct_mapping(node, deep)

    def number(self, node: Any) -> Any:
        line, integer = node.start_mark.line + 1, node.tag.endswith(":int")
        if not NUMBER.fullmatch(node.value):
            raise Misread(
                line,
                f"{node.value[:100]} is not a plain number: YAML reads a leading 0 as base 8, a colon as base 60, and "
                "drops underscores; write decimal digits alone, or text in quotes",
            )
        try:
            return self.construct_yaml_int(node) if integer else self.construct_yaml_float(node)
        except ValueError:  # thousands of digits
            raise Misread(line, f"{node.value[:100]} cannot be read as a number") from None


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.number)
