"""Honest rounds: the total is the plain sum, at every size of group, over restarts and repeats."""

from __future__ import annotations

import numpy as np
import pytest
from tests.adversary.secagg_rounds import Federation, answers, any_of, group

from flute.aggregation import channels, collector, member
from flute.aggregation.codec import decode_exact, encode_exact, largest_part
from flute.aggregation.context import context
from flute.aggregation.state import Enrolled, Phase, decode_state, encode_state
from flute.errors import MisuseError, NotPossible, Stale, TooFewHubs


@pytest.mark.parametrize(("n", "c"), [(3, 1), (3, 0), (4, 1), (5, 1), (10, 2), (30, 6)])
def test_total_is_the_plain_sum(n: int, c: int) -> None:
    federation = Federation(group(n, c))
    values = answers(federation.terms)
    opened = federation.run(values)
    assert np.array_equal(opened.total, sum(values.values()))
    assert opened.bad_shares == ()


def test_rounds_follow_each_other_on_tickets_that_ride_on_the_shares() -> None:
    federation = Federation()
    for seed in range(4):
        values = answers(federation.terms, seed=seed)
        assert np.array_equal(federation.run(values).total, sum(values.values()))
    assert [hub.state.serial for hub in federation.hubs.values()] == [6, 6, 6]


def test_exact_round_returns_the_float_sum_within_its_stated_error() -> None:
    terms = group(3, 1, exact=True)
    federation = Federation(terms)
    rng = np.random.default_rng(7)
    parts = {name: rng.normal(scale=1_000.0, size=50) for name in terms.hubs}
    opened = federation.run({name: encode_exact(x, hubs=3) for name, x in parts.items()})
    true = sum(parts.values())
    assert np.all(np.abs(decode_exact(opened.total) - true) <= 3 * 2.0**-41 + np.abs(true) * 2.0**-51)


def test_a_hub_that_is_away_from_the_start_is_left_out_in_private_mode() -> None:
    federation = Federation(group(5, 1))
    values = answers(federation.terms)
    present = {name: values[name] for name in federation.terms.hubs if name != "hub-c"}
    assert np.array_equal(federation.run(present).total, sum(present.values()))
    federation.tickets["hub-c"] = federation.hubs["hub-c"].deal()
    assert np.array_equal(federation.run(values).total, sum(values.values()))


def test_passive_mode_opens_with_two_messages() -> None:
    federation = Federation(group(3, 1, mode="passive"))
    values = answers(federation.terms)
    starts = federation.starts(6)
    masked = federation.masked(starts, values)
    told = federation.told(starts, masked)
    shares = {name: hub.unmask_without_echo(told) for name, hub in federation.hubs.items()}
    opened = collector.total(any_of(starts), told, masked, shares, part_bound=largest_part(3))
    assert np.array_equal(opened.total, sum(values.values()))


def test_every_message_again_gives_the_same_bytes_again() -> None:
    federation = Federation()
    values = answers(federation.terms)
    starts = federation.starts(6)
    masked = federation.masked(starts, values)
    told = federation.told(starts, masked)
    hub = federation[0]
    assert hub.begin(starts[hub.name]) == masked[hub.name]
    received = {name: h.echo(told) for name, h in federation.hubs.items()}
    assert hub.begin(starts[hub.name]) == masked[hub.name]
    assert hub.echo(told) == received[hub.name]
    tags, _ = collector.echoes(any_of(starts), told, received, federation.keys)
    shares, _ = hub.unmask(tags)
    before = hub.disk
    assert hub.begin(starts[hub.name]) == masked[hub.name]
    assert hub.echo(told) == received[hub.name]
    assert hub.unmask(tags)[0] == shares
    assert hub.deal() == shares.ticket
    assert hub.disk == before


def test_a_killed_coordinator_goes_on_from_stored_messages() -> None:
    federation = Federation()
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    again = collector.survivors(starts["hub-b"], masked, federation.keys)
    assert again == told
    first = collector.total(starts["hub-a"], told, masked, shares, part_bound=largest_part(3))
    second = collector.total(starts["hub-c"], again, masked, shares, part_bound=largest_part(3))
    assert np.array_equal(first.total, second.total)


def test_a_silent_hub_stops_the_round_and_fresh_tickets_repeat_it() -> None:
    federation = Federation()
    values = answers(federation.terms)
    starts = federation.starts(6)
    for name in ("hub-a", "hub-b"):
        federation.hubs[name].begin(starts[name])
    masked = {name: federation.hubs[name].mask(values[name]) for name in ("hub-a", "hub-b")}
    with pytest.raises(TooFewHubs, match=r"hub-c is missing.*fresh tickets.*charged again"):
        federation.told(starts, masked)
    burnt = {name: ticket.pub.serial for name, ticket in federation.tickets.items()}
    federation.tickets = {name: hub.deal(after=burnt[name]) for name, hub in federation.hubs.items()}
    assert np.array_equal(federation.run(values).total, sum(values.values()))


def test_given_up_round_is_erased_and_its_ticket_stays_used() -> None:
    federation = Federation()
    starts = federation.starts(6)
    hub = federation[0]
    hub.begin(starts[hub.name])
    assert member.give_up(hub.state, bytes(32)) == hub.state
    state = member.give_up(hub.state, context(starts[hub.name]))
    assert state.phase is Phase.IDLE
    assert state.round is None
    assert state.dealt is None


def test_a_delayed_call_for_an_earlier_ticket_does_not_end_a_round() -> None:
    federation = Federation()
    starts = federation.starts(6)
    hub = federation[0]
    hub.begin(starts[hub.name])
    with pytest.raises(Exception, match="deals its next ticket at the end"):
        hub.deal(after=0)
    assert hub.state.phase is Phase.STARTED
    assert hub.deal(after=1).pub.serial == 2
    assert hub.state.phase is Phase.IDLE


def test_study_secret_is_gone_once_channels_stand() -> None:
    terms = group()
    federation = Federation(terms)
    hub = federation[0]
    study_keys = [h.enrol(terms) for h in federation.hubs.values()]
    enrolled = decode_state(hub.disk)
    assert isinstance(enrolled, Enrolled)
    hub.setup(study_keys, terms)
    assert enrolled.secret not in hub.disk


def test_states_do_not_show_their_secrets() -> None:
    federation = Federation()
    starts = federation.starts(6)
    hub = federation[0]
    dealt = hub.state.dealt
    assert dealt is not None
    hub.begin(starts[hub.name])
    state = hub.state
    for shown in (repr(dealt), repr(state), repr(state.round), repr(state.round.masks), repr(state.inbound)):
        assert "secret" in shown
        assert "\\x" not in shown


def test_damaged_state_is_refused_with_what_to_do() -> None:
    state = encode_state(Federation()[0].state)
    for raw in (b"", state[:-1], b"\xc1" + state):
        with pytest.raises(MisuseError, match="enrol again"):
            decode_state(raw)


def test_a_newer_roster_voids_tickets_and_keeps_channels() -> None:
    federation = Federation()
    values = answers(federation.terms)
    federation.terms = group(3, 1, roster=b"n" * 32, roster_version=5)
    for hub in federation.hubs.values():
        hub.disk = encode_state(channels.renew(hub.state, federation.terms))
    with pytest.raises(Stale, match="must deal a new one"):
        federation.starts(6)
    federation.tickets = {name: hub.deal() for name, hub in federation.hubs.items()}
    assert np.array_equal(federation.run(values).total, sum(values.values()))


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"colluding": 0}, MisuseError), ({"exact": True, "roster_version": 5}, MisuseError), ({}, Stale)],
)
def test_renewal_changes_nothing_but_the_roster(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        channels.renew(Federation()[0].state, group(3, 1, **changes))


@pytest.mark.parametrize("size", [5, 7])
def test_an_answer_of_another_size_is_refused(size: int) -> None:
    federation = Federation()
    hub = federation[0]
    hub.begin(federation.starts(6)[hub.name])
    with pytest.raises(MisuseError, match="6 numbers"):
        hub.mask(np.zeros(size, dtype=np.int64))


def test_groups_that_break_a_rule_are_never_set_up() -> None:
    with pytest.raises(NotPossible):
        Federation(group(3, 1, threshold=2))
