"""Whether the keys that aggregators offer are in enclaves that the hub owners approved: each hub decides for itself.

1 names     one offer and one policy for each aggregator of the agreement, in its order, for this round 2 policy
its digest is the one that the roster approves; nobody else's word counts 3 evidence  parsed, verified, appraised
under that policy, bound to these keys and this round 4 labels    DEVELOPMENT evidence only where every record is
simulated 5 makers    no two of one maker, so that one maker's broken technology is not enough
"""

from __future__ import annotations

from collections.abc import Callable

from flute.attestation.appraise import Accepted, appraise
from flute.attestation.collateral import read_collateral
from flute.attestation.evidence import parse
from flute.attestation.policy import AppraisalPolicy, read_policy, write_policy
from flute.attestation.roots import MAKERS, Roots
from flute.attestation.verify import verify
from flute.enclaves.context import bound_data, policy_digest, policy_name, terms_digest
from flute.errors import Equivocation, EvidenceError, MisuseError, NotPossible, RejectedEvidence
from flute.messages.enclave import EnclaveOffer, EnclaveStart

Approved = Callable[[str], bytes]
"""Name to approved digest, as `Roster.approved`. Raises: CodeNotApproved."""


def accept_offers(
    start: EnclaveStart, *, approved: Approved, now: int, roots: Roots = MAKERS
) -> tuple[Accepted, ...]:
    """The acceptance of every aggregator's evidence, in the order of the terms.

    Args: start: its terms are the caller's own. now: Unix seconds. roots: anything but MAKERS is for tests.
    Raises: Equivocation: offers or policies are not those of this round (the coordinator's doing). CodeNotApproved:
    the roster approves no policy for an aggregator. NotPossible: what it approves is no policy. EvidenceError: the
    text begins with the aggregator's name, `reason` is the check's; "development", "same-maker": steps 4 and 5.
    """
    _require_names(start)
    accepted = tuple(
        _accept(start, offer, raw, approved, now, roots)
        for offer, raw in zip(start.offers, start.policies, strict=True)
    )
    _require_makers(start, accepted)
    return accepted


def approved_policy(aggregator: str, raw: bytes, approved: Approved) -> AppraisalPolicy:
    """The policy that hub owners approved for this aggregator. Raises: Equivocation, CodeNotApproved, NotPossible."""
    if policy_digest(raw) != approved(policy_name(aggregator)):
        raise Equivocation(
            f"The appraisal policy that came for aggregator {aggregator} is not the one that hub owners approved in "
            "this roster. Nothing is sealed to it; compare roster versions with the coordinator."
        )
    try:
        policy = read_policy(raw)
    except MisuseError as error:
        raise NotPossible(f"What hub owners approved for aggregator {aggregator}: {error.text}") from error
    if write_policy(policy) != raw:
        raise NotPossible(
            f"The policy that hub owners approved for aggregator {aggregator} is not in canonical form. Write it "
            "with `flute aggregator policy` and approve that digest."
        )
    return policy


def _require_names(start: EnclaveStart) -> None:
    names, terms = start.terms.aggregators, terms_digest(start.terms)
    if tuple(offer.aggregator for offer in start.offers) != names or len(start.policies) != len(names):
        raise Equivocation("The offers are not of the aggregators that the agreement names, in its order.")
    for offer in start.offers:
        if (offer.terms, offer.round) != (terms, start.round):
            raise Equivocation(
                f"The keys of aggregator {offer.aggregator} were made for another round, agreement or roster."
            )
    keys = {key for offer in start.offers for key in (offer.sealing_key, offer.signing_key)}
    if len(keys) != 2 * len(names):
        raise Equivocation("Two aggregators offer one key: they would be one.")


def _accept(
    start: EnclaveStart, offer: EnclaveOffer, raw: bytes, approved: Approved, now: int, roots: Roots
) -> Accepted:
    policy = approved_policy(offer.aggregator, raw, approved)
    try:
        collateral = read_collateral(offer.collateral) if offer.collateral else None
        verified = verify(parse(offer.evidence), collateral=collateral, now=now, roots=roots)
        accepted = appraise(verified, policy=policy, report_data=bound_data(start.terms, offer, start.round))
    except EvidenceError as error:
        raise type(error)(f"Aggregator {offer.aggregator}: {error.text}", reason=error.reason) from error
    if accepted.development and not start.terms.simulated:
        raise RejectedEvidence(
            f"Aggregator {offer.aggregator} shows DEVELOPMENT evidence, which keeps nobody out. It may add up "
            "simulated records only, and those of this study are real.",
            reason="development",
        )
    return accepted


def _require_makers(start: EnclaveStart, accepted: tuple[Accepted, ...]) -> None:
    if start.terms.simulated and all(a.development for a in accepted):
        return
    seen: dict[str, str] = {}
    for name, found in zip(start.terms.aggregators, accepted, strict=True):
        if found.maker in seen:
            raise RejectedEvidence(
                f"Aggregators {seen[found.maker]} and {name} both stand on technology of {found.maker}: who breaks "
                "that has both shares of every answer. Use another maker's for one of them.",
                reason="same-maker",
            )
        seen[found.maker] = name
