"""Which patients are at more than one hub, without showing anybody a list.

Every identifier becomes a fingerprint and CHOICES places in a table of bins, all under a key that hubs have agreed on
and the coordinator lacks. A hub asks with a table that holds each of its patients once, in one of its places, and is
asked by a table that holds each patient in all of its places; empty slots hold numbers that never match. Where a bin
asks for a and answers b1, b2, ..., the product of all (a - b) is 0 exactly for a match. Its product with a random
factor shows whether it is 0 and nothing else; raised to p - 1 it is 0 for a match and 1 otherwise, still shared.

What a hub can try: as many identifiers as its asking table has bins, and whoever holds the key can guess names. The
sizes of tables say how many patients a hub admits to at most.
Sources: hashing to bins, Pinkas, Schneider, Segev and Zohner 2015, "Phasing"; cuckoo placement, Pagh and Rodler 2004.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.stats import binom

from flute.errors import MisuseError
from flute.joint.arithmetic import reveal
from flute.mpc.field import NARROW, NARROW_PRIME, Elements
from flute.mpc.party import Party
from flute.mpc.shares import Shares, concatenate
from flute.mpc.steps import Step
from flute.mpc.wire import Own
from flute.primitives.keys import KEY_SIZE
from flute.primitives.prg import PRG_KEY_SIZE, keystream

CHOICES: Final = 3
"""Places of a patient: with three, tables up to nine tenths full can be placed."""
BINS_PER_PATIENT: Final = 1.5
MIN_BINS: Final = 64
OVERFLOW: Final = 2.0**-40
"""Chance that some bin of an answering table has too few slots; the computation then stops before it begins."""
MAX_PATIENTS: Final = 100_000
FINGERPRINT_BITS: Final = 59
"""Two patients out of 1e5 at each of ten hubs have one fingerprint in one bin with probability 1e-9."""
RAND_SIZE: Final = PRG_KEY_SIZE
_P: Final = NARROW_PRIME
_LABEL: Final = b"flute/joint/overlap/v1/"


@dataclass(frozen=True, slots=True)
class HiddenLists:
    """All hubs' tables, shared. asking: by place [bins]; answering: by place [bins, slots]. mine: bin of each of this
    hub's identifiers, in the order given."""

    asking: dict[int, Shares]
    answering: dict[int, Shares]
    mine: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OverlapSizes:
    """pairs: how many patients two hubs have in common. repeated: how many entries of all lists are of patients that
    an earlier hub has too, so that all hubs together have the sum of their lists less this many patients."""

    pairs: dict[tuple[int, int], int]
    repeated: int


def hidden_lists(
    party: Party, identifiers: Sequence[bytes], *, key: bytes, capacity: int, rand: bytes
) -> Step[HiddenLists]:
    """Puts every hub's list under shares. Opens nothing.

    identifiers: this hub's, distinct, in the one form that all hubs write them in. key: KEY_SIZE bytes, the same at
    all hubs, for this purpose only. capacity: public, no hub has more patients. rand: RAND_SIZE fresh bytes.
    Costs: 2 rounds; bins (1 + slots) numbers of 8 bytes from each hub, bins = 1.5 capacity, about 20 slots.
    Raises: MisuseError: too many identifiers, two alike, a wrong key size, or a placement that fails (probability
    below 2^-39; agree on another key).
    """
    if not len(identifiers) <= capacity <= MAX_PATIENTS:
        raise MisuseError(f"A list has at most its capacity, and that is at most {MAX_PATIENTS}.")
    if len(key) != KEY_SIZE or len(rand) != RAND_SIZE:
        raise MisuseError(f"Hiding a list takes a key of {KEY_SIZE} bytes and {RAND_SIZE} fresh bytes.")
    if len(set(identifiers)) != len(identifiers):
        raise MisuseError("An identifier is on the list twice.")
    bins = max(MIN_BINS, ceil(BINS_PER_PATIENT * capacity))
    slots = slots_for(capacity, bins)
    prints, places = _hashed(identifiers, key, party.circle.context, bins)
    mine = _placed_once(places, bins)
    plain = np.concatenate(
        [_asking(prints, mine, bins, rand)[:, None], _answering(prints, places, bins, slots)], axis=1
    )
    tables = yield from _field_inputs(party, plain)
    return HiddenLists(
        {place: table[:, 0] for place, table in tables.items()},
        {place: table[:, 1:] for place, table in tables.items()},
        mine,
    )


def also_elsewhere(party: Party, lists: HiddenLists) -> Step[NDArray[np.bool_]]:
    """For each identifier of this hub whether any other hub has it too; each hub learns its own, nothing else opens.

    Costs: for each hub log2((n - 1) slots) + 7 rounds; bins slots (n - 1) narrow products.
    """
    found = np.zeros(0, dtype=np.bool_)
    for asker in sorted(lists.asking):
        answers = concatenate([lists.answering[place] for place in sorted(lists.answering) if place != asker], axis=1)
        product = yield from _products(party, lists.asking[asker], answers)
        blinded = yield from party.mul(product, (yield from _random(party, product.shape)))
        opened = yield from party.open(blinded, to=asker)
        if opened is not None:
            found = np.asarray(opened[lists.mine] == 0, dtype=np.bool_)
    return found


def overlap_sizes(party: Party, lists: HiddenLists) -> Step[OverlapSizes]:
    """How large overlaps are. Opens these numbers: one for each two hubs, and `repeated`.

    Costs: about 85 rounds; for each two hubs bins (slots + 70) narrow products.
    """
    pairs = list(combinations(sorted(lists.asking), 2))
    products = []
    for first, second in pairs:
        products.append((yield from _products(party, lists.asking[second], lists.answering[first])))
    bins = lists.asking[pairs[0][0]].shape[0]
    apart = (yield from _nonzero(party, concatenate(products))).reshape(len(pairs), bins)
    alone = []
    for hub in sorted(lists.asking)[1:]:
        ours = np.array([k for k, (_, second) in enumerate(pairs) if second == hub])
        alone.append((yield from _all_of(party, apart[ours].T)).sum().reshape(1))
    shown = yield from reveal(party, concatenate([apart.sum(1), *alone]))
    common = {pair: bins - int(count) for pair, count in zip(pairs, shown, strict=False)}
    return OverlapSizes(common, sum(bins - int(count) for count in shown[len(pairs) :]))


def slots_for(capacity: int, bins: int) -> int:
    """Slots of an answering bin, so that any of them overflows with probability below OVERFLOW."""
    return int(binom.isf(OVERFLOW / bins, CHOICES * capacity, 1 / bins)) + 1


def _hashed(
    identifiers: Sequence[bytes], key: bytes, context: bytes, bins: int
) -> tuple[Elements, NDArray[np.int64]]:
    """Fingerprints [n] below 2^FINGERPRINT_BITS, and places [n, CHOICES]."""
    words = np.zeros((len(identifiers), 1 + CHOICES), dtype=np.uint64)
    for row, identifier in enumerate(identifiers):
        tag = hmac.digest(key, _LABEL + len(context).to_bytes(8, "big") + context + identifier, "sha256")
        words[row] = np.frombuffer(tag, dtype="<u8")
    prints = words[:, 0] >> np.uint64(64 - FINGERPRINT_BITS)
    return prints, (words[:, 1:] % np.uint64(bins)).astype(np.int64)


def _placed_once(places: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    """A bin of its own for each, among its places: a maximum matching."""
    count = len(places)
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    rows = np.repeat(np.arange(count), CHOICES)
    edges = csr_array((np.ones(rows.size, dtype=np.int8), (rows, places.reshape(-1))), shape=(count, bins))
    mine = np.asarray(maximum_bipartite_matching(edges, perm_type="column"), dtype=np.int64)
    if bool((mine < 0).any()):
        raise MisuseError("This list cannot be placed under this key. Agree on another one.")
    return mine


def _asking(prints: Elements, mine: NDArray[np.int64], bins: int, rand: bytes) -> Elements:
    """[bins]; an empty bin asks for what nobody can guess, or an answering table full of it would count them."""
    spare = np.frombuffer(keystream(rand, 8 * bins), dtype="<u8") >> np.uint64(64 - FINGERPRINT_BITS)
    table = spare.astype(np.uint64) + np.uint64(2 ** (FINGERPRINT_BITS + 1))
    table[mine] = prints
    return table


def _answering(prints: Elements, places: NDArray[np.int64], bins: int, slots: int) -> Elements:
    """[bins, slots]; an empty slot holds what no asking table holds."""
    table = np.full((bins, slots), 2**FINGERPRINT_BITS, dtype=np.uint64)
    used = np.zeros(bins, dtype=np.int64)
    for fingerprint, choices in zip(prints, places, strict=True):
        for place in set(choices.tolist()):
            if used[place] == slots:
                raise MisuseError("A bin of this list has too few slots under this key. Agree on another one.")
            table[place, used[place]] = fingerprint
            used[place] += 1
    return table


def _field_inputs(party: Party, plain: Elements) -> Step[dict[int, Shares]]:
    """Every hub's elements of the field, with any value that it likes: they are only compared. One round."""
    owners = range(1, party.hubs + 1)
    drawn = [party.chance.owned(_P, owner, plain.shape) for owner in owners]
    own = [
        Own(o, _P, plain.shape, None if m is None else _P.add(plain, m))
        for o, (_, m) in zip(owners, drawn, strict=True)
    ]
    key = np.asarray(party.products.key[0])
    reduced = yield from party.products.reduce([(_P, _P.mul(mask, key)) for mask, _ in drawn], own=own)
    result = {}
    for owner, shown, (mask, _), mac in zip(owners, reduced.opened.own, drawn, reduced.products, strict=True):
        value, check = _P.sub(shown, mask), _P.sub(_P.mul(shown, key), mac)
        party.products.remember(_P, value, check)
        result[owner] = Shares(NARROW, (value,), (check,), party.products.key[:1])
    return result


def _random(party: Party, shape: tuple[int, ...]) -> Step[Shares]:
    """Uniform elements that nobody knows; one of them is 0 with probability 2^-61. One round."""
    value = party.chance.element(_P, shape)
    reduced = yield from party.products.reduce([(_P, _P.mul(value, np.asarray(party.products.key[0])))])
    party.products.remember(_P, value, reduced.products[0], certain=True)
    return Shares(NARROW, (value,), (reduced.products[0],), party.products.key[:1])


def _products(party: Party, asked: Shares, answers: Shares) -> Step[Shares]:
    """[bins] the product over a bin's answers b of (a - b). ceil(log2 answers) rounds."""
    return (yield from _all_of(party, asked.reshape(-1, 1) - answers))


def _all_of(party: Party, factors: Shares) -> Step[Shares]:
    """[rows] the product along the second axis."""
    while factors.shape[1] > 1:
        pairs = factors.shape[1] // 2
        joined = yield from party.mul(factors[:, 0 : 2 * pairs : 2], factors[:, 1 : 2 * pairs : 2])
        factors = concatenate([joined, factors[:, 2 * pairs :]], axis=1)
    return factors[:, 0]


def _nonzero(party: Party, x: Shares) -> Step[Shares]:
    """x^(p - 1): 0 for 0, else 1. p - 1 = 2 (2^60 - 1), whose ones are doubled again and again: 67 rounds."""
    power, ones = x, 1
    for bit in bin(_P.bits - 1)[3:]:
        raised = power
        for _ in range(ones):
            raised = yield from party.mul(raised, raised)
        power, ones = (yield from party.mul(raised, power)), 2 * ones
        if bit == "1":
            power, ones = (yield from party.mul((yield from party.mul(power, power)), x)), ones + 1
    return (yield from party.mul(power, power))
