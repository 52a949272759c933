"""A chapter: its cells and their lines, what it is refused for, and which names it takes over from those before it."""

import ast
import itertools
import re
import symtable
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import jupytext
from nbformat import NotebookNode

from lib.notebook.parameters import settings_of
from lib.notebook.sources import BuildError, check_code, content_id, parse, text_of

HEADER = re.compile(r"^# %%(?: .*)?$", re.M)
NAME = re.compile(r"research/\d\d_\w+\.py", re.A)
NUMBER = re.compile(r"\d\d?\b ?")  # at the start of a title
RESERVED = {"library", "injected-parameters"}  # tags of the builder and of papermill
TEMPLATE = "research/template.py"
IMAGE = re.compile(r"!\[[^\]]*\]\(")
PERCENT = {"extension": ".py", "format_name": "percent", "comment_magics": False}  # a comment is no command
BLANK_ENDS = re.compile(r"\A(?:[ \t]*\n)+|(?:\n[ \t]*)+\Z")
# What IPython takes off a cell, in one version or another: prompts, and the indentation of the first line.
PROMPT = re.compile(r"\A[ \t]+|^[ \t]*(?:>>>|\.{3,}:)|^\.\.\.(?= |$)|^.{0,6}In \[\d+\]: ", re.M)


class Chapter(NamedTuple):
    """One file `research/[0-9][0-9]_*.py`: Jupytext's percent format, opened by its question."""

    name: str  # research/04_reversed_autoencoder.py
    source: str
    cells: list[NotebookNode]  # `metadata.imgae_dx.source` of each is the line where it starts
    shows: list[str]  # files of the library that are read with it, such as lib/methods/unet.py

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


def read_all(root: Path) -> list[Chapter]:
    """Return the chapters in reading order; BuildError if a file holds cells but its name or title does not fit."""
    names = [f"research/{file.name}" for file in sorted(root.glob("research/*.py"))]
    sources = {name: text_of(root, name) for name in names if name != TEMPLATE}
    meant = [name for name in sources if re.match(r"research/\d\d_", name) or HEADER.search(sources[name])]
    if misnamed := [name for name in meant if not NAME.fullmatch(name)]:
        raise BuildError(f"{misnamed[0]} holds cells, so it is a chapter; wanted a name such as research/10_mine.py")
    chapters = [read(name, sources[name]) for name in meant]
    for before, chapter in itertools.combinations(chapters, 2):
        if before.number == chapter.number or NUMBER.sub("", before.heading) == NUMBER.sub("", chapter.heading):
            raise BuildError(f"{before.name} and {chapter.name} have the same number or title; change one")
    for chapter in chapters:
        if (number := NUMBER.match(chapter.heading)) and int(number[0]) != int(chapter.number):
            raise BuildError(
                f"{chapter.name}: `{chapter.heading}` has another number than its file; leave it out, for a chapter is "
                "numbered by its file"
            )
    shown: dict[str, str] = {}
    for chapter in chapters:
        for file in chapter.shows:
            if file in shown or not (root / file).is_file():
                why = f"{shown[file]} shows too" if file in shown else "is not there"
                raise BuildError(f"{chapter.name} shows {file}, which {why}; change the list `shows` of its title")
            shown[file] = chapter.name
    return chapters


def read(name: str, source: str) -> Chapter:
    """Return the chapter, numbered by its file; BuildError names the line of what a reader would miss in it.

    The first chapter, 00, opens the notebook: its question has no number.
    """
    tree = parse(name, source)
    cells, starts = cut(name, source)
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        raise BuildError(
            f"{name}:{min(starts, default=1)}: no title; the first cell must be markdown that starts with `# `"
        )
    lines = source.split("\n")
    for cell, line, end in zip(cells, starts, [*starts[1:], len(lines) + 1], strict=True):
        cell.metadata["imgae_dx"] = {"source": f"{name}:{line}"}
        reserved = RESERVED if cell.cell_type == "code" else {*RESERVED, "parameters"}
        if taken := sorted(reserved.intersection(cell.metadata.get("tags", []))):
            raise BuildError(
                f'{name}:{line}: the tag "{taken[0]}" is not for a cell of this kind, for papermill and the report go '
                "by it; delete it"
            )
        code = [n for n in range(line, end - 1) if lines[n].strip() and not lines[n].startswith("#")]
        if cell.cell_type != "code" and code and not re.match(r"[rR]?(\"{3}|'{3})", lines[code[0]]):
            raise BuildError(f"{name}:{code[0] + 1}: code in a cell of prose, where it is text; write `# %%` above it")
    shows = cells[0].metadata.pop("shows", [])
    if not isinstance(shows, list):
        raise BuildError(f'{name}:{starts[0]}: shows={shows!r}; wanted a list such as ["methods/unet.py"], under lib/')
    chapter = Chapter(name, source, cells, [f"lib/{file}" for file in shows])
    for above, text in chapter.code():
        check_code(name, text, above)
        if prompt := PROMPT.search(text):
            line = above + text.count("\n", 0, prompt.start()) + 1
            raise BuildError(
                f"{name}:{line}: IPython takes {prompt[0]!r} off this line, as a prompt; write it otherwise"
            )
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
            "question, by `run.save_figure(...)`, one of chapter 6's `figures`, or a function imported from "
            "`lib.figures`, or let an image stand below"
        )
    if int(chapter.number) and not NUMBER.match(chapter.heading):
        chapter.title.source = f"# {int(chapter.number)} {chapter.title.source.removeprefix('# ')}"
    return chapter


def cut(name: str, source: str) -> tuple[list[NotebookNode], list[int]]:
    """Return a chapter's cells, and the lines where they start; a code cell equals its lines, but for blank ends."""
    headers = list(HEADER.finditer(source))
    starts = [source.count("\n", 0, header.start()) + 1 for header in headers]
    ends = [header.start() for header in headers[1:]] + [len(source)]
    try:
        cells = jupytext.reads(source, fmt=PERCENT).cells
    except Exception as error:  # of many kinds, for what Jupytext, YAML or nbformat do not take
        reason, *_ = str(error).split("\n")
        own = zip(starts, headers, ends, strict=False)  # of no cell there is one end
        line = next((start for start, header, end in own if not _is_read(source[header.start() : end])), 1)
        raise BuildError(
            f"{name}:{line}: Jupytext cannot read this ({reason}); correct the metadata "
            "behind `# %%`, or delete what stands above the first cell"
        ) from None
    if len(cells) != len(headers):
        raise BuildError(
            f"{name} has {len(cells)} cells, but {len(headers)} lines `# %%`; wanted one at the start of each cell, "
            "and none inside a string"
        )
    for cell, header, end in zip(cells, headers, ends, strict=False):  # of no cell there is one end
        cell.metadata.pop("lines_to_next_cell", None)  # Jupytext's note to itself
        if cell.cell_type == "code":
            cell.source = BLANK_ENDS.sub("", source[header.end() + 1 : end])
    return cells, starts


def _is_read(text: str) -> bool:
    try:
        jupytext.reads(text, fmt=PERCENT)
    except Exception:
        return False
    return True


def draws(tree: ast.Module, line: int) -> bool:
    """Say whether code below a line saves a figure, shows one of `figures`, or uses what comes from `lib.figures`."""
    drawing, used = {"save_figure", "figures"}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            origins = {alias.asname or alias.name: module + alias.name for alias in node.names}
            drawing |= {name for name, origin in origins.items() if origin.startswith("lib.figures")}
        elif isinstance(node, ast.Name | ast.Attribute) and node.lineno > line:
            used |= {ast.unparse(node), getattr(node, "attr", "")}
    return bool(drawing & used)


def with_parameters(chapter: Chapter, text: str) -> Chapter:
    """Return the chapter with the parameters cell's text replaced; BuildError if the old one computes a value."""
    [cell] = chapter.tagged("parameters")
    start = list(HEADER.finditer(chapter.source))[chapter.cells.index(cell)].end() + 1
    following = HEADER.search(chapter.source, start)
    body = chapter.source[start : following.start() if following else len(chapter.source)]
    line = chapter.source.count("\n", 0, start)
    for node in ast.parse(body).body:
        try:
            names = list(settings_of(node))
        except (TypeError, ValueError):  # ParameterError is one
            names = []
        if len(names) != 1 or not names[0].isidentifier():
            raise BuildError(
                f"{chapter.name}:{line + node.lineno}: `{ast.unparse(node)}` is no plain value; papermill sets "
                "parameters below this cell, so what is computed from them belongs into the next"
            )
    gap = body[len(body.rstrip()) :] if body.strip() else "\n\n" if following else "\n"
    source = chapter.source[:start] + text.strip("\n") + gap + chapter.source[start + len(body) :]
    return read(chapter.name, source)


def names(chapter: Chapter) -> tuple[set[str], set[str]]:
    """Return the notebook's names that a chapter takes over, by its code or by its word, and those it leaves or fills.

    A name is filled by `name[...] = ...`; more than that cannot be told from the text.
    """
    promise = re.search(r"\*\*Reads\*\*(.*?)(?:\*\*|\n\n|$)", chapter.title.source, re.S)
    reads = set(re.findall(r"`(\w+)`", promise[1] if promise else ""))
    cells = [symtable.symtable(code, chapter.name, "exec") for _, code in chapter.code()]
    symbols = [symbol for cell in cells for symbol in cell.get_symbols()]
    leaves = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    scopes = [*cells]
    for scope in scopes:
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            if symbol.is_referenced() and (scope in cells or symbol.is_global()) and symbol.get_name() not in leaves:
                reads.add(symbol.get_name())
    tree = parse(chapter.name, chapter.source)
    begun: set[str] = set()
    for statement in tree.body:  # a value made of the one before, as in `table = table[:3]`, takes that over
        inner = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        if isinstance(statement, ast.Assign):
            targets = {node.id for node in statement.targets if isinstance(node, ast.Name)}
            reads |= (targets & {node.id for node in inner if isinstance(node.ctx, ast.Load)}) - begun
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            reads |= {statement.target.id} - begun
        begun |= {node.id for node in inner if isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            leaves.add(node.value.id)
    return reads, leaves


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
            kept.insert(0, chapter._replace(cells=cells, shows=[]))
            reads |= takes
    return kept


def identify(cells: Iterable[NotebookNode]) -> None:
    """Give each cell its id: its own if it has one, else one made from its chapter, type and text."""
    taken: dict[str, str] = {}
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
