"""The built notebook in a kernel like Colab's: Python 3.13, IPython 7.34, Colab's packages, a stub of `google.colab`.

The environment, some 6 GB, is built once into `.venv-colab`, from the registry that pip is set up for.
"""

import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from lib.files import locked

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks/Anomaly_Detection_Research_Colab.ipynb"
REQUIREMENTS = ROOT / "tests/colab/requirements.txt"
LACKING = ("jaxtyping", "wadler_lindig")  # what Colab has not, and the first cell installs
KERNEL = "kernel_class=google.colab.kernel.Kernel"
SECRETS = {name: f"secret-{name.lower()}-9f3c1e7a" for name in ("KAGGLE_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY")}
SETTINGS = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
SETTINGS |= {"backbone": "none", "epochs": 3, "tracking": "wandb", "run_dir": "runs/colab"}


def pin(name: str) -> str:
    """The version that constraints.txt holds of a package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def known() -> list[str | Path]:
    """Where a Python 3.13 may be; on the path there may be pyenv's word for one that is not chosen."""
    return [*Path.home().glob(".pyenv/versions/3.13.*/bin/python"), *filter(None, [shutil.which("python3.13")])]


@pytest.fixture(scope="session")
def python() -> Path:
    """The Python of an environment like Colab's; it is built where it is not there or out of date."""
    folder, digest = ROOT / ".venv-colab", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    python, ready = folder / "bin/python", folder / "ready"
    with locked(ROOT / ".venv-colab.lock", "is building .venv-colab"):
        if not ready.is_file() or ready.read_text() != digest:
            base = next((found for found in known() if subprocess.run([found, "-c", ""]).returncode == 0), None)
            if base is None:
                pytest.skip("no Python 3.13, which Colab has: neither python3.13 on the path nor one of pyenv's")
            shutil.rmtree(folder, ignore_errors=True)
            pip = [python, "-m", "pip", "--quiet"]
            for command in (
                [base, "-m", "venv", folder],
                [*pip, "install", "-r", REQUIREMENTS],
                [*pip, "download", "--no-deps", "-d", folder / "wheels", *map(pin, LACKING)],
            ):
                subprocess.run(command, check=True)
            ready.write_text(digest)
    return python


@pytest.fixture
def colab(python, tmp_path, monkeypatch):
    """Execute cells in that kernel, each in its own machine's folder; the reader's secrets are Colab's."""
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", *LACKING], check=True)
    spec = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", f"--IPKernelApp.{KERNEL}"],
        "display_name": "Colab",
        "language": "python",
        "env": {
            "PYTHONPATH": str(ROOT / "tests/colab"),
            "COLAB_SECRETS": str(tmp_path / "secrets.json"),
            "HOME": str(tmp_path),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(python.parents[1] / "wheels"),
            "PIP_CONFIG_FILE": os.devnull,
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        },
    }
    (tmp_path / "jupyter/kernels/colab").mkdir(parents=True)
    (tmp_path / "jupyter/kernels/colab/kernel.json").write_text(json.dumps(spec))
    (tmp_path / "secrets.json").write_text(json.dumps(SECRETS))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in (*SECRETS, "WANDB_MODE", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)

    def client(settings, *more):
        book = papermill.execute_notebook(
            NOTEBOOK, None, parameters=settings, prepare_only=True, kernel_name="colab", progress_bar=False
        )
        book.cells += [nbformat.v4.new_code_cell(source) for source in more]
        machine = tmp_path / "machine"
        machine.mkdir(exist_ok=True)
        return NotebookClient(book, kernel_name="colab", timeout=1200, resources={"metadata": {"path": str(machine)}})

    return client


def printed(cells) -> str:
    return "".join(out.get("text", "") + "\n".join(out.get("traceback", [])) for cell in cells for out in cell.outputs)


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


ASK = """
import hashlib, kagglehub.config, huggingface_hub
from lib.environment import secret

found = {
    "KAGGLE_API_TOKEN": kagglehub.config.get_kaggle_credentials().api_key,
    "HF_TOKEN": huggingface_hub.get_token(),
    "WANDB_API_KEY": secret("WANDB_API_KEY"),
}
for name, value in found.items():
    print("found", name, hashlib.sha256(value.encode()).hexdigest())
assert secret("NO_SUCH_SECRET") == ""
"""


def test_run_all_works_is_resumed_on_a_new_machine_and_shows_no_secret(colab, tmp_path, python):
    drive = tmp_path / "drive/MyDrive/imgae-dx"
    settings = SETTINGS | {"keep_in": str(drive)}
    first = colab(settings)

    def disconnect():
        while not list(drive.glob("colab/checkpoints/unet.pt.*")):
            time.sleep(0.05)
        first.km.provisioner.process.kill()

    threading.Thread(target=disconnect, daemon=True).start()
    with pytest.raises(DeadKernelError):
        first.execute()
    run = tmp_path / "machine/runs/colab"
    before = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    shutil.rmtree(tmp_path / "machine")  # the virtual machine is gone, and all that was installed on it
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", *LACKING], check=True)

    book = colab(settings, ASK).execute()
    output = printed(code(book))
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    assert "UsageError" not in output
    assert "installed jaxtyping" in output and "torch         2.11.0" in output
    assert f"Mounted at {tmp_path / 'drive'}" in output and f"restored from {drive / 'colab'}: unet.pt" in output
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == before and len(rows) == 6  # the first epoch is the one that the lost machine trained
    assert json.loads((run / "status.json").read_text())["status"] == "ok"
    assert (drive / "colab/results.json").read_bytes() == (run / "results.json").read_bytes()

    for name, value in SECRETS.items():
        assert f"found {name} {hashlib.sha256(value.encode()).hexdigest()}" in output
    left = [file for file in tmp_path.rglob("*") if file.is_file() and file != tmp_path / "secrets.json"]
    texts = [nbformat.writes(book).encode(), *(file.read_bytes() for file in left)]
    assert not [name for name, value in SECRETS.items() for text in texts if value.encode() in text]


def test_an_error_names_the_line_of_its_chapter(colab):
    client = colab(SETTINGS | {"learning_rate": -1})
    with pytest.raises(Exception, match="learning_rate"):
        client.execute()
    lines = (ROOT / "research/01_parameters.py").read_text().splitlines()
    line = 1 + lines.index("params = read_parameters(globals())")
    assert f"at research/01_parameters.py:{line}, lib/params.py:" in printed(code(client.nb))


def test_what_the_setup_cell_promises_holds_there(python):
    """Edits that take effect, workers of every kind, pickling, lines below errors: `test_kernel.py`, run there."""
    command = [python, "-m", "pytest", "-q", "-m", "not long", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", "-o", "filterwarnings="]  # the project's own want packages that Colab has not
    done = subprocess.run([*command, "tests/notebook/test_kernel.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
