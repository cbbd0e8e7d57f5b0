"""Cell D, optional: a hub that puts a number into its boxes that its patients cannot make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.adversary.threshold_hubs import STEPS, Chance, Sum, keyed

from flute.errors import BadSignature, Cheating, Equivocation, MisuseError
from flute.messages.threshold import Contribution, RangeProof
from flute.threshold import encryption, opening, ranges, totals
from flute.threshold.context import signed
from flute.threshold.encryption import SumState
from flute.threshold.group import ORDER, Element, add, multiply, multiply_base, read_scalar, subtract, write_scalar

LOW, BITS = -4, 4
INSIDE = [-4, 0, 11]


def run_of(numbers: list[int], round: int = 1) -> Sum:
    return Sum(keyed(), dict.fromkeys(keyed().terms.hubs, numbers), bound=2**20, round=round)


def sent(
    numbers: list[int], claimed: list[int] | None = None, round: int = 1, **bounds: int
) -> tuple[Sum, Contribution, RangeProof]:
    """hub-c encrypts `numbers`, and proves what it can for `claimed`."""
    run = run_of(numbers, round)
    rand = Chance(("range", round))(encryption.rand_size(len(numbers)))
    key = run.group.signing["hub-c"]
    state, message = encryption.contribute(
        SumState("hub-c", run.terms), numbers, public=run.group.public, rand=rand, key=key
    )
    run.keep(state)
    span = {"low": LOW, "bits": BITS, **bounds}
    fresh = Chance(("fresh", round))(ranges.rand_size(len(numbers), span["bits"]))
    proof = ranges.prove(
        run.terms, message, numbers if claimed is None else claimed, public=run.group.public, encryption_rand=rand,
        rand=fresh, key=key, **span,
    )  # fmt: skip
    return run, message, proof


def check(run: Sum, message: Contribution, proof: RangeProof, **bounds: int) -> None:
    span = {"low": LOW, "bits": BITS, **bounds}
    ranges.check(run.terms, message, proof, public=run.group.public, keys=run.group.keys, **span)


@pytest.mark.parametrize(("low", "bits"), [(-4, 4), (0, 4), (-1000, 10), (0, 1)])
def test_every_number_of_the_range_is_proved(low: int, bits: int) -> None:
    top = low + 2**bits - 1
    check(*sent([low, top, (low + top) // 2], low=low, bits=bits), low=low, bits=bits)


@pytest.mark.parametrize("number", [LOW - 1, LOW + 2**BITS, 1000])
def test_no_number_outside_is_proved_by_an_honest_prover(number: int) -> None:
    with pytest.raises(MisuseError):
        sent([0, number])


@pytest.mark.parametrize("number", [LOW - 1, LOW + 2**BITS, 10**5])
def test_a_hub_that_encrypts_a_number_outside_is_named(number: int) -> None:
    """It proves another number than it encrypted: the lowest bit's cell then holds neither 0 nor 1."""
    run, message, proof = sent([0, number, 1], claimed=[0, 5, 1])
    with pytest.raises(Cheating) as caught:
        check(run, message, proof)
    assert caught.value.blamed == ("hub-c",)


def test_control_without_the_proof_the_total_is_shifted_by_what_the_hub_chose() -> None:
    run = run_of([1, 1, 1])
    run.numbers["hub-c"] = [1, 1, 10**5]
    run.contribute().share()
    assert run.totals() == (3, 3, 10**5 + 2)


def test_control_the_contributions_own_proof_says_nothing_of_its_numbers() -> None:
    run, message, _ = sent([0, 10**5, 1], claimed=[0, 5, 1])
    for hub in ("hub-a", "hub-b"):
        run.contribute_one(hub)
    run.contributions["hub-c"] = message
    summed = opening.add_up(run.terms, run.contributions.values(), public=run.group.public, keys=run.group.keys)
    assert len(summed.boxes) == 3


def two_as_a_bit(monkeypatch: pytest.MonkeyPatch) -> tuple[Sum, Contribution, RangeProof]:
    """16 as bits that are no bits, 0 + 0·2 + 0·4 + 2·8, with "0 or 1" claimed of the 2 as well as can be."""
    original = ranges._split

    def split(number: int, secret: int, fresh: list[int], bits: int) -> list[Any]:
        made = original(0, secret, fresh, bits)
        return [*made[:3], type(made[3])(2, made[3].r, made[3].nonce, made[3].challenge, made[3].response)]

    def cell(bit: Any, whole: Element) -> tuple[Element, Element]:
        return multiply_base(bit.r), add(multiply(bit.r, whole), multiply_base(bit.bit))

    monkeypatch.setattr(ranges, "_split", split)
    monkeypatch.setattr(ranges._Bit, "cell", cell)
    return sent([LOW + 2**BITS], claimed=[LOW + 2**BITS - 1])


def test_a_bit_that_is_two_is_refused_although_the_bits_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run, message, proof = two_as_a_bit(monkeypatch)
    cells = ranges._all_bits(message, proof, 1)
    held = run.group.held
    weights = (2, ORDER - 1)  # of hub-a and hub-b at 0
    whole = sum(w * read_scalar(held[hub].secret) for w, hub in zip(weights, ("hub-a", "hub-b"), strict=True)) % ORDER
    bits = [subtract(box, multiply(whole, pad)) for pad, box in cells]
    assert totals.read_totals(bits, bound=10, steps=STEPS) == (0, 0, 0, 2)
    with pytest.raises(Cheating) as caught:
        check(run, message, proof)
    assert caught.value.blamed == ("hub-c",)


def bumped(column: bytes) -> bytes:
    return write_scalar((read_scalar(column[:32]) + 1) % ORDER) + column[32:]


SPOILT: dict[str, Callable[[RangeProof], RangeProof]] = {
    "challenge": lambda p: replace(p, challenge=bumped(p.challenge)),
    "split": lambda p: replace(p, splits=bumped(p.splits)),
    "response for 0": lambda p: replace(p, zeros=bumped(p.zeros)),
    "response for 1": lambda p: replace(p, ones=bumped(p.ones)),
    "a bit's pad": lambda p: replace(p, pads=bytes(multiply_base(3)) + p.pads[32:]),
    "a bit's box": lambda p: replace(p, boxes=bytes(multiply_base(3)) + p.boxes[32:]),
    "no element": lambda p: replace(p, boxes=b"\xff" * 32 + p.boxes[32:]),
    "too few bits": lambda p: replace(p, splits=p.splits[32:]),
    "another range": lambda p: replace(p, low=p.low + 1),
    "a wider range": lambda p: replace(p, bits=p.bits + 1),
    "out of range": lambda p: replace(p, zeros=b"\xff" * 32 + p.zeros[32:]),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_proof_with_anything_changed_names_its_sender(spoil: Callable[[RangeProof], RangeProof]) -> None:
    run, message, proof = sent(INSIDE)
    check(run, message, proof)
    with pytest.raises(Cheating) as caught:
        check(run, message, signed(spoil(proof), run.group.signing["hub-c"]))
    assert caught.value.blamed == ("hub-c",)


@pytest.mark.parametrize(("low", "bits"), [(LOW + 1, BITS), (LOW, BITS + 1), (LOW - 8, BITS + 1)])
def test_an_honest_proof_of_another_range_than_agreed_is_refused(low: int, bits: int) -> None:
    run, message, proof = sent([0, 1, 2], low=low, bits=bits)
    check(run, message, proof, low=low, bits=bits)
    with pytest.raises(Cheating, match="not the one that was agreed"):
        check(run, message, proof)


def test_a_proof_is_for_one_contribution_of_one_hub() -> None:
    run, message, proof = sent(INSIDE)
    _, other, _ = sent(INSIDE, round=2)
    with pytest.raises(Equivocation):
        check(run, other, proof)
    with pytest.raises(BadSignature):
        check(run, message, replace(proof, hub="hub-b"))
    stolen = signed(replace(proof, hub="hub-b"), run.group.signing["hub-b"])
    with pytest.raises(Equivocation):
        check(run, message, stolen)


def test_more_bits_than_a_message_may_prove_are_refused() -> None:
    run, message, proof = sent(INSIDE)
    for bits in (0, 27):
        with pytest.raises(MisuseError):
            check(run, message, proof, bits=bits)
