"""Decisions on evidence as values: one case, changes of it that are signed anew, and the reason that comes out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec

from flute.attestation.appraise import Accepted, appraise
from flute.attestation.collateral import CcaCollateral, Collateral, TpmCollateral
from flute.attestation.evidence import parse
from flute.attestation.policy import AppraisalPolicy
from flute.attestation.roots import MAKERS, Roots
from flute.attestation.verify import verify
from flute.errors import EvidenceError
from support.evidence_issuer import DAY, NOW

MUTATIONS = 500
BOUND = bytes(range(64))


@dataclass(frozen=True)
class Case:
    """All that a decision is made from."""

    evidence: bytes
    collateral: Collateral | None
    policy: AppraisalPolicy
    roots: Roots
    now: int = NOW
    report_data: bytes = BOUND

    def decide(self) -> Accepted:
        found = verify(parse(self.evidence), collateral=self.collateral, now=self.now, roots=self.roots)
        return appraise(found, policy=self.policy, report_data=self.report_data)


Chance = random.Random
Change = Callable[[Any, Case, Chance], Case]
Table = list[tuple[str, Change]]


def reason_of(case: Case) -> str:
    try:
        case.decide()
    except EvidenceError as error:
        return error.reason
    return "accepted"


@cache
def base(issuer: Any) -> Case:
    return Case(issuer.evidence(BOUND), issuer.collateral(), issuer.policy(), issuer.roots)


def signed(**fields: Any) -> Change:
    """The evidence with other fields, signed anew. A value may be a function of chance."""

    def change(issuer: Any, case: Case, chance: Chance) -> Case:
        made = {name: value(chance) if callable(value) else value for name, value in fields.items()}
        return replace(case, evidence=issuer.evidence(BOUND, **made))

    return change


def under(**parts: Callable[[Any], Any]) -> Change:
    """The same evidence with other parts of its collateral."""

    def change(issuer: Any, case: Case, chance: Chance) -> Case:
        made = {name: part(issuer) for name, part in parts.items()}
        return replace(case, collateral=msgspec.structs.replace(case.collateral, **made))

    return change


def asking(**fields: Any) -> Change:
    def change(issuer: Any, case: Case, chance: Chance) -> Case:
        made = {name: value(issuer) if callable(value) else value for name, value in fields.items()}
        return replace(case, policy=issuer.policy(**made))

    return change


def digest(size: int) -> Callable[[Chance], bytes]:
    return lambda chance: chance.randbytes(size)


def bound_to_another_key(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, evidence=issuer.evidence(chance.randbytes(64)))


def replayed_for_another_key(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, report_data=chance.randbytes(64))


def without_section(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, policy=AppraisalPolicy(development=True))


def without_development(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, policy=msgspec.structs.replace(case.policy, development=False))


def other_technology(issuer: Any, case: Case, chance: Chance) -> Case:
    other: Collateral = TpmCollateral() if isinstance(case.collateral, CcaCollateral) else CcaCollateral(b"key")
    return replace(case, collateral=other)


COMMON: Table = [
    ("report-data", bound_to_another_key),
    ("report-data", replayed_for_another_key),
    ("kind", without_section),
    ("development", without_development),
    ("collateral-missing", other_technology),
]


def run(issuer: Any, table: Table, mutations: int, seed: str) -> Counter[str]:
    """Each change in turn, over and over; every one must come out as its row says. The unchanged case must pass."""
    case, chance = base(issuer), Chance(seed)
    assert case.decide().development
    reasons: Counter[str] = Counter()
    for number in range(mutations):
        expected, change = table[number % len(table)]
        found = reason_of(change(issuer, case, chance))
        assert found == expected, f"change {number % len(table)} ({expected}) came out as {found}"
        reasons[found] += 1
    return reasons


def passes(change: Change, issuer: Any, **allowed: Any) -> bool:
    """Whether a changed case is accepted once the policy allows what was changed."""
    case = change(issuer, base(issuer), Chance(1))
    return reason_of(replace(case, policy=issuer.policy(**allowed))) == "accepted"


def at_another_time(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, now=NOW + 401 * DAY + chance.randrange(10_000 * DAY))


def at_an_earlier_time(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, now=chance.randrange(NOW - 400 * DAY))


def for_makers_only(issuer: Any, case: Case, chance: Chance) -> Case:
    return replace(case, roots=MAKERS)
