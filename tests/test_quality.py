"""The table of records: when each seed first meets a mark, and no record from a seed that does not."""

import pandas as pd

from benchmarks.quality import table


def rows(settings: str, seed: int, first_good: int, method: str = "ra") -> list[dict]:
    """Measurements after 10,000, 20,000 ... images that meet every mark from `first_good` on."""
    good = {"frechet": 900.0, "residual": 0.05, "kl_reconstruction": 160.0, "kl_sample": 150.0}
    bad = {"frechet": 1100.0, "residual": 0.07, "kl_reconstruction": 160.0, "kl_sample": 140.0}
    start = {"data": "pediatric", "settings": settings, "seed": seed, "method": method, "kl_real": 100.0}
    start |= {"components_residual": 0.06}
    return [
        start | (good if n >= first_good else bad) | {"images_seen": 10_000 * n, "cpu_minutes": 5.0 * n + seed}
        for n in range(1, 5)
    ]


VAE = [row | {"frechet": 1000.0 + row["cpu_minutes"]} for row in rows("vae", 0, 1, method="vae")]


def lines(*trials: list[dict]) -> list[list[str]]:
    text = table(pd.DataFrame([row for of_trial in (VAE, *trials) for row in of_trial]))
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_a_record_is_the_mean_over_the_seeds_of_when_a_mark_is_first_met():
    (line,) = lines(rows("a", 0, 2), rows("a", 1, 3), rows("a", 2, 4))
    assert line[:3] == ["pediatric", "a", "3"]
    assert line[3:] == 4 * ["30,000; 16 min (10, 16, 22)"]


def test_a_seed_that_does_not_meet_a_mark_makes_no_record():
    (line,) = lines(rows("a", 0, 2), rows("a", 1, 9), rows("a", 2, 4))
    assert line[6] == "2 of 3 seeds"


def test_fewer_seeds_are_a_trial():
    first, second = lines(rows("a", 0, 1), rows("b", 0, 9))
    assert (first[2], first[6]) == ("1: a trial", "10,000; 5 min (5)")
    assert second[6] == "not met within 40,000 images"


def test_marks_met_at_different_times_are_not_met_together():
    trial = rows("a", 0, 1)
    for row, missed in zip(trial, ("frechet", "residual", "kl_sample", "frechet"), strict=True):
        row[missed] = {"frechet": 1005.0, "residual": 0.061, "kl_sample": 149.0}[missed]
    (line,) = lines(trial)
    assert line[3:] == ["20,000; 10 min (10)", "10,000; 5 min (5)", "10,000; 5 min (5)", "not met within 40,000 images"]


def test_without_a_vae_the_distance_has_no_mark():
    text = table(pd.DataFrame(rows("image_size=64; ra_beta_kl=0.4", 0, 1)))
    cells = [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]]
    assert (cells[1], cells[3], cells[4], cells[6]) == (
        "ra_beta_kl=0.4",
        "no VAE is tracked",
        "10,000; 5 min (5)",
        "no VAE is tracked",
    )
