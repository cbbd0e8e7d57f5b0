"""Cell H of plan `secagg`: everybody follows the protocol and keeps what it sees.

The coordinator sees masked vectors, tickets, sealed shares and the seeds that are opened. None of it says
more than the total. Every statistical test states its false alarm and rejects its control.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from tests.adversary.secagg_rounds import (
    Federation,
    answers,
    any_of,
    group,
    integers,
    remove_mask,
    spy,
    strip,
    uniform_bytes,
    words,
)

from flute.aggregation import admission
from flute.aggregation.context import context, pub_digest
from flute.aggregation.masks import MaskKey, box_key, opposite, pair_mask, ratchet, self_mask
from flute.aggregation.tickets import HeldShares, open_box
from flute.defaults import SENTINELS
from flute.errors import BadShare
from flute.primitives.keys import AgreementKey, digest
from flute.primitives.ring import Integers
from flute.primitives.sharing import combine

SIZE = 28
FIXED = np.arange(-SIZE // 2, SIZE // 2, dtype=np.int64)


def vectors_under_fresh_randomness(runs: int = 64) -> tuple[bytes, bytes]:
    """Hub-a's masked vector of one fixed input under `runs` fresh secrets; the same without self masks."""
    masked, without_self = [], []
    for seed in range(runs):
        federation = Federation(seed=("fresh", seed))
        spied, starts = spy(federation), federation.starts(SIZE)
        sent = federation.masked(starts, dict.fromkeys(federation.terms.hubs, FIXED))
        masked.append(sent["hub-a"].vector)
        without_self.append(strip(sent["hub-a"], any_of(starts), spied, pairs=False).tobytes())
    return b"".join(masked), b"".join(without_self)


def test_a_masked_vector_is_uniform_whatever_it_hides() -> None:
    """16 kB each; false alarm 1e-6 per test. Seeds are opened in an honest round: pair masks must do alone."""
    masked, without_self = vectors_under_fresh_randomness()
    assert uniform_bytes(masked)
    assert uniform_bytes(without_self)
    bare = np.tile(FIXED, 64).tobytes()
    assert not uniform_bytes(bare)


def test_uniformity_test_sees_one_byte_in_eight_left_bare() -> None:
    masked, _ = vectors_under_fresh_randomness()
    leaky = np.frombuffer(masked, dtype=np.uint8).reshape(-1, 8).copy()
    leaky[:, 7] = 0
    assert not uniform_bytes(leaky.tobytes())


def test_coordinator_with_every_seed_has_the_total_and_no_part() -> None:
    federation = Federation()
    values = answers(federation.terms)
    spied, starts = spy(federation), federation.starts(6)
    masked = federation.masked(starts, values)
    parts = [strip(m, any_of(starts), spied, pairs=False) for m in masked.values()]
    assert np.array_equal(sum(parts), sum(values.values()))
    assert not any(np.array_equal(part, value) for part, value in zip(parts, values.values(), strict=True))
    control = [strip(m, any_of(starts), spied) for m in masked.values()]
    assert all(np.array_equal(part, value) for part, value in zip(control, values.values(), strict=True))


def public_pair_mask(_mine: AgreementKey, _peer: bytes, *, ctx: bytes, me: str, other: str) -> MaskKey:
    """A pair's mask that whoever reads the wire can make too: it cancels in the total, and hides nothing."""
    low, high = sorted((me, other))
    return MaskKey(digest(ctx, low.encode(), high.encode()), me > other)


def read_by_the_coordinator(size: int = 2_000) -> tuple[dict[str, Integers], dict[str, Integers], Integers]:
    """An honest round; what hubs put in, what its coordinator makes of each vector, and the total.

    It keeps what it sees: the seeds that are opened for it, and all that can be made of the wire.
    """
    federation = Federation()
    values = answers(federation.terms, size=size)
    spied, starts = spy(federation), federation.starts(size)
    masked = federation.masked(starts, values)
    told = federation.told(starts, masked)
    total = federation.total(starts, told, masked, federation.shares(starts, told)).total
    read = {}
    for name, message in masked.items():
        y = words(message)
        remove_mask(y, self_mask(spied[name].seed, ctx=told.ctx, hub=name))
        for pub in any_of(starts).pubs:
            if pub.hub != name:
                key = public_pair_mask(AgreementKey(bytes(32)), pub.point, ctx=told.ctx, me=name, other=pub.hub)
                remove_mask(y, key)
        read[name] = integers(y)
    return values, read, total


@pytest.mark.control("private H", "exact H")
def test_control_where_pairs_agree_on_no_secret_an_honest_round_shows_every_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "pair_mask", public_pair_mask)
    values, read, total = read_by_the_coordinator()
    assert np.array_equal(total, sum(values.values()))
    assert all(np.array_equal(read[name], value) for name, value in values.items())


@pytest.mark.defence("private H", "exact H")
def test_an_honest_round_shows_its_coordinator_the_total_and_nothing_of_an_answer() -> None:
    """16 kB each; false alarm 1e-6 for each of three hubs."""
    values, read, total = read_by_the_coordinator()
    assert np.array_equal(total, sum(values.values()))
    assert all(uniform_bytes(part.tobytes()) for part in read.values())
    assert not any(uniform_bytes(value.tobytes()) for value in values.values())


def test_even_pairs_of_masked_vectors_hide_their_sum() -> None:
    """Two of three vectors, all seeds opened: the masks they share with the third remain."""
    federation = Federation(seed=3)
    spied, starts = spy(federation), federation.starts(4_000)
    zero = np.zeros(4_000, dtype=np.int64)
    masked = federation.masked(starts, dict.fromkeys(federation.terms.hubs, zero))
    parts = {name: strip(m, any_of(starts), spied, pairs=False) for name, m in masked.items()}
    assert uniform_bytes((parts["hub-a"] + parts["hub-b"]).tobytes())
    assert not uniform_bytes(sum(parts.values()).tobytes())


def test_fewer_than_t_holders_cannot_make_the_seed() -> None:
    federation = Federation(group(5, 1))
    spied, starts = spy(federation), federation.starts(6)
    for name, start in starts.items():
        federation.hubs[name].begin(start)
    held = {x: hub.state.round.held["hub-a"].seed for x, hub in enumerate(federation.hubs.values(), 1)}
    t = federation.terms.threshold
    assert combine(dict(list(held.items())[:t]), threshold=t) == spied["hub-a"].seed
    with_one_less = dict(list(held.items())[: t - 1])
    with contextlib.suppress(BadShare):
        assert combine(with_one_less, threshold=t - 1) != spied["hub-a"].seed


def test_hub_sees_no_other_hubs_shares_on_the_way() -> None:
    """A sealed box opens for its holder alone: another hub's chain of the same dealer does not fit."""
    federation = Federation()
    starts = federation.starts(6)
    pub = any_of(starts).pubs[0]
    box = next(b for b in starts["hub-b"].boxes if b.dealer == "hub-a")
    chains = {name: federation.hubs[name].state.inbound["hub-a"].chain for name in ("hub-b", "hub-c")}
    assert isinstance(open_box(federation.terms, pub, box, me="hub-b", chain=chains["hub-b"]), HeldShares)
    for me in ("hub-b", "hub-c"):
        with pytest.raises(BadShare, match="hub-a"):
            open_box(federation.terms, pub, box, me=me, chain=chains["hub-c"])


def test_a_key_stolen_later_opens_nothing_dealt_before() -> None:
    """All that a hub holds after the round, its roster key included, against the boxes that crossed the wire."""
    federation = Federation()
    hub = federation.hubs["hub-b"]
    before = hub.state.inbound["hub-a"].chain
    federation.run(answers(federation.terms))
    starts = federation.starts(6)
    pub = starts["hub-b"].pubs[0]
    box = next(b for b in starts["hub-b"].boxes if b.dealer == "hub-a")
    opens = ratchet(before, pub.serial - 1)
    assert open_box(federation.terms, pub, box, me="hub-b", chain=opens)
    hub.begin(starts["hub-b"])
    state = hub.state
    stolen = [i.chain for i in state.inbound.values()] + list(state.outbound.values()) + [hub.key.raw]
    for secret in stolen:
        with pytest.raises(BadShare):
            open_box(federation.terms, pub, box, me="hub-b", chain=secret)
    assert opens not in hub.disk
    key = box_key(opens, study=pub.study, serial=pub.serial, dealer=pub.hub, pub=pub_digest(pub))
    assert key not in hub.disk


def test_after_opening_a_hub_keeps_no_share_mask_or_seed() -> None:
    federation = Federation()
    spied, starts = spy(federation), federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))
    hub = federation.hubs["hub-a"]
    shares = [share for held in hub.state.round.held.values() for share in (held.seed, held.point)]
    assert spied["hub-a"].seed not in hub.disk
    assert spied["hub-a"].point.raw not in hub.disk
    told = federation.told(starts, masked)
    sent = federation.shares(starts, told)["hub-a"]
    shown = set(sent.shares)
    assert len(shown) == 3
    assert not any(share in hub.disk for share in shares if share not in shown)
    assert hub.state.round.held == {}


def test_after_masking_a_hub_keeps_no_key_of_its_masks() -> None:
    federation = Federation()
    starts = federation.starts(6)
    hub = federation.hubs["hub-a"]
    hub.begin(starts["hub-a"])
    keys = [mask.key for mask in hub.state.round.masks]
    assert len(keys) == 3
    assert all(key in hub.disk for key in keys)
    hub.mask(answers(federation.terms)["hub-a"])
    assert not any(key in hub.disk for key in keys)


def test_masked_words_end_with_masked_sentinels() -> None:
    federation = Federation()
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))["hub-a"]
    assert len(words(masked)) == 6 + SENTINELS
    assert not (words(masked)[-SENTINELS:] == 1).any()


def test_after_a_dropout_a_hub_has_shown_one_share_of_each_secret_and_keeps_none() -> None:
    """Of survivors the seed's, of the dropped hub the private key's; the other halves are gone from its disk."""
    federation = Federation(group(4, 0, survivors_min=3))
    starts = federation.starts(6)
    values = answers(federation.terms)
    masked = federation.masked(starts, {name: values[name] for name in ("hub-a", "hub-b", "hub-d")})
    hub = federation.hubs["hub-a"]
    held = dict(hub.state.round.held)
    told = federation.told(starts, masked)
    sent = federation.shares(starts, told)["hub-a"]
    assert sent.shares == (held["hub-a"].seed, held["hub-b"].seed, held["hub-c"].point, held["hub-d"].seed)
    unshown = [held["hub-a"].point, held["hub-b"].point, held["hub-c"].seed, held["hub-d"].point]
    assert not any(share in hub.disk for share in unshown)


def test_coordinator_with_a_dropped_hubs_private_key_has_the_total_and_no_part() -> None:
    """All that recovery opens: seeds of survivors and the key of the hub that dropped out. False alarm 1e-6."""
    federation = Federation(group(4, 0, survivors_min=3), seed=5)
    spied, starts = spy(federation), federation.starts(4_000)
    values = answers(federation.terms, size=4_000)
    masked = federation.masked(starts, {name: x for name, x in values.items() if name != "hub-c"})
    ctx, pubs = context(any_of(starts)), {pub.hub: pub.point for pub in any_of(starts).pubs}
    parts = {}
    for name, message in masked.items():
        y = words(message)
        remove_mask(y, self_mask(spied[name].seed, ctx=ctx, hub=name))
        remove_mask(y, opposite([pair_mask(spied["hub-c"].point, pubs[name], ctx=ctx, me="hub-c", other=name)])[0])
        parts[name] = integers(y)
    assert np.array_equal(sum(parts.values()), sum(values[name] for name in masked))
    assert all(uniform_bytes(part.tobytes()) for part in parts.values())
    assert uniform_bytes((parts["hub-a"] + parts["hub-b"]).tobytes())
    assert not uniform_bytes(sum(parts.values()).tobytes())
