"""Cell P of plan `secagg`, beyond 30 hubs: who shares masks with whom, and that nobody can be cut off.

The coordinator picks who colludes with it and whom it calls dropped: the masks with both are known to it. A hub
whose neighbours are all among them is alone. Controls give every hub fewer neighbours and win.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from tests.adversary.secagg_rounds import (
    NAMES,
    Federation,
    answers,
    any_of,
    group,
    integers,
    remove_mask,
    spy,
    uniform_bytes,
    words,
)

from flute.aggregation import terms
from flute.aggregation.context import context
from flute.aggregation.masks import opposite, pair_mask, self_mask
from flute.defaults import COMPLETE_GRAPH_HUBS
from flute.messages.protocol import GroupTerms, Masked, Start, Survivors
from flute.primitives.keys import AgreementKey
from flute.primitives.sharing import combine

pytestmark = pytest.mark.requirement("F-SRS-10")

COLLUDING, LOST = 6, 6


def edges(group_terms: GroupTerms, hubs: tuple[str, ...]) -> set[tuple[str, str]]:
    return {(hub, other) for hub in hubs for other in terms.neighbours(group_terms, hubs, hub)}


def left_together(pairs: Collection[tuple[str, str]], hubs: Collection[str], gone: Collection[str]) -> bool:
    """Are all hubs but `gone` still joined by masks?"""
    here = set(hubs) - set(gone)
    near = {hub: {b for a, b in pairs if a == hub and b in here} for hub in here}
    seen, todo = set(), [min(here)]
    while todo:
        hub = todo.pop()
        if hub not in seen:
            seen.add(hub)
            todo += near[hub]
    return seen == here


def connectivity(pairs: Collection[tuple[str, str]], hubs: tuple[str, ...]) -> int:
    """Fewest hubs whose loss parts others. The graph looks alike from every hub, so paths from the first one do.
    Source: Menger 1927, as a maximum flow through hubs split into an entry and an exit of capacity 1."""
    at, n = {hub: k for k, hub in enumerate(hubs)}, len(hubs)
    rows, columns = [*range(n)], [n + k for k in range(n)]
    for a, b in pairs:
        rows.append(n + at[a])
        columns.append(at[b])
    graph = csr_array((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=(2 * n, 2 * n))
    apart = [k for k in range(1, n) if (hubs[0], hubs[k]) not in pairs]
    return min((int(maximum_flow(graph, n, k).flow_value) for k in apart), default=n - 1)


SHAPES = [(31, 6, 25), (31, 0, 31), (40, 6, 34), (45, 15, 40), (50, 1, 30), (60, 6, 54), (60, 20, 45)]
"""Hubs, colluding, survivors_min."""


def shape(n: int, c: int, survivors: int) -> GroupTerms:
    return group(n, c, survivors_min=survivors)


@pytest.mark.parametrize(("n", "c", "survivors"), SHAPES)
def test_masks_hold_together_whoever_colludes_or_is_called_dropped(n: int, c: int, survivors: int) -> None:
    made = shape(n, c, survivors)
    terms.check(made)
    assert connectivity(edges(made, made.hubs), made.hubs) > c + n - survivors


@pytest.mark.parametrize("n", range(31, 61))
def test_neighbours_agree_both_ways_and_no_ring_of_twelve_cuts_a_hub_off(n: int) -> None:
    """Six on each side are what isolates a hub of degree 12; the control is that degree on the same hubs."""
    made = shape(n, COLLUDING, n - LOST)
    pairs = edges(made, made.hubs)
    assert {(b, a) for a, b in pairs} == pairs
    assert all(a != b for a, b in pairs)
    for at in range(0, n, 6):
        gone = {made.hubs[(at + step) % n] for step in (*range(-6, 0), *range(1, 7))}
        assert left_together(pairs, made.hubs, gone)
        thin = {(a, b) for a, b in pairs if 0 < min((k := made.hubs.index(a) - made.hubs.index(b)) % n, -k % n) <= 6}
        assert at or not left_together(thin, made.hubs, gone)


@pytest.mark.parametrize("n", [29, 30, 31])
def test_up_to_thirty_hubs_everyone_shares_a_mask_with_everyone(n: int) -> None:
    made = shape(n, COLLUDING, n - LOST)
    complete = {(a, b) for a in made.hubs for b in made.hubs if a != b}
    assert (edges(made, made.hubs) == complete) is (n <= COMPLETE_GRAPH_HUBS)


def test_participants_that_a_coordinator_leaves_out_beforehand_count_as_lost() -> None:
    """Leaving hubs out at message 0 does not add to those that may be called dropped afterwards."""
    made = shape(60, COLLUDING, 48)
    for left in (60, 54, 48):
        hubs = made.hubs[:left]
        assert connectivity(edges(made, hubs), hubs) > COLLUDING + left - 48


# --- the attack, with real hubs -------------------------------------------------------------------

VICTIM = "hub-p"


def bared(
    federation: Federation, start: Start, sent: Masked, points: dict[str, AgreementKey], seed: bytes
) -> np.ndarray:
    """A vector without its self mask and the masks shared with hubs whose private keys are known."""
    ctx, mine = context(start), next(pub.point for pub in start.pubs if pub.hub == sent.hub)
    y = words(sent)
    remove_mask(y, self_mask(seed, ctx=ctx, hub=sent.hub))
    for hub in terms.neighbours(start.terms, federation.terms.hubs, sent.hub):
        if hub in points:
            theirs = pair_mask(points[hub], mine, ctx=ctx, me=hub, other=sent.hub)
            remove_mask(y, opposite([theirs])[0])
    return integers(y)


def opened(federation: Federation, shares: dict[str, bytes]) -> bytes:
    """A secret from t shares, by holder."""
    t, hubs = federation.terms.threshold, federation.terms.hubs
    held = {hubs.index(name) + 1: share for name, share in shares.items()}
    return combine(dict(list(held.items())[:t]), threshold=t)


def alone(size: int) -> tuple[np.ndarray, np.ndarray]:
    """31 hubs; of the twelve nearest to the victim six collude and six are called dropped. What the coordinator has
    of the victim's vector once it took off every mask it knows or was shown, and the victim's answer."""
    federation = Federation(group(31, COLLUDING, survivors_min=25), seed="ring")
    hubs = federation.terms.hubs
    at = hubs.index(VICTIM)
    dropped = {hubs[at + step] for step in (-6, -5, -4, 4, 5, 6)}
    colluding = {hubs[at + step] for step in (-3, -2, -1, 1, 2, 3)}
    spied, starts = spy(federation), federation.starts(size)
    values = answers(federation.terms, size)
    masked = federation.masked(starts, {n: v for n, v in values.items() if n not in dropped})
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    total = federation.total(starts, told, masked, shares).total
    assert np.array_equal(total, sum(values[n] for n in told.hubs))
    by = {hub: {n: m.shares[hubs.index(hub)] for n, m in shares.items()} for hub in hubs}
    points = {hub: spied[hub].point for hub in colluding}
    points |= {hub: AgreementKey(opened(federation, by[hub])) for hub in dropped}
    left = bared(federation, any_of(starts), masked[VICTIM], points, opened(federation, by[VICTIM]))
    return left, values[VICTIM]


def test_six_colluding_and_six_called_dropped_neighbours_leave_a_hub_hidden() -> None:
    """Chi-squared on 16 kB, false alarm 1e-6."""
    left, answer = alone(2_000)
    assert not np.array_equal(left, answer)
    assert uniform_bytes(left.tobytes())


def test_control_with_twelve_neighbours_the_same_twelve_lay_it_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "degree", lambda group_terms, participants: 12)
    left, answer = alone(2_000)
    assert np.array_equal(left, answer)


# --- without an echo ------------------------------------------------------------------------------


def alone_without_echo(size: int) -> tuple[np.ndarray, np.ndarray]:
    """40 hubs, 6 colluding, at least 24 in every sum; all vectors arrived. Each honest hub is told another set, which
    lacks up to 16 of the victim's 18 honest neighbours: each of these is missing often enough for its key to open."""
    made = group(40, COLLUDING, survivors_min=24, mode="passive")
    federation = Federation(made, seed="tongues")
    hubs, spied, starts = made.hubs, spy(federation), federation.starts(size)
    values = answers(made, size)
    masked, start = federation.masked(starts, values), any_of(starts)
    near = terms.neighbours(made, hubs, VICTIM)
    colluding, dropped = near[:COLLUDING], near[COLLUDING:]
    held = {name: federation.hubs[name].state.round.held for name in colluding}
    points = {dealer: {n: held[n][dealer].point for n in colluding} for dealer in hubs}
    seeds = {dealer: {n: held[n][dealer].seed for n in colluding} for dealer in hubs}
    for k, name in enumerate(hub for hub in hubs if hub not in colluding):
        lost = [hub for hub in (dropped[k % len(dropped) :] + dropped[: k % len(dropped)]) if hub != name][:16]
        told = Survivors(context(start), tuple(hub for hub in hubs if hub not in lost))
        shown = federation.hubs[name].unmask_without_echo(told).shares
        for dealer, share in zip(hubs, shown, strict=True):
            (points if dealer in lost else seeds)[dealer][name] = share
    known = {hub: spied[hub].point for hub in colluding}
    t = made.threshold
    known |= {hub: AgreementKey(opened(federation, points[hub])) for hub in dropped if len(points[hub]) >= t}
    return bared(federation, start, masked[VICTIM], known, opened(federation, seeds[VICTIM])), values[VICTIM]


def test_without_an_echo_no_hub_is_cut_off_by_those_that_a_liar_can_call_dropped() -> None:
    """The noise is shared among as many hubs as are counted on to be in every sum, an answer alone is not among them.
    Without an echo more hubs can be called dropped than n - survivors_min, each by another part of the others."""
    left, answer = alone_without_echo(6)
    assert not np.array_equal(left, answer)


def test_control_with_the_graph_of_the_echo_the_same_lies_lay_it_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "degree", lambda group_terms, participants: 24)
    left, answer = alone_without_echo(6)
    assert np.array_equal(left, answer)


def test_names_of_hubs_stand_in_alphabetical_order_on_the_circle() -> None:
    """Who is next to whom follows from public names alone, so that no coordinator chooses it after the fact."""
    made = shape(40, COLLUDING, 34)
    assert made.hubs == tuple(sorted(NAMES[:40]))
    near = terms.neighbours(made, made.hubs, made.hubs[0])
    assert near == tuple(sorted({made.hubs[k % 40] for k in range(-10, 11)} - {made.hubs[0]}))
