"""Cell P of plan `secagg`, the coordinator's lies: what it may say to hubs, and to different hubs differently.

Every attack is run twice: against the protocol, where it gets nothing, and with its one defence taken away
in the test, where it wins. Hub-b and hub-c stand for hubs that work with the coordinator where one is needed.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from msgspec.structs import replace
from tests.adversary.secagg_rounds import (
    QUESTION,
    Federation,
    answers,
    any_of,
    group,
    remove_mask,
    spy,
    strip,
    uniform_bytes,
    words,
)

from flute.aggregation import admission, collector, member
from flute.aggregation.codec import Layout, exact_bounds, read_total
from flute.aggregation.context import context, echo_to_sign
from flute.aggregation.masks import self_mask
from flute.aggregation.state import Phase
from flute.errors import (
    BadSignature,
    BadTotal,
    Equivocation,
    OutOfOrder,
    Stale,
    TooFewHubs,
)
from flute.messages.protocol import Echo, Echoes, Masked, Start, Survivors
from flute.primitives.ring import add_into

OTHER = b"o" * 32


def begin_all(federation: Federation, starts: dict[str, Start], questions: dict[str, bytes] | None = None) -> None:
    for name, start in starts.items():
        federation.hubs[name].begin(start, (questions or {}).get(name, QUESTION))


def tags_of(federation: Federation, starts: dict[str, Start], hubs: tuple[str, ...] | None = None) -> dict[str, Echo]:
    """Every hub's tag over the set in its own context."""
    told = hubs or federation.terms.hubs
    return {name: hub.echo(Survivors(context(starts[name]), told)) for name, hub in federation.hubs.items()}


def sum_of(words: np.ndarray, hubs: int) -> np.ndarray:
    """A total of six numbers, read as the coordinator reads it."""
    return read_total(words, Layout(64, 6), survivors=hubs, bounds=exact_bounds(hubs))


def force_open(masked: dict[str, Masked], starts: dict[str, Start], spied: dict) -> np.ndarray:
    """The sum of vectors with every seed known: what a coordinator has that got all shares by whatever means."""
    total = np.zeros_like(words(next(iter(masked.values()))))
    for name, message in masked.items():
        y = words(message)
        remove_mask(y, self_mask(spied[name].seed, ctx=context(starts[name]), hub=name))
        add_into(total, y)
    return total


# --- another question, another set, another mode ----------------------------------------------


def two_questions(seed: int, n: int = 5) -> tuple[Federation, dict[str, Start], dict[str, Start]]:
    """Message 0 for everyone, and one that asks hub-a something else over the same tickets."""
    federation = Federation(group(n, 1), seed=seed)
    starts = federation.starts(6)
    asked = {**starts, "hub-a": replace(starts["hub-a"], question=OTHER)}
    return federation, starts, asked


@pytest.mark.defence("private P")
def test_another_question_to_one_hub_gives_noise_even_if_opened() -> None:
    federation, starts, asked = two_questions(1)
    spied, values = spy(federation), answers(federation.terms)
    begin_all(federation, asked, {"hub-a": OTHER})
    masked = {name: hub.mask(values[name]) for name, hub in federation.hubs.items()}
    with pytest.raises(Equivocation, match="hub-a was masked for another"):
        federation.told(starts, masked)
    tags = tags_of(federation, asked)
    ctx = context(starts["hub-b"])
    shares, wrong = federation.hubs["hub-b"].unmask(Echoes(ctx, tuple(tags.values())))
    assert wrong == ("hub-a",)
    assert len(shares.shares) == 5
    with pytest.raises(TooFewHubs, match="Only 1 hubs"):
        federation.hubs["hub-a"].unmask(Echoes(context(asked["hub-a"]), tuple(tags.values())))
    with pytest.raises(BadTotal, match="check numbers"):
        sum_of(force_open(masked, asked, spied), 5)


@pytest.mark.control("private P")
def test_control_masks_without_context_open_a_mix_of_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    federation, starts, asked = two_questions(1)
    spied, values = spy(federation), answers(federation.terms)
    monkeypatch.setattr(admission, "context", lambda start: context(starts["hub-b"]))
    begin_all(federation, asked, {"hub-a": OTHER})
    masked = {name: hub.mask(values[name]) for name, hub in federation.hubs.items()}
    assert np.array_equal(sum_of(force_open(masked, starts, spied), 5), sum(values.values()))


def test_question_other_than_the_one_asked_is_refused() -> None:
    federation, _, asked = two_questions(2)
    with pytest.raises(Equivocation, match="another question"):
        federation.hubs["hub-a"].begin(asked["hub-a"], QUESTION)
    assert federation.hubs["hub-a"].state.phase is Phase.IDLE


@pytest.mark.parametrize("left_out", ["hub-a", "hub-d", "hub-e"])
def test_live_hub_called_dropped_stops_a_round_without_noise(left_out: str) -> None:
    federation = Federation(group(5, 1, exact=True, survivors_min=5))
    starts = federation.starts(6)
    federation.masked(starts, answers(federation.terms))
    told = Survivors(context(any_of(starts)), tuple(h for h in federation.terms.hubs if h != left_out))
    for name, hub in federation.hubs.items():
        says = f"leaves out {left_out}" if name == left_out else f"{left_out} is missing"
        with pytest.raises((TooFewHubs, Equivocation), match=says):
            hub.echo(told)
        assert hub.state.phase is Phase.MASKED


@pytest.mark.parametrize("left_out", ["hub-a", "hub-d", "hub-e"])
def test_live_hub_called_dropped_refuses_and_keeps_its_own_mask(left_out: str) -> None:
    """Its private key is opened and its vector is there; the seed of its own mask is not. False alarm 1e-6."""
    federation = Federation(group(5, 1, survivors_min=4))
    spied, starts = spy(federation), federation.starts(2_000)
    values = answers(federation.terms, size=2_000)
    masked = federation.masked(starts, values)
    others = tuple(h for h in federation.terms.hubs if h != left_out)
    told = Survivors(context(any_of(starts)), others)
    with pytest.raises(Equivocation, match=f"leaves out {left_out}"):
        federation.hubs[left_out].echo(told)
    opened = federation.total(starts, told, masked, federation.shares(starts, told))
    assert np.array_equal(opened.total, sum(values[name] for name in others))
    victim, start = masked[left_out], starts[left_out]
    assert uniform_bytes(strip(victim, start, spied, seed=False).tobytes())
    assert not uniform_bytes(strip(victim, start, spied).tobytes())
    for name in others:
        assert federation.hubs[name].state.round.held == {}


def test_more_live_hubs_called_dropped_than_agreed_stop_the_round() -> None:
    federation = Federation(group(6, 1, survivors_min=5))
    starts = federation.starts(6)
    federation.masked(starts, answers(federation.terms))
    told = Survivors(context(any_of(starts)), federation.terms.hubs[:4])
    for name in told.hubs:
        with pytest.raises(TooFewHubs, match=r"4 hubs are left.*no fewer than 5"):
            federation.hubs[name].echo(told)


def test_control_a_hub_whose_two_halves_open_is_laid_bare() -> None:
    """Seed or private key alone leaves the vector masked; both together do not."""
    federation = Federation()
    spied, starts = spy(federation), federation.starts(6)
    values = answers(federation.terms)
    masked = federation.masked(starts, values)["hub-c"]
    assert not np.array_equal(strip(masked, starts["hub-c"], spied, seed=False), values["hub-c"])
    assert not np.array_equal(strip(masked, starts["hub-c"], spied, pairs=False), values["hub-c"])
    assert np.array_equal(strip(masked, starts["hub-c"], spied), values["hub-c"])


def test_inconsistent_sets_are_never_opened() -> None:
    """Some hubs are started among four, others among five: no set collects t tags in one context."""
    federation = Federation(group(5, 1, survivors_min=4))
    whole = federation.starts(6)
    part = federation.starts(6, hubs=federation.terms.hubs[:4])
    mixed = {n: (part if n in ("hub-a", "hub-b") else whole)[n] for n in federation.terms.hubs}
    begin_all(federation, mixed)
    for name, values in answers(federation.terms).items():
        federation.hubs[name].mask(values)
    tags = {n: h.echo(Survivors(context(mixed[n]), h.state.round.participants)) for n, h in federation.hubs.items()}
    for name, hub in federation.hubs.items():
        with pytest.raises(TooFewHubs, match="4 with itself"):
            hub.unmask(Echoes(context(mixed[name]), tuple(tags.values())))
        assert hub.state.phase is Phase.ECHOED


def test_of_two_sets_told_in_one_round_at_most_one_is_opened() -> None:
    """Six hubs, t = 4. Two are told that hub-f dropped out, three that hub-e did; hub-b signs whatever helps."""
    federation = Federation(group(6, 1, survivors_min=5))
    terms, starts = federation.terms, federation.starts(6)
    federation.masked(starts, answers(terms))
    ctx, hubs = context(any_of(starts)), terms.hubs
    one, two = hubs[:5], (*hubs[:4], "hub-f")
    sets = {"hub-a": one, "hub-e": one, "hub-c": two, "hub-d": two, "hub-f": two}
    tags = {name: federation.hubs[name].echo(Survivors(ctx, told)) for name, told in sets.items()}
    key = federation.hubs["hub-b"].key
    both = [Echo(ctx, "hub-b", key.sign(echo_to_sign(terms, ctx, "hub-b", told))) for told in (one, two)]
    for name, told in sets.items():
        hub, message = federation.hubs[name], Echoes(ctx, (*tags.values(), *both))
        if told == two:
            assert len(hub.unmask(message)[0].shares) == 6
        else:
            with pytest.raises(TooFewHubs, match="Only 3 hubs"):
                hub.unmask(message)
            assert hub.state.round.held


def exact_pair_of_rounds(federation: Federation, values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The same answers over all hubs, then over all but the last."""
    everyone = federation.run(values).total
    federation.tickets = {n: h.deal() for n, h in federation.hubs.items()}
    without = {n: v for n, v in values.items() if n != federation.terms.hubs[-1]}
    return everyone, federation.run(without).total


def test_exact_round_over_another_set_is_refused_also_after_a_restart() -> None:
    federation = Federation(group(5, 1, exact=True, survivors_min=5))
    federation.run(answers(federation.terms))
    honest = federation.starts(6)["hub-a"]
    smaller = replace(honest, pubs=honest.pubs[:-1], boxes=honest.boxes[:-1])
    with pytest.raises(TooFewHubs, match="hub-e is missing"):
        federation.hubs["hub-a"].begin(smaller)
    with pytest.raises(TooFewHubs, match="hub-e is missing"):
        federation.starts(6, hubs=federation.terms.hubs[:-1])


def test_control_two_exact_sets_give_one_hub_away() -> None:
    """The same study without the exact flag lets smaller sets through: S - S' is hub-e's answer."""
    federation = Federation(group(5, 1, survivors_min=4))
    values = answers(federation.terms)
    everyone, without = exact_pair_of_rounds(federation, values)
    assert np.array_equal(everyone - without, values["hub-e"])


@pytest.mark.control("exact P")
def test_control_colluding_hubs_take_their_own_answers_off_an_exact_total() -> None:
    """Nothing is broken, and no plan prevents it: three of five know the exact sum of the other two."""
    federation = Federation(group(5, 1, exact=True, survivors_min=5))
    values = answers(federation.terms)
    known = federation.run(values).total - sum(values[name] for name in ("hub-a", "hub-b", "hub-c"))
    assert np.array_equal(known, values["hub-d"] + values["hub-e"])


def two_hubs_alone(federation: Federation) -> dict[str, Start]:
    """Message 0 as a coordinator would forge it for hub-a and hub-b only."""
    starts = federation.starts(6)
    pubs = any_of(starts).pubs[:2]
    return {
        name: replace(starts[name], pubs=pubs, boxes=tuple(b for b in starts[name].boxes if b.dealer != "hub-c"))
        for name in ("hub-a", "hub-b")
    }


@pytest.mark.defence("private P")
def test_too_few_hubs_are_refused_at_message_0() -> None:
    federation = Federation()
    for name, start in two_hubs_alone(federation).items():
        with pytest.raises(TooFewHubs, match="no fewer than 3"):
            federation.hubs[name].begin(start)


@pytest.mark.control("private P")
def test_control_a_sum_of_two_is_one_subtraction_from_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation()
    spied, starts = spy(federation), two_hubs_alone(federation)
    values = answers(federation.terms)
    monkeypatch.setattr(admission, "check_participants", lambda terms, hubs: None)
    begin_all(federation, starts)
    masked = {name: federation.hubs[name].mask(values[name]) for name in starts}
    total = sum_of(force_open(masked, starts, spied), 2)
    assert np.array_equal(total - values["hub-b"], values["hub-a"])


def test_mode_cannot_be_switched_by_a_message() -> None:
    federation = Federation()
    starts = federation.starts(6)
    passive = replace(federation.terms, mode="passive")
    with pytest.raises(Stale, match="other terms"):
        federation.hubs["hub-a"].begin(replace(starts["hub-a"], terms=passive))
    federation.masked(starts, answers(federation.terms))
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    with pytest.raises(OutOfOrder, match="only after an echo"):
        federation.hubs["hub-a"].unmask_without_echo(told)
    assert federation.hubs["hub-a"].state.round.held


def test_control_passive_group_opens_on_the_coordinators_word_alone() -> None:
    federation = Federation(group(3, 1, mode="passive"))
    starts = federation.starts(6)
    federation.masked(starts, answers(federation.terms))
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    assert len(federation.hubs["hub-a"].unmask_without_echo(told).shares) == 3
    with pytest.raises(OutOfOrder):
        federation.hubs["hub-b"].echo(told)


# --- tags -----------------------------------------------------------------------------------------


def five_echoed() -> tuple[Federation, dict[str, Start], dict[str, Echo]]:
    federation = Federation(group(5, 1))
    starts = federation.starts(6)
    federation.masked(starts, answers(federation.terms))
    return federation, starts, tags_of(federation, starts)


def forged(tag: Echo) -> Echo:
    return replace(tag, signature=tag.signature[:-1] + bytes([tag.signature[-1] ^ 1]))


def test_one_hub_cannot_veto_with_a_wrong_tag_and_is_reported() -> None:
    federation, starts, tags = five_echoed()
    tags["hub-e"] = forged(tags["hub-e"])
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    good, wrong = collector.echoes(any_of(starts), told, tags, federation.keys)
    assert (len(good.echoes), wrong) == (4, ("hub-e",))
    shares, wrong = federation.hubs["hub-a"].unmask(Echoes(told.ctx, tuple(tags.values())))
    assert wrong == ("hub-e",)
    assert len(shares.shares) == 5


def bad_tags(federation: Federation, starts: dict[str, Start], tags: dict[str, Echo], how: str) -> tuple[Echo, ...]:
    a, b, c, d, e = tags.values()
    stranger = federation.hubs["hub-b"].key
    ctx, hubs = a.ctx, federation.terms.hubs
    outside = Echo(ctx, "hub-z", stranger.sign(echo_to_sign(federation.terms, ctx, "hub-z", hubs)))
    posed = Echo(ctx, "hub-c", stranger.sign(echo_to_sign(federation.terms, ctx, "hub-c", hubs)))
    smaller = Echo(
        ctx, "hub-d", federation.hubs["hub-d"].key.sign(echo_to_sign(federation.terms, ctx, "hub-d", hubs[:4]))
    )
    return {
        "forged": (a, b, forged(c), forged(d), forged(e)),
        "duplicated": (a, b, c, c, c),
        "from outside the set": (a, b, c, outside),
        "signed by another": (a, b, posed, d),
        "over another set": (a, b, c, smaller),
        "of another context": (a, b, c, replace(d, ctx=bytes(32))),
        "own missing": (b, c, d, e),
    }[how]


HOW = [
    "forged",
    "duplicated",
    "from outside the set",
    "signed by another",
    "over another set",
    "of another context",
    "own missing",
]


@pytest.mark.defence("private P")
@pytest.mark.parametrize("how", HOW)
def test_too_few_true_tags_open_nothing(how: str) -> None:
    federation, starts, tags = five_echoed()
    hub = federation.hubs["hub-a"]
    before = hub.disk
    with pytest.raises(TooFewHubs, match="Nothing was opened"):
        hub.unmask(Echoes(context(any_of(starts)), bad_tags(federation, starts, tags, how)))
    assert hub.disk == before
    hub.unmask(Echoes(context(any_of(starts)), tuple(tags.values())))


@pytest.mark.control("private P")
def test_control_unverified_tags_open_a_set_that_nobody_else_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    federation, starts, tags = five_echoed()
    monkeypatch.setattr(member, "verify", lambda key, signature, message: None)
    fakes = tuple(replace(tag, signature=bytes(64)) for tag in tags.values())
    shares, wrong = federation.hubs["hub-a"].unmask(Echoes(context(any_of(starts)), fakes))
    assert len(shares.shares) == 5
    assert wrong == ()


def test_vectors_changed_by_the_coordinator_are_seen_by_an_auditor() -> None:
    """Not prevented: a liar may publish any total. But it cannot show signed vectors that add up to it."""
    federation = Federation()
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))["hub-a"]
    ctx = context(any_of(starts))
    collector.check_masked(any_of(starts), ctx, masked, federation.keys)
    altered = replace(masked, vector=bytes([masked.vector[0] ^ 1]) + masked.vector[1:])
    with pytest.raises(BadSignature, match="hub-a is not the one that it signed"):
        collector.check_masked(any_of(starts), ctx, altered, federation.keys)
    rehashed = replace(altered, sha256=hashlib.sha256(altered.vector).digest())
    with pytest.raises(BadSignature, match="hub-a is not signed"):
        collector.check_masked(any_of(starts), ctx, rehashed, federation.keys)
