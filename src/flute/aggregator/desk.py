"""The aggregator's desk: one message in, one message out. All that it knows is in memory, and ends with its round."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from flute.aggregator.duty import read_duty
from flute.defaults.enclaves import MAX_CALL_BYTES, MAX_DUTY_BYTES, MAX_OPEN_ROUNDS
from flute.enclaves.aggregator import OFFER_RAND_SIZE, Aggregator
from flute.errors import Cheating, FluteError, Malformed, NotPossible, OutOfOrder, TooLarge
from flute.messages.enclave import (
    AggregatorAnswer,
    AggregatorCall,
    AggregatorKeys,
    EnclaveBegin,
    EnclaveBox,
    EnclaveDuty,
    EnclaveFinish,
    EnclaveGivenUp,
    EnclaveOffer,
    EnclaveRefused,
    EnclaveTaken,
)

LOG = logging.getLogger("flute.aggregator")
_CALLS: Final = msgspec.msgpack.Decoder(AggregatorCall)


class EvidenceSource(Protocol):
    """The platform's word on what runs here."""

    def evidence(self, report_data: bytes) -> tuple[bytes, bytes]:
        """Evidence that binds these 64 bytes, and its collateral (empty where none is needed).

        Raises: EvidenceError: the platform gives none; the text says what to do."""
        ...


class Desk:
    """One aggregator, by its name in agreements and roster. Calls take turns.

    Rounds are kept by what they offered until they begin, then by their context; the oldest makes room for a new one,
    so a coordinator that went away blocks nobody, and no key outlives its use.
    """

    def __init__(self, name: str, source: EvidenceSource, entropy: Callable[[int], bytes]) -> None:
        self._name, self._source, self._entropy = name, source, entropy
        self._offered: dict[AggregatorKeys, Aggregator] = {}
        self._begun: dict[bytes, Aggregator] = {}
        self._turn = threading.Lock()

    def answer(self, raw: bytes) -> bytes:
        """What is said to a call. Errors of ours become `EnclaveRefused`; their texts hold no secret."""
        return msgspec.msgpack.encode(self._answered(raw))

    def _answered(self, raw: bytes) -> AggregatorAnswer:
        try:
            call = read_call(raw)
            with self._turn:
                return self._said(call)
        except Cheating as error:
            return EnclaveRefused(error.code, error.text, error.blamed)
        except FluteError as error:
            return EnclaveRefused(error.code, error.text)

    def _said(self, call: AggregatorCall) -> AggregatorAnswer:
        match call:
            case EnclaveDuty():
                return self._offer(call)
            case EnclaveBegin():
                return self._begin(call)
            case EnclaveBox():
                return self._round(call.ctx).take(call)
            case EnclaveFinish():
                return self._round(call.ctx).finish()
            case EnclaveGivenUp():
                self._round(call.ctx).close()
                del self._begun[call.ctx]
                return call

    def _offer(self, duty: EnclaveDuty) -> EnclaveOffer:
        if duty.aggregator != self._name:
            raise NotPossible(f"This is aggregator {self._name}; {duty.aggregator} was asked for.")
        terms, keys = read_duty(duty)
        made = Aggregator(terms, keys, name=self._name, round_number=duty.round, rand=self._entropy(OFFER_RAND_SIZE))
        offer = made.offer(*self._source.evidence(made.report_data))
        _make_room(self._offered)
        self._offered[made.public] = made
        LOG.info("study %s, round %d: a key was offered", terms.study, duty.round)
        return offer

    def _begin(self, begin: EnclaveBegin) -> EnclaveTaken:
        mine = next((keys for keys in begin.keys if keys.aggregator == self._name), None)
        again = next((made for made in self._begun.values() if made.public == mine), None)
        if again is not None:
            return again.begin(begin)
        if mine is None or mine not in self._offered:
            raise OutOfOrder(f"Aggregator {self._name} has no such key (any more); ask it for an offer anew.")
        made = self._offered[mine]
        taken = made.begin(begin)
        del self._offered[mine]
        _make_room(self._begun)
        self._begun[taken.ctx] = made
        return taken

    def _round(self, ctx: bytes) -> Aggregator:
        try:
            return self._begun[ctx]
        except KeyError:
            raise OutOfOrder(f"Aggregator {self._name} has no such round (any more); begin it anew.") from None


def read_call(raw: bytes) -> AggregatorCall:
    """Raises: TooLarge. Malformed: none of the closed messages that an aggregator takes."""
    if len(raw) > MAX_CALL_BYTES + MAX_DUTY_BYTES:
        raise TooLarge(f"A call to an aggregator has at most {MAX_CALL_BYTES + MAX_DUTY_BYTES} bytes.")
    try:
        call: AggregatorCall = _CALLS.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("These bytes are no message that an aggregator takes.") from error
    return call


def _make_room(rounds: dict[AggregatorKeys, Aggregator] | dict[bytes, Aggregator]) -> None:
    while len(rounds) >= MAX_OPEN_ROUNDS:
        del rounds[next(iter(rounds))]  # type: ignore[arg-type]  # the oldest, of either kind
