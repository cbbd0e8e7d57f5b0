"""From the agreement's and the roster's bytes to what an aggregator may do: whose boxes, among which aggregators.

Hubs make their terms from their own copies with the same function. An aggregator checks the researcher's signature
and all forms; that hub owners signed this roster it need not check: the roster's digest is in its evidence, and a hub
that knows another roster seals nothing.
"""

from __future__ import annotations

from flute.messages.enclave import EnclaveDuty, EnclaveTerms
from flute.study.agreement import agreement_digest, check_agreement_signature, read_agreement
from flute.study.plans.enclaved import terms_of
from flute.trust.roster import Roster, read_content


def read_duty(duty: EnclaveDuty) -> tuple[EnclaveTerms, dict[str, bytes]]:
    """The terms, and every hub's roster key.

    Raises: Malformed, TooLarge: no agreement or no roster of ours. BadSignature: the researcher did not sign it.
    NotInRoster: the researcher or a hub. NotPossible: as `terms_of`.
    """
    agreement = read_agreement(duty.agreement)
    roster = Roster(read_content(duty.roster), threshold=1, fresh_until=0)
    check_agreement_signature(duty.agreement, duty.signature, roster.person(agreement.researcher).signing_key)
    terms = terms_of(agreement, agreement_digest(duty.agreement), roster)
    return terms, {hub: roster.hub(hub).signing_key for hub in terms.hubs}
