"""What the hub tells a researcher of its own studies: what was decided here, what was charged, what is left.

 1 federation, person   the question was signed for this federation, by an enrolled researcher
 2 signature, time      by that person, now: the coordinator cannot ask in anyone's name, nor keep questions in store
 3 whose                only studies that this person proposed; of others nothing is said, not even that they are here
 4 journal              that it was told, and to whom
No record is read, and nothing that is said depends on one: prices follow from agreements alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from flute.defaults import MAX_CLOCK_SKEW_S
from flute.defaults.accounts import PICO
from flute.errors import BadSignature, Stale, WrongStudy
from flute.hub.parts import NO_DIGEST, Parts
from flute.hub.store import StudyEntry
from flute.ledger.budgets.budget import Level, Standing
from flute.ledger.lines.entries import PersonAct
from flute.messages.accounts import (
    AccountsCall,
    AccountsTold,
    PersonsTold,
    Spent,
    StudyTold,
    check_call,
    sign_told,
)
from flute.study.agreement import Agreement, read_agreement
from flute.trust.roster import Role

_MOST = 2**62
_DECISIONS = {"proposed": "asked", "granted": "granted", "denied": "denied", "withdrawn": "withdrawn"}


def accounts_told(parts: Parts, call: AccountsCall, now: int) -> AccountsTold:
    """Raises: NotInRoster, NotAllowed, BadSignature, Stale: nothing is told."""
    _require_asker(parts, call, now)
    mine = list(_proposed_by(parts, call))
    parts.journal.append(PersonAct(call.person, "accounts-told", f"{len(mine)} studies"), now)
    told = AccountsTold(
        hub=parts.me,
        nonce=call.nonce,
        at=now,
        line=parts.journal.last.line,
        studies=tuple(_study(parts, entry, agreement) for entry, agreement in mine),
        persons=tuple(_persons(parts, name) for name in sorted({agreement.dataset for _, agreement in mine})),
        own=_spent(parts.ledger.account(Level.ASKER, call.person)),
        signature=bytes(64),
    )
    return sign_told(told, parts.signing)


def _require_asker(parts: Parts, call: AccountsCall, now: int) -> None:
    """Steps 1 and 2."""
    roster = parts.trust.roster
    if call.federation != roster.content.federation:
        raise BadSignature(f"A question about accounts was signed for {call.federation}, another federation.")
    person = roster.require_role(call.person, Role.RESEARCHER)
    check_call(call, person.signing_key)
    if abs(now - call.at) > MAX_CLOCK_SKEW_S:
        raise Stale(f"The question of {call.person} about accounts is of another time; compare the clocks, ask anew.")


def _proposed_by(parts: Parts, call: AccountsCall) -> Iterable[tuple[StudyEntry, Agreement]]:
    for study in dict.fromkeys(call.studies):
        try:
            entry = parts.store.study(study)
        except WrongStudy:
            continue
        agreement = read_agreement(entry.agreement)
        if agreement.researcher == call.person:
            yield entry, agreement


def _study(parts: Parts, entry: StudyEntry, agreement: Agreement) -> StudyTold:
    granted = "granted" if entry.snapshot != NO_DIGEST else "asked"
    return StudyTold(
        study=entry.study,
        agreement=entry.digest,
        decision=_DECISIONS.get(entry.state, granted),
        decided_at=entry.decided_at,
        ended=entry.state not in ("proposed", "granted"),
        persons=agreement.dataset,
        spent=_spent(parts.ledger.account(Level.STUDY, entry.study)),
    )


def _persons(parts: Parts, name: str) -> PersonsTold:
    account = parts.ledger.account(Level.PERSONS, name)
    left, numbers = account.left * PICO, account.numbers_left
    return PersonsTold(name, _spent(account), int(min(max(left, 0), _MOST)), int(min(max(numbers, 0), _MOST)))


def _spent(account: Standing) -> Spent:
    reserved, settled = (min(math.ceil(rho * PICO), _MOST) for rho in (account.reserved, account.settled))
    return Spent(reserved, settled, account.exact_numbers, account.unbounded)
