"""MJML to HTML, once when a template is loaded, with its tags in their places."""

import re
from collections.abc import Iterator

import mrml

from postroom.templates.faults import Problem
from postroom.templates.language import Outline
from postroom.templates.marks import Marked

# Elements whose content is text or HTML: a tag in it stays where it is.
_CONTENT = frozenset(
    """
    mj-accordion-text mj-accordion-title mj-button mj-navbar-link mj-preview mj-raw mj-social-element mj-style
    mj-table mj-text mj-title
    """.split()
)
_ELEMENTS = _CONTENT | frozenset(
    """
    mj-accordion mj-accordion-element mj-all mj-attributes mj-body mj-breakpoint mj-carousel mj-carousel-image
    mj-class mj-column mj-divider mj-font mj-group mj-head mj-hero mj-image mj-navbar mj-section mj-social
    mj-spacer mj-wrapper mjml
    """.split()
)
_PIECE = re.compile(
    r"""(?P<comment><!--.*?-->)
    |<(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9-]*)(?:[^<>"']*+(?:"[^"]*+"|'[^']*+'))*[^<>"']*?(?P<empty>/?)>""",
    re.VERBOSE | re.DOTALL,
)
_INLINE = re.compile(r"""(<mj-style\b[^<>]*?)\s+inline=(?:"inline"|'inline')""")
_POSITION = re.compile(r"(?P<what>.*?)(?: in root template)?(?: at position (?P<from>[0-9]+):[0-9]+)?")
_NO_FONTS = mrml.RenderOptions(fonts={})  # none comes from elsewhere unless an mj-font says so
_ESCAPED = re.compile(r"\\u\{([0-9a-f]{1,6})\}")  # mrml writes attributes as Rust shows strings


class _PlaceError(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.message)


def compile_mjml(found: Outline) -> Outline:
    """Return the HTML of an MJML file as an outline."""
    marked = Marked(found.parts)
    problems = list(_element_problems(marked))
    if problems:
        return Outline(problems=problems)
    try:
        source, offsets = _between_elements(marked)
        html = mrml.to_html(source, render_options=_NO_FONTS).content
    except _PlaceError as error:
        return Outline(problems=[error.problem])
    except OSError as error:
        return Outline(problems=[_problem(str(error), source, offsets, marked)])
    if "\\u{" not in marked.text:
        html = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), html)
    return Outline(marked.parts(html), marked.lost(html))


def _element_problems(marked: Marked) -> Iterator[Problem]:
    for piece in _PIECE.finditer(marked.text):
        name = piece["name"]
        if not name or not name.lower().startswith("mj") or name in _ELEMENTS:
            continue
        line, file = marked.origin(piece.start())
        if name == "mj-include":
            yield Problem(line, 'mj-include is not allowed: use {% include "_shared/…" %}', file)
        else:
            yield Problem(line, f"unknown element {name[:40]}", file)


def _between_elements(marked: Marked) -> tuple[str, list[tuple[int, int]]]:
    """Wrap statements between elements in mj-raw, where MJML has no place for text.

    Also returns, for each stretch of the result, where it begins in it and in `marked.text`. That CSS is to be
    inlined is not MJML's business here: all of it is, afterwards.
    """
    out: list[str] = []
    offsets: list[tuple[int, int]] = []
    size = position = 0
    stack: list[str] = []

    def put(text: str, start: int) -> None:
        nonlocal size
        offsets.append((size, start))
        out.append(text)
        size += len(text.encode())

    for piece in [*_PIECE.finditer(marked.text), None]:
        start = piece.start() if piece else len(marked.text)
        between = marked.text[position:start]
        if not _CONTENT.intersection(stack):
            if misplaced := _misplaced(marked, between):
                line, file = marked.origin(position + misplaced.start())
                raise _PlaceError(Problem(line, "text stands inside mj-text or its like", file))
            between = marked.statement.sub(r"<mj-raw>\g<0></mj-raw>", between)
        put(between, position)
        if piece is not None:
            put(_INLINE.sub(r"\1", piece[0]), start)
            position = piece.end()
            _follow(stack, piece)
    return "".join(out), offsets


def _misplaced(marked: Marked, between: str) -> re.Match[str] | None:
    """Find text between elements, which is no part of MJML: some compilers drop it, some put it anywhere."""
    position = 0
    for statement in [*marked.statement.finditer(between), None]:
        end = statement.start() if statement else len(between)
        if found := re.compile(r"\S").search(between, position, end):
            return found
        position = statement.end() if statement else end
    return None


def _follow(stack: list[str], piece: re.Match[str]) -> None:
    name = piece["name"]
    if not name or piece["empty"]:
        return
    if not piece["end"]:
        stack.append(name)
    elif name in stack:
        del stack[len(stack) - 1 - stack[::-1].index(name) :]


def _problem(message: str, source: str, offsets: list[tuple[int, int]], marked: Marked) -> Problem:
    """Turn the compiler's error, which counts bytes, into one with a line."""
    said = _POSITION.fullmatch(message)
    what = said["what"] if said else "cannot be read"
    at = int(said["from"]) if said and said["from"] else len(source.encode())
    begins, start = max((pair for pair in offsets if pair[0] <= at), default=(0, 0))
    line, file = marked.origin(min(start + at - begins, max(0, len(marked.text) - 1)))
    return Problem(line, f"no valid MJML: {what}", file)
