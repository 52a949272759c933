"""Links between chapters become links between cells, and images of files become part of the text."""

import base64
import mimetypes
import re
from pathlib import Path

from lib.notebook.chapter import Chapter
from lib.notebook.sources import BuildError

LINK = re.compile(  # escapes, code and mathematics come first: what they hold is no link; last what cannot be followed
    r"\\.|```.*?```|~~~.*?~~~|`(?:[^`\n]|\n(?![ \t]*\n))*`|\$\$.*?\$\$|\$[^$\n]*\$"
    r"|(!?)\[((?:!\[[^\]]*\]\([^()]*\)|\\.|`[^`\n]*`|\[[^\[\]`\\]*\]|[^\[\]`\\])*)\]"
    r"\(\s*((?:[^\s()]|\([^\s()]*\))+)(\s+\"[^\"]*\"|\s+'[^']*'|\s*)\)"
    r"|(\]\(|^[ >*+-]{0,6}\[[^\]\n]+\]:[ \t]*\S+[ \t]*(?:[\"'(].*)?$|<(?i:img\b|a\s[^>]*href))",
    re.S | re.M,
)


def link(root: Path, chapters: list[Chapter], kept: list[Chapter]) -> None:
    """Let links lead to cells: `04_x.py`, `04_x.py#id` and `#id`; and put images of files into the text.

    Colab knows `#scrollTo=` and a cell's id; elsewhere the `id` of an element counts, so a cell that is linked to gets
    one of that name (JupyterLab 4.6 drops a `name`). A link to a chapter that is not kept becomes plain text.
    """
    titles = {Path(chapter.name).name: chapter.title.metadata.id for chapter in chapters}
    prose = {cell.metadata.id: cell for chapter in chapters for cell in chapter.cells if cell.cell_type == "markdown"}
    shown = {cell.metadata.id for chapter in kept for cell in chapter.cells}
    linked = {chapter.title.metadata.id for chapter in kept}

    def resolve(match: re.Match, at: int = 0) -> str:
        image, label, address, rest, lost = match.groups()
        line = at or int(first) + 1 + cell.source.count("\n", 0, match.start())
        if lost:
            raise BuildError(
                f"{name}:{line}: what begins with {lost.strip()} cannot be followed; wanted [text](address) or "
                "![text](file), on one line and not empty"
            )
        if address is None:
            return match[0]
        label = LINK.sub(lambda inner: resolve(inner, line), label)
        if not re.match(r"(https?|mailto|data):", address, re.I):
            if image:
                address = data_address(root / Path(name).parent / address, f"{name}:{line}")
            else:
                file, _, anchor = address.partition("#")
                anchor = anchor or titles.get(file)
                if (file and file not in titles) or anchor not in prose:
                    raise BuildError(
                        f"{name}:{line} links to {address}, which is not in the notebook; wanted an address that "
                        f"begins with https://, # and the id of a markdown cell, or of the chapters {', '.join(titles)}"
                    )
                if anchor not in shown:
                    return label
                linked.add(anchor)
                address = f"#scrollTo={anchor}"
        return f"{image}[{label}]({address}{rest})"

    for cell in prose.values():
        name, _, first = cell.metadata.imgae_dx.source.partition(":")
        cell.source = LINK.sub(resolve, cell.source)
    for anchor in linked:
        heading, _, rest = prose[anchor].source.partition("\n")
        element = f'<a id="scrollTo={anchor}"></a>'
        parts = [heading, element, rest.strip("\n")] if heading.startswith("#") else [element, prose[anchor].source]
        prose[anchor].source = "\n\n".join(filter(None, parts))


def data_address(file: Path, place: str) -> str:
    """Return an image file as the address that holds it; BuildError at `place` if it cannot be shown."""
    kind = mimetypes.guess_type(file.name)[0] or ""
    if not file.is_file() or not kind.startswith("image/"):
        raise BuildError(
            f"{place} shows {file.name}, which is no image file beside the chapter; the notebook must hold it"
        )
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
