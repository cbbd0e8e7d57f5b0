"""Every order of every message that a lying coordinator can make, for 4 hubs, against the real state machine.

What is searched and why that is enough: `docs/proofs/secagg.md`. No chance is involved: the same states each time.
"""

from __future__ import annotations

import pytest
from tests.adversary.secagg_rounds import NAMES, group
from tests.model.explorer import Found, Search
from tests.model.facts import Fact, Scope
from tests.model.knowledge import NEVER_BOTH, ONE_SET, ONLY_SUMS, Knowledge
from tests.model.world import World

from flute.aggregation.terms import sharers
from flute.messages.protocol import GroupTerms

pytestmark = pytest.mark.timeout(900)  # a minute of processor time, on a machine that may be busy
LAST, LAST_TWO = NAMES[3:4], NAMES[2:4]
WORLDS = {
    "no hub corrupt": (Scope(group(4, 0), every_step=False), 21_000),
    "one corrupt, who signs two tickets of one serial": (Scope(group(4, 1), LAST, variants=2), 200_000),
    "one corrupt, exact sums, two questions": (
        Scope(group(4, 1, survivors_min=4, exact=True), LAST, questions=2, variants=2), 19_000,
    ),
    "two corrupt, two questions": (Scope(group(4, 2), LAST_TWO, questions=2, variants=2), 2_500),
    "two corrupt, two rounds": (Scope(group(4, 2), LAST_TWO, tickets=2), 20_000),
}  # fmt: skip
"""Scope and at least how many states it has, lest a search that stops early passes."""
LARGER = {
    "no hub corrupt, every step": Scope(group(4, 0)),
    "no hub corrupt, two questions": Scope(group(4, 0), questions=2, every_step=False),
    "one corrupt, two rounds": Scope(group(4, 1, survivors_min=4), LAST, tickets=2, every_step=False),
    "two corrupt, two rounds, two questions": Scope(
        group(4, 2), LAST_TWO, tickets=2, questions=2, variants=2, every_step=False
    ),
    "five hubs, two corrupt": Scope(group(5, 2), NAMES[3:5], every_step=False),
}


def searched(scope: Scope) -> tuple[World, Found]:
    world = World(scope)
    return world, Search(world).run()


def known(world: World, found: Found) -> set[frozenset[Fact]]:
    return {frozenset(world.facts_of(bits)) for bits in found.known}


def sums(world: World, found: Found) -> set[int]:
    """How many honest hubs are in the sums that can be read anywhere."""
    scope = world.scope
    return {len(part) for facts in known(world, found) for part in Knowledge(scope, list(facts)).sums()}


def report(name: str, found: Found) -> str:
    lines = [f"{name}: {found.states} states, {found.transitions} transitions"]
    for broken, trace in found.broken.items():
        lines += [f"BROKEN {broken}", *trace]
    return "\n".join(lines)


@pytest.mark.requirement("F-SRS-4")
@pytest.mark.parametrize("name", WORLDS)
def test_no_order_of_messages_shows_more_than_one_sum_of_enough_hubs(name: str) -> None:
    scope, least = WORLDS[name]
    world, found = searched(scope)
    print(report(name, found))
    assert not found.broken, report(name, found)
    assert not world.not_repeated
    assert found.states >= least
    needed = max(scope.terms.threshold, scope.terms.survivors_min)
    most = len(scope.honest)
    assert sums(world, found) == set(range(needed - len(scope.corrupt), most + 1)), "control: honest sums do open"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LARGER)
def test_no_order_of_messages_shows_more_in_larger_worlds(name: str) -> None:
    world, found = searched(LARGER[name])
    print(report(name, found))
    assert not found.broken, report(name, found)
    assert not world.not_repeated
    assert sums(world, found)


@pytest.mark.parametrize(
    "scope",
    [
        {"terms": group(4, 1), "corrupt": LAST},
        {"terms": group(4, 1, mode="passive"), "corrupt": LAST},
        {"terms": group(4, 2), "corrupt": LAST_TWO, "tickets": 2},
    ],
    ids=["echo", "passive", "two rounds"],
)
def test_steps_that_larger_searches_leave_out_give_the_coordinator_nothing(scope: dict[str, object]) -> None:
    """Crashes, giving up and tickets that ride on shares: what can be known is the very same without them."""
    every, fewer = (searched(Scope(**scope, every_step=every)) for every in (True, False))  # type: ignore[arg-type]
    assert known(*every) == known(*fewer)
    assert every[1].states > fewer[1].states


@pytest.mark.parametrize(
    ("terms", "corrupt", "least"),
    [
        (group(4, 0, mode="passive"), (), 3),
        (group(4, 1, mode="passive"), LAST, 2),
        (group(4, 1, mode="passive", survivors_min=4), LAST, 3),
    ],
    ids=["none corrupt", "one corrupt", "one corrupt, no dropout"],
)
def test_without_an_echo_two_sets_open_and_no_sum_is_smaller_than_the_noise_counts_on(
    terms: GroupTerms, corrupt: tuple[str, ...], least: int
) -> None:
    """What passive mode gives up: the hubs' sets differ. What it keeps: never both, and m honest hubs in each sum."""
    world, found = searched(Scope(terms, corrupt, every_step=False))
    assert found.broken.keys() <= {ONE_SET, ONLY_SUMS}
    assert (ONE_SET in found.broken) == (terms.survivors_min < 4)
    assert min(sums(world, found)) == least
    assert least >= sharers(terms)
    assert NEVER_BOTH not in found.broken
