"""Bars: time per step, budgets per hub, and histograms as small multiples. Pure functions to inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    nice_ticks,
    path,
    tag,
    text,
    width_of,
    wrapped,
)
from flute.report.cohorts import Described, Panel
from flute.report.numbers import UNKNOWN, count, percent, short
from flute.report.texts import level_said

_PER_ROW: Final = 3
_LABEL_ROOM: Final = 290.0


def flat_bars(
    identity: str, title: str, desc: str, items: Sequence[tuple[str, float]], write: Callable[[float], str]
) -> Markup:
    """Lying bars with their name on the left and their figure at the end."""
    largest = max((v for _, v in items), default=0.0) or 1.0
    room = WIDTH - _LABEL_ROOM - 90
    parts: list[Markup] = []
    y = 6.0
    for label, value in items:
        lines = wrapped(label, _LABEL_ROOM - 16, 2)
        height = 18.0 + 16.0 * len(lines)
        middle = y + height / 2
        for k, words in enumerate(lines):
            parts.append(text(0, middle + 4 + (k - (len(lines) - 1) / 2) * 16, words))
        length = max(room * value / largest, 1.5)
        parts.append(tag("rect", x=_LABEL_ROOM, y=middle - 8, width=length, height=16, rx=2, class_="bar"))
        parts.append(text(_LABEL_ROOM + length + 8, middle + 4, write(value)))
        y += height
    return figure(identity, title, desc, y + 6, *parts)


@dataclass(frozen=True, slots=True)
class BudgetBar:
    """One hub: epsilon charged before, charged by these studies, left under its ceiling (None: not known)."""

    label: str
    before: float
    spent: float
    left: float | None
    note: str
    unbounded: bool


def budget_bars(identity: str, title: str, desc: str, bars: Sequence[BudgetBar]) -> Markup:
    """One bar per hub in three parts, with its reading beneath."""
    largest = max([b.before + b.spent + (b.left or 0.0) for b in bars] or [1.0]) or 1.0
    start, room, pitch = 150.0, WIDTH - 150.0 - 20, 66.0
    parts = [*_budget_key()]
    for i, bar in enumerate(bars):
        y, x = 44 + i * pitch, start
        parts.append(text(0, y + 17, fitted(bar.label, start - 14), bold=True))
        kinds = (("bar before", bar.before), ("bar spent", bar.spent), ("bar left", bar.left or 0.0))
        for style, value in kinds:
            length = room * max(value, 0.0) / largest
            if length > 0.3:
                parts.append(tag("rect", x=x, y=y, width=length, height=24, class_=style))
            x += length
        if bar.unbounded:
            parts.append(line(start, y + 29, start + room, y + 29, "warn-line", "6 4"))
        parts.append(text(start, y + 45, bar.note, style="warn" if bar.unbounded else "muted", size=SMALL))
    return figure(identity, title, desc, 44 + len(bars) * pitch + 4, *parts)


def _budget_key() -> list[Markup]:
    parts: list[Markup] = []
    x = 150.0
    for style, name in (
        ("bar before", "charged before"),
        ("bar spent", "charged by these studies"),
        ("bar left", "left under the hub's ceiling"),
    ):
        parts += [tag("rect", x=x, y=6, width=18, height=12, class_=style), text(x + 26, 17, name, size=SMALL)]
        x += 56 + width_of(name, SMALL)
    return parts


# --- small multiples --------------------------------------------------------------------------


def cohort_panels(identity: str, title: str, desc: str, described: Described) -> Markup:
    """One panel per hub on common axes: shares of the hub's patients per bin or level."""
    panels = [p for p in described.panels if p.bars]
    columns = min(len(panels), _PER_ROW)
    rows = -(-len(panels) // _PER_ROW)
    pitch, height = WIDTH / max(columns, _PER_ROW), 206.0 if described.number else 188.0
    top = max((bar.share for panel in panels for bar in panel.bars), default=1.0) * 1.12 or 1.0
    ticks = nice_ticks(0, top, 3)
    digits = 0 if all(abs(100 * t - round(100 * t)) < 1e-6 for t in ticks) else 1
    y = Axis(0, top, ticks, lambda v: percent(v, digits))
    parts: list[Markup] = []
    for i, panel in enumerate(panels):
        row, column = divmod(i, _PER_ROW)
        plot = Plot(44 + column * pitch, 44 + row * height, pitch - 62, 110, _cohort_axis(described, panel), y)
        parts += [*_panel_title(plot, panel), *plot.frame()]
        parts += _histogram(plot, panel) if described.number else _level_panel(plot, panel)
    return figure(identity, title, desc, rows * height, *parts)


def _cohort_axis(described: Described, panel: Panel) -> Axis:
    if not described.number:
        return Axis(0, len(panel.bars), (), str, "")
    low, high = panel.bars[0].low, panel.bars[-1].high
    return Axis(low, high, nice_ticks(low, high, 4), lambda v: short(v, 6), described.unit)


def _panel_title(plot: Plot, panel: Panel) -> list[Markup]:
    n = f"n ≈ {count(panel.n.value)}" if panel.n.noise else f"n = {count(panel.n.value)}"
    name = panel.hub or "All hubs together"
    n = "" if panel.n.value is None else n
    return [
        text(plot.left, plot.top - 22, fitted(name, plot.width - width_of(n, SMALL) - 8), bold=True),
        text(plot.left + plot.width, plot.top - 22, n, anchor="end", style="muted", size=SMALL),
    ]


def _histogram(plot: Plot, panel: Panel) -> list[Markup]:
    """A filled outline, the median as an upright line, the middle half as a band under the axis."""
    outline = [(panel.bars[0].low, 0.0)]
    for bar in panel.bars:
        outline += [(bar.low, bar.share), (bar.high, bar.share)]
    outline.append((panel.bars[-1].high, 0.0))
    parts = [path(plot.points(outline), "area")]
    quarter, median, three = (panel.quantiles.get(q) for q in ("25", "50", "75"))
    bottom = plot.top + plot.height
    if quarter and three and quarter.value is not None and three.value is not None:
        left, right = plot.at_x(quarter.value), plot.at_x(three.value)
        parts.append(tag("rect", x=left, y=bottom - 2.5, width=max(right - left, 1), height=5, class_="quartiles"))
    if median and median.value is not None:
        x = plot.at_x(median.value)
        parts.append(line(x, plot.top - 4, x, bottom + 3, "median"))
        anchor, shift = ("end", -4.0) if x > plot.left + 0.6 * plot.width else ("start", 4.0)
        parts.append(text(x + shift, plot.top + 4, f"median {short(median.value)}", anchor=anchor, size=SMALL))
    return parts


def _level_panel(plot: Plot, panel: Panel) -> list[Markup]:
    pitch = plot.width / len(panel.bars)
    bottom = plot.top + plot.height
    total = sum(bar.count for bar in panel.bars)
    parts: list[Markup] = []
    for i, bar in enumerate(panel.bars):
        middle = plot.left + (i + 0.5) * pitch
        top = plot.at_y(bar.share)
        breadth = min(pitch * 0.66, 48)
        parts.append(tag("rect", x=middle - breadth / 2, y=top, width=breadth, height=bottom - top, class_="bar"))
        if bar.noise and total > 0:
            reach = 1.96 * bar.noise / total * plot.height / plot.y.high
            parts.append(line(middle, max(top - reach, plot.top), middle, min(top + reach, bottom), "whisker ink"))
            top = max(top - reach, plot.top)
        if pitch >= 30:
            parts.append(text(middle, top - 5, percent(bar.share), anchor="middle", size=SMALL))
        parts.append(text(middle, bottom + 18, _level_text(bar.label, panel, pitch), anchor="middle", size=SMALL))
    return parts


def _level_text(label: str, panel: Panel, pitch: float) -> str:
    said = level_said(label, [bar.label for bar in panel.bars])
    return fitted(said, pitch - 2, SMALL) if said else UNKNOWN
