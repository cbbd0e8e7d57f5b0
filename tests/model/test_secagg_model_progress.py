"""What honest parties are owed: rounds open as long as enough hubs stay, and no lie leaves a hub stuck."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product

import numpy as np
import pytest
from tests.adversary.secagg_rounds import NAMES, Federation, answers, any_of, group
from tests.model.explorer import Search
from tests.model.facts import Round, Scope, TicketName
from tests.model.offers import chance
from tests.model.world import World

from flute.aggregation import collector, member
from flute.aggregation.state import MemberState, decode_state
from flute.errors import BadShare, TooFewHubs
from flute.messages.protocol import GroupTerms

pytestmark = pytest.mark.timeout(900)  # a minute of processor time, on a machine that may be busy
ALL = 3
"""Messages of a hub in a round: 1, 3 and 5."""


def dropouts(hubs: tuple[str, ...], most: int) -> Iterator[dict[str, int]]:
    """How many messages each hub sends, for every choice of at most so many hubs and of where each stops."""
    for count in range(most + 1):
        for names in combinations(hubs, count):
            for sent in product(range(ALL), repeat=count):
                yield dict.fromkeys(hubs, ALL) | dict(zip(names, sent, strict=True))


def should_open(terms: GroupTerms, sent: Mapping[str, int]) -> bool:
    masked, echoed, opened = (sum(count >= least for count in sent.values()) for least in (1, 2, 3))
    return masked >= terms.survivors_min and echoed >= terms.threshold and opened >= terms.threshold


def run(terms: GroupTerms, sent: Mapping[str, int]) -> collector.Opened:
    federation, values = Federation(terms), answers(terms)
    starts = federation.starts(6)
    staying = {least: [name for name in terms.hubs if sent[name] >= least] for least in (1, 2, 3)}
    masked = federation.masked(starts, {name: values[name] for name in staying[1]})
    told = federation.told(starts, masked)
    tags = {name: federation.hubs[name].echo(told) for name in staying[2]}
    message, _ = collector.echoes(any_of(starts), told, tags, federation.keys)
    shares = {name: federation.hubs[name].unmask(message)[0] for name in staying[3]}
    opened = federation.total(starts, told, masked, shares)
    assert np.array_equal(opened.total, sum(values[name] for name in staying[1]))
    return opened


@pytest.mark.parametrize(
    "terms",
    [group(4, 0), group(4, 1, survivors_min=4), group(4, 2)],
    ids=["one dropout allowed", "none before message 1", "none at all"],
)
def test_a_round_opens_exactly_where_enough_hubs_stay(terms: GroupTerms) -> None:
    """Every choice of at most two hubs that drop out, each at every point."""
    opened = 0
    for sent in dropouts(terms.hubs, 2):
        if should_open(terms, sent):
            run(terms, sent)
            opened += 1
        else:
            with pytest.raises((TooFewHubs, BadShare)):
                run(terms, sent)
    assert opened >= 1


def test_whatever_the_coordinator_sent_a_hub_takes_part_in_the_next_honest_round() -> None:
    world = World(Scope(group(4, 1), NAMES[3:4]))
    Search(world).run()
    fresh = Round(1, tuple(TicketName(hub, 2, 0) for hub in world.terms.hubs))
    starts = world.offers.starts_of(fresh)
    for node in world.nodes:
        state = decode_state(node.disk)
        assert isinstance(state, MemberState)
        name = fresh.ticket(node.hub)
        state, ticket = member.deal(state, key=world.hubs[node.hub].key, rand=chance(*name), after=1)
        assert ticket.pub in starts[node.hub].pubs
        state, answer = member.begin(state, starts[node.hub], question=world.offers.question(1), keys=world.keys)
        assert answer is None
    assert len(world.nodes) > 100
