"""Cell P: a hub that sends another hub's numbers in disguise, from this sum or an earlier one.

ElGamal can be worked on by anybody: u times a ciphertext, re-randomised, is an unlinkable encryption of u times the
number. So a hub that could pass such a thing off as its own would read others' numbers out of the opened sum. Each
attack is run on the bare sums first, where it wins.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from tests.adversary.threshold_hubs import STEPS, Sum, keyed

from flute.errors import Cheating, Equivocation
from flute.messages.threshold import Contribution
from flute.threshold import opening, totals
from flute.threshold.context import message_digest, signed, sum_context
from flute.threshold.group import (
    ORDER,
    Element,
    add,
    hash_to_scalar,
    multiply,
    multiply_base,
    read_scalar,
    slices,
    subtract,
    write_scalar,
)
from flute.threshold.keys import PublicKey, weights_at_zero
from flute.threshold.proofs import Cells, prove_pads

SECRETS = {"hub-a": [17, 4, 0, 23], "hub-b": [1, 9, 31, 2], "hub-c": [0, 0, 0, 0]}
SCALE = 100
"""Above every number, so that scaled and unscaled parts of a total can be told apart."""


def elements(column: bytes) -> list[Element]:
    return [Element(piece) for piece in slices(column, 32)]


def disguised(victim: Contribution, public: PublicKey, scale: int) -> tuple[bytes, bytes, list[int]]:
    """`scale` times the victim's numbers, re-randomised: pads, boxes and the r that were added."""
    extra = [hash_to_scalar(b"extra", bytes([i])) for i in range(len(elements(victim.pads)))]
    pads = [add(multiply(scale, pad), multiply_base(r)) for pad, r in zip(elements(victim.pads), extra, strict=True)]
    boxes = [
        add(multiply(scale, box), multiply(r, public.whole))
        for box, r in zip(elements(victim.boxes), extra, strict=True)
    ]
    return b"".join(pads), b"".join(boxes), extra


def sent_by_c(run: Sum, pads: bytes, boxes: bytes, secrets: list[int]) -> Contribution:
    """As convincing as hub-c can make it: signed, with the proof that it could make for the r that it knows."""
    ctx = sum_context(run.terms)
    challenge, response = prove_pads(Cells(ctx, "hub-c", pads, boxes), secrets, 12345)
    unsigned = Contribution(ctx, "hub-c", pads, boxes, challenge, response, bytes(64))
    return signed(unsigned, run.group.signing["hub-c"])


def opened_unchecked(run: Sum) -> tuple[int, ...]:
    """Control: hubs that decrypt the sum of whatever is there. No proof of a contribution is looked at."""
    columns = [(elements(c.pads), elements(c.boxes)) for c in run.contributions.values()]
    pads, boxes = (opening._sums([tuple(column[i]) for column in columns]) for i in (0, 1))
    held = [read_scalar(run.group.held[hub].secret) for hub in ("hub-a", "hub-b")]
    whole = sum(w * x for w, x in zip(weights_at_zero([1, 2]), held, strict=True)) % ORDER
    found = [subtract(box, multiply(whole, pad)) for pad, box in zip(pads, boxes, strict=True)]
    return totals.read_totals(found, bound=run.bound, steps=STEPS)


def test_control_without_proofs_a_scaled_copy_shows_both_other_hubs_numbers_apart() -> None:
    run = Sum(keyed(), SECRETS).contribute()
    copy = disguised(run.contributions["hub-a"], run.group.public, SCALE - 1)
    run.contributions["hub-c"] = sent_by_c(run, *copy)
    found = opened_unchecked(run)
    assert [t // SCALE for t in found] == SECRETS["hub-a"]
    assert [t % SCALE for t in found] == SECRETS["hub-b"]


def test_control_without_proofs_an_earlier_sum_is_opened_hub_by_hub() -> None:
    """hub-a's numbers of round 1 were to be seen in a sum only. hub-c re-sends them, scaled, in round 2."""
    old = Sum(keyed(), SECRETS, round=1).contribute()
    new = Sum(keyed(), {"hub-a": [3, 5, 7, 9], "hub-b": [2, 2, 2, 2], "hub-c": [0] * 4}, round=2).contribute()
    copy = disguised(old.contributions["hub-a"], new.group.public, SCALE)
    new.contributions["hub-c"] = sent_by_c(new, *copy)
    assert [t // SCALE for t in opened_unchecked(new)] == SECRETS["hub-a"]


def refused(run: Sum) -> tuple[str, ...]:
    """Whom every hub names when it is asked for its share."""
    blamed = set()
    for hub in ("hub-a", "hub-b"):
        with pytest.raises(Cheating) as caught:
            run.share_one(hub)
        blamed.add(caught.value.blamed)
    assert run.shares == {}
    return blamed.pop()


@pytest.mark.parametrize("scale", [1, SCALE - 1, ORDER - 1])
def test_a_disguised_copy_is_refused_by_every_hub_and_its_sender_named(scale: int) -> None:
    run = Sum(keyed(), SECRETS).contribute()
    run.contributions["hub-c"] = sent_by_c(run, *disguised(run.contributions["hub-a"], run.group.public, scale))
    assert refused(run) == ("hub-c",)


def test_a_disguised_copy_of_an_earlier_sum_is_refused() -> None:
    old = Sum(keyed(), SECRETS, round=1).contribute()
    new = Sum(keyed(), SECRETS, round=2).contribute()
    new.contributions["hub-c"] = sent_by_c(new, *disguised(old.contributions["hub-a"], new.group.public, 1))
    assert refused(new) == ("hub-c",)


def copied_proof(run: Sum, victim: Contribution) -> Contribution:
    """The victim's cells and proof under hub-c's name and signature."""
    ctx = sum_context(run.terms)
    return signed(replace(victim, ctx=ctx, hub="hub-c"), run.group.signing["hub-c"])


def test_a_copy_with_its_proof_is_refused_for_the_proof_names_its_maker() -> None:
    run = Sum(keyed(), SECRETS).contribute()
    run.contributions["hub-c"] = copied_proof(run, run.contributions["hub-a"])
    assert refused(run) == ("hub-c",)


def test_a_hubs_own_earlier_contribution_does_not_pass_in_another_sum() -> None:
    """Its proof and its signature hold the context. Re-signed by the hub itself, the proof still does not fit."""
    old = Sum(keyed(), SECRETS, round=1).contribute()
    new = Sum(keyed(), SECRETS, round=2).contribute()
    new.contributions["hub-c"] = old.contributions["hub-c"]
    with pytest.raises(Equivocation, match="hub-c"):
        new.share_one("hub-a")
    new.contributions["hub-c"] = copied_proof(new, old.contributions["hub-c"])
    assert refused(new) == ("hub-c",)


def partly_copied(run: Sum) -> Contribution:
    """One cell of four is hub-a's; the proof is honest for the others, and for the r that was added to that one."""
    own, victim = run.contributions["hub-c"], run.contributions["hub-a"]
    pads, boxes, extra = disguised(victim, run.group.public, 1)
    mine = [hash_to_scalar(b"mine", bytes([i])) for i in range(4)]
    own_pads = [multiply_base(r) for r in mine]
    own_boxes = [multiply(r, run.group.public.whole) for r in mine]
    assert len(own.pads) == len(pads)
    mixed_pads = b"".join([elements(pads)[0], *own_pads[1:]])
    mixed_boxes = b"".join([elements(boxes)[0], *own_boxes[1:]])
    return sent_by_c(run, mixed_pads, mixed_boxes, [extra[0], *mine[1:]])


def test_one_copied_cell_among_honest_ones_is_refused() -> None:
    run = Sum(keyed(), SECRETS).contribute()
    run.contributions["hub-c"] = partly_copied(run)
    assert refused(run) == ("hub-c",)


def test_copies_in_two_cells_that_cancel_in_the_plain_sum_of_cells_are_refused() -> None:
    """Why cells are weighted: a proof about their plain sum would let +A here and -A there pass."""
    run = Sum(keyed(), SECRETS).contribute()
    victim = elements(run.contributions["hub-a"].pads)[0]
    mine = [hash_to_scalar(b"mine", bytes([i])) for i in range(4)]
    pads = [multiply_base(r) for r in mine]
    pads[0], pads[1] = add(pads[0], victim), subtract(pads[1], victim)
    boxes = b"".join(multiply(r, run.group.public.whole) for r in mine)
    plain = pads[0]
    for pad in pads[1:]:
        plain = add(plain, pad)
    assert plain == multiply_base(sum(mine) % ORDER)  # control: unweighted, the proof would be honest
    run.contributions["hub-c"] = sent_by_c(run, b"".join(pads), boxes, mine)
    assert refused(run) == ("hub-c",)


SPOILT: dict[str, Callable[[Contribution], Contribution]] = {
    "challenge": lambda c: replace(c, challenge=write_scalar((read_scalar(c.challenge) + 1) % ORDER)),
    "response": lambda c: replace(c, response=write_scalar((read_scalar(c.response) + 1) % ORDER)),
    "a box": lambda c: replace(c, boxes=bytes(multiply_base(3)) + c.boxes[32:]),
    "a pad": lambda c: replace(c, pads=bytes(multiply_base(3)) + c.pads[32:]),
    "pads swapped": lambda c: replace(c, pads=c.pads[32:64] + c.pads[:32] + c.pads[64:]),
    "boxes of other cells": lambda c: replace(c, boxes=c.boxes[32:64] + c.boxes[:32] + c.boxes[64:]),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_contribution_with_anything_changed_is_refused(spoil: Callable[[Contribution], Contribution]) -> None:
    run = Sum(keyed(), SECRETS).contribute()
    run.contributions["hub-c"] = signed(spoil(run.contributions["hub-c"]), run.group.signing["hub-c"])
    assert refused(run) == ("hub-c",)


NO_ELEMENTS = {
    "identity as pad: the number would be in clear": bytes(32),
    "no element": b"\xff" * 32,
    "negative": write_scalar(1),
    "not canonical": (2**255 - 19).to_bytes(32, "little"),
    "second encoding, high bit": bytes(multiply_base(3)[:31]) + bytes([multiply_base(3)[31] | 0x80]),
}


@pytest.mark.parametrize("where", ["pads", "boxes"])
@pytest.mark.parametrize("raw", NO_ELEMENTS.values(), ids=NO_ELEMENTS)
def test_what_is_no_element_is_refused_before_anything_is_computed_with_it(raw: bytes, where: str) -> None:
    run = Sum(keyed(), SECRETS).contribute()
    spoilt = replace(run.contributions["hub-c"], **{where: raw + getattr(run.contributions["hub-c"], where)[32:]})
    run.contributions["hub-c"] = signed(spoilt, run.group.signing["hub-c"])
    assert refused(run) == ("hub-c",)


def test_numbers_out_of_range_spoil_the_senders_sum_and_show_nothing_else() -> None:
    """What is in the boxes is not proved (`ranges` can): the total is refused, or shifted by what the hub chose."""
    run = Sum(keyed(), SECRETS, bound=1000).contribute()
    pads = [hash_to_scalar(b"mine", bytes([i])) for i in range(4)]
    boxes = [add(multiply(r, run.group.public.whole), multiply_base(10**9)) for r in pads]
    run.contributions["hub-c"] = sent_by_c(run, b"".join(map(multiply_base, pads)), b"".join(boxes), pads)
    run.keep(replace(run.state("hub-c"), own=message_digest(run.contributions["hub-c"])))
    run.share()
    with pytest.raises(totals.BadTotal):
        run.totals()
