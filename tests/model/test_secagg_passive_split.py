"""Passive mode against a coordinator that splits the hubs over two messages 0 with the same tickets.

Six hubs, hub-f corrupt, t = 4, survivors_min = 4. hub-a is told a round without hub-e, all others one with everybody.
A share is of a ticket and not of a context: those that hub-b to hub-e show in their round open the private keys of
hub-b to hub-d, which are all that hides hub-a's vector in its own. Each hub's set has 4 hubs and itself in it.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.adversary.secagg_rounds import NAMES, Federation, answers, group, integers, remove_mask, spy, words

from flute.aggregation import collector
from flute.aggregation.commitments import Kind
from flute.aggregation.context import context
from flute.aggregation.masks import MaskKey, opposite, pair_mask, self_mask
from flute.aggregation.terms import sharers
from flute.errors import TooFewHubs
from flute.messages.protocol import Echoes, GroupTerms, Start, Survivors
from flute.primitives.keys import AgreementKey
from flute.primitives.sharing import combine

A, B, C, D, E, F = NAMES[:6]
LEFT_OUT = {A: (D,), B: (C, D), C: (B, D), D: (B, C), E: (B, C)}
TERMS = group(6, 1, survivors_min=4)


def split(terms: GroupTerms) -> tuple[Federation, dict[str, Start], dict[str, Survivors]]:
    """Every honest hub's message 0 and the set that it is told."""
    federation = Federation(terms)
    everybody = federation.starts(6)
    without_e = federation.starts(6, hubs=tuple(name for name in terms.hubs if name != E))
    starts = {name: without_e[name] if name == A else everybody[name] for name in LEFT_OUT}
    told = {}
    for name, start in starts.items():
        taking_part = collector.participants(start)
        hubs = tuple(other for other in taking_part if other not in LEFT_OUT[name])
        told[name] = Survivors(context(start), hubs)
    return federation, starts, told


def test_without_an_echo_a_split_start_lays_one_hub_bare() -> None:
    terms = group(6, 1, survivors_min=4, mode="passive")
    federation, starts, told = split(terms)
    values = answers(terms)
    corrupt = federation.hubs[F]
    own_key = spy(federation)[F].point
    corrupt.begin(federation.starts(6)[F])
    known = corrupt.state.round.held
    masked, shown = {}, {}
    for name, start in starts.items():
        federation.hubs[name].begin(start)
        masked[name] = federation.hubs[name].mask(values[name])
        answer = federation.hubs[name].unmask_without_echo(told[name])
        shown[name] = dict(zip(collector.participants(start), answer.shares, strict=True))

    def secret(dealer: str, kind: Kind) -> bytes:
        own = known[dealer].seed if kind is Kind.SEED else known[dealer].point
        seed_shown = [name for name in shown if dealer in told[name].hubs]
        holders = [name for name in shown if (name in seed_shown) == (kind is Kind.SEED)]
        shares = {terms.hubs.index(name) + 1: shown[name][dealer] for name in holders if dealer in shown[name]}
        return combine(dict([*shares.items()][:3]) | {6: own}, threshold=4)

    ctx, vector = context(starts[A]), words(masked[A])
    remove_mask(vector, self_mask(secret(A, Kind.SEED), ctx=ctx, hub=A))
    points = {pub.hub: pub.point for pub in starts[A].pubs}
    for other in (B, C, D):
        key = AgreementKey(secret(other, Kind.POINT))
        remove_mask(vector, reversed_pair(key, points[A], ctx=ctx, me=other))
    remove_mask(vector, reversed_pair(own_key, points[A], ctx=ctx, me=F))
    assert np.array_equal(integers(vector), values[A]), "hub-a's own answer, and no other hub's"


def reversed_pair(key: AgreementKey, peer: bytes, *, ctx: bytes, me: str) -> MaskKey:
    """The mask as hub-a added it."""
    return opposite([pair_mask(key, peer, ctx=ctx, me=me, other=A)])[0]


def test_with_the_echo_the_same_split_opens_nothing() -> None:
    federation, starts, told = split(TERMS)
    tags = {}
    for name, start in starts.items():
        federation.hubs[name].begin(start)
        federation.hubs[name].mask(answers(TERMS)[name])
        tags[name] = federation.hubs[name].echo(told[name])
    for name in starts:
        with pytest.raises(TooFewHubs):
            federation.hubs[name].unmask(Echoes(told[name].ctx, tuple(tags.values())))


def test_noise_counts_on_no_more_honest_hubs_than_a_split_start_leaves() -> None:
    assert sharers(group(6, 1, survivors_min=4, mode="passive")) <= 1
