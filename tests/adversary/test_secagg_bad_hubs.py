"""Cells P and D of plan `secagg`: hubs that deal, share or send what they should not.

The culprit is named, and never an honest hub in its place. What a hub may put into its own vector nobody can
see; what it gains by that is an unusable total, or one shifted within its bound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace
from tests.adversary.secagg_rounds import Federation, answers, any_of, group

from flute.aggregation import collector, opening, tickets
from flute.aggregation.codec import Bounds, Layout, encode_exact, exact_bounds
from flute.aggregation.commitments import Committer, Kind, Path, place, proofs, root
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

    def __init__(self, study: str, dealer: str, *_: object) -> None:
        self.dealer = dealer

    def commit(self, index: int, share: bytes) -> Unchecked:
        return self

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_control_unchecked_shares_put_the_blame_on_an_honest_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(3)
    spoil(opened, "one share off by one")
    monkeypatch.setattr(opening, "Committer", Unchecked)
    with pytest.raises(BadShare, match="hub-a dealt a bad ticket"):
        opened.open()


Proof = tuple[tuple[bytes, bytes], bytes, Path]
"""Both shares of a holder, its chunk of commitments and the path."""
COMMON = {"study": "heart", "dealer": "hub-a", "serial": 1}


def committed(holders: int) -> tuple[list[Proof], bytes]:
    """Every holder's shares and proof, and the root."""
    committer = Committer(**COMMON, holders=holders)
    values = [tuple((2 * x + kind).to_bytes(SHARE_SIZE, "big") for kind in Kind) for x in range(1, holders + 1)]
    made = [
        committer.commit(place(x, kind), share)
        for x, shares in enumerate(values, start=1)
        for kind, share in zip(Kind, shares, strict=True)
    ]
    return [(shares, *proof) for shares, proof in zip(values, proofs(made), strict=True)], root(made)


def fits(holder: int, proof: Proof, shares_root: bytes, **others: object) -> bool:
    try:
        Committer(**(COMMON | others)).check_held(holder, *proof, shares_root)
    except BadShare:
        return False
    return True


@pytest.mark.parametrize("holders", [3, 7, 8, 9, 17, 30, 33])
def test_every_proof_is_of_its_place_and_no_other(holders: int) -> None:
    held, shares_root = committed(holders)
    elsewhere = [{"serial": 2}, {"dealer": "hub-b"}, {"study": "lung"}, {"holders": holders + 1}, {"holders": 200}]
    for holder, proof in enumerate(held, start=1):
        assert fits(holder, proof, shares_root, holders=holders)
        places = [x for x in range(1, holders + 1) if fits(x, proof, shares_root, holders=holders)]
        assert places == [holder]
        assert not any(fits(holder, proof, shares_root, **{"holders": holders, **other}) for other in elsewhere)
        assert not fits(holder, proof, bytes(32), holders=holders)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize("holders", [3, 9, 30])
def test_nothing_in_a_proof_can_be_changed(holders: int) -> None:
    held, shares_root = committed(holders)
    for holder, ((seed, point), chunk, path) in enumerate(held, start=1):
        changed: list[Proof] = [
            ((point, seed), chunk, path),
            ((plus_one(seed), point), chunk, path),
            ((seed, plus_one(point)), chunk, path),
            ((seed, point), chunk[:-32], path),
            ((seed, point), chunk + bytes(32), path),
            ((seed, point), chunk, (*path, bytes(32))),
            *(((seed, point), flipped(chunk, at), path) for at in range(len(chunk))),
            *(((seed, point), chunk, (*path[:at], flipped(path[at], 0), *path[at + 1 :])) for at in range(len(path))),
        ]
        if path:
            _, *elsewhere = next(proof for proof in held if proof[1] != chunk)
            changed += [((seed, point), chunk, path[1:]), ((seed, point), *elsewhere)]
        assert not any(fits(holder, proof, shares_root, holders=holders) for proof in changed)


def test_a_holder_cannot_put_its_own_shares_commitments_into_the_chunk() -> None:
    """A chunk that holds commitments to other shares at this holder's place is not under the signed root."""
    held, shares_root = committed(9)
    (seed, point), chunk, path = held[1]
    committer = Committer(**COMMON, holders=9)
    mine = b"".join(committer.commit(place(2, kind), share) for kind, share in zip(Kind, (point, seed), strict=True))
    assert not fits(2, ((point, seed), chunk[:32] + mine + chunk[64:], path), shares_root, holders=9)


def test_no_two_places_have_one_commitment() -> None:
    share = bytes(SHARE_SIZE)
    of = [("heart", "hub-a", 1, 5), ("heart", "hub-a", 2, 5), ("heart", "hub-b", 1, 5), ("hear", "thub-a", 1, 5),
          ("heart", "hub-a", 1, 6)]  # fmt: skip
    seen = {Committer(*ticket).commit(index, share) for ticket in of for index in range(10)}
    assert len(seen) == 50


# --- shares that are wrong together ----------------------------------------------------------------


def shift(opened: Opened, errors: dict[str, int]) -> None:
    """Holders add these to their shares of hub-a's secret."""
    for holder, error in errors.items():
        good = opened.shares[holder]
        moved = (int.from_bytes(good.shares[0], "big") + error) % PRIME
        opened.shares[holder] = replace(good, shares=(moved.to_bytes(SHARE_SIZE, "big"), *good.shares[1:]))


def cancelling(threshold: int) -> dict[str, int]:
    """Errors of the first two holders that leave Lagrange's sum over the first t at 0 as it was."""
    weights = opening._weights_at_zero(range(1, threshold + 1))
    return {"hub-a": weights[2], "hub-b": PRIME - weights[1]}


def test_holders_whose_wrong_shares_cancel_each_other_are_named() -> None:
    opened = Opened(7)
    shift(opened, cancelling(opened.federation.terms.threshold))
    total = opened.open()
    assert total.bad_shares == ("hub-a", "hub-b")
    assert np.array_equal(total.total, opened.sum)


def test_control_without_the_dual_word_wrong_shares_that_cancel_go_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(7)
    shift(opened, cancelling(opened.federation.terms.threshold))
    monkeypatch.setattr(opening, "_dual_word", lambda rows, threshold: {})
    total = opened.open()
    assert total.bad_shares == ()
    assert np.array_equal(total.total, opened.sum)


def shift_along_a_polynomial(opened: Opened, honest: int) -> tuple[str, ...]:
    """All but the first holders shift their shares by a polynomial that is 0 at 0 and at those first ones' places."""
    names = opened.federation.terms.hubs
    zeros = range(honest + 1)
    errors = {names[x - 1]: prod(x - zero for zero in zeros) for x in range(honest + 1, len(names) + 1)}
    shift(opened, errors)
    return tuple(errors)


def test_liars_cannot_shift_their_shares_along_a_polynomial_where_enough_are_honest() -> None:
    """Of 7 holders with t = 5, five are honest: two polynomials of degree 4 that agree there are one."""
    opened = Opened(7)
    liars = shift_along_a_polynomial(opened, 5)
    total = opened.open()
    assert total.bad_shares == liars == ("hub-f", "hub-g")
    assert np.array_equal(total.total, opened.sum)


def test_t_minus_one_honest_holders_show_who_the_liars_are() -> None:
    opened = Opened(7)
    assert shift_along_a_polynomial(opened, 4) == ("hub-e", "hub-f", "hub-g")
    with pytest.raises(BadShare, match=r"Only 4 of 5 good shares.*hub-e, hub-f, hub-g sent shares"):
        opened.open()


def test_more_liars_than_any_group_assumes_that_lie_on_a_polynomial_change_nothing() -> None:
    """With t - 2 honest holders the shares are those of another polynomial, and of the same secret."""
    opened = Opened(7)
    assert len(shift_along_a_polynomial(opened, 3)) == 4
    total = opened.open()
    assert total.bad_shares == ()
    assert np.array_equal(total.total, opened.sum)


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
