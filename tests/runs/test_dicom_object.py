"""DICOM objects: they belong to their radiograph's study, are valid, are equal when repeated, and are asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib.methods.variants import VARIANTS
from lib.runs import cli
from lib.runs.dicom_object import LONGEST, Finding, check_installed, overlay_object, read_source
from lib.runs.model import open_model
from lib.runs.new_images import Asked, write_scores
from lib.runs.run import RunError

pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra `dicom`")
pytest.importorskip("highdicom", reason="DICOM objects need the extra `dicom`")

PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientID": "PID-4711",
    "PatientBirthDate": "19611224",
    "PatientSex": "F",
    "StudyInstanceUID": "1.2.3.1",
    "StudyID": "S-88",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "AccessionNumber": "ACC-77",
    "ReferringPhysicianName": "Roe^Richard",
}
METHODS = ("unet", "ra")


def radiograph(file: Path, pixels: np.ndarray, **elements) -> Path:
    """A digital radiograph as a DICOM file; `elements` by keyword, None takes one out."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID, data.SeriesInstanceUID = "1.2.3.3", "1.2.3.2"
    data.Modality, data.BodyPartExamined, data.PatientOrientation, data.InstanceNumber = "DX", "CHEST", ["L", "F"], 7
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.Rows, data.Columns = pixels.shape
    data.PixelData = pixels.tobytes()
    for name, value in {**PATIENT, **elements}.items():
        setattr(data, name, value)
        if value is None:
            delattr(data, name)
    data.save_as(file, enforce_file_format=True)
    return file


@pytest.fixture
def chest(films, tmp_path) -> Path:
    """A phantom's radiograph, narrower than high."""
    with Image.open(min(films.iterdir())) as file:
        return radiograph(tmp_path / "chest.dcm", np.asarray(file)[:, 5:25].copy())


def objects(folder: Path) -> dict[str, Path]:
    return {file.parent.name: file for file in folder.rglob("*.overlay.dcm")}


def test_an_object_refers_to_its_radiograph_and_belongs_to_its_patient_and_study(small_run, chest, tmp_path):
    out = tmp_path / "out"
    assert cli.score_command([str(small_run), str(chest), "--dicom", "--to", str(out)]) == 0
    (row,), files = pd.read_csv(out / "scores.csv").to_dict("records"), objects(out)
    assert set(files) == set(METHODS)
    for method, file in files.items():
        written, source = pydicom.dcmread(file), pydicom.dcmread(chest)
        assert written.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        for name in (*PATIENT, "BodyPartExamined", "PatientOrientation", "InstanceNumber"):
            assert written[name].value == source[name].value
        (reference,) = written.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        assert written.SeriesInstanceUID != source.SeriesInstanceUID
        with Image.open(file.with_suffix(".jpg")) as overlay:
            greys = [np.asarray(each.convert("L"), int) for each in (Image.fromarray(written.pixel_array), overlay)]
        assert abs(greys[0] - greys[1]).mean() < 4  # JPEG keeps the greys of noise better than its colours
        assert written.pixel_array.shape == (*source.pixel_array.shape, 3)
        says = written.ImageComments
        assert f"score {row[method]:.4g}" in says and f"threshold {row[f'{method}, threshold']:.4g}" in says
        assert f"p-value {row[f'{method}, p']:.3g}" in says and str(row["unlike"]) in says
        assert "Research use only, not for diagnosis" in says and "research use only" in written.SeriesDescription
        assert method in written.ManufacturerModelName and written.ContentQualification == "RESEARCH"
        assert written.DeviceSerialNumber == open_model(str(small_run)).identity and written.SoftwareVersions


@pytest.mark.parametrize("body_part", ["CHEST", None])
def test_an_object_breaks_no_rule_of_the_standard(small_run, chest, body_part, tmp_path):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy of dicom3tools is not installed")
    source = radiograph(tmp_path / "source.dcm", pydicom.dcmread(chest).pixel_array, BodyPartExamined=body_part)
    write_scores(open_model(str(small_run)), [str(source)], Asked(dicom=True), tmp_path / "out")
    for file in objects(tmp_path / "out").values():
        found = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
        assert "SCImage" in found.stderr
        remarks = [line for line in found.stderr.splitlines() if line.startswith(("Error", "Warning"))]
        # Of an unknown body part it is unknown whether it has a side: the validator reminds of what that means.
        assert [line for line in remarks if body_part or "Error" in line or "<Laterality>" not in line] == []


def test_a_repeated_call_writes_equal_objects_and_another_question_gets_another_object(small_run, chest, tmp_path):
    model = open_model(str(small_run))
    for name, rate in (("one", 0.05), ("two", 0.05), ("other", 0.2)):
        write_scores(model, [str(chest)], Asked(rate, dicom=True, maps=False), tmp_path / name)
    one, two, other = (objects(tmp_path / name) for name in ("one", "two", "other"))
    assert [one[method].read_bytes() for method in METHODS] == [two[method].read_bytes() for method in METHODS]
    every = [pydicom.dcmread(of[method]) for of in (one, other) for method in METHODS]
    assert len({each.SOPInstanceUID for each in every}) == 4
    assert len({each.SeriesInstanceUID for each in every}) == len(METHODS)
    assert not list(tmp_path.rglob("*.png"))


def test_no_file_names_the_patient_unless_dicom_is_asked_for(small_run, chest, tmp_path):
    model = open_model(str(small_run))
    secrets = [value.encode() for name, value in PATIENT.items() if name != "PatientSex"] + [b"Doe", b"Jane"]
    for asked in (Asked(), Asked(dicom=True)):
        write_scores(model, [str(chest)], asked, folder := tmp_path / str(asked.dicom))
        naming = {
            file.suffix
            for file in folder.rglob("*")
            if file.is_file() and any(secret in file.read_bytes() for secret in secrets)
        }
        assert naming == ({".dcm"} if asked.dicom else set())


def test_images_without_a_header_to_refer_to_are_scored_and_named(small_run, chest, films, tmp_path, capsys):
    plain, pixels = shutil.copy(max(films.iterdir()), tmp_path / "plain.pgm"), pydicom.dcmread(chest).pixel_array
    lone = radiograph(tmp_path / "lone.dcm", pixels, StudyInstanceUID=None)
    words = [str(small_run), str(chest), str(plain), str(lone), "--dicom", "--to", str(tmp_path / "out")]
    for _ in range(2):  # what is scored already is named again
        assert cli.score_command(words) == 3
        said = f"exit status 3: of the images 2 got no DICOM object; {tmp_path / 'out' / 'problems.csv'} says why\n"
        assert capsys.readouterr().err.endswith(said)
        problems = pd.read_csv(tmp_path / "out" / "problems.csv").set_index("image")
        assert set(problems["consequence"]) == {"no DICOM object"}
        assert problems["problem"].to_dict() == {
            "plain.pgm": "is not a DICOM file",
            "lone.dcm": "cannot be referred to: its header has no StudyInstanceUID",
        }
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == 3
    assert {file.name for file in (tmp_path / "out").rglob("*.dcm")} == {"chest.dcm.overlay.dcm"}


def test_a_header_with_a_value_that_is_none_of_its_kind_is_named_without_the_value(chest):
    content = chest.read_bytes()
    number = content.index(b"IS\x02\x007 ")
    header, reason = read_source(content[:number] + b"IS\x02\x00x?" + content[number + 6 :])
    assert header is None and reason == "has a damaged header: its InstanceNumber cannot be read"


def test_hashed_names_and_dicom_objects_exclude_each_other(small_run, chest, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.score_command([str(small_run), str(chest), "--dicom", "--hash-names", "--to", str(tmp_path / "out")])
    assert "a DICOM object names its patient" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_highdicom_the_refusal_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(RunError, match=r"^--dicom needs highdicom, .*pip install '\.\[dicom\]'"):
        check_installed()


def test_a_large_radiograph_is_shown_smaller_and_whole(small_run, tmp_path):
    y, x = np.mgrid[:1500, :1250]
    file = radiograph(tmp_path / "large.dcm", np.round(255 * (x + y) / 2748).astype(np.uint8))
    write_scores(open_model(str(small_run)), [str(file)], Asked(dicom=True, maps=False), tmp_path / "out")
    for written in map(pydicom.dcmread, objects(tmp_path / "out").values()):
        assert (written.Rows, written.Columns) == (LONGEST, round(LONGEST * 1250 / 1500))


@pytest.mark.parametrize("method", VARIANTS)
def test_every_methods_name_fits_into_the_header(chest, method):
    source, _ = read_source(chest.read_bytes())
    finding = Finding("0123456789abcdef", method, 0.03, 0.02, 0.05, 0.01, "features; shorter side; width / height")
    grey, map_ = np.zeros((32, 20), np.uint8), np.zeros((32, 32), np.float32)
    content = overlay_object(source, finding, grey, map_, 0.5, (6, 0, 26, 32))
    written = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    for name, most in (("SeriesDescription", 64), ("ManufacturerModelName", 64), ("DerivationDescription", 1024)):
        assert method in written[name].value and len(written[name].value) <= most


def test_objects_do_not_change_what_else_is_written(small_run, chest, tmp_path):
    model = open_model(str(small_run))
    for dicom in (False, True):
        write_scores(model, [str(chest)], Asked(dicom=dicom), tmp_path / str(dicom))
    for name in ("scores.csv", "maps/ra/chest.dcm.map.png", "maps/ra/chest.dcm.overlay.jpg"):
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()
