"""The documents' numbers are those of the tracked results, and what they name is there."""

import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from published import results, study
from sklearn.metrics import roc_auc_score

from benchmarks.quality import marks
from lib.evidence.results import Estimate
from lib.evidence.seeds import CRITIC
from lib.evidence.study import SeedMean, Study
from lib.evidence.uncertainty import bootstrap
from lib.params import Params

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
HAND_WRITTEN = {name: text for name, text in TEXTS.items() if name != "docs/RESULTS.md"}
STUDIES = sorted((ROOT / "research/results").glob("*.json"))


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ {4}.*$", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings: lower case, without punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(name):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(TEXTS[name])):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme():
    reached, found = {"README.md"}, ["README.md"]
    while found:
        page = ROOT / found.pop()
        for link in re.findall(r"\]\(([^)#\s]+\.md)", prose(page.read_text(encoding="utf-8"))):
            name = (page.parent / link).resolve().relative_to(ROOT).as_posix()
            if name not in reached:
                reached.add(name)
                found.append(name)
    assert reached >= set(TEXTS)


def test_every_params_file_is_explained_and_every_one_that_is_named_is_there():
    files = {file.stem for file in (ROOT / "params").glob("*.yaml")}
    named = {name: set(re.findall(r"params/([\w-]+)\.yaml", text)) for name, text in HAND_WRITTEN.items()}
    assert set().union(*named.values()) <= files
    assert named["docs/USAGE.md"] == files


def test_every_command_that_the_documents_name_is_there():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    text = "\n".join(HAND_WRITTEN.values())
    assert set(re.findall(r"\bimgae-(?!dx)[a-z]+", text)) <= set(scripts)
    assert set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.M)) <= set(targets)


def test_every_setting_of_a_command_is_a_parameter():
    lines = re.findall(r"--set ((?:\w+=\S+ ?)+)", "\n".join(HAND_WRITTEN.values()))
    assert len(lines) > 5
    names = {assignment.partition("=")[0] for line in lines for assignment in line.split()}
    assert names <= Params.model_fields.keys()


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_each_tracked_result_is_of_the_params_file_of_its_first_run(file):
    own, tracked = {"data_dir", "run_dir", "seed"}, study(file.stem)
    now = Params.from_yaml(ROOT / f"params/{next(iter(tracked.runs)).rpartition('-')[0]}.yaml", data_dir="x")
    assert tracked.settings.model_dump(exclude=own) == now.model_dump(exclude=own)


def difference(of: Study, first: str, second: str) -> SeedMean:
    """The mean over seeds of the difference of two scores."""
    [found] = [d.auroc for d in of.evaluation.differences if (d.first, d.second) == (first, second)]
    return found


def auroc(of: Study, score: str) -> SeedMean:
    """The mean over seeds of a score's AUROC."""
    return of.evaluation.scores[score].auroc


def ranks(of: Study, first: str, second: str) -> int:
    """1 if `first` ranks above `second`, -1 if below, 0 if the interval contains zero."""
    area = difference(of, first, second).estimate
    return (area.low > 0) - (area.high < 0)


def variance(of: Study) -> tuple[float, float]:
    """The share of AUROC's variance between methods, and between maps, over the maps that every method has."""
    values: dict[str, dict[str, list[float]]] = {}
    for method, scores in of.candidates.items():
        for score, area in scores.items():
            values.setdefault(score.partition(",")[0], {}).setdefault(method, []).append(area)
    grid = np.array(
        [
            [np.mean(by_method[method]) for method in of.candidates]
            for name, by_method in values.items()
            if by_method.keys() == of.candidates.keys() and name != "kl"
        ]
    )
    return grid.mean(axis=0).var() / grid.var(), grid.mean(axis=1).var() / grid.var()


def spread(values: Iterable[float], form: str = "{:.2f}", between: str = "to") -> str:
    values = list(values)
    return f"{form.format(min(values))} {between} {form.format(max(values))}"


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def interval(pair: tuple[float, float]) -> str:
    return "[{:+.2f}, {:+.2f}]".format(*pair)


def findings() -> Iterator[str]:
    """What FINDINGS.md says in numbers, computed from the tracked results."""
    adult, pediatric = both = study("adult"), study("pediatric")
    headline = ("unet", "unet-denoising", "ra")
    copied = [100 * seed["square"] for of in both for seed in of.copied["unet"].values()]
    yield f"copies what it is shown: {spread(copied, '{:.0f}')} % of a white square"

    (methods, maps), (others, other_maps) = map(variance, both)
    yield f"With nothing picked, {100 * methods:.0f} % (adult) and {100 * others:.0f} % (pediatric) of the variance"
    yield f"lies between methods, {100 * maps:.0f} % and {100 * other_maps:.0f} % between maps"

    plain, denoising, ra = ([np.mean([s.oracle for s in of.selection[m].values()]) for of in both] for m in headline)
    yield f"stands at {plain[0]:.2f} against {denoising[0]:.2f} (denoising) and {ra[0]:.2f} (RA) on the adult"
    yield f"at {plain[1]:.2f} against {denoising[1]:.2f} and {ra[1]:.2f} on the pediatric ones"

    reversal = [difference(of, "si-vae", "ra") for of in both]
    yield f"on both sets, by {-reversal[0].estimate.value:.2f} and {-reversal[1].estimate.value:.2f}. But one"
    yield f"one adult seed shows {-min(reversal[0].seeds.values()):.2f} and the other nothing"

    longer, least = study("pediatric-seconds"), study("adult-seconds")
    more = [of.budgets["unet"].images_seen / of.budgets["ra"].images_seen for of in (least, longer)]
    yield f"see {min(more):.1f} times as many images"
    better = difference(longer, "unet-denoising", "ra").estimate
    yield f"ranks above RA, by {better.value:+.3f} {interval((better.low, better.high))}"
    seed = [
        ", ".join(f"{auroc(of, f'unet-denoising{form}').seeds[0]:.3f}" for form in ("", ", chosen", ", combined"))
        for of in both
    ]
    yield f"(seed 0 there: {seed[0]} on the adult radiographs, {seed[1]} on the pediatric ones)"

    def seen(method: str, name: str) -> str:
        """The mean over the pools of one map, such as RA's encoder."""
        return f"{np.mean([a for score, a in adult.candidates[method].items() if score.startswith(f'{name},')]):.2f}"

    eyes = "residual", "ra encoder", "clahe x ra encoder"
    yield "averaged over the pools, from {} to {}. The denoising one".format(*(seen("unet", name) for name in eyes[:2]))
    by_map = [seen("unet-denoising", name) for name in eyes]
    yield f"lifts from {by_map[0]} to {by_map[1]}, and to {by_map[2]} when multiplied by the contrast"
    yield f"where RA has {seen('ra', eyes[2])}. On the pediatric radiographs"

    curves = {name: study(f"{name}-curves").curves for name in ("adult", "pediatric")}
    for name, form, places in (
        ("pediatric", "mean residual", (1, -1)),
        ("adult", "mean residual", (1, -1)),
        ("pediatric", CRITIC, (1, -1)),
        ("adult", CRITIC, (0, -1)),
    ):
        early, late = (curves[name].points["ra"][place] for place in places)
        (before, after) = (shown(point.auroc[form].estimate) for point in (early, late))
        yield f"{before} after {early.images_seen:,}"
        yield f"{after} after {late.images_seen:,}" if form != CRITIC else f"at {after} in the end"
    [view] = [
        d.auroc.estimate
        for d in curves["adult"].differences
        if (d.second, d.form, d.images_seen) == ("ap-view", CRITIC, 300608)
    ]
    yield f"to rank above the view, by {view.value:+.3f} {interval((view.low, view.high))}"
    folder = ROOT / "research/results/published/adult-curves-ra-0"
    kept, curve = (pd.read_parquet(folder / f"{file}.parquet").set_index("id") for file in ("scores", "curve"))
    read = kept[(kept["side"] == "test") & kept["strict_label"].isin(["normal", "abnormal"])].join(curve)
    normal, standing = read[read["strict_label"] == "normal"], read[read["ap-view"] == 0]
    yield f"AUROC {roc_auc_score(normal['ap-view'], normal['ra, kl @ 154']):.3f}."
    ill = (standing["strict_label"] == "abnormal").to_numpy()
    drawn = bootstrap(standing[["ra, kl @ 154"]].to_numpy(float).T, ill, standing["patient"].to_numpy(), 2000)
    yield f"({(~ill).sum()} normal, {ill.sum()} abnormal) it ranks at {shown(drawn.estimate('auroc', 0))}"
    ends = [d for d in curves["pediatric"].differences if (d.second, d.form) == ("knn", CRITIC)]
    lead = ends[-1].auroc
    yield f"is {lead.estimate.value:+.3f} {interval((lead.estimate.low, lead.estimate.high))}, which seeds as draws"
    yield f"do not support ({interval(lead.drawn)})"

    early, *_, late = curves["pediatric"].points["vae"]
    before, after = (shown(point.auroc[CRITIC].estimate) for point in (early, late))
    yield f"from {before} after {early.images_seen:,} images to {after} in the end"
    by_form = {d.form: d.auroc for d in curves["pediatric"].differences if (d.second, d.terms) == ("vae", "end")}
    lead = by_form[CRITIC]
    assert len(lead.seeds) == 2
    yield f"{lead.estimate.value:+.3f} {interval((lead.estimate.low, lead.estimate.high))}"
    yield f"with seeds as draws {interval(lead.drawn)}. Nor are the residuals told apart"
    yield f"the VAE's is {shown(late.auroc['mean residual'].estimate)}"
    health = curves["pediatric"].health
    vae, ra = (np.mean([of[-1].health.frechet for of in health[name].values()]) for name in ("vae", "ra"))
    yield f"Fréchet distance {vae:,.0f} against RA's {ra:,.0f}"
    minutes = [curves["pediatric"].points[name][-1].cpu_seconds / 60 for name in ("vae", "ra")]
    yield "takes {:.0f} minutes of one thread against {:.0f}".format(*minutes)

    early, *_, late = curves["pediatric"].points["unet-denoising"][1:]
    residual = {point.images_seen: point.auroc["mean residual"] for point in (early, late)}
    assert len(residual[early.images_seen].seeds) == 3
    yield f"{shown(residual[early.images_seen].estimate)} after {early.images_seen:,} pediatric images, "
    yield f"{early.cpu_seconds / 60:.1f} minutes of one thread"
    soon, *_, last = curves["adult"].points["unet-denoising"][1:]
    yield f"{shown(soon.auroc['mean residual'].estimate)} after {soon.images_seen:,} adult ones"
    beside = {name: [d for d in of.differences if d.second == "unet-denoising"] for name, of in curves.items()}
    assert beside["adult"] and not [d for of in beside.values() for d in of if d.order > 0]
    ends = {name: [d for d in of if (d.form, d.terms) == ("mean residual", "images")] for name, of in beside.items()}
    by_residual = {d.images_seen: d for d in ends["pediatric"]}
    assert (by_residual[early.images_seen].order, by_residual[late.images_seen].order) == (-1, 0)
    for images in (early.images_seen, late.images_seen):
        lead = by_residual[images].auroc
        yield f"{lead.estimate.value:+.3f} {interval((lead.estimate.low, lead.estimate.high))}, with seeds as draws"
        yield interval(lead.drawn)
    yield f"the U-Net has {shown(residual[late.images_seen].estimate)} in the end"
    lead = ends["adult"][-1]
    assert lead.order == -1 and last.auroc["mean residual"].seeds.keys() == {0}
    yield f"with {shown(last.auroc['mean residual'].estimate)}, where RA's mean residual ranks below it"
    yield f"by {lead.auroc.estimate.value:+.3f} {interval((lead.auroc.estimate.low, lead.auroc.estimate.high))}"
    of_ra = curves["adult"].points["ra"][-1]
    yield f"{shown(last.auroc['combined score'].estimate)}, beside {of_ra.auroc[CRITIC].estimate.value:.3f} of RA's KL"
    yield f"after {last.cpu_seconds / 60:.0f} minutes instead of {of_ra.cpu_seconds / 60:.0f} (on two machines)"
    for measure, form in (("residual", ".3f"), ("copied", ".2f")):
        means = [
            np.mean([getattr(of[-1].health, measure) for of in health["unet-denoising"].values()]),
            np.mean(
                [
                    getattr(point.health, measure)
                    for of in health["unet-denoising"].values()
                    for point in of
                    if point.images_seen == early.images_seen
                ]
            ),
        ]
        yield f"from {means[1]:{form}} to {means[0]:{form}}"

    five = [s.auroc for s in pediatric.evaluation.scores.values() if len(s.auroc.seeds) == 5]
    differences = [d.auroc for d in pediatric.evaluation.differences if len(d.auroc.seeds) == 5]
    wider, most = (
        max((mean.drawn[1] - mean.drawn[0]) / (mean.estimate.high - mean.estimate.low) for mean in means)
        for means in (five, differences)
    )
    yield f"up to {wider:.1f} times as wide, those of differences up to {most:.1f} times"
    yield f"RA's seeds lie between {spread(auroc(pediatric, 'ra').seeds.values(), between='and')} there"
    yield f"27 of the {adult.evaluation.n_normal} adult images that radiologists call normal carry an abnormal one"


def limits() -> Iterator[str]:
    """What LIMITS.md says in numbers, computed from the tracked results."""
    adult, pediatric, large, longer = map(study, ("adult", "pediatric", "pediatric-128", "adult-seconds"))
    both, headline = (adult, pediatric), ("unet", "unet-denoising", "ra")
    audits = {
        name: {check.what: check for check in results(f"{name}-0").audit.checks} for name in ("adult", "pediatric")
    }
    yield f"with AUROC {auroc(adult, 'ap-view').estimate.value:.3f}, without looking at a pixel"
    standing = audits["adult"]["view is AP: no"]
    yield f"Among the PA images ({standing.normal} / {standing.abnormal}, seed 0)"
    yield f"RA has {shown(standing.methods['ra'])}"
    yield f"and the denoising U-Net {shown(standing.methods['unet-denoising'])}"
    lying = audits["adult"]["view is AP: yes"]
    counts = adult.evaluation
    yield f"{lying.normal} of the {counts.n_normal} normal and {lying.abnormal} of the {counts.n_abnormal} abnormal"

    error = difference(adult, "unet", "ra")
    yield f"Its standard error is {error.sample_sd:.3f} from the sample and {error.seed_sd:.3f} from the seeds"
    better, chosen = (difference(pediatric, f"unet-denoising{form}", f"ra{form}") for form in ("", ", chosen"))
    yield f"is the larger ({better.seed_sd:.3f} against {better.sample_sd:.3f})"
    yield f"by seed the difference runs from {spread(better.seeds.values())}"
    yield f"its interval is {interval(better.drawn)} for the residual and {interval(chosen.drawn)} for the chosen score"

    size = audits["pediatric"]["file size"].auroc.value
    yield f"the size of the JPEG file alone gives AUROC {1 - size:.3f} ({size:.3f}, the smaller the more abnormal)"
    trials = pd.read_csv(ROOT / "research/results/trials.csv")
    best_vae = trials.loc[(trials["data"] == "pediatric") & (trials["method"] == "vae"), "frechet"].min()
    recipes = [trials[trials["trial"] == f"pediatric-curves-ra-{seed}"] for seed in (0, 1, 2)]
    works = [rows[marks(rows, best_vae)["all"]].iloc[0] for rows in recipes]
    first, second, third = (f"{at['images_seen']:,}" for at in works)
    yield f"after {first}, {second} and {third} images, or"
    yield f"{spread((at['cpu_minutes'] for at in works), '{:.0f}')} minutes of one thread"
    last = trials[trials["trial"] == "adult-curves-ra-0"].iloc[-1]
    yield f"residual {last['residual']:.3f} against {last['components_residual']:.3f}"
    gap = min(last["kl_reconstruction"], last["kl_sample"]) / last["kl_real"]
    yield f"after {last['images_seen']:,} images the KL of generated ones is only {gap:.2f} times that of real ones"
    tried = trials[(trials["data"] == "pediatric") & ~trials["trial"].str.contains("curves")]
    counts = tried.groupby("method")["trial"].nunique()
    assert counts["vae"] == counts["unet"] == counts["unet-denoising"] and counts["ra"] <= 2 * counts["vae"]
    yield f"in {counts['ra']} trials of RA and {counts['vae']} each of the VAE, the U-Net and the denoising U-Net"
    at = trials[trials["images_seen"] == 51_840].set_index("trial")["residual"]
    own = [[at[f"pediatric-curves-{name}-{seed}"] for seed in range(3)] for name in ("vae", "unet-denoising")]
    faster = [at[f"ped-{name}-batch-lr3e-3-aug0.05"] for name in ("vae", "unet-denoising")]
    yield f"with a residual of {own[0][0]:.4f} after 51,840 images ({spread(own[0], '{:.4f}')} over seeds) where 0.003"
    yield f"has {faster[0]:.4f}, so what the VAE reaches may be understated"
    yield f"with {own[1][0]:.4f} there ({spread(own[1], '{:.4f}')}) against {faster[1]:.4f}, which is within its seeds"
    candidates = pd.read_csv(ROOT / "research/results/published/pediatric-curves-ra-0/candidates.csv")
    [kl] = candidates.query("method == 'ra' and epoch == 347 and score == 'kl'")["auroc"]
    yield f"only its AUROC was kept ({kl:.3f})"
    black, replaced, whole = (
        audits["adult"][what].methods["ra"].value for what in ("lungs black", "lungs replaced", "whole")
    )
    yield f"RA's AUROC on the adult radiographs is {black:.3f}; with the mean training image's lungs"
    yield f"in their place it is {replaced:.3f} (seed 0; {whole:.3f} whole)"
    yield "{:,} (adult) or {:,} (pediatric) images seen".format(*(of.budgets["ra"].images_seen for of in both))

    best = [np.mean([one.oracle for one in adult.selection[method].values()]) for method in headline]
    costs = [one - auroc(adult, f"{m}, chosen").estimate.value for m, one in zip(headline, best, strict=True)]
    yield f"costs** {costs[1]:.2f} (denoising), {costs[2]:.2f} (RA) and {costs[0]:.2f} (plain U-Net) of AUROC"
    agreements = [one.agreement for of in both for method in headline for one in of.selection[method].values()]
    yield f"by a Spearman correlation of {spread(agreements)}, on both sets"

    alarms = [[100 * rate for seed in of.false_alarms.values() for rate in seed.rates.values()] for of in both]
    chance = [100 * results(f"{name}-0").promise.high for name in ("adult", "pediatric")]
    yield f"the adult scores raise false alarms on {spread(alarms[0], '{:.0f}')} % of the normal test images"
    yield f"where chance allows up to {chance[0]:.0f} %, and the pediatric ones on {spread(alarms[1], '{:.0f}')} %"
    yield f"where it allows {chance[1]:.0f} %"

    knn = [f"{auroc(of, 'knn').estimate.value:.3f}" for of in (pediatric, adult, large, study("adult-128"))]
    yield f"Our own such reference has {knn[0]} and {knn[1]} at 64 px, {knn[2]} and {knn[3]} at 128 px"
    highest = [max(auroc(of, f"{method}, chosen").estimate.value for method in of.budgets) for of in (pediatric, large)]
    yield f"no method's chosen score reaches 0.87 at either size ({highest[0]:.3f} and {highest[1]:.3f})"
    scores = (adult, "unet-denoising, combined"), (adult, "ra, combined"), (longer, "unet-denoising, combined")
    yield "({}, {}; {} for the denoising U-Net".format(*(f"{auroc(*score).estimate.value:.3f}" for score in scores))
    yield f"best score has {large.selection['unet-denoising'][0].oracle:.2f} at 128 px on the pediatric radiographs"


def usage() -> Iterator[str]:
    """What USAGE.md says of speed, computed from the figures of the tracked run of the benchmarks."""
    figures = json.loads((ROOT / "benchmarks/results.json").read_text())["figures"]
    ratio = {(of["part"], of["what"]): of["ratio"] for of in figures if of["reference"]}
    jpeg, png, dicom, shards = (
        f"{1 / ratio['files', f'{name} into the cache']:.1f}" for name in ("jpg", "png", "dcm", "shards over http")
    )
    yield f"takes {jpeg} times as long as one epoch"
    yield f"(PNG {png}, DICOM {dicom}, shards over http {shards} times)"
    yield f"reads them {ratio['files', 'out of the cache, as float32']:.0f} times as fast"
    gains = [of["ratio"] for of in figures if (of["part"], of["reference"]) == ("threads", "one thread")]
    yield f"two threads train {spread(gains, '{:.1f}')} times as fast as one"


@pytest.mark.parametrize(("page", "sentences"), [("FINDINGS", findings), ("LIMITS", limits), ("USAGE", usage)])
def test_the_numbers_of_a_page_are_those_of_the_tracked_results(page, sentences):
    text = " ".join(TEXTS[f"docs/{page}.md"].split())
    assert [sentence for sentence in sentences() if sentence not in text] == []


def chapter(number: str) -> str:
    """The prose of a chapter."""
    [file] = (ROOT / "research").glob(f"{number}_*.py")
    return " ".join(re.sub(r"^# ?", "", file.read_text(encoding="utf-8"), flags=re.M).split())


def what_matters() -> Iterator[str]:
    """What chapter 7 says in numbers, computed from the tracked results."""
    adult, pediatric, longer, large = map(study, ("adult", "pediatric", "adult-seconds", "adult-128"))
    (methods, maps), (others, other_maps) = map(variance, (adult, pediatric))
    yield f"Methods account for {100 * methods:.0f} % (adult) and {100 * others:.0f} % (pediatric) of the variance"
    yield f"maps for {100 * maps:.0f} % and {100 * other_maps:.0f} %"
    counts = adult.evaluation
    yield f"*adult*, by `strict_label`, has {counts.n_normal} normal and {counts.n_abnormal} abnormal images"
    areas = [score.auroc.estimate for score in counts.scores.values()]
    yield f"about {np.median([(area.high - area.low) / 2 for area in areas]):.1f} wide to either side"
    times = {round(longer.settings.epochs / adult.settings.epochs): "three"}[3]
    yield f"as long as RA takes, {times} times as many epochs"
    fewer = {round(adult.settings.epochs / (adult.settings.epochs - large.settings.epochs)): "fifth"}[5]
    deeper = {1: "one halving more"}[len(large.settings.widths) - len(adult.settings.widths)]
    yield f"images of {large.settings.image_size} px, {deeper} and a {fewer} fewer epochs"
    seeds = {2: "two"}[len(difference(adult, "si-vae", "ra").seeds)]
    yield f"the {seeds} seeds of that ablation disagree"


def limits_chapter() -> Iterator[str]:
    """What chapter 8 says in numbers of the images by radiologists."""
    table = pd.read_parquet(ROOT / "research/results/published/adult-0/scores.parquet")
    normal = table[(table["side"] == "test") & (table["strict_label"] == "normal")]
    carrying = (normal["label"] == "abnormal").sum()
    yield f"{carrying} of the {len(normal)} test images that a radiologist called normal carry an abnormal mined label"


@pytest.mark.parametrize(("number", "sentences"), [("07", what_matters), ("08", limits_chapter)])
def test_the_numbers_of_a_chapter_are_those_of_the_tracked_results(number, sentences):
    assert [sentence for sentence in sentences() if sentence not in chapter(number)] == []


def test_chapter_7_says_of_the_score_and_of_the_reversal_what_the_intervals_say():
    adult, pediatric = both = study("adult"), study("pediatric")
    assert all(methods > 2 * maps for methods, maps in map(variance, both))
    assert [ranks(of, "si-vae", "ra") for of in both] == [-1, -1]
    shown, nothing = sorted(difference(adult, "si-vae", "ra").seeds.values())
    assert shown < -0.1 < -0.01 < nothing
    assert np.prod(list(difference(pediatric, "si-vae", "ra").seeds.values())) < 0
    assert [ranks(of, "si-vae, chosen", "ra, chosen") for of in both] == [0, 0]
    for form in ("", ", chosen"):
        assert [ranks(of, f"vae{form}", f"ra{form}") for of in both] == [0, 1]
        lower, higher = sorted(difference(pediatric, f"vae{form}", f"ra{form}").seeds.values())
        assert lower < 0.01 and higher > 0.1


def test_chapter_7_says_of_the_u_nets_what_the_intervals_say():
    for ending, order in itertools.product(("", "-seconds"), ("adult", "pediatric")):
        expected = [order == "pediatric"] * 3
        of = study(order + ending)
        assert [ranks(of, f"unet-denoising{form}", f"ra{form}") == 1 for form in FORMS] == expected
        assert order == "pediatric" or all(not ranks(of, f"unet-denoising{form}", f"ra{form}") for form in FORMS)
    for name, file in itertools.product(("unet-no-skips", "unet-noisy-skips", "unet-masked"), ("adult", "pediatric")):
        assert ranks(study(file), name, "ra") == -1
    above = {
        file.stem: [
            d for d in study(file.stem).evaluation.differences if d.second == "knn" and d.auroc.estimate.low > 0
        ]
        for file in STUDIES
    }
    assert {file: {d.first for d in found} for file, found in above.items() if found} == {
        "pediatric": {"unet-denoising, combined"},
        "pediatric-seconds": {"unet-denoising, chosen", "unet-denoising, combined"},
    }
    assert all(d.auroc.drawn[0] <= 0 for found in above.values() for d in found)


@pytest.mark.parametrize("name", ["adult", "pediatric"])
def test_chapter_7_says_of_the_critic_what_the_intervals_say(name):
    curves = study(f"{name}-curves").curves
    first, *_, last = curves.points["ra"]
    assert last.auroc["mean residual"].estimate.value < first.auroc["mean residual"].estimate.value
    assert first.auroc[CRITIC].estimate.low < 0.5 < last.auroc[CRITIC].estimate.low
    ends = [d for d in curves.differences if d.form == CRITIC and d.images_seen == last.images_seen]
    assert [d.order for d in ends if d.second == "knn"] == [0]
    assert [d.order for d in ends if d.second == "ap-view"] == ([1] if name == "adult" else [])
    awake = [of_seed[-1].health.lacks == [] for of_seed in curves.health["ra"].values()]
    assert all(awake) if name == "pediatric" else not any(awake)
    plain = [d for d in curves.differences if (d.second, d.terms) == ("vae", "end")]
    assert [d.order for d in plain if d.form in (CRITIC, "mean residual")] == ([0, 0] if name == "pediatric" else [])


def test_the_published_images_are_counted_as_the_pages_count_them():
    table = pd.read_parquet(ROOT / "research/results/published/adult-0/scores.parquet")
    normal = table[(table["side"] == "test") & (table["strict_label"] == "normal")]
    assert (len(normal), (normal["label"] == "abnormal").sum()) == (36, 27)


FORMS = "", ", chosen", ", combined"


def test_findings_say_of_each_pair_what_its_interval_says():
    adult, pediatric = study("adult"), study("pediatric")
    assert [ranks(of, "unet", "ra") for of in (adult, pediatric)] == [-1, -1]
    assert ranks(pediatric, "unet, chosen", "ra, chosen") == 0
    assert [ranks(adult, f"unet-denoising{form}", f"ra{form}") for form in FORMS] == [0, 0, 0]
    assert [ranks(pediatric, f"unet-denoising{form}", f"ra{form}") for form in FORMS] == [1, 1, 1]
    assert [ranks(of, "si-vae", "ra") for of in (adult, pediatric)] == [-1, -1]
    assert [ranks(of, "vae", "ra") for of in (adult, pediatric)] == [0, 1]
    assert [ranks(of, "ae-16", "ra") for of in (adult, pediatric)] == [0, 0]
    for of, method in itertools.product((adult, pediatric), ("unet-masked", "unet-noisy-skips", "unet-no-skips")):
        assert ranks(of, method, "ra") == -1
    assert auroc(adult, "knn").estimate.value > 0.5 > adult.evaluations[1].scores["knn"].auroc.estimate.value


def test_findings_say_of_frozen_features_what_the_intervals_say():
    above = {
        of: {
            d.first: d.auroc for d in study(of).evaluation.differences if d.second == "knn" and d.auroc.estimate.low > 0
        }
        for of in ("adult", "adult-seconds", "pediatric", "pediatric-seconds")
    }
    assert not above["adult"] and not above["adult-seconds"]
    assert [*above["pediatric"]] == ["unet-denoising, combined"]
    assert "unet-denoising, chosen" in above["pediatric-seconds"]
    assert above["pediatric"]["unet-denoising, combined"].drawn[0] < 0
    assert above["pediatric-seconds"]["unet-denoising, chosen"].drawn[0] < 0


def test_limits_say_of_the_maps_what_the_margins_over_the_location_prior_say():
    regions = results("adult-0").localisation.regions
    short = {
        region: {method: of.margins["auroc"].high < 0 for method, of in by_method.items() if of.margins}
        for region, by_method in regions.items()
    }
    assert all(short["whole image"].values())
    assert short["lungs"] == {"unet": True, "unet-denoising": False, "ra": True}


SETS = {
    "Equal numbers of images seen": "",
    "Learning curves": "-curves",
    "Equal seconds": "-seconds",
    "Images of 128 px": "-128",
}
"""A section of RESULTS.md -> what the names of its studies end in."""


def cells() -> Iterator[tuple[str, str, str, str]]:
    """Every cell of RESULTS.md's tables by data set: section, column, row and text."""
    section, columns = "", []
    for line in TEXTS["docs/RESULTS.md"].splitlines():
        row, *values = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif not line.startswith("|"):
            columns = []
        elif re.fullmatch(r"\w+, \w+, \d+ / \d+", values[0]):
            columns = values
        elif columns and row.startswith("`"):
            yield from ((section, column, row.strip("`"), value) for column, value in zip(columns, values, strict=True))


def expected(section: str, column: str, row: str) -> str:
    """What a cell has to hold: the AUROC of a score, or the difference of two."""
    data_set, labels, counts = column.split(", ")
    [of] = [one for one in study(data_set + SETS[section]).evaluations if one.labels == labels]
    assert counts == f"{of.n_normal} / {of.n_abnormal}"
    if " − " not in row:
        return shown(of.scores[row].auroc.estimate) if row in of.scores else "–"
    found = [d.auroc.estimate for d in of.differences if f"{d.first} − {d.second}" == row]
    return "–" if not found else f"{found[0].value:+.3f} {interval((found[0].low, found[0].high))}"


def test_the_tables_of_results_hold_the_tracked_results():
    found = list(cells())
    assert {section for section, *_ in found} == set(SETS)
    wrong = [cell for cell in found if cell[3].strip("*") != expected(*cell[:3])]
    assert wrong == []


@pytest.mark.parametrize(("section", "ending"), SETS.items())
def test_the_tables_of_results_hold_every_score_and_difference(section, ending):
    rows = {row for of_section, _, row, _ in cells() if of_section == section}
    for data_set in ("adult", "pediatric"):
        of = study(data_set + ending).evaluation
        assert rows >= {*of.scores, *(f"{d.first} − {d.second}" for d in of.differences)}


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_tables_of_costs_hold_the_tracked_budgets(file):
    page = TEXTS["docs/RESULTS.md"].split(f"\n### Cost, {file.stem}\n", 1)[1].split("\n#", 1)[0]
    for method, of in study(file.stem).budgets.items():
        cost = f"{of.parameters:,} | {of.images_seen:,} | {of.steps:,} | {of.multiply_adds:.2e} | {of.seconds:,.0f}"
        assert f"| `{method}` | {cost} |" in page
