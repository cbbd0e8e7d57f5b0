"""What hubs compute together, against plain integers, for 3, 5 and 10 hubs."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from flute.errors import Cheating, Equivocation, MisuseError
from flute.mpc.field import WIDE, modulus
from flute.mpc.opening import Room
from flute.mpc.party import Party
from flute.mpc.setup import Circle, setup
from flute.mpc.shares import Shares, concatenate, stack
from support.mpc_parties import Run, agreed_keys, circles, compute, drive, seed

Steps = Generator[Any, Any, Any]
HUBS = pytest.mark.parametrize("hubs", [3, 5, 10])


def values(hubs: int, size: int) -> list[Any]:
    """Of three hubs; shorter ones where many hubs make every bit cost more."""
    rng = np.random.default_rng(hubs)
    bits = 30 if hubs < 10 else 6
    return [rng.integers(-(2**bits), 2**bits, size) for _ in range(3)]


def shared(party: Party, mine: list[Any]) -> Steps:
    bound = 31 if party.hubs < 10 else 7
    shapes = {place: np.shape(v) for place, v in enumerate(mine, start=1)}
    return (yield from party.inputs(mine[party.me - 1] if party.me <= len(mine) else None, shapes, bound=bound))


def outcome(run: Run) -> Any:
    """Hub 1's result, once all hubs agree on it."""
    assert not run.errors
    for result in run.results.values():
        for ours, theirs in zip(run.sole, result, strict=True):
            assert np.array_equal(ours, theirs)
    return run.sole


@HUBS
def test_products_sums_and_matrices(hubs: int) -> None:
    mine = values(hubs, 12)

    def program(party: Party) -> Steps:
        x = yield from shared(party, mine)
        product = yield from party.mul(x[1], x[2])
        matrix = yield from party.dot(x[1].reshape(3, 4), x[3].reshape(4, 3))
        linear = 3 * x[1] - x[2] * np.arange(12) + 7 - x[3]
        total = sum(list(x.values())[1:], start=x[1]).sum()
        opened = []
        for value in (product, matrix, linear, total.reshape(1), x[1].reshape(4, 3).T @ np.eye(4, dtype=int)):
            opened.append((yield from party.open(value)))
        return opened

    x, y = mine[0].astype(object), mine[1].astype(object)
    product, matrix, linear, total, turned = outcome(compute(program, hubs))
    assert (product == x * y).all()
    assert (matrix == x.reshape(3, 4) @ mine[2].astype(object).reshape(4, 3)).all()
    assert (linear == 3 * x - y * np.arange(12) + 7 - mine[2]).all()
    assert total == sum(v.sum() for v in mine)
    assert (turned == mine[0].reshape(4, 3).T).all()


@HUBS
def test_signs_zeros_and_bits(hubs: int) -> None:
    mine, width = values(hubs, 4), 32 if hubs < 10 else 8
    mine[0][:2] = mine[1][:2]  # equal ones are not less

    def program(party: Party) -> Steps:
        x = yield from shared(party, mine)
        less = yield from party.less_than_zero(x[1] - x[2], width)
        same = yield from party.is_zero(x[1] - x[2], width)
        bits = yield from party.bits(x[1] + 2 ** (width - 1), width)
        wide = yield from party.widen(less, 1)
        chosen = yield from party.mul(wide, x[1] - x[2])
        opened = []
        for value in (less, same, bits, chosen + x[2]):
            opened.append((yield from party.open(value)))
        return opened

    x, y = mine[0], mine[1]
    less, same, bits, smaller = outcome(compute(program, hubs))
    assert (less == (x < y)).all()
    assert (same == (x == y)).all()
    assert same.sum() == 2
    assert (bits == ((x[:, None] + 2 ** (width - 1)) >> np.arange(width) & 1)).all()
    assert (smaller == np.minimum(x, y)).all()


@pytest.mark.parametrize(("hubs", "size"), [(3, 3_000), (5, 1_000), (10, 40)])
def test_truncation_stays_below_its_bound_and_is_right_on_average(hubs: int, size: int) -> None:
    """Standard deviation sqrt(C/12) units; the mean of `size` errors is off by 5 of its own with probability 6e-7."""
    mine = [np.random.default_rng(hubs + k).integers(-(2**20), 2**20, size) for k in range(2)]

    def program(party: Party) -> Steps:
        x = {k: party.constant(v) for k, v in enumerate(mine, start=1)}
        whole = yield from party.mul(x[1], x[2])
        opened = []
        for value in (
            (yield from party.truncate(whole, 12)),
            (yield from party.mul_truncate(x[1], x[2], 12, bound=42)),
            (yield from party.dot_truncate(x[1].reshape(-1, 1, 2), x[2].reshape(-1, 2, 1), 12)),
        ):
            opened.append((yield from party.open(value)))
        return opened

    groups = Room(Circle(1, hubs, b"")).groups
    exact = mine[0] * mine[1] / 2**12
    first, second, dots = outcome(compute(program, hubs))
    for got, wanted in ((first, exact), (second, exact), (dots.reshape(-1), exact.reshape(-1, 2).sum(1))):
        error = got - wanted
        assert np.abs(error).max() < (groups + 1) / 2
        assert abs(error.mean()) < 5 * np.sqrt((groups + 1) / 12 / got.size)


@HUBS
def test_an_output_for_one_hub_reaches_that_hub_alone(hubs: int) -> None:
    mine = values(hubs, 5)

    def program(party: Party) -> Steps:
        x = yield from shared(party, mine)
        return (yield from party.open(x[1] + x[2], to=2))

    run = compute(program, hubs)
    assert not run.errors
    assert {place for place, result in run.results.items() if result is not None} == {2}
    assert (run.results[2] == mine[0] + mine[1]).all()


def test_noise_of_all_hubs_is_added_up() -> None:
    mine = [np.arange(4) * k - 5 for k in (1, -7, 100)]

    def program(party: Party) -> Steps:
        noise = yield from party.noise(mine[party.me - 1], bound=11)
        return (yield from party.open(noise))

    assert (compute(program, 3).sole == sum(mine)).all()


def test_random_bits_are_bits_half_of_them_ones() -> None:
    """4,000 bits: further than 5 standard deviations from half with probability 6e-7."""

    def program(party: Party) -> Steps:
        bits = yield from party.random_bits(4_000)
        return (yield from party.open(bits))

    bits = compute(program, 3).sole
    assert set(np.unique(bits)) == {0, 1}
    assert abs(bits.sum() - 2_000) < 5 * np.sqrt(1_000)


def test_rounds_are_few_and_do_not_grow_with_the_numbers() -> None:
    def rounds(size: int) -> dict[str, int]:
        counted: dict[str, int] = {}

        def program(party: Party) -> Steps:
            x = party.constant(np.arange(size))
            for name, step in (
                ("mul", lambda: party.mul(x, x)),
                ("verify", party.verify),
                ("mul_truncate", lambda: party.mul_truncate(x, x, 4)),
                ("mul_truncate of unverified", lambda: party.mul_truncate(x, x, 4)),
                ("less_than_zero", lambda: party.less_than_zero(x, 32)),
                ("is_zero", lambda: party.is_zero(x, 31)),
                ("bits", lambda: party.bits(x, 32)),
                ("open", lambda: party.open(x)),
            ):
                before = party.rounds
                yield from step()
                counted[name] = party.rounds - before
            return counted

        return compute(program, 3).sole

    assert rounds(1) == rounds(50)
    assert rounds(1) == {
        "mul": 1, "verify": 2, "mul_truncate": 1, "mul_truncate of unverified": 3,
        "less_than_zero": 11, "is_zero": 11, "bits": 12, "open": 4,
    }  # fmt: skip


@pytest.mark.parametrize(("hubs", "corrupt"), [(3, 1), (4, 1), (5, 2), (7, 3), (10, 4), (12, 5), (30, 2)])
def test_masks_hide_to_40_bits_and_never_wrap(hubs: int, corrupt: int) -> None:
    """A shift of the uniform distribution on 2^m values by d changes it by d/2^m, exactly."""
    room = Room(Circle(1, hubs, b"", corrupt))
    for ring, spread in ((2, room.wide_bits + 1), (1, room.narrow_bits)):
        primes = WIDE[:ring]
        assert 2**spread / 2 ** room.mask_bits(primes) <= 2**-40
        assert room.groups * 2 ** room.mask_bits(primes) + 2 ** (spread + 2) < modulus(primes)
    assert room.wide_bits >= 66


def test_fewer_corrupt_hubs_may_be_reckoned_with() -> None:
    mine = values(5, 3)

    def program(party: Party) -> Steps:
        x = yield from shared(party, mine)
        product = yield from party.mul(x[1], x[3])
        return (yield from party.open(product))

    assert (compute(program, 5, corrupt=1).sole == mine[0].astype(object) * mine[2]).all()


@pytest.mark.parametrize(
    ("hubs", "corrupt", "me"), [(2, 0, 1), (3, 2, 1), (4, 2, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0), (14, 0, 1)]
)
def test_circles_without_an_honest_majority_are_refused(hubs: int, corrupt: int, me: int) -> None:
    with pytest.raises(MisuseError):
        Circle(me, hubs, b"", corrupt)


def test_hubs_of_two_contexts_share_no_key_stream() -> None:
    def program(party: Party) -> Steps:
        return (yield from party.open(party.constant([1])))

    ours, theirs = circles(3, context=b"one"), circles(3, context=b"two")
    keys = agreed_keys(3)
    members = {1: Party(ours[1], keys[1]), 2: Party(theirs[2], keys[2]), 3: Party(ours[3], keys[3])}
    run = drive({place: program(party) for place, party in members.items()})
    assert not run.results
    assert isinstance(run.errors[1], Equivocation)


def test_hubs_that_were_dealt_two_keys_do_not_begin() -> None:
    def two_faced(number: int, sender: int, recipient: int, raw: bytes) -> bytes:
        return bytes([raw[0] ^ 1]) + raw[1:] if (number, sender, recipient) == (0, 1, 2) else raw

    ours = circles(5)
    run = drive({me: setup(circle, rand=seed(me)) for me, circle in ours.items()}, two_faced)
    assert all(isinstance(run.errors[place], Equivocation) for place in (1, 2, 3))
    assert not drive({me: setup(circle, rand=seed(me)) for me, circle in ours.items()}).errors


def test_keys_of_a_wrong_length_name_their_dealer() -> None:
    run = drive(
        {me: setup(circle, rand=seed(me)) for me, circle in circles(3).items()},
        lambda number, sender, recipient, raw: raw[:-1] if (number, sender, recipient) == (0, 1, 3) else raw,
    )
    assert isinstance(run.errors[3], Cheating)
    assert run.errors[3].blamed == ("hub 1",)


@pytest.mark.parametrize(
    ("mine", "bound", "shape"),
    [([8], 3, (1,)), ([-8], 3, (1,)), ([1, 2], 3, (1,)), ([1.5], 3, (1,)), ([0], 61, (1,)), (None, 3, (1,))],
)
def test_inputs_that_do_not_fit_are_refused_before_anything_is_sent(mine: Any, bound: int, shape: Any) -> None:
    def program(party: Party) -> Steps:
        return (yield from party.inputs(mine if party.me == 1 else None, {1: shape}, bound=bound))

    with pytest.raises(MisuseError):
        next(program(Party(circles(3)[1], agreed_keys(3)[1])))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda party, x: x * x,
        lambda party, x: x + x.narrow(),
        lambda party, x: x * 0.5,
        lambda party, x: next(party.mul(x, x.narrow())),
        lambda party, x: next(party.truncate(x, 0)),
        lambda party, x: next(party.truncate(x, 62)),
        lambda party, x: next(party.truncate(x, 8, bound=77)),
        lambda party, x: next(party.truncate(x.narrow(), 8)),
        lambda party, x: next(party.less_than_zero(x, 60)),
        lambda party, x: next(party.less_than_zero(x.narrow(), 8)),
        lambda party, x: next(party.widen(x, 1)),
        lambda party, x: next(party.widen(x.narrow(), 20)),
        lambda party, x: concatenate([x, x.narrow()]),
        lambda party, x: stack([]),
    ],
)
def test_misuse_is_said(wrong: Any) -> None:
    party = Party(circles(3)[1], agreed_keys(3)[1])
    with pytest.raises(MisuseError):
        wrong(party, party.constant([1, 2]))


def test_no_secret_is_shown_by_repr() -> None:
    party = Party(circles(3)[1], agreed_keys(3)[1])
    x: Shares = party.constant([12345])
    assert "array" not in repr(x)
    assert repr(agreed_keys(3)[1]) == "Keys()"
