"""One shard's columns -> records and files, whoever wrote it: ids as texts, classes by name, a side from its name."""

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lib.data.picture import ImageError
from lib.data.source import NORMAL_WORDS, OPTIONAL, SIZES, SourceError, side_of

COLUMNS = ("id", "label", "strict_label", *OPTIONAL, *SIZES, "digest", "twin", "place")


def as_records(name: str, schema: pa.Schema, table: pa.Table, *, labelled: bool = True) -> pd.DataFrame:
    """Return a shard's records, with classes by name, and defaults for missing columns; "" for all labels if need be.

    Raises:
        SourceError: It lacks images, labels or an id, or holds them in another form.

    """
    if absent := ({"image", "label"} if labelled else {"image"}) - set(schema.names):
        raise SourceError(f"{name} has no column {', '.join(sorted(absent))}; found {', '.join(schema.names)}")
    if not _holds_files(kind := schema.field("image").type):
        raise SourceError(f"{name} has images as {kind}: expected the bytes of their files, or {{bytes, path}}")
    records = table.to_pandas(integer_object_nulls=True)
    if not labelled:  # what is there is not read
        records = records.assign(label="", finding="")
    hub = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    for column in records:
        if classes := hub.get(column, {}).get("names"):
            records[column] = records[column].map(dict(enumerate(classes)))
    words = records["label"].fillna("")
    if not words.map(lambda word: isinstance(word, str)).all():
        raise SourceError(f"{name} has labels like {words.iloc[0]} without class names: expected words")
    for column in {"id", "patient"} & set(records):
        records[column] = records[column].map(text_of).astype(object)
    if "id" in records and (records["id"] == "").any():
        raise SourceError(f"{name} has rows without an id: give one to every row, or drop the column id")
    if "finding" not in records:
        normal = words.str.lower().isin(NORMAL_WORDS)
        records["label"] = np.select([normal, words != ""], ["normal", "abnormal"], "")
        records["finding"] = words.where(~normal, "")
    split = next(filter(None, map(side_of, re.split(r"[\W_]", name))), "")
    defaults = {"id": [f"{name}:{row}" for row in range(len(records))], "split": split}
    records = records.assign(**{k: defaults.get(k, "") for k in ("id", *OPTIONAL) if k not in records})
    return records[[column for column in COLUMNS if column in records]]


def text_of(value: Any) -> str:
    """Return an id as a text, a whole number without a decimal point, "" for none."""
    if pd.isna(value):
        return ""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def content_of(image: dict[str, Any] | bytes | None) -> bytes:
    """Return the bytes of an image's file; ImageError if the shard does not hold them."""
    content = image["bytes"] if isinstance(image, dict) else image
    if content is None:
        raise ImageError("is missing from its shard")
    return content


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_files(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)
