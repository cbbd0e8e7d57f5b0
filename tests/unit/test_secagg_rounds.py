"""Honest rounds: the total is the plain sum, at every size of group, over restarts and repeats."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from tests.adversary.secagg_rounds import Federation, answers, any_of, group

from flute.aggregation import channels, codec, collector, member
from flute.aggregation.codec import (
    ROOM,
    WIDTHS,
    Bounds,
    FixedPoint,
    Layout,
    Width,
    decode_exact,
    encode_exact,
    exact_bounds,
)
from flute.aggregation.context import context
from flute.aggregation.state import Enrolled, Phase, decode_state, encode_state
from flute.aggregation.terms import degree
from flute.errors import BadSignature, BadTotal, Equivocation, MisuseError, NotPossible, OutOfOrder, Stale, TooFewHubs
from flute.messages.protocol import Masked, Start, Survivors

Values = dict[str, NDArray[np.int64]]


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
    assert np.array_equal(federation.total(starts, told, masked, shares).total, sum(values.values()))


def test_passive_mode_opens_without_a_hub_that_dropped_out() -> None:
    federation = Federation(group(5, 0, mode="passive", survivors_min=4))
    values = answers(federation.terms)
    starts = federation.starts(6)
    present = federation.terms.hubs[1:]
    masked = federation.masked(starts, {name: values[name] for name in present})
    told = federation.told(starts, masked)
    shares = {name: federation.hubs[name].unmask_without_echo(told) for name in present}
    opened = federation.total(starts, told, masked, shares)
    assert np.array_equal(opened.total, sum(values[name] for name in present))


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
    again = collector.survivors(starts["hub-b"], tuple(masked))
    assert again == told
    given = (masked, federation.named, shares)
    first = collector.total(starts["hub-a"], told, *given, bounds=exact_bounds(3))
    second = collector.total(starts["hub-c"], again, *given, bounds=exact_bounds(3))
    assert np.array_equal(first.total, second.total)


def test_a_silent_hub_stops_an_exact_round_and_fresh_tickets_repeat_it() -> None:
    """Without noise the sums with and without it would give it away, so no dropout is recovered."""
    federation = Federation(group(3, 1, exact=True))
    values = answers(federation.terms)
    starts = federation.starts(6)
    masked = federation.masked(starts, {name: values[name] for name in ("hub-a", "hub-b")})
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


# --- every width ------------------------------------------------------------------------------------------


def spread(terms_hubs: tuple[str, ...], bound: int, size: int, seed: int = 1) -> Values:
    """Numbers within ±bound, the extremes among them, both signs."""
    rng = np.random.default_rng(seed)
    values = {name: rng.integers(-bound, bound, size, dtype=np.int64, endpoint=True) for name in terms_hubs}
    for own in values.values():
        own[0], own[-1] = bound, -bound
    return values


def shared(width: Width, hubs: int) -> Bounds:
    return Bounds(ROOM[width] // hubs, hubs * (ROOM[width] // hubs))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 1_000])
def test_total_is_the_plain_sum_at_every_width(width: Width, size: int) -> None:
    federation = Federation(group(5, 1))
    values = spread(federation.terms.hubs, shared(width, 5).part, size)
    opened = federation.run(values, width=width, bounds=shared(width, 5))
    assert opened.total.tolist() == sum(values.values()).tolist()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_vector_over_several_stretches_of_the_masks_is_summed_exactly(width: Width) -> None:
    federation = Federation(group(4, 1, survivors_min=3))
    bounds = shared(width, 4)
    values = spread(federation.terms.hubs, bounds.part, 300_001)
    opened = federation.run(values, width=width, bounds=bounds, silent=("hub-d",))
    assert np.array_equal(opened.total, sum(x for name, x in values.items() if name != "hub-d"))


def test_real_numbers_of_a_long_vector_come_back_within_their_stated_error() -> None:
    """21 bits, one hub dropped out: the mean over hubs is off by at most n / (room - 2n) of the clip."""
    federation = Federation(group(5, 1, survivors_min=4))
    point = FixedPoint(21, 5, 3.0)
    rng = np.random.default_rng(5)
    parts = {name: rng.normal(scale=2.0, size=4_000) for name in federation.terms.hubs}
    encoded = {name: point.encode(x, rand=bytes([k]) * 32) for k, (name, x) in enumerate(parts.items())}
    opened = federation.run(encoded, width=21, bounds=point.bounds, silent=("hub-b",))
    true = sum(np.clip(x, -3.0, 3.0) for name, x in parts.items() if name != "hub-b")
    assert np.abs(point.decode(opened.total) - true).max() <= 4 / point.scale + 4 * 3.0 * 2.0**-23


SAME_LENGTH: list[tuple[tuple[Width, int], tuple[Width, int]]] = [((16, 12), (32, 4)), ((64, 4), (21, 20))]
"""Two widths and sizes whose vectors take the same bytes."""


@pytest.mark.parametrize(("agreed", "told"), SAME_LENGTH)
def test_a_hub_that_masks_in_another_layout_has_another_context(
    agreed: tuple[Width, int], told: tuple[Width, int]
) -> None:
    assert Layout(*agreed).length == Layout(*told).length
    federation = Federation()
    starts = federation.starts(agreed[1], width=agreed[0])
    lied = {**starts, "hub-b": replace(starts["hub-b"], width=told[0], size=told[1])}
    values = spread(federation.terms.hubs, 8, agreed[1])
    masked = federation.masked(lied, values | {"hub-b": np.zeros(told[1], dtype=np.int64)}, Bounds(8, 24))
    with pytest.raises(Equivocation, match="hub-b was masked for another"):
        federation.told(starts, masked)


# --- dropouts -----------------------------------------------------------------------------------------------


def drops(n: int) -> list[int]:
    """One, several, and as many as the terms of n hubs allow."""
    most = n - group(n, 1).survivors_min
    return sorted({1, (most + 1) // 2, most} - {0})


DROPOUTS = [(n, dropped, width) for n in range(4, 13) for dropped, width in zip(drops(n), (21, 16, 64), strict=False)]


@pytest.mark.parametrize(("n", "dropped", "width"), DROPOUTS)
def test_total_after_dropouts_is_the_plain_sum_of_the_survivors(n: int, dropped: int, width: Width) -> None:
    federation = Federation(group(n, 1))
    bounds = shared(width, n)
    rng = np.random.default_rng(100 * n + dropped)
    for _ in range(2):
        silent = tuple(federation.terms.hubs[i] for i in rng.choice(n, dropped, replace=False))
        values = spread(federation.terms.hubs, bounds.part, 7)
        opened = federation.run(values, width=width, bounds=bounds, silent=silent)
        alive = [x for name, x in values.items() if name not in silent]
        assert opened.total.tolist() == sum(alive).tolist()
        assert opened.bad_shares == ()
        for name in silent:
            federation.tickets[name] = federation.hubs[name].deal(after=federation.tickets[name].pub.serial)


@pytest.mark.parametrize("n", [4, 7, 12])
def test_one_dropout_more_than_allowed_opens_nothing(n: int) -> None:
    federation = Federation(group(n, 1))
    values = answers(federation.terms)
    silent = federation.terms.hubs[: n - federation.terms.survivors_min + 1]
    with pytest.raises(TooFewHubs, match=r"fresh tickets.*charged again"):
        federation.run(values, silent=silent)


def until_told(federation: Federation, values: Values, silent: tuple[str, ...] = ()) -> tuple[
    dict[str, Start], dict[str, Masked], Survivors
]:  # fmt: skip
    starts = federation.starts(6)
    masked = federation.masked(starts, {name: x for name, x in values.items() if name not in silent})
    return starts, masked, federation.told(starts, masked)


@pytest.mark.parametrize("silent", [(), ("hub-c",), ("hub-a", "hub-g")])
def test_hubs_that_fall_silent_between_vector_and_shares_are_in_the_sum(silent: tuple[str, ...]) -> None:
    """Ten hubs, t = 6: some drop out before their vector, one before its echo, others before their shares."""
    federation = Federation(group(10, 1))
    values = answers(federation.terms)
    starts, masked, told = until_told(federation, values, silent)
    t = federation.terms.threshold
    heard = {name: federation.hubs[name].echo(told) for name in told.hubs[:-1]}
    tags, _ = collector.echoes(any_of(starts), told, heard, federation.keys)
    shares = {name: federation.hubs[name].unmask(tags)[0] for name in list(heard)[:t]}
    assert len(shares) == t < len(told.hubs)
    opened = federation.total(starts, told, masked, shares)
    assert np.array_equal(opened.total, sum(values[name] for name in told.hubs))
    with pytest.raises(Exception, match=rf"Only {t - 1} of {t} good shares"):
        federation.total(starts, told, masked, dict(list(shares.items())[1:]))


def test_fewer_echoes_than_the_threshold_open_nothing() -> None:
    federation = Federation(group(10, 1))
    starts, _, told = until_told(federation, answers(federation.terms))
    heard = {name: federation.hubs[name].echo(told) for name in told.hubs[: federation.terms.threshold - 1]}
    with pytest.raises(TooFewHubs, match="Only 5 hubs signed"):
        collector.echoes(any_of(starts), told, heard, federation.keys)


def test_a_vector_that_arrives_after_the_set_was_told_stays_out() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    values = answers(federation.terms)
    starts, masked, told = until_told(federation, values, silent=("hub-d",))
    late = {**masked, "hub-d": federation.hubs["hub-d"].mask(values["hub-d"])}
    shares = federation.shares(starts, told)
    opened = federation.total(starts, told, late, shares)
    assert np.array_equal(opened.total, sum(values[name] for name in told.hubs))
    with pytest.raises(Equivocation, match="leaves out hub-d"):
        federation.hubs["hub-d"].echo(told)


@pytest.mark.parametrize(("dropped", "seed"), [(0, 1), (1, 2), (8, 3)])
def test_forty_hubs_sum_over_a_sparse_graph_of_masks(dropped: int, seed: int) -> None:
    federation = Federation(group(40, 4, survivors_min=32))
    assert degree(federation.terms, 40) == 20
    silent = tuple(federation.terms.hubs[i] for i in np.random.default_rng(seed).choice(40, dropped, replace=False))
    values = answers(federation.terms)
    starts = federation.starts(6)
    for name, start in starts.items():
        federation.hubs[name].begin(start)
        assert len(federation.hubs[name].state.round.masks) == 21
    masked = {name: federation.hubs[name].mask(x) for name, x in values.items() if name not in silent}
    told = federation.told(starts, masked)
    opened = federation.total(starts, told, masked, federation.shares(starts, told))
    assert np.array_equal(opened.total, sum(values[name] for name in told.hubs))


# --- vectors of many blocks ---------------------------------------------------------------------------------


class Streamed:
    """What a coordinator and its hubs do with a vector of several blocks; blocks "on disk" by hub and index."""

    def __init__(self, federation: Federation, values: Values, width: Width, bounds: Bounds) -> None:
        self.federation, self.bounds = federation, bounds
        self.starts = federation.starts(next(iter(values.values())).size, width=width)
        self.start = any_of(self.starts)
        self.layout = Layout(width, self.start.size)
        self.blocks: dict[tuple[str, int], bytes] = {}
        self.signed: dict[str, Masked] = {}
        for name, start in self.starts.items():
            federation.hubs[name].begin(start)
        for name, own in values.items():
            self._send(name, own)

    def _send(self, name: str, values: NDArray[np.int64]) -> None:
        hub = self.federation.hubs[name]
        state, masking = member.begin_mask(hub.state)
        hub.disk = encode_state(state)  # before the first block leaves
        for k in range(self.layout.blocks):
            block = masking.block(values[self.layout.values_of(k)], bounds=self.bounds)
            assert (block.hub, block.index) == (name, k)
            self.blocks[name, k] = block.words
        state, self.signed[name] = member.finish_mask(hub.state, masking, key=hub.key)
        hub.disk = encode_state(state)

    def check(self, name: str) -> None:
        arriving = collector.VectorHash(self.start, context(self.start), name)
        for k in range(self.layout.blocks):
            arriving.take(self.blocks[name, k])
        arriving.check(self.signed[name], self.federation.keys)

    def read(self, hub: str, index: int) -> bytes:
        return self.blocks[hub, index]

    def total(self) -> list[int]:
        for name in self.signed:
            self.check(name)
        told = collector.survivors(self.start, tuple(self.signed))
        shares = self.federation.shares(self.starts, told)
        left = collector.unmask(self.start, told, self.federation.named, shares)
        summed = collector.sum_blocks(self.start, told, left, self.read, bounds=self.bounds)
        return [int(number) for block in summed for number in block]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("size", "block"), [(30, 7), (29, 11), (20, 6), (20, 5), (8, 100)])
@pytest.mark.parametrize("silent", [(), ("hub-b",)])
def test_a_streamed_total_is_the_plain_sum(
    width: Width, size: int, block: int, silent: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that end within a word of lanes, within a cipher block, and between two sentinels."""
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", block)
    federation = Federation(group(4, 0, survivors_min=3))
    bounds = shared(width, 4)
    values = {n: x for n, x in spread(federation.terms.hubs, bounds.part, size).items() if n not in silent}
    streamed = Streamed(federation, values, width, bounds)
    assert streamed.layout.blocks == -(-(size + 4) // block)
    assert streamed.total() == sum(values.values()).tolist()


def small_stream(monkeypatch: pytest.MonkeyPatch) -> Streamed:
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 5)
    federation = Federation()
    return Streamed(federation, spread(federation.terms.hubs, 10, 12), 16, Bounds(10, 30))


def test_masks_go_on_from_block_to_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers in two blocks look different: no mask byte is used twice."""
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 32)
    federation = Federation()
    streamed = Streamed(federation, dict.fromkeys(federation.terms.hubs, np.zeros(124, dtype=np.int64)), 16,
                        Bounds(1, 3))  # fmt: skip
    seen = [streamed.blocks["hub-a", k] for k in range(4)]
    assert len({raw[i : i + 8] for raw in seen for i in range(0, 64, 8)}) == 32


def test_a_block_that_was_changed_swapped_cut_or_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = small_stream(monkeypatch)
    stream.check("hub-b")
    first, second = stream.blocks["hub-b", 0], stream.blocks["hub-b", 1]
    for changed in ({0: bytes([first[0] ^ 1]) + first[1:]}, {0: second, 1: first}, {0: stream.blocks["hub-a", 0]}):
        kept = dict(stream.blocks)
        stream.blocks |= {("hub-b", k): raw for k, raw in changed.items()}
        with pytest.raises(BadSignature, match="hub-b is not the one that it signed"):
            stream.check("hub-b")
        stream.blocks = kept
    arriving = collector.VectorHash(stream.start, context(stream.start), "hub-b")
    with pytest.raises(Equivocation, match="another length"):
        arriving.take(first[:-2])
    with pytest.raises(Equivocation, match="another length"):
        arriving.check(stream.signed["hub-b"], stream.federation.keys)
    for k in range(stream.layout.blocks):
        arriving.take(stream.blocks["hub-b", k])
    with pytest.raises(Equivocation, match="another length"):
        arriving.take(b"")
    with pytest.raises(Equivocation, match="hub-a was masked for another"):
        collector.VectorHash(stream.start, context(stream.start), "hub-a").check(
            stream.signed["hub-b"], stream.federation.keys
        )


def test_a_streamed_total_that_is_wrong_in_its_last_block_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be used before the iterator has ended: the sentinels come last."""
    stream = small_stream(monkeypatch)
    told = collector.survivors(stream.start, tuple(stream.signed))
    left = collector.unmask(
        stream.start, told, stream.federation.named, stream.federation.shares(stream.starts, told)
    )
    last = stream.layout.blocks - 1
    stream.blocks["hub-c", last] = bytes(len(stream.blocks["hub-c", last]))
    summed = collector.sum_blocks(stream.start, told, left, stream.read, bounds=stream.bounds)
    for _ in range(last):
        next(summed)
    with pytest.raises(BadTotal, match="check numbers"):
        next(summed)


def test_a_vector_is_signed_only_when_every_block_was_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 5)
    federation = Federation()
    hub = federation[0]
    hub.begin(federation.starts(12, width=16)[hub.name])
    state, masking = member.begin_mask(hub.state)
    masking.block(np.zeros(5, dtype=np.int64), bounds=Bounds(10, 30))
    with pytest.raises(MisuseError, match="all of its blocks"):
        member.finish_mask(state, masking, key=hub.key)
    with pytest.raises(OutOfOrder, match="cannot mask an answer now"):
        member.begin_mask(state)
    with pytest.raises(OutOfOrder, match="never left as a whole"):
        member.echo(state, Survivors(state.round.ctx, federation.terms.hubs), key=hub.key)


def test_a_vector_of_many_blocks_is_not_masked_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 5)
    federation = Federation()
    hub = federation[0]
    hub.begin(federation.starts(12, width=16)[hub.name])
    with pytest.raises(MisuseError, match="12 numbers"):
        hub.mask(np.zeros(12, dtype=np.int64), Bounds(10, 30))


def test_a_stream_that_a_crash_cut_short_is_never_sent_and_the_hub_drops_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks left the state before the first block; a second vector under them cannot be made."""
    monkeypatch.setattr(codec, "BLOCK_COORDINATES", 5)
    federation = Federation(group(4, 0, survivors_min=3))
    starts = federation.starts(12, width=16)
    hub = federation[0]
    hub.begin(starts[hub.name])
    keys = [mask.key for mask in hub.state.round.masks]
    state, masking = member.begin_mask(hub.state)
    hub.disk = encode_state(state)
    masking.block(np.zeros(5, dtype=np.int64), bounds=Bounds(10, 30))
    del masking
    assert len(keys) == 4
    assert not any(key in hub.disk for key in keys)
    assert hub.begin(starts[hub.name]) is None
    with pytest.raises(OutOfOrder):
        hub.mask(np.zeros(12, dtype=np.int64), Bounds(10, 30))
    assert hub.deal(after=1).pub.serial == 2
