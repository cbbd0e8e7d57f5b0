"""Cell P of plan `secagg`: reopening, replays, crashes, restored machines. A ticket masks once and opens once."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.adversary.secagg_rounds import Federation, answers, any_of, group, spy, strip, words

from flute.aggregation import collector
from flute.aggregation.context import context, echo_to_sign
from flute.aggregation.state import TRANSITIONS, Event, Phase, follow
from flute.errors import BadShare, Equivocation, FluteError, OutOfOrder, Replayed, TooFewHubs
from flute.messages.protocol import Echo, Echoes, Shares, Start, Survivors

OTHER = b"o" * 32


def test_a_second_set_a_second_opening_and_a_replay_are_refused() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    values = answers(federation.terms)
    starts = federation.starts(6)
    masked = federation.masked(starts, values)
    told = federation.told(starts, masked)
    hub = federation.hubs["hub-a"]
    tag = hub.echo(told)
    with pytest.raises(OutOfOrder, match="cannot sign a survivor set now"):
        hub.echo(replace(told, hubs=told.hubs[:4]))
    assert hub.echo(told) == tag
    tags = {n: h.echo(told) for n, h in federation.hubs.items()}
    shares, _ = hub.unmask(Echoes(told.ctx, tuple(tags.values())))
    with pytest.raises(OutOfOrder):
        hub.unmask(Echoes(told.ctx, tuple(tags.values())[:4]))
    with pytest.raises(OutOfOrder):
        hub.mask(values["hub-a"])
    with pytest.raises(Replayed, match="used or given up"):
        hub.begin(replace(starts["hub-a"], round=99))
    with pytest.raises(Replayed, match="used or given up"):
        hub.begin(replace(starts["hub-a"], question=OTHER), OTHER)
    assert hub.begin(starts["hub-a"]) == masked["hub-a"]
    assert shares.ticket is not None


def test_a_replayed_round_is_refused_after_the_next_one() -> None:
    federation = Federation()
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))
    told = federation.told(starts, masked)
    federation.shares(starts, told)
    federation.run(answers(federation.terms, seed=2))
    hub = federation.hubs["hub-b"]
    with pytest.raises(Replayed):
        hub.begin(starts["hub-b"])
    with pytest.raises(Equivocation, match="another round"):
        hub.echo(told)


def test_tag_shares_and_sets_of_another_round_are_refused() -> None:
    federation = Federation()
    first = federation.starts(6)
    old = federation.told(first, federation.masked(first, answers(federation.terms)))
    old_tags = {n: h.echo(old) for n, h in federation.hubs.items()}
    federation.tickets = {n: h.deal(after=1) for n, h in federation.hubs.items()}
    second = federation.starts(6)
    told = federation.told(second, federation.masked(second, answers(federation.terms)))
    hub = federation.hubs["hub-a"]
    with pytest.raises(Equivocation, match="another round"):
        hub.echo(old)
    hub.echo(told)
    with pytest.raises((Equivocation, TooFewHubs)):
        hub.unmask(Echoes(old.ctx, tuple(old_tags.values())))
    with pytest.raises(TooFewHubs):
        hub.unmask(Echoes(told.ctx, tuple(replace(tag, ctx=told.ctx) for tag in old_tags.values())))


# --- crashes and copies ------------------------------------------------------------------------------


def test_a_crash_between_masking_and_sending_leads_to_the_same_bytes_or_to_none() -> None:
    federation = Federation()
    starts = federation.starts(6)
    hub, start = federation.hubs["hub-a"], starts["hub-a"]
    hub.begin(start)
    assert hub.begin(start) is None
    first = hub.mask(answers(federation.terms, seed=1)["hub-a"])
    with pytest.raises(OutOfOrder, match="cannot mask an answer now"):
        hub.mask(answers(federation.terms, seed=2)["hub-a"])
    assert hub.begin(start) == first


def test_control_the_same_mask_twice_gives_the_difference_away() -> None:
    """A hub that masks before its state is on disk, and again after the crash: noise and answer fall out."""
    federation = Federation()
    starts = federation.starts(6)
    hub = federation.hubs["hub-a"]
    hub.begin(starts["hub-a"])
    on_disk, x1, x2 = hub.disk, answers(federation.terms, seed=1)["hub-a"], answers(federation.terms, seed=2)["hub-a"]
    first = words(hub.mask(x1))
    hub.disk = on_disk
    second = words(hub.mask(x2))
    assert np.array_equal((first - second)[:6].astype(np.int64), x1 - x2)


def test_control_masking_r_times_after_crashes_averages_the_noise_away() -> None:
    """The same answer under fresh noise and one mask, 400 times: differences show noise alone, and its mean falls
    to sigma / 20. Bound at 5 sigma of that mean: false alarm 6e-7."""
    rng, sigma, repeats = np.random.default_rng(5), 1_000.0, 400
    federation = Federation()
    starts = federation.starts(1)
    hub = federation.hubs["hub-a"]
    spied_seeds = spy(federation)
    hub.begin(starts["hub-a"])
    on_disk, truth = hub.disk, 123_456
    sent = []
    for _ in range(repeats):
        hub.disk = on_disk
        sent.append(hub.mask(np.array([truth + round(rng.normal(scale=sigma))], dtype=np.int64)))
    offsets = [int((words(s) - words(sent[0]))[0].astype(np.int64)) for s in sent]
    assert np.std(offsets) == pytest.approx(sigma, rel=0.2)
    first_noise = int(strip(sent[0], starts["hub-a"], spied_seeds)[0]) - truth
    assert abs(np.mean(offsets) + first_noise) < 5 * sigma / np.sqrt(repeats)


def test_restored_machine_enrols_again_and_its_old_tickets_shares_and_rounds_are_void() -> None:
    """The secret store is in no backup: what comes back is a hub without state, and it enrols."""
    federation = Federation()
    starts = federation.starts(6)
    federation.masked(starts, answers(federation.terms))
    hub = federation.hubs["hub-a"]
    study_keys = [h.enrol(federation.terms) for h in federation.hubs.values()]
    hub.setup(study_keys, federation.terms)
    with pytest.raises(OutOfOrder, match="no live ticket"):
        hub.begin(starts["hub-a"])
    mine = hub.deal()
    forged = replace(starts["hub-a"], pubs=(mine.pub, *starts["hub-a"].pubs[1:]))
    with pytest.raises(BadShare, match="hub-b"):
        hub.begin(forged)


def test_control_restored_state_masks_the_old_ticket_again() -> None:
    federation = Federation()
    starts = federation.starts(6)
    hub = federation.hubs["hub-a"]
    backup = hub.disk
    x1, x2 = (answers(federation.terms, seed=s)["hub-a"] for s in (1, 2))
    hub.begin(starts["hub-a"])
    first = words(hub.mask(x1))
    hub.disk = backup
    hub.begin(starts["hub-a"])
    second = words(hub.mask(x2))
    assert np.array_equal((first - second)[:6].astype(np.int64), x1 - x2)


def test_abort_loop_costs_a_fresh_ticket_and_an_independent_mask_each_time() -> None:
    """Rounds that are given up after message 1 teach nothing together; each was charged."""
    federation = Federation()
    values = answers(federation.terms)
    contexts, differences, last = set(), [], None
    for _ in range(10):
        starts = federation.starts(6)
        masked = federation.masked(starts, values)
        contexts.add(context(any_of(starts)))
        y = words(masked["hub-a"])
        if last is not None:
            differences.append(y - last)
        last = y
        serials = {n: t.pub.serial for n, t in federation.tickets.items()}
        federation.tickets = {n: h.deal(after=serials[n]) for n, h in federation.hubs.items()}
    assert len(contexts) == 10
    assert not any((difference == 0).any() for difference in differences)
    assert federation.hubs["hub-a"].state.serial == 12


def test_dealing_again_gives_the_same_ticket_bytes_until_it_is_burnt() -> None:
    federation = Federation()
    hub = federation.hubs["hub-a"]
    first = federation.tickets["hub-a"]
    assert hub.deal() == first
    assert hub.deal() == first
    second = hub.deal(after=first.pub.serial)
    assert second.pub.serial == 2
    assert second.pub.point != first.pub.point
    assert hub.deal(after=1) == second


# --- the table ----------------------------------------------------------------------------------------


def test_no_path_of_the_table_masks_or_opens_twice_without_a_new_beginning() -> None:
    """Every walk of up to seven steps: between two MASKs, and between two OPENs, there is a BEGIN."""
    walks = [(phase, ()) for phase in Phase]
    for _ in range(7):
        walks = [
            (to, (*path, event)) for at, path in walks for (source, event), to in TRANSITIONS.items() if source == at
        ]
        for _, path in walks:
            for once in ({Event.MASK}, {Event.OPEN, Event.OPEN_UNECHOED}):
                at = [i for i, event in enumerate(path) if event in once]
                assert all(Event.BEGIN in path[i:j] for i, j in pairwise(at))


def test_every_step_outside_the_table_is_refused() -> None:
    outside = [(p, e) for p in Phase for e in Event if (p, e) not in TRANSITIONS]
    assert len(outside) == len(Phase) * len(Event) - len(TRANSITIONS)
    for phase, event in outside:
        with pytest.raises(OutOfOrder):
            follow(phase, event)


@dataclass
class Liar:
    """A coordinator with every other hub on its side: it sends hub-a anything it can make, in any order."""

    federation: Federation
    starts: list[Start] = field(default_factory=list)
    vectors: dict[int, set[bytes]] = field(default_factory=dict)
    signed: dict[bytes, set[bytes]] = field(default_factory=dict)
    shown: dict[bytes, set[tuple[bytes, ...]]] = field(default_factory=dict)

    def new_start(self, pick: int) -> None:
        """A fresh message 0 over hub-a's live ticket; every other time a variant of the last."""
        federation = self.federation
        for name in federation.terms.hubs[1:]:
            federation.tickets[name] = federation.hubs[name].deal(after=federation.tickets[name].pub.serial)
        start = federation.starts(2)["hub-a"]
        self.starts.append(start if pick % 2 else replace(start, question=OTHER))

    def call(self, action: str, pick: int) -> None:
        hub = self.federation.hubs["hub-a"]
        start = self.starts[pick % len(self.starts)]
        ctx, hubs = context(start), self.set_of(pick)
        if action == "start":
            self.new_start(pick)
        elif action == "deal":
            self.federation.tickets["hub-a"] = hub.deal(after=pick % 4 + max(hub.state.serial - 4, 0))
        elif action == "begin":
            masked = hub.begin(start, start.question)
            assert masked is None or masked.vector in self.vectors[hub.state.round.serial]
        elif action == "mask":
            sent = hub.mask(np.array([pick, -pick], dtype=np.int64))
            self.vectors.setdefault(hub.state.round.serial, set()).add(sent.vector)
        elif action == "echo":
            tag = hub.echo(Survivors(ctx, hubs))
            self.signed.setdefault(ctx, set()).add(tag.signature)
        elif action == "open":
            self.note(hub.unmask(self.tags(ctx, hubs, pick), next_ticket=bool(pick % 2))[0])
        elif action == "open without echo":
            self.note(hub.unmask_without_echo(Survivors(ctx, hubs)))

    def set_of(self, pick: int) -> tuple[str, ...]:
        """All four hubs, three of them with hub-a (two ways), or too few."""
        hubs = self.federation.terms.hubs
        return {0: hubs[:3], 2: (hubs[0], *hubs[2:]), 4: hubs[:2]}.get(pick % 6, hubs)

    def tags(self, ctx: bytes, hubs: tuple[str, ...], pick: int) -> Echoes:
        """All tags over that set, made with the hubs' own keys: at worst hub-a's key signed this before too."""
        names = hubs if pick % 3 else hubs[1:]
        terms = self.federation.terms
        sign = {n: self.federation.hubs[n].key.sign(echo_to_sign(terms, ctx, n, hubs)) for n in names}
        return Echoes(ctx, tuple(Echo(ctx, n, s) for n, s in sign.items()))

    def note(self, shares: Shares) -> None:
        self.shown.setdefault(shares.ctx, set()).add(shares.shares)


ACTIONS = st.tuples(
    st.sampled_from(
        ["start", "deal", "begin", "begin", "mask", "mask", "echo", "echo", "open", "open", "open without echo"]
    ),
    st.integers(0, 11),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=25))
def test_no_order_of_messages_masks_or_opens_a_ticket_twice(actions: list[tuple[str, int]]) -> None:
    """After any prefix an honest run of the round is tried too, so that long prefixes are not all refusals."""
    liar = Liar(Federation(group(4, 1)))
    liar.new_start(1)
    tail = [("deal", 3), ("start", 1), *[(a, -1) for a in ("begin", "mask", "echo", "open", "open", "mask", "begin")]]
    for action, pick in [*actions, *tail]:
        before = liar.federation.hubs["hub-a"].disk
        try:
            liar.call(action, pick)
        except FluteError:
            assert liar.federation.hubs["hub-a"].disk == before
        assert all(len(sent) == 1 for sent in liar.vectors.values())
        assert all(len(tags) == 1 for tags in liar.signed.values())
        assert all(len(shares) == 1 for shares in liar.shown.values())
    assert len(set.union(*liar.vectors.values())) == len(liar.vectors)
    assert liar.shown


def test_collector_takes_no_message_for_another_round() -> None:
    federation = Federation()
    first = federation.starts(6)
    old = federation.masked(first, answers(federation.terms))
    federation.tickets = {n: h.deal(after=1) for n, h in federation.hubs.items()}
    second = federation.starts(6)
    start = any_of(second)
    for message in old.values():
        with pytest.raises(Equivocation, match=f"{message.hub} was masked for another round"):
            collector.check_masked(start, context(start), message, federation.keys)
