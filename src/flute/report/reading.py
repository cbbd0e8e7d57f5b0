"""From released results to what the report shows. Tolerant: an absent or strange part is None or left out.

Results are recognised by what they hold, not by what they are called, so that a result of a later version
that holds more is still read. No function here raises on account of a result's content.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flute.report.model import Report, StudyReport
from flute.report.numbers import finite, short, unit

Z_95: Final = 1.959963984540054


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def sequence(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def texts(value: object) -> list[str]:
    return [v for v in sequence(value) if isinstance(v, str)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure, its 95 % interval and the deviation that noise gives it; any of them may be unknown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    noise: float | None = None


def interval(value: object) -> Interval:
    found = mapping(value)
    return Interval(*(finite(found.get(k)) for k in ("value", "low", "high", "noise_se")))


@dataclass(frozen=True, slots=True)
class Names:
    """How one study's variables, models and hubs are called."""

    study: StudyReport
    hubs: Mapping[str, str]

    def variable(self, name: str) -> str:
        return self.study.labels.get(name) or name

    def unit(self, name: str) -> str:
        return unit(self.study.units.get(name, ""))

    def hub(self, hub: str) -> str:
        return self.hubs.get(hub) or hub

    def model(self, reference: str) -> str:
        question, _, hub = reference.partition("@")
        label = next((q.label for q in self.study.questions if q.id == question and q.label), question)
        return f"{label}, {self.hub(hub)} only" if hub else label


def names_of(report: Report, study: StudyReport) -> Names:
    return Names(study, {hub.hub: hub.label for hub in report.hubs if hub.label})


# --- evaluations ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """One tenth of the patients by predicted risk."""

    n: float | None
    predicted: float
    observed: Interval


@dataclass(frozen=True, slots=True)
class Benefit:
    threshold: float
    model: float | None
    treat_all: float | None
    noise: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """One model's scores."""

    reference: str
    label: str
    n: Interval
    events: Interval
    auc: Interval
    brier: Interval
    roc: tuple[tuple[float, float], ...]
    """(1 - specificity, sensitivity), from (0, 0) to (1, 1)."""
    groups: tuple[Group, ...]
    slope: Interval
    mean_predicted: Interval
    mean_observed: Interval
    benefits: tuple[Benefit, ...]

    @property
    def pooled(self) -> bool:
        """Made by all hubs together."""
        return "@" not in self.reference


@dataclass(frozen=True, slots=True)
class Level:
    level: str
    n: Interval
    observed: Interval
    predicted: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One `evaluate` result. `models`: those of all hubs first, each kind by AUC."""

    names: Names
    reference: str
    models: tuple[Scored, ...]
    by: str
    outcome: str
    levels: tuple[Level, ...]

    @property
    def study(self) -> StudyReport:
        return self.names.study


def evaluations(report: Report) -> list[Evaluation]:
    found = []
    for names, reference, result in results(report):
        own = mapping(result.get("scores"))  # of a model that stays hidden
        models = mapping(result.get("models")) or ({reference: own} if own else {})
        scored = [scored_of(names, ref, mapping(m)) for ref, m in models.items()]
        if scored:
            scored.sort(key=_rank)
            by = mapping(result.get("by"))
            levels = tuple(_level(mapping(level)) for level in sequence(by.get("levels")))
            variable, outcome = _text(by.get("variable")), _text(by.get("outcome"))
            found.append(Evaluation(names, reference, tuple(scored), variable, outcome, levels))
    return found


def _rank(model: Scored) -> tuple[bool, float, str]:
    """Joint models first: they are what a study is for. Then by AUC, models without one last."""
    return not model.pooled, -(model.auc.value if model.auc.value is not None else -1.0), model.reference


def results(report: Report) -> Iterator[tuple[Names, str, Mapping[str, Any]]]:
    for study in report.studies:
        for reference, result in study.results.items():
            yield names_of(report, study), reference, mapping(result)


def scored_of(names: Names, reference: str, found: Mapping[str, Any]) -> Scored:
    """Scores of one model, from an evaluation or a cross-validation."""
    calibration = mapping(found.get("calibration"))
    return Scored(
        reference=reference,
        label=names.model(reference),
        n=interval(found.get("n")),
        events=interval(found.get("events")),
        auc=interval(found.get("auc")),
        brier=interval(found.get("brier")),
        roc=_roc(found.get("roc")),
        groups=_groups(calibration.get("groups")),
        slope=interval(calibration.get("slope")),
        mean_predicted=interval(calibration.get("mean_predicted")),
        mean_observed=interval(calibration.get("mean_observed")),
        benefits=_benefits(found.get("net_benefit")),
    )


def _roc(value: object) -> tuple[tuple[float, float], ...]:
    points = set()
    for point in map(mapping, sequence(value)):
        sensitivity, specificity = finite(point.get("sensitivity")), finite(point.get("specificity"))
        if sensitivity is not None and specificity is not None:
            points.add((min(max(1 - specificity, 0.0), 1.0), min(max(sensitivity, 0.0), 1.0)))
    return tuple(sorted(points | {(0.0, 0.0), (1.0, 1.0)})) if points else ()


def _groups(value: object) -> tuple[Group, ...]:
    groups = []
    for group in map(mapping, sequence(value)):
        predicted, observed = finite(group.get("predicted")), interval(group.get("observed"))
        if predicted is not None and observed.value is not None:
            groups.append(Group(finite(group.get("n")), predicted, observed))
    return tuple(groups)


def _benefits(value: object) -> tuple[Benefit, ...]:
    benefits = []
    for point in map(mapping, sequence(value)):
        threshold = finite(point.get("threshold"))
        if threshold is not None:
            rest = (finite(point.get(k)) for k in ("model", "treat_all", "noise_se"))
            benefits.append(Benefit(threshold, *rest))
    return tuple(sorted(benefits, key=lambda b: b.threshold))


def _level(found: Mapping[str, Any]) -> Level:
    predicted = {ref: finite(mapping(p).get("value")) for ref, p in mapping(found.get("predicted")).items()}
    return Level(
        level=str(found.get("level", "")),
        n=interval(found.get("n")),
        observed=interval(found.get("observed")),
        predicted={ref: value for ref, value in predicted.items() if value is not None},
    )


# --- models -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One coefficient as an odds ratio for a step that readers know. `noise_only`: the interval shows noise,
    not chance in who was a patient."""

    column: str
    label: str
    odds: Interval
    noise_only: bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """One logistic regression."""

    names: Names
    reference: str
    outcome: str
    predictors: tuple[str, ...]
    n: float | None
    n_noise: float | None
    terms: tuple[Term, ...]
    ending: str
    ending_text: str
    spreads: Mapping[str, float]

    @property
    def mode(self) -> str:
        return self.names.study.mode

    @property
    def question(self) -> str:
        return self.reference.partition("@")[0]

    @property
    def sound(self) -> bool:
        return self.ending in ("", "converged", "fixed-steps", "median", "noised")


def fitted_groups(report: Report) -> list[list[Fitted]]:
    """Models of one question side by side, over all studies; number columns per the same step."""
    groups: dict[tuple[str, str], list[Fitted]] = {}
    for names, reference, result in results(report):
        if not odds_model(result):
            continue
        key = (reference.partition("@")[0], _text(result.get("outcome")))
        group = groups.setdefault(key, [])
        group.append(_fitted(names, reference, result, group[0].spreads if group else {}))
    return list(groups.values())


def odds_model(result: Mapping[str, Any]) -> bool:
    """Whether its coefficients are logarithms of odds ratios: a kernel machine's and other families' are not."""
    told = sequence(result.get("columns")) and sequence(_coefficients(result))
    return bool(told) and result.get("family", "binomial") == "binomial" and "kernel" not in result


def _coefficients(result: Mapping[str, Any]) -> Any:
    return result.get("raw_coefficients") or result.get("coefficients")


def _fitted(names: Names, reference: str, result: Mapping[str, Any], shared: Mapping[str, float]) -> Fitted:
    own = {
        k: s
        for k, v in mapping(result.get("standardisation")).items()
        if (s := finite(mapping(v).get("spread"))) is not None and s > 0
    }
    spreads = {**own, **shared}
    each = (_term(names, result, i, own, spreads) for i in range(1, len(sequence(result["columns"]))))
    terms = tuple(term for term in each if term is not None)
    return Fitted(
        names=names,
        reference=reference,
        outcome=_text(result.get("outcome")),
        predictors=tuple(names.variable(p) for p in texts(result.get("predictors"))),
        n=finite(result.get("n")),
        n_noise=finite(result.get("n_noise_se")),
        terms=terms,
        ending=_text(result.get("ending")),
        ending_text=_text(result.get("ending_text")),
        spreads=spreads,
    )


def _at(values: object, index: int) -> float | None:
    found = sequence(values)
    return finite(found[index]) if index < len(found) else None


def _term(
    names: Names, result: Mapping[str, Any], i: int, own: Mapping[str, float], spreads: Mapping[str, float]
) -> Term | None:
    """The odds ratio of column `i` for a step of `spreads` of its variable; None where there is no estimate."""
    said = sequence(result.get("terms"))
    term = mapping(said[i]) if i < len(said) else {}
    column = _text(sequence(result["columns"])[i])
    coefficient = _at(_coefficients(result), i)
    if coefficient is None or column in texts(result.get("not_estimated")):
        return None
    variable = _text(term.get("variable"))
    step = spreads.get(variable, 1.0) if term.get("kind") == "number" else 1.0
    error, noise_only = _at(result.get("raw_standard_errors"), i), False
    if error is None and (noise := _at(result.get("noise_standard_errors"), i)) is not None:
        error, noise_only = noise / (own.get(variable, 1.0) if term.get("kind") == "number" else 1.0), True
    middle, half = coefficient * step, None if error is None else Z_95 * error * step
    odds = Interval(
        _exp(middle), None if half is None else _exp(middle - half), None if half is None else _exp(middle + half)
    )
    return Term(column, _term_label(names, term, column, step), odds, noise_only)


def _exp(value: float) -> float | None:
    return math.exp(value) if abs(value) < 700 else None


def _term_label(names: Names, term: Mapping[str, Any], column: str, step: float) -> str:
    variable, kind = _text(term.get("variable")), term.get("kind")
    label = names.variable(variable) if variable else column
    if kind == "number" and term.get("transform") == "ln":
        return f"{label}, {short(_exp(step))} times as high"
    if kind == "number":
        return f"{label}, {short(step)} {names.unit(variable)} more".replace("  ", " ")
    if kind == "binary":
        return f"{label}: yes against no"
    if kind == "level":
        against = names.study.references.get(variable) or "the reference"
        return f"{label}: {_text(term.get('level'))} against {against}"
    return f"{label}: missing" if kind == "missing" else column
