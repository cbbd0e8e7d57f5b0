"""Descriptions of cohorts as released: per variable one panel per hub. Tolerant as `reading` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flute.report.model import Report
from flute.report.numbers import finite
from flute.report.reading import Interval, Names, interval, mapping, names_of, sequence

MAX_BARS: Final = 32
"""Bars of one panel; finer histograms are merged for the eye, the JSON keeps every bin."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Patients in a bin or level. low, high: ends of a bin; nan-free. `noise`: deviation of the noise."""

    label: str
    share: float
    count: float
    noise: float | None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class Panel:
    """One variable at one hub (`hub` empty: all hubs together)."""

    hub: str
    n: Interval
    missing: Interval
    bars: tuple[Bar, ...]
    mean: Interval
    deviation: Interval
    quantiles: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Described:
    """One variable of one description question over the hubs. number: a histogram, otherwise levels."""

    name: str
    label: str
    unit: str
    number: bool
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Cohort:
    names: Names
    question: str
    variables: tuple[Described, ...]


def cohorts(report: Report) -> list[Cohort]:
    """Every description question of every study."""
    found = []
    for study in report.studies:
        names = names_of(report, study)
        questions: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for reference, result in study.results.items():
            if variables := mapping(mapping(result).get("variables")):
                question, _, hub = reference.partition("@")
                questions.setdefault(question, []).append((hub, variables))
        for question, parts in questions.items():
            if described := _described(names, parts):
                found.append(Cohort(names, question, described))
    return found


def _described(names: Names, parts: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Described, ...]:
    order = dict.fromkeys(name for _, variables in parts for name in variables)
    found = []
    for name in order:
        there = [(hub, mapping(v[name])) for hub, v in parts if mapping(v.get(name))]
        panels = tuple(panel_of(names.hub(hub) if hub else "", variable) for hub, variable in there)
        if any(panel.bars for panel in panels):
            said = str(there[0][1].get("label") or "")
            label = names.study.labels.get(name) or said or name
            number = bool(mapping(there[0][1].get("histogram")))
            found.append(Described(name, label, names.unit(name) if number else "", number, panels))
    return tuple(found)


def panel_of(hub: str, variable: Mapping[str, Any]) -> Panel:
    """One variable's numbers, as described for a hub or for a group of patients."""
    histogram = mapping(variable.get("histogram"))
    return Panel(
        hub=hub,
        n=interval(variable.get("n")),
        missing=interval(variable.get("missing")),
        bars=_bins(histogram) if histogram else _levels(mapping(variable.get("levels"))),
        mean=interval(variable.get("mean")),
        deviation=interval(variable.get("sd")),
        quantiles={str(q): interval(v) for q, v in mapping(variable.get("quantiles")).items()},
    )


def _bins(histogram: Mapping[str, Any]) -> tuple[Bar, ...]:
    """Bins merged to at most MAX_BARS; a count that noise drove below zero is drawn as zero."""
    edges = [finite(e) for e in sequence(histogram.get("edges"))]
    counts = [max(finite(c) or 0.0, 0.0) for c in sequence(histogram.get("counts"))]
    ends = [e for e in edges if e is not None]
    if len(ends) != len(edges) or len(ends) != len(counts) + 1 or not counts:
        return ()
    step = -(-len(counts) // MAX_BARS)
    total = sum(counts)
    bars = []
    for at in range(0, len(counts), step):
        here, last = sum(counts[at : at + step]), min(at + step, len(counts))
        bars.append(Bar("", here / total if total > 0 else 0.0, here, None, ends[at], ends[last]))
    return tuple(bars)


def _levels(levels: Mapping[str, Any]) -> tuple[Bar, ...]:
    found = {label: mapping(level) for label, level in levels.items()}
    counts = {label: max(finite(level.get("count")) or 0.0, 0.0) for label, level in found.items()}
    total = sum(counts.values())
    return tuple(
        Bar(str(label), c / total if total > 0 else 0.0, c, finite(found[label].get("noise_se")))
        for label, c in counts.items()
    )
