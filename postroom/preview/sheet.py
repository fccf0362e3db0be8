"""The difference of two versions as one HTML file that needs nothing else: old and new side by side.

The mails lie in frames that run no script, whoever wrote them, and the page's policy allows for no script but its own.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from postroom.preview.compare import Change, Pair, changed_lines
from postroom.preview.showings import Showing
from postroom.templates import Template

WIDTHS = (("Phone, 375 px", 375), ("Desktop, 1,024 px", 1024))
STYLE = """\
:root { color-scheme: light; --line: #e3e2dc; --soft: #5f6570; --old: #b3261e; --new: #1f7a4d; }
* { box-sizing: border-box; margin: 0; }
body { padding: 24px 28px 80px; background: #f5f5f2; color: #1f232b; font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 20px; } h2 { margin-top: 44px; padding-top: 24px; border-top: 1px solid var(--line); font-size: 18px; }
h3 { margin-top: 28px; font-size: 14px; } p, figcaption { color: var(--soft); }
code, pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre { max-width: 110ch; margin-top: 8px; padding: 12px; border: 1px solid var(--line); border-radius: 8px;
  background: #fff; white-space: pre-wrap; overflow-wrap: anywhere; }
del, ins { display: block; text-decoration: none; } del { color: var(--old); } ins { color: var(--new); }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 20px; margin-top: 10px; }
.pair > div > p { font-weight: 600; color: inherit; overflow-wrap: anywhere; }
.pair small { font-weight: 400; color: var(--soft); }
figure { margin-top: 10px; } figcaption { font-size: 12px; }
.screen { overflow: hidden; border-radius: 8px; background: #fff; box-shadow: 0 0 0 1px var(--line); }
iframe { display: block; border: 0; transform-origin: 0 0; }
"""
SCRIPT = """\
function fit(frame) {
  const screen = frame.parentElement, width = Number(frame.width);
  frame.height = 1;
  const height = frame.contentDocument.documentElement.scrollHeight;
  const scale = Math.min(1, screen.parentElement.clientWidth / width);
  frame.height = height;
  frame.style.transform = `scale(${scale})`;
  screen.style.width = `${Math.floor(width * scale)}px`;
  screen.style.height = `${Math.ceil(height * scale)}px`;
}
const frames = [...document.querySelectorAll("iframe")];
addEventListener("load", () => frames.forEach(fit));
addEventListener("resize", () => frames.forEach(fit));
"""
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; style-src 'unsafe-inline'; img-src http: https: data:;"
    " font-src http: https: data:; form-action 'none'; base-uri 'none'"
)


def make_sheet(changes: Sequence[Change], old: str, new: str) -> str:
    """Return the page; `old` and `new` say where the two came from."""
    body = "\n".join(_section(change) for change in changes) or "<p>They are the same.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<title>Templates: {escape(old)} and {escape(new)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>Templates, old and new</h1>
<p>{len(changes)} of them differ. Old: <code>{escape(old)}</code>, new: <code>{escape(new)}</code></p>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def _section(change: Change) -> str:
    shown = [pair for pair in change.pairs if pair.differs]
    quiet = "" if shown else "<p>On the examples nothing changes.</p>"
    return "\n".join(
        [
            f"<h2>{escape(change.name)}</h2>",
            f"<p>{_version(change.old)} → {_version(change.new)}: {escape(', '.join(change.files))}</p>",
            quiet,
            *map(_pair, shown),
            *(_source(file, change) for file in change.files if change.old and change.new),
        ]
    )


def _version(template: Template | None) -> str:
    return f"<code>{template.version}</code>" if template else "not there"


def _pair(pair: Pair) -> str:
    sides = _side("old", pair.old) + _side("new", pair.new)
    texts = [showing.content.text if showing else None for showing in (pair.old, pair.new)]
    return (
        f"<h3>{escape(pair.locale)}, {escape(pair.example)}</h3>"
        f'<div class="pair">{sides}</div>{_lines("Text", changed_lines(*texts))}'
    )


def _side(which: str, showing: Showing | None) -> str:
    if showing is None:
        return f"<div><p><small>{which}</small> not there</p></div>"
    html = showing.content.html
    frames = "".join(_frame(f"{which}, {words}", width, html) for words, width in WIDTHS) if html else ""
    return f"<div><p><small>{which}</small> {escape(showing.content.subject)}</p>{frames}</div>"


def _frame(words: str, width: int, html: str) -> str:
    # Of the same origin only so that the page can measure it: without `allow-scripts` nothing in it runs.
    return (
        f"<figure><figcaption>{escape(words)}</figcaption>"
        f'<div class="screen"><iframe title="{escape(words)}" width="{width}" sandbox="allow-same-origin"'
        f' srcdoc="{escape(html)}"></iframe></div></figure>'
    )


def _source(file: str, change: Change) -> str:
    old, new = (template.files.get(file) if template else None for template in (change.old, change.new))
    return _lines(file, changed_lines(old, new))


def _lines(title: str, lines: Iterable[str]) -> str:
    marked = "".join(
        f"<{tag}>{escape(line)}</{tag}>" for line in lines for tag in [_TAGS.get(line[:1], "span")]
    )
    marked = marked.replace("</span>", "\n</span>")
    return f"<details open><summary>{escape(title)}</summary><pre>{marked}</pre></details>" if marked else ""


_TAGS = {"-": "del", "+": "ins"}
