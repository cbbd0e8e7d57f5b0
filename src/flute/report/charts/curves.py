"""Charts of models: curves with letters on them, calibration panels, bars with intervals.

Pure functions from numbers to inline SVG. Series differ by colour, dash, letter and marker, so none is needed
alone. Each chart stands beside a table that says the same; `desc` is what a screen reader says of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from flute.report.charts.svg import (
    DASHES,
    SMALL,
    STYLES,
    WIDTH,
    Axis,
    Plot,
    along,
    badge,
    figure,
    fitted,
    line,
    marker,
    nice_ticks,
    path,
    tag,
    text,
    width_of,
)
from flute.report.numbers import decimal, percent

Point = tuple[float, float]
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LEGEND_LEFT: Final = 528.0
_LEGEND_ROW: Final = 44.0
_PANELS_PER_ROW: Final = 3
_GUIDES: Final = ("3 4", "10 4")


@dataclass(frozen=True, slots=True)
class Curve:
    """One line with its name and the figure that stands under it in the legend. band: the outline of its interval."""

    label: str
    note: str
    points: tuple[Point, ...]
    band: tuple[Point, ...] = ()


def letter(index: int) -> str:
    return _LETTERS[index % len(_LETTERS)]


def percent_axis(label: str, low: float = 0.0, high: float = 1.0, ticks: tuple[float, ...] = ()) -> Axis:
    return Axis(low, high, ticks or tuple(k / 5 for k in range(6)), percent, label)


def curves_chart(
    identity: str, title: str, desc: str, curves: Sequence[Curve], x: Axis, y: Axis, *, guides: Sequence[Curve] = ()
) -> Markup:
    """Up to STYLES curves, each with a letter on it, and a legend in the same order; guides are thin and named."""
    shown = list(curves[:STYLES])
    plot = Plot(62, 34, 430, 360, x, y)
    height = max(plot.top + plot.height + 50, plot.top + _LEGEND_ROW * (len(shown) + len(guides)) + 10)
    clip = f"{identity}-clip"
    parts = [plot.clip(clip), *plot.frame()]
    for k, guide in enumerate(guides):
        parts.append(path(plot.points(guide.points), "guide", _GUIDES[k], clip))
    parts += [path(plot.points(c.band), f"band s{i}", "", clip) for i, c in enumerate(shown) if c.band]
    for i in reversed(range(len(shown))):
        parts.append(path(plot.points(shown[i].points), f"curve s{i}", DASHES[i], clip))
    parts += [badge(*at, letter(i), i) for i, at in enumerate(_letter_places(plot, shown))]
    for i, curve in enumerate(shown):
        parts += _legend_row(plot.top + 8 + i * _LEGEND_ROW, curve, i)
    for k, guide in enumerate(guides):
        parts += _legend_row(plot.top + 8 + (len(shown) + k) * _LEGEND_ROW, guide, -1 - k)
    return figure(identity, title, desc, height, *parts)


def _letter_places(plot: Plot, curves: Sequence[Curve]) -> list[Point]:
    """One place per curve, on the curve, inside the plot, apart from the others."""
    places: list[Point] = []
    for i, curve in enumerate(curves):
        drawn = [p for p in plot.points(curve.points) if plot.top <= p[1] <= plot.top + plot.height]
        if len(drawn) < 2:
            places.append(drawn[0] if drawn else (plot.left, plot.top))
            continue
        wanted = 0.2 + 0.6 * i / max(len(curves) - 1, 1)
        tries = sorted((k / 40 for k in range(2, 39)), key=lambda share: abs(share - wanted))
        spots = [along(drawn, share) for share in tries]
        places.append(next((s for s in spots if all(math.dist(s, p) > 24 for p in places)), spots[0]))
    return places


def _legend_row(y: float, curve: Curve, index: int) -> list[Markup]:
    """index: of the curve; -1, -2 … for guides."""
    x, room = _LEGEND_LEFT, WIDTH - _LEGEND_LEFT - 52
    if index < 0:
        parts = [line(x, y, x + 40, y, "guide", _GUIDES[-1 - index])]
    else:
        parts = [line(x, y, x + 40, y, f"curve s{index}", DASHES[index]), badge(x + 20, y, letter(index), index)]
    parts.append(text(x + 50, y + (1 if curve.note else 4), fitted(curve.label, room)))
    if curve.note:
        parts.append(text(x + 50, y + 17, fitted(curve.note, room, SMALL), style="muted", size=SMALL))
    return parts


# --- calibration: one panel per model ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dot:
    """A predicted risk and the observed one, with its interval."""

    x: float
    y: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class DotPanel:
    label: str
    dots: tuple[Dot, ...]


def dot_panels(identity: str, title: str, desc: str, panels: Sequence[DotPanel], x: str, y: str) -> Markup:
    """Small multiples of the unit square with its diagonal; at most STYLES panels."""
    shown = panels[:STYLES]
    rows = -(-len(shown) // _PANELS_PER_ROW)
    pitch_x, pitch_y, side = WIDTH / _PANELS_PER_ROW, 296.0, 184.0
    parts: list[Markup] = []
    for i, panel in enumerate(shown):
        row, column = divmod(i, _PANELS_PER_ROW)
        plot = Plot(
            46 + column * pitch_x, 54 + row * pitch_y, side, side,
            percent_axis(x, ticks=(0, 0.5, 1)), percent_axis(y, ticks=(0, 0.5, 1)),
        )  # fmt: skip
        parts += _dot_panel(plot, panel, i)
    return figure(identity, title, desc, rows * pitch_y - 4, *parts)


def _dot_panel(plot: Plot, panel: DotPanel, style: int) -> list[Markup]:
    bottom = plot.top + plot.height
    parts = [badge(plot.left + 2, plot.top - 38, letter(style), style)]
    parts.append(text(plot.left + 18, plot.top - 34, fitted(panel.label, plot.width + 16), bold=True))
    parts += plot.frame()
    parts.append(line(plot.left, bottom, plot.left + plot.width, plot.top, "guide", "3 4"))
    for dot in panel.dots:
        px = plot.at_x(dot.x)
        if dot.low is not None and dot.high is not None:
            parts.append(line(px, plot.at_y(dot.low), px, plot.at_y(dot.high), f"whisker s{style}"))
        parts.append(marker(px, plot.at_y(dot.y), style, 3.6))
    return parts


# --- bars with intervals: risk by level -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LevelBar:
    """A share with its interval; `marks`: (style, share) of further series at the same level."""

    label: str
    note: str
    value: float
    low: float | None
    high: float | None
    marks: tuple[tuple[int, float], ...] = ()


_ROOMY: Final = 60.0
"""Breadth of a bar that has room for a figure beside markers."""


def level_bars(
    identity: str,
    title: str,
    desc: str,
    bars: Sequence[LevelBar],
    x: str,
    y: str,
    key: tuple[str, Sequence[tuple[int, str]]],
) -> Markup:
    """Upright bars from 0 to 100 %, whiskers, and a marker per further series.

    key: what the bars are, then (style, name) of every further series.
    """
    plot = Plot(62, 64, WIDTH - 82, 250, Axis(0, max(len(bars), 1), (), str, ""), percent_axis(y))
    pitch = plot.width / max(len(bars), 1)
    breadth = min(pitch * 0.5, 84.0)
    parts = [*_key(*key), *plot.frame()]
    for i, bar in enumerate(bars):
        middle = plot.left + (i + 0.5) * pitch
        parts += _level_bar(plot, bar, middle, breadth, pitch)
    parts.append(text(plot.left + plot.width / 2, plot.top + plot.height + 58, x, anchor="middle", size=SMALL))
    return figure(identity, title, desc, plot.top + plot.height + 68, *parts)


def _level_bar(plot: Plot, bar: LevelBar, middle: float, breadth: float, pitch: float) -> list[Markup]:
    top, bottom = plot.at_y(bar.value), plot.top + plot.height
    low, high = bar.low if bar.low is not None else bar.value, bar.high if bar.high is not None else bar.value
    parts = [tag("rect", x=middle - breadth / 2, y=top, width=breadth, height=bottom - top, class_="bar")]
    at = middle - breadth / 4 if bar.marks else middle
    if bar.low is not None:
        parts += [line(at, plot.at_y(low), at, plot.at_y(high), "whisker ink"), *_caps(plot, at, (low, high))]
    for k, (style, mark) in enumerate(bar.marks):
        place = middle + breadth / 2 * (k + 1) / (len(bar.marks) + 1)
        parts.append(marker(place, plot.at_y(min(max(mark, 0.0), 1.0)), style, 5))
    beside = breadth >= _ROOMY  # then the figure stands over the whisker, left of the markers
    peak = min([top, plot.at_y(high), *(plot.at_y(m) - 6 for _, m in bar.marks if not beside)])
    parts.append(
        text(at if beside else middle, max(peak - 7, plot.top - 4), percent(bar.value), anchor="middle", bold=True)
    )
    parts.append(text(middle, bottom + 19, fitted(bar.label, pitch - 6), anchor="middle"))
    if bar.note:
        note = fitted(bar.note, pitch - 4, SMALL)
        parts.append(text(middle, bottom + 36, note, anchor="middle", style="muted", size=SMALL))
    return parts


def _caps(plot: Plot, x: float, values: tuple[float, float]) -> list[Markup]:
    return [line(x - 5, plot.at_y(v), x + 5, plot.at_y(v), "whisker ink") for v in values]


def _key(bars: str, marks: Sequence[tuple[int, str]]) -> list[Markup]:
    """What bars and markers mean, in one line above the plot."""
    parts, x = [tag("rect", x=62, y=6, width=18, height=12, class_="bar")], 88.0
    parts.append(text(x, 17, bars, size=SMALL))
    x += width_of(bars, SMALL) + 22
    for style, name in marks:
        label = fitted(name, 190, SMALL)
        parts += [marker(x, 12, style, 5), text(x + 12, 17, label, size=SMALL)]
        x += width_of(label, SMALL) + 34
    return parts


def value_axis(values: Sequence[float], label: str, *, floor: float | None = None) -> Axis:
    """An axis around the values, with round ticks; `floor`: the lowest end it may have."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = low if floor is None else max(low, floor)
    reach = (high - low) or 1.0
    low, high = low - 0.04 * reach, high + 0.06 * reach
    return Axis(low, high, nice_ticks(low, high), lambda v: decimal(v, 2), label)
