"""Studies -> docs/RESULTS.md: all tables of research/results, what was run, and the commands that reproduce them.

Every number comes from the studies and, for the audit and for localisation, from what is kept of a study's first run.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby

import pandas as pd

from lib.evidence.ensembles import COMBINATION
from lib.evidence.results import Results, method_of
from lib.evidence.seeds import FORMS
from lib.evidence.study import MeanDifference, MeanEvaluation, Study, auroc_by_map, variance_shares
from lib.evidence.wording import percent
from lib.figures import studies as tables
from lib.figures.progress import curve_table, progress_table
from lib.figures.studies import forms
from lib.figures.tables import budget_table
from lib.runs.archive import StudyError
from lib.runs.reproduction import commands, described

PRIMARY = ("adult", "strict_label", "unet", "ra")
"""The comparison that was fixed before any result: the set, the labels, and two methods, by their mean residual."""
MAIN, CURVES, SECONDS, LARGE = "", "curves", "seconds", "128"
TITLES = {
    MAIN: "Equal numbers of images seen",
    CURVES: "Learning curves",
    SECONDS: "Equal seconds",
    LARGE: "Images of 128 px",
}
"""A study's title, by what follows the set in its file's name."""
INTRODUCTION = """\
# Results

This page holds all tables of [`research/results`](../research/results). It is written by

    imgae-study docs/RESULTS.md research/results/*.json

**Sets.** *adult* is the evidence. `strict_label` holds readings by radiologists; `label` was mined from reports and
shows the effect of label noise. *pediatric* is a quick start and no evidence, because the originals of its normal
images are larger and sharper. The heading of a column names the set, the labels, and the number of normal / abnormal
test images.

**Intervals.** An AUROC is the mean over the seeds of a score. Its 95 % interval comes from {resamples:,}
bootstrap resamples of patients and holds for these seeds; *seeds as draws* also counts the variation between seeds.
Differences are paired: the same resamples, and the seeds that both scores have. *Not told apart* means that the
interval contains zero.

**Scores.** Each method has three. `ra` is the mean absolute residual at the last epoch. `ra, chosen` is the epoch and
the score that best separate normal validation images from copies with painted opacities, which needs no label.
`ra, combined` joins several such scores as conformal p-values. References need no training loop.
"""
BEYOND = """\
Each score is standardised by the calibration normals of its run and averaged over the seeds. The *combination*, fixed
before it was evaluated, is the mean of the combined scores of all methods that every seed has and that give back at
most half of a pasted square, and of the references in frozen features.
"""
OVER_TRAINING = """\
Points were fixed beforehand. AUROC is on test images, [health](IMG_AE_DX_ARCHITECTURE.md#57-health-without-labels) on
validation normals. A point's chosen and combined scores are made of its own epoch alone.
"""
REVERSAL = """\
**Does the reversal matter?** `si-vae` is RA without its reversed loss; `vae` also lacks its game. `ae-16` and `ae-4`
are plain autoencoders with 16 and 4 latent numbers.
"""


class Group:
    """The studies with one title, by their set, and the names of their methods, ablations and references."""

    def __init__(self, studies: Mapping[str, Study]) -> None:
        self.studies = studies
        self.evaluations = tables.evaluations(studies)
        trained = dict.fromkeys(chain(*(study.budgets for study in studies.values())))
        complete = {
            name
            for study in studies.values()
            for name in study.budgets
            if list(study.evaluation.scores[name].auroc.seeds) == study.seeds
        }
        self.methods = [name for name in trained if name in complete]
        """Run with every seed."""
        self.ablations = [name for name in trained if name not in complete]
        """Run with some of the seeds."""
        names = dict.fromkeys(chain(*(evaluation.scores for evaluation in self.evaluations.values())))
        self.references = [name for name in names if method_of(name) not in trained]

    def pairs(self, first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
        """Return the compared pairs of a score of the `first` and one of the `second`, the primary comparison first."""
        found = dict.fromkeys((d.first, d.second) for one in self.evaluations.values() for d in one.differences)
        wanted = [pair for pair in found if method_of(pair[0]) in first and method_of(pair[1]) in second]
        return sorted(wanted, key=lambda pair: pair != PRIMARY[2:])


def markdown(table: pd.DataFrame, bold: Sequence[tuple[str, str]] = ()) -> str:
    """Return a table as Markdown, the cells of these rows and columns in bold."""
    cells = table.copy()
    for place in bold:
        cells.loc[place] = f"**{cells.loc[place]}**"
    lines = [[str(table.index.name), *table.columns], ["---"] * (table.shape[1] + 1)]
    lines += [[f"`{row}`", *values] for row, values in zip(cells.index, cells.to_numpy(), strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def verdicts(differences: Sequence[MeanDifference]) -> str:
    """Return a sentence for each difference, as a list."""
    return "".join(f"- {tables.verdict(difference)}\n" for difference in differences) or "Not run.\n"


def primary(group: Group) -> Iterator[str]:
    """Yield the primary comparison."""
    name, labels, first, second = PRIMARY
    study = group.studies[name]
    evaluation = next(one for one in study.evaluations if one.labels == labels)
    yield "## The primary comparison\n"
    yield (
        f"Fixed before any result: the {name} images of {study.settings.image_size} px, with {evaluation.n_normal} "
        f"normal and {evaluation.n_abnormal} abnormal ones in the test; the labels,\n`{labels}`; the methods, "
        f"`{first}` and `{second}`; and their score, the mean absolute residual.\n"
    )
    yield verdicts(evaluation.among([(first, second)]))
    yield markdown(tables.seeds_table(evaluation, [first, second], [(first, second)]))


def scores(group: Group, is_main: bool) -> Iterator[str]:
    """Yield the AUROC of methods, ablations and references."""
    table = tables.score_table(group.studies, forms(group.methods))
    column = next((title for title in table if title.startswith(", ".join(PRIMARY[:2]))), "")
    yield "### Methods\n" + ("\nThe primary comparison is in bold.\n" if is_main else "")
    yield markdown(table, [(row, column) for row in PRIMARY[2:]] if is_main else [])
    for form in FORMS if group.ablations else ():
        yield f"### Ablations, {form}\n"
        yield markdown(tables.score_table(group.studies, forms(group.ablations, [form])))
    yield "### References\n"
    yield markdown(tables.score_table(group.studies, group.references))


def differences(group: Group) -> Iterator[str]:
    """Yield the differences of methods and ablations from each other and from a reference."""
    for what, others in {"each other": group.methods, "a reference": group.references}.items():
        if pairs := group.pairs(group.methods, others):
            yield f"### Differences of methods from {what}\n"
            yield markdown(tables.difference_table(group.studies, pairs))
        for form in FORMS if group.ablations else ():
            names = forms(group.ablations, [form])
            pairs = [pair for pair in group.pairs(group.ablations, others) if pair[0] in names]
            yield f"### Differences of ablations from {'RA' if others is group.methods else what}, {form}\n"
            yield markdown(tables.difference_table(group.studies, pairs))


def questions(group: Group) -> Iterator[str]:
    """Yield the answers to the four questions of chapter 7, by rule, for each set by the labels that count."""
    yield "## Four questions\n"
    for name, study in group.studies.items():
        evaluation, grid = study.evaluation, auroc_by_map(study)
        methods, maps = (percent(share) for share in variance_shares(grid))
        yield f"### {name}, {evaluation.labels}\n"
        yield (
            f"**Score or training?** Of the variance of AUROC over methods and maps, {methods} lies between methods "
            f"and {maps} between maps.\nThe rest is which map suits which method, and chance. Each number is the mean "
            "over poolings and seeds; nothing is picked.\n"
        )
        yield markdown(tables.map_table(grid, group.methods))
        yield "The cost of choosing a score without labels, and the agreement of the criterion with AUROC, by seed:\n"
        yield markdown(tables.selection_table(study))
        small = [method for method in group.ablations if not method.startswith("unet")]
        yield REVERSAL
        yield verdicts(evaluation.among([(method, "ra") for method in small]))
        yield "**Does a U-Net that cannot copy beat RA?** The plain `unet` can copy.\n"
        yield verdicts(evaluation.among([(method, "ra") for method in study.budgets if method.startswith("unet")]))
        yield from frozen(evaluation, group.pairs(list(study.budgets), ["knn"]))


def frozen(evaluation: MeanEvaluation, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield how the scores of trained methods compare with nearest neighbours in frozen features."""
    found = sorted(evaluation.among(pairs), key=lambda difference: -difference.auroc.estimate.value)
    above, even, below = ([f"`{one.first}`" for one in found if one.order == order] for order in (1, 0, -1))
    yield (
        f"**Does any of them beat frozen features?** {len(found)} scores of trained methods are compared with nearest "
        f"neighbours\nin frozen features. Above: {len(above)} ({'; '.join(above) or 'none'}). Below: {len(below)}. "
        f"Not told apart: {len(even)}. The highest three:\n"
    )
    yield verdicts(found[:3])


def details(group: Group, first_runs: Mapping[str, Results]) -> Iterator[str]:
    """Yield what the seeds add, copying, false alarms, the audit and localisation."""
    yield "## What the seeds add\n\nBy the labels that count. The standard deviations (SD) are of the mean.\n"
    for name, study in group.studies.items():
        yield f"### Seeds, {name}, {study.evaluation.labels}\n"
        yield markdown(tables.seeds_table(study.evaluation, forms(group.methods), []))
        yield markdown(tables.seeds_table(study.evaluation, [], group.pairs(group.methods, group.methods)))
    yield "## Copying\n\nThe share of a white square, and of a shuffled patch, that is reconstructed, by seed.\n"
    yield markdown(tables.copied_table(group.studies))
    yield "## False alarms\n\nNormal test images above the threshold that promises 5 %, by seed.\n"
    for name, study in group.studies.items():
        rates = chain(*(promise.rates.values() for promise in study.false_alarms.values()))
        yield f"Over all scores and seeds of *{name}*: {tables.percents(rates)}.\n"
    for names in (forms(group.methods), *(forms(group.ablations, [form]) for form in FORMS), group.references):
        yield markdown(tables.false_alarm_table(group.studies, names))
    yield "## What else could explain it\n\nEach set's first run. The strongest cues were picked with test labels.\n"
    for name, results in first_runs.items():
        if results.audit:
            yield f"### Audit, {name}, {results.audit.labels}\n"
            yield "".join(f"- {verdict.sentence}\n" for verdict in results.audit.verdicts.values())
            yield markdown(tables.audit_extract(results.audit))
    yield "## Where it looks\n\nHow much better the maps find lesions than a map of where other patients have theirs.\n"
    for name, results in first_runs.items():
        if located := results.localisation:
            yield f"First {name} run: {located.marked} images with marked lesions and {located.normal} normal ones.\n"
            yield markdown(tables.margins_table(located))


def curves(group: Group) -> Iterator[str]:
    """Yield how methods rank over training, and how RA compares with the others after it."""
    for name, study in group.studies.items():
        if of_study := study.curves:
            yield f"### Over training, {name}, {of_study.labels}\n\n{OVER_TRAINING}"
            yield from (markdown(progress_table(of_study, method)) for method in of_study.points)
            for others in (of_study.points, group.references):
                if not (table := curve_table(of_study, others)).empty:
                    yield markdown(table)


def ensembles(group: Group, heading: str) -> Iterator[str]:
    """Yield how scores of several seeds, methods and references rank together."""
    parts = [
        [*forms(group.methods), COMBINATION],
        *(forms(group.ablations, [form]) for form in FORMS),
        group.references,
    ]
    found = [table for names in parts if not (table := tables.ensemble_table(group.studies, names)).empty]
    yield from [f"{heading}\n\n{BEYOND}", *map(markdown, found)] if found else []


def sizes(group: Group, main: Group) -> Iterator[str]:
    """Yield the scores of larger images beside those of the main studies, of the same seeds."""
    for name, study in group.studies.items():
        names = [one for one in study.evaluation.scores if "," not in one or method_of(one) in group.methods]
        yield f"### {name} by image size, {study.evaluation.labels}, seed {', '.join(map(str, study.seeds))}\n"
        yield markdown(tables.size_table(study, main.studies[name], names))


def check_studies(studies: Mapping[str, Study]) -> None:
    """Raise StudyError unless the page can begin with its primary comparison, and has a place for each study."""
    name, labels, *scores = PRIMARY
    if name not in studies:
        raise StudyError(f"{name} is not among the studies: the page begins with its primary comparison")
    if unknown := [one for one in studies if one.partition("-")[2] not in TITLES]:
        raise StudyError(f"the page has no title for {unknown}: name the files SET{' or SET-'.join(TITLES)}")
    if alone := [one for one in studies if one.partition("-")[0] not in studies]:
        raise StudyError(f"{alone[0]} is to stand beside {alone[0].partition('-')[0]}, which is not among the studies")
    found = {one.labels: one for one in studies[name].evaluations}
    if labels not in found:
        raise StudyError(f"{name} is evaluated by {', '.join(found)}: the page begins with its comparison by {labels}")
    if not found[labels].among([(scores[0], scores[1])]):
        raise StudyError(
            f"{name} has no comparison of {' and '.join(scores)}, with which the page begins: add its runs"
        )


def page(studies: Mapping[str, Study], first_runs: Mapping[str, Results]) -> str:
    """Return the page of the studies, by their files' names, and of the results of the first run of each main study."""
    order = sorted(studies, key=lambda name: (list(TITLES).index(name.partition("-")[2]), name))
    groups = {
        asked: Group({name.partition("-")[0]: studies[name] for name in names})
        for asked, names in groupby(order, key=lambda name: name.partition("-")[2])
    }
    main = groups[MAIN]
    parts = [INTRODUCTION.format(resamples=studies[order[0]].resamples), *primary(main)]
    for asked, group in groups.items():
        parts += [
            f"## {TITLES[asked]}\n\n{described(group.studies)}",
            *scores(group, asked == MAIN),
            *differences(group),
        ]
        if asked == MAIN:
            parts += [*questions(group), *ensembles(group, "## Beyond one run")]
            parts += details(group, {name: first_runs[name] for name in group.studies})
        if asked == CURVES:
            parts += [*curves(group), *ensembles(group, "### Beyond one run, at the end of training")]
        if asked == SECONDS:
            for name, study in group.studies.items():
                pairs = group.pairs(group.methods, [*group.methods, "knn"])
                parts += [f"*{name}*, {study.evaluation.labels}:\n", verdicts(study.evaluation.among(pairs))]
        if asked == LARGE:
            parts += sizes(group, main)
    parts.append(
        "## Cost\n\nOn one CPU core, for the seed that took the fewest seconds; other work shared the machine.\n"
    )
    parts += chain(*((f"### Cost, {name}\n", markdown(budget_table(studies[name].budgets))) for name in order))
    return "\n".join([*parts, *commands({name: studies[name] for name in order})])
