"""Time until an event: survival curves as steps with their bands, log-rank, hazard ratios of groups and of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flute.report.charts.curves import Curve, Point, curves_chart, percent_axis
from flute.report.charts.forest import ForestRow, Ratio, forest
from flute.report.charts.svg import STYLES, Axis, nice_ticks
from flute.report.numbers import decimal, finite, p_value, percent, short
from flute.report.reading import Interval, Names, interval, mapping, sequence, texts
from flute.report.sections.figures import Figure, Table, counted, described
from flute.report.sections.shown import TEST_HEAD, Answer, Asked, at, bounded, ends, row_of_test, with_unit
from flute.report.texts import level_said

_SHOWN_TIMES: Final = 6


def survived(asked: Asked) -> Answer:
    """One curve per group, what it says at some times, and whether groups differ."""
    found = mapping(asked.result.get("groups"))
    groups = [(level_said(g, list(found)) if g != "all" else "all", mapping(v)) for g, v in found.items()]
    figure = _curves(asked, groups)
    tests = tuple(_tests(asked, list(found)))
    by = asked.names.variable(str(asked.result.get("by") or ""))
    tables = [_summary(asked, groups)]
    tables += [Table(f"Do the groups of {by} differ?", TEST_HEAD, tests, (0,))] if tests else []
    left = interval(asked.result.get("left_out"))
    note = f"{counted(left)} patients lack a time, an event or a group and are left out." if left.value else ""
    return Answer(asked.heading, (figure,) if figure else (), tuple(tables), note=f"{note} {asked.note}".strip())


def _curves(asked: Asked, groups: Sequence[tuple[str, Mapping[str, Any]]]) -> Figure | None:
    curves = [_curve(name, group) for name, group in groups]
    reach = max((x for c in curves for x, _ in c.points), default=0.0)
    if reach <= 0:
        return None
    time, by = asked.names.variable(str(asked.result.get("time"))), str(asked.result.get("by") or "")
    event, unit = (
        asked.names.variable(str(asked.result.get("event"))),
        asked.names.unit(str(asked.result.get("time"))),
    )
    title = f"Free of “{event}”" + (f", by {asked.names.variable(by)}" if by else "")
    takeaway, identity = _takeaway(asked, groups, unit), f"{asked.identity}-curves"
    x = Axis(0.0, reach, nice_ticks(0.0, reach), lambda v: short(v, 4), with_unit(time, unit))
    desc = described(takeaway, "Survival curves as steps, each with a band for its 95% interval.")
    svg = curves_chart(identity, title, desc, curves, x, percent_axis(f"Still without “{event}”"))
    note = "Bands are 95% intervals, at each time by itself."
    note += f" The chart shows the first {STYLES} groups." if len(curves) > STYLES else ""
    return Figure(identity, title, takeaway, svg, _times(groups, unit), note)


def _curve(name: str, group: Mapping[str, Any]) -> Curve:
    """Steps down at the end of each part of the time axis; it ends where nobody is left to tell."""
    curve = mapping(group.get("curve"))
    columns = [[finite(v) for v in sequence(curve.get(k))] for k in ("times", "survival", "low", "high")]
    middle, low, high = [(0.0, 1.0)], [(0.0, 1.0)], [(0.0, 1.0)]
    for time, value, below, above in zip(*columns, strict=False):
        if time is None or value is None:
            break
        for line, end in ((middle, value), (low, below), (high, above)):
            if end is not None:
                line += [(time, line[-1][1]), (time, min(max(end, 0.0), 1.0))]
    banded = len(low) == len(high) == len(middle) > 1
    band: tuple[Point, ...] = (*high, *reversed(low)) if banded else ()
    return Curve(name, _median_note(group), tuple(middle), band)


def _median_note(group: Mapping[str, Any]) -> str:
    median = at(group, "median")
    return f"median {short(median.value)}" if median.value is not None else "median not reached"


def _takeaway(asked: Asked, groups: Sequence[tuple[str, Mapping[str, Any]]], unit: str) -> str:
    medians = [(name, at(group, "median")) for name, group in groups]
    told = [
        f"{bounded(m)} {unit}".strip() + ("" if len(groups) == 1 else f" ({name})") for name, m in medians if m.value
    ]
    said = f"Half have had the event after {', '.join(told)}." if told else "In no group half have had the event."
    p = finite(mapping(asked.result.get("log_rank")).get("p"))
    return said if p is None else f"{said} Log-rank test of a difference: p\N{NO-BREAK SPACE}{p_value(p)}."


def _times(groups: Sequence[tuple[str, Mapping[str, Any]]], unit: str) -> Table:
    """Survival at some times: every so manieth of the grid's."""
    rows: list[tuple[str, ...]] = []
    for name, group in groups:
        curve = mapping(group.get("curve"))
        times = [finite(t) for t in sequence(curve.get("times"))]
        step = max(len(times) // _SHOWN_TIMES, 1)
        rows += [_time_row(name, curve, k) for k in range(step - 1, len(times), step)]
    head = ("Group", with_unit("Time", unit), "Survival", "95% interval", "Noise (SE)", "At risk before")
    return Table("Survival at some times", head, tuple(rows))


def _time_row(name: str, curve: Mapping[str, Any], k: int) -> tuple[str, ...]:
    def of(key: str) -> float | None:
        values = sequence(curve.get(key))
        return finite(values[k]) if k < len(values) else None

    survival = Interval(of("survival"), of("low"), of("high"), of("noise_se"))
    noise = decimal(survival.noise, 4) if survival.noise else "none"
    at_risk = counted(Interval(of("at_risk"), noise=of("at_risk_noise_se")))
    return (
        name,
        short(of("times"), 4),
        percent(survival.value, 1),
        ends(survival, lambda v: percent(v, 1)),
        noise,
        at_risk,
    )


def _summary(asked: Asked, groups: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    unit = asked.names.unit(str(asked.result.get("time")))
    rows = tuple(
        (
            name,
            counted(at(g, "n")),
            counted(at(g, "events")),
            bounded(at(g, "median")),
            bounded(at(g, "restricted_mean")),
            short(finite(mapping(g.get("restricted_mean")).get("until"))),
        )
        for name, g in groups
    )
    head = ("Group", "Patients", "Events", "Median (95%)", "Mean time free of it (95%)", "… until")
    return Table(with_unit("The groups in short", unit), head, rows)


def _tests(asked: Asked, levels: Sequence[str]) -> Iterator[tuple[str, ...]]:
    if test := mapping(asked.result.get("log_rank")):
        yield row_of_test({"test": "log-rank", **test})
    for level, raw in mapping(asked.result.get("hazard_ratios")).items():
        name = f"hazard ratio: {level_said(level, levels)} against {level_said(levels[0], levels)}"
        yield name, "", "", "", bounded(interval(raw), decimal)


# --- a fit of hazards -------------------------------------------------------------------------


def hazards(asked: Asked) -> Answer:
    """Hazard ratios as a forest plot."""
    columns, ratios = texts(asked.result.get("columns")), sequence(asked.result.get("hazard_ratios"))
    p_values = sequence(asked.result.get("p"))
    absent = texts(asked.result.get("not_estimated"))
    found = [
        (column_label(asked.names, c), interval(r), finite(p_values[i]) if i < len(p_values) else None)
        for i, (c, r) in enumerate(zip(columns, ratios, strict=False))
        if c not in absent
    ]
    ending = str(asked.result.get("ending", ""))
    warnings = () if ending in ("converged", "fixed-steps", "") else (str(asked.result.get("ending_text", ending)),)
    counts = [f"{counted(Interval(v, noise=finite(asked.result.get(f'{k}_noise_se'))))} {word}"
              for k, word in (("n", "patients"), ("events", "events"))
              if (v := finite(asked.result.get(k))) is not None]  # fmt: skip
    noised = " Intervals and p hold the noise and chance." if ending == "fixed-steps" else ""
    figure = _forest(asked, found)
    return Answer(
        asked.heading,
        (figure,) if figure else (),
        warnings=warnings,
        note=f"{', '.join(counts)}.{noised}" if counts else "",
    )


def column_label(names: Names, column: str) -> str:
    """`grade=high` as `Grade: high against mid`; a number with its unit."""
    variable, _, level = column.partition("=")
    if level:
        return (
            f"{names.variable(variable)}: {level} against {names.study.references.get(variable) or 'the reference'}"
        )
    unit = names.unit(variable)
    return f"{names.variable(variable)}, one more ({unit})" if unit else names.variable(variable)


def _forest(asked: Asked, found: Sequence[tuple[str, Interval, float | None]]) -> Figure | None:
    told = [(label, r, p) for label, r, p in found if r.value is not None and r.value > 0]
    if not told:
        return None
    event = asked.names.variable(str(asked.result.get("event"))) or "the event"
    title, identity = f"What moves the hazard of “{event}”", f"{asked.identity}-hazards"
    sure = [
        (label, r) for label, r, _ in told if r.low is not None and r.high is not None and (r.low > 1 or r.high < 1)
    ]
    takeaway = f"{len(sure)} of {len(told)} intervals leave out 1 (no difference)" + (
        f": {sure[0][0]}, hazard ratio {bounded(sure[0][1], decimal)}." if len(sure) == 1 else "."
    )
    rows = [ForestRow(label, (Ratio(r.value or 1.0, r.low, r.high),)) for label, r, _ in told]
    desc = described(takeaway, "Hazard ratios with 95% intervals.")
    svg = forest(identity, title, desc, rows, ["hazard ratio, with 95% interval"], "Hazard ratio")
    cells = tuple((label, decimal(r.value, 3), ends(r, lambda v: decimal(v, 3)), p_value(p)) for label, r, p in found)
    table = Table("Hazard ratios", ("Term", "Hazard ratio", "95% interval", "p"), cells)
    return Figure(identity, title, takeaway, svg, table)


# --- how well a score tells -------------------------------------------------------------------


def concordant(asked: Asked) -> Answer:
    """Harrell's concordance, as a table of one row."""
    found, event = at(asked.result, "concordance"), asked.names.variable(str(asked.result.get("event")))
    score = str(asked.result.get("score"))
    pairs = Interval(
        finite(asked.result.get("usable_pairs")), noise=finite(asked.result.get("usable_pairs_noise_se"))
    )
    head = (
        "Score",
        "Patients",
        "Events",
        "Concordance (95%)",
        "Noise (SE)",
        "Pairs that tell",
        "Grids may move it by",
    )
    row = (
        asked.names.variable(score),
        *(counted(at(asked.result, k)) for k in ("n", "events")),
        bounded(found, lambda v: decimal(v, 3)),
        decimal(found.noise, 4) if found.noise else "none",
        counted(pairs),
        decimal(finite(asked.result.get("grid_bound")), 3),
    )
    note = f"{asked.note} 0.5: a coin tells as well. 1: whoever has the higher score has the event first."
    return Answer(asked.heading, (), (Table(f"Who has “{event}” first", head, (row,)),), note=note.strip())
