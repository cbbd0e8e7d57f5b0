"""Everything the template shows, in its order. Sections whose parts are absent are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from flute.report import texts
from flute.report.cohorts import cohorts
from flute.report.model import Report, StudyReport
from flute.report.numbers import count, decimal, plural, probability, short, size, when
from flute.report.reading import Evaluation, Fitted, evaluations, fitted_groups
from flute.report.sections.accounts import (
    MAX_CHARTED_PANELS,
    Kind,
    ThreatTable,
    budget_figure,
    cohort_figures,
    kinds,
    odds_said,
    panels_drawn,
    receipts_table,
    steps_figure,
    threat_table,
    traffic_figure,
    traffic_matrix,
)
from flute.report.sections.answers import AnswerSection, answer_sections
from flute.report.sections.figures import (
    Figure,
    Table,
    auc_table,
    coefficient_figure,
    evaluation_figures,
    series_name,
)
from flute.report.sections.statistics import statistics_tables

_MODE: Final = {"private": "private: noise covers every number", "exact": "exact: no noise, no bound"}


@dataclass(frozen=True, slots=True)
class Tile:
    """One main figure."""

    figure: str
    says: str


@dataclass(frozen=True, slots=True)
class Compared:
    heading: str
    note: str
    table: Table
    figures: list[Figure]


@dataclass(frozen=True, slots=True)
class CohortShown:
    heading: str
    figures: list[Figure]


@dataclass(frozen=True, slots=True)
class StudyShown:
    """One study's agreement, cells, statement and receipts."""

    study: StudyReport
    mode: str
    rows: list[tuple[str, str]]
    questions: list[tuple[str, str]]
    threats: ThreatTable | None
    receipts: Table | None


@dataclass(frozen=True, slots=True)
class HubShown:
    name: str
    patients: str
    before: str
    after: str
    unbounded: bool
    journal: str
    head: str


@dataclass(slots=True)
class Page:
    report: Report
    made: str
    summary: list[tuple[str, str]]
    tiles: list[Tile]
    compared: list[Compared]
    comparators: Table | None
    coefficients: list[Figure]
    fits: Table | None
    unsound: list[str]
    cohorts: list[CohortShown]
    statistics: list[Table]
    answers: dict[str, AnswerSection]
    studies: list[StudyShown]
    budget: Figure | None
    hubs: list[HubShown]
    exact: list[StudyShown]
    traffic: Figure | None
    matrix: Table | None
    kinds: list[Kind]
    steps: Figure | None
    sections: list[tuple[str, str]] = field(default_factory=list)


def page_of(report: Report) -> Page:
    scored, groups = evaluations(report), fitted_groups(report)
    fits = [fit for group in groups for fit in group]
    studies = [_study(study) for study in report.studies]
    page = Page(
        report=report,
        made=when(report.made_at),
        summary=texts.summary(report, scored),
        tiles=_tiles(report, scored),
        compared=[_compared(e, i, len(scored)) for i, e in enumerate(scored)],
        comparators=_comparators(report),
        coefficients=[f for i, g in enumerate(groups) if (f := coefficient_figure(g, f"odds-{i}")) is not None],
        fits=_fits_table(groups),
        unsound=[
            f"{fit.names.model(fit.reference)} ({fit.mode}): {fit.ending_text}" for fit in fits if not fit.sound
        ],
        cohorts=_cohorts(report),
        statistics=statistics_tables(report),
        answers={part.anchor: part for part in answer_sections(report)},
        studies=studies,
        budget=budget_figure(report.hubs),
        hubs=_hubs(report),
        exact=[s for s in studies if s.study.mode == "exact"],
        traffic=traffic_figure(report),
        matrix=traffic_matrix(report),
        kinds=kinds(report, {hub.hub for hub in report.hubs}),
        steps=steps_figure(report),
    )
    page.sections = _sections(page)
    return page


def _sections(page: Page) -> list[tuple[str, str]]:
    """(anchor, title) of every section that has something to show, in the page's order."""
    wanted: list[tuple[object, str, str]] = [
        (page.summary, "summary", "Summary"),
        (page.compared, "models", "Models compared"),
        (page.coefficients, "coefficients", "What the models say"),
        (page.cohorts, "cohort", "Cohort per hub"),
        (page.statistics, "statistics", "Computed on shares"),
        *((part, part.anchor, part.title) for part in page.answers.values()),
        (page.studies, "agreement", "What was agreed"),
        (page.budget or page.hubs, "budget", "Privacy budget"),
        (page.exact, "exact", "Exact results: no bound"),
        (page.traffic, "traffic", "Who saw what"),
        (any(s.threats for s in page.studies), "threats", "Against whom it holds"),
        (page.steps, "time", "Time per step"),
        (any(s.receipts for s in page.studies), "receipts", "Receipts"),
        (page.report.commands, "further", "To look further"),
    ]
    return [(anchor, title) for present, anchor, title in wanted if present]


def _tiles(report: Report, scored: Sequence[Evaluation]) -> list[Tile]:
    tiles: list[Tile] = []
    if scored and (models := texts.ranked(scored[0])):
        made = "made by all hubs together" if models[0].pooled else "the best of the hubs' own models"
        tiles.append(Tile(probability(models[0].auc.value), f"AUC of “{models[0].label}”, {made}"))
    if report.hubs:
        tiles.append(Tile(count(len(report.hubs)), "hubs answered; their records stayed there"))
    spent = [b.epsilon for h in report.hubs if (b := h.budget_after) and b.epsilon is not None]
    if spent:
        tiles.append(Tile(f"ε {short(max(spent))}", "charged to one patient at one hub, at most, for noised answers"))
    if report.traffic:
        tiles.append(Tile(size(sum(r.bytes for r in report.traffic)), "moved in all messages together"))
    return tiles


def _compared(evaluation: Evaluation, index: int, of: int) -> Compared:
    heading = f"{evaluation.study.title} ({evaluation.study.mode})" if of > 1 else ""
    return Compared(
        heading, texts.SAME_PATIENTS, auc_table(evaluation), evaluation_figures(evaluation, f"compared-{index}")
    )


def _comparators(report: Report) -> Table | None:
    if not report.comparators:
        return None
    rows = tuple(
        (c.name, probability(c.auc) if c.auc is not None else "no figure", c.source) for c in report.comparators
    )
    caption = "Published models, for orientation: not computed here, other patients"
    return Table(caption, ("Model", "AUC", "Source"), rows, (0, 2))


def _fits_table(groups: Sequence[Sequence[Fitted]]) -> Table | None:
    rows = tuple(
        (
            fit.names.model(fit.reference),
            series_name(fit, group),
            f"{count(fit.n)} ± {decimal(fit.n_noise, 0)}" if fit.n_noise else count(fit.n),
            fit.ending_text or fit.ending,
        )
        for group in groups
        for fit in group
    )
    head = ("Model", "Fit", "Patients", "How it ended")
    return Table("The fits", head, rows, (0, 1, 3)) if rows else None


def _cohorts(report: Report) -> list[CohortShown]:
    shown, room = [], MAX_CHARTED_PANELS
    found = cohorts(report)
    for i, cohort in enumerate(found):
        figures = cohort_figures(cohort, f"cohort-{i}", room)
        room -= panels_drawn(figures, cohort)
        heading = f"{cohort.names.study.title} ({cohort.names.study.mode})" if len(found) > 1 else ""
        shown.append(CohortShown(heading, figures))
    return shown


def _study(study: StudyReport) -> StudyShown:
    rows = [(row.label, row.value) for row in study.agreement]
    if study.mode == "private" and study.epsilon is not None:
        delta = f" at δ = {short(study.delta)}" if study.delta else ""
        rows.insert(0, ("Budget", f"ε = {short(study.epsilon)}{delta}, per patient and hub"))
    if study.plan:
        rows.append(("Plan", study.plan))
    if study.missing:
        rows.append(("Took no part, or not to the end", texts.missing(study.missing)))
    if study.analysis_plan:
        rows.append(("Digest of the analysis plan", study.analysis_plan))
    return StudyShown(
        study, _MODE[study.mode], rows, [_question(study, i) for i in range(len(study.questions))],
        threat_table(study), receipts_table(study),
    )  # fmt: skip


def _question(study: StudyReport, index: int) -> tuple[str, str]:
    question = study.questions[index]
    parts = [
        texts.ALGORITHMS.get(question.algorithm, question.algorithm),
        "each hub for itself" if question.scope == "each" else "all hubs together",
    ]
    if question.share is not None:
        parts.append(f"{decimal(100 * question.share, 0)}% of the budget")
    name = f"{question.label} ({question.id})" if question.label else question.id
    return name, "; ".join(part for part in parts if part)


def _hubs(report: Report) -> list[HubShown]:
    return [_hub(report, i) for i in range(len(report.hubs))]


def _hub(report: Report, index: int) -> HubShown:
    hub = report.hubs[index]
    before, after, journal = hub.budget_before, hub.budget_after, hub.journal
    patients = ""
    if hub.patients is not None and hub.patients.value is not None:
        noise = f" ± {decimal(hub.patients.noise_se, 0)}" if hub.patients.noise_se else ""
        patients = f"{count(hub.patients.value)}{noise} patients, as released"
    told = f"{plural(journal.lines, 'line', 'lines')}: {journal.verified or 'not verified'}" if journal else ""
    return HubShown(
        name=hub.label or hub.hub,
        patients=patients,
        before=before.sentence if before else "",
        after=after.sentence if after else "",
        unbounded=bool(after and after.unbounded),
        journal=told,
        head=journal.head if journal else "",
    )


FILTERS: Final[dict[str, Callable[..., str]]] = {"day": lambda unix: when(unix, time=False), "odds": odds_said}
