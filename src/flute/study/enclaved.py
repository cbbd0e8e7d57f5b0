"""Plan `enclave` as a study uses it: who adds up for whom, as the agreement and the roster say.

Hubs, the coordinator and every aggregator derive the same terms, each from its own copies: nobody can be told others.
"""

from __future__ import annotations

from flute.attestation.roots import MAKERS, Roots
from flute.enclaves import hub as hub_side
from flute.enclaves.context import check_terms
from flute.errors import NotPossible
from flute.messages.enclave import EnclaveTerms
from flute.messages.question import SplitQuestion
from flute.study.agreement import Agreement
from flute.study.protection import Price
from flute.study.sides import step_digest
from flute.trust.roster import Roster

PLAN = "enclave"


def terms_of(agreement: Agreement, digest: bytes, roster: Roster) -> EnclaveTerms:
    """Who adds up for whom. digest: the agreement's. Raises: NotPossible: the agreement is of another plan, or its
    aggregators break a rule."""
    if agreement.plan.name != PLAN:
        raise NotPossible(f"Study {agreement.study} is under plan {agreement.plan.name}, without aggregators.")
    terms = EnclaveTerms(
        study=agreement.study,
        agreement=digest,
        roster=roster.digest,
        roster_version=roster.version,
        hubs=tuple(sorted(agreement.hubs)),
        aggregators=agreement.plan.aggregators,
        simulated=agreement.simulated,
    )
    check_terms(terms)
    return terms


def asked_digest(asked: SplitQuestion) -> bytes:
    """Names one attempt at one step; aggregators and hubs must have been told the same."""
    return step_digest(asked.agreement, asked.question, asked.step, asked.attempt, asked.parameters)


def accepted(
    asked: SplitQuestion, agreement: Agreement, roster: Roster, price: Price, *, now: int, roots: Roots = MAKERS
) -> hub_side.Admitted:
    """Does this hub trust every aggregator that is to add up? Reads no record, charges nothing.

    Raises: Equivocation, CodeNotApproved, EvidenceError: names the aggregator and what to do; NotPossible.
    """
    return hub_side.admit(
        asked.start,
        terms=terms_of(agreement, asked.agreement, roster),
        layout=price.layout,
        question=asked_digest(asked),
        approved=roster.approved,
        now=now,
        roots=roots,
    )
