"""Cells P: a coordinator that asks for more than the agreed sum, and hubs that give wrong shares."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from tests.adversary.threshold_hubs import STEPS, Chance, Sum, keyed

from flute.errors import (
    BadSignature,
    BadTotal,
    Cheating,
    Equivocation,
    Malformed,
    MisuseError,
    OutOfOrder,
    TooFewHubs,
)
from flute.messages.threshold import OpeningShare
from flute.threshold import encryption, opening, totals
from flute.threshold.context import message_digest, signed
from flute.threshold.encryption import SumState
from flute.threshold.group import (
    ORDER,
    Element,
    add,
    multiply,
    multiply_base,
    read_scalar,
    slices,
    subtract,
    write_scalar,
)
from flute.threshold.keys import weights_at_zero
from flute.threshold.proofs import Parts, prove_parts

NUMBERS = {"hub-a": [17, 4], "hub-b": [1, 9], "hub-c": [5, 5]}
TOTALS = (23, 18)


def contributed(**changes: object) -> Sum:
    return Sum(keyed(), NUMBERS, **changes).contribute()  # type: ignore[arg-type]


# --- a coordinator that keeps what it sees -----------------------------------------------------------------------


def differences(run: Sum, hub: str) -> tuple[int, ...] | None:
    """How much a hub's later numbers differ from its first, read off its boxes alone; None: nothing is found."""
    first, *others = (Element(piece) for piece in slices(run.contributions[hub].boxes, 32))
    try:
        return totals.read_totals([subtract(box, first) for box in others], bound=100, steps=STEPS)
    except BadTotal:
        return None


@pytest.mark.control("private H", "exact H")
def test_control_one_r_for_all_cells_shows_how_numbers_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """ElGamal without fresh chance in each cell: what masks a box is the same everywhere, and falls away."""
    fresh = encryption.scalars_from
    monkeypatch.setattr(encryption, "scalars_from", lambda rand, count: [fresh(rand, count)[0]] * count)
    run = contributed()
    assert {hub: differences(run, hub) for hub in NUMBERS} == {hub: (b - a,) for hub, (a, b) in NUMBERS.items()}


@pytest.mark.defence("private H", "exact H")
def test_boxes_and_pads_of_equal_and_of_different_numbers_show_nothing() -> None:
    """A difference would be found by accident in 201 of 2^252 runs."""
    run = contributed()
    assert all(differences(run, hub) is None for hub in NUMBERS)
    for hub in NUMBERS:
        message = run.contributions[hub]
        cells = [*slices(message.pads, 32), *slices(message.boxes, 32)]
        assert len(set(cells)) == 4
    assert run.share().totals() == TOTALS


@pytest.mark.control("exact P")
def test_control_a_hub_takes_its_own_answer_off_an_exact_total() -> None:
    """Nothing is broken, and no plan prevents it: what is left is the exact sum of the other two."""
    known = [total - own for total, own in zip(contributed().share().totals(), NUMBERS["hub-c"], strict=True)]
    assert known == [a + b for a, b in zip(NUMBERS["hub-a"], NUMBERS["hub-b"], strict=True)]


# --- a coordinator that asks for more ---------------------------------------------------------------------------


@pytest.mark.control("private P")
def test_control_hubs_that_decrypt_what_they_are_handed_show_one_hubs_numbers() -> None:
    """Without the rule that a hub adds up for itself: the coordinator hands out hub-a's ciphertexts alone."""
    run = contributed()
    victim = run.contributions["hub-a"]
    found = []
    for pad, box in zip(slices(victim.pads, 32), slices(victim.boxes, 32), strict=True):
        at = Element(box)
        for hub, weight in zip(("hub-b", "hub-c"), weights_at_zero([2, 3]), strict=True):
            part = multiply(read_scalar(run.group.held[hub].secret), Element(pad))
            at = subtract(at, multiply(weight, part))
        found.append(at)
    assert totals.read_totals(found, bound=100, steps=STEPS) == tuple(NUMBERS["hub-a"])


@pytest.mark.defence("private P")
@pytest.mark.parametrize("hub", NUMBERS)
@pytest.mark.parametrize("handed", [("hub-a",), ("hub-a", "hub-b"), ("hub-b", "hub-c"), ()])
def test_no_hub_opens_one_hubs_numbers_alone_or_a_sum_over_fewer_than_agreed(
    hub: str, handed: tuple[str, ...]
) -> None:
    run = contributed()
    run.contributions = {name: run.contributions[name] for name in handed}
    with pytest.raises(TooFewHubs) as caught:
        run.share_one(hub)
    assert all(name in str(caught.value) for name in set(NUMBERS) - set(handed))


@pytest.mark.parametrize("fewer", [("hub-a", "hub-b"), ("hub-a",)])
def test_no_hub_begins_a_sum_over_fewer_hubs_than_the_key_was_made_for(fewer: tuple[str, ...]) -> None:
    """The coordinator may call it another question; the key's own terms say how many."""
    run = contributed()
    asked = replace(run.terms, contributors=fewer)
    state = SumState("hub-a", asked)
    with pytest.raises(MisuseError, match="agreed on 3"):
        encryption.contribute(
            state, NUMBERS["hub-a"], public=run.group.public, rand=Chance(1)(encryption.rand_size(2)),
            key=run.group.signing["hub-a"],
        )  # fmt: skip
    with pytest.raises(MisuseError, match="agreed on 3"):
        opening.add_up(asked, run.contributions.values(), public=run.group.public, keys=run.group.keys)


def test_one_hubs_ciphertexts_in_three_names_are_refused() -> None:
    run = contributed()
    for hub in ("hub-b", "hub-c"):
        run.contributions[hub] = replace(run.contributions["hub-a"], hub=hub)
    with pytest.raises(BadSignature, match="hub-b"):
        run.share_one("hub-a")


def invented(run: Sum, hub: str) -> None:
    """The coordinator encrypts zeros in a hub's name: it knows every r, so its proof is right."""
    cheat = Sum(keyed(), {name: [0, 0] for name in NUMBERS}).contribute()
    run.contributions[hub] = replace(cheat.contributions[hub], signature=bytes(64))


@pytest.mark.defence("private P")
def test_contributions_that_a_coordinator_made_up_are_refused_for_want_of_a_signature() -> None:
    run = contributed()
    invented(run, "hub-b")
    invented(run, "hub-c")
    with pytest.raises(BadSignature):
        run.share_one("hub-a")


@pytest.mark.control("private P")
def test_control_if_two_contributions_were_made_up_the_sum_would_be_one_hubs_numbers() -> None:
    """What the signature is for: with the two other keys the very same sum opens to hub-a's numbers."""
    run = contributed()
    for hub in ("hub-b", "hub-c"):
        cheat = Sum(keyed(), {name: [0, 0] for name in NUMBERS}).contribute()
        run.contributions[hub] = cheat.contributions[hub]
        run.keep(cheat.state(hub))
    assert run.share().totals() == tuple(NUMBERS["hub-a"])


def test_a_hub_whose_own_contribution_was_exchanged_gives_no_share() -> None:
    """Even one that it signed itself: a machine restored from a backup encrypts twice."""
    run = contributed()
    twice = Sum(keyed(), {**NUMBERS, "hub-a": [0, 0]})
    twice.contribute()
    run.contributions["hub-a"] = twice.contributions["hub-a"]
    with pytest.raises(Equivocation, match="hub-a is not what it sent"):
        run.share_one("hub-a")


def test_a_hub_opens_one_sum_under_its_terms() -> None:
    """hub-c signs a second contribution after the first sum was opened, and the coordinator asks again."""
    run = contributed().share()
    second = Sum(keyed(), {**NUMBERS, "hub-c": [6, 6]}).contribute()
    run.contributions["hub-c"] = second.contributions["hub-c"]
    with pytest.raises(OutOfOrder, match="it opens one"):
        run.share_one("hub-a")


def test_two_contributions_of_one_hub_in_one_sum_are_refused() -> None:
    run = contributed()
    run.contributions["again"] = Sum(keyed(), {**NUMBERS, "hub-c": [6, 6]}).contribute().contributions["hub-c"]
    with pytest.raises(Equivocation, match="hub-c"):
        run.share_one("hub-a")


def test_contributions_to_another_question_or_of_a_stranger_are_refused() -> None:
    run, other = contributed(), contributed(question=bytes(32))
    run.contributions["hub-b"] = other.contributions["hub-b"]
    with pytest.raises(Equivocation, match="hub-b"):
        run.share_one("hub-a")
    run = contributed()
    run.contributions["more"] = replace(run.contributions["hub-b"], hub="hub-z")
    with pytest.raises(Malformed, match="hub-z"):
        run.share_one("hub-a")


def test_a_contribution_of_another_size_is_refused() -> None:
    run = contributed()
    short = replace(run.contributions["hub-b"], pads=run.contributions["hub-b"].pads[:32])
    run.contributions["hub-b"] = signed(short, run.group.signing["hub-b"])
    with pytest.raises(Cheating) as caught:
        run.share_one("hub-a")
    assert caught.value.blamed == ("hub-b",)


def test_a_sum_under_other_terms_or_with_anothers_key_share_is_not_opened() -> None:
    run, other = contributed(), contributed(round=2)
    for state, held in ((other.state("hub-a"), "hub-a"), (run.state("hub-a"), "hub-b")):
        with pytest.raises(MisuseError):
            opening.share(
                state, run.group.held[held], run.add_up(), rand=bytes(opening.SHARE_RAND_SIZE),
                key=run.group.signing["hub-a"],
            )  # fmt: skip


# --- wrong shares ----------------------------------------------------------------------------------------------


def shifted(message: OpeningShare, by: int) -> OpeningShare:
    """Every part off by a multiple of G: the total would be shifted by a number of the sender's choice."""
    parts = [add(Element(piece), multiply_base(by)) for piece in slices(message.parts, 32)]
    return replace(message, parts=b"".join(parts))


@pytest.mark.control("private P")
def test_control_unchecked_a_shifted_share_shifts_the_totals_unseen() -> None:
    run = contributed().share()
    wrong = {"hub-a": run.shares["hub-a"], "hub-b": shifted(run.shares["hub-b"], 10)}
    columns = {hub: tuple(map(Element, slices(message.parts, 32))) for hub, message in wrong.items()}
    elements = opening._combined(run.group.public, run.add_up(), columns)
    weight = 1  # of hub-b beside hub-a, times -1
    assert totals.read_totals(elements, bound=1000, steps=STEPS) == tuple(t + weight * 10 for t in TOTALS)


def reproved(run: Sum, message: OpeningShare, parts: bytes) -> OpeningShare:
    """The best proof that hub-b can make for parts that are wrong."""
    summed = run.add_up()
    words = Parts(message.ctx, "hub-b", run.group.public.share_of("hub-b"), summed.digest, summed.pads, parts)
    challenge, response = prove_parts(words, read_scalar(run.group.held["hub-b"].secret), 777)
    return replace(message, parts=parts, challenge=challenge, response=response)


def one_cell_wrong(run: Sum, message: OpeningShare) -> OpeningShare:
    return reproved(run, message, message.parts[:32] + bytes(multiply_base(9)))


def cells_that_cancel(run: Sum, message: OpeningShare) -> OpeningShare:
    """+G in one cell, -G in another: right in the plain sum of cells."""
    one, other = (Element(piece) for piece in slices(message.parts, 32))
    return reproved(run, message, add(one, multiply_base(1)) + subtract(other, multiply_base(1)))


WRONG: dict[str, Callable[[Sum, OpeningShare], OpeningShare]] = {
    "shifted": lambda run, m: shifted(m, 1),
    "shifted, with a new proof": lambda run, m: reproved(run, m, shifted(m, 1).parts),
    "one cell wrong, with a new proof": one_cell_wrong,
    "two cells that cancel, with a new proof": cells_that_cancel,
    "cells swapped": lambda run, m: replace(m, parts=m.parts[32:] + m.parts[:32]),
    "another hub's parts": lambda run, m: replace(m, parts=run.shares["hub-c"].parts),
    "another hub's parts and proof": lambda run, m: replace(run.shares["hub-c"], hub="hub-b"),
    "challenge": lambda run, m: replace(m, challenge=write_scalar((read_scalar(m.challenge) + 1) % ORDER)),
    "response": lambda run, m: replace(m, response=write_scalar((read_scalar(m.response) + 1) % ORDER)),
    "response out of range": lambda run, m: replace(m, response=write_scalar(ORDER)),
    "no element": lambda run, m: replace(m, parts=b"\xff" * 32 + m.parts[32:]),
    "identity": lambda run, m: replace(m, parts=bytes(32) + m.parts[32:]),
    "too few cells": lambda run, m: replace(m, parts=m.parts[:32]),
    "another sum's proof": lambda run, m: replace(
        m, **{name: getattr(contributed(round=2).share().shares["hub-b"], name) for name in ("challenge", "response")}
    ),
}


@pytest.mark.defence("private P")
@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_a_wrong_share_is_named_by_its_proof_and_the_right_ones_open_the_sum(
    spoil: Callable[[Sum, OpeningShare], OpeningShare],
) -> None:
    run = contributed().share()
    run.shares["hub-b"] = signed(spoil(run, run.shares["hub-b"]), run.group.signing["hub-b"])
    opened = run.combine("hub-a", "hub-b", "hub-c")
    assert opened.wrong == ("hub-b",)
    assert opened.by == ("hub-a", "hub-c")
    assert totals.read_totals(opened.elements, bound=1000, steps=STEPS) == TOTALS
    with pytest.raises(Cheating) as caught:
        run.combine("hub-a", "hub-b")
    assert caught.value.blamed == ("hub-b",)


def test_nobody_else_can_have_a_hub_blamed() -> None:
    """A share that its hub did not sign names nobody."""
    run = contributed().share()
    run.shares["hub-b"] = shifted(run.shares["hub-b"], 1)
    with pytest.raises(BadSignature, match="hub-b"):
        run.combine("hub-a", "hub-b")


def test_a_share_for_another_sum_is_refused() -> None:
    run, other = contributed().share(), contributed(round=2).share()
    run.shares["hub-b"] = other.shares["hub-b"]
    with pytest.raises(Equivocation, match="hub-b"):
        run.combine("hub-b", "hub-a")


def test_an_honest_hub_that_was_told_of_another_sum_is_not_blamed_for_its_share() -> None:
    """hub-c signs two contributions, the coordinator shows hub-b the one and the others the other."""
    run, other = contributed().share(), Sum(keyed(), {**NUMBERS, "hub-c": [6, 6]}).contribute()
    other.share_one("hub-b")
    run.shares["hub-b"] = other.shares["hub-b"]
    with pytest.raises(Equivocation, match="hub-b is for another sum"):
        run.combine("hub-a", "hub-b")


def test_a_right_share_is_the_only_one_that_can_be_right() -> None:
    """Parts are a function of the key share and the sum: two runs of the same hub differ in their proofs alone."""
    one, other = contributed().share(), contributed()
    rand = Chance("other")(opening.SHARE_RAND_SIZE)
    state, again = opening.share(
        other.state("hub-b"), other.group.held["hub-b"], other.add_up(), rand=rand, key=other.group.signing["hub-b"]
    )
    assert again.parts == one.shares["hub-b"].parts
    assert again.response != one.shares["hub-b"].response
    assert state.opened == other.add_up().digest
    assert message_digest(again) != message_digest(one.shares["hub-b"])
