from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adversary.secagg_rounds import group

from flute.aggregation.terms import (
    check,
    check_participants,
    check_survivors,
    default_threshold,
    index_of,
    noise_sharers,
)
from flute.errors import Equivocation, MisuseError, NotPossible, TooFewHubs


@pytest.mark.parametrize(("n", "c", "t"), [(3, 0, 2), (3, 1, 3), (4, 1, 3), (5, 1, 4), (10, 2, 7), (30, 6, 19)])
def test_default_threshold_is_the_smallest_that_protects(n: int, c: int, t: int) -> None:
    assert default_threshold(n, c) == t
    check(group(n, c) if n < 27 else _thirty(t))


def _thirty(t: int, **changes: object):
    hubs = tuple(f"hub-{i:02}" for i in range(30))
    return group(3, 0, hubs=hubs, threshold=t, colluding=6, survivors_min=max(t, 3), **changes)


def test_no_threshold_protects_where_too_many_collude() -> None:
    with pytest.raises(NotPossible, match="fewer colluding"):
        default_threshold(3, 3)


@given(st.integers(3, 30), st.integers(0, 30))
def test_two_threshold_sets_share_more_hubs_than_collude(n: int, c: int) -> None:
    if c >= n:
        return
    t = default_threshold(n, c)
    assert 2 * t - n > c
    assert t == 2 or 2 * (t - 1) - n <= c


BROKEN = {
    "no study": ({"study": ""}, "name its study"),
    "two hubs": ({"hubs": ("hub-a", "hub-b"), "threshold": 2, "colluding": 0, "survivors_min": 3}, "3 to 30 hubs"),
    "31 hubs": ({"hubs": tuple(f"hub-{i:02}" for i in range(31))}, "3 to 30 hubs"),
    "unsorted": ({"hubs": ("hub-b", "hub-a", "hub-c")}, "alphabetical"),
    "twice": ({"hubs": ("hub-a", "hub-a", "hub-c")}, "once each"),
    "t of one": ({"threshold": 1, "colluding": 0}, "between 2"),
    "t above n": ({"threshold": 4}, "between 2"),
    "t too low for c": ({"threshold": 2}, "must exceed 4"),
    "survivors under t": ({"survivors_min": 2}, "survivors_min"),
    "survivors over n": ({"survivors_min": 4}, "survivors_min"),
    "exact, one honest": ({"exact": True, "colluding": 2}, "two honest hubs"),
    "exact of three, two may open": ({"exact": True, "colluding": 0, "threshold": 2}, "all three"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_terms_are_refused_with_a_sentence(name: str) -> None:
    changes, says = BROKEN[name]
    with pytest.raises(NotPossible, match=says):
        check(group(3, 1, **changes))


def test_exact_terms_need_every_hub() -> None:
    with pytest.raises(NotPossible, match="must contain all 5"):
        check(group(5, 1, exact=True))
    check(group(5, 1, exact=True, survivors_min=5))


def test_passive_terms_without_an_honest_hub_to_be_sure_of_are_refused() -> None:
    with pytest.raises(NotPossible, match="two-message"):
        check(group(5, 0, mode="passive"))
    check(group(5, 0, mode="passive", survivors_min=4))


@pytest.mark.parametrize(
    ("terms", "m"),
    [
        (group(3, 1), 2),
        (group(3, 0), 2),
        (group(3, 0, survivors_min=3, mode="passive"), 2),
        (_thirty(21), 15),
        (_thirty(21, mode="passive"), 10),
    ],
)
def test_noise_is_shared_by_the_honest_hubs_that_are_certain(terms: object, m: int) -> None:
    assert noise_sharers(terms) == m  # type: ignore[arg-type]


def test_holders_are_numbered_in_alphabetical_order() -> None:
    assert [index_of(group(), hub) for hub in ("hub-a", "hub-b", "hub-c")] == [1, 2, 3]
    with pytest.raises(MisuseError):
        index_of(group(), "hub-x")


@pytest.mark.parametrize(
    "hubs", [("hub-b", "hub-a", "hub-c"), ("hub-a", "hub-a", "hub-b"), ("hub-a", "hub-b", "hub-x")]
)
def test_sets_that_are_not_hubs_once_each_are_refused(hubs: tuple[str, ...]) -> None:
    with pytest.raises(Equivocation):
        check_participants(group(), hubs)
    with pytest.raises(Equivocation):
        check_survivors(group(), group().hubs, hubs)


def test_private_rounds_need_survivors_min_and_exact_ones_everybody() -> None:
    five = group(5, 1)
    check_participants(five, five.hubs[:4])
    with pytest.raises(TooFewHubs, match="no fewer than 4"):
        check_participants(five, five.hubs[:3])
    with pytest.raises(TooFewHubs, match="hub-e is missing"):
        check_participants(group(5, 1, exact=True, survivors_min=5), five.hubs[:4])


def test_survivors_are_all_participants_or_the_round_is_repeated() -> None:
    five = group(5, 1, survivors_min=4)
    check_survivors(five, five.hubs[:4], five.hubs[:4])
    with pytest.raises(TooFewHubs, match=r"hub-e is missing.*fresh tickets.*charged again"):
        check_survivors(five, five.hubs, five.hubs[:4])
