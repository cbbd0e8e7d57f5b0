"""A hub that falsifies any one message: no wrong result, and no output shown that was not confirmed by all.

The controls take one defence away each, and the same lies pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from flute.errors import Cheating, Equivocation, MisuseError, ProtocolAbortedError
from flute.mpc.field import NARROW_PRIME, SECOND_PRIME, Prime
from flute.mpc.party import Party
from flute.mpc.setup import setup
from flute.mpc.verification import Products
from flute.mpc.wire import Wire
from support.mpc_parties import Run, agreed_keys, circles, compute, drive, seed
from support.mpc_programs import (
    DIGEST,
    KINDS,
    MINE,
    PROGRAMS,
    Cheat,
    Openings,
    arithmetic,
    honest,
    inputs,
    opened,
    shifting,
)

Steps = Generator[Any, Any, Any]


@cache
def reference(name: str, hubs: int) -> Run:
    return honest(PROGRAMS[name], hubs)


def trial(name: str, hubs: int, number: int) -> str:
    """One lie; what it was. Asserts that it did no harm."""
    rng = random.Random(f"{name}/{hubs}/{number}")
    right = reference(name, hubs)
    cheat = Cheat(
        hub=rng.randrange(1, hubs + 1),
        round=rng.randrange(len(right.messages)),
        kind=KINDS[number % len(KINDS)],
        victim=None,
        seed=rng.randrange(2**32),
    )
    others = [place for place in range(1, hubs + 1) if place != cheat.hub]
    cheat.victim = rng.choice([None, rng.choice(others)])
    run = compute(PROGRAMS[name], hubs, liar=cheat)
    check(right, run, cheat, others)
    return f"{cheat.kind} in round {cheat.round}"


def check(right: Run, run: Run, cheat: Cheat, others: list[int]) -> None:
    outputs = right.results[1].rounds
    shown = [number for number in outputs if cheat.round < number]
    assert any(place in run.errors for place in others), cheat
    for place in others:
        if place in run.results:  # told nothing wrong, in the last round of all
            assert cheat.round == outputs[-1]
            assert cheat.victim is not None
            assert place != cheat.victim
            assert same(run.results[place], right.results[place])
    if shown and cheat.round < shown[0] - 1:  # before all hubs confirmed
        later = [ways for ways in run.messages[shown[0] :] if any(sender in others for sender, _ in ways)]
        assert later == [], cheat


def same(ours: Openings, theirs: Openings) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours.values, theirs.values, strict=True))


TRIALS = [
    ("arithmetic", 3, 54),
    ("arithmetic", 4, 18),
    ("comparisons", 3, 27),
    ("comparisons", 4, 9),
    ("noise for one", 3, 54),
    ("noise for one", 4, 18),
]


@pytest.mark.defence("private P")
@pytest.mark.parametrize(("name", "hubs", "trials"), TRIALS)
def test_one_false_message_never_gives_a_result_nor_opens_an_output(name: str, hubs: int, trials: int) -> None:
    seen = {trial(name, hubs, number) for number in range(trials)}
    assert len({what.split(" in ")[0] for what in seen}) == len(KINDS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_false_messages_give_no_result_and_open_no_output() -> None:
    for number in range(10_000):
        trial(list(PROGRAMS)[number % 3], (3, 3, 4, 5)[number % 4], number)


@pytest.mark.parametrize("name", ["arithmetic", "noise for one"])
def test_every_round_and_every_kind_of_lie_in_it_is_caught(name: str) -> None:
    """No sampling over rounds: each of them once, by each hub in turn."""
    right = reference(name, 3)
    for number in range(len(right.messages)):
        cheat = Cheat(number % 3 + 1, number, KINDS[number % len(KINDS)], None, number)
        run = compute(PROGRAMS[name], liar=cheat)
        check(right, run, cheat, [place for place in (1, 2, 3) if place != cheat.hub])


def product_of_two(party: Party) -> Steps:
    """Round 0: the product's message; its first four words are the product and its mac modulo p1 and p2."""
    product = yield from party.mul(party.constant([6]), party.constant([7]))
    return (yield from opened(party, [product]))


ONE_MORE = {0: (NARROW_PRIME, 1), 2: (SECOND_PRIME, 1)}
"""The product itself, modulo both primes."""


@pytest.mark.defence("private P")
def test_a_falsified_product_is_caught_by_the_verification() -> None:
    run = compute(product_of_two, liar=shifting(3, ONE_MORE))
    assert not run.results
    for place in (1, 2):
        error = run.errors[place]
        assert isinstance(error, Cheating)
        assert error.blamed == ()
        assert len(run.messages) == 3  # the product, two rounds of verification, no round for an output


@pytest.mark.control("private P")
def test_control_without_the_verification_the_falsified_product_is_the_result() -> None:
    with patch.object(Products, "verify", lambda self: iter(())):
        run = compute(product_of_two, liar=shifting(3, ONE_MORE))
    assert [run.results[place].values[0][0] for place in (1, 2, 3)] == [43, 43, 43]


@pytest.mark.parametrize("word", range(4))
def test_each_half_of_a_product_counts(word: int) -> None:
    prime = (NARROW_PRIME, NARROW_PRIME, SECOND_PRIME, SECOND_PRIME)[word]
    run = compute(product_of_two, liar=shifting(2, {word: (prime, 12345)}))
    assert not run.results


def cancelling(party: Party) -> Steps:
    product = yield from party.mul(party.constant([6, 6]), party.constant([7, 7]))
    return (yield from opened(party, [product.sum().reshape(1) + product]))


def test_two_errors_that_cancel_in_a_plain_sum_do_not_in_the_check() -> None:
    """+1 in one product and -1 in the next, in values alone: an unweighted check would add them up to 0."""
    errors = {0: (NARROW_PRIME, 1), 1: (NARROW_PRIME, -1), 4: (SECOND_PRIME, 1), 5: (SECOND_PRIME, -1)}
    assert not compute(cancelling, liar=shifting(1, errors)).results
    with patch("flute.mpc.verification.coefficients", lambda prime, seed, count: np.ones(count, np.uint64)):
        control = compute(cancelling, liar=shifting(1, errors))
    assert list(control.results[1].values[0]) == [127, 125]


def test_an_error_fitted_to_a_guessed_key_is_caught_and_one_fitted_to_the_key_passes() -> None:
    """The key is what stands between a cheat and the check: value + d with mac + κ·d is consistent."""
    key = {}
    for prime in (NARROW_PRIME, SECOND_PRIME):
        holders = [Party(circle, agreed_keys(3)[me]) for me, circle in circles(3).items()]
        shares = [int(party.products.key[prime is SECOND_PRIME]) for party in holders]
        key[prime] = (2 * shares[0] - shares[1]) % prime.p

    def errors(offset: int) -> dict[int, tuple[Prime, int]]:
        both = {1: NARROW_PRIME, 3: SECOND_PRIME}
        return ONE_MORE | {word: (prime, key[prime] + offset) for word, prime in both.items()}

    assert compute(product_of_two, liar=shifting(3, errors(0))).results[1].values[0][0] == 43
    assert not compute(product_of_two, liar=shifting(3, errors(1))).results


def sum_of_all(party: Party) -> Steps:
    x = yield from inputs(party)
    return (yield from opened(party, [x[1] + x[2] + x[3]]))


@pytest.mark.control("exact P")
def test_control_a_hub_takes_its_own_answer_off_an_exact_total() -> None:
    """Nothing is broken, and no plan prevents it: what is left is the exact sum of the other two."""
    total = honest(sum_of_all, 3).results[3].values[0]
    assert np.array_equal(total - MINE[3], MINE[1] + MINE[2])


def opening_only(party: Party) -> Steps:
    product = yield from party.mul(party.constant([6]), party.constant([7]))
    yield from party.verify()
    return (yield from opened(party, [product]))


def test_a_wrong_share_of_an_output_is_seen_and_without_that_check_it_is_believed() -> None:
    last = len(honest(opening_only, 3).messages) - 1
    lie = shifting(1, {0: (NARROW_PRIME, 1), 1: (SECOND_PRIME, 1)}, number=last)
    run = compute(opening_only, liar=lie)
    assert not run.results
    assert all(isinstance(run.errors[place], Cheating) for place in (2, 3))
    with patch.object(Wire, "_fit", lambda *_: True):
        assert compute(opening_only, liar=lie).results[2].values[0][0] != 42


@pytest.mark.parametrize(("hubs", "named"), [(3, ()), (4, ("hub 2",)), (5, ())])
def test_who_shows_a_wrong_share_is_named_where_shares_suffice(hubs: int, named: tuple[str, ...]) -> None:
    last = len(honest(opening_only, hubs).messages) - 1
    run = compute(opening_only, hubs, liar=shifting(2, {0: (NARROW_PRIME, 9)}, number=last))
    error = run.errors[1]
    assert isinstance(error, Cheating)
    assert error.blamed == named


@pytest.mark.parametrize(
    "wrong",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + bytes(8),
        lambda raw: raw[:DIGEST],
        lambda raw: raw[:7],
        lambda raw: raw[:DIGEST] + b"\xff" * (len(raw) - DIGEST),
        lambda raw: raw[:-8] + (2**58 - 27).to_bytes(8, "little"),
    ],
)
def test_bytes_that_are_no_message_name_their_sender(wrong: Callable[[bytes], bytes]) -> None:
    run = compute(product_of_two, rewrite=lambda now, a, b, raw: wrong(raw) if (now, a) == (0, 2) else raw)
    for place in (1, 3):
        error = run.errors[place]
        assert isinstance(error, Cheating)
        assert error.blamed == ("hub 2",)


@pytest.mark.parametrize("hubs", [3, 4, 5])
def test_telling_two_hubs_two_things_stops_all_before_anything_opens(hubs: int) -> None:
    right = reference("arithmetic", hubs)
    for number in range(right.results[1].rounds[0] - 1):
        run = compute(arithmetic, hubs, liar=Cheat(1, number, "shift a word", 2, number))
        honest_ones = range(2, hubs + 1)
        assert not any(place in run.results for place in honest_ones)
        assert all(isinstance(run.errors[place], ProtocolAbortedError) for place in honest_ones)
        shown = run.messages[right.results[1].rounds[0] :]
        assert not any(sender in honest_ones for ways in shown for sender, _ in ways)


def input_told_twice(party: Party) -> Steps:
    x = yield from party.inputs(np.array([1]) if party.me == 1 else None, {1: (1,)}, bound=1)
    return (yield from opened(party, [x[1]]))


class Told(Cheat):
    """The owner's own words come last in its message."""

    def _false(self, said: list[bytes]) -> bytes:
        return said[-1][:-1] + bytes([said[-1][-1] ^ 1])


def test_an_input_told_in_two_versions_is_found_by_the_digests() -> None:
    run = compute(input_told_twice, 4, liar=Told(1, 0, "shift", 2, 0))
    assert not {2, 3, 4} & set(run.results)
    assert isinstance(run.errors[2], Equivocation)


def test_messages_of_another_session_are_refused() -> None:
    recorded = compute(product_of_two, context=b"yesterday").messages
    run = compute(
        product_of_two,
        context=b"today",
        rewrite=lambda now, a, b, raw: recorded[now][a, b] if a == 3 else raw,
    )
    assert not run.results
    assert isinstance(run.errors[1], Equivocation)


def test_messages_of_an_earlier_round_are_refused() -> None:
    sent: dict[int, bytes] = {}

    def replay(now: int, a: int, b: int, raw: bytes) -> bytes:
        sent.setdefault(now, raw) if a == 3 else None
        return sent[0] if a == 3 and now == 1 else raw

    assert not compute(product_of_two, rewrite=replay).results


def test_silence_opens_nothing() -> None:
    run = compute(product_of_two, rewrite=lambda now, a, b, raw: None if (now, a) == (2, 1) else raw)
    assert not run.results
    assert len(run.messages) <= 4


def test_a_computation_that_stopped_cannot_be_gone_on_with() -> None:
    """Else a caller that catches the error could be made to verify with a key that was tried."""
    members = {me: Party(circle, agreed_keys(3)[me]) for me, circle in circles(3).items()}
    drive({me: product_of_two(party) for me, party in members.items()}, shifting(3, ONE_MORE)(members))
    for party in members.values():
        with pytest.raises(MisuseError):
            next(party.open(party.constant([1])))


def test_a_stranger_to_the_keys_computes_nothing() -> None:
    members = {me: Party(circle, agreed_keys(3)[me]) for me, circle in circles(3).items()}
    other = drive({me: setup(circle, rand=seed("other", me)) for me, circle in circles(3).items()}).results
    members[3] = Party(circles(3)[3], other[3])
    assert not drive({me: product_of_two(party) for me, party in members.items()}).results
