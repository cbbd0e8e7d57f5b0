"""A study as people see it: where it stands, what came out, and the receipts that vouch for it."""

from __future__ import annotations

from typing import Any

import msgspec

from flute.coordinator.rounds import RoundRow, Rounds, StudyRow
from flute.coordinator.turns import CHARGED
from flute.defaults import DELTA
from flute.dp.odds import exact_sentence, odds_sentence
from flute.messages.answer import Receipt
from flute.messages.envelope import parse_envelope
from flute.messages.question import SurvivorsSaid
from flute.study.agreement import Agreement
from flute.study.files.check import Checked, checked_agreement
from flute.study.plans.quorum import missing
from flute.study.program import tracks
from flute.study.protection import study_budget
from flute.study.release import Release, ReleaseReceipt, analysis_plan_digest, make_receipt


def study_status(rounds: Rounds, row: StudyRow) -> dict[str, Any]:
    """State, consents and progress. `done` of `of`: questions with a result."""
    agreement = checked_agreement(row.agreement).agreement
    results = rounds.results(row.study)
    gone = missing_hubs(rounds, row)
    wanted = [t.reference for g in tracks(agreement) for t in g if t.party not in gone or t.reference in results]
    history = rounds.rounds(row.study)
    current = history[-1] if history else None
    return {
        "study": row.study,
        "title": agreement.title,
        "state": row.state,
        "why": row.why,
        "mode": agreement.mode,
        "consents": {hub: c["decision"] for hub, c in rounds.consents(row.study).items()},
        "missing": gone,
        "done": sum(reference in results for reference in wanted),
        "of": len(wanted),
        "rounds": len([r for r in history if r.state == "opened"]),
        "repeated": len([r for r in history if r.state == "failed"]),
        "now": None
        if current is None
        else {"question": current.question, "step": current.step, "state": current.state},
    }


def study_release(rounds: Rounds, row: StudyRow) -> Release:
    agreement = checked_agreement(row.agreement).agreement
    checked = checked_agreement(row.agreement)
    opened = [r for r in rounds.rounds(row.study) if r.state == "opened"]
    return Release(
        study=row.study,
        title=agreement.title,
        simulated=agreement.simulated,
        mode=agreement.mode,
        statement=privacy_statement(agreement),
        analysis_plan=analysis_plan_digest(agreement.questions),
        results=rounds.results(row.study),
        receipts=tuple(_receipt(rounds, row, checked, r) for r in opened),
        missing=missing_hubs(rounds, row),
    )


def missing_hubs(rounds: Rounds, row: StudyRow) -> dict[str, str]:
    """Hub to why it takes no part, or took none to the end; a consent withdrawn after the end changes nothing."""
    told = {
        hub: c["decision"]
        for hub, c in rounds.consents(row.study).items()
        if not row.ended_at or c["at"] <= row.ended_at
    }
    return missing(told)


def privacy_statement(agreement: Agreement) -> str:
    """What the whole study, as agreed, lets anyone learn about one patient."""
    if agreement.mode == "exact":
        return exact_sentence(0.0, DELTA)
    return odds_sentence(study_budget(agreement)[0], agreement.delta)


def study_times(rounds: Rounds, study: str) -> list[dict[str, Any]]:
    """Seconds per question, all its rounds together, in order."""
    seconds: dict[str, list[float]] = {}
    for r in rounds.rounds(study):
        seconds.setdefault(r.question, []).extend([r.began_at, r.ended_at or r.began_at])
    return [{"question": q, "seconds": max(times) - min(times)} for q, times in seconds.items()]


def _receipt(rounds: Rounds, row: StudyRow, checked: Checked, r: RoundRow) -> ReleaseReceipt:
    agreement = checked.agreement
    kinds = {hub: kind for hub, kind in rounds.exchanged(r.id, outgoing=False) if kind in CHARGED}
    receipts: dict[str, Receipt] = {}
    for hub in summed_hubs(rounds, r):
        answer = msgspec.msgpack.decode(rounds.answer(r.id, hub, kinds[hub]), type=CHARGED[kinds[hub]])
        receipts[hub] = answer.receipt
    return make_receipt(
        agreement,
        row.digest,
        agreement.question(r.question),
        r.step,
        checked.prices[r.question][r.step],
        roster_version=_roster_version(rounds, r),
        total=rounds.total(r.id),
        receipts=receipts,
    )


def summed_hubs(rounds: Rounds, r: RoundRow) -> tuple[str, ...]:
    """Whose answers are in an opened round's total: the survivor set that the hubs were told."""
    if r.party:
        return (r.party,)
    said = rounds.said(r.id, "survivors-said")
    if said is not None:
        return msgspec.msgpack.decode(said, type=SurvivorsSaid).survivors.hubs
    return tuple(sorted(hub for hub, kind in rounds.exchanged(r.id, outgoing=False) if kind in CHARGED))


def _roster_version(rounds: Rounds, r: RoundRow) -> int:
    """Under which roster a pooled round was asked; 0 for a hub's own answer."""
    for kind in ("secure-question", "joint-question", "encrypted-question", "split-question"):
        for message in rounds.messages(r.id, kind, outgoing=True):
            return parse_envelope(message.envelope).header.roster_version
    return 0
