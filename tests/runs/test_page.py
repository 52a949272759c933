"""Promises of `lib.runs.page`.

An executed notebook becomes one page that opens, whole and readable, without network.
"""

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from nbformat import NotebookNode, read, validate, write
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lib.figures.images import Drawing
from lib.params import Params
from lib.runs.page import publish, write_report
from lib.runs.run import Run

PROSE = r"""# Does it find anything?

<a name="scrollTo=first"></a>
[![Open in Colab](https://example.org/badge.svg)](https://example.org/book)
and [here](#scrollTo=first), $z \in \mathbb R^d$.

$$\mathcal L(x) = \frac{1}{HW} \sum_i (x_i - \hat x_i)^2$$

## Limits"""


class Page(HTMLParser):
    """Every tag of a page with its attributes, and what stands outside of folded parts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.folded, self.open = "", ""
        self.depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.depth += tag == "details"

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag == "details"

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.folded += data
        else:
            self.open += data

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def code(source: str, *outputs: NotebookNode, tags: tuple[str, ...] = ()) -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def shown(figure: Figure) -> NotebookNode:
    """What a notebook keeps of a figure, by IPython's own formatters."""
    data, metadata = InteractiveShell.instance().display_formatter.format(figure)
    return new_output(
        "display_data", data={"image/png": base64.b64encode(data["image/png"]).decode()}, metadata=metadata
    )


def page(folder: Path, *cells: NotebookNode) -> Page:
    write(new_notebook(cells=list(cells)), folder / "notebook.ipynb")
    write_report(folder / "notebook.ipynb", folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def chart() -> Drawing:
    figure = Drawing(figsize=(6, 3))
    ax = figure.subplots()
    ax.plot(np.linspace(0, 1, 20), label="unet 0.71")
    ax.set(title="unet ranks better than ra", xlabel="false alarms", ylabel="found")
    ax.legend()
    return figure


def images(noise: float) -> Drawing:
    figure = Drawing(figsize=(6, 3))
    for ax, title in zip(figure.subplots(1, 2), ("input", "ra"), strict=True):
        ax.imshow(np.random.default_rng(0).random((64, 64)) * noise, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title)
    return figure


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(Params(run_dir="r"), tmp_path)


def test_an_executed_notebook_is_published_without_secrets_paths_and_names(tmp_path):
    project, file = tmp_path / "anna" / "project", tmp_path / "notebook.ipynb"
    secret, place = "https://anna:s3cret-pw@host/x?sig=0dd", f"{project}/runs/a"
    png, source = base64.b64encode(b"/tmp/" * 99).decode(), "x = '/tmp/a/b'  # as it was built"
    outputs = [
        new_output("stream", text=f"{secret} {place}\n"),
        new_output("error", ename="OSError", evalue=place, traceback=[f"File {tmp_path}/lib/a.py:1", secret]),
        new_output("display_data", data={"text/html": f"<td>{place}</td>", "text/plain": place, "image/png": png}),
    ]
    cells = [
        code(source, *outputs),
        code(f"run_dir = '{place}'\ndata_dir = '{tmp_path}/my xrays'", tags=("injected-parameters",)),
    ]
    meta = {"papermill": {"parameters": {"data_dir": secret, "run_dir": place}, "output_path": f"{place}/x.ipynb"}}
    write(new_notebook(cells=cells, metadata=meta), file)
    publish(file, project, [f"{tmp_path}/my xrays"])
    text = file.read_text(encoding="utf-8")
    assert not re.search(f"anna|s3cret|0dd|{re.escape(str(tmp_path))}", text)
    book = read(file, as_version=4)
    validate(book)
    assert book.cells[0].source == source
    assert book.cells[0].outputs[2].data["image/png"].strip() == png
    assert book.cells[1].source == "run_dir = 'runs/a'\ndata_dir = '…/my xrays'"
    assert book.metadata.papermill.parameters.run_dir == "runs/a"


def test_a_number_and_its_interval_stay_on_one_line_of_a_table_and_the_text_around_them_may_break(tmp_path):
    cell = "AUROC 0.770 [0.66, 0.85] on them"
    table = new_output("display_data", data={"text/html": f"<table><tr><td>{cell}</td></tr></table>"})
    found = page(tmp_path, code("x = 0.5 [1, 2]", table))
    assert "AUROC 0.770\N{NO-BREAK SPACE}[0.66,\N{NO-BREAK SPACE}0.85] on them" in found.open
    assert "x = 0.5 [1, 2]" in found.folded


def test_the_page_shows_the_chapters_and_what_they_printed_without_the_librarys_cells(tmp_path):
    report = page(
        tmp_path,
        new_markdown_cell(PROSE),
        code("of_the_library = 1", new_output("stream", text="hidden words"), tags=("library",)),
        code("of_a_chapter = 2", new_output("stream", text="shown words")),
    )
    assert "shown words" in report.open and "Limits" in report.open
    for hidden in ("of_the_library", "hidden words"):
        assert hidden not in report.open + report.folded


def test_code_and_logs_are_folded_and_of_a_progress_bar_only_the_end_is_left(tmp_path):
    log = new_output("stream", name="stderr", text="ra:  10%\rra:  50%\rra: 100%\ndone\n")
    report = page(tmp_path, code("x = 1", log))
    assert "x = 1" in report.folded and "x = 1" not in report.open
    assert "ra: 100%\ndone" in report.folded
    assert "50%" not in report.open + report.folded
    assert all("open" not in attributes for attributes in report.all("details"))


def test_nothing_is_fetched_and_no_script_runs(tmp_path, run):
    run.save_figure(chart(), "roc")
    report = page(tmp_path, new_markdown_cell(PROSE), code("x", shown(chart()), shown(images(1))))
    fetched = [attributes.get("src") or "" for attributes in report.all("img", "iframe", "source", "image")]
    assert fetched and all(source.startswith("data:") for source in fetched)
    assert not report.all("script", "link", "iframe")
    assert "@import" not in report.open and "url(http" not in (tmp_path / "report.html").read_text()
    assert "Open in Colab" in report.open  # the badge's words, for its picture lies elsewhere


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>x</a>"


@pytest.mark.parametrize(
    "kind", ["text/html", "text/markdown", "image/svg+xml", "text/latex", "application/javascript"]
)
@pytest.mark.parametrize("put", [EVIL, f"<table><tr><td onclick='alert(1)'>{EVIL}</td></tr></table>", f"**{EVIL}**"])
def test_markup_that_data_bring_into_an_output_is_text_of_the_page(tmp_path, kind, put):
    outputs = [new_output("display_data", data={kind: put, "text/plain": EVIL}), new_output("stream", text=EVIL)]
    report = page(tmp_path, new_markdown_cell(PROSE), code("x", *outputs))
    assert not report.all("script") and not [attributes for attributes in report.all("img") if "onerror" in attributes]
    assert not [name for _, attributes in report.tags for name in attributes if name.startswith("on")]
    assert not [href for tag in report.all("a") if "javascript" in (href := tag.get("href") or "")]
    if kind in ("text/html", "text/markdown"):
        assert "<script>alert(1)</script>" in report.open


def test_the_page_forbids_scripts_and_anything_from_elsewhere(tmp_path):
    report = page(tmp_path, new_markdown_cell(PROSE))
    policies = [tag["content"] for tag in report.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and "default-src 'none'" in policies[0] and "script-src" not in policies[0]


def test_a_table_of_pandas_keeps_its_look(tmp_path):
    table = pd.DataFrame({"AUROC": [0.5]}, index=["a<b"])
    shaded = table.style.background_gradient("Greys").to_html()
    outputs = [new_output("display_data", data={"text/html": html}) for html in (table.to_html(), shaded)]
    report = page(tmp_path, code("x", *outputs))
    assert len(report.all("table")) == 2 and report.open.count("AUROC") >= 2 and "a<b" in report.open
    styled = [attributes for attributes in report.all("td") if (attributes.get("id") or "").startswith("T_")]
    assert styled and f"#{styled[0]['id']}" in (tmp_path / "report.html").read_text()


def test_every_link_within_the_page_arrives_and_no_id_stands_twice(tmp_path, run):
    run.save_figure(figure := chart(), "a")
    run.save_figure(other := chart(), "b")
    twice = new_markdown_cell("## Limits\n\nAgain.")
    report = page(tmp_path, new_markdown_cell(PROSE), twice, code("x", shown(figure), shown(other)))
    ids = [attributes["id"] for _, attributes in report.tags if attributes.get("id")]
    names = {attributes["name"] for attributes in report.all("a") if "name" in attributes}
    links = [attributes["href"] for attributes in report.all("a") if (attributes.get("href") or "").startswith("#")]
    assert len(report.all("svg")) == 2 and len(ids) == len(set(ids))
    assert len(links) >= 7 and {link.removeprefix("#") for link in links} <= {*ids, *names}


def test_the_contents_list_chapters_and_sections_in_order(tmp_path):
    page(tmp_path, new_markdown_cell(PROSE), new_markdown_cell("# Two\n\n### Too deep"))
    html = (tmp_path / "report.html").read_text()
    contents = html[html.index("<nav") : html.index("</nav>")]
    assert contents.index("Does it find") < contents.index(">Limits<") < contents.index(">Two<")
    assert "Too deep" not in contents


def test_equations_are_mathml_without_what_browsers_have_dropped(tmp_path):
    report = page(tmp_path, new_markdown_cell(PROSE))
    assert [attributes["display"] for attributes in report.all("math")].count("block") == 1
    assert len(report.all("mfrac")) == 1 and {"ℒ", "ℝ"} <= set(report.open) and "$" not in report.open
    assert not [attributes for attributes in report.all("mi") if attributes.get("mathvariant", "normal") != "normal"]


def test_a_formula_that_is_not_tex_stays_as_it_is_written(tmp_path):
    assert r"\left( x" in page(tmp_path, new_markdown_cell(r"Broken: $\left( x$.")).open


def test_a_chart_is_drawn_in_vectors_and_images_keep_every_grey_level_if_that_is_small(tmp_path, run):
    smooth = images(0)
    run.save_figure(line := chart(), "line")
    run.save_figure(smooth, "images")
    report = page(tmp_path, code("x", shown(line), shown(smooth)))
    [vector], [picture] = report.all("svg"), report.all("img")
    assert vector["role"] == "img" and vector["aria-label"]
    kind, data = picture["src"].split(",")
    png, webp = Image.open(BytesIO(smooth._repr_png_()[0])), Image.open(BytesIO(base64.b64decode(data)))
    assert kind == "data:image/webp;base64" and np.array_equal(png.convert("RGB"), webp.convert("RGB"))


def test_noisy_images_take_less_room_than_their_png_and_stay_close_to_it(tmp_path):
    figure = images(1)
    [picture] = page(tmp_path, code("x", shown(figure))).all("img")
    png, webp = figure._repr_png_()[0], base64.b64decode(picture["src"].split(",")[1])
    assert len(webp) < len(png)
    greys = [np.asarray(Image.open(BytesIO(data)).convert("L"), dtype=float) for data in (png, webp)]
    assert np.abs(greys[0] - greys[1]).mean() < 3


def test_a_figure_is_described_by_its_titles_its_axes_and_its_legend(tmp_path, run):
    run.save_figure(line := chart(), "line")
    report = page(tmp_path, code("x", shown(line), shown(images(1))))
    [vector], [picture] = report.all("svg"), report.all("img")
    assert vector["aria-label"] == "unet ranks better than ra: found over false alarms: unet 0.71"
    assert picture["alt"] == "2 pictures: input; ra"


def test_the_answer_stands_first_and_what_it_was_moved_from_leads_there(tmp_path, run):
    run.save_figure(figure := chart(), "answer")
    said = new_output("display_data", data={"text/markdown": "**Which?** ra reached AUROC 0.7"})
    answer = [code("answers()", said, tags=("answer",)), code("picture()", shown(figure), tags=("answer",))]
    report = page(tmp_path, new_markdown_cell(PROSE), code("x", new_output("stream", text="early")), *answer)
    assert report.open.index("ra reached AUROC 0.7") < report.open.rindex("Does it find anything?")
    assert report.open.count("ra reached AUROC 0.7") == 1 and len(report.all("svg")) == 1
    links = [attributes["href"] for attributes in report.all("a") if attributes.get("href")]
    assert links.count("#the-answer") >= 2  # from the contents, and from where it was
    assert "answers()" in report.folded  # the code stays with its chapter


def test_the_gallery_beside_it_is_linked_before_the_contents(tmp_path):
    write(new_notebook(cells=[new_markdown_cell(PROSE)]), tmp_path / "notebook.ipynb")
    write_report(tmp_path / "notebook.ipynb", tmp_path / "report.html", "gallery.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.index('href="gallery.html"') < html.index("<nav")


def test_the_contents_are_folded_and_stand_once(tmp_path):
    report = page(tmp_path, new_markdown_cell(PROSE))
    assert len(report.all("nav")) == 1 and report.folded.count("Does it find anything?") == 1


def test_the_published_runs_are_folded_to_the_end_of_their_chapter(tmp_path):
    cells = [new_markdown_cell("# One"), new_markdown_cell("## The published runs", metadata={"tags": ["published"]})]
    table = new_output("stream", text="of others")
    report = page(
        tmp_path, *cells, code("x", table), new_markdown_cell("# Two"), code("y", new_output("stream", text="mine"))
    )
    assert "of others" in report.folded and "of others" not in report.open
    assert "mine" in report.open


def test_a_bar_that_has_vanished_leaves_no_log(tmp_path):
    log = new_output("stream", name="stderr", text="ra:  10%\rra: 100%\r        \r")
    assert "log" not in page(tmp_path, code("x = 1", log)).folded
