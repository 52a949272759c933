"""An executed notebook, as others may see it -> one HTML page: the answer first, code folded, nothing fetched.

Two tags of cells guide it. What cells tagged "answer" put out stands at the top of the page. From a cell tagged
"published" on, the rest of its chapter is folded.
"""

import base64
import re
import unicodedata
from collections.abc import Iterable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Literal

import nbformat
from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.sanitize import SanitizeHTML
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from PIL import Image
from pygments.formatters import HtmlFormatter

from lib.files import replacing
from lib.privacy import public
from lib.runs.template import STYLE, TEMPLATE

QUALITY = 95  # of WebP, where it is smaller than without loss: pictures of real images, which are full of noise
CONTENTS = "<!-- contents -->"
ANSWER, PUBLISHED = "answer", "published"  # tags
LEFT_OUT = {"library", "contents"}  # tags of cells that the page does without
THERE = "The answer stands [at the top of this page](#the-answer)."
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
"""The page's Content-Security-Policy: no script runs, and nothing is fetched or sent."""
SHOWN = {"text/html", "text/markdown", "text/plain", "image/png", "image/jpeg"}  # kinds of output; others are left out
SAFE = SanitizeHTML(
    tags=[
        *("a", "b", "br", "caption", "code", "col", "colgroup", "div", "em", "h1", "h2", "h3", "h4", "hr", "i", "li"),
        *("ol", "p", "pre", "span", "strong", "style", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
    ],
    attributes={
        "*": ["class", "id", "style", "title"],
        "a": ["href"],
        **{cell: ["colspan", "rowspan", "scope", "align"] for cell in ("td", "th")},
    },
)
"""What may stand in an HTML output, which holds what data say: tables and text. All else is escaped."""
CELL = re.compile(r"(?<=<td>)[^<]+")  # of a table
INTERVAL = re.compile(r"\d \[[^\]]*\]")  # with the last digit before it: the two stay on one line


def publish(notebook: Path, root: Path, places: Iterable[str]) -> None:
    """Take secrets, names of users and absolute paths out of what executing a notebook has added to it.

    These are outputs but images, the cell of parameters that papermill injects, and its metadata. `root` and `places`
    are those of `lib.privacy.public`. A file that a full disk has cut short stays as it is.
    """
    try:
        book = nbformat.read(notebook, as_version=4)
    except ValueError:
        return
    places = list(places)
    book.metadata = nbformat.from_dict(public(book.metadata, root, places))
    for cell in book.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = public(cell.source, root, places)
        for output in cell.get("outputs", []):
            for field in {"text", "ename", "evalue", "traceback"} & output.keys():
                output[field] = public(output[field], root, places)
            for kind in [kind for kind in output.get("data", {}) if not kind.startswith("image/")]:
                output.data[kind] = public(output.data[kind], root, places)
    with replacing(notebook) as out:
        out.write(nbformat.writes(book).encode())


def write_report(notebook: Path, report: Path, gallery: str = "") -> None:
    """Write an executed notebook as one HTML page, without the library's cells, its answer and the contents first.

    `gallery` is the name of a page beside it that shows every test image, to which it links.
    A figure that `Run.save_figure` has also written as SVG is shown in that form, unless its PNG is smaller. Markup in
    an output, which data may have brought there, is escaped or sanitised; a chapter's own text is as it is written.
    """
    book = nbformat.read(notebook, as_version=4)
    book.cells = [cell for cell in book.cells if not LEFT_OUT & {*cell.metadata.get("tags", [])}]
    for output in [output for cell in book.cells for output in cell.get("outputs", [])]:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?=[^\n]|$)", "", output.text)  # a progress bar's last state
        elif "image/png" in output.get("data", {}):
            output.data = {"text/html": _figure(output, notebook.parent / "figures")}
        elif "data" in output:
            output.data = {kind: content for kind, content in output.data.items() if kind in SHOWN}
            if "text/html" in output.data:
                output.data["text/html"] = SAFE.sanitize_html_tags(output.data["text/html"])
    for cell in [cell for cell in book.cells if "outputs" in cell]:  # a bar that has vanished leaves nothing
        cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.text.strip()]
    exporter = _Exporter(raw_template=TEMPLATE, template_name="basic")
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    title = next((line[2:] for cell in book.cells for line in cell.source.splitlines() if line.startswith("# ")), "")
    book.cells = [*_first(book.cells, gallery), *_folded(book.cells)]
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    style = HtmlFormatter().get_style_defs(".highlight")
    style += f"\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n{STYLE}"
    resources = {"title": title, "style": style, "policy": POLICY}
    page, _ = exporter.from_notebook_node(book, resources)
    with replacing(report) as out:
        page = CELL.sub(
            lambda cell: INTERVAL.sub(lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), cell[0]), page
        )
        out.write(page.replace(CONTENTS, exporter.contents()).encode())


def _first(cells: list[NotebookNode], gallery: str) -> list[NotebookNode]:
    """Return the beginning of the page: what the cells of the answer put out, moved here, links, folded contents."""
    tagged = [cell for cell in cells if ANSWER in cell.metadata.get("tags", []) and cell.get("outputs")]
    first = [new_markdown_cell("# The answer")] if tagged else []
    for cell in tagged:
        said = [output for output in cell.outputs if output.output_type != "stream"]
        first.append(new_code_cell(outputs=said, metadata={"transient": {"remove_source": True}}))
        cell.outputs = [new_output("display_data", data={"text/markdown": THERE})] if cell is tagged[0] else []
    if gallery:
        first.append(new_markdown_cell(f"Every test image with its maps: [{gallery}]({gallery})."))
    contents = f'<nav aria-label="Contents">{CONTENTS}</nav>'
    return [*first, new_markdown_cell(contents, metadata={"opens": "Contents", "closes": True})]


def _folded(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Return the cells; those from a cell tagged as published to the end of its chapter are marked to be folded."""
    inside = False
    for before, cell in zip([*cells[:1], *cells], cells, strict=False):
        if inside and cell.cell_type == "markdown" and cell.source.startswith("# "):
            before.metadata.closes, inside = True, False
        if not inside and PUBLISHED in cell.metadata.get("tags", []):
            cell.metadata.opens, inside = "The published runs", True
    if inside:
        cells[-1].metadata.closes = True
    return cells


class _Exporter(HTMLExporter):
    """nbconvert's exporter, which also collects the headings."""

    def __init__(self, **settings: object) -> None:
        self.headings: dict[str, tuple[int, str]] = {}  # by id: level and what it says, in HTML
        super().__init__(**settings)

    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """Return Markdown as HTML, in place of nbconvert's filter of that name; in an output, HTML is escaped."""
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(self.headings, attachments, escape="output" in context)
        return MarkdownWithMath(renderer=renderer).render(source)

    def contents(self) -> str:
        """Return the first two levels of headings as a list of links."""
        rows = [
            f'<li class="h{level}"><a href="#{key}">{text}</a></li>'
            for key, (level, text) in self.headings.items()
            if level <= 2
        ]
        return "<ul>\n" + "\n".join(rows) + "\n</ul>"


class _Renderer(IPythonRenderer):
    """nbconvert's renderer, with MathML for TeX, and the text of an image that lies elsewhere in its place."""

    def __init__(
        self, headings: dict[str, tuple[int, str]], attachments: dict[str, dict[str, str]], escape: bool
    ) -> None:
        super().__init__(escape=escape, allow_harmful_protocols=False, attachments=attachments)
        self.headings = headings

    def heading(self, text: str, level: int, **attrs: object) -> str:
        words = re.sub(r"<[^>]+>", "", text)
        stem = re.sub(r"\W+", "-", words.lower()).strip("-") or "section"
        key, n = stem, 1
        while key in self.headings:
            key, n = f"{stem}-{n}", n + 1
        self.headings[key] = level, re.sub(r"</?a\b[^>]*>", "", text)
        link = f'<a class="anchor-link" href="#{key}" aria-label="link to this section">¶</a>'
        return f'<h{level} id="{key}">{text}{link}</h{level}>\n'

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return text if "://" in url else super().image(text, url, title)


def _mathml(tex: str, display: Literal["block", "inline"]) -> str:
    """Return TeX as MathML without `mathvariant`, which browsers have dropped; as it is if it is no TeX."""
    try:
        mathml = re.sub("(<mi>log</mi>)(?=<m)", r"\1<mspace width='0.17em'/>", convert(tex, display=display))
    except Exception:  # the converter's errors share no base class, and a formula must not cost the report
        return f"<code>{escape(tex)}</code>"
    return re.sub(r'<mi mathvariant="(script|double-struck|bold)">([A-Za-z])<', _letter, mathml)


def _letter(found: re.Match[str]) -> str:
    name = f"{found[1].upper()} {'CAPITAL' if found[2].isupper() else 'SMALL'} {found[2].upper()}"
    try:
        return f"<mi>{unicodedata.lookup(name)}<"  # ℒ, ℝ and a few others are older than their alphabets
    except KeyError:
        return f"<mi>{unicodedata.lookup(f'MATHEMATICAL {name}')}<"


def _figure(output: NotebookNode, figures: Path) -> str:
    """Return a PNG output as HTML, in its smallest form, with its alternative text."""
    png, about = base64.b64decode(output.data["image/png"]), output.metadata.get("image/png", {})
    alt, vector = escape(about.get("alt", "")), figures / f"{about.get('figure', '')}.svg"
    if vector.is_file() and vector.stat().st_size < len(png):
        svg = vector.read_text(encoding="utf-8")
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{vector.stem}-", svg)  # other figures have the same ids
        return svg.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)
    image = Image.open(BytesIO(png)).convert("RGB")
    forms = []
    for settings in ({"lossless": True}, {"quality": QUALITY}):
        webp = BytesIO()
        image.save(webp, format="webp", **settings)
        forms.append(webp.getvalue())
    data, (width, height) = base64.b64encode(min(forms, key=len)).decode(), image.size
    return f'<img src="data:image/webp;base64,{data}" alt="{alt}" width="{width}" height="{height}">'
