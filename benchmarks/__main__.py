"""Measure, print one table, and write the figures with what they depend on.

    python -m benchmarks                       every part, into benchmarks/results.json: 20 minutes on two quiet cores
    python -m benchmarks step evidence         these parts, printed
    python -m benchmarks step --quick          a trial of a part: few laps, the smallest sizes

Nothing here is a test: a slow machine fails nothing. Figures are worth something on a machine that does nothing else.
"""

import argparse
import importlib
import json
import time
from pathlib import Path

import pandas as pd

from benchmarks.measuring import Figure, machine
from lib.files import replacing

PARTS = ("step", "threads", "files", "phantom", "scoring", "new_images", "evidence", "start", "growth")
RESULTS = Path(__file__).parent / "results.json"


def table(figures: list[Figure]) -> str:
    """Return the figures as a text table."""
    rows = []
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} [{figure.least:.2f}, {figure.most:.2f}]"
        rows.append([figure.part, figure.what, f"{figure.value:,.4g} {figure.unit}", ratio, figure.reference])
    columns = ["part", "what", "measured", "times the reference", "reference"]
    return pd.DataFrame(rows, columns=columns).to_string(index=False)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: all, and write their figures")
    parser.add_argument("--quick", action="store_true", help="few laps, the smallest sizes, nothing written")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}: choose of {', '.join(PARTS)}")
    minutes, figures, found = {}, [], machine()
    try:
        for part in options.parts or PARTS:
            start = time.perf_counter()
            for figure in importlib.import_module(f"benchmarks.{part}").figures(options.quick):
                figures.append(figure)
            minutes[part] = round((time.perf_counter() - start) / 60, 1)
    finally:  # what was measured stays, whatever ends the rest
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
        print(table(figures))
        print(
            f"minutes: {sum(minutes.values()):.1f} ({', '.join(f'{part} {spent}' for part, spent in minutes.items())})"
        )
    if not options.parts and not options.quick:
        with replacing(RESULTS) as file:
            content = {"machine": found, "minutes": minutes, "figures": [figure._asdict() for figure in figures]}
            file.write(f"{json.dumps(content, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
