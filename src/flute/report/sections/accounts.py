"""What the federation did: cohorts per hub, budgets, who saw what, time, receipts; as figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flute.report import texts
from flute.report.charts.bars import BudgetBar, budget_bars, cohort_panels, flat_bars
from flute.report.cohorts import Cohort, Described, Panel
from flute.report.model import HubReport, Report, StudyReport, ThreatCell, TrafficRow
from flute.report.numbers import UNKNOWN, count, decimal, duration, memory, percent, short, size
from flute.report.reading import Interval
from flute.report.sections.figures import Figure, Table, counted, described

MAX_CHARTED_PANELS: Final = 120
"""Panels drawn in one report (some 2 kB each); variables beyond have their table only."""
MAX_CHARTED_HUBS: Final = 12
MAX_ROUTES: Final = 12
_QUANTILES: Final = ("5", "25", "50", "75", "95")


# --- cohort per hub ---------------------------------------------------------------------------


def cohort_figures(cohort: Cohort, identity: str, room: int) -> list[Figure]:
    """One figure per variable. `room`: panels that may still be drawn."""
    figures = []
    for i, variable in enumerate(cohort.variables):
        here = len(variable.panels)
        drawn = here <= min(room, MAX_CHARTED_HUBS)
        room -= here if drawn else 0
        figures.append(_cohort_figure(variable, f"{identity}-{i}", drawn=drawn))
    return figures


def panels_drawn(figures: Sequence[Figure], cohort: Cohort) -> int:
    return sum(len(v.panels) for v, f in zip(cohort.variables, figures, strict=True) if f.svg is not None)


def _cohort_figure(variable: Described, identity: str, *, drawn: bool) -> Figure:
    takeaway = texts.cohort_takeaway(variable)
    unit = f" ({variable.unit})" if variable.unit else ""
    title = f"{variable.label}{unit}"
    kind = "Histograms, one per hub." if variable.number else "Share of patients per level, one chart per hub."
    svg = cohort_panels(identity, title, described(takeaway, kind), variable) if drawn else None
    table = _number_table(variable) if variable.number else _level_table(variable)
    return Figure(identity, title, takeaway, svg, table, "" if drawn else "Too many panels to draw; see the table.")


def _number_table(variable: Described) -> Table:
    head = ("Hub", "Patients", "Missing", "Mean", "SD", *(f"{q}%" for q in _QUANTILES))
    rows = tuple(
        (
            panel.hub or "all hubs",
            counted(panel.n),
            counted(panel.missing),
            _noised(panel.mean),
            _noised(panel.deviation),
            *(_noised(panel.quantiles.get(q, Interval())) for q in _QUANTILES),
        )
        for panel in variable.panels
    )
    return Table(f"{variable.label}: counts, mean and quantiles, ± standard error of the noise", head, rows)


def _noised(found: Interval) -> str:
    if found.value is None or not found.noise:
        return short(found.value)
    return f"{short(found.value)} ± {short(found.noise, 2)}"


def _level_table(variable: Described) -> Table:
    levels = list(dict.fromkeys(bar.label for panel in variable.panels for bar in panel.bars))
    head = ("Hub", "Patients", "Missing", *(texts.level_said(level, levels) for level in levels))
    rows = tuple(
        (panel.hub or "all hubs", counted(panel.n), counted(panel.missing), *_shares(panel, levels))
        for panel in variable.panels
    )
    return Table(f"{variable.label}: patients per level (share), ± standard error of the noise", head, rows)


def _shares(panel: Panel, levels: Sequence[str]) -> list[str]:
    bars = {bar.label: bar for bar in panel.bars}
    return [
        f"{counted(Interval(bars[level].count, noise=bars[level].noise))} ({percent(bars[level].share)})"
        if level in bars
        else UNKNOWN
        for level in levels
    ]


# --- budget -----------------------------------------------------------------------------------


def budget_figure(hubs: Sequence[HubReport]) -> Figure | None:
    told = [hub for hub in hubs if hub.budget_after is not None]
    if not told:
        return None
    takeaway, title = texts.budget_takeaway(told), "Privacy budget of one patient, per hub"
    desc = described(takeaway, "Bars of epsilon charged before, charged by these studies, and left.")
    svg = budget_bars("budget-bars", title, desc, [_budget_bar(hub) for hub in told])
    head = ("Hub", "Epsilon before", "Epsilon after", "Left", "Odds change at most", "Exact results opened")
    return Figure("budget-bars", title, takeaway, svg, Table(title, head, tuple(map(_budget_row, told))))


def _budget_bar(hub: HubReport) -> BudgetBar:
    before, after = hub.budget_before, hub.budget_after
    charged_before = (before.epsilon if before else None) or 0.0
    charged = (after.epsilon if after else None) or 0.0
    return BudgetBar(
        label=hub.label or hub.hub,
        before=charged_before,
        spent=max(charged - charged_before, 0.0),
        left=after.epsilon_left if after else None,
        note=texts.budget_note(before, after),
        unbounded=bool(after and after.unbounded),
    )


def _budget_row(hub: HubReport) -> tuple[str, ...]:
    before, after = hub.budget_before, hub.budget_after
    assert after is not None
    return (
        hub.label or hub.hub,
        short(before.epsilon if before else None),
        short(after.epsilon),
        short(after.epsilon_left),
        odds_said(after.odds_factor),
        "yes: no bound" if after.unbounded else "no",
    )


def odds_said(factor: float | None) -> str:
    """Rounded up, so that it never understates."""
    if factor is None:
        return UNKNOWN
    if factor > 1e6:
        return "over 1,000,000 times"
    digits = 2 if factor < 10 else 0
    step = 10.0**-digits
    return f"{decimal(-(-factor * (1 - 1e-12) // step) * step, digits)} times"


# --- who saw what -----------------------------------------------------------------------------


def traffic_matrix(report: Report) -> Table | None:
    """Bytes from every party (rows) to every party (columns)."""
    if not report.traffic:
        return None
    parties = sorted({p for row in report.traffic for p in (row.sender, row.recipient)})
    found: dict[tuple[str, str], int] = {}
    for row in report.traffic:
        found[row.sender, row.recipient] = found.get((row.sender, row.recipient), 0) + row.bytes
    rows = tuple(
        (
            p,
            *(size(found[p, q]) if (p, q) in found else UNKNOWN for q in parties),
            size(sum(found.get((p, q), 0) for q in parties)),
        )
        for p in parties
    )
    return Table("Bytes from each party (row) to each party (column)", ("From \\ to", *parties, "Sent in all"), rows)


def traffic_figure(report: Report) -> Figure | None:
    if not report.traffic:
        return None
    routes: dict[tuple[str, str], int] = {}
    for row in report.traffic:
        routes[row.sender, row.recipient] = routes.get((row.sender, row.recipient), 0) + row.bytes
    largest = sorted(routes.items(), key=lambda item: (-item[1], item[0]))[:MAX_ROUTES]
    takeaway, title = texts.traffic_takeaway(report.traffic), "Bytes from party to party"
    svg = flat_bars(
        "traffic-bars", title, described(takeaway, "Bars of bytes per route."),
        [(f"{a} → {b}", float(n)) for (a, b), n in largest], size,
    )  # fmt: skip
    head = ("From", "To", "Kind", "What it holds", "Messages", "Bytes")
    rows = tuple(
        (r.sender, r.recipient, r.kind, r.fields or UNKNOWN, count(r.messages), size(r.bytes))
        for r in sorted(report.traffic, key=lambda r: (r.sender, r.recipient, r.kind))
    )
    return Figure(
        "traffic-bars", title, takeaway, svg, Table("Every kind of message, by route", head, rows, (0, 1, 2, 3))
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of message in plain words."""

    kind: str
    fields: str
    routes: str
    messages: str
    bytes: str


def kinds(report: Report, hubs: set[str]) -> list[Kind]:
    """Message kinds, largest first; routes between hubs are named by role, not one by one."""
    found: dict[str, list[TrafficRow]] = {}
    for row in report.traffic:
        found.setdefault(row.kind, []).append(row)

    def role(party: str) -> str:
        return "each hub" if party in hubs else party

    shown = []
    for kind, rows in sorted(found.items(), key=lambda item: (-sum(r.bytes for r in item[1]), item[0])):
        routes = "; ".join(dict.fromkeys(f"{role(r.sender)} → {role(r.recipient)}" for r in rows))
        fields = next((r.fields for r in rows if r.fields), "")
        shown.append(
            Kind(kind, fields, routes, count(sum(r.messages for r in rows)), size(sum(r.bytes for r in rows)))
        )
    return shown


# --- threat cells -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThreatRow:
    """One row of the nine cells. `same`: one reason serves the whole row."""

    parties: str
    cells: tuple[ThreatCell, ...]
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThreatTable:
    columns: tuple[str, ...]
    rows: tuple[ThreatRow, ...]


def threat_table(study: StudyReport) -> ThreatTable | None:
    if not study.cells:
        return None
    columns = tuple(dict.fromkeys(c.enclaves for c in study.cells))
    rows = []
    for parties in dict.fromkeys(c.parties for c in study.cells):
        cells = tuple(c for e in columns for c in study.cells if (c.parties, c.enclaves) == (parties, e))
        because = tuple(dict.fromkeys(c.because for c in cells if c.because))
        rows.append(ThreatRow(parties, cells, because))
    return ThreatTable(columns, tuple(rows))


# --- time and receipts ------------------------------------------------------------------------


def steps_figure(report: Report) -> Figure | None:
    told = [(step.name, step.seconds) for step in report.steps if step.seconds is not None]
    if not told:
        return None
    peak = memory(report.peak_memory_bytes) if report.peak_memory_bytes else ""
    takeaway, title = texts.steps_takeaway(report.steps, peak), "Time per step"
    svg = flat_bars("steps-bars", title, described(takeaway, "Bars of seconds per step."), told, duration)
    rows = tuple((name, duration(seconds)) for name, seconds in told)
    return Figure("steps-bars", title, takeaway, svg, Table("Time per step, wall clock", ("Step", "Time"), rows))


def receipts_table(study: StudyReport) -> Table | None:
    if not study.receipts:
        return None
    head = ("Question, step", "Hubs", "Journal lines", "Agreement", "Opened total", "Roster", "Price (ρ)", "Numbers")
    rows = tuple(
        (
            f"{r.question}, step {count(r.step + 1)}",
            ", ".join(r.hubs),
            ", ".join(f"{j.hub} {count(j.line)}" for j in r.journal),
            r.agreement[:12],
            r.total[:12],
            count(r.roster_version) if r.roster_version else UNKNOWN,
            short(r.rho) if r.mode == "private" else "exact",
            count(r.numbers) if r.numbers else UNKNOWN,
        )
        for r in study.receipts
    )
    return Table(f"Receipts of {study.title}: every total that was opened", head, rows, (0, 1, 2, 3, 4))
