"""Which patients are elsewhere: each hub learns its own, and sizes are sizes."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from flute.errors import MisuseError
from flute.joint import overlap
from flute.joint.overlap import _hashed, _placed_once, also_elsewhere, hidden_lists, overlap_sizes, slots_for
from support.joint_magnitudes import outputs
from support.mpc_parties import compute, seed

KEY = seed("overlap key")


def names(*numbers):
    return [b"patient %d" % number for number in numbers]


LISTS = {1: names(*range(40)), 2: names(*range(30, 60)), 3: names(5, *range(38, 45), *range(90, 100))}


def lists_of(party, lists=LISTS, key=KEY, capacity=40):
    rand = seed("spare", party.me)
    return (yield from hidden_lists(party, lists[party.me], key=key, capacity=capacity, rand=rand))


@pytest.mark.requirement("F-SRS-4")
def test_every_hub_learns_which_of_its_own_patients_are_elsewhere():
    def program(party):
        return (yield from also_elsewhere(party, (yield from lists_of(party))))

    run, opened = outputs(lambda: compute(program))
    for place, own in LISTS.items():
        elsewhere = {name for other, listed in LISTS.items() if other != place for name in listed}
        assert run.results[place].tolist() == [name in elsewhere for name in own]
    assert [to for to, _ in opened] == [1, 2, 3]


def test_what_a_hub_sees_of_its_own_bins_is_0_or_uniform():
    """False alarm 1e-6: of 64 bins some 60 do not match, and each opened number has a random top bit."""
    _, opened = outputs(lambda: compute(lambda party: _elsewhere(party)))
    shown = np.array([value % (2**61 - 1) for value in opened[0][1] if value], dtype=object)
    assert 40 < len(shown) <= 64
    high = sum(int(value >= 2**60) for value in shown)
    assert abs(high - len(shown) / 2) < 4.9 * np.sqrt(len(shown)) / 2
    assert len(set(shown.tolist())) == len(shown)


def _elsewhere(party):
    return (yield from also_elsewhere(party, (yield from lists_of(party))))


def test_sizes_of_overlaps_are_those_of_the_lists_and_all_that_opens():
    def program(party):
        return (yield from overlap_sizes(party, (yield from lists_of(party))))

    run, opened = outputs(lambda: compute(program))
    sets = {place: set(listed) for place, listed in LISTS.items()}
    found = run.sole
    assert found.pairs == {pair: len(sets[pair[0]] & sets[pair[1]]) for pair in ((1, 2), (1, 3), (2, 3))}
    assert found.repeated == sum(map(len, sets.values())) - len(set().union(*sets.values()))
    assert [(to, len(values)) for to, values in opened] == [(None, 5)]


def test_hubs_with_two_keys_find_nobody():
    """What the coordinator, who lacks the key, could match against."""

    def program(party):
        lists = yield from lists_of(party, key=seed("other") if party.me == 1 else KEY)
        return (yield from overlap_sizes(party, lists))

    found = compute(program).sole
    assert found.pairs[1, 2] == found.pairs[1, 3] == 0
    assert found.pairs[2, 3] == len(set(LISTS[2]) & set(LISTS[3]))


def test_a_hub_that_fills_its_table_with_one_number_matches_no_empty_bin():
    def full(prints, places, bins, slots):
        return np.full((bins, slots), 2**overlap.FINGERPRINT_BITS, dtype=np.uint64)

    def program(party):
        with patch.object(overlap, "_answering", full if party.me == 1 else overlap._answering):
            step = lists_of(party)
            message = next(step)
        lists = yield from _rest(step, message)
        return (yield from overlap_sizes(party, lists))

    assert compute(program).sole.pairs[1, 2] == 0


def _rest(step, message):
    while True:
        arrived = yield message
        try:
            message = step.send(arrived)
        except StopIteration as stop:
            return stop.value


def test_an_empty_list_overlaps_with_nobody():
    def program(party):
        lists = yield from lists_of(party, {1: [], 2: names(1), 3: names(1)})
        sizes = yield from overlap_sizes(party, lists)
        return sizes, (yield from also_elsewhere(party, lists))

    run = compute(program)
    assert run.sole[0].pairs == {(1, 2): 0, (1, 3): 0, (2, 3): 1}
    assert run.results[1][1].tolist() == []
    assert run.results[2][1].tolist() == [True]


def test_fingerprints_and_places_depend_on_key_and_context():
    first = _hashed(names(1), KEY, b"one", 64)
    assert np.array_equal(first[0], _hashed(names(1), KEY, b"one", 64)[0])
    assert not np.array_equal(first[0], _hashed(names(1), KEY, b"two", 64)[0])
    assert not np.array_equal(first[0], _hashed(names(1), seed("x"), b"one", 64)[0])


def test_a_thousand_patients_get_bins_of_their_own_and_no_bin_overflows():
    _, places = _hashed(names(*range(1_000)), KEY, b"", 1_500)
    mine = _placed_once(places, 1_500)
    assert len(set(mine.tolist())) == 1_000
    assert all(place in choices for place, choices in zip(mine, places, strict=True))
    assert np.bincount(places.reshape(-1)).max() <= slots_for(1_000, 1_500) <= 25


@pytest.mark.parametrize(
    ("lists", "key", "capacity"),
    [(names(1, 1), KEY, 40), (names(*range(41)), KEY, 40), (names(1), KEY[:31], 40), (names(1), KEY, 200_000)],
)
def test_lists_that_cannot_be_hidden_are_refused(lists, key, capacity):
    everyone = dict.fromkeys((1, 2, 3), lists)
    run = compute(lambda party: lists_of(party, everyone, key, capacity))
    assert all(isinstance(error, MisuseError) for error in run.errors.values())
    assert run.messages == []
