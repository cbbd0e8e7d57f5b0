"""A hub's numbers, encrypted under the shared key: exponential ElGamal.

Number m of a cell: a pad r·G and a box r·Y + m·G, with Y the public key and r fresh for each. Pads and boxes add up
cell by cell, so the sum of all hubs' is an encryption of the sum of their numbers. 64 bytes a number.
Source: ElGamal 1985; in the exponent as in Cramer, Gennaro and Schoenmakers 1997.

Noise is the caller's: what is given here is what a sum will show.

Why a contribution comes with a proof: without one, a hub that adds u times another's contribution to its own makes
the opened sum show that hub's numbers apart (tests/adversary/test_threshold_copies.py). So whoever contributes proves
that it knows every r, bound to its name and to this one sum. What it put into its boxes need not be proved for that:
then only its own part of the sum is spoilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from operator import index
from typing import Final

import msgspec
from msgspec.structs import replace

from flute.errors import MisuseError, OutOfOrder
from flute.messages.threshold import Contribution, SumTerms
from flute.primitives.keys import SigningKey
from flute.threshold.context import Secret, decode, message_digest, signed, sum_context
from flute.threshold.group import WIDE, add, multiply, multiply_base, scalars_from
from flute.threshold.keys import PublicKey
from flute.threshold.proofs import Cells, prove_pads


class Phase(StrEnum):
    READY = "ready"
    CONTRIBUTED = "contributed"
    OPENED = "opened"


class Event(StrEnum):
    CONTRIBUTE = "contribute"
    OPEN = "open"


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.READY, Event.CONTRIBUTE): Phase.CONTRIBUTED,
    (Phase.READY, Event.OPEN): Phase.OPENED,  # of a hub that holds a key share and contributes nothing
    (Phase.CONTRIBUTED, Event.OPEN): Phase.OPENED,
    (Phase.OPENED, Event.OPEN): Phase.OPENED,  # the very same sum again: after a crash
}
"""A hub contributes once per context, and opens one sum."""


class SumState(Secret, frozen=True, tag="threshold-sum"):
    """What a hub remembers of one sum. own: digest of its contribution; opened: of the sum it gave its share for."""

    me: str
    terms: SumTerms
    phase: Phase = Phase.READY
    own: bytes = b""
    opened: bytes = b""


def follow(state: SumState, event: Event) -> Phase:
    """Raises: OutOfOrder: the table has no such step."""
    try:
        return TRANSITIONS[state.phase, event]
    except KeyError:
        raise OutOfOrder(f"{state.me} cannot {event.value} now; for this sum it has {state.phase.value}.") from None


def check_sum_terms(terms: SumTerms, key: PublicKey) -> None:
    """Raises: MisuseError: another key, or not a sorted set of at least as many of its hubs as were agreed."""
    if terms.key != key.digest():
        raise MisuseError("The question speaks of another key than this hub's share is of.")
    hubs = terms.contributors
    if hubs != tuple(sorted(set(hubs))) or not set(hubs) <= set(key.terms.hubs):
        raise MisuseError("A sum is over hubs that share its key, each once, in order.")
    if len(hubs) < key.terms.contributors_min:
        raise MisuseError(
            f"A sum over {len(hubs)} hubs was asked for; the hubs agreed on {key.terms.contributors_min} or more."
        )


def rand_size(cells: int) -> int:
    """Fresh random bytes that `contribute` needs."""
    return WIDE * (cells + 1)


def contribute(
    state: SumState, numbers: Sequence[int], *, public: PublicKey, rand: bytes, key: SigningKey
) -> tuple[SumState, Contribution]:
    """This hub's numbers, encrypted; noise, if any, is in them. Once per sum: the caller keeps the message with the
    state, writes both to disk (fsync) before it leaves, and sends the very same again if need be.

    numbers: `size` integers within ±bound. rand: rand_size(size) fresh bytes, never stored. key: roster signing key.
    Raises: MisuseError: wrong size or range, terms that do not fit the key, a hub that is to contribute nothing.
    OutOfOrder: it contributed before; two encryptions with different noise would show both.
    """
    terms = state.terms
    check_sum_terms(terms, public)
    phase = follow(state, Event.CONTRIBUTE)
    if state.me not in terms.contributors:
        raise MisuseError(f"{state.me} contributes nothing to this sum.")
    whole_numbers = _whole_numbers(numbers, terms)
    if len(rand) != rand_size(terms.size):
        raise MisuseError(f"{terms.size} cells take {rand_size(terms.size)} random bytes; another number was given.")
    *secrets, nonce = scalars_from(rand, terms.size + 1)
    pads = b"".join(map(multiply_base, secrets))
    boxes = b"".join(
        add(multiply(r, public.whole), multiply_base(number))
        for r, number in zip(secrets, whole_numbers, strict=True)
    )
    cells = Cells(sum_context(terms), state.me, pads, boxes)
    challenge, response = prove_pads(cells, secrets, nonce)
    message = signed(Contribution(cells.ctx, state.me, pads, boxes, challenge, response, bytes(64)), key)
    return replace(state, phase=phase, own=message_digest(message)), message


def _whole_numbers(numbers: Sequence[int], terms: SumTerms) -> list[int]:
    """numpy's integers are whole numbers, fractions are not rounded. Raises: MisuseError."""
    try:
        whole = [index(number) for number in numbers]
    except TypeError as error:
        raise MisuseError("Only whole numbers can be encrypted; the caller rounds.") from error
    if len(whole) != terms.size or not all(-terms.bound <= number <= terms.bound for number in whole):
        raise MisuseError(f"This sum takes {terms.size} whole numbers within {terms.bound} of 0; others were given.")
    return whole


def encode_sum(state: SumState) -> bytes:
    """Bytes for the hub's store; one record per sum. Kept as long as the key is, since it is the once-only memory."""
    return msgspec.msgpack.encode(state)


def decode_sum(raw: bytes) -> SumState:
    """Raises: MisuseError: not a state of this version."""
    return decode(raw, SumState, "state of an encrypted sum")
