"""Optional: proofs that encrypted numbers are in a small range, so that no hub can shift a total further than that.

A number less `low` is written in bits, each bit is encrypted, and of each it is proved that it is 0 or 1, without
saying which (Cramer, Damgård and Schoenmakers 1994: the challenge is split between the two claims, one of them is
simulated). Twice the encryption of the higher bits and the lowest one's make the cell's: so that one is not sent.

Per bit .35 to .5 ms of processor time to prove, .65 to .95 ms to check, and 155 bytes. So 1,000 cells of 10 bits take
4 s or more of their hub, 7 s or more of every other one, and 1.6 MB: for few cells, or where a hub is suspected.
Without it a hub can put any number into its own boxes: totals are then shifted by what it chose, or
refused as out of range, and nobody is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flute.defaults.threshold import MAX_PROVED_BITS, MAX_RANGE_BITS
from flute.errors import Cheating, Equivocation, Malformed, MisuseError
from flute.messages.threshold import Contribution, RangeProof, SumTerms
from flute.primitives.keys import SigningKey
from flute.threshold.context import blaming, check_signature, info, message_digest, signed, sum_context
from flute.threshold.group import (
    IDENTITY,
    ORDER,
    SIZE,
    WIDE,
    Element,
    add,
    hash_to_scalar,
    multiply,
    multiply_base,
    read_elements,
    read_scalar,
    scalars_from,
    slices,
    subtract,
    write_scalar,
)
from flute.threshold.keys import PublicKey

Cell = tuple[Element, Element]
"""A pad and a box."""
_ONE = multiply_base(1)
_SCALARS_PER_BIT = 4


@dataclass(frozen=True, slots=True)
class _Bit:
    """One encrypted bit as its prover knows it. r: of its pad. nonce: of the true claim; challenge, response: of the
    other one, which is simulated."""

    bit: int
    r: int
    nonce: int
    challenge: int
    response: int

    def cell(self, whole: Element) -> Cell:
        return multiply_base(self.r), add(multiply(self.r, whole), _ONE if self.bit else IDENTITY)

    def first(self, whole: Element) -> tuple[Element, ...]:
        """What is hashed: for the claim "0", then for "1"."""
        true = multiply_base(self.nonce), multiply(self.nonce, whole)
        moved = self.response - self.challenge * self.r
        sign = 1 if self.bit else -1
        shift = multiply_base(-sign * self.challenge)
        other = multiply_base(moved), add(multiply(moved, whole), shift)
        return (*other, *true) if self.bit else (*true, *other)

    def answer(self, challenge: int) -> tuple[int, int, int]:
        """The challenge's part for "0", and both responses."""
        mine = (challenge - self.challenge) % ORDER
        true = (self.nonce + mine * self.r) % ORDER
        return (self.challenge, self.response, true) if self.bit else (mine, true, self.response)


def rand_size(cells: int, bits: int) -> int:
    """Fresh random bytes that `prove` needs."""
    return WIDE * _SCALARS_PER_BIT * cells * bits


def prove(
    terms: SumTerms,
    contribution: Contribution,
    numbers: Sequence[int],
    *,
    low: int,
    bits: int,
    public: PublicKey,
    encryption_rand: bytes,
    rand: bytes,
    key: SigningKey,
) -> RangeProof:
    """encryption_rand: the bytes that `encryption.contribute` made this contribution from; they hold every r.
    rand: rand_size(size, bits) fresh bytes.

    Raises: MisuseError: a number outside the range, too many bits, or a wrong size.
    """
    _check_size(terms.size, bits)
    if len(numbers) != terms.size or not all(low <= number < low + 2**bits for number in numbers):
        raise MisuseError(f"Numbers of {low} up to {low + 2**bits - 1} were to be proved; others were given.")
    if len(rand) != rand_size(terms.size, bits):
        raise MisuseError(f"This proof takes {rand_size(terms.size, bits)} random bytes; another number was given.")
    *secrets, _ = scalars_from(encryption_rand, terms.size + 1)
    fresh = scalars_from(rand, _SCALARS_PER_BIT * terms.size * bits)
    split = [
        bit
        for i, (number, secret) in enumerate(zip(numbers, secrets, strict=True))
        for bit in _split(number - low, secret, fresh[_SCALARS_PER_BIT * bits * i :], bits)
    ]
    sent = [bit.cell(public.whole) for i, bit in enumerate(split) if i % bits]
    pads, boxes = (b"".join(cell[side] for cell in sent) for side in (0, 1))
    first = [element for bit in split for element in bit.first(public.whole)]
    named = message_digest(contribution)
    challenge = _challenge(sum_context(terms), contribution.hub, named, (low, bits), (pads, boxes), first)
    answers = [bit.answer(challenge) for bit in split]
    splits, zeros, ones = (b"".join(map(write_scalar, column)) for column in zip(*answers, strict=True))
    ctx, head = contribution.ctx, write_scalar(challenge)
    unsigned = RangeProof(ctx, contribution.hub, named, low, bits, pads, boxes, head, splits, zeros, ones, bytes(64))
    return signed(unsigned, key)


def check(
    terms: SumTerms,
    contribution: Contribution,
    proof: RangeProof,
    *,
    low: int,
    bits: int,
    public: PublicKey,
    keys: Mapping[str, bytes],
) -> None:
    """Is every number of this contribution one of low .. low + 2^bits - 1? The contribution's own proof was checked.

    Raises: Cheating: names its sender. Equivocation: of another contribution. BadSignature. MisuseError: too many
    bits.
    """
    _check_size(terms.size, bits)
    check_signature(proof, keys)
    named = message_digest(contribution)
    if (proof.ctx, proof.hub, proof.contribution) != (sum_context(terms), contribution.hub, named):
        raise Equivocation(f"The range proof of {proof.hub} is not for its contribution to this sum.")
    with blaming(proof.hub):
        if (proof.low, proof.bits) != (low, bits):
            raise Malformed("The range that it proves is not the one that was agreed.")
        cells = _all_bits(contribution, proof, terms.size)
        first = _first(cells, proof, public.whole)
    said = _challenge(proof.ctx, proof.hub, named, (low, bits), (proof.pads, proof.boxes), first)
    if said != read_scalar(proof.challenge):
        raise Cheating(f"{proof.hub} does not prove that its numbers are in the agreed range.", blamed=(proof.hub,))


def _check_size(cells: int, bits: int) -> None:
    if not 1 <= bits <= MAX_RANGE_BITS or cells * bits > MAX_PROVED_BITS:
        raise MisuseError(f"Up to {MAX_RANGE_BITS} bits a number and {MAX_PROVED_BITS} in all can be proved.")


def _split(number: int, secret: int, fresh: Sequence[int], bits: int) -> list[_Bit]:
    """Lowest bit first; its r is what makes the cells add up."""
    higher = [fresh[_SCALARS_PER_BIT * j] for j in range(1, bits)]
    lowest = secret - sum(r << j for j, r in enumerate(higher, 1))
    return [
        _Bit(number >> j & 1, r % ORDER, *fresh[_SCALARS_PER_BIT * j + 1 : _SCALARS_PER_BIT * (j + 1)])
        for j, r in enumerate([lowest, *higher])
    ]


def _challenge(
    ctx: bytes,
    hub: str,
    contribution: bytes,
    span: tuple[int, int],
    columns: tuple[bytes, bytes],
    first: Sequence[Element],
) -> int:
    words = [str(number).encode() for number in span]
    return hash_to_scalar(info("range"), ctx, hub.encode(), contribution, *words, *columns, b"".join(first))


def _all_bits(contribution: Contribution, proof: RangeProof, size: int) -> list[Cell]:
    """Cell by cell, lowest bit first. Raises: Malformed."""
    higher = proof.bits - 1
    sides = []
    for whole, column, shift in (
        (contribution.pads, proof.pads, IDENTITY),
        (contribution.boxes, proof.boxes, multiply_base(proof.low)),
    ):
        cells, sent = read_elements(whole, size), read_elements(column, size * higher)
        side: list[Element] = []
        for i, cell in enumerate(cells):
            mine = sent[higher * i : higher * (i + 1)]
            side += [_lowest(subtract(cell, shift), mine), *mine]
        sides.append(side)
    return list(zip(*sides, strict=True))


def _lowest(cell: Element, higher: Sequence[Element]) -> Element:
    """What is left of the cell when 2^j times the bit at j has been taken off, for all higher ones."""
    rest = IDENTITY
    for element in reversed(higher):
        rest = add(add(rest, rest), element)
    return subtract(cell, add(rest, rest))


def _first(cells: Sequence[Cell], proof: RangeProof, whole: Element) -> list[Element]:
    """What must have been hashed. Raises: Malformed."""
    challenge = read_scalar(proof.challenge)
    columns = []
    for column in (proof.splits, proof.zeros, proof.ones):
        if len(column) != SIZE * len(cells):
            raise Malformed("The range proof has answers for another number of bits.")
        columns.append([read_scalar(piece) for piece in slices(column, SIZE)])
    found: list[Element] = []
    for (pad, box), split, zero, one in zip(cells, *columns, strict=True):
        for part, response, target in ((split, zero, box), (challenge - split, one, subtract(box, _ONE))):
            found.append(subtract(multiply_base(response), multiply(part, pad)))
            found.append(subtract(multiply(response, whole), multiply(part, target)))
    return found
