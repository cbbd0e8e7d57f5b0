"""Small panels on one scale: what each variable adds to a model that is a sum of curves, with its band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from flute.report.charts.svg import SMALL, WIDTH, Axis, Plot, figure, fitted, line, marker, nice_ticks, path, text
from flute.report.numbers import short

MAX_PANELS: Final = 24
_PER_ROW: Final = 3
_PITCH: Final = 200.0


@dataclass(frozen=True, slots=True)
class Part:
    """One variable. places: ends of its parts (a number; one more than values) or names of its levels (as many).
    reach: half the 95 % interval of each value."""

    label: str
    unit: str
    edges: tuple[float, ...]
    levels: tuple[str, ...]
    values: tuple[float, ...]
    reach: tuple[float, ...]


def part_panels(identity: str, title: str, desc: str, parts: Sequence[Part], y: str) -> Markup:
    """One panel per variable; steps with a band for numbers, dots with whiskers for levels; a line at 0."""
    shown = parts[:MAX_PANELS]
    ends = [v + s * r for p in shown for v, r in zip(p.values, p.reach, strict=True) for s in (-1, 1)]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    room = 0.06 * ((high - low) or 1.0)
    axis = Axis(low - room, high + room, nice_ticks(low - room, high + room, 4), short, y)
    drawn: list[Markup] = []
    breadth = WIDTH / _PER_ROW
    for i, part in enumerate(shown):
        row, column = divmod(i, _PER_ROW)
        plot = Plot(48 + column * breadth, 46 + row * _PITCH, breadth - 64, 106, _along(part), axis)
        drawn.append(text(plot.left, plot.top - 26, fitted(part.label, plot.width), bold=True))
        drawn += [*plot.frame(), line(plot.left, plot.at_y(0), plot.left + plot.width, plot.at_y(0), "axis")]
        drawn += _steps(plot, part) if part.edges else _dots(plot, part)
    return figure(identity, title, desc, -(-len(shown) // _PER_ROW) * _PITCH + 4, *drawn)


def _along(part: Part) -> Axis:
    if not part.edges:
        return Axis(0, max(len(part.levels), 1), (), str)
    low, high = part.edges[0], part.edges[-1]
    return Axis(low, high, nice_ticks(low, high, 4), lambda v: short(v, 5), part.unit)


def _steps(plot: Plot, part: Part) -> list[Markup]:
    lines: tuple[list[tuple[float, float]], ...] = ([], [], [])
    middle, upper, lower = lines
    for (a, b), value, reach in zip(pairwise(part.edges), part.values, part.reach, strict=True):
        for points, at in ((middle, value), (upper, value + reach), (lower, value - reach)):
            points += [(a, at), (b, at)]
    band = plot.points([*upper, *reversed(lower)])
    return [path(band, "band s0"), path(plot.points(middle), "curve s0")]


def _dots(plot: Plot, part: Part) -> list[Markup]:
    pitch, bottom = plot.width / max(len(part.levels), 1), plot.top + plot.height
    parts: list[Markup] = []
    for i, (level, value, reach) in enumerate(zip(part.levels, part.values, part.reach, strict=True)):
        x = plot.left + (i + 0.5) * pitch
        parts.append(line(x, plot.at_y(value - reach), x, plot.at_y(value + reach), "whisker s0"))
        parts.append(marker(x, plot.at_y(value), 0, 4.5))
        parts.append(text(x, bottom + 18, fitted(level, pitch - 4, SMALL), anchor="middle", size=SMALL))
    return parts
