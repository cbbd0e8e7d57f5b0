"""Cells P and D of plan `secagg`: hubs that deal, share or send what they should not.

The culprit is named, and never an honest hub in its place. What a hub may put into its own vector nobody can
see; what it gains by that is an unusable total, or one shifted within its bound.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace
from tests.adversary.secagg_rounds import Federation, answers, any_of, group

from flute.aggregation import collector, member, tickets
from flute.aggregation.codec import encode_exact, largest_part
from flute.aggregation.commitments import Kind, Place, check_opening, commit, paths, root
from flute.aggregation.context import masked_to_sign, pub_digest
from flute.aggregation.masks import box_key, ratchet
from flute.errors import BadShare, BadTotal, MisuseError
from flute.messages.protocol import DealtShares, Masked, Opening, SealedShares, Shares, Start, Survivors, Ticket
from flute.primitives.keys import SigningKey
from flute.primitives.ring import to_bytes, to_ring
from flute.primitives.sharing import PRIME, SHARE_SIZE

# --- wrong shares in message 5 ---------------------------------------------------------------------


def opened_round(n: int) -> tuple[Federation, dict, Start, Survivors, dict[str, Masked], dict[str, Shares]]:
    federation = Federation(group(n, 1))
    values = answers(federation.terms)
    starts = federation.starts(6)
    masked = federation.masked(starts, values)
    told = federation.told(starts, masked)
    return federation, values, any_of(starts), told, masked, federation.shares(starts, told)


def plus_one(opening: Opening) -> Opening:
    value = (int.from_bytes(opening.share, "big") + 1) % PRIME
    return replace(opening, share=value.to_bytes(SHARE_SIZE, "big"))


def spoil(shares: Shares, how: str) -> Shares:
    a, b, *rest = shares.seeds
    seeds = {
        "one share off by one": (replace(a, opening=plus_one(a.opening)), b, *rest),
        "another dealer's share": (replace(a, opening=b.opening), b, *rest),
        "another salt": (replace(a, opening=replace(a.opening, salt=bytes(32))), b, *rest),
        "a path cut short": (replace(a, opening=replace(a.opening, path=a.opening.path[:-1])), b, *rest),
        "a share outside the field": (replace(a, opening=replace(a.opening, share=b"\xff" * 33)), b, *rest),
        "one share left out": (b, *rest),
        "no shares": (),
    }[how]
    return replace(shares, seeds=seeds)


SPOILT = ("one share off by one", "another dealer's share", "another salt", "a path cut short",
          "a share outside the field", "one share left out", "no shares")  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_any_t_good_shares_open_and_the_hub_with_bad_ones_is_named(how: str) -> None:
    _, values, start, told, masked, shares = opened_round(5)
    shares["hub-b"] = spoil(shares["hub-b"], how)
    opened = collector.total(start, told, masked, shares, part_bound=largest_part(5))
    assert opened.bad_shares == ("hub-b",)
    assert np.array_equal(opened.total, sum(values.values()))


@pytest.mark.parametrize("how", SPOILT)
def test_too_few_good_shares_open_nothing_and_name_the_holder(how: str) -> None:
    _, _, start, told, masked, shares = opened_round(3)
    shares["hub-b"] = spoil(shares["hub-b"], how)
    with pytest.raises(BadShare, match=r"2 of 3 good shares.*hub-b sent shares") as caught:
        collector.total(start, told, masked, shares, part_bound=largest_part(3))
    assert "hub-c" not in caught.value.text


def test_a_holder_with_another_hubs_shares_is_named() -> None:
    """Hub-b copies hub-c's message under its own name: the places are bound to holders."""
    _, _, start, told, masked, shares = opened_round(3)
    shares["hub-b"] = replace(shares["hub-c"], hub="hub-b")
    with pytest.raises(BadShare, match="hub-b sent shares"):
        collector.total(start, told, masked, shares, part_bound=largest_part(3))


def test_control_unchecked_shares_put_the_blame_on_an_honest_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, start, told, masked, shares = opened_round(3)
    shares["hub-b"] = spoil(shares["hub-b"], "one share off by one")
    monkeypatch.setattr(collector, "check_opening", lambda place, opening, shares_root: None)
    with pytest.raises(BadShare, match="hub-a dealt a bad ticket"):
        collector.total(start, told, masked, shares, part_bound=largest_part(3))


def test_every_commitment_proves_its_place_and_no_other() -> None:
    places = [Place("heart", "hub-a", 1, 5, x, kind) for x in range(1, 6) for kind in Kind]
    values = [i.to_bytes(SHARE_SIZE, "big") for i in range(len(places))]
    leaves = [commit(place, value, bytes(32)) for place, value in zip(places, values, strict=True)]
    shares_root, proofs = root(leaves), paths(leaves)
    for place, value, proof in zip(places, values, proofs, strict=True):
        opening = Opening(value, bytes(32), proof)
        check_opening(place, opening, shares_root)
        others = [other for other in places if other != place]
        for other in [*others, replace_place(place, serial=2), replace_place(place, dealer="hub-b")]:
            with pytest.raises(BadShare):
                check_opening(other, opening, shares_root)


def replace_place(place: Place, **changes: object) -> Place:
    fields = {name: getattr(place, name) for name in Place.__slots__}
    return Place(**(fields | changes))


# --- dealers that deal badly -----------------------------------------------------------------------


def reseal(federation: Federation, ticket: Ticket, dealer: str, holder: str, held: object) -> Ticket:
    """The dealer's ticket with other content in one box, properly encrypted by the dealer itself."""
    inbound = federation.hubs[holder].state.inbound[dealer]
    pub = ticket.pub
    chain = ratchet(inbound.chain, pub.serial - inbound.serial)
    key = box_key(chain, study=pub.study, serial=pub.serial, dealer=dealer, pub=pub_digest(pub))
    box = AESGCM(key).encrypt(bytes(12), msgspec.msgpack.encode(held), pub_digest(pub))
    return replace(ticket, boxes=tuple(SealedShares(b.hub, box) if b.hub == holder else b for b in ticket.boxes))


@pytest.mark.parametrize("how", ["seed share", "key share", "halves swapped", "not shares at all"])
def test_dealer_that_seals_a_wrong_share_to_one_hub_is_named_by_it(how: str) -> None:
    federation = Federation()
    own: DealtShares = federation.hubs["hub-b"].state.dealt.own
    held = {
        "seed share": replace(own, seed=plus_one(own.seed)),
        "key share": replace(own, point=plus_one(own.point)),
        "halves swapped": DealtShares(own.point, own.seed),
        "not shares at all": {"seed": 1},
    }[how]
    federation.tickets["hub-b"] = reseal(federation, federation.tickets["hub-b"], "hub-b", "hub-a", held)
    starts = federation.starts(6)
    before = federation.hubs["hub-a"].disk
    with pytest.raises(BadShare, match="hub-b dealt to hub-a are not usable"):
        federation.hubs["hub-a"].begin(starts["hub-a"])
    assert federation.hubs["hub-a"].disk == before
    federation.hubs["hub-c"].begin(starts["hub-c"])


def test_dealer_whose_committed_shares_make_another_secret_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every share is as committed, so no holder is to blame; together they do not make the seed."""
    federation = Federation()
    honest = tickets.split
    monkeypatch.setattr(tickets, "split", lambda secret, **kw: honest(bytes(32), **kw))
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
        federation.hubs["hub-a"].mask(np.array([0, largest_part(3) + 1], dtype=np.int64))


def lying_words(federation: Federation, monkeypatch: pytest.MonkeyPatch, lie: np.ndarray) -> collector.Opened:
    """A round in which hub-b's own program puts `lie` where its answer and sentinels belong."""
    values = {name: np.array([5, 6], dtype=np.int64) for name in federation.terms.hubs}
    starts = federation.starts(2)
    for name, start in starts.items():
        federation.hubs[name].begin(start)
    masked = {name: federation.hubs[name].mask(values[name], 100) for name in ("hub-a", "hub-c")}
    monkeypatch.setattr(member, "to_words", lambda values, part_bound: to_ring(lie))
    masked["hub-b"] = federation.hubs["hub-b"].mask(values["hub-b"])
    monkeypatch.undo()
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    return collector.total(any_of(starts), told, masked, shares, part_bound=100)


def test_overflowing_answer_is_noticed_in_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    for lie in (2**62, -(2**63), 300):
        with pytest.raises(BadTotal, match="outside"):
            lying_words(Federation(), monkeypatch, np.array([lie, 0, 1, 1, 1, 1], dtype=np.int64))


def test_control_a_lie_within_range_shifts_the_total_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell D does not hold, and the agreement says so: the bound limits a lie, nothing reveals it."""
    opened = lying_words(Federation(), monkeypatch, np.array([100, 6, 1, 1, 1, 1], dtype=np.int64))
    assert opened.total.tolist() == [110, 18]


def test_wrong_sentinels_are_noticed_in_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    for lie in ([5, 6, 0, 0, 0, 0], [5, 6, 1, 1, 1, 2]):
        with pytest.raises(BadTotal, match="check numbers"):
            lying_words(Federation(), monkeypatch, np.array(lie, dtype=np.int64))


def test_vector_that_is_not_masked_as_agreed_is_noticed() -> None:
    """Hub-b signs and sends noise: the total is unusable, and the sentinels say so (missed: 2^-256)."""
    federation = Federation()
    starts = federation.starts(2)
    masked = federation.masked(starts, {n: np.array([5, 6], dtype=np.int64) for n in federation.terms.hubs})
    noise = to_bytes(np.arange(1, 7, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    masked["hub-b"] = signed(replace(masked["hub-b"], vector=noise), federation.hubs["hub-b"].key)
    told = federation.told(starts, masked)
    with pytest.raises(BadTotal, match="masked its vector differently"):
        collector.total(any_of(starts), told, masked, federation.shares(starts, told), part_bound=100)


def signed(message: Masked, key: SigningKey) -> Masked:
    return replace(message, signature=key.sign(masked_to_sign(message, hashlib.sha256(message.vector).digest())))
