"""Figures with their intervals on a straight axis, a row each; a mark where a row has a limit. Pure functions to SVG.

Series differ by marker as well as colour, values stand as text beside the plot, so neither colour nor position is
needed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markupsafe import Markup

from flute.report.charts.svg import (
    SMALL,
    WIDTH,
    Axis,
    Plot,
    figure,
    fitted,
    line,
    marker,
    tag,
    text,
    width_of,
    wrapped,
)

Tone = Literal["good", "bad", "warn", "muted"]
_LEFT: Final = 218.0
_BREADTH: Final = 292.0
_LANE: Final = 19.0
_GAP: Final = 15.0
_TOP: Final = 40.0
_BELOW: Final = 62.0
"""Under a panel: its ticks and its title."""
_ARROW: Final = 15.0


@dataclass(frozen=True, slots=True)
class Reading:
    """A value with its interval, and how both are written. `one_sided`: a lower end, no upper one is known."""

    value: float | None
    low: float | None
    high: float | None
    said: str
    one_sided: bool = False


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One reading per series. mark: the row's limit. says: under the label, in `tone`."""

    label: str
    readings: tuple[Reading, ...]
    mark: float | None = None
    mark_said: str = ""
    says: str = ""
    tone: Tone = "muted"


@dataclass(frozen=True, slots=True)
class IntervalPanel:
    """Rows over one axis. line: where an upright line stands (no effect, a coin)."""

    axis: Axis
    rows: tuple[IntervalRow, ...]
    line: float | None = None


def interval_panels(
    identity: str, title: str, desc: str, panels: Sequence[IntervalPanel], series: Sequence[str], mark: str = ""
) -> Markup:
    """Panels one under another. series: names of the readings of every row, in their order. mark: what marks are."""
    keyed = len(series) > 1 or mark
    parts, y = (_key(series, mark) if keyed else []), (_TOP if keyed else 12.0)
    for panel in panels:
        heights = [_height(row) for row in panel.rows]
        plot = Plot(_LEFT, y, _BREADTH, sum(heights), panel.axis, Axis(0, 1, (), str))
        parts += _upright(plot, panel)
        for row, height in zip(panel.rows, heights, strict=True):
            parts += _row(plot, row, y, height)
            y += height
        y += _BELOW
    return figure(identity, title, desc, y - 12, *parts)


def _height(row: IntervalRow) -> float:
    lanes = len(row.readings) + (1 if row.mark_said else 0)
    words = len(wrapped(row.label, _LEFT - 16, 2)) + (1 if row.says else 0)
    return max(_LANE * lanes, 17.0 * words) + _GAP


def _key(series: Sequence[str], mark: str) -> list[Markup]:
    parts: list[Markup] = []
    x = 8.0
    for k, name in enumerate(series):
        label = fitted(name, (WIDTH - 40) / (len(series) + bool(mark)) - 24, SMALL)
        parts += [marker(x, 14, k, 5), text(x + 12, 18, label, size=SMALL)]
        x += width_of(label, SMALL) + 42
    if mark:
        parts += [*_mark(x, 6, 22), text(x + 12, 18, mark, size=SMALL)]
    return parts


def _upright(plot: Plot, panel: IntervalPanel) -> list[Markup]:
    bottom = plot.top + plot.height
    grid = [line(plot.at_x(t), plot.top, plot.at_x(t), bottom, "grid") for t in plot.x.ticks]
    parts = [*grid, *plot.frame()]
    if panel.line is not None and plot.x.low <= panel.line <= plot.x.high:
        x = plot.at_x(panel.line)
        parts.append(line(x, plot.top, x, bottom, "axis"))
    return parts


def _row(plot: Plot, row: IntervalRow, y: float, height: float) -> list[Markup]:
    parts = [line(0, y, WIDTH, y, "grid")]
    words = [(w, "ink", 13.0) for w in wrapped(row.label, _LEFT - 16, 2)]
    words += [(fitted(row.says, _LEFT - 16, SMALL), row.tone, SMALL)] if row.says else []
    middle = y + height / 2
    for k, (said, style, size) in enumerate(words):
        at = middle + 4 + (k - (len(words) - 1) / 2) * 17
        parts.append(text(0, at, said, style=style, size=size, bold=style in ("good", "bad", "warn")))
    lanes = len(row.readings) + (1 if row.mark_said else 0)
    for k, reading in enumerate(row.readings):
        parts += _reading(plot, reading, middle + (k - (lanes - 1) / 2) * _LANE, k)
    if row.mark is not None:
        parts += _mark(_within(plot, row.mark), y + 4, y + height - 4)
    if row.mark_said:
        at = middle + (lanes - 1) / 2 * _LANE + 4
        parts.append(text(plot.left + plot.width + 16, at, row.mark_said, style="muted", size=SMALL))
    return parts


def _mark(x: float, top: float, bottom: float) -> list[Markup]:
    tip = f"{x - 5:.1f},{top:.1f} {x + 5:.1f},{top:.1f} {x:.1f},{top + 7:.1f}"
    return [line(x, top, x, bottom, "limit"), tag("polygon", points=tip, class_="limit")]


def _reading(plot: Plot, reading: Reading, y: float, style: int) -> list[Markup]:
    right = plot.left + plot.width
    parts = [text(right + 16, y + 4, fitted(reading.said, WIDTH - right - 16, SMALL), size=SMALL)]
    if reading.value is None:
        return parts
    at = _within(plot, reading.value)
    if reading.one_sided:
        end = min(at + _ARROW, right + 10)
        parts += [line(at, y, end, y, f"whisker s{style}"), _tip(end, y, 1, style)]
    elif reading.low is not None and reading.high is not None:
        parts += _whisker(plot, reading.low, reading.high, y, style)
    return [*parts, marker(at, y, style, 5)]


def _whisker(plot: Plot, low: float, high: float, y: float, style: int) -> list[Markup]:
    """The interval; an arrow where it goes on beyond the axis."""
    ends = (_within(plot, low), _within(plot, high))
    parts = [line(ends[0], y, ends[1], y, f"whisker s{style}")]
    beyond = (low < plot.x.low - 1e-9, high > plot.x.high + 1e-9)
    return parts + [_tip(x, y, s, style) for x, s, is_out in zip(ends, (-1, 1), beyond, strict=True) if is_out]


def _tip(x: float, y: float, sign: int, style: int) -> Markup:
    points = f"{x + 6 * sign:.1f},{y:.1f} {x - 2 * sign:.1f},{y - 5:.1f} {x - 2 * sign:.1f},{y + 5:.1f}"
    return tag("polygon", points=points, class_=f"fill s{style}")


def _within(plot: Plot, value: float) -> float:
    return plot.at_x(min(max(value, plot.x.low), plot.x.high))
