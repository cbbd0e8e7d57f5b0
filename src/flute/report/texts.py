"""Sentences of the report that follow from the data: one takeaway per figure, and the summary at the top.

Written for people who know neither cryptography nor differential privacy. A sentence is left empty where the
figures that it would need are absent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final

from flute.report.cohorts import Described
from flute.report.model import Budget, HubReport, Report, StepTime, StudyReport, TrafficRow
from flute.report.numbers import (
    count,
    decimal,
    duration,
    listed,
    percent,
    plural,
    probability,
    short,
    size,
    span,
)
from flute.report.reading import Benefit, Evaluation, Fitted, Level, Scored, Term

UNAUDITED: Final = (
    "UNAUDITED: the protocol and this software have not been reviewed by anyone outside the project. Do not rely "
    "on them to protect real patients' records until they have been."
)
SIMULATED: Final = "every record behind this report is made up. Nothing here says anything about patients."
NO_BOUND: Final = (
    "Exact results were opened. Nothing limits mathematically what can be concluded about one patient from them; "
    "epsilon bounds only what the noised answers add."
)
ALGORITHMS: Final = {
    "describe": "counts, histograms and quantiles",
    "logistic-regression": "logistic regression",
    "random-forest": "a random forest",
    "svm": "a support vector machine",
    "gradient-boosting": "gradient boosting",
    "decision-tree": "a decision tree",
    "evaluate": "comparison of models",
    "cross-validate": "a model tried on patients that it has not seen",
    "choose-model": "the best of several models on patients that they have not seen",
    "robust-mean": "means that false records cannot drag",
    "correlation": "correlations and principal components",
    "cross-table": "counts of two categories, and whether they are independent",
    "compare": "a number compared between groups",
    "survival": "survival curves and the log-rank test",
    "cox": "Cox regression",
    "concordance": "how well a score tells who has the event first",
    "table-one": "a first table of the cohort",
    "joint-quantiles": "quantiles, computed on shares",
    "joint-test": "a test of difference, computed on shares",
    "log-rank": "the log-rank test, computed on shares",
    "robust-model": "a logistic regression that false hubs cannot drag",
    "glm": "a generalised linear model",
    "penalised-regression": "a regression held small by a penalty",
    "imputed-regression": "a regression over imputed values",
    "hidden-model": "a logistic regression that nobody sees",
    "own-step": "sums by a researcher's own code",
    "neural-network": "a neural network",
}
"""Algorithms in plain words; one that is not here is called by its own name."""
SAME_PATIENTS: Final = (
    "All models were scored on the same patients, those the joint models were fitted on too: expect slightly lower "
    "figures for new patients. Differences between models are not tested for chance here."
)


# --- models -----------------------------------------------------------------------------------


def auc_said(model: Scored) -> str:
    a = model.auc
    within = f" (95% interval {span(a.low, a.high, probability)})" if a.low is not None and a.high is not None else ""
    return f"{probability(a.value)}{within}"


def ranked(evaluation: Evaluation) -> list[Scored]:
    return [m for m in evaluation.models if m.auc.value is not None]


def roc_takeaway(evaluation: Evaluation) -> str:
    models = ranked(evaluation)
    if not models:
        return "Too few patients with or without the outcome to tell the models apart."
    first, outcome = models[0], evaluation.names.variable(evaluation.outcome) if evaluation.outcome else "the outcome"
    said = (
        f"“{first.label}” tells patients with and without {_quoted(outcome)} apart with an AUC of {auc_said(first)}."
    )
    return f"{said} {_joint_against_own(models)}".strip()


def _quoted(name: str) -> str:
    return name if name == "the outcome" else f"“{name}”"


def _joint_against_own(models: Sequence[Scored]) -> str:
    """How the best joint model stands against what single hubs could make alone."""
    joint, own = models[0], [m for m in models if not m.pooled]
    if not joint.pooled or not own or joint.auc.value is None:
        return ""
    below = [m for m in own if m.auc.value is not None and m.auc.value < joint.auc.value]
    differences = [joint.auc.value - m.auc.value for m in own if m.auc.value is not None]
    if len(below) == len(own):
        reach = f"by {probability(min(differences))}"
        if probability(min(differences)) != probability(max(differences)):
            reach += f" to {probability(max(differences))}"
        return f"It is ahead of every model that one hub made alone, {reach}."
    return f"It is ahead of {count(len(below))} of the {count(len(own))} models that one hub made alone."


def calibration_takeaway(models: Sequence[Scored]) -> str:
    first = next((m for m in models if m.mean_predicted.value is not None), None)
    if first is None:
        return ""
    said = (
        f"“{first.label}” predicts a mean risk of {percent(first.mean_predicted.value, 1)}; "
        f"{percent(first.mean_observed.value, 1)} were observed."
    )
    slope = first.slope.value
    if slope is None:
        return said
    meaning = "predictions spread about right" if 0.9 <= slope <= 1.1 else (
        "predictions are too extreme" if slope < 0.9 else "predictions are too cautious"
    )  # fmt: skip
    return f"{said} Calibration slope {decimal(slope)}: {meaning} (1 is ideal)."


def benefit_takeaway(models: Sequence[Scored]) -> str:
    """At how many thresholds the first model with figures beats both simple rules, and what that is worth."""
    model = next((m for m in models if m.benefits), None)
    if model is None:
        return ""
    told = [b for b in model.benefits if b.model is not None and b.treat_all is not None]
    ahead = [b for b in told if _gain(b) > 0.0005]
    if not ahead:
        return f"“{model.label}” is nowhere clearly better than acting on everyone or on no one."
    most = max(ahead, key=_gain)
    ends = f"{percent(ahead[0].threshold)} to {percent(ahead[-1].threshold)}"
    where = f"at {percent(ahead[0].threshold)}" if len(ahead) == 1 else f"at {len(ahead)} thresholds from {ends}"
    return (
        f"“{model.label}” is better than acting on everyone and on no one {where}. Most at "
        f"{percent(most.threshold)}: like finding {decimal(100 * _gain(most), 1)} more patients in 100 without any "
        "more false alarms."
    )


def _gain(point: Benefit) -> float:
    return (point.model or 0.0) - max(point.treat_all or 0.0, 0.0)


def level_takeaway(levels: Sequence[Level], variable: str) -> str:
    told = [(lv.level, lv.observed.value) for lv in levels if lv.observed.value is not None]
    if len(told) < 2:
        return ""
    low, high = min(told, key=lambda t: t[1]), max(told, key=lambda t: t[1])
    rising = all(b[1] >= a[1] for a, b in pairwise(told))
    way = "rises with every level" if rising else "differs between levels"
    ends = f"{percent(low[1])} at {variable} {low[0]}, {percent(high[1])} at {variable} {high[0]}"
    return f"The observed risk {way}: {ends}."


def coefficient_takeaway(group: Sequence[Fitted]) -> str:
    """Exact beside private where both are there: the largest difference, as a factor of the odds."""
    exact = next((f for f in group if f.mode == "exact"), None)
    private = next(
        (f for f in group if f.mode == "private" and f.reference == (exact.reference if exact else "")), None
    )
    if exact is None or private is None:
        sound = [fit for fit in group if fit.sound]
        return _strongest(sound[0]) if sound else ""
    theirs = {t.column: t for t in exact.terms}
    factors = [(_factor(t, theirs[t.column]), t) for t in private.terms if t.column in theirs]
    told = [(f, t) for f, t in factors if f is not None]
    if not told:
        return ""
    factor, term = max(told, key=lambda pair: pair[0])
    covered = sum(_covers(t, theirs[t.column]) for _, t in told)
    return (
        f"Private and exact odds ratios differ by at most a factor of {decimal(factor)} ({term.label}). "
        f"{count(covered)} of {count(len(told))} exact values lie within the private ones' noise intervals."
    )


def _factor(a: Term, b: Term) -> float | None:
    if not a.odds.value or not b.odds.value:
        return None
    return max(a.odds.value / b.odds.value, b.odds.value / a.odds.value)


def _covers(private: Term, exact: Term) -> bool:
    low, high, value = private.odds.low, private.odds.high, exact.odds.value
    return low is not None and high is not None and value is not None and low <= value <= high


def _strongest(fit: Fitted) -> str:
    told = [(t, max(v, 1 / v)) for t in fit.terms if (v := t.odds.value)]
    if not told:
        return ""
    term, _ = max(told, key=lambda pair: pair[1])
    return f"The strongest association: {term.label}, odds ratio {decimal(term.odds.value)}."


# --- cohort, budget, traffic, time ------------------------------------------------------------


def level_said(level: str, levels: Collection[str]) -> str:
    """A level as people read it; a 0/1 variable's levels are no and yes."""
    return {"0": "no", "1": "yes"}.get(level, level) if set(levels) == {"0", "1"} else level


def cohort_takeaway(described: Described) -> str:
    """How far hubs differ: medians of a number, shares of the level that differs most."""
    if described.number:
        medians = [(m.value, p.hub) for p in described.panels if (m := p.quantiles.get("50")) and m.value is not None]
        if not medians:
            return ""
        low, high = min(medians), max(medians)
        unit = f" {described.unit}" if described.unit else ""
        if len(medians) == 1:
            return f"Median {short(low[0])}{unit}."
        return f"Medians from {short(low[0])} ({low[1]}) to {short(high[0])}{unit} ({high[1]})."
    shares: dict[str, list[tuple[float, str]]] = {}
    for panel in described.panels:
        for bar in panel.bars:
            shares.setdefault(bar.label, []).append((bar.share, panel.hub))
    told = {label: s for label, s in shares.items() if len(s) > 1} or shares
    label, found = max(told.items(), key=lambda item: max(item[1])[0] - min(item[1])[0])
    if set(shares) == {"0", "1"}:
        label, found = "1", shares["1"]
    name = "yes" if set(shares) == {"0", "1"} else f"level {label}"
    low, high = min(found), max(found)
    if len(found) == 1:
        return f"{percent(low[0])} have {name}."
    return f"Share with {name}: from {percent(low[0])} ({low[1]}) to {percent(high[0])} ({high[1]})."


def budget_takeaway(hubs: Sequence[HubReport]) -> str:
    after = [(hub, hub.budget_after) for hub in hubs if hub.budget_after is not None]
    if not after:
        return ""
    unbounded = [hub.label or hub.hub for hub, budget in after if budget.unbounded]
    spent = [b.epsilon for _, b in after if b.epsilon is not None]
    said = f"Noised answers have cost each patient at most epsilon {short(max(spent))} at any hub." if spent else ""
    if unbounded:
        who = "all hubs" if len(unbounded) == len(after) else listed(unbounded)
        said += f" At {who} exact results were opened as well: for those there is no bound."
    return said.strip()


def budget_note(before: Budget | None, after: Budget | None) -> str:
    """One line under a hub's bar."""
    if after is None:
        return ""
    parts = [f"epsilon {short(before.epsilon if before else 0.0)} before, {short(after.epsilon)} after"]
    if after.epsilon_left is not None:
        parts.append(f"{short(after.epsilon_left)} left")
    if after.unbounded:
        parts.append("exact results opened: no bound (epsilon = ∞)")
    return "; ".join(parts)


def traffic_takeaway(rows: Sequence[TrafficRow]) -> str:
    if not rows:
        return ""
    total, messages = sum(r.bytes for r in rows), sum(r.messages for r in rows)
    kinds: dict[str, int] = {}
    for row in rows:
        kinds[row.kind] = kinds.get(row.kind, 0) + row.bytes
    largest = max(kinds, key=lambda kind: kinds[kind])
    share = f" {percent(kinds[largest] / total)} of it is “{largest}”." if total else ""
    return (
        f"{size(total)} in {plural(messages, 'message', 'messages')} of {plural(len(kinds), 'kind', 'kinds')}."
        f"{share} No message type has a field that could carry a record."
    )


def steps_takeaway(steps: Sequence[StepTime], peak: str) -> str:
    told = [s for s in steps if s.seconds is not None]
    if not told:
        return ""
    longest = max(told, key=lambda s: s.seconds or 0.0)
    total = sum(s.seconds or 0.0 for s in told)
    said = f"{duration(total)} in all; longest: {longest.name}, {duration(longest.seconds)}."
    return f"{said} All processes together needed at most {peak} of memory." if peak else said


# --- the summary at the top -------------------------------------------------------------------


def summary(report: Report, evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """At most five lines: (what it is about, the sentence)."""
    lines = [
        ("Asked", _asked(report)),
        ("Found", _found(report, evaluations)),
        ("Protected", _protected(report.studies)),
        ("Spent", budget_takeaway(report.hubs)),
        ("Mind", _mind(report)),
    ]
    return [(label, said) for label, said in lines if said]


def _asked(report: Report) -> str:
    purposes = list(dict.fromkeys(s.purpose or s.title for s in report.studies))
    hubs = plural(len(report.hubs), "hub", "hubs") if report.hubs else "The hubs"
    said = f" {hubs} answered; every patient record stayed where it is." if report.studies else ""
    return f"{' '.join(p if p.endswith('.') else p + '.' for p in purposes[:2])}{said}".strip()


def _found(report: Report, evaluations: Sequence[Evaluation]) -> str:
    found = []
    for evaluation in evaluations[:2]:
        models = ranked(evaluation)
        said = "; ".join(f"{m.label} {auc_said(m)}" for m in models[:8])
        if models:
            found.append(f"AUC (0.5 is a coin toss, 1 is perfect): {said}.")
    if found:
        return " ".join(found)
    answered = sum(len(s.results) for s in report.studies)
    return f"{plural(answered, 'result was', 'results were')} released." if answered else "No result was released."


def _protected(studies: Sequence[StudyReport]) -> str:
    said = []
    for mode, lead in (("private", "Noised results"), ("exact", "Exact results")):
        own = [s for s in studies if s.mode == mode]
        if own:
            statements = list(dict.fromkeys(s.statement for s in own if s.statement))
            said.append(f"{lead}: {' '.join(statements)}" if statements else f"{lead} were released.")
    return " ".join(said)


def missing(hubs: Mapping[str, str]) -> str:
    """Hub to why, in one line."""
    return "; ".join(f"{hub} {why}" for hub, why in sorted(hubs.items()))


def _mind(report: Report) -> str:
    parts = [
        f"{study.title} is of fewer hubs than were asked: {missing(study.missing)}."
        for study in report.studies
        if study.missing
    ]
    if report.simulated:
        parts.append("The records are simulated.")
    if any(s.mode == "exact" for s in report.studies):
        parts.append("Exact results have no bound; they needed a permission of their own from every hub.")
    parts.append("The protocol is UNAUDITED: nobody outside the project has reviewed it.")
    return " ".join(parts)
