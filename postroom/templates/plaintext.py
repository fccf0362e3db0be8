"""The text of a mail whose team wrote only its HTML, made once when the template is loaded."""

import re

from inscriptis import get_text
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

from postroom.templates.language import Outline
from postroom.templates.marks import Marked

_CONFIG = ParserConfig(css=CSS_PROFILES["strict"], display_links=True)
_TABLE_TAG = re.compile(
    r"""<!--.*?(?:-->|\Z)
    |<(?P<end>/?)(?P<name>table|tbody|thead|tfoot|tr|td|th|caption)\b(?:[^<>"']*+(?:"[^"]*+"|'[^']*+'))*[^<>"']*+>
    |<[A-Za-z/!?](?:[^<>"']*+(?:"[^"]*+"|'[^']*+'))*[^<>"']*+>""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_LINK = re.compile(r"\[([^\[\]\n]*)\]\(([^()\s]*)\)")
_GAP = re.compile(r"(?<=\S) {3,}(?=\S)")  # columns of a table, as wide as the marks in it
_EMPTY_LINES = re.compile(r"\n{3,}")


def text_of(html: Outline) -> Outline:
    """Return an HTML file as text: its links beside their words, its statements on lines of their own."""
    marked = Marked(html.parts)
    text = get_text(_with_rows(marked), _CONFIG)
    lines = (_on_own_lines(marked, line) for line in text.splitlines())
    text = _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip("\n") + "\n"
    text = re.sub(rf"\n\n((?:{marked.statement.pattern}\n)+)\n", r"\n\n\1", text)
    text = _LINK.sub(lambda link: _shown_link(marked, link), text)
    # The engine takes the line end behind a statement away, also where it ends a line of words.
    text = re.sub(
        rf"(?m)^(?=.*[^\s]).*{marked.statement.pattern}$", lambda line: _kept_end(marked, line[0]), text
    )
    return Outline(marked.parts(text))


def _with_rows(marked: Marked) -> str:
    """Give statements between the rows or cells of a table one of their own: other text would be moved out."""
    out: list[str] = []
    inside: list[str] = []
    position = 0
    for piece in [*_TABLE_TAG.finditer(marked.text), None]:
        between = marked.text[position : piece.start() if piece else None]
        around = inside[-1] if inside else ""
        if around in ("table", "tbody", "thead", "tfoot"):
            between = marked.statement.sub(r"<tr><td>\g<0></td></tr>", between)
        elif around == "tr":
            between = marked.statement.sub(r"<td>\g<0></td>", between)
        out.append(between)
        if piece is not None:
            out.append(piece[0])
            position = piece.end()
            _follow(inside, piece)
    return "".join(out)


def _follow(inside: list[str], piece: re.Match[str]) -> None:
    name = (piece["name"] or "").lower()
    if not name:
        return
    if not piece["end"]:
        inside.append(name)
    elif name in inside:
        del inside[len(inside) - 1 - inside[::-1].index(name) :]


def _on_own_lines(marked: Marked, line: str) -> str:
    line = _GAP.sub("  ", line.rstrip())
    statements = marked.statement.findall(line)
    if not statements or marked.statement.sub("", line).strip():
        return line.lstrip() if statements and marked.statement.match(line.lstrip()) else line
    return "\n".join(found[0] for found in marked.statement.finditer(line))


def _kept_end(marked: Marked, line: str) -> str:
    return f"{line}\n" if marked.statement.sub("", line).strip() else line


def _shown_link(marked: Marked, link: re.Match[str]) -> str:
    """`Track it <https://…>`, or the address alone where it is its own text."""
    words, target = link[1].strip(), link[2]
    if not target or _plain(marked, words) in (
        _plain(marked, target),
        _plain(marked, target.removeprefix("mailto:")),
    ):
        return words
    return f"{words} <{target}>" if words else target


def _plain(marked: Marked, text: str) -> str:
    """Return a text with each value by its name, whether or not it has passed the url filter."""
    return marked.mark.sub(
        lambda mark: " ".join(token.text for token in marked.tags[int(mark[1])].tokens).removesuffix(
            " | url"
        ),
        text,
    )
