"""Small inputs that failed once, from a folder that may lie beside the checkout; its README says what is right of each.

Every row of the README's table, and every file of the folders that it names by a pattern, is a case of its own.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng

from lib.data.dataset import Data, SplitError, load_data
from lib.data.decoding import decode
from lib.data.lesions import load_masks
from lib.data.preparation import Preparation
from lib.data.sources import open_source
from lib.evidence.evaluation import evaluate_scores
from lib.notebook import chapter
from lib.notebook.sources import BuildError, text_of
from lib.params import ParameterError, Params
from lib.runs.actions import own_kernel
from lib.runs.prepare import prepare
from lib.runs.score import score_table

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT.parent / "shared" / "cases"
ABSENT = "shared/cases is not beside the checkout"


def rows() -> list[str]:
    """What the README lists; of a folder or a pattern each file."""
    text = (CASES / "README.md").read_text(encoding="utf-8")
    found = [CASES / name.rstrip("/") for name in re.findall(r"^\| `([^`]+)` \|", text, re.M)]
    files = [
        sorted(path.iterdir()) if path.name == "odd-images" else sorted(CASES.glob(str(path.relative_to(CASES))))
        for path in found
    ]
    return [path.relative_to(CASES).as_posix() for several in files for path in several]


def settings(case: Path, folder: Path) -> Params:
    return Params.from_yaml(CASES / "small.yaml", data_dir=str(case), run_dir=str(folder / "run"))


def data(case: Path, folder: Path) -> Data:
    params = settings(case, folder)
    return load_data(open_source(params, folder), params, folder / "cache")


def copies_are_one_patient_in_every_interval(case: Path, folder: Path) -> None:
    images, sides = prepare(settings(case, folder), folder).by_side()
    drawn = default_rng(0)
    table = score_table(sides, {"ra": {side: drawn.random(len(stack)) for side, stack in images.items()}})
    used = table[table["side"] == "test"]
    assert used["digest"].duplicated().sum() == len(used) / 2
    assert evaluate_scores(table, ["ra"], resamples=100).patients == used["digest"].nunique()


def ages_are_years_or_unknown_and_named(case: Path, folder: Path) -> None:
    written = pd.read_csv(case / "labels.csv", dtype=str).set_index("filename")["age"]
    right = {"058Y": "58", "61.0": "61", "012M": "1", "414": "", "150": ""}
    found = data(case, folder)
    assert found.records.set_index("id")["age"].to_dict() == written.map(right).to_dict()
    named = found.problems[found.problems["problem"].str.startswith("age")]
    assert set(named["image"]) == set(written.index[written.map(right) == ""])
    assert all(written[image] in problem for image, problem in named[["image", "problem"]].to_numpy())


def a_link_is_followed_or_named(case: Path, folder: Path) -> None:
    found = data(case, folder)
    if (case / "effusion").is_dir():
        assert "effusion" in set(found.records["finding"])
    else:  # copying has made a file of the link
        assert "effusion" in set(found.problems["image"])


def boxes_are_read(case: Path, folder: Path) -> None:
    boxes = [line.split(",") for line in (case / "boxes.csv").read_text().splitlines()[1:]]
    source = open_source(settings(case, folder), folder)
    masks = load_masks(source, list(source.records["id"]), Preparation(16))  # as large as the files
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        box[0]: int(box[3]) * int(box[4]) for box in boxes
    }


def the_shared_patient_is_named(case: Path, folder: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    [shared] = {str(pydicom.dcmread(file).PatientID) for file in (case / "images").iterdir()}
    with pytest.raises(SplitError, match=rf"'{shared}' is the most frequent: .* fill the column patient_id"):
        prepare(settings(case, folder), folder)


def too_few_images_are_refused_with_the_numbers_that_are_wanted(case: Path, folder: Path) -> None:
    with pytest.raises(SplitError, match=r"1 to choose scores with, 1 for thresholds; expected at least 2 and 1"):
        prepare(settings(case, folder), folder)


def a_cell_equals_its_lines_or_is_refused_by_line(case: Path, folder: Path) -> None:
    name = "research/10_mine.py"
    (folder / "research").mkdir()
    shutil.copy(case, folder / name)
    cells = [cell.strip("\n") for cell in re.split(r"^# %%.*\n", case.read_bytes().decode(), flags=re.M)[2:]]
    try:
        found = chapter.read(name, text_of(folder, name))
    except BuildError as error:
        assert re.match(rf"{name}:\d+", str(error)), error
    else:
        assert [text for _, text in found.code()] == cells


def an_image_has_the_references_greys(case: Path, folder: Path) -> None:
    if case.suffix == ".dcm":
        pytest.importorskip("pydicom")
    pixels, _, padding = decode(case.read_bytes())
    right = decode((CASES / "odd-images" / "reference.png").read_bytes()).pixels.copy()
    if padding is not None:
        right[padding] = right[~padding].min()
    prepared, wanted = (Preparation(40).image(image, padding).astype(int) for image in (pixels, right))
    lossy = 8 if case.suffix == ".jpg" else 1
    assert np.abs(prepared - wanted).max() <= lossy
    assert len(np.unique(prepared)) >= len(np.unique(wanted)) - 2


def settings_are_refused_by_line(case: Path, folder: Path) -> None:
    with pytest.raises(ParameterError, match=rf"{case.name}:\d+: |{case.name} is not text in UTF-8 \(at byte \d+\)"):
        Params.from_yaml(case)


DRAWN = """
import sys
from lib.figures.style import Drawing
figure = Drawing(figsize=(2, 2))
figure.subplots().set_title("AUROC_1 $x$ 50 %")
figure.savefig(sys.argv[1])
"""


def figures_do_not_depend_on_it(case: Path, folder: Path) -> None:
    files = []
    for number, place in enumerate((folder, case)):
        files.append(folder / f"{number}.png")
        environment = os.environ | {"MATPLOTLIBRC": str(place)}
        subprocess.run([sys.executable, "-c", DRAWN, files[-1]], cwd=ROOT, env=environment, check=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def this_interpreters_kernel_is_started(case: Path, folder: Path) -> None:
    (folder / "kernels" / "python3").mkdir(parents=True)
    shutil.copy(case, folder / "kernels" / "python3" / "kernel.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        assert own_kernel()(kernel_name="python3").kernel_spec.argv[0] == sys.executable


def is_tested_elsewhere(case: Path, folder: Path) -> None:
    pytest.skip("it wants a certificate and a port: the tests of downloads say what is right")


RIGHT: dict[str, Callable[[Path, Path], None]] = {
    "same-films-twice": copies_are_one_patient_in_every_interval,
    "ages": ages_are_years_or_unknown_and_named,
    "class-is-a-link": a_link_is_followed_or_named,
    "boxes-trailing-comma": boxes_are_read,
    "one-patient-id": the_shared_patient_is_named,
    "twelve-films": too_few_images_are_refused_with_the_numbers_that_are_wanted,
    "chapters/*.py": a_cell_equals_its_lines_or_is_refused_by_line,
    "odd-images/*": an_image_has_the_references_greys,
    "params/*.yaml": settings_are_refused_by_line,
    "matplotlibrc": figures_do_not_depend_on_it,
    "other-kernel.json": this_interpreters_kernel_is_started,
    "untrusted-proxy.py": is_tested_elsewhere,
}


@pytest.mark.parametrize("case", rows() if CASES.is_dir() else [pytest.param("", marks=pytest.mark.skip(ABSENT))])
def test_an_input_that_failed_once_gets_the_right_answer(case, tmp_path):
    [right] = [right for pattern, right in RIGHT.items() if fnmatch(case, pattern)]
    right(CASES / case, tmp_path)
