"""What a person sees: the notebook run in JupyterLab, and the report opened from the disk, in a real browser.

The screenshots stay in runs/browser.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import nbformat
import papermill
import pytest
import yaml
from browser import chromium, errors, fetched, needs_chromium
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from lib.notebook.packing import pack
from lib.notebook.setup import Packed
from lib.runs.page import write_report

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks/Anomaly_Detection_Research_Colab.ipynb"
SMOKE = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
SCREENSHOTS = ROOT / "runs/browser"
LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # or cells out of sight are not in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

pytestmark = needs_chromium


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path / "profile") as chrome:
        yield chrome


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab over the test's folder, with settings and a kernel's files of its own."""
    for name, setting in LAB_SETTINGS.items():
        file = tmp_path / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex()
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    places["JUPYTERLAB_SETTINGS_DIR"] = "settings"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--KernelManager.transport_encryption=auto"]
    with (tmp_path / "lab.log").open("wb") as log:
        environment = os.environ | {name: str(tmp_path / place) for name, place in places.items()}
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                with urlopen(f"http://127.0.0.1:{port}/api?token={token}", timeout=10):
                    break
            except OSError:
                assert server.poll() is None, (tmp_path / "lab.log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/lab/tree/smoke.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def found(browser: Chrome, css: str, words: str = "") -> WebElement:
    """The first element with these words that is there within two minutes."""
    wanted = f"{css} with {words!r}"
    return WebDriverWait(browser, 120).until(
        lambda _: next((item for item in browser.find_elements(By.CSS_SELECTOR, css) if words in item.text), None),
        wanted,
    )


def screenshot(browser: Chrome, element: WebElement, name: str) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'start'})", element)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def run_all(browser: Chrome) -> None:
    found(browser, ".jp-Toolbar-kernelName", "Python 3")
    found(browser, ".lm-MenuBar-item", "Run").click()
    found(browser, ".lm-Menu-item", "Run All Cells").click()


def printed(browser: Chrome, words: str) -> None:
    """Wait until the last cell has printed these words and nothing else."""

    def shown(_) -> bool:
        outputs = browser.find_elements(By.CSS_SELECTOR, ".jp-CodeCell:last-of-type .jp-OutputArea-output pre")
        return [output.text for output in outputs][-1:] == [words]

    WebDriverWait(browser, 120, ignored_exceptions=[StaleElementReferenceException]).until(shown, words)


def test_a_line_brings_a_file_into_its_cell_where_an_edit_takes_effect_and_lasts_over_a_restart(tmp_path, lab, browser):
    files = {name: (ROOT / name).read_text() for name in Packed.KERNEL}
    files |= {"lib/__init__.py": '"""Library."""\n', "lib/zero.py": '"""A number."""\n\nZERO = "naught"\n'}
    setup = (ROOT / "lib/notebook/setup.py").read_text()
    sources = [setup, pack(files), "%embed zero.py", "import lib.zero\n\nprint(lib.zero.ZERO)"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    closed = {"jp-MarkdownHeadingCollapsed": True}  # hides setup cell and packed cell, which run all the same
    cells.insert(2, nbformat.v4.new_markdown_cell("# 1 Which one?"))
    cells.insert(0, nbformat.v4.new_markdown_cell("###### Set up", metadata=closed))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "smoke.ipynb")
    browser.get(lab)
    run_all(browser)
    printed(browser, "naught")
    editor = found(browser, ".jp-CodeCell .cm-content", "%%embed lib/zero.py")
    editor.click()
    editor.send_keys(Keys.CONTROL, Keys.END)
    editor.send_keys("ZERO = 7")
    run_all(browser)
    printed(browser, "7")
    assert found(browser, ".jp-OutputArea-output", "reloaded: lib.zero;")
    found(browser, ".lm-MenuBar-item", "Kernel").click()
    found(browser, ".lm-Menu-item", "Restart Kernel and Run All").click()
    found(browser, ".jp-Dialog .jp-mod-accept", "Restart").click()
    found(browser, ".jp-OutputArea-output", "lib/zero.py  4 lines  changed")
    printed(browser, "7")


def test_a_person_runs_the_notebook_in_jupyterlab_and_opens_its_report(tmp_path, lab, browser):
    settings = SMOKE | {"backbone": "none", "run_dir": "run"}
    papermill.execute_notebook(NOTEBOOK, tmp_path / "smoke.ipynb", parameters=settings, prepare_only=True)
    browser.get(lab)
    found(browser, ".jp-Notebook h1")
    run_all(browser)
    status = tmp_path / "run/status.json"
    WebDriverWait(browser, 600).until(lambda _: status.is_file() and '"running"' not in status.read_text(), "the run")
    assert json.loads(status.read_text())["status"] == "ok"

    table = found(browser, ".jp-OutputArea table", "AUROC [95 % interval]")
    assert {"unet", "ra"} <= set(table.text.split())
    screenshot(browser, table, "notebook-table")
    figures = browser.find_elements(By.CSS_SELECTOR, ".jp-RenderedImage img")
    drawn = {file.stem for file in (tmp_path / "run/figures").glob("*.png")}
    assert len(figures) >= len(drawn) > 15
    assert all(int(figure.get_property("naturalWidth")) > 300 for figure in figures)
    screenshot(browser, figures[-1], "notebook-figure")
    assert not browser.find_elements(By.CSS_SELECTOR, '[data-mime-type="application/vnd.jupyter.error"]')
    assert not errors(browser)

    found(browser, ".lm-MenuBar-item", "File").click()
    found(browser, ".lm-Menu-item", "Save Notebook").click()
    saved = tmp_path / "smoke.ipynb"
    kept = '"image/png": "'  # its metadata have that key too
    WebDriverWait(browser, 60).until(lambda _: saved.read_text().count(kept) == len(figures), "every figure saved")
    nbformat.validate(nbformat.read(saved, as_version=4))
    report = tmp_path / "run/report.html"
    write_report(shutil.copy(saved, tmp_path / "run/notebook.ipynb"), report)
    assert report.stat().st_size < 5 * 2**20

    browser.get("about:blank")
    fetched(browser)  # what JupyterLab did until it was left is not the report's
    browser.get(report.as_uri())
    assert fetched(browser) == [report.as_uri()]
    shown = browser.find_elements(By.CSS_SELECTOR, "img, svg")
    assert len(shown) == len(figures) and len(browser.find_elements(By.CSS_SELECTOR, "svg")) >= 5
    assert all(figure.size["height"] > 50 for figure in shown)
    assert all(len(figure.get_attribute("alt") or figure.get_attribute("aria-label")) > 10 for figure in shown)
    equations = browser.find_elements(By.CSS_SELECTOR, "math[display=block]")
    assert len(equations) >= 5 and all(equation.size["height"] > 20 for equation in equations)
    links = browser.find_elements(By.CSS_SELECTOR, 'nav a[href^="#"], main a[href^="#"]')
    targets = {
        target.get_attribute("id") or target.get_attribute("name")
        for target in browser.find_elements(By.CSS_SELECTOR, "[id], [name]")
    }
    assert len(links) > 40 and {link.get_dom_attribute("href")[1:] for link in links} <= targets
    assert not any(code.is_displayed() for code in browser.find_elements(By.CSS_SELECTOR, "details .highlight"))
    table = found(browser, "table", "AUROC [95 % interval]")
    screenshot(browser, browser.find_element(By.CSS_SELECTOR, "h1"), "report-top")
    screenshot(browser, table, "report-table")
    screenshot(browser, equations[-1], "report-equation")
    assert not errors(browser)
