"""Results -> what a run may say and what it may not, by rule: each rule looks at numbers, never at a name.

The same sentences stand in the last chapter and, as fields, in results.json.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lib.conformal import achieved_rate
from lib.evaluation import FALSE_ALARM_RATE, UNKNOWN, difference_text, shown

WIDE, SLOWER = 0.1, 1.5  # an interval whose second decimal means nothing; times the seconds of the fastest
FROZEN = ("knn", "patchcore")  # rows that have learnt from no chest X-ray
Results = Mapping[str, Any]


class Claim(NamedTuple):
    """What a `rule` says that a run may say, or may not; `says` goes on after "This run may (not) say that"."""

    rule: str
    may: bool
    says: str


def promise(results: Results) -> dict[str, Any] | None:
    """What the calibration images promise: the usual rate, what may come of it by chance, and what came of each row.

    None for fewer than 19 of them, who cannot promise 5 %. Rows without a threshold are left out.
    """
    n, rows = results["calibration_images"], results["rows"]
    if FALSE_ALARM_RATE * (n + 1) < 1:
        return None
    rate = achieved_rate(n, FALSE_ALARM_RATE, rows["n_normal"])
    came = {m: round(1 - one["threshold"]["specificity"], 9) for m, one in rows["methods"].items() if one["threshold"]}
    return {"promised": FALSE_ALARM_RATE, "low": rate.low, "high": rate.high, "rows": came}


def _ranks(results: Results) -> Iterator[Claim]:
    for name, one in results["evaluation"]["methods"].items():
        area = one["auroc"]
        apart = area["low"] > 0.5 or area["high"] < 0.5
        where = "above" if area["low"] > 0.5 or not apart else "below"
        why = f"AUROC {shown(area)}" + ("" if apart else ", which contains 0.5")
        yield Claim("rank", apart, f"{name} ranks abnormal films {where} normal ones: {why}")


def _differ(results: Results) -> Iterator[Claim]:
    others = {(d["first"], d["second"]): d["auroc"] for d in results["rows"]["differences"]}
    for one in results["evaluation"]["differences"]:
        first, second, area = one["first"], one["second"], one["auroc"]
        if area["low"] <= 0 <= area["high"]:
            yield Claim(
                "difference", False, f"{first} or {second} ranks better, or that they are alike: {difference_text(one)}"
            )
            continue
        better, worse, sign = (first, second, 1) if area["value"] > 0 else (second, first, -1)
        yield Claim("difference", True, f"{better} ranks these films better than {worse}: {difference_text(one)}")
        gone = [
            f"{what} {shown(found)}"
            for what in ("chosen", "combined")
            if (found := others.get((f"{first}, {what}", f"{second}, {what}")))
            and not min(sign * found["low"], sign * found["high"]) > 0
        ]
        if gone:
            why = f"the difference of the other scores, {first} − {second}: {'; '.join(gone)}"
            yield Claim("score", False, f"{better} is better than {worse} whatever score is made of it: {why}")


def _explained(results: Results) -> Iterator[Claim]:
    for name, verdict in results["audit"]["verdicts"].items():
        clear = verdict["explained"] is False
        says = f"{name} sees {'more than anything trivial that was checked' if clear else 'disease'}"
        yield Claim("confound", clear, f"{says}: {verdict['sentence'].partition('. ')[0].removesuffix('.')}")


def _frozen(results: Results) -> Iterator[Claim]:
    behind = []
    for rival in FROZEN:
        found = [d for d in results["rows"]["differences"] if d["second"] == rival]
        if above := [d["first"] for d in found if d["auroc"]["low"] > 0]:
            yield Claim("frozen features", True, f"better than {rival} rank, of {len(found)}: {'; '.join(above)}")
        elif found:
            best = max(found, key=lambda d: d["auroc"]["value"])
            behind.append(f"none of {len(found)} scores ranks better than {rival}, at best {difference_text(best)}")
    if behind:
        yield Claim("frozen features", False, f"training on chest X-rays helps: {'; '.join(behind)}")


def _promises(results: Results) -> Iterator[Claim]:
    if not (made := results["promise"]):
        few = f"{results['calibration_images']} calibration images cannot promise {100 * FALSE_ALARM_RATE:.0f} %"
        yield Claim("false alarms", False, f"a false alarm rate is kept: {few}")
        return
    for name in results["evaluation"]["methods"]:
        if name in made["rows"]:
            rate, high = made["rows"][name], made["high"]
            why = f"{100 * rate:.0f} % of the normal test images alarm, where chance allows up to {100 * high:.0f} %"
            says = f"{name} keeps a promise of {100 * made['promised']:.0f} % false alarms: {why}"
            yield Claim("false alarms", rate <= high, says)


def _places(results: Results) -> Iterator[Claim]:
    if not (located := results.get("localisation")):
        yield Claim("localisation", False, "a map shows where a lesion is: none is marked in these films")
        return
    regions = {region: of for region, of in located["regions"].items() if of}
    for name in dict.fromkeys(
        name for of in regions.values() for name in of if name in results["evaluation"]["methods"]
    ):
        margins = {region: (of[name]["margins"] or {}).get("average_precision") for region, of in regions.items()}
        known = {region: margin for region, margin in margins.items() if margin}
        why = "; ".join(
            f"{region} {margin['value']:+.3f} [{margin['low']:+.2f}, {margin['high']:+.2f}]"
            for region, margin in known.items()
        )
        why = (
            f"average precision over a map of where lesions are in other patients: {why}"
            if why
            else "too few patients with a lesion for a prior"
        )
        beats = bool(known) and all(margin["low"] > 0 for margin in known.values())
        yield Claim("localisation", beats, f"{name} shows where a lesion is: {why}")


def _readings(results: Results) -> Iterator[Claim]:
    mine = results["evaluation"]
    for other in results["other_labels"]:
        for name, one in other["methods"].items():
            area, own = one["auroc"], mine["methods"][name]["auroc"]
            inside = own["low"] <= area["value"] <= own["high"]
            why = f"AUROC {shown(own)} by {mine['labels']}, {shown(area)} by {other['labels']}"
            yield Claim("labels", inside, f"{name} does as well whoever reads the films: {why}")


def _sizes(results: Results) -> Iterator[Claim]:
    evaluation = results["evaluation"]
    widest = max(one["auroc"]["high"] - one["auroc"]["low"] for one in evaluation["methods"].values())
    if widest > WIDE:
        n = f"{evaluation['n_normal']} normal and {evaluation['n_abnormal']} abnormal images"
        yield Claim(
            "precision", False, f"an AUROC is known to its second decimal: with {n} an interval is {widest:.2f} wide"
        )
    few = [
        f"{one['column']} {one['value']} ({one['why']})"
        for one in evaluation["strata"]
        if one["why"] and one["value"] != UNKNOWN
    ]
    if few:
        yield Claim("groups", False, f"anything holds within {'; '.join(few)}")


def _training(results: Results) -> Iterator[Claim]:
    budgets = {name: entry["budget"] for name, entry in results["methods"].items()}
    seen, seconds = {b["images_seen"] for b in budgets.values()}, {name: b["seconds"] for name, b in budgets.items()}
    slow, fast = (of(seconds, key=seconds.__getitem__) for of in (max, min))
    if len(budgets) > 1 and len(seen) == 1:
        yield Claim("budget", True, f"each method has seen {seen.pop():,} images")
    if seconds[slow] > SLOWER * seconds[fast] > 0:  # tenths: a tiny run's may be 0
        times = f"{slow} took {seconds[slow] / seconds[fast]:.1f} times the seconds of {fast}"
        yield Claim("budget", False, f"the order is the same at equal seconds: {times}")
    yield Claim("seeds", False, "another training would give the same: each method was trained once")


def _whose(results: Results) -> Iterator[Claim]:
    tested = results["test_images"]
    if results["synthetic"]:
        yield Claim("synthetic", False, "anything holds for patients: these are synthetic images")
    elif not tested["ages"]:
        yield Claim("ages", False, "it holds for any age: the ages of the test patients are not known")
    elif tested["ages"][1] < 18 or tested["ages"][0] >= 18:
        who, whom = ("children", "adults") if tested["ages"][1] < 18 else ("adults", "children")
        why = f"{who} only: {tested['ages'][0]:g} to {tested['ages'][1]:g} years where it is known"
        yield Claim("ages", False, f"anything holds for {whom}: {why}")
    if results["patient_separation"] != "verified":
        why = f"patient separation is {results['patient_separation']}"
        yield Claim("patients", False, f"no patient is both in training and in the test: {why}")
    if len(tested["sources"]) < 2:
        from_ = tested["sources"][0] if tested["sources"] else "a source that is not named"
        yield Claim("elsewhere", False, f"it holds in another hospital: all test images come from {from_}")
    yield Claim("device", False, "anybody should be treated by it: this is not a medical device")


RULES = (_ranks, _differ, _explained, _frozen, _promises, _places, _readings, _sizes, _training, _whose)


def claims(results: Results) -> dict[str, list[dict[str, str]]]:
    """Return what may be said of a run's results, evaluated (their `promise` too) and audited, and what may not.

    By rule, ready for JSON.
    """
    found = [claim for rule in RULES for claim in rule(results)]
    return {
        name: [{"rule": claim.rule, "says": claim.says} for claim in found if claim.may == may]
        for name, may in (("may", True), ("may_not", False))
    }
