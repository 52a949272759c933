"""The base of every type in `results.json`."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of a result: frozen, without undeclared fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
