"""A grid of cells, shaded by how much each holds, with their figures: counts of two categories, correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from flute.report.charts.svg import SMALL, WIDTH, figure, fitted, tag, text

MAX_COLUMNS: Final = 10
"""More cells in a row have no room for their figures; the table has them."""
_LEFT: Final = 170.0
_WIDEST: Final = 150.0
_DARKEST: Final = 0.75
"""Of a full cell, so that ink stays readable on it."""


@dataclass(frozen=True, slots=True)
class Cell:
    """shade: from -1 to 1, less than 0 in the other colour. below: small, under the figure."""

    said: str
    shade: float
    below: str = ""


def grid_chart(
    identity: str,
    title: str,
    desc: str,
    axes: tuple[str, str],
    heads: tuple[Sequence[str], Sequence[str]],
    cells: Sequence[Sequence[Cell | None]],
) -> Markup:
    """axes: what rows and columns are. heads: names of rows and of columns. cells: per row; None is left empty."""
    rows, columns = heads
    breadth = min(_WIDEST, (WIDTH - _LEFT - 4) / max(len(columns), 1))
    height = 52.0 if any(c and c.below for row in cells for c in row) else 40.0
    top = 56.0 if axes[1] else 32.0
    parts = [text(_LEFT, 16, axes[1], size=SMALL, style="muted")] if axes[1] else []
    parts += [text(0, top - 10, fitted(axes[0], _LEFT - 12, SMALL), size=SMALL, style="muted")] if axes[0] else []
    for j, name in enumerate(columns):
        middle = _LEFT + (j + 0.5) * breadth
        parts.append(text(middle, top - 10, fitted(name, breadth - 6, SMALL), anchor="middle", size=SMALL))
    for i, name in enumerate(rows):
        y = top + i * height
        parts.append(text(0, y + height / 2 + 4, fitted(name, _LEFT - 12)))
        for j, cell in enumerate(cells[i]):
            parts += [] if cell is None else _cell(cell, _LEFT + j * breadth, y, breadth, height)
    return figure(identity, title, desc, top + len(rows) * height + 6, *parts)


def _cell(cell: Cell, x: float, y: float, breadth: float, height: float) -> list[Markup]:
    strength = min(abs(cell.shade), 1.0) * (_DARKEST if cell.shade >= 0 else 0.6 * _DARKEST)
    box = tag(
        "rect", x=x, y=y, width=breadth, height=height, rx=3, class_="cell" if cell.shade >= 0 else "cell minus",
        fill_opacity=f"{strength:.3f}",
    )  # fmt: skip
    middle, centre = x + breadth / 2, y + height / 2
    parts = [box, text(middle, centre + (-3 if cell.below else 4), cell.said, anchor="middle", size=SMALL, bold=True)]
    if cell.below:
        parts.append(text(middle, centre + 14, fitted(cell.below, breadth - 4, SMALL), anchor="middle", size=SMALL))
    return parts
