"""Encrypted sums end to end: right totals from any k hubs, once, within bounds."""

from __future__ import annotations

from itertools import combinations

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from tests.adversary.threshold_hubs import Chance, Sum, keyed

from flute.errors import MisuseError, OutOfOrder, TooFewHubs
from flute.threshold import encryption, opening
from flute.threshold.encryption import SumState, decode_sum, encode_sum
from flute.threshold.group import ORDER, read_scalar

NUMBERS = {"hub-a": [0, 1, -7, 400, 2**19], "hub-b": [0, 2, -9, -400, 2**19], "hub-c": [0, 3, 16, 5, -1]}
TOTALS = (0, 6, 0, 5, 2**20 - 1)


@pytest.mark.requirement("NF-PIL-5")
@pytest.mark.parametrize(("n", "k", "colluding"), [(3, 2, 1), (3, 3, 1), (2, 2, 0), (5, 3, 2)])
def test_totals_are_the_sums_whichever_k_hubs_open_them(n: int, k: int, colluding: int) -> None:
    group = keyed(n, k, colluding)
    rng = np.random.default_rng(n)
    numbers = {hub: [int(v) for v in rng.integers(-1000, 1000, 6)] for hub in group.terms.hubs}
    run = Sum(group, numbers, bound=2**14).contribute().share()
    expected = tuple(map(sum, zip(*numbers.values(), strict=True)))
    for hubs in combinations(group.terms.hubs, k):
        assert run.totals(*hubs) == expected
    assert run.totals() == expected


def test_the_bound_itself_is_still_a_total() -> None:
    assert Sum(keyed(), NUMBERS).contribute().share().totals("hub-b", "hub-c") == TOTALS


def test_fewer_than_k_shares_open_nothing_and_the_missing_are_named() -> None:
    run = Sum(keyed(), NUMBERS).contribute().share()
    with pytest.raises(TooFewHubs, match="hub-a, hub-c"):
        run.combine("hub-b")


def test_one_hub_twice_counts_once() -> None:
    run = Sum(keyed(), NUMBERS).contribute().share()
    with pytest.raises(TooFewHubs):
        run.combine("hub-b", "hub-b")


def test_a_hub_that_refuses_its_share_stops_the_opening_where_all_are_needed() -> None:
    run = Sum(keyed(3, 3, 1), NUMBERS).contribute().share()
    with pytest.raises(TooFewHubs, match="hub-c"):
        run.combine("hub-a", "hub-b")


def test_a_sum_may_be_over_fewer_hubs_than_hold_shares_if_that_was_agreed() -> None:
    group = keyed(5, 3, 1)
    numbers = {hub: [5, 6] for hub in ("hub-a", "hub-c", "hub-e")}
    run = Sum(group, numbers, bound=100).contribute().share()
    assert run.totals("hub-b", "hub-c", "hub-d") == (15, 18)


def test_a_contribution_takes_64_bytes_a_number_and_its_share_32() -> None:
    """At 1,000 cells of 3 hubs: below 100 kB a hub."""
    run = Sum(keyed(), {hub: [0] * 50 for hub in NUMBERS}).contribute().share()
    for messages, each in ((run.contributions, 64), (run.shares, 32)):
        sizes = {len(msgspec.msgpack.encode(message)) for message in messages.values()}
        assert len(sizes) == 1
        assert sizes.pop() <= 50 * each + 350


def test_equal_numbers_look_different_every_time() -> None:
    run = Sum(keyed(), {hub: [1] * 30 for hub in NUMBERS}).contribute()
    pieces = [
        column[i : i + 32]
        for message in run.contributions.values()
        for column in (message.pads, message.boxes)
        for i in range(0, len(column), 32)
    ]
    assert len(set(pieces)) == len(pieces) == 180


# --- once ---------------------------------------------------------------------------------------------------


def test_a_hub_contributes_once_also_after_a_restart() -> None:
    run = Sum(keyed(), NUMBERS).contribute()
    with pytest.raises(OutOfOrder):
        run.contribute_one("hub-a")


def test_the_very_same_sum_may_be_shared_again_after_a_crash() -> None:
    run = Sum(keyed(), NUMBERS).contribute().share()
    before = run.shares["hub-a"]
    run.share_one("hub-a")
    assert run.shares["hub-a"].parts == before.parts
    assert run.totals("hub-a", "hub-b") == TOTALS


def test_a_repeat_of_random_bytes_does_not_repeat_a_nonce_for_another_sum() -> None:
    """Two responses under one nonce and two challenges lay the key share open: (z - z') / (c - c')."""
    found = []
    for round_ in (1, 2):
        run = Sum(keyed(), NUMBERS, round=round_).contribute()
        _, message = opening.share(
            run.state("hub-a"), run.group.held["hub-a"], run.add_up(), rand=bytes(64), key=run.group.signing["hub-a"]
        )
        found.append((read_scalar(message.challenge), read_scalar(message.response)))
    (c, z), (d, y) = found
    secret = read_scalar(keyed().held["hub-a"].secret)
    assert (z - y) * pow(c - d, -1, ORDER) % ORDER != secret
    nonce = 7  # control: with one nonce it is
    one, other = nonce + c * secret, nonce + d * secret
    assert (one - other) * pow(c - d, -1, ORDER) % ORDER == secret


def test_a_hub_that_has_not_contributed_gives_no_share_of_what_others_say_it_did() -> None:
    run = Sum(keyed(), NUMBERS).contribute()
    run.keep(SumState("hub-a", run.terms))
    with pytest.raises(OutOfOrder, match="not contributed"):
        run.share_one("hub-a")


def test_the_state_of_a_sum_survives_its_disk() -> None:
    run = Sum(keyed(), NUMBERS).contribute().share()
    state = run.state("hub-a")
    assert decode_sum(encode_sum(state)) == state
    assert repr(state) == "<SumState: secret>"
    with pytest.raises(MisuseError):
        decode_sum(b"\xc1")


# --- bounds -------------------------------------------------------------------------------------------------


def attempt(numbers: list[object], *, size: int = 2, rand: bytes | None = None, hub: str = "hub-a") -> None:
    run = Sum(keyed(), {name: [0] * size for name in NUMBERS}, bound=1000)
    encryption.contribute(
        SumState(hub, run.terms), numbers, public=run.group.public,
        rand=Chance(3)(encryption.rand_size(size)) if rand is None else rand, key=run.group.signing["hub-a"],
    )  # fmt: skip


@pytest.mark.parametrize("numbers", [[1], [1, 2, 3], [], [0, 1001], [0, -1001]])
def test_numbers_of_the_wrong_count_or_size_are_refused(numbers: list[object]) -> None:
    attempt([1000, -1000])
    with pytest.raises(MisuseError):
        attempt(numbers)


def test_a_fraction_is_not_rounded_in_silence() -> None:
    attempt([0, np.int64(5)])
    with pytest.raises(MisuseError):
        attempt([0, 0.5])


def test_chance_has_exactly_its_declared_size() -> None:
    for size in (encryption.rand_size(2) - 1, encryption.rand_size(2) + 64, 0):
        with pytest.raises(MisuseError):
            attempt([1, 2], rand=bytes(size))


def test_a_hub_that_is_not_asked_for_numbers_gives_none() -> None:
    with pytest.raises(MisuseError):
        attempt([1, 2], hub="hub-z")


@pytest.mark.parametrize(
    "changes",
    [
        {"contributors": ("hub-a", "hub-b")}, {"contributors": ("hub-b", "hub-a", "hub-c")},
        {"contributors": ("hub-a", "hub-b", "hub-z")}, {"contributors": ("hub-a", "hub-a", "hub-b")},
        {"key": bytes(32)},
    ],
)  # fmt: skip
def test_terms_of_a_sum_that_do_not_fit_the_key_or_the_agreement_are_refused(changes: dict[str, object]) -> None:
    run = Sum(keyed(), NUMBERS)
    encryption.check_sum_terms(run.terms, run.group.public)
    with pytest.raises(MisuseError):
        encryption.check_sum_terms(replace(run.terms, **changes), run.group.public)
