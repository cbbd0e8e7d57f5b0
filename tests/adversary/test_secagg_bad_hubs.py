"""Cells P and D of plan `secagg`: hubs that deal, share or send what they should not.

The culprit is named, and never an honest hub in its place. What a hub may put into its own vector nobody can
see; what it gains by that is an unusable total, or one shifted within its bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace
from tests.adversary.secagg_rounds import Federation, answers, any_of, group

from flute.aggregation import collector, tickets
from flute.aggregation.codec import Bounds, Layout, encode_exact, exact_bounds
from flute.aggregation.commitments import Committer, Kind, Place, check_held, commit, proofs, root
from flute.aggregation.context import context, masked_to_sign, pub_digest
from flute.aggregation.masks import box_key, ratchet
from flute.aggregation.tickets import HeldShares
from flute.errors import BadShare, BadSignature, BadTotal, Equivocation, MisuseError
from flute.messages.protocol import Masked, Ticket
from flute.primitives.keys import SigningKey
from flute.primitives.ring import to_bytes
from flute.primitives.sharing import PRIME, SHARE_SIZE

# --- wrong shares in message 5 ---------------------------------------------------------------------


class Opened:
    """A round up to its shares; `open` is the coordinator's last step. `held`: what hub-b held before message 5."""

    def __init__(self, n: int, silent: tuple[str, ...] = ()) -> None:
        self.federation = Federation(group(n, 1))
        values = answers(self.federation.terms)
        self.starts = self.federation.starts(6)
        self.masked = self.federation.masked(self.starts, {h: x for h, x in values.items() if h not in silent})
        self.held = self.federation.hubs["hub-b"].state.round.held
        self.told = self.federation.told(self.starts, self.masked)
        self.shares = self.federation.shares(self.starts, self.told)
        self.sum = sum(values[name] for name in self.told.hubs)

    def open(self) -> collector.Opened:
        return self.federation.total(self.starts, self.told, self.masked, self.shares)


def plus_one(share: bytes) -> bytes:
    return ((int.from_bytes(share, "big") + 1) % PRIME).to_bytes(SHARE_SIZE, "big")


SPOILT: dict[str, Callable[[tuple[bytes, ...], HeldShares], tuple[bytes, ...]]] = {
    "one share off by one": lambda shares, held: (plus_one(shares[0]), *shares[1:]),
    "another dealer's share": lambda shares, held: (shares[1], *shares[1:]),
    "two shares swapped": lambda shares, held: (shares[1], shares[0], *shares[2:]),
    "of the other secret": lambda shares, held: (
        held.seed if shares[0] == held.point else held.point, *shares[1:],
    ),
    "a share outside the field": lambda shares, held: (b"\xff" * SHARE_SIZE, *shares[1:]),
    "the share of another encoding": lambda shares, held: (
        (int.from_bytes(shares[0], "big") + PRIME).to_bytes(SHARE_SIZE, "big"), *shares[1:],
    ),
    "one share left out": lambda shares, held: shares[1:],
    "the last share left out": lambda shares, held: shares[:-1],
    "no shares": lambda shares, held: (),
}  # fmt: skip


def spoil(opened: Opened, how: str) -> None:
    """Hub-b shows something else than its share of hub-a's secret, or fewer shares."""
    good = opened.shares["hub-b"]
    opened.shares["hub-b"] = replace(good, shares=SPOILT[how](good.shares, opened.held["hub-a"]))


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("silent", [(), ("hub-a",)])
def test_any_t_good_shares_open_and_the_hub_with_bad_ones_is_named(how: str, silent: tuple[str, ...]) -> None:
    """Where hub-a dropped out, the spoilt share is of its private key."""
    opened = Opened(7, silent)
    spoil(opened, how)
    total = opened.open()
    assert total.bad_shares == ("hub-b",)
    assert np.array_equal(total.total, opened.sum)


@pytest.mark.parametrize("how", SPOILT)
def test_too_few_good_shares_open_nothing_and_name_the_holder(how: str) -> None:
    opened = Opened(3)
    spoil(opened, how)
    with pytest.raises(BadShare, match=r"2 of 3 good shares.*hub-b sent shares") as caught:
        opened.open()
    _, _, blame = caught.value.text.partition("arrived.")
    assert "hub-c" not in blame


def test_a_holder_with_another_hubs_shares_is_named() -> None:
    """Hub-b copies hub-c's message under its own name: the places are bound to holders."""
    opened = Opened(3)
    opened.shares["hub-b"] = replace(opened.shares["hub-c"], hub="hub-b")
    with pytest.raises(BadShare, match="hub-b sent shares"):
        opened.open()


@pytest.mark.parametrize("changes", [{"ctx": bytes(32)}, {"hub": "hub-c"}])
def test_shares_of_another_round_or_under_another_name_count_as_missing(changes: dict[str, object]) -> None:
    opened = Opened(3)
    opened.shares["hub-b"] = replace(opened.shares["hub-b"], **changes)
    with pytest.raises(BadShare, match=r"2 of 3 good shares.*hub-b sent shares"):
        opened.open()


def test_shares_from_outside_the_round_change_nothing() -> None:
    opened = Opened(5, ("hub-e",))
    opened.shares["hub-z"] = replace(opened.shares["hub-b"], hub="hub-z")
    total = opened.open()
    assert np.array_equal(total.total, opened.sum)


class Unchecked:
    """A commitment that fits every share."""

    def __init__(self, *_: object) -> None: ...

    def commit(self, index: int, share: bytes) -> Unchecked:
        return self

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_control_unchecked_shares_put_the_blame_on_an_honest_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(3)
    spoil(opened, "one share off by one")
    monkeypatch.setattr(collector, "Committer", Unchecked)
    with pytest.raises(BadShare, match="hub-a dealt a bad ticket"):
        opened.open()


def committed(holders: int) -> tuple[list[tuple[Place, Place, tuple[bytes, bytes], tuple[bytes, ...]]], bytes]:
    """Every holder's places, shares and proof, and the root."""
    places = [[Place("heart", "hub-a", 1, holders, x, kind) for kind in Kind] for x in range(1, holders + 1)]
    values = [tuple((2 * x + kind).to_bytes(SHARE_SIZE, "big") for kind in Kind) for x in range(holders)]
    made = [commit(place, value) for pair, shares in zip(places, values, strict=True)
            for place, value in zip(pair, shares, strict=True)]  # fmt: skip
    shares_root, paths = proofs(made)
    assert shares_root == root(made)
    return [(*pair, shares, path) for pair, shares, path in zip(places, values, paths, strict=True)], shares_root


def moved(place: Place, **changes: object) -> Place:
    fields = {name: getattr(place, name) for name in Place.__slots__}
    return Place(**(fields | changes))


@pytest.mark.parametrize("holders", [3, 4, 5, 30, 33])
def test_every_commitment_proves_its_place_and_no_other(holders: int) -> None:
    held, shares_root = committed(holders)
    elsewhere = [{"serial": 2}, {"dealer": "hub-b"}, {"study": "lung"}, {"holders": holders + 1}]
    for seed, point, shares, path in held:
        check_held(seed, point, shares, path, shares_root)
        others = [{"holder": x} for x in range(1, holders + 1) if x != seed.holder]
        wrong = [(moved(seed, **c), moved(point, **c), shares, path) for c in [*elsewhere, *others]]
        wrong += [(point, seed, shares, path), (seed, point, shares[::-1], path), (seed, point, shares, path[:-1])]
        wrong += [(seed, point, (plus_one(shares[0]), shares[1]), path), (seed, point, shares, path[::-1])]
        for case in wrong:
            if case != (seed, point, shares, path):
                with pytest.raises(BadShare):
                    check_held(*case, shares_root)


def test_no_two_places_have_one_commitment() -> None:
    share = bytes(SHARE_SIZE)
    of = [("heart", "hub-a", 1, 5), ("heart", "hub-a", 2, 5), ("heart", "hub-b", 1, 5), ("hear", "thub-a", 1, 5),
          ("heart", "hub-a", 1, 6)]  # fmt: skip
    seen = {Committer(*ticket).commit(index, share) for ticket in of for index in range(10)}
    assert len(seen) == 50


# --- dealers that deal badly -----------------------------------------------------------------------


def reseal(federation: Federation, ticket: Ticket, dealer: str, holder: str, content: bytes) -> Ticket:
    """The dealer's ticket with other content in one box, properly encrypted by the dealer itself."""
    inbound = federation.hubs[holder].state.inbound[dealer]
    pub = ticket.pub
    chain = ratchet(inbound.chain, pub.serial - inbound.serial)
    key = box_key(chain, study=pub.study, serial=pub.serial, dealer=dealer, pub=pub_digest(pub))
    box = AESGCM(key).encrypt(bytes(12), content, pub_digest(pub))
    others = [hub for hub in federation.terms.hubs if hub != dealer]
    boxes = tuple(box if hub == holder else old for hub, old in zip(others, ticket.boxes, strict=True))
    return replace(ticket, boxes=boxes)


def shares_for(federation: Federation, dealer: str, holder: str) -> HeldShares:
    """What the dealer's box for that holder holds, looked up by a copy of the holder that begins a round."""
    copy = federation.hubs[holder].disk
    federation.hubs[holder].begin(federation.starts(6)[holder])
    held = federation.hubs[holder].state.round.held[dealer]
    federation.hubs[holder].disk = copy
    return held


def own_shares(federation: Federation, hub: str) -> bytes:
    own = federation.hubs[hub].state.dealt.own
    return own.seed + own.point


RESEALED = ("seed share", "key share", "halves swapped", "another holder's", "not shares at all")


@pytest.mark.parametrize("how", RESEALED)
def test_dealer_that_seals_a_wrong_share_to_one_hub_is_named_by_it(how: str) -> None:
    federation = Federation()
    held = shares_for(federation, "hub-b", "hub-a")
    content = {
        "seed share": plus_one(held.seed) + held.point,
        "key share": held.seed + plus_one(held.point),
        "halves swapped": held.point + held.seed,
        "another holder's": own_shares(federation, "hub-b"),
        "not shares at all": b"\xff" * 2 * SHARE_SIZE,
    }[how]
    federation.tickets["hub-b"] = reseal(federation, federation.tickets["hub-b"], "hub-b", "hub-a", content)
    starts = federation.starts(6)
    before = federation.hubs["hub-a"].disk
    with pytest.raises(BadShare, match="hub-b dealt to hub-a are not usable"):
        federation.hubs["hub-a"].begin(starts["hub-a"])
    assert federation.hubs["hub-a"].disk == before
    federation.hubs["hub-c"].begin(starts["hub-c"])


@pytest.mark.parametrize("silent", [(), ("hub-b",)])
def test_dealer_whose_committed_shares_make_another_secret_is_named(
    silent: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every share is as committed, so no holder is to blame; together they do not make the seed, or, where hub-b
    dropped out, the private key."""
    federation = Federation(group(5, 1, survivors_min=4))
    honest = tickets.split
    monkeypatch.setattr(tickets, "split", lambda secret, **kw: honest(bytes(32), **kw))
    federation.tickets["hub-b"] = federation.hubs["hub-b"].deal(after=1)
    monkeypatch.undo()
    with pytest.raises(BadShare, match="hub-b dealt a bad ticket"):
        federation.run(answers(federation.terms), silent=silent)


def test_dealer_whose_committed_shares_make_no_secret_of_32_bytes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation()
    too_large = (2**256 + 5).to_bytes(SHARE_SIZE, "big")
    monkeypatch.setattr(tickets, "split", lambda secret, *, holders, **kw: (too_large,) * holders)
    federation.tickets["hub-b"] = federation.hubs["hub-b"].deal(after=1)
    monkeypatch.undo()
    with pytest.raises(BadShare, match="hub-b dealt a bad ticket"):
        federation.run(answers(federation.terms))


# --- vectors that are not answers -------------------------------------------------------------------


def test_not_a_number_cannot_enter_a_sum() -> None:
    """Control: with the check left out numpy makes some integer of it, which no one can tell from an answer."""
    bad = np.array([1.0, np.nan])
    with pytest.raises(MisuseError, match="not finite"):
        encode_exact(bad, hubs=3)
    with np.errstate(invalid="ignore"):
        assert isinstance(int(np.rint(bad).astype(np.int64)[1]), int)


def test_answer_beyond_its_range_is_refused_by_the_hub_itself() -> None:
    federation = Federation()
    starts = federation.starts(2)
    federation.hubs["hub-a"].begin(starts["hub-a"])
    with pytest.raises(MisuseError, match="range"):
        federation.hubs["hub-a"].mask(np.array([0, exact_bounds(3).part + 1], dtype=np.int64))


HUNDRED = Bounds(100, 300)


def lying_words(federation: Federation, monkeypatch: pytest.MonkeyPatch, lie: list[int]) -> collector.Opened:
    """A round in which hub-b's own program puts `lie` where its answer and sentinels belong."""
    values = {name: np.array([5, 6], dtype=np.int64) for name in federation.terms.hubs}
    starts = federation.starts(2)
    for name, start in starts.items():
        federation.hubs[name].begin(start)
    masked = {name: federation.hubs[name].mask(values[name], HUNDRED) for name in ("hub-a", "hub-c")}
    words = np.array(lie, dtype=np.int64).view(np.uint64)
    monkeypatch.setattr(Layout, "pack", lambda layout, index, values, bounds: words)
    masked["hub-b"] = federation.hubs["hub-b"].mask(values["hub-b"])
    monkeypatch.undo()
    told = federation.told(starts, masked)
    return federation.total(starts, told, masked, federation.shares(starts, told), HUNDRED)


def test_overflowing_answer_is_noticed_in_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    for lie in (2**62, -(2**63), 300):
        with pytest.raises(BadTotal, match="outside"):
            lying_words(Federation(), monkeypatch, [lie, 0, 1, 1, 1, 1])


def test_control_a_lie_within_range_shifts_the_total_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell D does not hold, and the agreement says so: the bound limits a lie, nothing reveals it."""
    opened = lying_words(Federation(), monkeypatch, [100, 6, 1, 1, 1, 1])
    assert opened.total.tolist() == [110, 18]


def test_wrong_sentinels_are_noticed_in_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    for lie in ([5, 6, 0, 0, 0, 0], [5, 6, 1, 1, 1, 2]):
        with pytest.raises(BadTotal, match="check numbers"):
            lying_words(Federation(), monkeypatch, lie)


def test_vector_that_is_not_masked_as_agreed_is_noticed() -> None:
    """Hub-b signs and sends noise: the total is unusable, and the sentinels say so (missed: 2^-256)."""
    federation = Federation()
    starts = federation.starts(2)
    values = {n: np.array([5, 6], dtype=np.int64) for n in federation.terms.hubs}
    masked = federation.masked(starts, values, HUNDRED)
    noise = to_bytes(np.arange(1, 7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    masked["hub-b"] = signed(masked["hub-b"], noise, federation.hubs["hub-b"].key)
    told = federation.told(starts, masked)
    with pytest.raises(BadTotal, match="masked its vector differently"):
        federation.total(starts, told, masked, federation.shares(starts, told), HUNDRED)


def signed(message: Masked, vector: bytes, key: SigningKey) -> Masked:
    changed = replace(message, vector=vector, length=len(vector), sha256=hashlib.sha256(vector).digest())
    return replace(changed, signature=key.sign(masked_to_sign(changed)))


@pytest.mark.parametrize("off", [-48, -8, -1, 1, 8])
def test_vector_of_another_length_is_refused_though_its_hub_signed_it(off: int) -> None:
    federation = Federation()
    starts = federation.starts(2)
    masked = federation.masked(starts, {n: np.array([5, 6], dtype=np.int64) for n in federation.terms.hubs})["hub-b"]
    key, ctx = federation.hubs["hub-b"].key, context(any_of(starts))
    collector.check_masked(any_of(starts), ctx, signed(masked, masked.vector, key), federation.keys)
    longer = signed(masked, (masked.vector + bytes(8))[: len(masked.vector) + off], key)
    with pytest.raises(Equivocation, match="hub-b has another length"):
        collector.check_masked(any_of(starts), ctx, longer, federation.keys)


def test_vector_under_a_hash_or_length_that_is_not_its_own_is_refused() -> None:
    federation = Federation()
    starts = federation.starts(2)
    masked = federation.masked(starts, {n: np.array([5, 6], dtype=np.int64) for n in federation.terms.hubs})["hub-b"]
    for change, error in (({"sha256": bytes(32)}, BadSignature), ({"length": 47}, Equivocation)):
        changed = replace(masked, **change)
        signature = federation.hubs["hub-b"].key.sign(masked_to_sign(changed))
        with pytest.raises(error, match="hub-b"):
            collector.check_masked(
                any_of(starts), context(any_of(starts)), replace(changed, signature=signature), federation.keys
            )
