"""What the steward sees of the hub: datasets, studies, budget in plain words. Counts and prices, no record."""

from __future__ import annotations

from typing import Any

import flute
from flute.dp.ceiling import odds_of
from flute.dp.odds import exact_sentence, odds_sentence
from flute.errors import OutOfOrder
from flute.hub.parts import Parts
from flute.hub.rounds import own_code
from flute.hub.store import StudyEntry
from flute.ledger.budgets.budget import Level, Standing
from flute.primitives.keys import fingerprint
from flute.questions.code import code_digest
from flute.study.agreement import Agreement, read_agreement
from flute.study.cautions import cautions
from flute.study.files.check import Checked, checked_agreement
from flute.study.plans.encrypted import openers
from flute.study.protection import epsilon_at, sights
from flute.study.threats import promised


def hub_status(parts: Parts) -> dict[str, Any]:
    return {
        "hub": parts.me,
        "version": flute.__version__,
        "fingerprint": fingerprint(parts.signing.public),
        "code": code_digest().hex(),
        "roster": _roster_view(parts),
        "journal": {"lines": parts.journal.last.line, "head": parts.journal.last.digest.hex()},
        "policy": parts.store.policy().sentence,
        "datasets": [
            {"name": d.name, "snapshot": d.snapshot.hex(), "simulated": d.simulated, "report": d.report}
            for d in parts.store.datasets()
        ],
        "studies": [{"study": s.study, "state": s.state} for s in parts.store.studies()],
    }


def _roster_view(parts: Parts) -> dict[str, Any] | None:
    """None for a hub that has not joined a federation yet."""
    if not parts.trust.joined:
        return None
    return {"version": parts.trust.roster.version, "fresh_until": parts.trust.roster.fresh_until}


def study_view(parts: Parts, study: str) -> dict[str, Any]:
    """A study as its steward has to judge it. Raises: WrongStudy."""
    entry = parts.store.study(study)
    checked = checked_agreement(entry.agreement)
    return {
        "state": entry.state,
        "digest": entry.digest.hex(),
        "agreement": agreement_view(checked, parts.me),
        "budget": standing_view(parts, entry, checked.agreement),
        "key": _key_view(parts, entry, checked.agreement),
    }


def _key_view(parts: Parts, entry: StudyEntry, agreement: Agreement) -> dict[str, Any] | None:
    """The key that encrypts a study's answers; None under other plans. made: False before the hubs made it, or since
    the roster changed."""
    if agreement.plan.name != "threshold-he":
        return None
    found: dict[str, Any] = {"openers": openers(agreement), "hubs": sorted(agreement.hubs), "made": False}
    try:
        public = parts.encrypted(entry).public_key()
    except OutOfOrder:
        return found
    return found | {"made": True, "fingerprint": fingerprint(public.digest()), "attempt": public.terms.attempt}


def agreement_view(checked: Checked, hub: str) -> dict[str, Any]:
    agreement = checked.agreement
    conditions = agreement.conditions[hub]
    return {
        "title": agreement.title,
        "purpose": agreement.purpose,
        "researcher": agreement.researcher,
        "hubs": list(agreement.hubs),
        "legal_basis": conditions.legal_basis,
        "ethics_approval": conditions.ethics_approval,
        "retain_until": conditions.retain_until,
        "period": [agreement.starts, agreement.ends],
        "fields": list(agreement.fields()),
        "questions": [
            {"id": q.id, "algorithm": q.what.__struct_config__.tag, "scope": q.scope, "share": q.share}
            for q in agreement.questions
        ],
        "mode": agreement.mode,
        "epsilon": agreement.epsilon,
        "delta": agreement.delta,
        "numbers": checked.numbers if agreement.mode == "exact" else 0,
        "plan": f"{checked.plan.name}: {checked.plan.summary}",
        "guarantees": [
            {
                "parties": c.parties,
                "enclaves": c.enclaves,
                "holds": c.holds,
                "because": c.because,
                "assumes": c.assumes,
                "residual": c.residual,
            }
            for c in promised(agreement)
        ],
        "cautions": list(cautions(agreement)),
        "own_code": own_code.shown(agreement),
        "onlookers": [
            {"who": s.who, "epsilon": s.epsilon, "says": s.says} for s in sights(agreement, checked.prices)
        ],
        "unaudited": "The protocol has not been reviewed by anyone outside the project: UNAUDITED.",
        "simulated": agreement.simulated,
    }


def ledger_view(parts: Parts) -> dict[str, Any]:
    """Every account, in epsilon and in words."""
    studies = [standing_view(parts, s, read_agreement(s.agreement)) for s in parts.store.studies()]
    datasets = [
        _words(parts.ledger.account(Level.PERSONS, d.name), parts.store.policy().delta)
        for d in parts.store.datasets()
    ]
    return {"hub": parts.me, "studies": studies, "datasets": datasets}


def standing_view(parts: Parts, entry: StudyEntry, agreement: Agreement) -> dict[str, Any]:
    delta = agreement.delta or parts.store.policy().delta
    return _words(parts.ledger.account(Level.STUDY, entry.study), delta)


def _words(account: Standing, delta: float) -> dict[str, Any]:
    rho = account.reserved + account.settled
    sentence = exact_sentence(rho, delta) if account.unbounded else odds_sentence(rho, delta)
    left = account.left if account.left != float("inf") else None
    return {
        "level": account.level.value,
        "name": account.key,
        "rho": rho,
        "rho_left": left,
        "epsilon_left": None if left is None else _epsilon_more(rho, left, delta),
        "delta": delta,
        "epsilon": None if account.unbounded else epsilon_at(rho, delta),
        "epsilon_noised": epsilon_at(rho, delta),
        "odds": odds_of(rho, delta),
        "exact_numbers": account.exact_numbers,
        "unbounded": account.unbounded,
        "sentence": sentence if rho > 0 or account.unbounded else "Nothing was asked yet: nothing can be learnt.",
    }


def _epsilon_more(rho: float, left: float, delta: float) -> float:
    """How much epsilon may still grow: epsilon of all that may be spent, less that of what is spent."""
    return max(epsilon_at(rho + max(left, 0.0), delta) - epsilon_at(rho, delta), 0.0)
