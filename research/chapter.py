"""What the builder knows of a chapter: its cells and their lines, what it is refused for, which names it takes over."""

import ast
import base64
import itertools
import mimetypes
import re
import symtable
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jupytext
from nbformat import NotebookNode

from research.embed import content_id

HEADER = re.compile(r"^# %%(?: .*)?$", re.M)
NAME = re.compile(r"research/\d\d_\w+\.py", re.A)
TEMPLATE = "research/template.py"
DRAWING = ("lib.figures", "lib.charts")
IMAGE = re.compile(r"!\[[^\]]*\]\(")
LINK = re.compile(  # escapes, code and mathematics come first: what they hold is no link; last what cannot be followed
    r"\\.|```.*?```|~~~.*?~~~|`(?:[^`\n]|\n(?![ \t]*\n))*`|\$\$.*?\$\$|\$[^$\n]*\$"
    r"|(!?)\[((?:!\[[^\]]*\]\([^()]*\)|\\.|`[^`\n]*`|\[[^\[\]`\\]*\]|[^\[\]`\\])*)\]"
    r"\(\s*((?:[^\s()]|\([^\s()]*\))+)(\s+\"[^\"]*\"|\s+'[^']*'|\s*)\)"
    r"|(\]\(|^[ >*+-]{0,6}\[[^\]\n]+\]:[ \t]*\S+[ \t]*(?:[\"'(].*)?$|<(?i:img\b|a\s[^>]*href))",
    re.S | re.M,
)


class BuildError(ValueError):
    """The chapters or the library cannot become a notebook."""


class Chapter(NamedTuple):
    """One file `research/[0-9][0-9]_*.py`: Jupytext's percent format, opened by its question."""

    name: str  # research/04_reversed_autoencoder.py
    source: str
    cells: list[NotebookNode]  # `metadata.imgae_dx.source` of each is the line where it starts

    @property
    def title(self) -> NotebookNode:
        """The cell that opens the chapter."""
        return self.cells[0]

    @property
    def number(self) -> str:
        """The two digits of the file's name."""
        return Path(self.name).name[:2]

    @property
    def heading(self) -> str:
        """The question."""
        return self.title.source.split("\n")[0].removeprefix("# ").rstrip()

    def code(self) -> Iterator[tuple[int, str]]:
        """Yield each code cell's text, and the number of the line above its first."""
        lines = self.source.split("\n")
        for cell in self.cells:
            if cell.cell_type == "code":
                above = int(cell.metadata.imgae_dx.source.rpartition(":")[2])
                while above < len(lines) and not lines[above].strip():
                    above += 1
                yield above, cell.source

    def tagged(self, tag: str) -> list[NotebookNode]:
        """Return the code cells with this tag."""
        return [cell for cell in self.cells if cell.cell_type == "code" and tag in cell.metadata.get("tags", [])]


def text_of(root: Path, name: str) -> str:
    """Return a source file's text; BuildError if a notebook could not hold it to the byte and run."""
    try:
        text = (root / name).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise BuildError(
            f"{name} is not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if "\r" in text or text.startswith("\ufeff"):
        raise BuildError(f"{name} has line ends of Windows or a byte order mark; save it as plain UTF-8 with ends \\n")
    return text


def read_all(root: Path) -> list[Chapter]:
    """Return the chapters in reading order; BuildError if a file means to be one and its name or title is in the way."""
    names = [f"research/{file.name}" for file in sorted(root.glob("research/*.py"))]
    sources = {name: text_of(root, name) for name in names if name != TEMPLATE}
    meant = [name for name in sources if re.match(r"research/\d\d_", name) or HEADER.search(sources[name])]
    if misnamed := [name for name in meant if not NAME.fullmatch(name)]:
        raise BuildError(f"{misnamed[0]} holds cells, so it is a chapter; wanted a name such as research/10_mine.py")
    chapters = [read(name, sources[name]) for name in meant]
    for before, chapter in itertools.combinations(chapters, 2):
        if before.number == chapter.number or before.heading == chapter.heading:
            raise BuildError(f"{before.name} and {chapter.name} have the same number or title; change one")
    for chapter in chapters:
        if (given := re.match(r"\d\d?\b", chapter.heading)) and int(given[0]) != int(chapter.number):
            raise BuildError(f"{chapter.name}: `{chapter.heading}` has another number than its file; change one")
    return chapters


def read(name: str, source: str) -> Chapter:
    """Return the chapter; BuildError names the line of what a reader of the notebook would miss in it."""
    try:
        tree = ast.parse(source, name)  # magics are comments in a chapter, so it is Python
    except SyntaxError as error:
        raise BuildError(f"{name}:{error.lineno}: {error.msg}") from None
    cells = jupytext.reads(source, fmt="py:percent").cells
    starts = [source.count("\n", 0, header.start()) + 1 for header in HEADER.finditer(source)]
    if len(cells) != len(starts):
        raise BuildError(
            f"{name} has {len(cells)} cells, but {len(starts)} lines `# %%`; wanted one at the start of each cell, "
            "and none inside a string"
        )
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        raise BuildError(
            f"{name}:{min(starts, default=1)}: no title; the first cell must be markdown that starts with `# `"
        )
    lines = source.split("\n")
    for cell, line, end in zip(cells, starts, [*starts[1:], len(lines) + 1], strict=True):
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's note to itself
        cell.metadata["imgae_dx"] = {"source": f"{name}:{line}"}
        code = [n for n in range(line, end - 1) if lines[n].strip() and not lines[n].startswith("#")]
        if cell.cell_type == "markdown" and code and not re.match(r"[rR]?(\"{3}|'{3})", lines[code[0]]):
            raise BuildError(f"{name}:{code[0] + 1}: code in a cell of prose, where it is text; write `# %%` above it")
    chapter = Chapter(name, source, cells)
    chapter.title.metadata.setdefault("id", Path(name).stem)  # so that links survive a reworded title
    for cell in chapter.tagged("parameters"):
        cell.metadata.setdefault("id", "parameters")  # its text is generated, so an id made from it would change
    if not chapter.heading.endswith("?"):
        raise BuildError(
            f"{name}:{starts[0]}: `{chapter.heading}` asks nothing; a chapter's title is the question that it answers, "
            "such as `# 3 Which one wins?`"
        )
    coded = max((n for n, cell in enumerate(cells) if cell.cell_type == "code"), default=0)
    if not draws(tree, starts[coded]) and not any(IMAGE.search(cell.source) for cell in cells[coded:]):
        raise BuildError(
            f"{name}:{starts[coded]}: the chapter ends without a figure; let its last code draw what answers the "
            "question, by `run.save_figure(...)` or a function imported from `lib.figures`, or let an image stand below it"
        )
    return chapter


def draws(tree: ast.Module, line: int) -> bool:
    """Say whether code below a line saves a figure, or uses a function of a module that draws."""
    drawing, used = {"save_figure"}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            full = {one.asname or one.name: f"{module}.{one.name}" if module else one.name for one in node.names}
            drawing |= {name for name, origin in full.items() if origin.startswith(DRAWING)}
        elif isinstance(node, ast.Name | ast.Attribute) and node.lineno > line:
            used |= {ast.unparse(node), getattr(node, "attr", "")}
    return bool(drawing & used)


def is_plain(node: ast.stmt) -> bool:
    """Say whether a line gives one name a value that is written out."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    try:
        ast.literal_eval(node.value if targets else node)
    except ValueError:
        return False
    return [type(target) for target in targets] == [ast.Name]


def with_parameters(chapter: Chapter, text: str) -> Chapter:
    """Return the chapter with the parameters cell's text replaced; BuildError if the old or the new one computes."""
    [cell] = chapter.tagged("parameters")
    start = list(HEADER.finditer(chapter.source))[chapter.cells.index(cell)].end() + 1
    following = HEADER.search(chapter.source, start)
    body = chapter.source[start : following.start() if following else len(chapter.source)]
    line = chapter.source.count("\n", 0, start)
    for node in ast.parse(body).body + ast.parse(text).body:
        if not is_plain(node):
            raise BuildError(
                f"{chapter.name}:{line + node.lineno}: `{ast.unparse(node)}` is no plain value; papermill sets "
                "parameters below this cell, so what is computed from them belongs into the next"
            )
    gap = body[len(body.rstrip()) :] if body.strip() else "\n\n" if following else "\n"
    source = chapter.source[:start] + text.strip("\n") + gap + chapter.source[start + len(body) :]
    return read(chapter.name, source)


def names(chapter: Chapter) -> tuple[set[str], set[str]]:
    """Return the notebook's names that a chapter takes over, by its code or by its word, and those it makes or fills.

    A name is filled by `name[...] = ...`; more than that cannot be told from the text.
    """
    promised = re.search(r"\*\*Reads\*\*(.*?)(?:\*\*|\n\n|$)", chapter.title.source, re.S)
    reads = set(re.findall(r"`(\w+)`", promised[1] if promised else ""))
    top = symtable.symtable(chapter.source, chapter.name, "exec")
    made = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    scopes = [top]
    for scope in scopes:
        scopes += scope.get_children()
        for one in scope.get_symbols():
            if one.is_referenced() and (scope is top or one.is_global()) and one.get_name() not in made:
                reads.add(one.get_name())
    tree, begun = ast.parse(chapter.source), set()
    for node in tree.body:  # a value made of the one before, as in `table = table[:3]`, takes that over
        named = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
        if isinstance(node, ast.Assign):
            given = {one.id for one in node.targets if isinstance(one, ast.Name)}
            reads |= (given & {one.id for one in named if isinstance(one.ctx, ast.Load)}) - begun
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            reads |= {node.target.id} - begun
        begun |= {one.id for one in named if isinstance(one.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            made.add(node.value.id)
    return reads, made


def needed(chapters: list[Chapter], number: str) -> list[Chapter]:
    """Return chapter `number`, such as 04, after those that leave what it takes over, of which title and code stay.

    The first chapter, which installs what is missing, and the one with the parameters always come along.
    """
    stems = [chapter.name.removeprefix("research/").removesuffix(".py") for chapter in chapters]
    found = [index for index, stem in enumerate(stems) if number in (stem, stem.partition("_")[0])]
    if len(found) != 1:
        raise BuildError(f"no chapter {number}; there are {', '.join(stems)}")
    reads, _ = names(chapters[found[0]])
    kept = [chapters[found[0]]]
    for chapter in reversed(chapters[: found[0]]):
        takes, leaves = names(chapter)
        if leaves & reads or chapter is chapters[0] or chapter.tagged("parameters"):
            cells = [cell for cell in chapter.cells if cell is chapter.title or cell.cell_type == "code"]
            kept.insert(0, chapter._replace(cells=cells))
            reads |= takes
    return kept


def identify(cells: Iterable[NotebookNode]) -> None:
    """Give each cell its id: its own if it has one, else one made from its chapter, type and text."""
    taken = {}
    for cell in cells:
        place = cell.metadata.imgae_dx.source
        label = cell.metadata.get("id")
        if label is None:
            digest = content_id(place.partition(":")[0], cell.source, cell.cell_type)
            ordinals = itertools.chain([digest], (f"{digest}-{n}" for n in itertools.count(2)))
            label = next(label for label in ordinals if label not in taken)
        if not isinstance(label, str) or not re.fullmatch(r"[\w-]{1,64}", label, re.A):
            raise BuildError(f"{place}: id={label!r}; wanted 1 to 64 letters, digits, - or _ in quotes")
        if label in taken:
            raise BuildError(f"{place} and {taken[label]} both have the id {label!r}; change one")
        taken[label] = place
        cell["id"] = cell.metadata["id"] = label


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
        lines = [heading, f'<a id="scrollTo={anchor}"></a>', rest.strip("\n")]
        if not heading.startswith("#"):
            lines = [lines[1], prose[anchor].source]
        prose[anchor].source = "\n\n".join(filter(None, lines))


def data_address(file: Path, place: str) -> str:
    """Return an image file as the address that holds it; BuildError at `place` if it cannot be shown."""
    kind = mimetypes.guess_type(file.name)[0] or ""
    if not file.is_file() or not kind.startswith("image/"):
        raise BuildError(
            f"{place} shows {file.name}, which is no image file beside the chapter; the notebook must hold it"
        )
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
