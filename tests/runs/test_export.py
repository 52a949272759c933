"""A model that was handed on scores as the run does, says what it is, and names no place of this machine."""

import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from lib.evidence.marks import RULE
from lib.evidence.wording import estimate_text
from lib.files import digest
from lib.methods.variants import VARIANTS
from lib.runs import cli, export
from lib.runs.card import card
from lib.runs.model import open_model
from lib.runs.new_images import score_new
from lib.runs.onnx_file import onnx_place
from lib.runs.places import CARD, FACTS, WEIGHTS
from lib.runs.run import Run, RunError


@pytest.fixture(scope="module")
def handed_on(small_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("handed") / "on"
    assert cli.export_command([str(small_run), "--to", str(folder)]) == 0
    return folder


def test_it_scores_as_the_run_does_to_the_last_bit(small_run, handed_on, films):
    found, expected = (score_new(str(place), [str(films)]) for place in (handed_on, small_run))
    for column in expected.table:
        np.testing.assert_array_equal(found.table[column], expected.table[column])
    assert found.about == expected.about


def test_it_is_three_files_without_code_or_places_of_this_machine(small_run, handed_on):
    assert sorted(file.name for file in handed_on.iterdir()) == sorted([WEIGHTS, FACTS, CARD])
    for file in handed_on.iterdir():
        content = file.read_bytes()
        assert str(small_run.parent).encode() not in content and b"pickle" not in content
    length = int.from_bytes((handed_on / WEIGHTS).read_bytes()[:8], "little")  # the format: a JSON header, then numbers
    header = json.loads((handed_on / WEIGHTS).read_bytes()[8 : 8 + length])
    assert any(name.startswith("weights/ra/2/") for name in header)


def test_its_card_says_what_the_results_say(small_run, handed_on):
    results, text = Run.open(small_run).results(), (handed_on / CARD).read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["tags"][-2:] == ["unet", "ra"]
    for method in results.evaluation.methods.values():
        assert estimate_text(method.auroc) in body
    for claim in [*results.claims.may, *results.claims.may_not]:
        assert claim.says in body
    assert "synthetic" in body and "not be used for diagnosis" in body


def test_its_card_tells_a_stranger_what_the_methods_are_how_to_install_and_what_is_called_abnormal(handed_on):
    text, address = (handed_on / CARD).read_text(), "https://github.com/imgae-dx/imgae-dx"
    assert f"    pip install 'imgae-dx[dicom] @ git+{address}'\n    imgae-score FOLDER image.png\n" in text
    thresholds = json.loads((handed_on / FACTS).read_text())["thresholds at a false alarm rate of 5%"]
    for name in ("unet", "ra"):
        assert f"- `{name}` is {VARIANTS[name].about}." in text and f"{thresholds[name]:.4g} for `{name}`" in text
    assert f"what a method is meant to do with normal images: {RULE}." in text


def test_its_card_says_first_how_many_images_are_found_what_labels_are_worth_and_that_it_was_trained_once(small_run):
    results, table = Run.open(small_run).results(), Run.open(small_run).scores().query("side == 'test'")
    other = results.evaluation.model_copy(update={"labels": "reports", "n_normal": 7, "n_abnormal": 9})
    read_twice = results.model_copy(update={"other_labels": [other], "synthetic": False})
    for shown, labels in (
        (read_twice, "by `reports`, another reading, on 7 normal and 9 abnormal images"),
        (results, ""),
    ):
        text = card(open_model(str(small_run)), shown, None, onnx=False).partition("## How well it ranks\n")[2]
        first = text[: text.index("| method |")]
        for name, method in results.evaluation.methods.items():
            called = table[table[name] > method.threshold.value]["label"].value_counts()
            counts = table["label"].value_counts()
            found, false = (f"{called.get(kind, 0)} of {counts[kind]}" for kind in ("abnormal", "normal"))
            assert f"`{name}` finds {found} abnormal images" in first and f"calls {false} normal ones abnormal" in first
        assert ("Labels hold errors" in first) == bool(labels) and labels in first  # those of drawn images do not
        assert "of one training, with seed 0, and not the mean over seeds" in first


def test_its_facts_hold_thresholds_and_calibration_scores_to_read(small_run, handed_on):
    facts, table = json.loads((handed_on / FACTS).read_text()), Run.open(small_run).scores()
    calibration = table[table["side"] == "validation"]
    np.testing.assert_array_equal(facts["calibration"]["ra"]["chosen"], calibration["ra, chosen"])
    assert set(facts["thresholds at a false alarm rate of 5%"]) >= {"unet", "ra", "ra, combined"}


def tensors(folder: Path) -> dict[str, dict]:
    """What a folder's safetensors file holds, read by the definition of the format."""
    content = (folder / WEIGHTS).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return {name: about for name, about in header.items() if name != "__metadata__"}


def test_the_primary_score_alone_needs_less_and_is_the_same_to_the_last_bit(small_run, handed_on, films, tmp_path):
    folder = tmp_path / "primary"
    assert cli.export_command([str(small_run), "--to", str(folder), "--primary"]) == 0
    found, expected = (score_new(str(place), [str(films)]).table for place in (folder, handed_on))
    assert [column for column in expected if column not in found] == [
        f"{name}, {form}{what}"
        for name in ("unet", "ra")
        for form in ("chosen", "combined")
        for what in ("", ", p", ", threshold")
    ]
    for column in found:
        np.testing.assert_array_equal(found[column], expected[column])
    assert open_model(str(folder)).identity == open_model(str(handed_on)).identity  # the same scores
    assert {name.rpartition("/")[0] for name in tensors(folder)} < {
        name.rpartition("/")[0] for name in tensors(handed_on)
    }
    assert not [name for name in tensors(folder) if "/1/" in name or "standards" in name]
    text = (folder / CARD).read_text()
    assert "the primary score, and the model has no other" in text
    assert not re.search("chosen|combined", text)  # what was left out


def test_weights_of_16_bits_score_nearly_as_the_run_does_and_the_card_says_how_nearly(
    small_run, handed_on, films, tmp_path
):
    folder = tmp_path / "half"
    assert cli.export_command([str(small_run), "--to", str(folder), "--half"]) == 0
    kernels = {name for name, of in tensors(folder).items() if name.startswith("weights/") and len(of["shape"]) > 1}
    assert {tensors(folder)[name]["dtype"] for name in kernels} == {"F16"}
    for name, of in tensors(folder).items():
        if name not in kernels and "running_var" in name:
            assert of["dtype"] == "F32"
    found, expected = (score_new(str(place), [str(films)]).table for place in (folder, handed_on))
    assert open_model(str(folder)).primary_only
    for name in ("unet", "ra"):
        spread = np.std(json.loads((folder / FACTS).read_text())["calibration"][name]["primary"])
        difference = np.abs(found[name] - expected[name]).max()
        assert 0 < difference <= export.MOST * spread
    assert open_model(str(folder)).identity != open_model(str(handed_on)).identity  # other scores
    assert "weights were rounded to 16 bits" in (folder / CARD).read_text()


def test_rounding_that_changes_scores_is_refused_with_the_figure_and_nothing_is_written(
    small_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(export, "MOST", 1e-9)
    assert cli.export_command([str(small_run), "--to", str(tmp_path / "half"), "--half"]) == 2
    assert "standard deviations of its calibration scores; at most 1e-09 is allowed" in capsys.readouterr().err
    assert not (tmp_path / "half").exists()


def test_an_onnx_file_gives_the_primary_score_by_what_its_metadata_say(small_run, films, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is missing: pip install '.[onnx]'")
    folder = tmp_path / "model"
    assert cli.export_command([str(small_run), "--to", str(folder), "--onnx", "--primary"]) == 0
    expected, images = score_new(str(folder), [str(films)]).table, []
    for name in expected["image"]:  # the percentiles, as the metadata say; the films are squares of the right size
        grey = np.frombuffer((films / name).read_bytes()[-32 * 32 :], np.uint8).reshape(32, 32)
        low, high = np.percentile(grey, [1, 99])
        images.append(np.round(np.clip((grey - low) / (high - low), 0, 1) * 255) / 255)
    stack = np.array(images, np.float32)[:, None]
    facts, text = json.loads((folder / FACTS).read_text()), (folder / CARD).read_text()
    for method in ("unet", "ra"):
        session = onnxruntime.InferenceSession(folder / onnx_place(method), providers=["CPUExecutionProvider"])
        [redrawn] = session.run(None, {"images": stack})
        np.testing.assert_allclose(np.abs(stack - redrawn).mean(axis=(1, 2, 3)), expected[method], atol=1e-5)
        says = session.get_modelmeta().custom_metadata_map
        assert repr(facts["thresholds at a false alarm rate of 5%"][method]) in says["threshold"]
        assert "percentile 1 becomes 0 and percentile 99 becomes 1" in says["preparation"]
        assert "not for diagnosis" in says["use"] and facts["identity"] in says["model"]
        for topic in ("input", "preparation", "output", "score", "threshold"):
            assert says[topic] in text
        assert str(small_run.parent).encode() not in (folder / onnx_place(method)).read_bytes()
    assert cli.export_command([str(small_run), "--to", str(folder)]) == 0
    assert not list(folder.glob("*.onnx"))  # those of the older export are gone


@pytest.mark.parametrize("file", [WEIGHTS, FACTS])
def test_a_damaged_folder_is_refused(handed_on, tmp_path, file):
    folder = shutil.copytree(handed_on, tmp_path / "model")
    content = bytearray((folder / file).read_bytes())
    content[-3] ^= 1
    (folder / file).write_bytes(content[:-1] if file == FACTS else content)
    with pytest.raises(RunError, match="get the folder again"):
        open_model(str(folder))


def test_another_versions_folder_is_refused(handed_on, tmp_path):
    folder = shutil.copytree(handed_on, tmp_path / "model")
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps(facts | {"version": 99}))
    with pytest.raises(RunError, match="written by another version"):
        open_model(str(folder))


def test_a_folder_with_other_files_is_left_as_it_is(small_run, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    assert cli.export_command([str(small_run), "--to", str(tmp_path)]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


class Hub(SimpleHTTPRequestHandler):
    """The part of the Hugging Face Hub that a download needs, with one model, owner/chest."""

    commit = "0" * 40

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/owner/chest"):
            here = [(file.name, file.stat().st_size) for file in Path(self.directory).iterdir()]
            tree = [{"type": "file", "path": name, "size": size, "oid": self.commit} for name, size in here]
            whole = {"id": "owner/chest", "sha": self.commit, "siblings": [{"rfilename": name} for name, _ in here]}
            self.answer(200, tree if "/tree/" in self.path else whole)
        elif self.path.startswith("/owner/chest/resolve/"):
            self.path = "/" + self.path.rpartition("/")[2]
            super().do_GET()
        else:
            self.answer(404, {"error": "Repository not found"})

    def do_HEAD(self) -> None:
        self.path = "/" + self.path.rpartition("/")[2]
        super().do_HEAD()

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        super().end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        file = Path(self.directory) / self.path.strip("/")
        if file.is_file():
            self.send_header("ETag", f'"{digest(file)}"')
            self.send_header("X-Repo-Commit", self.commit)
        super().end_headers()

    def log_message(self, *words: object) -> None:
        pass


def test_a_model_on_the_hub_is_used_by_its_address(handed_on, films, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(handed_on)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    download = partial(huggingface_hub.snapshot_download, endpoint=url, cache_dir=tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    try:
        assert open_model("hf://owner/chest").identity == open_model(str(handed_on)).identity
        with pytest.raises(RunError, match="hf://owner/nothing cannot be read"):
            open_model("hf://owner/nothing")
        with pytest.raises(RunError, match="is no model's address"):
            open_model("hf://a/b/c")
    finally:
        server.shutdown()
        server.server_close()
