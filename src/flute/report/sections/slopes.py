"""Linear models that have no odds ratios: of numbers, counts and amounts; and how a penalty was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from flute.report.charts.forest import ForestRow, Ratio, forest
from flute.report.charts.intervals import IntervalPanel, IntervalRow, Reading, interval_panels
from flute.report.numbers import decimal, finite, p_value, plural, short
from flute.report.reading import Z_95, Interval, mapping, odds_model, sequence, texts
from flute.report.sections.figures import Figure, Table, described
from flute.report.sections.shown import Answer, Asked, axis_around, bounded, ends, with_unit
from flute.report.sections.survivals import column_label

_SOUND: Final = ("", "converged", "fixed-steps", "median", "noised")
_MAX_ROWS: Final = 40
"""Coefficients drawn; more stand in the table alone."""


def sloped(asked: Asked) -> Answer:
    """Coefficients (ratios where the link is a logarithm), and the path of penalties where there is one."""
    figure = None if odds_model(asked.result) else _figure(asked)
    ending = str(asked.result.get("ending", ""))
    text = str(asked.result.get("ending_text") or ending)
    tables = (*_path(asked), *_filled(asked), *_fit(asked))
    warnings = () if ending in _SOUND or odds_model(asked.result) else (text,)
    return Answer(asked.heading, (figure,) if figure else (), tables, warnings, asked.note if figure else "")


def _terms(asked: Asked) -> list[tuple[str, Interval, float | None]]:
    """Label, coefficient with its interval, p of every column but the intercept."""
    result = asked.result
    raw = [finite(v) for v in sequence(result.get("raw_coefficients") or result.get("coefficients"))]
    noises, chances = sequence(result.get("noise_standard_errors")), sequence(result.get("p"))
    absent, found = texts(result.get("not_estimated")), []
    for i, column in enumerate(texts(result.get("columns"))[: len(raw)]):
        value = raw[i]
        if column == "intercept" or column in absent or value is None:
            continue
        low, high = _ends(result, i, value)
        noise = finite(noises[i]) if i < len(noises) else None
        p = finite(chances[i]) if i < len(chances) else None
        found.append((column_label(asked.names, column), Interval(value, low, high, noise), p))
    return found


def _ends(result: Mapping[str, Any], i: int, value: float) -> tuple[float | None, float | None]:
    """As released where the coefficient is shown in its own scale; else by the standard error in the shown one."""
    coefficient, low, high, error = (
        finite(values[i]) if i < len(values := sequence(result.get(key))) else None
        for key in ("coefficients", "low", "high", "raw_standard_errors")
    )
    if coefficient == value and low is not None and high is not None:
        return low, high
    return (None, None) if error is None else (value - Z_95 * error, value + Z_95 * error)


def _figure(asked: Asked) -> Figure | None:
    terms = _terms(asked)
    if not terms:
        return None
    ratios = asked.result.get("link") == "log" or asked.result.get("family") in ("poisson", "gamma")
    outcome = asked.names.variable(str(asked.result.get("outcome"))) or "the outcome"
    title = f"What moves “{outcome}”"
    if ratios:
        terms = [(label, _exp(found), p) for label, found, p in terms]
    sure = sum(_leaves_out(found, 1.0 if ratios else 0.0) for _, found, _ in terms)
    none = f"{'1' if ratios else '0'} (no difference)"
    takeaway = f"{sure} of {len(terms)} intervals leave out {none}."
    if all(found.low is None for _, found, _ in terms):
        takeaway = "This fit has no intervals: read its size, not its certainty."
    svg = (_ratios if ratios else _differences)(asked, title, takeaway, terms) if len(terms) <= _MAX_ROWS else None
    head = ("Term", "Ratio" if ratios else "Coefficient", "95% interval", "Noise (SE)", "p")
    cells = tuple(
        (
            label,
            short(f.value, 4),
            ends(f, lambda v: short(v, 4)),
            short(f.noise, 2) if f.noise else "none",
            p_value(p),
        )
        for label, f, p in terms
    )
    unit = asked.names.unit(str(asked.result.get("outcome")))
    return Figure(
        f"{asked.identity}-slopes",
        title,
        takeaway,
        svg,
        Table(with_unit(title, unit if not ratios else ""), head, cells),
    )


def _leaves_out(found: Interval, none: float) -> bool:
    return found.low is not None and found.high is not None and not found.low <= none <= found.high


def _exp(found: Interval) -> Interval:
    """A ratio for a difference of logarithms; its noise has no one deviation."""
    return Interval(*(None if v is None else math.exp(min(v, 700.0)) for v in (found.value, found.low, found.high)))


def _ratios(asked: Asked, title: str, takeaway: str, terms: list[tuple[str, Interval, float | None]]) -> Any:
    rows = [ForestRow(label, (Ratio(f.value or 1e-300, f.low, f.high),)) for label, f, _ in terms]
    desc = described(takeaway, "Ratios with 95% intervals.")
    return forest(f"{asked.identity}-slopes", title, desc, rows, ["ratio, with 95% interval"], "Ratio")


def _differences(asked: Asked, title: str, takeaway: str, terms: list[tuple[str, Interval, float | None]]) -> Any:
    unit = asked.names.unit(str(asked.result.get("outcome")))
    rows = tuple(IntervalRow(label, (Reading(f.value, f.low, f.high, bounded(f)),)) for label, f, _ in terms)
    reach = [0.0, *(v for _, f, _ in terms for v in (f.value, f.low, f.high) if v is not None)]
    panel = IntervalPanel(axis_around(reach, with_unit("coefficient (0 = no difference)", unit)), rows, 0.0)
    desc = described(takeaway, "Coefficients with 95% intervals.")
    return interval_panels(f"{asked.identity}-slopes", title, desc, [panel], ("coefficient",))


# --- tables beside the coefficients -----------------------------------------------------------


def _path(asked: Asked) -> tuple[Table, ...]:
    path = [mapping(p) for p in sequence(asked.result.get("path"))]
    if not path:
        return ()
    chosen, by = finite(asked.result.get("strength")), str(asked.result.get("chosen_by", "")).upper()
    rows = tuple(
        (
            f"{short(strength)}{' (chosen)' if strength == chosen else ''}",
            *(short(finite(p.get(k)), 5) for k in ("columns_kept", "degrees_of_freedom", "deviance", "aic", "bic")),
        )
        for p in path
        if (strength := finite(p.get("strength"))) is not None
    )
    head = ("Strength", "Columns kept", "Degrees of freedom", "Deviance", "AIC", "BIC")
    return (Table(f"Strengths of the penalty{f', the best by {by}' if by and len(path) > 1 else ''}", head, rows),)


def _filled(asked: Asked) -> tuple[Table, ...]:
    filled = mapping(asked.result.get("imputed"))
    if not filled:
        return ()
    times, sweeps = (finite(asked.result.get(k)) for k in ("imputations", "sweeps"))
    missing = [finite(v) for v in sequence(asked.result.get("missing_information"))]
    rows = [(asked.names.variable(name), short(finite(n)), "") for name, n in filled.items()]
    columns = texts(asked.result.get("columns"))
    rows += [
        (f"coefficient of {column_label(asked.names, column)}", "", decimal(missing[i], 3))
        for i, column in enumerate(columns)
        if i < len(missing) and column != "intercept"
    ]
    title = f"Missing values, filled in {plural(times, 'time', 'times')} over {plural(sweeps, 'sweep', 'sweeps')}"
    head = ("Variable or coefficient", "Values filled in", "Information lost by them")
    return (Table(title, head, tuple(rows)),)


_QUALITY: Final = (
    ("n", "patients"), ("r_squared", "R squared"), ("dispersion", "dispersion"), ("deviance", "deviance"),
    ("null_deviance", "deviance without predictors"), ("aic", "AIC"), ("log_likelihood", "log likelihood"),
)  # fmt: skip


def _fit(asked: Asked) -> tuple[Table, ...]:
    if odds_model(asked.result):
        return ()
    result: Mapping[str, Any] = asked.result
    rows = tuple((name, short(v, 5)) for key, name in _QUALITY if (v := finite(result.get(key))) is not None)
    return (Table(f"The fit ({result.get('family', '')})", ("Figure", "Value"), rows),) if rows else ()
