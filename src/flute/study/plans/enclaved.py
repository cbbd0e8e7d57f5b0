"""Plans with enclaves as a study uses them: who adds up for whom, as the agreement and the roster say.

Hubs, the coordinator and every aggregator derive the same terms, each from its own copies: nobody can be told others.
"""

from __future__ import annotations

from flute.aggregation.context import context
from flute.aggregation.plan import PLANS
from flute.attestation.roots import MAKERS, Roots
from flute.enclaves import hub as hub_side
from flute.enclaves.context import check_terms
from flute.errors import NotPossible
from flute.messages.enclave import EnclaveTerms
from flute.messages.protocol import Start
from flute.messages.question import SplitQuestion
from flute.primitives.keys import digest
from flute.study.agreement import Agreement
from flute.study.plans.sides import step_digest
from flute.study.protection import Price
from flute.trust.roster import Roster

_MASKED = b"flute/masked-split/v1"


def terms_of(agreement: Agreement, agreement_digest: bytes, roster: Roster) -> EnclaveTerms:
    """Who adds up for whom. Raises: NotPossible: the agreement's plan has no enclaves, or its aggregators break a
    rule."""
    plan = PLANS.get(agreement.plan.name)
    if plan is None or not plan.enclaves:
        raise NotPossible(f"Study {agreement.study} is under plan {agreement.plan.name}, without aggregators.")
    terms = EnclaveTerms(
        study=agreement.study,
        agreement=agreement_digest,
        roster=roster.digest,
        roster_version=roster.version,
        hubs=tuple(sorted(agreement.hubs)),
        aggregators=agreement.plan.aggregators,
        simulated=agreement.simulated,
    )
    check_terms(terms)
    return terms


def split_digest(step: bytes, masked: Start | None) -> bytes:
    """Names one attempt at one step; aggregators and hubs must have been told the same.

    step: `sides.step_digest`. masked: message 0 of the masks below, if there are any: it is bound to this round among
    enclaves, so that what is masked for one round is never a part of another's sum.
    """
    return step if masked is None else digest(_MASKED, step, context(masked))


def asked_digest(asked: SplitQuestion) -> bytes:
    """`split_digest` of a question as it arrived."""
    step = step_digest(asked.agreement, asked.question, asked.step, asked.attempt, asked.parameters)
    return split_digest(step, asked.masked)


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
