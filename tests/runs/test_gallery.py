"""The gallery: every picture and count is the run's, a person can use it by mouse and by keys, data cannot harm it."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import chromium, errors, fetched, needs_chromium
from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait
from sklearn.metrics import roc_auc_score, roc_curve

from lib.runs import cli, gallery
from lib.runs.gallery import open_shown, write_gallery
from lib.runs.model import open_model
from lib.runs.new_images import Asked, write_scores
from lib.runs.prepare import Prepared, prepare
from lib.runs.run import Run, RunError
from lib.runs.shown import Panels, Score, Shown
from lib.runs.train import load
from lib.scores.scoring import reconstruct
from tests.runs.small import scored, scored_images

METHODS = ("unet", "ra")


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory) -> tuple[Path, Prepared]:
    """The small run with its reconstructions, in a folder of its own, and its images."""
    folder = shutil.copytree(small_run, tmp_path_factory.mktemp("shown") / "small")
    opened = Run.open(folder)
    prepared = prepare(opened.params, folder)
    (folder / "reconstructions").mkdir()
    for name in METHODS:
        redrawn = reconstruct(load(opened, name, prepared.split).method, prepared.images.test)
        np.save(folder / f"reconstructions/{name}.{opened.params.epochs}.test.npy", redrawn)
    return folder, prepared


@pytest.fixture(scope="module")
def page(run) -> Path:
    folder, _ = run
    assert cli.gallery_command([str(folder)]) == 0
    return folder / "gallery.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture
def opened(page, browser) -> Chrome:
    browser.get(page.as_uri())
    return browser


def content(page: Path) -> dict:
    """What the page knows."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])


def scores_of(run: Path) -> pd.DataFrame:
    return Run.open(run).scores().query("side == 'test'").reset_index(drop=True)


def one(browser: Chrome, css: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, css)


def tiles(browser: Chrome) -> list[WebElement]:
    """The tiles that are shown, in their order."""
    return [tile for tile in browser.find_elements(By.CSS_SELECTOR, ".tile") if tile.is_displayed()]


def names(browser: Chrome) -> list[str]:
    """The names of the images that are shown, in their order."""
    shown = "[...document.querySelectorAll('#grid li:not([hidden]) .tile')]"
    labels = browser.execute_script(f"return {shown}.map((tile) => tile.getAttribute('aria-label'))")
    return [label.partition(",")[0] for label in labels]


def share(line: str, pattern: str) -> float:
    """The share in a line of counts, which has at most three digits and no zero at its end."""
    [text] = re.fullmatch(pattern, line).groups()
    assert text == f"{float(text):.3g}"
    return float(text)


def near(value: float) -> object:
    """What a share with three digits equals."""
    return pytest.approx(value, rel=0.006)


def pictures(browser: Chrome, css: str) -> list[WebElement]:
    """The pictures, once they are loaded."""
    found = browser.find_elements(By.CSS_SELECTOR, css)
    WebDriverWait(browser, 20).until(lambda _: all(picture.get_property("complete") for picture in found))
    return found


def press(browser: Chrome, key: str) -> None:
    ActionChains(browser).send_keys(key).perform()


def grey(address: str, page: Path) -> np.ndarray:
    """A picture of the page, (height, width)."""
    _, comma, packed = address.partition(",")
    with Image.open(BytesIO(base64.b64decode(packed)) if comma else page.parent / address) as file:
        return np.asarray(file.convert("L")).astype(int)


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_holds_each_test_image_its_reconstructions_and_residuals(run, page):
    folder, prepared = run
    known = content(page)
    assert [image["name"] for image in known["images"]] == list(prepared.split.test["id"])
    for name in METHODS:
        redrawn = np.load(folder / f"reconstructions/{name}.2.test.npy")
        for i, image in enumerate(known["images"]):
            pixels = prepared.images.test[i].astype(int)
            shares = np.abs(pixels / 255 - redrawn[i]) / known["ceilings"][name]
            assert abs(grey(image["image"], page) - pixels).mean() < 4
            assert abs(grey(image["reconstructions"][name], page) - 255 * redrawn[i]).mean() < 4
            assert abs(grey(image["maps"][name], page) - 255 * shares.clip(0, 1)).mean() < 6
            assert bool(image["lesion"]) == (prepared.split.test["id"][i] in prepared.lesions)


def test_the_page_says_which_images_it_shows_by_which_labels_and_nothing_of_patient_or_machine(run, page):
    folder, _ = run
    text, test = page.read_text(encoding="utf-8"), scores_of(folder)
    counts = test["label"].value_counts()
    which = content(page)["sentences"][0]
    assert f"{counts['normal']} normal, {counts['abnormal']} abnormal, by the labels in the column “label”" in which
    assert content(page)["warnings"] == [
        "Research use only, not for diagnosis.",
        "Synthetic images: a smoke test, not evidence.",
    ]
    assert str(folder.parent) not in text and str(Path.home()) not in text
    assert {*content(page)["images"][0]} & {"patient", "age", "sex", "digest"} == set()


def test_more_images_than_a_page_holds_lie_beside_it(run, tmp_path, monkeypatch):
    folder, prepared = run
    monkeypatch.setattr(gallery, "MOST", 3)
    file = tmp_path / "a page.html"
    assert cli.gallery_command([str(folder), "--to", str(file)]) == 0
    pictures = list((tmp_path / "a page-pictures").glob("*.webp"))
    assert len(pictures) == len(prepared.split.test) * (1 + 2 * len(METHODS))
    assert "data:image" not in file.read_text(encoding="utf-8")


def test_pictures_lose_quality_before_they_leave_the_page(run, tmp_path, monkeypatch):
    shown = open_shown(run[0])
    write_gallery(shown, whole := tmp_path / "whole.html")
    monkeypatch.setattr(gallery, "LARGEST", whole.stat().st_size - 1)
    assert write_gallery(shown, smaller := tmp_path / "smaller.html") is None
    assert smaller.stat().st_size < whole.stat().st_size
    monkeypatch.setattr(gallery, "LARGEST", 1000)
    assert write_gallery(shown, smaller) == tmp_path / "smaller-pictures"


# --- what a person does -----------------------------------------------------------------------------------------------


@needs_chromium
def test_the_page_fetches_nothing_and_scripts_without_an_error(page, browser):
    browser.get("about:blank")
    fetched(browser)
    browser.get(page.as_uri())
    assert fetched(browser) == [page.as_uri()]
    assert not errors(browser)
    assert one(browser, "#warnings").text.startswith("Research use only, not for diagnosis.\nSynthetic images")


@needs_chromium
@pytest.mark.parametrize("score", ["unet", "ra, chosen", "ra, combined"])
def test_a_threshold_that_moves_recounts_sensitivity_and_false_alarms(run, opened, score):
    test, evaluated = scores_of(run[0]), Run.open(run[0]).results().all_scores.methods[score]
    abnormal, values = (test["label"] == "abnormal").to_numpy(), test[score].to_numpy()
    Select(one(opened, "#score")).select_by_visible_text(score)
    slider = one(opened, "#threshold")

    def counted(threshold: float) -> tuple[float, float]:
        called = values > threshold
        sensitivity, alarms = called[abnormal].mean(), called[~abnormal].mean()
        found, false = (called & abnormal).sum(), (called & ~abnormal).sum()
        first, second = one(opened, "#counts").text.splitlines()
        assert share(first, f"Sensitivity (.+), {found} of {sum(abnormal)} abnormal found") == near(sensitivity)
        assert share(second, f"False alarms (.+), {false} of {sum(~abnormal)} normal called") == near(alarms)
        every = "return [...document.querySelectorAll('.tile')].map((tile) => tile.dataset.outcome)"
        outcomes = pd.Series(opened.execute_script(every)).value_counts()
        assert (outcomes.get("found", 0), outcomes.get("false alarm", 0)) == (found, false)
        assert outcomes.get("missed", 0) == (abnormal & ~called).sum()
        point = one(opened, "#point")
        place = [float(point.get_attribute(axis)) for axis in ("cx", "cy")]
        assert place == pytest.approx([100 * alarms, 100 - 100 * sensitivity])
        return sensitivity, alarms

    assert counted(evaluated.threshold.value)[0] == evaluated.threshold.sensitivity.value
    for key in [*6 * [Keys.ARROW_LEFT], Keys.HOME, Keys.END, *4 * [Keys.ARROW_LEFT]]:
        slider.send_keys(key)
        counted(float(slider.get_property("valueAsNumber")))
    slider.send_keys(Keys.HOME)
    assert counted(float(slider.get_property("valueAsNumber"))) == (1, 1)
    number = one(opened, "#number")
    number.clear()
    number.send_keys(repr(float(np.median(values))))
    counted(float(np.median(values)))
    assert one(opened, "#moved").text.startswith("Moved: the threshold to report is the one it started with.")
    one(opened, "#back").click()
    counted(evaluated.threshold.value)
    assert not one(opened, "#moved").is_displayed()
    assert opened.switch_to.active_element == slider


@needs_chromium
def test_the_roc_curve_is_that_of_the_chosen_score(run, opened):
    test = scores_of(run[0])
    Select(one(opened, "#score")).select_by_visible_text("ra, combined")
    drawn = [pair.split(",") for pair in one(opened, "#curve").get_attribute("points").split()]
    alarms, found, _ = roc_curve(test["label"] == "abnormal", test["ra, combined"], drop_intermediate=False)
    np.testing.assert_allclose(np.array(drawn, dtype=float), np.stack([100 * alarms, 100 - 100 * found], axis=1))
    area = Run.open(run[0]).results().all_scores.methods["ra, combined"].auroc
    shown = re.fullmatch(r"ra, combined: AUROC (\S+) \[(\S+), (\S+)\]", one(opened, "#auroc").text)
    assert list(map(float, shown.groups())) == pytest.approx([area.value, area.low, area.high], abs=0.006)


@needs_chromium
def test_images_are_sorted_by_the_score_and_filtered_by_finding_label_and_outcome(run, opened):
    test = scores_of(run[0]).sort_values("ra", ascending=False, kind="stable")
    Select(one(opened, "#score")).select_by_visible_text("ra")
    assert names(opened) == list(test["id"])
    finding = test["finding"][test["finding"] != ""].iloc[0].split("|")[0]
    Select(one(opened, "#filter-finding")).select_by_visible_text(finding)
    with_it = test[[finding in of.split("|") for of in test["finding"]]]
    assert names(opened) == list(with_it["id"])
    assert one(opened, "#status").text == f"{len(with_it)} of {len(test)} images shown"
    Select(one(opened, "#filter-label")).select_by_visible_text("normal")
    assert one(opened, "#status").text == "No image has all of this."
    Select(one(opened, "#filter-finding")).select_by_visible_text("all")
    Select(one(opened, "#filter-outcome")).select_by_visible_text("passed")
    limit = Run.open(run[0]).results().all_scores.methods["ra"].threshold.value
    passed = test[(test["label"] == "normal") & (test["ra"] <= limit)]
    assert names(opened) == list(passed["id"])
    Select(one(opened, "#order")).select_by_visible_text("lowest first")
    assert sorted(names(opened)) == sorted(passed["id"]) and names(opened)[0] == passed["id"].iloc[-1]


@needs_chromium
def test_an_image_opens_large_and_keys_lead_to_the_next_and_back(opened):
    order, viewer = names(opened), one(opened, "#viewer")
    tiles(opened)[1].click()
    assert viewer.is_displayed() and one(opened, "#name").text == order[1]
    sections = opened.find_elements(By.CSS_SELECTOR, "#columns section")
    assert [section.find_element(By.CSS_SELECTOR, "h3").text for section in sections] == list(METHODS)
    panels = pictures(opened, "#columns img")
    assert len(panels) == 4 * len(METHODS)
    assert all(int(picture.get_property("naturalWidth")) == 32 for picture in panels)
    assert all(len(picture.get_attribute("alt")) > 10 for picture in panels)

    for key in ("arrows", "space", "Escape"):
        assert key in one(opened, "#viewer .keys").text
    over, caption = one(opened, ".over"), one(opened, "#columns figcaption")
    assert over.is_displayed() and float(over.value_of_css_property("opacity")) == 0.8
    assert caption.text == "image under the map"
    press(opened, " ")
    assert not over.is_displayed() and caption.text == "image"
    press(opened, Keys.ARROW_RIGHT)
    assert one(opened, "#name").text == order[2] and not one(opened, ".over").is_displayed()
    press(opened, " ")
    assert one(opened, ".over").is_displayed()
    one(opened, "#opacity").send_keys(Keys.ARROW_LEFT)
    assert one(opened, "#name").text == order[2]
    assert float(one(opened, ".over").value_of_css_property("opacity")) == 0.75
    one(opened, "#previous").click()
    assert one(opened, "#name").text == order[1]
    press(opened, Keys.ESCAPE)
    assert not viewer.is_displayed()
    assert opened.switch_to.active_element.get_attribute("aria-label").startswith(order[1])
    press(opened, Keys.ARROW_RIGHT)
    press(opened, Keys.ENTER)
    assert viewer.is_displayed() and one(opened, "#name").text == order[2]
    press(opened, Keys.ESCAPE)


@needs_chromium
def test_marked_lesions_are_outlined_until_they_are_switched_off(run, opened):
    marked = next(name for name in names(opened) if name in run[1].lesions)
    next(tile for tile in tiles(opened) if tile.get_attribute("aria-label").startswith(f"{marked},")).click()
    rows, columns = np.nonzero(run[1].lesions[marked])
    path = "const box = document.querySelector('.lesion path').getBBox();"
    ends = opened.execute_script(f"{path} return [box.x, box.y, box.x + box.width, box.y + box.height]")
    assert ends == pytest.approx([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert one(opened, ".lesion").is_displayed()
    one(opened, "#lesion").click()
    assert not one(opened, ".lesion").is_displayed()
    press(opened, Keys.ESCAPE)


@needs_chromium
def test_it_fits_a_phone_and_follows_the_dark_mode(page, browser):
    try:
        phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.get(page.as_uri())
        light = one(browser, "body").value_of_css_property("background-color")
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        assert one(browser, "body").value_of_css_property("background-color") != light
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        tiles(browser)[0].click()
        assert browser.execute_script("return document.getElementById('viewer').scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_chromium
def test_pictures_beside_the_page_are_found_from_the_disk(run, tmp_path, browser, monkeypatch):
    monkeypatch.setattr(gallery, "MOST", 0)
    write_gallery(open_shown(run[0]), file := tmp_path / "50 % #1.html")
    browser.get(file.as_uri())
    tiles(browser)[0].click()
    for picture in pictures(browser, "#columns img, li:first-child img"):
        assert int(picture.get_property("naturalWidth")) == 32
    assert one(browser, ".tile img").get_attribute("loading") == "lazy"
    assert not errors(browser)


@needs_chromium
def test_what_data_say_is_text_whatever_it_says(tmp_path, browser):
    hostile = (
        "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">{{script}}"
    )
    said = dict.fromkeys(("finding", "view", "unlike"), hostile)
    records = [said | {"name": f"{hostile}{i}", "label": of} for i, of in enumerate(("normal", "abnormal", hostile))]
    blank = np.zeros((8, 8), dtype=np.uint8)
    score = Score(hostile, [0.1, 0.2, None], 0.15)
    panels = Panels(blank, {hostile[:9].replace("/", ""): blank}, {})
    shown = Shown(hostile, [hostile], records, [score], {hostile[:9].replace("/", ""): 1.0}, lambda i: panels,
                  [hostile], labelled=True, remarks=[hostile])  # fmt: skip
    write_gallery(shown, file := tmp_path / "page.html")
    browser.get(file.as_uri())
    tiles(browser)[1].click()
    assert one(browser, "#name").text.startswith("</script><script>")
    assert browser.title == f"{hostile}: the images"
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 2 and not errors(browser)


# --- scored images ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores(small_run, films, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "new"
    write_scores(open_model(str(small_run)), [str(films)], Asked(), folder)
    return folder


def test_scored_images_are_shown_as_the_model_sees_them(run, scores):
    _, prepared = run
    assert cli.gallery_command([str(scores)]) == 0
    known = content(scores / "gallery.html")
    assert not known["labelled"] and "They have no labels" in known["sentences"][0]
    assert known["warnings"] == ["Research use only, not for diagnosis."]
    places = {f"{name}.pgm": i for i, name in enumerate(prepared.split.test["id"])}
    assert {image["name"] for image in known["images"]} == {*places}
    for image in known["images"]:
        with Image.open(scores / f"images/{image['name']}.png") as file:
            np.testing.assert_array_equal(file, prepared.images.test[places[image["name"]]])
        with Image.open(scores / f"maps/ra/{image['name']}.map.png") as file:
            shares = np.asarray(file) / 65535 / known["ceilings"]["ra"]
        assert abs(grey(image["maps"]["ra"], scores) - 255 * shares.clip(0, 1)).mean() < 6


@needs_chromium
def test_without_labels_a_threshold_counts_the_images_that_are_called(scores, browser):
    page = scores.parent / "page.html"
    assert cli.gallery_command([str(scores), "--to", str(page)]) == 0
    browser.get(page.as_uri())
    table = pd.read_csv(scores / "scores.csv")
    assert not one(browser, "#roc").is_displayed()
    Select(one(browser, "#score")).select_by_visible_text("ra")
    slider, limit = one(browser, "#threshold"), table["ra, threshold"].iloc[0]
    for _ in range(4):
        called = (table["ra"] > limit).sum()
        assert one(browser, "#counts").text == f"{called} of {len(table)} called"
        slider.send_keys(*8 * [Keys.ARROW_LEFT])
        limit = float(slider.get_property("valueAsNumber"))
    tiles(browser)[0].click()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#columns img")) == 4 * len(METHODS)
    row = table.set_index("image").loc[one(browser, "#name").text]
    assert f"{row['ra, chosen, p']:.4g}" in one(browser, "#columns").text
    assert not errors(browser)


@needs_chromium
def test_the_share_of_called_images_is_shown_of_many(tmp_path, browser):
    folder = scored_images(tmp_path, {f"{i:03}.png": i / 200 for i in range(200)}, threshold=0.904)
    assert cli.gallery_command([str(folder)]) == 0
    browser.get((folder / "gallery.html").as_uri())
    assert one(browser, "#counts").text == "19 of 200 called, 9.5 %"


@needs_chromium
def test_images_unlike_the_models_normal_ones_have_a_badge_and_a_filter(tmp_path, browser):
    scores = {"a.png": 0.9, "b.png": 0.8, "c.png": 0.7}
    folder = scored_images(tmp_path, scores, unlike={"b.png": "age; features"})
    assert cli.gallery_command([str(folder)]) == 0
    browser.get((folder / "gallery.html").as_uri())
    assert [len(tile.find_elements(By.CSS_SELECTOR, ".unlike")) for tile in tiles(browser)] == [0, 1, 0]
    badge = one(browser, ".tile .unlike")
    assert badge.text == "unlike" and badge.get_attribute("title") == "unlike the model's normal images: age; features"
    assert tiles(browser)[1].get_attribute("aria-label").endswith(badge.get_attribute("title"))
    likeness = Select(one(browser, "#filter-unlike"))
    for choice, shown in (("unlike", ["b.png"]), ("like", ["a.png", "c.png"]), ("all", [*scores])):
        likeness.select_by_visible_text(choice)
        assert names(browser) == shown
    tiles(browser)[1].click()
    assert "unlike the model's normal images: age; features" in one(browser, "#facts").text
    press(browser, Keys.ESCAPE)


@needs_chromium
def test_where_no_image_is_unlike_there_is_no_badge_and_no_filter(opened):
    assert not opened.find_elements(By.CSS_SELECTOR, ".unlike, #filter-unlike")


@needs_chromium
def test_labels_make_of_scored_images_what_they_make_of_a_run(run, scores, tmp_path, browser):
    test = scores_of(run[0])
    table = test.assign(filename=test["id"] + ".pgm", patient_id=test["patient"])
    table[["filename", "label", "finding", "view", "patient_id"]].to_csv(tmp_path / "mine.csv", index=False)
    page = tmp_path / "page.html"
    assert cli.gallery_command([str(scores), "--labels", str(tmp_path / "mine.csv"), "--to", str(page)]) == 0
    browser.get(page.as_uri())
    counts = test["label"].value_counts()
    by = f"{counts['normal']} normal, {counts['abnormal']} abnormal, by the labels in mine.csv."
    assert one(browser, "#which").text.endswith(by) and one(browser, "#remarks").text == ""
    Select(one(browser, "#score")).select_by_visible_text("ra")
    rows = pd.read_csv(scores / "scores.csv").set_index("image").loc[table["filename"]].reset_index()
    abnormal, called = (test["label"] == "abnormal").to_numpy(), (rows["ra"] > rows["ra, threshold"]).to_numpy()
    first, second = one(browser, "#counts").text.splitlines()
    found, false, ill, well = map(sum, (called & abnormal, called & ~abnormal, abnormal, ~abnormal))
    assert share(first, f"Sensitivity (.+), {found} of {ill} abnormal found") == near(found / ill)
    assert share(second, f"False alarms (.+), {false} of {well} normal called") == near(false / well)
    drawn = [pair.split(",") for pair in one(browser, "#curve").get_attribute("points").split()]
    alarms, hits, _ = roc_curve(abnormal, rows["ra"], drop_intermediate=False)
    np.testing.assert_allclose(np.array(drawn, dtype=float), np.stack([100 * alarms, 100 - 100 * hits], axis=1))
    area = float(re.match(r"ra: AUROC (\S+) \[", one(browser, "#auroc").text)[1])
    assert area == pytest.approx(roc_auc_score(abnormal, rows["ra"]), abs=0.0006)
    for field in ("label", "finding", "view"):
        assert len(browser.find_elements(By.ID, f"filter-{field}")) == 1
    assert not errors(browser)


@needs_chromium
def test_of_labels_of_one_class_alone_no_curve_is_drawn(tmp_path, browser):
    folder = scored_images(tmp_path, {"a.png": 0.1, "b.png": 0.9, "c.png": 0.8})
    for kinds, curve in (("abnormal", "abnormal"), False), (("normal", "abnormal"), True):
        rows = [f"{name},{kind}" for name, kind in zip(("a.png", "b.png"), kinds, strict=True)]
        (tmp_path / "labels.csv").write_text("\n".join(["filename,label", *rows]))
        assert cli.gallery_command([str(folder), "--labels", str(tmp_path / "labels.csv")]) == 0
        browser.get((folder / "gallery.html").as_uri())
        assert one(browser, "#roc").is_displayed() == curve
        assert [tile.get_attribute("data-outcome") for tile in tiles(browser)][:2] == ["found", "called"]
    assert one(browser, "#auroc").text == "ra: AUROC 1 [0, 1]"
    assert not errors(browser)


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_neither_a_run_nor_scores_is_refused(tmp_path, capsys):
    assert cli.gallery_command([str(tmp_path)]) == 2
    assert "has nothing to show: give the folder of an evaluated run" in capsys.readouterr().err
    assert cli.gallery_command([str(tmp_path / "none")]) == 2
    assert "none does not exist: give the folder of" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.gallery([str(tmp_path), "--to", "page.pdf"])


def test_of_a_models_folder_it_says_how_its_images_come_about(tmp_path, capsys):
    (tmp_path / "model.json").write_text("{}")
    assert cli.gallery_command([str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"{tmp_path} is a model, and holds no images: score some with it, and look at those:")
    assert said.endswith(f"imgae-score {tmp_path} films/ --to out, then imgae-gallery out")


def test_what_has_nothing_to_show_is_refused_and_scored_images_are_shown_without_torch(tmp_path):
    folder = scored_images(tmp_path, {"a.png": 0.1, "b.png": 0.9})
    (tmp_path / "labels.csv").write_text("filename,label\na.png,normal\nb.png,abnormal\n")
    labels = ["--labels", str(tmp_path / "labels.csv")]
    calls = {(str(tmp_path),): 2, (str(folder), "--labels", "none.csv"): 2, (str(folder), *labels): 0}
    for call, status in calls.items():
        code = f"import sys; from lib.runs import cli; print(cli.gallery_command({call}), 'torch' in sys.modules)"
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == f"{status} False"


def test_a_run_that_was_not_evaluated_or_lost_its_reconstructions_says_what_to_do(tmp_path, small_run):
    with pytest.raises(RunError, match="has been scored, but not evaluated: imgae-evaluate"):
        open_shown(scored(tmp_path, "old", ["unet"]))
    with pytest.raises(RunError, match=r"has no reconstructions/unet\.2\.test\.npy: imgae-evaluate"):
        open_shown(small_run)


def test_scores_without_pictures_or_of_another_version_say_what_to_do(scores, tmp_path):
    folder = shutil.copytree(scores, tmp_path / "scores")
    shutil.rmtree(folder / "images")
    with pytest.raises(RunError, match=r"is not there: score the images again .* without --no-maps"):
        write_gallery(open_shown(folder), folder / "page.html")
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({key: about[key] for key in about if key != "ceilings"}))
    with pytest.raises(RunError, match="another version has written it"):
        open_shown(folder)
