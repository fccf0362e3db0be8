"""The difference of two versions in words, for a terminal or a log."""

from collections.abc import Iterator

from postroom.preview.compare import Change, Pair, changed_lines, lines_of_html


def tell(change: Change) -> Iterator[str]:
    """Yield the lines about one template."""
    yield f"{change.name} {_version(change.old)} -> {_version(change.new)}"
    if change.old is None or change.new is None:
        return
    yield f"  files: {', '.join(change.files)}"
    if not any(pair.differs for pair in change.pairs):
        yield "  on the examples nothing changes"
    for pair in change.pairs:
        if pair.differs:
            yield from _tell_pair(pair)
    for file in change.files:
        if file.endswith(".toml"):
            yield f"  {file}"
            yield from _indented(changed_lines(change.old.files.get(file), change.new.files.get(file)))


def _version(template: object) -> str:
    return getattr(template, "version", "nothing")


def _tell_pair(pair: Pair) -> Iterator[str]:
    yield f"  {pair.locale}, {pair.example}"
    if pair.old is None or pair.new is None:
        yield f"    only in the {'old' if pair.new is None else 'new'} version"
        return
    old, new = pair.old.content, pair.new.content
    html = lines_of_html(old.html), lines_of_html(new.html)
    for part, before, after in (
        ("subject", old.subject, new.subject),
        ("text", old.text, new.text),
        ("html", *html),
    ):
        if lines := changed_lines(before, after):
            yield f"    {part}"
            yield from _indented(lines, "      ")


def _indented(lines: list[str], by: str = "    ") -> Iterator[str]:
    return (f"{by}{line}".rstrip() for line in lines)
