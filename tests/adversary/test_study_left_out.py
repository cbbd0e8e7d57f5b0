"""Attacks on who carries out a study: a coordinator leaves hubs out, tells them different sets, or lets one join.

It may say of any hub that it denied. What it then reads is a sum of fewer hubs, no fewer than agreed, under noise
that was scaled for it: what it could have by calling that hub dropped in a round. It gets nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import chi2

from flute.aggregation.codec import Layout
from flute.aggregation.terms import check, sharers
from flute.errors import BadSignature, Equivocation, NotInRoster, OutOfOrder, Stale, TooFewHubs, WrongStudy
from flute.messages.protocol import GroupTerms, Start, StudyKey, Ticket
from flute.study.agreement import Agreement, PlanChoice, agreement_digest, write_agreement
from flute.study.files.check import check_study
from flute.study.plans import sides
from flute.study.plans.quorum import among
from flute.study.protection import prices
from flute.study.protection import sharers as priced_sharers
from support.inprocess import make_roster
from support.parties import Party
from support.studies import DESCRIBE, EXACT, study, under_plan

HUBS = ("east", "north", "south", "west")
POOLED = DESCRIBE.replace("per_hub: true", "per_hub: false")
QUESTION = bytes(32)


def agreed(mode: str = "private", least: int = 2, *, hubs: Sequence[str] = HUBS, colluding: int = 1) -> Agreement:
    protection = "budget: {epsilon: 3}" if mode == "private" else EXACT
    base = study(protection, POOLED if mode == "private" else POOLED.replace("    share: 0.3\n", ""))
    conditions = dict.fromkeys(hubs, next(iter(base.conditions.values())))
    plan = PlanChoice("secagg", colluding, len(hubs) - least if mode == "private" else 0)
    return under_plan(base, plan, hubs=tuple(hubs), conditions=conditions, hubs_min=least)


class Disk:
    """One hub's side of a study, with its secrets in memory."""

    def __init__(self, hub: str, agreement: Agreement) -> None:
        self.hub, self.state, self.kept = hub, None, b""
        self.counter = 0
        digest = agreement_digest(write_agreement(agreement))
        self.side = sides.HubSide(
            hub, agreement, digest, make_roster(HUBS), load=lambda: self.state, save=self.save,
            vector=lambda: self.kept, key=Party(hub).signing, entropy=self.entropy,
        )  # fmt: skip
        self.key = self.side.study_key()

    def save(self, state: bytes, vector: bytes | None) -> None:
        self.state = state  # type: ignore[assignment]
        self.kept = self.kept if vector is None else vector

    def entropy(self, size: int) -> bytes:
        self.counter += 1
        return np.random.default_rng([*self.hub.encode(), self.counter]).bytes(size)


class Liar:
    """A coordinator that may tell each hub another set."""

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.hubs = {hub: Disk(hub, agreement) for hub in agreement.hubs}

    def keys(self, hubs: Sequence[str]) -> list[StudyKey]:
        return [self.hubs[hub].key for hub in sorted(hubs)]

    def terms(self, hubs: Sequence[str]) -> GroupTerms:
        digest = agreement_digest(write_agreement(self.agreement))
        return sides.group_terms(among(self.agreement, hubs), digest, make_roster(HUBS))

    def call(self, hub: str, said: Sequence[str], after: int = 0) -> Ticket:
        return self.hubs[hub].side.ticket(self.keys(said), after)[0]

    def message_0(self, told: Sequence[str], tickets: dict[str, Ticket]) -> dict[str, Start]:
        """As the honest coordinator makes it, without its own checks of the tickets: boxes of every dealer."""
        terms, hubs = self.terms(told), sorted(tickets)
        honest = sides.starts(terms, 1, QUESTION, Layout(64, 4), tickets, _keys()) if self._same(tickets) else {}
        if honest:
            return honest
        pubs = tuple(tickets[hub].pub for hub in hubs)
        return {hub: Start(terms, 1, QUESTION, 4, 64, pubs, ()) for hub in told}

    @staticmethod
    def _same(tickets: dict[str, Ticket]) -> bool:
        return len({ticket.pub.terms for ticket in tickets.values()}) == 1


def _keys() -> dict[str, bytes]:
    return {hub: Party(hub).signing.public for hub in HUBS}


def begin(liar: Liar, hub: str, start: Start) -> Any:
    return liar.hubs[hub].side.begin(start, QUESTION, Layout(64, 4))


# --- fewer hubs than answered ------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(3, 9))
def test_whoever_takes_part_the_honest_hubs_of_any_sum_add_all_the_noise_that_is_charged(n: int) -> None:
    """Every number of hubs, of colluding ones, of hubs that are enough, and of hubs that take part."""
    hubs = tuple(f"hub-{number}" for number in range(n))
    tried = 0
    for colluding in range(1, n - 1):
        for least in range(colluding + 1, n + 1):
            agreement = agreed(hubs=hubs, least=least, colluding=colluding)
            check_study(agreement)
            for size in range(least, n + 1):
                terms = sides.group_terms(among(agreement, hubs[:size]), bytes(32), make_roster(hubs))
                check(terms)
                assert sharers(terms) >= priced_sharers(agreement) >= 1
                tried += 1
    assert tried >= n - 1


def left_when_the_other_subtracts(agreement: Agreement, draws: int) -> tuple[float, int, float]:
    """(sum of squares, how many, variance that was charged for) of what a colluding hub finds in a sum of itself and
    one honest hub: that hub's own noise, on a row of zeros."""
    price = prices(agreement, agreement.questions[0])[0]
    mechanism = price.mechanism
    assert mechanism is not None
    rows = np.zeros((1, price.shape.size))
    rng = np.random.default_rng(7)
    left = np.concatenate([mechanism.contribution(rows, rand=rng.bytes(64)) for _ in range(draws)]).astype(float)
    return float((left**2).sum()), left.size, float(mechanism.hub_sigma**2 * mechanism.shares)


def test_a_coordinator_that_leaves_a_hub_out_and_colludes_with_another_finds_all_the_noise_that_was_charged() -> None:
    """Of three hubs it calls one refused and owns the second: the third's own noise alone is what was charged for.

    False alarm 1e-6. Control: noise that is shared by two, as where all three have to answer, is half and is seen."""
    three = ("north", "south", "west")
    squares, count, charged = left_when_the_other_subtracts(agreed(hubs=three), 200)
    assert squares / charged > chi2.ppf(1e-6, count)
    shared = under_plan(agreed(hubs=three, least=3), PlanChoice())
    squares, count, charged = left_when_the_other_subtracts(shared, 200)
    assert squares / charged < chi2.ppf(1e-6, count)


def test_fewer_hubs_than_agreed_are_refused_by_each_hub() -> None:
    liar = Liar(agreed(least=3))
    for said in combinations(HUBS, 2):
        with pytest.raises(TooFewHubs, match="at least 3 of its hubs"):
            liar.call(said[0], said)
    assert liar.call("east", HUBS[:3]).pub.hub == "east"  # control: three are enough


def test_a_hub_that_did_not_consent_is_in_no_set() -> None:
    """Its key is what says that it consented: a made-up one is not signed, one for another agreement is told."""
    liar = Liar(agreed())
    forged = msgspec.structs.replace(liar.hubs["west"].key, public=liar.hubs["east"].key.public)
    with pytest.raises(BadSignature, match="west"):
        liar.hubs["east"].side.ticket([*liar.keys(("east", "north")), forged], 0)
    elsewhere = Disk("west", msgspec.structs.replace(agreed(), title="Another study")).key
    with pytest.raises(WrongStudy, match="west"):
        liar.hubs["east"].side.ticket([*liar.keys(("east", "north")), elsewhere], 0)
    stranger = msgspec.structs.replace(liar.hubs["west"].key, hub="mallory")
    with pytest.raises((Equivocation, NotInRoster)):
        liar.hubs["east"].side.ticket([*liar.keys(("east", "north")), stranger], 0)


def test_a_hub_that_is_left_out_itself_deals_nothing() -> None:
    liar = Liar(agreed())
    with pytest.raises(Equivocation, match="without east"):
        liar.hubs["east"].side.ticket(liar.keys(("north", "south")), 0)


# --- different sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["private", "exact"])
def test_hubs_that_were_told_different_sets_are_in_no_sum_together(mode: str) -> None:
    """North is told that west takes part, east that it does not: neither answers a message 0 with the other's ticket.

    Control: told the same, both answer."""
    least = 2 if mode == "private" else 3
    wide, narrow = HUBS, ("east", "north", "south")
    liar = Liar(agreed(mode, least))
    tickets = {"east": liar.call("east", narrow), **{hub: liar.call(hub, wide) for hub in wide[1:]}}
    for told in (wide, narrow):
        starts = liar.message_0(told, {hub: tickets[hub] for hub in told})
        for hub in ("east", "north"):
            with pytest.raises((Stale, Equivocation)):
                begin(liar, hub, starts[hub])
    honest = Liar(agreed(mode, least))
    tickets = {hub: honest.call(hub, narrow) for hub in narrow}
    starts = honest.message_0(narrow, tickets)
    assert [begin(honest, hub, starts[hub]) for hub in narrow] == [None] * 3


def test_no_hub_joins_a_set_that_a_hub_was_told() -> None:
    liar = Liar(agreed())
    liar.call("east", ("east", "north", "south"))
    with pytest.raises(Equivocation, match="only ever gets smaller"):
        liar.call("east", HUBS, after=1)
    with pytest.raises(Equivocation, match="only ever gets smaller"):
        liar.call("east", ("east", "north", "west"), after=1)  # one for another
    smaller = liar.call("east", ("east", "north"), after=1)
    with pytest.raises(Equivocation):
        liar.call("east", ("east", "north", "south"), after=smaller.pub.serial)  # and back


def test_an_exact_study_keeps_its_set_so_that_no_two_sums_differ_by_one_hub() -> None:
    """Control: the private study of the same hubs lets one go, under noise."""
    liar = Liar(agreed("exact", 3))
    liar.call("east", HUBS)
    with pytest.raises(Equivocation, match="stays as it was"):
        liar.call("east", HUBS[:3], after=1)
    private = Liar(agreed("private", 3))
    private.call("east", HUBS)
    assert private.call("east", HUBS[:3], after=1).pub.serial == 2


def test_tickets_of_the_larger_set_open_nothing_once_a_hub_went_on_with_fewer() -> None:
    liar = Liar(agreed())
    tickets = {hub: liar.call(hub, HUBS) for hub in HUBS}
    starts = liar.message_0(HUBS, tickets)
    liar.call("east", HUBS[:3], after=1)
    with pytest.raises(Stale):
        begin(liar, "east", starts["east"])
    assert begin(liar, "north", starts["north"]) is None  # it may answer: of its sum east is a hub that dropped out


def test_a_call_for_fewer_hubs_ends_a_round_and_never_opens_both() -> None:
    """In the middle of a round: the hub's vector has left, and its part of opening that round is gone."""
    liar = Liar(agreed())
    tickets = {hub: liar.call(hub, HUBS) for hub in HUBS}
    starts = liar.message_0(HUBS, tickets)
    price = prices(liar.agreement, liar.agreement.questions[0])[0]
    for hub in HUBS:
        begin(liar, hub, starts[hub])
        liar.hubs[hub].side.mask(np.zeros(4, dtype=np.int64), price.bounds)
    told = sides.survivors(starts["east"], HUBS)
    liar.call("east", HUBS[:3], after=1)
    with pytest.raises(OutOfOrder, match="no open round"):
        liar.hubs["east"].side.told(told)
    assert liar.hubs["north"].side.told(told)
