"""Time to quality: the images and the CPU minutes of one thread until RA reaches fixed marks, from the tracked trials.

    python -m benchmarks.quality benchmarks/quality.md

It trains nothing: it reads research/results/trials.csv, and writes the page with the rules, or prints its table.
"""

import sys
from pathlib import Path

import pandas as pd

from lib.files import replacing

TRIALS = Path(__file__).parents[1] / "research" / "results" / "trials.csv"
SEEDS, KL_GAP = 3, 1.5
UNKNOWN = "no VAE is tracked"
FIXED = ("image_size=", "widths=")  # by the rules
PAGE = """\
# Time to quality

How soon is RA trained to where it is RA? A row is one setting on one data set. A cell says after how many images, and
after how many CPU minutes of one thread, a mark is first met: the mean over the seeds, and in brackets each seed's
minutes.

**Marks**, on validation normals, without a label: *distance*, the Fréchet distance of reconstructions is below the
lowest that any tracked VAE reaches on these images; *residual*, the mean residual is at most that of 16 principal
components; *critic*, the mean KL of reconstructions and of samples is at least 1.5 times that of real images; *all*,
these three in one measurement.

**Rules.** 64 px, widths 8, 16, 32, 64, the training normals of one data set, one thread. Everything else may change:
settings, precision, losses, schedule, averaging, code. Measuring costs nothing and happens at least every 6,000 images.
A record needs three seeds that all meet the mark; with fewer a row is a trial. Minutes are the loop's CPU time on the
machine that ran it and compare only roughly between machines; images compare exactly.

**To add a row**

    imgae-train params/pediatric.yaml --set data_dir=PATH methods=[ra] measure_every=6 run_dir=runs/NAME-0 seed=0 ...
    imgae-study research/results/trials.csv runs/NAME-0 runs/NAME-1 runs/NAME-2
    python -m benchmarks.quality benchmarks/quality.md

The log of every measurement of every trial is [`research/results/trials.csv`](../research/results/trials.csv).

"""


def marks(rows: pd.DataFrame, best_vae: float) -> pd.DataFrame:
    """Return which measurements meet each mark, and all of them."""
    gap = rows[["kl_reconstruction", "kl_sample"]].min(axis=1) / rows["kl_real"]
    met = pd.DataFrame({"distance": rows["frechet"] < best_vae})
    met["residual"] = rows["residual"] <= rows["components_residual"]
    met["critic"] = gap >= KL_GAP
    return met.assign(all=met.all(axis=1))


def first(rows: pd.DataFrame, met: pd.Series) -> str:
    """Return when a mark is first met, or by how many seeds it is met."""
    seeds, reached = rows["seed"].nunique(), rows[met.loc[rows.index]].groupby("seed").first()
    if len(reached) < seeds:
        return (
            f"not met within {rows['images_seen'].max():,} images"
            if reached.empty
            else f"{len(reached)} of {seeds} seeds"
        )
    minutes = ", ".join(f"{value:.0f}" for value in reached["cpu_minutes"])
    return f"{reached['images_seen'].mean():,.0f}; {reached['cpu_minutes'].mean():.0f} min ({minutes})"


def table(trials: pd.DataFrame) -> str:
    """Return the Markdown table of all settings of RA."""
    lines = ["| data | settings | seeds | distance | residual | critic | all |", "|---|---|---|---|---|---|---|"]
    for data, of_data in trials.groupby("data", sort=False):
        best_vae = of_data.loc[of_data["method"] == "vae", "frechet"].min()
        unknown = pd.isna(best_vae)
        for settings, rows in of_data[of_data["method"] == "ra"].groupby("settings", sort=False):
            met, seeds = marks(rows, best_vae), rows["seed"].nunique()
            kind = f"{seeds}" if seeds >= SEEDS else f"{seeds}: a trial"
            cells = [UNKNOWN if unknown and mark in ("distance", "all") else first(rows, met[mark]) for mark in met]
            changed = "; ".join(one for one in settings.split("; ") if not one.startswith(FIXED))
            lines.append(f"| {data} | {changed} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    found = table(pd.read_csv(TRIALS)) if TRIALS.is_file() else "No trial is tracked.\n"
    if len(sys.argv) > 1:
        with replacing(Path(sys.argv[1])) as page:
            page.write((PAGE + found).encode())
    else:
        print(found)
