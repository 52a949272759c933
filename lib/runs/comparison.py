"""A run's scores with those of the finished runs that its settings name, if they can be compared."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.evidence.evaluation import check_table
from lib.evidence.results import Trained, method_of
from lib.evidence.study import check_same_images
from lib.params import Params
from lib.runs.freshness import Hashes, stale, table_hash
from lib.runs.run import Run


class Comparison(NamedTuple):
    """The scores that can be compared, and the runs that they are from."""

    table: pd.DataFrame
    """One row per image: its record, and all scores."""
    found: pd.DataFrame
    """One row per run and method: whether it is used, and a remark; without a method if the run cannot be used."""
    methods: dict[str, Trained]
    columns: list[str]
    """The scores in `table`."""

    def hashes(self) -> Hashes:
        """Return the hash of each method's scores, and that of everything else in the table."""
        others, hashes = self.table, {}
        for name, trained in self.methods.items():
            columns = [column for column in self.columns if method_of(column) == name]
            hashes[f"scores of {name} in {trained.run}"] = table_hash(self.table[columns])
            hashes[f"budget of {name}"] = trained.budget.model_dump_json()
            others = others.drop(columns=columns)
        return hashes | {"records and references": table_hash(others)}


def comparable(run: Run) -> Comparison:
    """Return a run's scores with those of the runs in `compare_with` of the same split, image size and images seen.

    Only finished runs are used, and none that was trained on after it was scored; a remark names other settings that
    differ. A method of this run is never replaced by another run's; of several other runs with one method, the first
    is used. Nothing is written.
    """
    own, table = run.results(), run.scores()
    columns = [column for column in own.columns if column in table]
    methods = {name: trained for name, trained in own.methods.items() if trained.run == run.folder.name}
    found = [(name, run.folder.name, True, "") for name in methods]
    settings = run.params.training_settings() | run.params.model_dump(include={"backbone", "ra_map"})
    seen = {trained.budget.images_seen for trained in methods.values()}
    for folder in map(Path, run.params.compare_with):
        try:
            other = Run.open(folder)
            results, status = other.results(), other.status()
            unequal = [
                term for term in ("split", "image_size", "score") if getattr(results, term) != getattr(own, term)
            ]
            theirs = {name: trained for name, trained in results.methods.items() if trained.run == folder.name}
            if seen and {trained.budget.images_seen for trained in theirs.values()} - seen:
                unequal.append("number of images seen")
            if unequal:
                found.append(("", folder.name, False, f"has another {' and another '.join(unequal)}"))
                continue
            used = [name for name in theirs if name not in methods and status == "ok"]
            changed = stale(other) if used else ""
            used = [] if changed else used
            taken = [column for column in results.columns if method_of(column) in used]
            scores = other.scores()
            if used:
                check_table(scores, taken, "label")
                check_same_images({run.folder.name: table.set_index("id"), folder.name: scores.set_index("id")})
            scores = scores[["id", *taken]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.append(("", folder.name, False, f"cannot be read: {error}"))
            continue
        differs = [f"{key} {value}" for key in settings if (value := getattr(other.params, key)) != settings[key]]
        remark = f"differs in {', '.join(differs)}" if differs else ""
        remark = changed or remark if status == "ok" else f"its status is {status}"
        found += [(name, folder.name, name in used, remark) for name in theirs]
        methods |= {name: theirs[name] for name in used}
        if used:
            # A run that trains nothing adopts the number of images that the first other run has seen.
            seen = seen or {theirs[used[0]].budget.images_seen}
            table = table.merge(scores, on="id", how="left", validate="one_to_one")
            columns = list(dict.fromkeys([*columns, *taken]))
    # In a fixed order, a difference has the same sign whichever run is this one.
    order = [*Params.model_fields["methods"].default, *methods]
    return Comparison(
        table,
        pd.DataFrame(found, columns=["method", "run", "used", "remark"]),
        {name: methods[name] for name in dict.fromkeys(order) if name in methods},
        columns,
    )
