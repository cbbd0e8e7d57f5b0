"""Which section a result belongs to: results are told apart by what they hold, as everywhere in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from flute.report.cohorts import panel_of
from flute.report.model import Report, StudyReport
from flute.report.numbers import finite
from flute.report.reading import mapping, odds_model, results, sequence
from flute.report.sections.choices import chosen
from flute.report.sections.groups import compared, crossed, first_table
from flute.report.sections.learners import grown, tried, weighed
from flute.report.sections.networks import networked
from flute.report.sections.plain import plainly
from flute.report.sections.relations import correlated
from flute.report.sections.shown import Answer, Asked, Build
from flute.report.sections.slopes import sloped
from flute.report.sections.survivals import concordant, hazards, survived
from flute.report.texts import ALGORITHMS


@dataclass(frozen=True, slots=True)
class AnswerSection:
    anchor: str
    title: str
    lead: str
    answers: tuple[Answer, ...]


_SECTIONS: Final = (
    ("groups", "Groups compared", "Patients side by side, as the statistics of a paper put them."),
    ("relations", "What goes together", "A correlation of 1 or −1 is a straight line, 0 is none. It is no cause."),
    (
        "survival", "Time until an event",
        "How many are still without the event as time goes on. Who left earlier counts for as long as they stayed. "
        "Above 1, a hazard ratio says that the event comes sooner.",
    ),
    (
        "linear", "Linear models",
        "A coefficient says by how much the outcome changes with a predictor, the others held fixed; of counts and "
        "amounts it is a ratio, by which the outcome is multiplied.",
    ),
    ("learners", "Trees and other learners", "What these models look at when they tell patients apart."),
    (
        "unseen", "Tried on patients not seen",
        "A model looks better on the patients that made it. Here each patient's risk comes from a fit without them.",
    ),
    ("more", "More results", "Results that this page has no chart for, as they were released."),
)  # fmt: skip


MAX_CHARTS: Final = 80
"""Charts of answers in one page (some 6 kB each); what comes after has its tables only."""


def answer_sections(report: Report) -> list[AnswerSection]:
    """The sections that have something in them, in order; every result is in one, or in a section of `page`."""
    found: dict[str, list[Answer]] = {}
    room = MAX_CHARTS
    for number, (names, reference, result) in enumerate(results(report)):
        place = _place(result)
        if place is None:
            continue
        anchor, build = place
        answer = _drawn(build(Asked(names, reference, result, f"{anchor}-{number}")), room)
        room -= sum(f.svg is not None for f in answer.figures)
        if answer.figures or answer.tables or answer.warnings:
            found.setdefault(anchor, []).append(_headed(answer, report, names.study, reference))
    return [AnswerSection(a, title, lead, tuple(found[a])) for a, title, lead in _SECTIONS if a in found]


def _drawn(answer: Answer, room: int) -> Answer:
    """With at most so many charts."""
    shown = tuple(
        f if k < room else replace(f, svg=None, note="Too many charts for one page; see the table.")
        for k, f in enumerate(answer.figures)
    )
    return replace(answer, figures=shown)


def _headed(answer: Answer, report: Report, study: StudyReport, reference: str) -> Answer:
    """With what kind of question it answers, and whose study it is where there are several."""
    tags = [q.algorithm for q in study.questions if q.id == reference.partition("@")[0]]
    kind = ALGORITHMS.get(tags[0], tags[0]) if tags else ""
    heading = f"{answer.heading}: {kind}" if kind else answer.heading
    return replace(answer, heading=f"{heading} ({study.mode})" if len(report.studies) > 1 else heading)


def _place(result: Mapping[str, Any]) -> tuple[str, Build] | None:
    """The section and its builder; None where a section of the page shows it anyway."""
    groups = [mapping(g) for g in mapping(result.get("groups")).values()]
    if groups and any("curve" in g for g in groups):
        return "survival", survived
    if groups and "tests" in result:
        return "groups", compared
    told: tuple[tuple[bool, str, Build], ...] = (
        ("counts" in result and "rows" in result, "groups", crossed),
        ("table" in result and "groups" in result, "groups", first_table),
        ("correlation" in result and "names" in result, "relations", correlated),
        (bool(sequence(result.get("hazard_ratios"))), "survival", hazards),
        ("concordance" in result and "usable_pairs" in result, "survival", concordant),
        ("importances" in result, "learners", grown),
        ("layers" in result and "weights" in result, "learners", networked),
        ("kernel" in result and "coefficients" in result, "learners", weighed),
        ("folds" in result and "auc" in result, "unseen", tried),
        ("best_model" in result and "told_apart" in result, "unseen", chosen),
        (_linear(result), "linear", sloped),
    )
    for holds, anchor, build in told:
        if holds:
            return anchor, build
    return None if _elsewhere(result) else ("more", plainly)


def _linear(result: Mapping[str, Any]) -> bool:
    """What the section of odds ratios does not show, or not all of it."""
    more = "path" in result or "imputed" in result
    return more or (bool(sequence(result.get("columns"))) and "family" in result and not odds_model(result))


def _elsewhere(result: Mapping[str, Any]) -> bool:
    if mapping(result.get("models")) or mapping(result.get("scores")) or odds_model(result):
        return True
    variables = [mapping(v) for v in mapping(result.get("variables")).values()]
    if any(panel_of("", v).bars or finite(v.get("grid_step")) is not None for v in variables):
        return True
    tested = finite(result.get("statistic")) is not None and finite(result.get("degrees_of_freedom")) is not None
    return finite(result.get("p")) is not None and (tested or result.get("test") == "Fisher's exact")
