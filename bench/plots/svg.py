"""The little of SVG that the plots need."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

INK, SOFT, GRID, PAPER = "#16202c", "#5b6775", "#e3e8ee", "#ffffff"
BLUE, ORANGE, GREY, TEAL = "#1d5bd6", "#d9730d", "#98a3b0", "#0f8a7e"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"


class Drawing:
    """A drawing of a fixed size on white, whatever the page around it is."""

    def __init__(self, width: int, height: int, title: str, subtitle: str) -> None:
        self.width = width
        self.height = height
        self._title = title
        self._parts: list[str] = []
        self.text(24, 34, title, size=18, weight=600)
        self.text(24, 55, subtitle, size=12.5, color=SOFT)

    def text(  # noqa: PLR0913  a label has its place and its look
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 13,
        color: str = INK,
        anchor: str = "start",
        weight: int = 400,
    ) -> None:
        """Write one line; `y` is its base line."""
        look = f'font-size="{size:g}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}"'
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>')

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fill a rectangle."""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 1.5):.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect {place} rx="3" fill="{color}"/>')

    def line(
        self, points: Iterable[tuple[float, float]], color: str, *, width: float = 2, dash: str = ""
    ) -> None:
        """Join points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        look = f'fill="none" stroke="{color}" stroke-width="{width:g}" stroke-linejoin="round"{dashed}'
        self._parts.append(f'<polyline points="{path}" {look}/>')

    def dot(self, x: float, y: float, color: str, *, radius: float = 4, opacity: float = 1) -> None:
        """Mark a point."""
        look = f'r="{radius:g}" fill="{color}" fill-opacity="{opacity:g}"'
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}/>')

    def write(self, path: Path) -> None:
        """Write the file."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self._title)}" '
            f'font-family="{FONT}">'
        )
        paper = f'<rect width="{self.width}" height="{self.height}" rx="10" fill="{PAPER}" stroke="{GRID}"/>'
        path.write_text("\n".join([head, paper, *self._parts, "</svg>"]) + "\n")


def legend(drawing: Drawing, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """Write a line of names with their colours, from the left."""
    for name, color in entries:
        drawing.bar(x, y - 10, 12, 12, color)
        drawing.text(x + 18, y, name, size=12.5)
        x += 18 + 7.1 * len(name) + 22
