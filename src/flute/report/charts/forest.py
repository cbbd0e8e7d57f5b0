"""Odds ratios (and other ratios) of several fits side by side, on a logarithmic scale, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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
from flute.report.numbers import decimal


@dataclass(frozen=True, slots=True)
class Ratio:
    """One odds ratio of one series; None where that series has no such row."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ForestRow:
    label: str
    ratios: tuple[Ratio | None, ...]


_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_WIDEST: Final = 1000.0
"""Odds ratios beyond are drawn at the edge with an arrow; the table has them in full."""


def forest(
    identity: str, title: str, desc: str, rows: Sequence[ForestRow], series: Sequence[str], kind: str = "Odds ratio"
) -> Markup:
    """Ratios on a logarithmic scale, one marker per series and row, bars for intervals. kind: of ratio."""
    low, high = _reach(rows)
    lane, gap, top = 19.0, 15.0, 56.0
    heights = [max(lane * len(series), 34.0) + gap for _ in rows]
    shown = _thinned(tuple(math.log10(t) for t in _TICKS if low <= t <= high), 9)
    x = Axis(math.log10(low), math.log10(high), shown, lambda v: _ratio_text(10**v), f"{kind} (1 = no difference)")
    plot = Plot(250, top, 330, sum(heights), x, Axis(0, 1, (), str))
    parts = [*_forest_key(series), *plot.frame()]
    parts.append(line(plot.at_x(0), top, plot.at_x(0), top + plot.height, "axis"))
    y = top
    for row, height in zip(rows, heights, strict=True):
        parts += _forest_row(plot, row, y, height, lane)
        y += height
    return figure(identity, title, desc, top + plot.height + 48, *parts)


def _reach(rows: Sequence[ForestRow]) -> tuple[float, float]:
    """Ends of the axis: ticks around everything, within a factor _WIDEST of 1."""
    ends = [v for row in rows for r in row.ratios if r for v in (r.value, r.low, r.high) if v is not None and v > 0]
    low = min([*ends, 0.5])
    high = max([*ends, 2.0])
    below = [t for t in _TICKS if t <= low]
    above = [t for t in _TICKS if t >= high]
    return (below[-1] if below else _TICKS[0]), (above[0] if above else _WIDEST)


def _thinned(ticks: tuple[float, ...], most: int) -> tuple[float, ...]:
    """Powers of ten only, where there would be too many ticks."""
    return ticks if len(ticks) <= most else tuple(t for t in ticks if abs(t - round(t)) < 1e-9)


def _ratio_text(value: float) -> str:
    return decimal(value, 2 if value < 0.095 else 1 if value < 0.95 else 0)


def _forest_row(plot: Plot, row: ForestRow, y: float, height: float, lane: float) -> list[Markup]:
    middle = y + height / 2
    lines = wrapped(row.label, plot.left - 14, 2)
    parts = [line(0, y, WIDTH, y, "grid")]
    for k, words in enumerate(lines):
        parts.append(text(0, middle + 4 + (k - (len(lines) - 1) / 2) * 16, words))
    for k, ratio in enumerate(row.ratios):
        at = middle + (k - (len(row.ratios) - 1) / 2) * lane
        if ratio is None:
            parts.append(text(plot.left + plot.width + 14, at + 4, "–", style="muted", size=SMALL))
            continue
        parts += [*_ratio(plot, ratio, at, k), marker(_clipped(plot, ratio.value), at, k, 5)]
        figures = _figure(ratio.value)
        if ratio.low is not None and ratio.high is not None:
            figures += f" ({_figure(ratio.low)} to {_figure(ratio.high)})"
        parts.append(text(plot.left + plot.width + 14, at + 4, figures, size=SMALL))
    return parts


def _figure(ratio: float) -> str:
    """Beside the chart: beyond a thousand a ratio says no more than that; the table below has it in full."""
    return ">1,000" if ratio > 1_000 else decimal(ratio)


def _clipped(plot: Plot, value: float) -> float:
    return plot.at_x(min(max(math.log10(max(value, 1e-300)), plot.x.low), plot.x.high))


def _ratio(plot: Plot, ratio: Ratio, y: float, style: int) -> list[Markup]:
    if ratio.low is None or ratio.high is None:
        return []
    left, right = _clipped(plot, ratio.low), _clipped(plot, ratio.high)
    parts = [line(left, y, right, y, f"whisker s{style}")]
    for end, beyond, sign in (
        (left, math.log10(max(ratio.low, 1e-300)) < plot.x.low - 1e-9, -1),
        (right, math.log10(max(ratio.high, 1e-300)) > plot.x.high + 1e-9, 1),
    ):
        if beyond:
            tip = f"{end + 5 * sign:.1f},{y:.1f} {end - 3 * sign:.1f},{y - 5:.1f} {end - 3 * sign:.1f},{y + 5:.1f}"
            parts.append(tag("polygon", points=tip, class_=f"fill s{style}"))
    return parts


def _forest_key(series: Sequence[str]) -> list[Markup]:
    """Names of the series, in one line, or one under another where they are long."""
    parts: list[Markup] = []
    x = 6.0
    for k, name in enumerate(series):
        label = fitted(name, (WIDTH - 40) / len(series) - 24, SMALL)
        parts += [marker(x + 2, 14, k, 5), text(x + 14, 18, label, size=SMALL)]
        x += width_of(label, SMALL) + 44
    return parts
