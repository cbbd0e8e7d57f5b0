"""Figures and tables of the report: each chart with its takeaway and the table that says the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from flute.report import texts
from flute.report.charts.curves import (
    Curve,
    Dot,
    DotPanel,
    LevelBar,
    curves_chart,
    dot_panels,
    letter,
    level_bars,
    percent_axis,
    value_axis,
)
from flute.report.charts.forest import ForestRow, Ratio, forest
from flute.report.charts.svg import STYLES
from flute.report.numbers import UNKNOWN, count, decimal, percent, probability, span, with_span
from flute.report.reading import Evaluation, Fitted, Group, Interval, Level, Scored, Term

MAX_FOREST_SERIES: Final = 4
_MARKED_MODELS: Final = 3


@dataclass(frozen=True, slots=True)
class Table:
    """`words`: indices of the columns that are text; the others are figures."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Figure:
    """`id` is unique in the page. `svg` None: only the table is shown, and `note` says why."""

    id: str
    title: str
    takeaway: str
    svg: Markup | None
    table: Table
    note: str = ""


def described(takeaway: str, kind: str) -> str:
    """What a screen reader says of a chart."""
    return f"{kind} {takeaway} The table after the figure has the same numbers.".replace("  ", " ")


# --- comparison of models ---------------------------------------------------------------------


def auc_table(evaluation: Evaluation) -> Table:
    rows = tuple(
        (
            f"{letter(i)}  {m.label}",
            "all hubs together" if m.pooled else "one hub alone",
            probability(m.auc.value),
            span(m.auc.low, m.auc.high, probability),
            decimal(m.auc.noise, 4) if m.auc.noise else "none",
            probability(m.brier.value),
            counted(m.n),
        )
        for i, m in enumerate(evaluation.models)
    )
    head = ("Model", "Fitted by", "AUC", "95% interval", "Noise (SE)", "Brier score", "Patients")
    return Table("Models fitted by all hubs together, then by one hub; best AUC first", head, rows, (0, 1))


def counted(n: Interval) -> str:
    """A released count, with the deviation of its noise where there is one."""
    if n.value is None:
        return UNKNOWN
    return f"{count(n.value)} ± {decimal(n.noise, 0 if n.noise >= 10 else 1)}" if n.noise else count(n.value)


def evaluation_figures(evaluation: Evaluation, identity: str) -> list[Figure]:
    figures = [
        _roc(evaluation, f"{identity}-roc"),
        _calibration(evaluation, f"{identity}-calibration"),
        _benefit(evaluation, f"{identity}-benefit"),
        _levels(evaluation, f"{identity}-levels"),
    ]
    return [figure for figure in figures if figure is not None]


def _too_many(models: Sequence[Scored]) -> str:
    if len(models) <= STYLES:
        return ""
    return f"The chart shows the {STYLES} models with the best AUC; the table has all {len(models)}."


def _roc(evaluation: Evaluation, identity: str) -> Figure | None:
    models = [m for m in evaluation.models if m.roc]
    if not models:
        return None
    takeaway, title = texts.roc_takeaway(evaluation), "How well the models tell patients apart (ROC)"
    curves = [Curve(m.label, f"AUC {_auc_note(m)}", m.roc) for m in models]
    chance = Curve("Coin toss", "AUC 0.500", ((0, 0), (1, 1)))
    x = percent_axis("False alarms: patients without the outcome above the threshold")
    y = percent_axis("Found: patients with the outcome above the threshold")
    svg = curves_chart(identity, title, described(takeaway, "ROC curves."), curves, x, y, guides=[chance])
    marks = (0.1, 0.2, 0.3, 0.4, 0.5)
    rows = tuple((m.label, *(percent(_found_at(m.roc, mark)) for mark in marks)) for m in models)
    head = ("Model", *(f"at {percent(mark)} false alarms" for mark in marks))
    table = Table("Found at a given share of false alarms", head, rows)
    return Figure(identity, title, takeaway, svg, table, _too_many(models))


def _auc_note(m: Scored) -> str:
    return with_span(m.auc.value, m.auc.low, m.auc.high, probability).replace(" to ", "–")


def _found_at(roc: Sequence[tuple[float, float]], false_alarms: float) -> float:
    """Sensitivity at a given share of false alarms, interpolated along the curve."""
    for (x1, y1), (x2, y2) in pairwise(roc):
        if x1 <= false_alarms <= x2:
            return y2 if x2 == x1 else y1 + (y2 - y1) * (false_alarms - x1) / (x2 - x1)
    return roc[-1][1]


def _calibration(evaluation: Evaluation, identity: str) -> Figure | None:
    models = [m for m in evaluation.models if m.groups]
    if not models:
        return None
    takeaway, title = texts.calibration_takeaway(models), "Do predicted risks come true? (calibration)"
    panels = [DotPanel(m.label, tuple(map(_dot, m.groups))) for m in models]
    desc = described(takeaway, "Observed against predicted risk, one panel per model, patients in tenths.")
    svg = dot_panels(identity, title, desc, panels, "predicted risk", "observed")
    rows = tuple(
        (m.label, count(g.n), percent(g.predicted, 1), percent(g.observed.value, 1), _percents(g.observed))
        for m in models
        for g in m.groups
    )
    head = ("Model", "Patients in the group", "Predicted", "Observed", "95% interval")
    note = "Dots on the dotted line: predictions come true. Bars are 95% intervals, noise included."
    table = Table("Calibration by tenths of predicted risk", head, rows)
    return Figure(identity, title, takeaway, svg, table, f"{note} {_too_many(models)}".strip())


def _dot(group: Group) -> Dot:
    return Dot(group.predicted, group.observed.value or 0.0, group.observed.low, group.observed.high)


def _percents(found: Interval) -> str:
    return span(found.low, found.high, lambda v: percent(v, 1))


def _benefit(evaluation: Evaluation, identity: str) -> Figure | None:
    models = [m for m in evaluation.models if m.benefits]
    if not models:
        return None
    takeaway, title = texts.benefit_takeaway(models), "Would acting on the model help? (net benefit)"
    curves = [
        Curve(m.label, "", tuple((b.threshold, b.model) for b in m.benefits if b.model is not None)) for m in models
    ]
    everyone = tuple((b.threshold, b.treat_all) for b in models[0].benefits if b.treat_all is not None)
    thresholds = [b.threshold for b in models[0].benefits]
    x = percent_axis(
        "Risk from which one would act", min(thresholds), max(thresholds) + 1e-9, tuple(thresholds[1::2])
    )
    reach = [v for curve in curves[:STYLES] for _, v in curve.points] + [v for _, v in everyone] + [0.0]
    y = value_axis(reach, "Net benefit: found, minus false alarms at their cost, per patient", floor=-0.1)
    nobody = tuple((t, 0.0) for t in thresholds)
    guides = [Curve("Act on everyone", "", everyone), Curve("Act on no one", "net benefit 0", nobody)]
    svg = curves_chart(
        identity, title, described(takeaway, "Net benefit over thresholds."), curves, x, y, guides=guides
    )
    return Figure(identity, title, takeaway, svg, _benefit_table(models), _too_many(models))


def _benefit_table(models: Sequence[Scored]) -> Table:
    head = ("Act from a risk of", "Everyone", *(m.label for m in models))
    by = [{b.threshold: b.model for b in m.benefits} for m in models]
    rows = tuple(
        (percent(b.threshold), decimal(b.treat_all, 3), *(decimal(found.get(b.threshold), 3) for found in by))
        for b in models[0].benefits
    )
    return Table("Net benefit per patient; acting on no one is 0", head, rows)


def _levels(evaluation: Evaluation, identity: str) -> Figure | None:
    levels = [level for level in evaluation.levels if level.observed.value is not None]
    if not levels:
        return None
    variable = evaluation.names.variable(evaluation.by)
    title = f"Risk by {variable}"
    takeaway = texts.level_takeaway(levels, variable)
    indexed = [(i, m) for i, m in enumerate(evaluation.models) if m.pooled and i < STYLES][:_MARKED_MODELS]
    bars = [_level_bar(level, indexed) for level in levels]
    key = ("observed, with 95% interval", [(i, f"predicted: {m.label}") for i, m in indexed])
    svg = level_bars(identity, title, described(takeaway, "Bars of observed risk."), bars, variable, "Risk", key)
    return Figure(identity, title, takeaway, svg, _level_table(evaluation, variable))


def _level_bar(level: Level, marked: Sequence[tuple[int, Scored]]) -> LevelBar:
    marks = tuple((i, level.predicted[m.reference]) for i, m in marked if m.reference in level.predicted)
    observed = level.observed
    return LevelBar(level.level, f"n {counted(level.n)}", observed.value or 0.0, observed.low, observed.high, marks)


def _level_table(evaluation: Evaluation, variable: str) -> Table:
    head = (variable, "Patients", "Observed", "95% interval", *(f"Predicted: {m.label}" for m in evaluation.models))
    rows = tuple(
        (
            level.level,
            counted(level.n),
            percent(level.observed.value, 1),
            _percents(level.observed),
            *(percent(level.predicted.get(m.reference), 1) for m in evaluation.models),
        )
        for level in evaluation.levels
    )
    return Table("Observed and predicted risk by level", head, rows)


# --- coefficients -----------------------------------------------------------------------------


def series_name(fit: Fitted, group: Sequence[Fitted]) -> str:
    """What tells a fit from the others beside it: mode, hub, or the study where that is all."""
    hub = fit.reference.partition("@")[2]
    parts = [fit.names.hub(hub)] if hub else []
    if len({f.mode for f in group}) > 1 or not hub:
        parts.append("exact" if fit.mode == "exact" else "private (noised)")
    if sum((f.reference, f.mode) == (fit.reference, fit.mode) for f in group) > 1:
        parts.append(fit.names.study.id)
    if not fit.sound:
        parts.append("do not use")
    return ", ".join(parts)


def coefficient_figure(group: Sequence[Fitted], identity: str) -> Figure | None:
    if not any(fit.terms for fit in group):
        return None
    columns = {t.column: t.label for fit in reversed(group) for t in fit.terms}
    order = [t.column for t in max(group, key=lambda f: len(f.terms)).terms]
    series = [series_name(fit, group) for fit in group]
    found = [{t.column: t for t in fit.terms} for fit in group]
    takeaway = texts.coefficient_takeaway(group)
    outcome = group[0].names.variable(group[0].outcome) or "the outcome"
    title = f"“{group[0].names.model(group[0].question)}”: what moves the odds of “{outcome}”"
    rows = [ForestRow(columns[c], tuple(_ratio(f.get(c)) for f in found)) for c in order]
    svg, note = None, f"A chart shows at most {MAX_FOREST_SERIES} fits side by side; here are {len(group)}."
    if len(group) <= MAX_FOREST_SERIES:
        svg = forest(identity, title, described(takeaway, "Odds ratios with intervals."), rows, series)
        note = _interval_note(group)
    head = ("Term", *(f"{name}: {what}" for name in series for what in ("odds ratio", "95% interval")))
    table = Table("Odds ratios", head, tuple((columns[c], *(_cells(f.get(c) for f in found))) for c in order))
    return Figure(identity, title, takeaway, svg, table, note)


def _ratio(term: Term | None) -> Ratio | None:
    if term is None or term.odds.value is None or term.odds.value <= 0:
        return None
    return Ratio(term.odds.value, term.odds.low, term.odds.high)


def _cells(terms: Iterable[Term | None]) -> list[str]:
    cells: list[str] = []
    for term in terms:
        odds = term.odds if term is not None else Interval()
        cells += [decimal(odds.value), span(odds.low, odds.high, decimal)]
    return cells


def _interval_note(group: Sequence[Fitted]) -> str:
    noise = any(t.noise_only for fit in group for t in fit.terms)
    sampling = any(not t.noise_only and t.odds.low is not None for fit in group for t in fit.terms)
    said = []
    if sampling:
        said.append("Bars of exact fits are 95% intervals for chance in who was a patient.")
    if noise:
        said.append("Bars of private fits show the noise alone (95%); chance in who was a patient comes on top.")
    return " ".join(said)
