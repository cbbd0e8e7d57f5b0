"""Attacks on what honest hubs hold, not on the result: each wins where its defence is off, and nothing else.

Intermediate values open under bounded masks. Whoever lifts a value above its mask reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any
from unittest.mock import patch

import numpy as np

from flute.errors import Cheating
from flute.mpc.field import NARROW_PRIME, SECOND_PRIME, WIDE, Prime, join, modulus
from flute.mpc.party import Party
from flute.mpc.shares import Shares
from flute.mpc.verification import Products
from flute.mpc.wire import Opened, Wire
from support.mpc_parties import Run, compute
from support.mpc_programs import WORD, Cheat, shifting

Steps = Generator[Any, Any, Any]
COUNT = 64
SECRET = np.random.default_rng(7).integers(0, 2, COUNT)
LIFT = 2**118
"""Half of the ring: three masks of 117 bits add up to 3/8 of it, give or take 1/8."""
OF_THE_INPUT = 5
"""Rounds before the first product."""


def heard(program: Callable[[Party], Steps], cheat: Cheat, last: list[int]) -> tuple[Run, list[Opened]]:
    """The run, and what opened to everybody in rounds of these many sums: sums in common, hub 1's ear."""
    opened: list[Opened] = []
    plain = Wire._read

    def read(wire: Wire, *args: Any) -> Opened:
        result = plain(wire, *args)
        if wire.circle.me == 1 and len(result.sums) in last:
            opened.append(result)
        return result

    with patch.object(Wire, "_read", read):
        return compute(program, liar=cheat), opened


def secret_of_hub_2(party: Party) -> Steps:
    shared = yield from party.inputs(SECRET if party.me == 2 else None, {2: (COUNT,)}, bound=1)
    return shared[2]


def two_layers(party: Party) -> Steps:
    secret = yield from secret_of_hub_2(party)
    one = party.constant(np.ones(COUNT, int))
    factor = yield from party.mul(one, one)
    rounded = yield from party.mul_truncate(factor, secret, 10)
    return (yield from party.open(rounded))


def lifted() -> Cheat:
    """Hub 3 makes every factor 1 + LIFT, so that 1 + LIFT or 0 goes under the next mask."""
    at = dict.fromkeys(range(COUNT), (NARROW_PRIME, LIFT))
    return shifting(3, at | {2 * COUNT + i: (SECOND_PRIME, LIFT) for i in range(COUNT)}, number=OF_THE_INPUT)


def far_from_the_mean(opened: Opened) -> Any:
    """Whether c is nearer to the mean of its mask plus LIFT than to that mean."""
    high, low = join(opened.sums[-2:])
    c = (high.astype(object) * 2**61 + low.astype(object)) / modulus(WIDE)
    return np.abs(c.astype(float) - 3 / 8) > 1 / 4


MASKED = [6, 10]
"""Sums in a round that rounds products: two macs, two of masks, what a verification needs if one was just made (4),
and the masked products modulo two primes."""


def test_a_falsified_factor_does_not_lift_a_secret_above_its_mask() -> None:
    run, opened = heard(two_layers, lifted(), MASKED)
    assert opened == []
    assert all(isinstance(run.errors[place], Cheating) for place in (1, 2))


def test_control_without_settling_before_a_mask_the_lifted_secret_is_read() -> None:
    """The mask's mean is missed by 2 standard deviations in 1 of 22 bits; in 13 of 64 with probability 1e-5."""
    with patch.object(Products, "settle", lambda self: iter(())):
        run, opened = heard(two_layers, lifted(), MASKED)
    assert not {1, 2} & set(run.results)  # it is noticed, too late
    assert (far_from_the_mean(opened[0]) == SECRET).sum() >= COUNT - 12


def test_control_an_honest_run_shows_nothing_of_the_secret() -> None:
    """64 guesses right or wrong by chance: 12 or fewer wrong with probability 3e-7."""
    _, opened = heard(two_layers, shifting(3, {}, number=0), MASKED)
    assert (far_from_the_mean(opened[0]) == SECRET).sum() < COUNT - 12


class Oversized(Cheat):
    """The owner of an input shows another number than a bit: its own words, the last of its first message."""

    def _false(self, said: list[bytes]) -> bytes:
        word = (int.from_bytes(said[-1][-WORD:], "little") + 2**50) % NARROW_PRIME.p
        return said[-1][:-WORD] + word.to_bytes(WORD, "little")


def own_input(party: Party) -> Steps:
    shared = yield from party.inputs(np.array([1]) if party.me == 3 else None, {3: (1,)}, bound=4)
    return (yield from party.open(shared[3]))


def test_an_input_out_of_its_bound_is_refused_before_it_is_used() -> None:
    run = compute(own_input, liar=Oversized(3, 0, "shift", None, 0))
    assert not {1, 2} & set(run.results)
    assert len(run.messages) == 4  # the input, the squares of its bits, the verification
    assert isinstance(run.errors[1], Cheating)


def test_control_without_the_proof_of_its_bits_an_input_is_as_large_as_its_owner_likes() -> None:
    plain = Products.remember

    def forgetful(self: Products, prime: Prime, values: Any, macs: Any, *, certain: bool = False) -> None:
        if values.any():  # all but the claims that a product is 0
            plain(self, prime, values, macs, certain=certain)

    with patch.object(Products, "remember", forgetful):
        run = compute(own_input, liar=Oversized(3, 0, "shift", None, 0))
    assert abs(int(run.results[1][0])) > 2**40


def one_random_bit(party: Party) -> Steps:
    bits: Shares = yield from party.random_bits(COUNT)
    return (yield from party.open(bits))


def false_squares() -> Cheat:
    """Hub 3 shifts every opened square: with r² known, r over the root of r² + d is one of two numbers it can tell
    apart wherever it meets them, and no bit."""
    after = COUNT + 4 * 2  # the macs of r, and what the next verification needs
    return shifting(3, {after + i: (NARROW_PRIME, 5) for i in range(COUNT)}, number=0)


def test_a_false_square_is_caught_before_a_bit_of_it_is_used() -> None:
    run = compute(one_random_bit, liar=false_squares())
    assert len(run.messages) == 4  # squares, their macs, the verification
    assert isinstance(run.errors[1], Cheating)


def test_control_without_that_verification_false_squares_make_no_bits() -> None:
    with patch.object(Products, "verify", lambda self: iter(())):
        assert set(compute(one_random_bit).results[1]) <= {0, 1}
        run = compute(one_random_bit, liar=false_squares())
    assert 1 not in run.results or not set(run.results[1]) <= {0, 1}
