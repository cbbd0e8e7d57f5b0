"""Groups of patients side by side: a number compared, two categories counted, the first table of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from flute.report.charts.bars import cohort_panels
from flute.report.charts.grid import MAX_COLUMNS, Cell, grid_chart
from flute.report.charts.intervals import IntervalPanel, IntervalRow, Reading, interval_panels
from flute.report.cohorts import Described, panel_of
from flute.report.numbers import UNKNOWN, count, decimal, finite, p_value, percent, plural, short
from flute.report.reading import Interval, Names, interval, mapping, sequence, texts
from flute.report.sections.figures import Figure, Table, counted, described
from flute.report.sections.shown import (
    TEST_HEAD,
    Answer,
    Asked,
    at,
    axis_around,
    bounded,
    ends,
    noise_of,
    noted,
    row_of_test,
    with_unit,
)
from flute.report.texts import level_said

_MAX_GROUPS: Final = 12
"""Groups drawn one beside the other."""
_KAPPA: Final = {
    "unweighted": "Cohen's kappa",
    "linear": "kappa, linear weights",
    "quadratic": "kappa, squared weights",
}


# --- a number, compared -----------------------------------------------------------------------


def compared(asked: Asked) -> Answer:
    """Means with intervals, distributions, tests."""
    groups, tests = mapping(asked.result.get("groups")), mapping(asked.result.get("tests"))
    figures = [_means(asked, groups, tests), _distributions(asked, groups)]
    rows = tuple(_tests(tests))
    tables = (Table("Do the groups differ?", TEST_HEAD, rows, (0,)),) if rows else ()
    left_out = interval(asked.result.get("left_out"))
    left = f"{counted(left_out)} patients lack the number or the group and are left out." if left_out.value else ""
    return Answer(
        asked.heading, tuple(f for f in figures if f is not None), tables, note=f"{left} {asked.note}".strip()
    )


def _names(asked: Asked, outcome: str) -> tuple[str, str, str]:
    """Of the outcome, its unit, and what groups it."""
    name, by = str(asked.result.get(outcome, "")), str(asked.result.get("by", ""))
    return asked.names.variable(name), asked.names.unit(name), asked.names.variable(by)


def _means(asked: Asked, groups: Mapping[str, Any], tests: Mapping[str, Any]) -> Figure | None:
    label, unit, by = _names(asked, "outcome")
    found = [(level_said(g, list(groups)), mapping(v)) for g, v in groups.items()]
    rows = tuple(_mean_row(name, group, unit) for name, group in found[:_MAX_GROUPS])
    reach = [e for row in rows for r in row.readings for e in (r.value, r.low, r.high) if e is not None]
    if not reach:
        return None
    title, identity = f"{label} by {by}: means", f"{asked.identity}-means"
    takeaway = _mean_takeaway(label, unit, [(name, at(g, "mean")) for name, g in found], tests)
    panel = IntervalPanel(axis_around(reach, with_unit(f"mean {label}", unit)), rows)
    svg = interval_panels(identity, title, described(takeaway, "Means with 95% intervals."), [panel], ("mean",))
    return Figure(identity, title, takeaway, svg, _mean_table(f"{label} by {by}", found))


def _mean_row(name: str, group: Mapping[str, Any], unit: str) -> IntervalRow:
    mean = at(group, "mean")
    reading = Reading(mean.value, mean.low, mean.high, f"{bounded(mean)} {unit}".strip())
    return IntervalRow(name, (reading,), says=f"n {counted(at(group, 'n'))}")


def _mean_takeaway(label: str, unit: str, means: Sequence[tuple[str, Interval]], tests: Mapping[str, Any]) -> str:
    told = [(m.value, name) for name, m in means if m.value is not None]
    if not told:
        return ""
    low, high = min(told), max(told)
    said = f"Mean {label}: from {short(low[0])} ({low[1]}) to {f'{short(high[0])} {unit}'.strip()} ({high[1]})."
    test = next((t for k in ("welch", "analysis_of_variance") if (t := mapping(tests.get(k)))), {})
    p = finite(test.get("p"))
    return said if p is None else f"{said} By {_article(test)}: p\N{NO-BREAK SPACE}{p_value(p)}."


def _article(test: Mapping[str, Any]) -> str:
    name = str(test.get("test"))
    return name if name[:1].islower() else f"{name}'s test"


def _mean_table(caption: str, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    head = ("Group", "Patients", "Mean", "95% interval", "Noise of the mean (SE)", "SD", "25%", "Median", "75%")
    rows = tuple(
        (
            name,
            counted(at(group, "n")),
            short(at(group, "mean").value),
            ends(at(group, "mean")),
            noise_of(at(group, "mean")),
            noted(at(group, "sd")),
            *(noted(at(group, "quantiles", q)) for q in ("25", "50", "75")),
        )
        for name, group in found
    )
    return Table(caption, head, rows)


def _distributions(asked: Asked, groups: Mapping[str, Any]) -> Figure | None:
    label, unit, by = _names(asked, "outcome")
    panels = [panel_of(level_said(g, list(groups)), mapping(v)) for g, v in groups.items()]
    drawn = tuple(p for p in panels if p.bars)[:_MAX_GROUPS]
    if not drawn:
        return None
    medians = [(m.value, p.hub) for p in drawn if (m := p.quantiles.get("50")) and m.value is not None]
    takeaway = "Medians: " + ", ".join(f"{short(v)} ({name})" for v, name in medians) + "." if medians else ""
    title, identity = f"{with_unit(label, unit)} by {by}: distributions", f"{asked.identity}-histograms"
    what = described(takeaway, "Histograms, one per group.")
    svg = cohort_panels(identity, title, what, Described("", label, unit, True, drawn))
    rows = tuple(
        (p.hub, f"{short(bar.low)} to {short(bar.high)}", count(bar.count), percent(bar.share, 1))
        for p in drawn
        for bar in p.bars
    )
    table = Table("Patients per part of the range", ("Group", "From, to", "Patients", "Share"), rows, (0, 1))
    return Figure(identity, title, takeaway, svg, table)


def _tests(tests: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, raw in tests.items():
        test = mapping(raw)
        if "test" in test:
            effects = (("difference", "difference"), ("rank_biserial", "rank-biserial"))
            said = [f"{word} {bounded(at(test, key))}" for key, word in effects if mapping(test.get(key))]
            yield row_of_test(test, "; ".join(said))
        elif finite(test.get("value")) is not None:
            label = "Cohen's d" if name == "cohens_d" else name.replace("_", " ")
            yield label, UNKNOWN, UNKNOWN, UNKNOWN, bounded(interval(test))


# --- two categories, counted ------------------------------------------------------------------


def crossed(asked: Asked) -> Answer:
    """Counts of two categories with shares of each row, whether they go together, and agreement where asked."""
    rows, columns = texts(asked.result.get("rows")), texts(asked.result.get("columns"))
    counts = [[finite(v) for v in sequence(row)] for row in sequence(asked.result.get("counts"))]
    label, _, by = _names(asked, "outcome")
    measures = tuple(_measures(asked.result))
    head = ("Measure", "Value", "95% interval", "Noise (SE)", "p")
    tables = (Table(f"{by} and {label}", head, measures, (0,)),) if measures else ()
    if len(counts) != len(rows) or any(len(row) != len(columns) for row in counts) or not rows:
        return Answer(asked.heading, tables=tables)
    names = ([level_said(r, rows) for r in rows], [level_said(c, columns) for c in columns])
    return Answer(asked.heading, (_counts(asked, label, by, names, counts),), tables, note=asked.note)


def _counts(
    asked: Asked, label: str, by: str, names: tuple[list[str], list[str]], counts: Sequence[Sequence[float | None]]
) -> Figure:
    noise = finite(asked.result.get("counts_noise_se"))
    totals = [sum(max(v or 0.0, 0.0) for v in row) for row in counts]
    shares = [
        [max(v or 0.0, 0.0) / total if total > 0 else 0.0 for v in row]
        for row, total in zip(counts, totals, strict=True)
    ]
    said = [[counted(Interval(v, noise=noise)) for v in row] for row in counts]
    cells = [
        [Cell(percent(share, 1), share, text) for share, text in zip(*pair, strict=True)]
        for pair in zip(shares, said, strict=True)
    ]
    title, identity = f"{label} by {by}", f"{asked.identity}-grid"
    takeaway = _cross_takeaway(asked.result, label, by, names, shares)
    desc = described(takeaway, "A grid of counts, shaded by their share of the row.")
    drawn = len(names[1]) <= MAX_COLUMNS
    svg = grid_chart(identity, title, desc, (f"{by} ↓", f"{label} →"), names, cells) if drawn else None
    table = Table(
        f"{title}: patients (share of the row)",
        (by, *names[1]),
        tuple(
            (name, *(f"{t} ({percent(s, 1)})" for t, s in zip(texts_, row, strict=True)))
            for name, texts_, row in zip(names[0], said, shares, strict=True)
        ),
    )
    return Figure(identity, title, takeaway, svg, table, "Shares are of the row." if drawn else "Too many to draw.")


def _cross_takeaway(
    result: Mapping[str, Any],
    label: str,
    by: str,
    names: tuple[list[str], list[str]],
    shares: Sequence[Sequence[float]],
) -> str:
    kappa = at(result, "kappa", "unweighted")
    if kappa.value is not None:
        return f"{by} and {label} agree with Cohen's kappa {bounded(kappa, lambda v: decimal(v, 3))} (1 is perfect)."
    last = [row[-1] for row in shares]
    low, high = last.index(min(last)), last.index(max(last))
    said = (
        f"{label} {names[1][-1]}: {percent(last[low], 1)} where {by} is {names[0][low]}, {percent(last[high], 1)} "
        f"where it is {names[0][high]}."
    )
    p = finite(mapping(result.get("independence")).get("p"))
    return said if p is None else f"{said} Chi-squared: p\N{NO-BREAK SPACE}{p_value(p)}."


def _measures(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    test = mapping(result.get("independence"))
    if finite(test.get("statistic")) is not None:
        degrees = finite(test.get("degrees_of_freedom"))
        name = f"chi-squared on {plural(degrees, 'degree', 'degrees')} of freedom"
        yield name, short(finite(test.get("statistic")), 4), UNKNOWN, UNKNOWN, p_value(finite(test.get("p")))
    fisher, cramer = finite(result.get("fisher_p")), finite(result.get("cramers_v"))
    if fisher is not None:
        yield "Fisher's exact test", UNKNOWN, UNKNOWN, UNKNOWN, p_value(fisher)
    if cramer is not None:
        yield "Cramér's V", decimal(cramer, 3), UNKNOWN, UNKNOWN, UNKNOWN
    for key, name in (("odds_ratio", "odds ratio"), ("risk_difference", "difference of risks")):
        if (found := at(result, key)).value is not None:
            log = finite(mapping(result.get(key)).get("log_noise_se"))
            noise = f"{short(log, 2)} (logarithm)" if log else noise_of(found)
            yield name, decimal(found.value, 3), ends(found, lambda v: decimal(v, 3)), noise, UNKNOWN
    for key, raw in mapping(result.get("kappa")).items():
        found, p = interval(raw), finite(mapping(raw).get("p"))
        digits = (decimal(found.value, 3), ends(found, lambda v: decimal(v, 3)))
        yield _KAPPA.get(key, key), *digits, noise_of(found), p_value(p)


# --- the first table of a paper ---------------------------------------------------------------


def first_table(asked: Asked) -> Answer:
    """One column per group, rows per variable and level."""
    groups = texts(asked.result.get("groups"))
    by = str(asked.result.get("by") or "")
    rows: list[tuple[str, ...]] = []
    for name, raw in mapping(asked.result.get("table")).items():
        rows += _variable_rows(asked.names, name, mapping(raw), groups)
    heads = [f"{asked.names.variable(by)}: {level_said(g, groups)}" if by else "All" for g in groups]
    compared_too = ("p", "Standardised difference") if by else ()
    noise = ", ± the noise's standard error" if asked.names.study.mode == "private" else ""
    caption = f"Numbers: mean (SD) and median (middle half); levels: patients (share){noise}"
    cut = tuple(row if by else row[: 1 + len(groups)] for row in rows)
    return Answer(asked.heading, tables=(Table(caption, ("Variable", *heads, *compared_too), cut),))


def _variable_rows(
    names: Names, name: str, found: Mapping[str, Any], groups: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """The variable with its comparison, then what is told of it."""
    each = [mapping(mapping(found.get("groups")).get(g)) for g in groups]
    compare = (p_value(finite(found.get("p"))), decimal(finite(found.get("standardised_difference")), 3))
    title = with_unit(names.variable(name), names.unit(name))
    yield title, *(f"n {counted(at(g, 'n'))}" for g in each), *compare
    if found.get("kind") == "number":
        yield "— mean (SD)", *(f"{noted(at(g, 'mean'))} ({noted(at(g, 'sd'))})" for g in each), "", ""
        yield "— median (middle half)", *map(_quartiles, each), "", ""
    levels = list(dict.fromkeys(level for g in each for level in mapping(g.get("levels"))))
    for level in levels:
        yield f"— {level_said(level, levels)}", *(_level(mapping(g.get("levels")).get(level)) for g in each), "", ""
    yield "— missing", *(counted(at(g, "missing")) for g in each), "", ""


def _quartiles(group: Mapping[str, Any]) -> str:
    low, middle, high = (short(at(group, "quartiles", q).value) for q in ("25", "50", "75"))
    return f"{middle} ({low} to {high})"


def _level(raw: object) -> str:
    found = mapping(raw)
    patients = Interval(finite(found.get("count")), noise=finite(found.get("noise_se")))
    return f"{counted(patients)} ({percent(finite(found.get('share')), 1)})"
