"""Cell P of plan `secagg`: the coordinator lies about who dropped out, or hubs drop out at the worst moment.

A hub that is called dropped has its private key opened; one that is called alive, its seed. Nobody may get both, and
no two survivor sets of one round may open. Hub-a stands for the hub that works with the coordinator: it signs every
set and shows every share it holds. Each attack is also run with its one defence taken away, where it wins.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from msgspec.structs import replace
from tests.adversary.secagg_rounds import (
    NAMES,
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

from flute.aggregation import collector, member, terms
from flute.aggregation.codec import exact_bounds
from flute.aggregation.commitments import Committer
from flute.aggregation.context import context, echo_to_sign
from flute.aggregation.masks import pair_mask, self_mask
from flute.aggregation.state import Phase
from flute.errors import BadShare, BadTotal, Equivocation, NotPossible, OutOfOrder, Replayed, TooFewHubs
from flute.hub.rounds.gate import release_id
from flute.hub.store import StudyEntry
from flute.messages.protocol import Echo, Echoes, GroupTerms, Masked, Shares, Start, Survivors
from flute.messages.question import SecureQuestion
from flute.primitives.keys import AgreementKey
from flute.primitives.sharing import combine

pytestmark = pytest.mark.requirement("F-SRS-10")

Sets = tuple[tuple[str, ...], tuple[str, ...]]
LIAR = "hub-a"


def sign(federation: Federation, start: Start, hub: str, hubs: tuple[str, ...]) -> Echo:
    """A colluding hub's tag over whatever set."""
    ctx = context(start)
    return Echo(ctx, hub, federation.hubs[hub].key.sign(echo_to_sign(start.terms, ctx, hub, hubs)))


class TwoTongues:
    """All vectors of one round arrived. Each honest hub is told one set first and the other after it; then each is
    handed every tag that exists over the set it signed. What they show is kept by set and holder."""

    def __init__(self, federation: Federation, size: int = 6) -> None:
        self.federation = federation
        self.values = answers(federation.terms, size)
        self.starts = federation.starts(size)
        self.masked = federation.masked(self.starts, self.values)
        self.held = federation.hubs[LIAR].state.round.held
        self.honest = [name for name in federation.terms.hubs if name != LIAR]
        self.disks = {name: federation.hubs[name].disk for name in self.honest}

    def tell(self, first: dict[str, int], sets: Sets, order: tuple[str, ...]) -> dict[int, dict[str, Shares]]:
        ctx = context(any_of(self.starts))
        tags: dict[int, dict[str, Echo]] = {k: {} for k in (0, 1)}
        for name in order:
            self.federation.hubs[name].disk = self.disks[name]
            for k in (first[name], 1 - first[name]):
                try:
                    tags[k][name] = self.federation.hubs[name].echo(Survivors(ctx, sets[k]))
                except (Equivocation, OutOfOrder, TooFewHubs):
                    continue
        shown: dict[int, dict[str, Shares]] = {0: {}, 1: {}}
        for name, k in product(order, (0, 1)):
            forged = sign(self.federation, any_of(self.starts), LIAR, sets[k])
            try:
                echoes = Echoes(ctx, (forged, *tags[k].values()))
                shown[k][name] = self.federation.hubs[name].unmask(echoes, next_ticket=False)[0]
            except (Equivocation, OutOfOrder, TooFewHubs):
                continue
        return shown

    def halves(self, shown: dict[int, dict[str, Shares]], sets: Sets, victim: str) -> tuple[dict, dict]:
        """Shares of the victim's seed and of its private key, by holder, the liar's own among them."""
        at = self.federation.terms.hubs.index(victim)
        places = {name: x for x, name in enumerate(self.federation.terms.hubs, 1)}
        seed, point = {places[LIAR]: self.held[victim].seed}, {places[LIAR]: self.held[victim].point}
        for k, messages in shown.items():
            half = seed if victim in sets[k] else point
            half |= {places[name]: message.shares[at] for name, message in messages.items()}
        return seed, point


def laid_bare(lie: TwoTongues, seed: dict[int, bytes], point: dict[int, bytes], victim: str) -> np.ndarray:
    """The victim's answer from t shares of both halves, found by interpolation and nothing else."""
    t = lie.federation.terms.threshold
    secrets = [combine(dict(list(half.items())[:t]), threshold=t) for half in (seed, point)]
    start = any_of(lie.starts)
    y, ctx = words(lie.masked[victim]), context(start)
    remove_mask(y, self_mask(secrets[0], ctx=ctx, hub=victim))
    for pub in start.pubs:
        if pub.hub != victim:
            key = pair_mask(AgreementKey(secrets[1]), pub.point, ctx=ctx, me=victim, other=pub.hub)
            remove_mask(y, key)
    return y[:6].view(np.int64)


def orders(names: list[str]) -> list[tuple[str, ...]]:
    return list(permutations(names))


def test_no_order_and_no_choice_of_lies_opens_both_halves_of_a_live_hub() -> None:
    """All 8 ways to tell three honest hubs, in all 6 orders; the liar's own shares of both halves always count."""
    lie = TwoTongues(Federation(group(4, 1, survivors_min=3)))
    t, hubs = lie.federation.terms.threshold, lie.federation.terms.hubs
    sets = (hubs, hubs[:3])
    opened = set()
    for told in product((0, 1), repeat=3):
        for order in orders(lie.honest):
            shown = lie.tell(dict(zip(lie.honest, told, strict=True)), sets, order)
            seed, point = lie.halves(shown, sets, "hub-d")
            assert len(seed) < t or len(point) < t
            opened |= {kind for kind, half in (("seed", seed), ("key", point)) if len(half) >= t}
    assert opened == {"seed", "key"}, "either one opens in some order: the attack was tried in earnest"


def test_no_two_survivor_sets_of_one_round_open() -> None:
    """Six hubs, one liar: every way of telling two sets to the five honest ones, of which hub-f is in one only."""
    lie = TwoTongues(Federation(group(6, 1, survivors_min=4), seed="two sets"))
    t, hubs = lie.federation.terms.threshold, lie.federation.terms.hubs
    sets, ways = (hubs, hubs[:5]), set()
    for told in product((0, 1), repeat=5):
        shown = lie.tell(dict(zip(lie.honest, told, strict=True)), sets, tuple(lie.honest))
        opened = [len(shown[k]) + 1 >= t for k in (0, 1)]
        ways.add(tuple(opened))
        seed, point = lie.halves(shown, sets, "hub-f")
        assert not all(opened)
        assert len(seed) < t or len(point) < t
    assert ways == {(True, False), (False, True)}, "three honest hubs and the liar make four: one opens, not both"


def low_threshold(monkeypatch: pytest.MonkeyPatch, n: int, t: int) -> Federation:
    monkeypatch.setattr(terms, "_check_threshold", lambda terms: None)
    return Federation(group(n, 1, threshold=t, survivors_min=max(t, 3)))


def test_control_under_a_low_threshold_a_live_hub_is_laid_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """2t <= n + c: two sets of t share no honest hub, so one opens the seed and the other the key."""
    lie = TwoTongues(low_threshold(monkeypatch, 4, 2))
    hubs = lie.federation.terms.hubs
    sets = (hubs, hubs[:3])
    shown = lie.tell({"hub-b": 0, "hub-c": 1, "hub-d": 0}, sets, tuple(lie.honest))
    seed, point = lie.halves(shown, sets, "hub-d")
    assert np.array_equal(laid_bare(lie, seed, point, "hub-d"), lie.values["hub-d"])


def test_control_under_a_low_threshold_two_sets_open_and_their_difference_is_one_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lie = TwoTongues(low_threshold(monkeypatch, 6, 3))
    federation, hubs = lie.federation, lie.federation.terms.hubs
    sets = (hubs, hubs[:5])
    shown = lie.tell({"hub-b": 0, "hub-c": 0, "hub-d": 1, "hub-e": 1, "hub-f": 0}, sets, tuple(lie.honest))
    totals = []
    for k in (0, 1):
        told = Survivors(context(any_of(lie.starts)), sets[k])
        own = tuple(h.seed if name in sets[k] else h.point for name, h in sorted(lie.held.items()))
        shares = shown[k] | {LIAR: Shares(told.ctx, LIAR, own, None)}
        totals.append(federation.total(lie.starts, told, lie.masked, shares).total)
    assert np.array_equal(totals[0] - totals[1], lie.values["hub-f"])


def test_the_threshold_that_would_allow_it_is_refused_with_a_sentence() -> None:
    for n, t in ((4, 2), (6, 3), (30, 18)):
        c = 6 if n == 30 else 1
        with pytest.raises(NotPossible, match="could open two different sums"):
            terms.check(group(n, c, threshold=t, survivors_min=max(t, 3)))


# --- vectors and hubs that come and go ------------------------------------------------------------


def called_dropped(federation: Federation, size: int = 2_000) -> tuple[dict[str, Start], Masked, dict[str, Shares]]:
    """Hub-e's key is opened as that of a dropped hub, then its vector arrives."""
    values = answers(federation.terms, size)
    starts = federation.starts(size)
    masked = federation.masked(starts, {n: v for n, v in values.items() if n != "hub-e"})
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    assert np.array_equal(
        federation.total(starts, told, masked, shares).total, sum(v for n, v in values.items() if n != "hub-e")
    )
    return starts, federation.hubs["hub-e"].mask(values["hub-e"]), shares


def opened_key(federation: Federation, shares: dict[str, Shares], hub: str) -> AgreementKey:
    hubs, t = federation.terms.hubs, federation.terms.threshold
    held = {hubs.index(name) + 1: message.shares[hubs.index(hub)] for name, message in shares.items()}
    return AgreementKey(combine(dict(list(held.items())[:t]), threshold=t))


def without_pairs(message: Masked, start: Start, secret: AgreementKey) -> np.ndarray:
    y = words(message)
    for pub in start.pubs:
        if pub.hub != message.hub:
            remove_mask(y, pair_mask(secret, pub.point, ctx=context(start), me=message.hub, other=pub.hub))
    return y


def test_a_vector_that_comes_after_its_key_was_opened_stays_masked_by_its_seed() -> None:
    """Chi-squared on 16 kB, false alarm 1e-6. Nobody can open the seed any more: its shares are gone."""
    federation = Federation(group(5, 1, survivors_min=4))
    spied = spy(federation)
    starts, late, shares = called_dropped(federation)
    secret = opened_key(federation, shares, "hub-e")
    assert secret.public == spied["hub-e"].point.public
    left = without_pairs(late, any_of(starts), secret)
    assert uniform_bytes(left.tobytes())
    everyone = Survivors(context(any_of(starts)), federation.terms.hubs)
    for name in federation.terms.hubs[:4]:
        assert federation.hubs[name].state.round.held == {}
        with pytest.raises(OutOfOrder):
            federation.hubs[name].echo(everyone)


def test_control_with_its_seed_too_the_late_vector_is_bare() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    spied = spy(federation)
    starts, late, shares = called_dropped(federation)
    left = without_pairs(late, any_of(starts), opened_key(federation, shares, "hub-e"))
    remove_mask(left, self_mask(spied["hub-e"].seed, ctx=context(any_of(starts)), hub="hub-e"))
    assert np.array_equal(left[:2_000].view(np.int64), answers(federation.terms, 2_000)["hub-e"])


def test_a_late_vector_is_in_no_sum_and_its_hub_opens_nothing() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    starts, late, _ = called_dropped(federation, 6)
    hub = federation.hubs["hub-e"]
    with pytest.raises(Equivocation, match="leaves out hub-e"):
        hub.echo(Survivors(context(any_of(starts)), federation.terms.hubs[:4]))
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    alone = hub.echo(told)
    with pytest.raises(TooFewHubs, match="Nothing was opened by hub-e"):
        hub.unmask(Echoes(told.ctx, (alone, sign(federation, any_of(starts), LIAR, told.hubs))))
    assert hub.begin(starts["hub-e"]) == late


def test_a_late_vector_that_is_summed_after_all_spoils_the_total() -> None:
    """A coordinator that adds it to an opened sum has nothing: its masks are not among those that were opened."""
    federation = Federation(group(5, 1, survivors_min=4))
    starts = federation.starts(6)
    values = answers(federation.terms)
    masked = federation.masked(starts, {n: v for n, v in values.items() if n != "hub-e"})
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    late = federation.hubs["hub-e"].mask(values["hub-e"])
    left = collector.unmask(any_of(starts), told, federation.named, shares)
    vectors = {n: m.vector for n, m in masked.items()}
    vectors["hub-d"] = (words(masked["hub-d"]) + words(late)).tobytes()
    with pytest.raises(BadTotal, match="check numbers"):
        list(collector.sum_blocks(any_of(starts), told, left, lambda hub, _: vectors[hub], bounds=exact_bounds(5)))


@pytest.mark.parametrize(("early", "late"), [("hub-f", "hub-a"), ("hub-a", "hub-f"), ("hub-c", "hub-d")])
def test_one_hub_lost_before_its_vector_and_one_after_it_leave_a_sum(early: str, late: str) -> None:
    federation = Federation(group(6, 1, survivors_min=5))
    values = answers(federation.terms)
    starts = federation.starts(6)
    masked = federation.masked(starts, {n: v for n, v in values.items() if n != early})
    told = federation.told(starts, masked)
    tags = {n: federation.hubs[n].echo(told) for n in told.hubs if n != late}
    forwarded, _ = collector.echoes(any_of(starts), told, tags, federation.keys)
    shares = {n: federation.hubs[n].unmask(forwarded)[0] for n in tags}
    opened = federation.total(starts, told, masked, shares)
    assert np.array_equal(opened.total, sum(v for n, v in values.items() if n != early))
    fewer = dict(list(shares.items())[:3])
    with pytest.raises(BadShare, match="3 of 4 good shares"):
        federation.total(starts, told, masked, fewer)


def test_control_where_every_share_is_needed_one_late_hub_stops_the_sum() -> None:
    """Shares n of n: masks without recovery, as in sums that need everybody to the end."""
    federation = Federation(group(6, 1, threshold=6, survivors_min=6))
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))
    told = federation.told(starts, masked)
    tags = {n: federation.hubs[n].echo(told) for n in told.hubs[:5]}
    with pytest.raises(TooFewHubs, match="5 hubs signed"):
        collector.echoes(any_of(starts), told, tags, federation.keys)


# --- sets that are too small ----------------------------------------------------------------------


def test_fewer_survivors_than_agreed_are_refused_by_every_hub() -> None:
    federation = Federation(group(6, 1, survivors_min=5))
    starts = federation.starts(6)
    federation.masked(starts, answers(federation.terms))
    told = Survivors(context(any_of(starts)), federation.terms.hubs[:4])
    for name in told.hubs:
        with pytest.raises(TooFewHubs, match="no fewer than 5"):
            federation.hubs[name].echo(told)
        assert federation.hubs[name].state.phase is Phase.MASKED
    with pytest.raises(TooFewHubs, match="no fewer than 5"):
        collector.survivors(any_of(starts), told.hubs)


def test_control_hubs_that_do_not_count_open_a_sum_with_too_little_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of six: three honest parts, where noise was charged as if four were certain."""
    federation = Federation(group(6, 1, survivors_min=5))
    values = answers(federation.terms)
    monkeypatch.setattr(member, "check_survivors", lambda terms, participants, survivors: None)
    monkeypatch.setattr(collector, "check_survivors", lambda terms, participants, survivors: None)
    starts = federation.starts(6)
    masked = federation.masked(starts, {n: values[n] for n in federation.terms.hubs[:4]})
    told = Survivors(context(any_of(starts)), federation.terms.hubs[:4])
    total = federation.total(starts, told, masked, federation.shares(starts, told)).total
    assert np.array_equal(total, sum(values[n] for n in told.hubs))
    assert len(told.hubs) - 1 < terms.sharers(federation.terms)


def exact_group() -> GroupTerms:
    return group(5, 1, exact=True, survivors_min=5)


def test_without_noise_no_hub_signs_a_set_that_lacks_one() -> None:
    federation = Federation(exact_group())
    starts = federation.starts(6)
    federation.masked(starts, {n: v for n, v in answers(federation.terms).items() if n != "hub-e"})
    told = Survivors(context(any_of(starts)), federation.terms.hubs[:4])
    for name in told.hubs:
        with pytest.raises(TooFewHubs, match="hub-e is missing"):
            federation.hubs[name].echo(told)


def test_control_an_exact_sum_with_and_without_a_hub_gives_that_hub_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "_check_enough", lambda terms, hubs: None)
    federation = Federation(exact_group())
    values = answers(federation.terms)
    everyone = federation.run(values).total
    without = federation.run(values, silent=("hub-e",)).total
    assert np.array_equal(everyone - without, values["hub-e"])


# --- answers and tickets that are used again ------------------------------------------------------


def asked(start: Start) -> SecureQuestion:
    return SecureQuestion(bytes(32), "q", 0, 0, b"", start)


def two_sets() -> tuple[Federation, dict[str, Start], dict[str, Start]]:
    """One question over all hubs, and the same one over all but the last, on fresh tickets."""
    federation = Federation(group(5, 1, survivors_min=4))
    larger = federation.starts(6)
    federation.tickets = {n: h.deal(after=1) for n, h in federation.hubs.items()}
    return federation, larger, federation.starts(6, hubs=NAMES[:4])


def test_the_same_question_to_a_smaller_set_is_another_release_with_its_own_charge() -> None:
    _, larger, smaller = two_sets()
    entry = StudyEntry("heart", b"", bytes(32), b"", "granted", bytes(32), False, 0, 0)
    ids = {release_id(entry, asked(starts["hub-a"])) for starts in (larger, smaller)}
    assert len(ids) == 2
    stripped = {asked(replace(s["hub-a"], pubs=(), boxes=(), round=0)).start for s in (larger, smaller)}
    assert len(stripped) == 1, "control: but for the set and its tickets the two questions are one"


def test_control_a_stored_noisy_answer_in_two_sets_shows_one_hub_under_its_own_noise() -> None:
    """What hubs would do that keep an answer by its question alone: all other noise falls out of the difference."""
    federation = Federation(group(5, 1, survivors_min=4))
    rng = np.random.default_rng(7)
    values = answers(federation.terms)
    noisy = {n: v + rng.normal(scale=1e6, size=6).round().astype(np.int64) for n, v in values.items()}
    everyone = federation.run(noisy).total
    without = federation.run(noisy, silent=("hub-e",)).total
    assert np.array_equal(everyone - without, noisy["hub-e"])


def test_a_hub_that_was_called_dropped_deals_anew_and_answers_the_next_round() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    starts, _, _ = called_dropped(federation, 6)
    hub = federation.hubs["hub-e"]
    burnt = federation.named["hub-e"].pub.serial
    federation.tickets["hub-e"] = hub.deal(after=burnt)
    assert federation.tickets["hub-e"].pub.serial == burnt + 1
    assert hub.state.round is None
    values = answers(federation.terms, seed=2)
    assert np.array_equal(federation.run(values).total, sum(values.values()))
    with pytest.raises(Replayed, match="used or given up"):
        hub.begin(starts["hub-e"])


def test_a_second_vector_under_the_opened_key_is_refused() -> None:
    """Its key is known and its seed is not: a second vector under the same seed would give the difference."""
    federation = Federation(group(5, 1, survivors_min=4))
    called_dropped(federation, 6)
    with pytest.raises(OutOfOrder, match="cannot mask an answer now"):
        federation.hubs["hub-e"].mask(answers(federation.terms, seed=2)["hub-e"])


def test_control_the_opened_ticket_masks_again_where_states_are_restored() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    hub = federation.hubs["hub-e"]
    values = [answers(federation.terms, seed=s)["hub-e"] for s in (1, 2)]
    starts = federation.starts(6)
    hub.begin(starts["hub-e"])
    backup, sent = hub.disk, []
    for value in values:
        hub.disk = backup
        sent.append(words(hub.mask(value)))
    assert np.array_equal((sent[0] - sent[1])[:6].view(np.int64), values[0] - values[1])


def test_a_hub_cannot_be_counted_in_before_its_vector_has_left() -> None:
    """A coordinator that names a silent hub as a survivor would open its seed ahead of its vector."""
    federation = Federation(group(5, 1, survivors_min=4))
    starts = federation.starts(6)
    for name, start in starts.items():
        federation.hubs[name].begin(start, QUESTION)
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    with pytest.raises(OutOfOrder, match="never left"):
        federation.hubs["hub-e"].echo(told)


def test_shares_of_the_wrong_half_do_not_count_and_name_their_holder() -> None:
    """A hub shows its share of a survivor's key and of a dropped hub's seed: neither fits its commitment."""
    federation = Federation(group(6, 1, survivors_min=5))
    starts = federation.starts(6)
    values = answers(federation.terms)
    masked = federation.masked(starts, {n: v for n, v in values.items() if n != "hub-f"})
    told = federation.told(starts, masked)
    held = federation.hubs["hub-b"].state.round.held
    shares = federation.shares(starts, told)
    wrong = tuple(h.point if name in told.hubs else h.seed for name, h in sorted(held.items()))
    shares["hub-b"] = replace(shares["hub-b"], shares=wrong)
    opened = federation.total(starts, told, masked, shares)
    assert opened.bad_shares == ("hub-b",)
    assert np.array_equal(opened.total, sum(values[n] for n in told.hubs))


def test_control_unchecked_shares_of_the_wrong_half_blame_an_honest_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the commitments tells: interpolation over a wrong share gives some other secret."""
    federation = Federation(group(6, 1, survivors_min=5))
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))
    told = federation.told(starts, masked)
    held = federation.hubs["hub-b"].state.round.held
    shares = federation.shares(starts, told)
    shares["hub-b"] = replace(shares["hub-b"], shares=tuple(h.point for _, h in sorted(held.items())))
    monkeypatch.setattr(Committer, "commit", lambda self, index, share: b"same")
    tickets = {n: replace(t, commitments=(b"same",) * 12) for n, t in federation.named.items()}
    with pytest.raises((BadShare, BadTotal), match="dealt a bad ticket"):
        collector.total(any_of(starts), told, masked, tickets, shares, bounds=exact_bounds(6))


def test_both_halves_and_only_both_lay_a_vector_bare() -> None:
    federation = Federation(group(4, 1, survivors_min=3))
    spied, starts = spy(federation), federation.starts(6)
    values = answers(federation.terms)
    sent = federation.masked(starts, values)["hub-d"]
    for seed, pairs in ((True, False), (False, True), (False, False)):
        assert not np.array_equal(strip(sent, starts["hub-d"], spied, seed=seed, pairs=pairs), values["hub-d"])
    assert np.array_equal(strip(sent, starts["hub-d"], spied), values["hub-d"])
