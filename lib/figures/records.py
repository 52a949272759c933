"""Records of a split, settings -> tables to read."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lib.data.dataset import Split
from lib.data.source import age_quantiles
from lib.params import Params
from lib.privacy import public


def settings_table(params: Params, main: Iterable[str], machine: Mapping[str, object], root: Path) -> pd.DataFrame:
    """Return what is known of the machine, the `main` settings, what the preset set, and what else is no default.

    Paths are those that others may see, below the project folder `root`.
    """
    main, defaults, preset = set(main), Params(preset=params.preset).model_dump(), Params.defaults(params.preset)
    rows = {name: (str(value), "the machine") for name, value in machine.items()}
    for name, value in params.model_dump().items():
        by = f"preset {params.preset}" if name in preset else "default"
        if name in main | preset.keys() or value != defaults[name]:
            rows[name] = (str(value), by if value == defaults[name] else "given")
    values = public({name: value for name, (value, _) in rows.items()}, root, params.places)
    return pd.DataFrame({"value": values, "set by": {name: by for name, (_, by) in rows.items()}})


def split_table(split: Split) -> pd.DataFrame:
    """Return what each side of a split holds: images, patients, and the 5th, 50th and 95th percentile of the ages."""
    known: Mapping[str, Any] = split.manifest["known_patients"]
    columns = {
        side: {
            "images": f"{len(records):,}",
            "known patients": f"{known[side]:,}",
            "images without a patient": f"{(records['patient'] == '').sum():,}",
            "age: 5 % – median – 95 % (images)": _ages(records),
        }
        for side, records in split.sides.items()
    }
    return pd.DataFrame(columns)


def _ages(records: pd.DataFrame) -> str:
    if (known := age_quantiles(records)) is None:
        return "not known"
    low, middle, high, count = known
    return f"{low:.0f} – {middle:.0f} – {high:.0f} ({count:,})"


def counts_table(split: Split, columns: Iterable[str]) -> pd.DataFrame:
    """Return how often each value of these columns of the records occurs on each side, the most frequent first."""
    tables = {}
    for column in columns:
        counts = {
            side: records[column].replace("", "not known").value_counts() for side, records in split.sides.items()
        }
        tables[column] = pd.DataFrame(counts).fillna(0).astype(int).sort_values("test", ascending=False)
    return pd.concat(tables, names=["column", "value"])


def manifest_table(split: Split) -> pd.DataFrame:
    """Return what else the split says of itself, such as its hash and the patients that nobody can tell apart."""
    facts = {name: value for name, value in split.manifest.items() if name not in ("sides", "images", "known_patients")}
    return pd.DataFrame({"value": {name.replace("_", " "): str(value) for name, value in facts.items()}})
