from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from tests.adversary.secagg_rounds import NAMES, group

from flute.aggregation import terms as rules
from flute.aggregation.terms import (
    check,
    check_participants,
    check_survivors,
    default_threshold,
    degree,
    index_of,
    neighbours,
    noise_sharers,
    sharers,
)
from flute.defaults import COMPLETE_GRAPH_HUBS, MAX_HUBS, MIN_NEIGHBOURS
from flute.errors import Equivocation, MisuseError, NotPossible, TooFewHubs
from flute.messages.protocol import GroupTerms


@pytest.mark.parametrize(("n", "c", "t"), [(3, 0, 2), (3, 1, 3), (4, 1, 3), (5, 1, 4), (10, 2, 7), (30, 6, 19)])
def test_default_threshold_is_the_smallest_that_protects(n: int, c: int, t: int) -> None:
    assert default_threshold(n, c) == t
    check(group(n, c))


def _thirty(t: int, **changes: object) -> GroupTerms:
    return group(30, 6, threshold=t, survivors_min=t, **changes)


def test_no_threshold_protects_where_too_many_collude() -> None:
    with pytest.raises(NotPossible, match="fewer colluding"):
        default_threshold(3, 3)


@given(st.integers(3, MAX_HUBS), st.integers(0, MAX_HUBS))
def test_two_threshold_sets_share_more_hubs_than_collude(n: int, c: int) -> None:
    if c >= n:
        return
    t = default_threshold(n, c)
    assert 2 * t - n > c
    assert t == 2 or 2 * (t - 1) - n <= c


def _two(**changes: object) -> dict[str, object]:
    return {"hubs": ("hub-a", "hub-b"), "threshold": 2, "survivors_min": 2, **changes}


TO_MAX_HUBS = f"to {MAX_HUBS} hubs"
BROKEN = {
    "no study": ({"study": ""}, "name its study"),
    "one hub": ({"hubs": ("hub-a",), "threshold": 1, "colluding": 0, "survivors_min": 1}, f"2 {TO_MAX_HUBS}"),
    "exact, two hubs": (_two(exact=True, colluding=0), f"3 {TO_MAX_HUBS}"),
    "two hubs, one of them enough": (_two(survivors_min=1), "survivors_min"),
    "two hubs, one of them opens": (_two(threshold=1), "between 2"),
    "two hubs, both colluding": (_two(colluding=2), "must exceed 4"),
    "201 hubs": ({"hubs": NAMES[: MAX_HUBS + 1]}, f"2 {TO_MAX_HUBS}"),
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


def test_two_hubs_are_summed_under_noise_where_each_alone_adds_what_is_charged() -> None:
    two = group(3, 1, **_two())
    check(two)
    assert sharers(two) == 1


def test_exact_terms_need_every_hub() -> None:
    with pytest.raises(NotPossible, match="must contain all 5"):
        check(group(5, 1, exact=True))
    check(group(5, 1, exact=True, survivors_min=5))


def test_at_least_one_honest_hub_is_in_every_sum_that_anybody_can_read() -> None:
    """A sum without any honest hub tells nothing; the noise of one is what the weakest group counts on."""
    assert sharers(group(5, 0, mode="passive")) == 1
    check(group(5, 0, mode="passive"))


@pytest.mark.parametrize(
    ("terms", "m"),
    [
        (group(3, 1), 2),
        (group(3, 0), 2),
        (group(3, 0, survivors_min=3, mode="passive"), 2),
        (_thirty(21), 15),
        (_thirty(21, mode="passive"), 2),
    ],
)
def test_noise_is_shared_by_the_honest_hubs_that_are_certain(terms: GroupTerms, m: int) -> None:
    assert sharers(terms) == m


def honest_in_the_worst_sum(n: int, c: int, survivors_min: int, t: int) -> int:
    """Honest hubs in the emptiest sum with any that a liar opens without an echo, every lie of one round tried.

    Colluding hubs (one at least: whoever sees a total knows its own noise) show any share. Each honest hub is told a
    set that leaves out n - survivors_min of the other honest ones; a hub is out of the sum once t shares of its
    private key were shown.
    """
    known = max(c, 1)
    honest, drops = range(n - known), min(n - survivors_min, n - known - 1)
    told = [list(combinations([h for h in honest if h != me], drops)) for me in honest]
    fewest = len(honest)
    for left_out in product(*told):
        shown = Counter(hub for each in left_out for hub in each)
        inside = sum(known + shown[hub] < t for hub in honest)
        fewest = min(fewest, inside or fewest)
    return fewest


PASSIVE = [
    (n, c, survivors_min, default_threshold(n, c))
    for n in (4, 5, 6)
    for c in range(3)
    if default_threshold(n, c) <= n - 1
    for survivors_min in range(max(default_threshold(n, c), 3), n + 1)
]


@pytest.mark.parametrize(("n", "c", "survivors_min", "t"), PASSIVE)
def test_without_an_echo_no_more_sharers_are_promised_than_the_worst_lie_leaves(
    n: int, c: int, survivors_min: int, t: int
) -> None:
    m = noise_sharers(hubs=n, colluding=c, survivors_min=survivors_min, threshold=t, echo=False)
    assert m <= honest_in_the_worst_sum(n, c, survivors_min, t)


def test_control_counting_on_the_echo_promises_more_than_a_lie_without_it_leaves() -> None:
    m = noise_sharers(hubs=6, colluding=1, survivors_min=4, threshold=4, echo=True)
    assert m == 3 > honest_in_the_worst_sum(6, 1, 4, 4) == 2


@settings(deadline=None)
@given(st.integers(3, MAX_HUBS), st.data())
def test_sharers_never_exceed_the_honest_hubs_of_the_smallest_set(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, max(n // 3, 1)))
    t = default_threshold(n, c)
    survivors_min = data.draw(st.integers(min(max(t, 3), n), n))
    echoed, passive = (
        noise_sharers(hubs=n, colluding=c, survivors_min=survivors_min, threshold=t, echo=echo)
        for echo in (True, False)
    )
    assert 0 <= passive <= echoed == survivors_min - max(c, 1)


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


def test_private_sums_go_on_without_hubs_down_to_survivors_min() -> None:
    five = group(5, 1, survivors_min=4)
    check_survivors(five, five.hubs, five.hubs)
    check_survivors(five, five.hubs, five.hubs[1:])
    check_survivors(five, five.hubs[:4], five.hubs[:4])
    with pytest.raises(TooFewHubs, match=r"3 hubs are left.*no fewer than 4.*fresh tickets.*charged again"):
        check_survivors(five, five.hubs, five.hubs[:3])
    with pytest.raises(Equivocation, match="did not take part"):
        check_survivors(five, five.hubs[:4], five.hubs)


def test_exact_sums_never_go_on_without_a_hub() -> None:
    five = group(5, 1, exact=True, survivors_min=5)
    check_survivors(five, five.hubs, five.hubs)
    with pytest.raises(TooFewHubs, match=r"hub-e is missing.*fresh tickets.*charged again"):
        check_survivors(five, five.hubs, five.hubs[:4])


# --- who shares a mask with whom -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, COMPLETE_GRAPH_HUBS])
def test_up_to_30_hubs_everyone_shares_a_mask_with_everyone(n: int) -> None:
    terms = group(n, 1)
    for hub in terms.hubs:
        assert neighbours(terms, terms.hubs, hub) == tuple(h for h in terms.hubs if h != hub)


@settings(deadline=None)
@given(st.integers(3, MAX_HUBS), st.data())
def test_neighbours_are_mutual_and_as_many_as_the_degree(n: int, data: st.DataObject) -> None:
    c = data.draw(st.integers(0, n // 3))
    t = default_threshold(n, c)
    terms = group(n, c, survivors_min=data.draw(st.integers(max(t, 3), n)))
    hubs = terms.hubs[: data.draw(st.integers(terms.survivors_min, n))]
    near = {hub: neighbours(terms, hubs, hub) for hub in hubs}
    for hub, others in near.items():
        assert len(set(others)) == len(others) == degree(terms, len(hubs))
        assert list(others) == sorted(others)
        assert hub not in others
        assert all(hub in near[other] for other in others)


def test_a_degree_is_no_smaller_than_the_floor_and_grows_with_the_corruption_bound() -> None:
    assert degree(group(40, 2, survivors_min=40), 40) == MIN_NEIGHBOURS
    assert degree(group(60, 15, survivors_min=50), 60) == 26
    assert degree(group(60, 15, survivors_min=49), 60) == 28
    assert degree(group(31, 10, survivors_min=21), 31) == 22
    assert degree(group(31, 9, survivors_min=21), 31) == 20
    assert degree(group(200, 60, survivors_min=131), 200) == 130


Graph = dict[str, tuple[str, ...]]


def connectivity(graph: Graph) -> int:
    """The fewest hubs whose loss parts the others, or all but one where nothing does: Menger's theorem, over every
    pair without an edge; paths that share no hub are a flow through hubs split in two, one unit each."""
    hubs = list(graph)
    n, at = len(hubs), {hub: i for i, hub in enumerate(hubs)}
    inside = [(i, n + i, 1) for i in range(n)]
    between = [(n + at[hub], at[other], n) for hub in hubs for other in graph[hub] if other in at]
    rows, columns, units = zip(*inside, *between, strict=True)
    flows = csr_array((np.array(units, dtype=np.int32), (rows, columns)), shape=(2 * n, 2 * n))
    parted = [(a, b) for a, b in combinations(hubs, 2) if b not in graph[a]]
    return min((int(maximum_flow(flows, n + at[a], at[b]).flow_value) for a, b in parted), default=n - 1)


def test_connectivity_of_graphs_that_are_known() -> None:
    ring = {"a": ("b", "d"), "b": ("a", "c"), "c": ("b", "d"), "d": ("a", "c")}
    assert connectivity(ring) == 2
    assert connectivity({"a": ("b",), "b": ("a", "c"), "c": ("b",)}) == 1
    assert connectivity({"a": (), "b": ()}) == 0
    assert connectivity({"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}) == 2


def sampled(n: int) -> GroupTerms:
    """Terms of n hubs with c and survivors_min at random; every other time as few survivors as allowed."""
    rng = np.random.default_rng(n)
    c = int(rng.integers(0, n // 3))
    t = default_threshold(n, c)
    return group(n, c, survivors_min=t if n % 2 else int(rng.integers(t, n + 1)))


def worst_sets(terms: GroupTerms, seed: int) -> list[tuple[str, ...]]:
    """Survivors where the dropped are one hub's nearest neighbours, and where they are any."""
    hubs, rng = terms.hubs, np.random.default_rng(seed)
    lost = len(hubs) - terms.survivors_min
    victim = hubs[int(rng.integers(len(hubs)))]
    near = set(neighbours(terms, hubs, victim)[:lost])
    any_of_them = {hubs[i] for i in rng.choice(len(hubs), lost, replace=False)}
    return [tuple(h for h in hubs if h not in gone) for gone in (near, any_of_them)]


@pytest.mark.parametrize("n", range(COMPLETE_GRAPH_HUBS + 1, 61))
def test_survivors_stay_connected_whoever_colludes(n: int) -> None:
    terms = sampled(n)
    check(terms)
    for survivors in worst_sets(terms, n):
        graph = {hub: tuple(neighbours(terms, terms.hubs, hub)) for hub in survivors}
        assert connectivity(graph) > terms.colluding


@pytest.mark.parametrize(("n", "c", "survivors_min"), [(40, 4, 24), (50, 6, 30), (60, 10, 36)])
def test_control_two_neighbours_fewer_let_one_hub_be_parted_from_the_others(
    n: int, c: int, survivors_min: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = group(n, c, survivors_min=survivors_min)
    assert degree(terms, n) == c + n - survivors_min + 2
    for smaller, held in ((0, True), (2, False)):
        monkeypatch.setattr(rules, "degree", lambda terms, n, less=smaller: degree(terms, n) - less)
        survivors = worst_sets(terms, 1)[0]
        graph = {hub: neighbours(terms, terms.hubs, hub) for hub in survivors}
        assert (connectivity(graph) > c) is held
