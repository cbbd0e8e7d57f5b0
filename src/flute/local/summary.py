"""From what ran to what the report shows. Figures are taken as released; nothing is computed anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

import flute
from flute.local.run import Outcome
from flute.report.model import (
    Budget,
    Command,
    ComparatorReport,
    HubConditionsReport,
    HubReport,
    JournalReport,
    NoisyCount,
    QuestionReport,
    Report,
    Row,
    StepTime,
    StudyReport,
    ThreatCell,
    TrafficRow,
)
from flute.study.agreement import Agreement
from flute.study.files.check import check_study
from flute.study.release import ReleaseReceipt
from flute.study.threats import promised

FIELDS: Final = {
    "proposal": "the study agreement, signed by the researcher",
    "consent": "the hub's decision, its key for this study, a digest of its frozen records",
    "ticket-call": "a request for a ticket, every hub's study key",
    "ticket-given": "a public key, commitments, shares sealed to the other hubs",
    "secure-question": "the question's id and parameters, all tickets, shares sealed to this hub",
    "masked-answer": "one vector under masks, indistinguishable from random numbers; the journal's receipt",
    "survivors-said": "whose vectors arrived",
    "echo-answer": "a signature over that list",
    "echoes-said": "every hub's signature",
    "shares-answer": "shares of the masks' seeds, a ticket for a later round",
    "split-question": "the question's id and parameters, evidence of the enclaves; with masks, all tickets",
    "split-answer": "one share for each enclave, sealed to it; the journal's receipt",
    "joint-question": "the question's id and parameters",
    "joint-begun": "a public key for this computation; the journal's receipt",
    "talk-said": "boxes sealed to the other hubs, indistinguishable from random numbers",
    "talk-heard": "what the other hubs sealed for this one",
    "joint-total": "the total that the hubs opened together, under the noise of all of them",
    "key-call": "a request to make the study's key together",
    "key-begun": "a public key for this ceremony",
    "key-ready": "the study's public key",
    "encrypted-question": "the question's id and parameters, a digest of the study's key",
    "encrypted-answer": "one encrypted vector, with proof; the journal's receipt",
    "opening-call": "every hub's encrypted vector",
    "opening-answer": "a part of the opening of the sum, with proof",
    "own-question": "the question's id and parameters",
    "own-total": "one sum of this hub alone under its own full noise; the journal's receipt",
    "round-closed": "the release's id, how it ended, a digest of the opened total",
    "study-closed": "that the study ended, and why",
    "refused": "a code and a fixed sentence",
}
"""What a message of each kind holds, in plain words."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of what was run. Seconds of wall clock."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """A command, and what it shows."""

    command: str
    shows: str


def report_of(
    outcomes: Sequence[tuple[Agreement, Outcome]],
    *,
    journals: Mapping[str, Any],
    made_at: int,
    federation: str = "local",
    steps: Sequence[Step] = (),
    peak_memory_bytes: int | None = None,
    looks: Sequence[Look] = (),
    comparators: Sequence[ComparatorReport] = (),
) -> Report:
    first, last = outcomes[0][1], outcomes[-1][1]
    return Report(
        title=outcomes[0][0].title,
        simulated=any(agreement.simulated for agreement, _ in outcomes),
        made_at=made_at,
        federation=federation,
        version=flute.__version__,
        studies=tuple(_study(agreement, outcome) for agreement, outcome in outcomes),
        hubs=tuple(_hub(hub, outcomes, first, last, journals) for hub in sorted(outcomes[0][0].hubs)),
        traffic=_traffic([row for _, outcome in outcomes for row in outcome.traffic]),
        steps=tuple(StepTime(s.name, s.seconds) for s in steps) or _question_steps(outcomes),
        peak_memory_bytes=peak_memory_bytes,
        commands=tuple(Command(look.command, look.shows) for look in looks),
        comparators=tuple(comparators),
    )


def _question_steps(outcomes: Sequence[tuple[Agreement, Outcome]]) -> tuple[StepTime, ...]:
    return tuple(StepTime(t["question"], t["seconds"]) for _, outcome in outcomes for t in outcome.times)


def _study(agreement: Agreement, outcome: Outcome) -> StudyReport:
    checked = check_study(agreement)
    release = outcome.release
    variables = {v.variable.name: v for v in agreement.variables}
    return StudyReport(
        id=agreement.study,
        title=agreement.title,
        mode=agreement.mode,
        purpose=agreement.purpose,
        epsilon=agreement.epsilon or None,
        delta=agreement.delta or None,
        statement=release["statement"],
        plan=f"{checked.plan.name}: {checked.plan.summary}",
        agreement=_agreement_rows(agreement, checked.numbers),
        conditions=tuple(
            HubConditionsReport(hub, c.legal_basis, c.ethics_approval, c.retain_until)
            for hub, c in sorted(agreement.conditions.items())
        ),
        cells=tuple(ThreatCell(c.parties, c.enclaves, c.holds, c.because, c.test) for c in promised(agreement)),
        questions=tuple(
            QuestionReport(q.id, str(q.what.__struct_config__.tag), q.scope, q.share or None)
            for q in agreement.questions
        ),
        results=release["results"],
        missing=release["missing"],
        receipts=tuple(msgspec.convert(r, ReleaseReceipt) for r in release["receipts"]),
        labels={name: v.variable.label for name, v in variables.items() if v.variable.label},
        units={name: v.variable.unit for name, v in variables.items() if v.variable.unit},
        references={
            name: v.reference_level or v.variable.levels[0]
            for name, v in variables.items()
            if v.variable.kind == "category"
        },
        analysis_plan=release["analysis_plan"],
    )


def _agreement_rows(agreement: Agreement, numbers: int) -> tuple[Row, ...]:
    protection = (
        f"exact results, at most {numbers:,} numbers opened"
        if agreement.mode == "exact"
        else f"noise for epsilon {agreement.epsilon:g} at delta {agreement.delta:g}, per patient and hub"
    )
    return (
        Row("Researcher", agreement.researcher),
        Row("Hubs", ", ".join(sorted(agreement.hubs))),
        Row("Fields", ", ".join(agreement.fields())),
        Row("Protection", protection),
        Row("Hubs that may collude", str(agreement.plan.colluding)),
        Row("Hubs that may be missing from a sum", str(agreement.plan.dropouts)),
        Row("Hubs that carry it out at least", str(agreement.least)),
        Row("Code of the algorithms", agreement.code.hex()[:16]),
    )


def _hub(
    hub: str,
    outcomes: Sequence[tuple[Agreement, Outcome]],
    first: Outcome,
    last: Outcome,
    journals: Mapping[str, Any],
) -> HubReport:
    dataset = outcomes[0][0].dataset
    journal = journals.get(hub)
    return HubReport(
        hub=hub,
        patients=_released_count(hub, outcomes),
        budget_before=_budget(first.ledgers_before.get(hub), dataset),
        budget_after=_budget(last.ledgers_after.get(hub), dataset),
        journal=None
        if journal is None
        else JournalReport(journal["lines"], "every line holds; the head is signed by the hub", journal["head"]),
    )


def _released_count(hub: str, outcomes: Sequence[tuple[Agreement, Outcome]]) -> NoisyCount | None:
    """Patients of a hub as a description released them, noise and all: the largest of its variables' counts
    would favour noise, so the first variable's is taken."""
    for agreement, outcome in outcomes:
        for question in agreement.questions:
            found = outcome.release["results"].get(f"{question.id}@{hub}", {}).get("variables")
            if found:
                counted = next(iter(found.values()))
                n, missing = counted["n"], counted["missing"]
                return NoisyCount(n["value"] + missing["value"], math.hypot(n["noise_se"], missing["noise_se"]))
    return None


def _budget(ledger: Mapping[str, Any] | None, dataset: str) -> Budget | None:
    account = next((a for a in (ledger or {}).get("datasets", []) if a["name"] == dataset), None)
    if account is None:
        return None
    return Budget(
        epsilon=account["epsilon_noised"],
        epsilon_left=account["epsilon_left"],
        odds_factor=math.exp(min(account["odds"], 50.0)),
        sentence=account["sentence"],
        unbounded=account["unbounded"],
    )


def _traffic(rows: Sequence[Mapping[str, Any]]) -> tuple[TrafficRow, ...]:
    """Studies together, one row per sender, recipient and kind."""
    total: dict[tuple[str, str, str], tuple[int, int]] = {}
    for row in rows:
        at = (row["sender"], row["recipient"], row["kind"])
        messages, size = total.get(at, (0, 0))
        total[at] = (messages + row["messages"], size + row["bytes"])
    return tuple(TrafficRow(*at, *counts, FIELDS.get(at[2], "")) for at, counts in sorted(total.items()))
