"""What a researcher may ask every hub about studies of its own, and what a hub then says of its ledger.

The question is signed by the researcher, the answer by the hub and bound to the question's nonce, since the
coordinator carries both and is not trusted with either: it can neither ask in a researcher's name, nor change an
answer, nor show an older one. Decisions and charges are bookkeeping: no charge depends on a record.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from flute.defaults.accounts import MAX_ASKED_STUDIES, PICO
from flute.errors import BadSignature
from flute.messages.limits import Code, Count, Digest, Name, PartyId, Seconds, Signature, StudyId
from flute.primitives.keys import SigningKey, digest, verify

NONCE_SIZE: Final = 16
_ASKED: Final = b"flute/accounts-call/v1"
_TOLD: Final = b"flute/accounts-told/v1"
_UNSIGNED: Final = bytes(64)
Nonce = Annotated[bytes, Meta(min_length=NONCE_SIZE, max_length=NONCE_SIZE)]


class AccountsCall(Struct, frozen=True, forbid_unknown_fields=True, tag="accounts-call"):
    """`studies`: runs that this person proposed; others are left out of the answer without a word."""

    federation: Name
    person: PartyId
    at: Seconds
    nonce: Nonce
    studies: Annotated[tuple[StudyId, ...], Meta(max_length=MAX_ASKED_STUDIES)]
    signature: Signature


class Spent(Struct, frozen=True, forbid_unknown_fields=True):
    """Charges per patient, rho in whole numbers of 1e-12, rounded up. reserved: of releases that have not ended.
    numbers: exact ones; unbounded: some were opened, so that no epsilon bounds what is learnt."""

    reserved: Count
    settled: Count
    numbers: Count
    unbounded: bool

    @property
    def rho(self) -> float:
        return (self.reserved + self.settled) / PICO


class StudyTold(Struct, frozen=True, forbid_unknown_fields=True):
    """One run. agreement: digest of the one that this hub knows. decision: granted, denied, withdrawn or asked.
    ended: the hub answers nothing of it any more. persons: whose budget it falls on, by the dataset's name."""

    study: StudyId
    agreement: Digest
    decision: Code
    decided_at: Seconds
    ended: bool
    persons: Name
    spent: Spent


class PersonsTold(Struct, frozen=True, forbid_unknown_fields=True):
    """The patients of one dataset. spent: by all studies and the catalogue; left: rho that further ones may spend,
    rounded down; numbers_left: exact numbers."""

    persons: Name
    spent: Spent
    left: Count
    numbers_left: Count


class AccountsTold(Struct, frozen=True, forbid_unknown_fields=True, tag="accounts-told"):
    """`line`: the newest line of the hub's journal when this was said. own: what all questions of this researcher
    spent, over whatever dataset of the hub."""

    hub: PartyId
    nonce: Nonce
    at: Seconds
    line: Count
    studies: Annotated[tuple[StudyTold, ...], Meta(max_length=MAX_ASKED_STUDIES)]
    persons: Annotated[tuple[PersonsTold, ...], Meta(max_length=MAX_ASKED_STUDIES)]
    own: Spent
    signature: Signature


def ask_accounts(
    key: SigningKey, person: str, federation: str, studies: tuple[str, ...], *, now: int, rand: bytes
) -> AccountsCall:
    """A signed question. rand: NONCE_SIZE fresh bytes."""
    unsigned = AccountsCall(federation, person, now, rand, studies, _UNSIGNED)
    return msgspec.structs.replace(unsigned, signature=key.sign(_to_sign(_ASKED, unsigned)))


def check_call(call: AccountsCall, public: bytes) -> None:
    """Raises: BadSignature: this person did not ask that."""
    _check(_ASKED, call, public, f"The question about accounts is not signed by {call.person}.")


def sign_told(told: AccountsTold, key: SigningKey) -> AccountsTold:
    unsigned = msgspec.structs.replace(told, signature=_UNSIGNED)
    return msgspec.structs.replace(told, signature=key.sign(_to_sign(_TOLD, unsigned)))


def check_told(told: AccountsTold, public: bytes) -> None:
    """Raises: BadSignature: this hub did not say that."""
    _check(_TOLD, told, public, f"What is said to be the accounts of {told.hub} is not signed by it.")


def _check(what: bytes, said: AccountsCall | AccountsTold, public: bytes, wrong: str) -> None:
    unsigned = msgspec.structs.replace(said, signature=_UNSIGNED)
    try:
        verify(public, said.signature, _to_sign(what, unsigned))
    except BadSignature as error:
        raise BadSignature(wrong) from error


def _to_sign(what: bytes, unsigned: AccountsCall | AccountsTold) -> bytes:
    return what + digest(msgspec.msgpack.encode(unsigned))
