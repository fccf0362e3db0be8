"""CSS into `style` attributes, once when a template is loaded, so that no mail program has to know a style sheet."""

import re

import css_inline

from postroom.templates.faults import Problem
from postroom.templates.language import Outline, Tag
from postroom.templates.marks import Marked

# What is no plain content of an element: comments, elements that hold no HTML, and tags with their attributes.
_PIECE = re.compile(
    r"""(?P<comment><!--.*?(?:-->|\Z))
    |<(?P<raw>script|style|textarea|title)\b.*?(?:</(?P=raw)\s*>|\Z)
    |<(?:(?P<end>/?)(?P<name>[A-Za-z][A-Za-z0-9-]*+)|[/!?])(?:[^<>"']*+(?:"[^"]*+"|'[^']*+'))*[^<>"']*+>""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_STYLE = re.compile(r"<style\b(?P<attributes>[^>]*)>(?P<rules>.*?)</style\s*>", re.DOTALL | re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_AT_RULES = re.compile(r"@[^{};]+(?:;|\{(?:[^{}]*\{[^{}]*\})*[^{}]*\})")
_IGNORED = ' data-css-inline="ignore"'
_OPENS, _CLOSES = frozenset({"if", "for"}), frozenset({"endif", "endfor"})

_INLINER = css_inline.CSSInliner(
    keep_style_tags=True,  # media queries, dark mode and hovering stay rules
    load_remote_stylesheets=False,
)


def inline_css(found: Outline) -> Outline:
    """Return the outline with its rules inlined; without any rule it comes back as it is."""
    marked = Marked(found.parts)
    problems = _comment_problems(marked)
    if problems:
        return Outline(problems=problems)
    if not any(_has_rules(style) for style in _STYLE.finditer(_COMMENT.sub("", marked.text))):
        return found
    source = _with_comments(marked, _STYLE.sub(_keep_out, marked.text))
    try:
        html = _INLINER.inline(source)
    except (css_inline.InlineError, ValueError):
        return Outline(problems=[Problem(1, "its CSS cannot be inlined")])
    html = html.replace(_IGNORED, "")
    html = re.sub(rf"<!--({marked.statement.pattern})-->", r"\1", html)
    return Outline(marked.parts(html), marked.lost(html))


def _has_rules(style: re.Match[str]) -> bool:
    return not _is_skeleton(style) and "{" in _AT_RULES.sub("", style["rules"])


def _is_skeleton(style: re.Match[str]) -> bool:
    """True for what MJML puts in front of every mail, and for sheets of one medium: they belong to no element."""
    return "media=" in style["attributes"] or style["rules"].lstrip().startswith("#outlook a")


def _keep_out(style: re.Match[str]) -> str:
    if _has_rules(style):
        return style[0]
    return f"<style{style['attributes']}{_IGNORED}>{style['rules']}</style>"


def _with_comments(marked: Marked, html: str) -> str:
    """Make comments of statements between elements: a parser moves any other text out of a table."""
    out: list[str] = []
    tables: list[bool] = []  # of each open table, whether its body is ours
    position = 0
    for piece in _PIECE.finditer(html):
        out.append(marked.statement.sub(r"<!--\g<0>-->", html[position : piece.start()]))
        position = piece.end()
        name = (piece["name"] or "").lower()
        if name == "table" and piece["end"] and tables and tables.pop():
            out.append("</tbody>")
        out.append(piece[0])
        if name == "table" and not piece["end"]:
            tables.append(bool(_next_row(marked).match(html, position)))
            out.append("<tbody>" * tables[-1])
    out.append(marked.statement.sub(r"<!--\g<0>-->", html[position:]))
    return "".join(out)


def _next_row(marked: Marked) -> re.Pattern[str]:
    """Find a table whose rows have no body: the parser would open one behind a statement before the first row."""
    return re.compile(rf"(?:\s++|<!--.*?-->|{marked.statement.pattern})*<tr\b", re.DOTALL | re.IGNORECASE)


def _comment_problems(marked: Marked) -> list[Problem]:
    """Refuse statements that begin inside a comment and end outside of it: half a comment could be left over.

    MJML puts what stands directly in a wrapper into a comment for Outlook.
    """
    problems: list[Problem] = []
    for piece in _PIECE.finditer(marked.text):
        if piece["comment"] and (tag := _unbalanced(marked.tags_in(piece[0]))):
            text = "a statement may not begin or end here: inside a comment, or directly in an mj-wrapper"
            problems.append(Problem(tag.line, text, tag.file))
    return problems


def _unbalanced(tags: list[Tag]) -> Tag | None:
    depth: list[Tag] = []
    for tag in tags:
        if tag.word in _OPENS:
            depth.append(tag)
        elif tag.word in _CLOSES | {"else", "elif"}:
            if not depth:
                return tag
            if tag.word in _CLOSES:
                depth.pop()
    return depth[0] if depth else None
