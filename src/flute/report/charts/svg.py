"""Inline SVG, built from small pure pieces. Every text and attribute is escaped here, nowhere else.

Colours are classes (`s0` … `s7`, `ink`, `muted`, `grid`) that the page's style sheet gives for light, dark
and paper. Coordinates are viewBox units; at full width one unit is about one CSS pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 760.0
CHAR: Final = 0.56
"""Mean width of a character in font sizes; generous for the system fonts, so that nothing is clipped."""
TEXT: Final = 13.0
SMALL: Final = 12.0
DASHES: Final = ("", "8 4", "2 3", "10 3 2 3", "5 2", "1 4", "12 3 2 3 2 3", "14 5")
STYLES: Final = len(DASHES)


def tag(name: str, *content: str | Markup, **attributes: str | float | None) -> Markup:
    """One element. `class_` is class, `_` in a name is `-`; None leaves an attribute out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(number(v) if isinstance(v, int | float) else v)}"'
        for key, v in attributes.items()
        if v is not None
    )
    inside = "".join(escape(part) for part in content)
    return Markup(f"<{name}{shown}>{inside}</{name}>" if inside else f"<{name}{shown}/>")  # noqa: S704 (escaped above)


def number(value: float) -> str:
    if not math.isfinite(value):
        return "0"
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text not in ("-0.0",) else "0"


def figure(identity: str, title: str, description: str, height: float, *content: Markup) -> Markup:
    """The `svg` element with its accessible name and description."""
    return tag(
        "svg",
        tag("title", title, id=f"{identity}-t"),
        tag("desc", description, id=f"{identity}-d"),
        *content,
        viewBox=f"0 0 {number(WIDTH)} {number(height)}",
        role="img",
        aria_labelledby=f"{identity}-t {identity}-d",
        preserveAspectRatio="xMinYMin meet",
    )


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    style: str = "ink",
    size: float = TEXT,
    bold: bool = False,
) -> Markup:
    return tag(
        "text",
        content,
        x=x,
        y=y,
        class_=style,
        font_size=size,
        text_anchor=None if anchor == "start" else anchor,
        font_weight="600" if bold else None,
    )


def width_of(content: str, size: float = TEXT) -> float:
    return len(content) * CHAR * size


def fitted(content: str, room: float, size: float = TEXT) -> str:
    """The text, cut with an ellipsis where it would not fit `room`."""
    most = max(int(room / (CHAR * size)), 2)
    return content if len(content) <= most else content[: most - 1].rstrip() + "…"


def wrapped(content: str, room: float, lines: int, size: float = TEXT) -> list[str]:
    """The text on at most so many lines; the last is cut where it must be."""
    most, rest = max(int(room / (CHAR * size)), 2), content.split()
    found: list[str] = []
    while rest and len(found) < lines - 1:
        line = rest.pop(0)
        while rest and len(line) + 1 + len(rest[0]) <= most:
            line += " " + rest.pop(0)
        found.append(fitted(line, room, size))
    return [*found, fitted(" ".join(rest), room, size)] if rest else found


def line(x1: float, y1: float, x2: float, y2: float, style: str, dash: str = "") -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style, stroke_dasharray=dash or None)


def path(points: Sequence[tuple[float, float]], style: str, dash: str = "", clip: str = "") -> Markup:
    d = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
    return tag("path", d=d, class_=style, stroke_dasharray=dash or None, clip_path=f"url(#{clip})" if clip else None)


def marker(x: float, y: float, style: int, size: float = 5.0) -> Markup:
    """One of eight shapes, so that series differ without colour."""
    shape = style % STYLES
    name = f"fill s{shape}"
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=size, class_=name)
    corners = " ".join(f"{number(x + a * size)},{number(y + b * size)}" for a, b in _SHAPES[shape])
    return tag("polygon", points=corners, class_=name)


_SHAPES: Final = {
    1: ((-1.15, 0.0), (0.0, -1.15), (1.15, 0.0), (0.0, 1.15)),
    2: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    3: ((0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)),
    4: ((0.0, 1.1), (1.1, -0.9), (-1.1, -0.9)),
    5: ((-1.1, 0.0), (0.9, -1.1), (0.9, 1.1)),
    6: ((1.1, 0.0), (-0.9, -1.1), (-0.9, 1.1)),
    7: ((-0.5, -1.1), (0.5, -1.1), (1.1, 0.0), (0.5, 1.1), (-0.5, 1.1), (-1.1, 0.0)),
}


def badge(x: float, y: float, letter: str, style: int) -> Markup:
    """A letter in a disc, which names a curve where it runs."""
    return tag("g", tag("circle", cx=x, cy=y, r=9, class_=f"badge s{style % STYLES}"), text(
        x, y + 4, letter, anchor="middle", size=SMALL, bold=True
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its range, the ticks within, how a tick is written, what it says."""

    low: float
    high: float
    ticks: tuple[float, ...]
    write: Callable[[float], str]
    label: str = ""


def nice_ticks(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    """Round numbers within [low, high], about `wanted`."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return ()
    raw = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return tuple(round((first + k) * step, 12) for k in range(int((high - first * step) / step + 1e-9) + 1))


@dataclass(frozen=True, slots=True)
class Plot:
    """A rectangle with two axes."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at_x(self, value: float) -> float:
        return self.left + self.width * (value - self.x.low) / (self.x.high - self.x.low)

    def at_y(self, value: float) -> float:
        return self.top + self.height * (1 - (value - self.y.low) / (self.y.high - self.y.low))

    def points(self, values: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(self.at_x(a), self.at_y(b)) for a, b in values]

    def frame(self, size: float = SMALL) -> list[Markup]:
        """Grid lines, tick texts and axis titles."""
        bottom, right = self.top + self.height, self.left + self.width
        parts: list[Markup] = []
        for tick in self.y.ticks:
            y, said = self.at_y(tick), self.y.write(tick)
            parts.append(line(self.left, y, right, y, "grid"))
            parts.append(text(self.left - 7, y + 4, said, anchor="end", style="muted", size=size))
        for tick in self.x.ticks:
            x, said = self.at_x(tick), self.x.write(tick)
            parts.append(line(x, bottom, x, bottom + 4, "tick"))
            parts.append(text(x, bottom + 18, said, anchor="middle", style="muted", size=size))
        parts.append(line(self.left, bottom, right, bottom, "axis"))
        if self.x.label:
            parts.append(text(self.left + self.width / 2, bottom + 38, self.x.label, anchor="middle", size=size))
        if self.y.label:
            parts.append(text(self.left, self.top - 10, self.y.label, size=size))
        return parts

    def clip(self, identity: str) -> Markup:
        area = tag("rect", x=self.left, y=self.top - 2, width=self.width, height=self.height + 4)
        return tag("clipPath", area, id=identity)


def along(points: Sequence[tuple[float, float]], share: float) -> tuple[float, float]:
    """The point after `share` of a line's length."""
    lengths = [math.dist(a, b) for a, b in pairwise(points)]
    rest = share * sum(lengths)
    for (a, b), length in zip(pairwise(points), lengths, strict=True):
        if rest <= length and length > 0:
            t = rest / length
            return a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])
        rest -= length
    return points[-1]
