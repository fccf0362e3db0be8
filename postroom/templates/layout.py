"""`extends`, `block` and `include`, carried out on the source when a template is loaded.

What comes out is one flat file, so the engine never looks for another one, a mail costs nothing for having a
layout, and every rule of the language holds for the whole. Files are named by a text between quotes, never by a
value: a file of the template itself (`_row.html`), or one of the shared folder (`_shared/layout.mjml`).
"""

from collections.abc import Callable, Iterator

from msgspec import Struct

from postroom.templates.faults import Problem
from postroom.templates.language import (
    LAYOUT_TAGS,
    MAX_TAGS,
    Comment,
    Literal,
    Outline,
    Part,
    Tag,
    loop_problems,
)

MAX_DEPTH = 8  # files that extend or include each other, and blocks inside each other
MAX_CHARS = 256 * 1024

Find = Callable[[str], Outline | None]  # a file by the name that a tag gives it


class _Block(Struct, frozen=True):
    name: str
    nodes: "list[_Node]"


_Node = Part | _Block


class _LayoutError(Exception):
    def __init__(self, tag: Tag | None, message: str) -> None:
        self.problem = Problem(tag.line, message, tag.file) if tag else Problem(1, message)
        super().__init__(message)


def flatten(entry: Outline, find: Find) -> Outline:
    """Carry out what ties the file to others; the problems of those it is tied to are its own."""
    work = _Flattening(find)
    flat = Outline(problems=[*entry.problems])
    if entry.problems:
        return flat
    try:
        flat.parts = list(work.run(entry))
    except _LayoutError as error:
        flat.problems.append(error.problem)
    flat.problems += work.problems
    if not flat.problems:
        flat.problems += loop_problems(flat.parts)
    return flat


class _Flattening:
    def __init__(self, find: Find) -> None:
        self._find = find
        self.problems: list[Problem] = []
        self._blocks: dict[str, list[list[_Node]]] = {}  # what each block is, the most derived first
        self._tags = 0
        self._chars = 0

    def run(self, entry: Outline) -> Iterator[Part]:
        nodes = _tree(entry.parts)
        depth = 0
        while (parent := _parent(nodes)) is not None:
            self._collect(nodes, depth=0)
            depth += 1
            if depth > MAX_DEPTH:
                raise _LayoutError(parent, f"more than {MAX_DEPTH} files extend each other")
            nodes = _tree(self._load(parent).parts)
        self._collect(nodes, depth=0)
        yield from self._expand(nodes, None, depth=0)

    def _load(self, tag: Tag) -> Outline:
        name = _quoted(tag)
        found = self._find(name)
        if found is None:
            raise _LayoutError(tag, f"there is no file '{name}'; shared ones are named '_shared/…'")
        self.problems += [problem for problem in found.problems if problem not in self.problems]
        return found

    def _collect(self, nodes: list[_Node], *, depth: int) -> None:
        for node in nodes:
            if isinstance(node, _Block):
                self._blocks.setdefault(node.name, []).append(node.nodes)
                self._collect(node.nodes, depth=depth + 1)

    def _expand(self, nodes: list[_Node], inside: tuple[str, int] | None, *, depth: int) -> Iterator[Part]:
        """Write nodes out; `inside` is the block they belong to, and which of its layers they are."""
        for node in nodes:
            if isinstance(node, _Block):
                yield from self._expand(self._blocks[node.name][0], (node.name, 0), depth=depth + 1)
            elif isinstance(node, Tag) and node.is_super:
                yield from self._super(node, inside, depth=depth)
            elif isinstance(node, Tag) and node.word == "include":
                yield from self._include(node, depth=depth)
            elif isinstance(node, Tag) and node.word == "extends":
                raise _LayoutError(node, "extends stands first in a file, and not in one that is included")
            else:
                self._count(node)
                yield node

    def _super(self, tag: Tag, inside: tuple[str, int] | None, *, depth: int) -> Iterator[Part]:
        if inside is None:
            raise _LayoutError(tag, "super() stands inside a block")
        name, layer = inside
        layers = self._blocks[name]
        if layer + 1 >= len(layers):
            raise _LayoutError(tag, f"no layout has a block '{name}'")
        yield from self._expand(layers[layer + 1], (name, layer + 1), depth=depth + 1)

    def _include(self, tag: Tag, *, depth: int) -> Iterator[Part]:
        if depth >= MAX_DEPTH:
            raise _LayoutError(tag, f"more than {MAX_DEPTH} files include each other")
        nodes = _tree(self._load(tag).parts)
        if any(isinstance(node, _Block) for node in nodes):
            raise _LayoutError(tag, "a file that is included has no blocks; extend it instead")
        yield from self._expand(nodes, None, depth=depth + 1)

    def _count(self, part: Part) -> None:
        if isinstance(part, Tag):
            self._tags += 1
        else:
            self._chars += len(part.text)
        if self._tags > MAX_TAGS or self._chars > MAX_CHARS:
            what = f"{MAX_TAGS} tags" if self._tags > MAX_TAGS else f"{MAX_CHARS} characters"
            raise _LayoutError(None, f"more than {what}, with all that is extended and included")


def _tree(parts: list[Part]) -> list[_Node]:
    root: list[_Node] = []
    stack: list[tuple[Tag, str, list[_Node]]] = []
    names: set[str] = set()
    for part in _trimmed(parts):
        here = stack[-1][2] if stack else root
        if isinstance(part, Tag) and part.word == "block":
            name = _block_name(part, names)
            if len(stack) >= MAX_DEPTH:
                raise _LayoutError(part, f"more than {MAX_DEPTH} blocks inside each other")
            stack.append((part, name, []))
        elif isinstance(part, Tag) and part.word == "endblock":
            if not stack or [t.text for t in part.tokens[1:]] not in ([], [stack[-1][1]]):
                raise _LayoutError(part, "endblock without its block")
            _, name, nodes = stack.pop()
            (stack[-1][2] if stack else root).append(_Block(name, nodes))
        else:
            here.append(part)
    if stack:
        raise _LayoutError(stack[-1][0], f"block '{stack[-1][1]}' has no endblock")
    return root


def _block_name(tag: Tag, names: set[str]) -> str:
    if len(tag.tokens) != 2 or tag.tokens[1].kind != "name":
        raise _LayoutError(tag, "block takes one name: {% block content %}")
    name = tag.tokens[1].text
    if name in names:
        raise _LayoutError(tag, f"a second block '{name}' in this file")
    names.add(name)
    return name


def _parent(nodes: list[_Node]) -> Tag | None:
    """Return the `extends` that a file begins with; such a file holds blocks and nothing else."""
    telling = [node for node in nodes if not _is_silent(node)]
    if not telling or not isinstance(telling[0], Tag) or telling[0].word != "extends":
        return None
    for node in telling[1:]:
        if not isinstance(node, _Block):
            place = node if isinstance(node, Tag) else telling[0]
            raise _LayoutError(
                place, "a file that extends another holds blocks only: nobody would see the rest"
            )
    return telling[0]


def _is_silent(node: _Node) -> bool:
    return isinstance(node, Comment) or (isinstance(node, Literal) and not node.text.strip())


def _quoted(tag: Tag) -> str:
    if len(tag.tokens) != 2 or tag.tokens[1].kind != "string" or "\\" in tag.tokens[1].text:
        raise _LayoutError(tag, f"{tag.word} takes the name of a file between quotes")
    return tag.tokens[1].text[1:-1]


def _trimmed(parts: list[Part]) -> Iterator[Part]:
    """Take away what a layout's tag leaves of its line, as the engine does for its own statements."""
    for index, part in enumerate(parts):
        if not isinstance(part, Literal):
            yield part
            continue
        before = parts[index - 1] if index else None
        after = parts[index + 1] if index + 1 < len(parts) else None
        text = _cut_start(part.text, before) if _is_layout(before) else part.text
        cut = part.text[: len(part.text) - len(text)]
        if _is_layout(after):
            text = _cut_end(text, after, begins_line=not index or cut.endswith("\n"))
        if text:
            yield Literal(text, part.line + cut.count("\n"), part.file)


def _is_layout(part: Part | None) -> bool:
    return isinstance(part, Tag) and part.word in LAYOUT_TAGS


def _cut_start(text: str, before: Part | None) -> str:
    if isinstance(before, Tag) and before.text[-3] == "-":
        return text.lstrip()
    return text.removeprefix("\n")


def _cut_end(text: str, after: Part | None, *, begins_line: bool) -> str:
    if isinstance(after, Tag) and after.text[2] == "-":
        return text.rstrip()
    cut = text.rstrip(" \t")
    return cut if cut.endswith("\n") or (not cut and begins_line) else text
