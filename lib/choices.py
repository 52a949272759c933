"""Settings whose words are the keys of a dictionary further down in `lib`, such as the methods'.

The keys are read from the file's text: importing it would take torch, which neither help nor the notebook's builder
waits for. So that dictionary is the only place that has to know a new name.
"""

import ast
from functools import lru_cache
from pathlib import Path

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError
from pydantic_core.core_schema import no_info_after_validator_function


@lru_cache
def _keys(file: Path, name: str, changed: int) -> list[str]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name and isinstance(node.value, ast.Dict):
            return [ast.literal_eval(key) for key in node.value.keys if key]
    raise LookupError(f"{file} has no dictionary {name}")


class KeyOf:
    """Says of a text, in `Annotated`, that it is a key of this dictionary at the top of this file of `lib`."""

    def __init__(self, file: str, name: str) -> None:
        self.file, self.name = file, name

    def keys(self) -> list[str]:
        """Return the keys, as the file has them now; they are plain text there."""
        file = Path(__file__).parent / self.file
        return _keys(file, self.name, file.stat().st_mtime_ns)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"enum": self.keys()}

    def _check(self, value: str) -> str:
        if value not in (keys := self.keys()):
            raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, keys))})
        return value
