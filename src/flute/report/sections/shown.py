"""What sections of answers are made of: a heading, charts, tables, warnings; and how their numbers are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flute.report.charts.svg import Axis, nice_ticks
from flute.report.numbers import UNKNOWN, finite, p_value, short, span, with_span
from flute.report.reading import Interval, Names, interval, mapping
from flute.report.sections.figures import Figure, Table

NOISED: Final = "Intervals count both chance in who was a patient and the noise that protects them."


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question came to. warnings: what must be known before anything else is read."""

    heading: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One result as it was released, with what its names mean. identity: unique in the page."""

    names: Names
    reference: str
    result: Mapping[str, Any]
    identity: str

    @property
    def heading(self) -> str:
        return self.names.model(self.reference)

    @property
    def note(self) -> str:
        return NOISED if self.names.study.mode == "private" else ""


Build = Callable[[Asked], Answer]


def noted(found: Interval, write: Callable[[float | None], str] = short) -> str:
    """A figure, with the deviation of its noise where there is one."""
    if found.value is None or not found.noise:
        return write(found.value)
    return f"{write(found.value)} ± {short(found.noise, 2)}"


def bounded(found: Interval, write: Callable[[float | None], str] = short) -> str:
    return with_span(found.value, found.low, found.high, write)


def ends(found: Interval, write: Callable[[float | None], str] = short) -> str:
    return span(found.low, found.high, write)


def noise_of(found: Interval) -> str:
    return short(found.noise, 2) if found.noise else "none"


def at(result: Mapping[str, Any], *path: str) -> Interval:
    """The figure at a path of names; unknown where there is none."""
    here: object = result
    for name in path:
        here = mapping(here).get(name)
    return interval(here)


def row_of_test(test: Mapping[str, Any], effect: str = "") -> tuple[str, ...]:
    """Name, statistic, degrees of freedom, p, effect; see TEST_HEAD."""
    statistic = next((v for k in ("statistic", "u") if (v := finite(test.get(k))) is not None), None)
    degrees, within = finite(test.get("degrees_of_freedom")), finite(test.get("degrees_within"))
    freedom = short(degrees, 4) if within is None else f"{short(degrees, 4)}; {short(within, 5)}"
    return str(test.get("test", "")), short(statistic, 4), freedom, p_value(finite(test.get("p"))), effect or UNKNOWN


TEST_HEAD: Final = ("Test", "Statistic", "Degrees of freedom", "p", "Effect (95% interval)")


def axis_around(values: Sequence[float], label: str) -> Axis:
    """An axis around these values with round ticks, few digits."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    reach = (high - low) or abs(high) or 1.0
    low, high = low - 0.06 * reach, high + 0.06 * reach
    return Axis(low, high, nice_ticks(low, high, 4), lambda v: short(v, 4), label)


def with_unit(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label
