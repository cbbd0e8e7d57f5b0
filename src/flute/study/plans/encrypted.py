"""Plan `threshold-he` as a study uses it: a hub's side and the coordinator's.

Each party derives the key's and the sums' terms from the signed agreement, the roster and the question it admitted,
so that nobody can be told other terms. A hub stores its new state before an answer is handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds
from flute.defaults.threshold import MAX_TOTAL
from flute.errors import Cheating, Malformed, OutOfOrder, WrongStudy
from flute.messages.question import EncryptedQuestion, KeyCall
from flute.messages.threshold import (
    Contribution,
    KeyCommitment,
    KeyComplaint,
    KeyConfirmation,
    KeyDealing,
    KeyDealtShare,
    KeyTerms,
    OpeningShare,
    SumTerms,
)
from flute.primitives.keys import SigningKey, digest
from flute.study.agreement import Agreement
from flute.study.plans.sides import hub_keys
from flute.study.plans.talk import HELLO_RAND_SIZE, Program, Talk, session_digest
from flute.threshold import ceremony, encryption, opening, totals
from flute.threshold.keys import KeyShare, PublicKey, decode_key, encode_key
from flute.trust.roster import Roster

S = TypeVar("S", bound=Struct)
Confirmed = KeyConfirmation | KeyComplaint


class _Dealt(Struct, frozen=True):
    """What a hub says to one other hub in the second step of a ceremony. share: for that hub alone."""

    dealing: KeyDealing
    share: KeyDealtShare


class _Stored(Struct, frozen=True):
    """One record per study in the hub's secret store; empty where there is nothing yet.

    sum, contribution: of the newest question alone: an older one cannot be opened any more.
    """

    ceremony: bytes = b""
    key: bytes = b""
    sum: bytes = b""
    contribution: bytes = b""

    def __repr__(self) -> str:
        return "<_Stored: secret>"


def key_terms(agreement: Agreement, agreement_digest: bytes, roster: Roster, attempt: int) -> KeyTerms:
    """Who shares the study's key under which rules, as the agreement and the roster say."""
    hubs = tuple(sorted(agreement.hubs))
    return KeyTerms(
        study=agreement.study,
        agreement=agreement_digest,
        roster=roster.digest,
        roster_version=roster.version,
        hubs=hubs,
        threshold=openers(agreement),
        colluding=agreement.plan.colluding,
        contributors_min=len(hubs),
        attempt=attempt,
    )


def openers(agreement: Agreement) -> int:
    """k: how many hubs have to agree before a total opens."""
    return agreement.plan.openers or max(agreement.plan.colluding + 1, 2)


def sum_terms(asked: EncryptedQuestion, public: PublicKey, size: int, bounds: Bounds) -> SumTerms:
    return SumTerms(
        key=public.digest(),
        question=digest(b"flute/encrypted-question/v1", msgspec.msgpack.encode(asked)),
        round=asked.round,
        size=size,
        bound=min(bounds.total, MAX_TOTAL),
        contributors=public.terms.hubs,
    )


class EncryptedSide:
    """A hub in one study. `load` and `save` reach its secret store; `save` returns once it is on disk."""

    def __init__(
        self,
        me: str,
        agreement: Agreement,
        agreement_digest: bytes,
        roster: Roster,
        *,
        load: Callable[[], bytes | None],
        save: Callable[[bytes], None],
        key: SigningKey,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._me = me
        self._agreement = agreement
        self._digest = agreement_digest
        self._roster = roster
        self._keys = hub_keys(agreement, roster)
        self._load = load
        self._save = save
        self._key = key
        self._entropy = entropy

    # --- the key -----------------------------------------------------------------------------------

    def key_talk(self, call: KeyCall) -> Talk[PublicKey]:
        """This hub's end of making the study's key; an earlier attempt, and what came out of it, is given up.

        Raises, as the talk goes on: Cheating: names whose message was bad. Equivocation, BadSignature, Malformed."""
        terms = key_terms(self._agreement, self._digest, self._roster, call.attempt)
        about = digest(b"flute/key-call/v1", msgspec.msgpack.encode(call))
        session = session_digest(self._digest, self._roster.digest, terms.hubs, about)
        rand = self._entropy(HELLO_RAND_SIZE)
        return Talk(
            self._me, terms.hubs, session, self._keys, self._key, rand, lambda: self._make_key(terms)
        )  # fmt: skip

    def _make_key(self, terms: KeyTerms) -> Program[PublicKey]:
        me, keys, key = self._me, self._keys, self._key
        state, commitment = ceremony.begin(
            me, terms, rand=self._entropy(ceremony.rand_size(terms)), key=key, previous=self._given_up()
        )
        self._keep(state)
        heard = yield self._to_all(commitment)
        commitments = [commitment, *_read_all(heard, KeyCommitment)]
        state, dealing, shares = ceremony.deal(state, commitments, keys=keys, key=key)
        self._keep(state)
        heard = yield {
            terms.hubs.index(share.holder) + 1: msgspec.msgpack.encode(_Dealt(dealing, share)) for share in shares
        }
        dealt = _read_all(heard, _Dealt)
        state, answer = ceremony.confirm(
            state, [dealing, *(d.dealing for d in dealt)], [d.share for d in dealt], keys=keys, key=key
        )
        self._keep(state)
        heard = yield self._to_all(answer)
        said = [answer, *(_read(raw, Confirmed) for raw in heard.values())]
        for complaint in (c for c in said if isinstance(c, KeyComplaint)):
            self._keep(ceremony.end(state))
            ceremony.judge(terms, complaint, keys=keys)
        state, held = ceremony.finish(state, [c for c in said if isinstance(c, KeyConfirmation)], keys=keys)
        self._save(msgspec.msgpack.encode(_Stored(ceremony.encode_ceremony(state), encode_key(held))))
        return held.public

    def _given_up(self) -> ceremony.Ceremony | None:
        stored = self._stored()
        return ceremony.end(ceremony.decode_ceremony(stored.ceremony)) if stored.ceremony else None

    def _keep(self, state: ceremony.Ceremony) -> None:
        """A key of an earlier attempt goes with it."""
        self._save(msgspec.msgpack.encode(_Stored(ceremony.encode_ceremony(state))))

    def _to_all(self, message: Struct) -> dict[int, bytes]:
        raw = msgspec.msgpack.encode(message)
        return {place: raw for place, hub in enumerate(sorted(self._agreement.hubs), 1) if hub != self._me}

    def public_key(self) -> PublicKey:
        """Raises: OutOfOrder: there is none yet, or it was made under an older roster."""
        return self._held().public

    # --- sums --------------------------------------------------------------------------------------

    def check_key(self, asked: EncryptedQuestion) -> None:
        """Before anything is charged. Raises: OutOfOrder, WrongStudy: the question speaks of another key."""
        if asked.key != self.public_key().digest():
            raise WrongStudy(f"The question is to be answered under another key than {self._me} has a part of.")

    def contribute(self, asked: EncryptedQuestion, vector: NDArray[np.int64], bounds: Bounds) -> Contribution:
        """This hub's covered vector, encrypted; once per question. Raises: MisuseError: a number beyond bounds."""
        held, stored = self._held(), self._stored()
        terms = sum_terms(asked, held.public, vector.size, bounds)
        state = encryption.SumState(self._me, terms)
        if stored.sum and (known := encryption.decode_sum(stored.sum)).terms == terms:
            state = known  # it contributed; twice it does not, whatever the ledger says
        state, message = encryption.contribute(
            state,
            [int(v) for v in vector],
            public=held.public,
            rand=self._entropy(encryption.rand_size(vector.size)),
            key=self._key,
        )
        raw = msgspec.msgpack.encode(message)
        changed = msgspec.structs.replace(stored, sum=encryption.encode_sum(state), contribution=raw)
        self._save(msgspec.msgpack.encode(changed))
        return message

    def open(self, contributions: Iterable[Contribution]) -> OpeningShare:
        """This hub's part of opening the newest sum, which it adds up itself. Raises: as `add_up` and `share`."""
        held, stored = self._held(), self._stored()
        if not stored.sum:
            raise OutOfOrder(f"{self._me} has answered no question of study {self._agreement.study} yet.")
        state = encryption.decode_sum(stored.sum)
        summed = opening.add_up(state.terms, contributions, public=held.public, keys=self._keys)
        state, share = opening.share(
            state, held, summed, rand=self._entropy(opening.SHARE_RAND_SIZE), key=self._key
        )  # fmt: skip
        self._save(msgspec.msgpack.encode(msgspec.structs.replace(stored, sum=encryption.encode_sum(state))))
        return share

    def _held(self) -> KeyShare:
        stored = self._stored()
        if not stored.key:
            raise OutOfOrder(f"{self._me} has no part of a key for study {self._agreement.study} yet.")
        held = decode_key(stored.key)
        if held.public.terms.roster != self._roster.digest:
            raise OutOfOrder(
                f"The key of study {self._agreement.study} was made under an older roster; make another."
            )
        return held

    def _stored(self) -> _Stored:
        raw = self._load()
        return _Stored() if raw is None else msgspec.msgpack.decode(raw, type=_Stored)


# --- the coordinator's side ------------------------------------------------------------------------


def agreed_key(reported: Mapping[str, PublicKey]) -> PublicKey:
    """The study's public key, which all hubs report alike. Raises: Cheating: they do not."""
    (first, *others) = reported.values()
    if any(other.digest() != first.digest() for other in others):
        raise Cheating("Hubs report different public keys of one ceremony; at least one of them lies.")
    return first


def opened_total(
    asked: EncryptedQuestion,
    public: PublicKey,
    size: int,
    bounds: Bounds,
    contributions: Iterable[Contribution],
    shares: Iterable[OpeningShare],
    keys: Mapping[str, bytes],
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The total int64 [size], noise and all, and the hubs whose shares were wrong.

    Raises: Cheating, TooFewHubs, BadTotal: names who is at fault."""
    terms = sum_terms(asked, public, size, bounds)
    summed = opening.add_up(terms, contributions, public=public, keys=keys)
    opened = opening.combine(public, summed, shares, keys=keys)
    return np.array(totals.read_totals(opened.elements, bound=terms.bound), dtype=np.int64), opened.wrong


def _read(raw: bytes, kind: object) -> Confirmed:
    try:
        return msgspec.msgpack.decode(raw, type=kind)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("A message of the key ceremony is none.") from error


def _read_all(heard: Mapping[int, bytes], kind: type[S]) -> list[S]:
    return [_read(raw, kind) for raw in heard.values()]  # type: ignore[misc]
