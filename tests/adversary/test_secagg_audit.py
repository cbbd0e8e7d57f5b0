"""Cells D and P of plan `secagg`, after the fact: who changed what, by the signed messages of a round alone.

Nothing stops a coordinator from publishing another total than the one it opened. But it cannot show vectors, signed
by their hubs, that add up to it; every hub was told one digest of the total; and a hub whose roster differs from the
others' takes no part. An auditor needs the coordinator's stored messages, the hubs' roster keys and no secret.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace as changed
from tests.adversary.secagg_rounds import (
    QUESTION,
    Federation,
    answers,
    any_of,
    group,
    words,
)

from flute.aggregation import admission, channels, collector, member, tickets
from flute.aggregation.codec import Bounds, FixedPoint, Layout, TotalReader, encode_exact, exact_bounds
from flute.aggregation.context import context, info, masked_to_sign
from flute.aggregation.masks import pair_mask
from flute.aggregation.state import decode_state
from flute.dp.clip import clip
from flute.errors import (
    BadShare,
    BadSignature,
    BadTotal,
    Equivocation,
    FluteError,
    Malformed,
    MisuseError,
    Replayed,
    Stale,
    TooFewHubs,
)
from flute.messages.protocol import Echo, Masked, Shares, Start, Survivors, Ticket
from flute.messages.question import RoundClosed
from flute.primitives.keys import AgreementKey, SigningKey, derive
from flute.study.release import total_digest

pytestmark = pytest.mark.requirement("NF-SRS-5")

BOUNDS = exact_bounds(5)


@dataclass(frozen=True)
class Transcript:
    """What a coordinator has stored of a round, and the total that it published."""

    start: Start
    tickets: dict[str, Ticket]
    masked: dict[str, Masked]
    told: Survivors
    echoes: dict[str, Echo]
    shares: dict[str, Shares]
    total: np.ndarray

    @property
    def published(self) -> bytes:
        return total_digest(self.total.astype("<i8").tobytes())


def audit(shown: Transcript, keys: dict[str, bytes]) -> bytes:
    """The digest that every hub must have been told, recomputed from messages that the hubs signed.

    Raises: BadSignature, Equivocation, TooFewHubs, BadShare, BadTotal: the messages are not those of this round.
    """
    for hub, ticket in shown.tickets.items():
        tickets.check_ticket(ticket, shown.start.terms, keys[hub])
    ctx = context(shown.start)
    for hub in shown.told.hubs:
        collector.check_masked(shown.start, ctx, shown.masked[hub], keys)
    _, wrong = collector.echoes(shown.start, shown.told, shown.echoes, keys)
    if wrong:
        raise BadSignature(f"{', '.join(wrong)} did not sign this set.")
    again = collector.total(shown.start, shown.told, shown.masked, shown.tickets, shown.shares, bounds=BOUNDS)
    return total_digest(again.total.astype("<i8").tobytes())


def honest(seed: object = 0) -> tuple[Federation, Transcript]:
    """Five hubs, of which hub-e dropped out."""
    federation = Federation(group(5, 1, survivors_min=4), seed=seed)
    starts = federation.starts(6)
    values = answers(federation.terms)
    masked = federation.masked(starts, {n: v for n, v in values.items() if n != "hub-e"})
    told, named = federation.told(starts, masked), dict(federation.named)
    echoes = {n: federation.hubs[n].echo(told) for n in told.hubs}
    shares = federation.shares(starts, told)
    total = federation.total(starts, told, masked, shares).total
    assert np.array_equal(total, sum(values[n] for n in told.hubs))
    return federation, Transcript(any_of(starts), named, masked, told, echoes, shares, total)


def test_an_honest_transcript_gives_the_digest_that_every_hub_was_told() -> None:
    federation, shown = honest()
    closed = [RoundClosed(bytes(32), "released", shown.published) for _ in federation.terms.hubs]
    assert {c.total for c in closed} == {audit(shown, federation.keys)}


def test_a_published_total_other_than_the_opened_one_is_found() -> None:
    federation, shown = honest()
    moved = shown.total.copy()
    moved[0] += 1
    lie = replace(shown, total=moved)
    assert audit(lie, federation.keys) != lie.published


def test_hubs_that_were_told_different_totals_find_it_by_comparing_digests() -> None:
    federation, shown = honest()
    told = dict.fromkeys(federation.terms.hubs, shown.published)
    told["hub-c"] = total_digest((shown.total + 1).astype("<i8").tobytes())
    true = audit(shown, federation.keys)
    assert [hub for hub, digest in told.items() if digest != true] == ["hub-c"]


def altered(message: Masked) -> Masked:
    """One more in the first coordinate; hash and length are made to fit."""
    y = words(message)
    y[0] += np.uint64(1)
    return changed(message, vector=y.tobytes(), sha256=hashlib.sha256(y.tobytes()).digest())


def with_vector(shown: Transcript, message: Masked) -> Transcript:
    return replace(shown, masked=shown.masked | {"hub-b": message})


def lies(federation: Federation, shown: Transcript) -> dict[str, tuple[Transcript, type[FluteError], str]]:
    _, other = honest("another round")
    b, c = shown.masked["hub-b"], shown.masked["hub-c"]
    flipped = bytes([b.vector[0] ^ 1]) + b.vector[1:]
    fewer = Survivors(shown.told.ctx, shown.told.hubs[:3])
    bad_shares = {n: changed(s, shares=tuple(x[:-1] + b"\0" for x in s.shares)) for n, s in shown.shares.items()}
    ticket = shown.tickets["hub-d"]
    swapped = changed(ticket, commitments=ticket.commitments[2:] + ticket.commitments[:2])
    return {
        "vector changed": (with_vector(shown, changed(b, vector=flipped)), BadSignature, "not the one"),
        "vector and hash changed": (with_vector(shown, altered(b)), BadSignature, "hub-b is not signed"),
        "vector of another hub": (with_vector(shown, c), BadTotal, "check numbers"),
        "vector of another round": (with_vector(shown, other.masked["hub-b"]), Equivocation, "another round"),
        "vector cut": (with_vector(shown, changed(b, vector=b.vector[:-8])), Equivocation, "another length"),
        "a hub left out of the set": (replace(shown, told=fewer), TooFewHubs, "signed the set"),
        "shares changed": (replace(shown, shares=bad_shares), BadShare, "0 of 4"),
        "commitments changed": (
            replace(shown, tickets=shown.tickets | {"hub-d": swapped}), BadShare, "other commitments",
        ),
    }  # fmt: skip


LIES = (
    "vector changed", "vector and hash changed", "vector of another hub", "vector of another round", "vector cut",
    "a hub left out of the set", "shares changed", "commitments changed",
)  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_stored_messages_that_were_changed_to_fit_another_total_are_found(name: str) -> None:
    federation, shown = honest()
    lie, error, says = lies(federation, shown)[name]
    with pytest.raises(error, match=says):
        audit(lie, federation.keys)


def test_control_an_auditor_that_does_not_check_signatures_confirms_the_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    federation, shown = honest()
    moved = shown.total.copy()
    moved[0] += 1
    lie = replace(with_vector(shown, altered(shown.masked["hub-b"])), total=moved)
    for module in (collector, tickets):
        monkeypatch.setattr(module, "verify", lambda key, signature, message: None)
    assert audit(lie, federation.keys) == lie.published


# --- rosters that differ -----------------------------------------------------------------------------


def two_rosters() -> tuple[Federation, Federation]:
    """The same hubs and keys, of whom the coordinator showed some another roster."""
    return Federation(group(), seed="roster"), Federation(group(roster=b"r" * 32), seed="roster")


def test_hubs_that_were_shown_different_rosters_never_start_a_round_together() -> None:
    ours, theirs = two_rosters()
    start = theirs.starts(4)["hub-a"]
    with pytest.raises(Stale, match="other terms"):
        ours.hubs["hub-a"].begin(start)
    mixed = {**ours.tickets, "hub-b": theirs.tickets["hub-b"]}
    with pytest.raises(Stale, match="hub-b was dealt under another roster"):
        collector.start(
            ours.terms, round_number=1, question=QUESTION, size=4, width=64, tickets=mixed, keys=ours.keys
        )
    mine = ours.starts(4)["hub-a"]
    forged = changed(mine, pubs=(mine.pubs[0], start.pubs[1], mine.pubs[2]))
    with pytest.raises(Stale, match="hub-b was dealt under another roster"):
        ours.hubs["hub-a"].begin(forged)


def impostors(federation: Federation) -> list[msgspec.Struct]:
    """Study keys of hub-b and hub-c that the coordinator made and signed with keys of its own."""
    made = []
    for name in ("hub-b", "hub-c"):
        key = SigningKey(hashlib.sha256(name.encode()).digest())
        _, study_key = channels.enrol(
            name, study=federation.terms.study, agreement=federation.terms.agreement, key=key, rand=key.raw
        )
        made.append(study_key)
    return made


def test_a_coordinator_cannot_play_other_hubs_to_a_hub_that_holds_the_roster() -> None:
    federation = Federation(seed="impostors")
    hub = federation.hubs["hub-a"]
    own = hub.enrol(federation.terms)
    with pytest.raises(BadSignature, match="hub-b is not signed by it"):
        hub.setup([own, *impostors(federation)], federation.terms)


def test_control_under_a_roster_of_the_coordinators_making_the_others_are_one_and_it_subtracts() -> None:
    """Hub-b and hub-c are the coordinator's: it knows what they send, and the total less that is hub-a's answer."""
    federation = Federation(seed="impostors")
    hub, values = federation.hubs["hub-a"], answers(federation.terms)
    keys = {"hub-a": hub.key.public}
    keys |= {n: SigningKey(hashlib.sha256(n.encode()).digest()).public for n in ("hub-b", "hub-c")}
    own = hub.enrol(federation.terms)
    channels.setup(decode_state(hub.disk), [own, *impostors(federation)], terms=federation.terms, keys=keys)
    again = Federation(seed="impostors")
    total = again.run(values).total
    assert np.array_equal(total - values["hub-b"] - values["hub-c"], values["hub-a"])


# --- what hubs send -----------------------------------------------------------------------------------


def resigned(federation: Federation, message: Masked, vector: bytes) -> Masked:
    """Another vector, signed by the hub itself: it lies, the coordinator does not."""
    made = changed(message, vector=vector, length=len(vector), sha256=hashlib.sha256(vector).digest())
    return changed(made, signature=federation.hubs[message.hub].key.sign(masked_to_sign(made)))


def answered(seed: object = 0) -> tuple[Federation, dict[str, Start], dict[str, Masked]]:
    federation = Federation(group(5, 1, survivors_min=4), seed=seed)
    starts = federation.starts(6)
    return federation, starts, federation.masked(starts, answers(federation.terms))


@pytest.mark.parametrize("size", [0, 1, 9, 11])
def test_a_vector_of_another_length_names_its_hub_and_the_round_goes_on_without_it(size: int) -> None:
    federation, starts, masked = answered()
    masked["hub-e"] = resigned(federation, masked["hub-e"], bytes(8 * size))
    with pytest.raises(Equivocation, match="hub-e has another length"):
        federation.told(starts, masked)
    del masked["hub-e"]
    told = federation.told(starts, masked)
    total = federation.total(starts, told, masked, federation.shares(starts, told)).total
    assert np.array_equal(total, sum(answers(federation.terms)[n] for n in told.hubs))


def test_control_an_unchecked_length_is_noticed_when_the_round_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    federation, starts, masked = answered()
    masked["hub-e"] = resigned(federation, masked["hub-e"], bytes(8 * 9))
    monkeypatch.setattr(collector, "check_masked", lambda *args: None)
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    with pytest.raises((Malformed, MisuseError)):
        federation.total(starts, told, masked, shares)


def garbage_total() -> None:
    federation, starts, masked = answered()
    noise = (np.arange(1, 11, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).tobytes()
    masked["hub-b"] = resigned(federation, masked["hub-b"], noise)
    told = federation.told(starts, masked)
    federation.total(starts, told, masked, federation.shares(starts, told))


def test_garbage_under_a_good_signature_is_no_total() -> None:
    with pytest.raises(BadTotal, match="check numbers"):
        garbage_total()


def test_control_without_sentinels_garbage_passes_for_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(self: TotalReader, block: np.ndarray) -> np.ndarray:
        self._next += 1
        return block.view(np.int64)[:6]

    monkeypatch.setattr(TotalReader, "read", unchecked)
    garbage_total()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_neither_enters_a_sum_nor_switches_a_clip_off(bad: float) -> None:
    values = np.array([1.0, bad])
    with pytest.raises(MisuseError, match="not finite"):
        encode_exact(values, hubs=3)
    with pytest.raises(MisuseError, match="not finite"):
        FixedPoint(21, 3, 1.0).encode(values, rand=bytes(32))
    rows = np.array([[3.0, 4.0], [bad, 1e9]])
    assert np.allclose(clip(rows, 1.0), [[0.6, 0.8], [0.0, 0.0]])


def test_control_a_clip_as_often_written_lets_everything_beside_it_through() -> None:
    """min(1, nan) is 1: the row keeps the length that it came with. And a NaN as an integer is just some integer."""
    rows = np.array([[np.nan, 1e9]])
    with np.errstate(invalid="ignore"):
        scale = np.fmin(1.0, 1.0 / np.linalg.norm(rows, axis=1))
        assert (rows * scale[:, None])[0, 1] == 1e9
        assert isinstance(int(np.rint(rows).astype(np.int64)[0, 0]), int)


def test_a_number_that_a_sum_of_64_bits_cannot_hold_is_refused_at_the_hub() -> None:
    for hubs in (3, 30):
        limit = 2.0**62 / hubs
        for value in (limit, -limit):
            with pytest.raises(MisuseError, match="cannot hold"):
                encode_exact(np.array([value]), hubs=hubs, bits=0)
        assert encode_exact(np.array([limit * 0.99]), hubs=hubs, bits=0)[0] > 0


def test_control_sums_beyond_64_bits_come_out_as_other_numbers() -> None:
    parts = np.full(3, 2**62, dtype=np.int64)
    assert int(parts.view(np.uint64).sum(dtype=np.uint64).view(np.int64)) != 3 * 2**62


def test_a_hub_that_lies_within_its_bound_is_believed_and_beyond_it_is_not() -> None:
    """Cell D does not hold: the norm of the total is what limits a lie."""
    layout = Layout(64, 2)
    bounds = Bounds(10, 30, 12.0)
    for values, passes in (([8, 8], True), ([9, 9], False)):
        block = np.array([*values, 3, 3, 3, 3], dtype=np.int64).view(np.uint64)
        reader = TotalReader(layout, survivors=3, bounds=bounds)
        reader.read(block)
        if passes:
            reader.finish()
        else:
            with pytest.raises(BadTotal, match="clip norm"):
                reader.finish()


# --- one ticket, twice ---------------------------------------------------------------------------------


def test_a_ticket_that_is_named_twice_serves_once() -> None:
    """In two rounds, in one round twice, and under another round's number."""
    federation = Federation(group(5, 1, survivors_min=4))
    first, second = federation.starts(6)["hub-a"], federation.starts(6)["hub-a"]
    hub = federation.hubs["hub-a"]
    doubled = changed(first, pubs=(first.pubs[0], first.pubs[1], *first.pubs[1:]))
    with pytest.raises(Equivocation, match="each once"):
        hub.begin(doubled)
    assert hub.begin(first) is None
    with pytest.raises(Replayed, match="used or given up"):
        hub.begin(second)
    sent = hub.mask(answers(federation.terms)["hub-a"])
    assert hub.begin(first) == sent


def test_control_a_hub_that_forgets_what_was_named_masks_twice_under_one_ticket() -> None:
    """Only the state on disk remembers: the old one lets the very same ticket mask another answer."""
    federation = Federation(group(5, 1, survivors_min=4))
    start, hub = federation.starts(6)["hub-a"], federation.hubs["hub-a"]
    backup, sent = hub.disk, []
    for seed in (1, 2):
        hub.disk = backup
        hub.begin(start)
        sent.append(words(hub.mask(answers(federation.terms, seed=seed)["hub-a"])))
    difference = (sent[0] - sent[1])[:6].view(np.int64)
    assert np.array_equal(difference, answers(federation.terms)["hub-a"] - answers(federation.terms, seed=2)["hub-a"])


def test_dealing_again_gives_the_ticket_that_was_dealt_byte_for_byte() -> None:
    """One key seals one box: another ticket of that serial would be another plaintext under it."""
    federation = Federation(group(5, 1, survivors_min=4))
    hub = federation.hubs["hub-a"]
    assert hub.deal() == federation.tickets["hub-a"]
    renewed = hub.deal(after=1)
    assert renewed.pub.serial == 2
    assert not set(renewed.boxes) & set(federation.tickets["hub-a"].boxes)


def test_control_two_boxes_under_one_key_give_the_difference_of_two_shares() -> None:
    """What a second dealing under the same public part would show to whoever carries the boxes."""
    plain = [bytes([k]) * 66 for k in (1, 4)]
    one, two = (AESGCM(bytes(32)).encrypt(bytes(12), shares, b"pub")[:66] for shares in plain)
    assert bytes(a ^ b for a, b in zip(one, two, strict=True)) == bytes(a ^ b for a, b in zip(*plain, strict=True))


def test_member_steps_that_are_refused_leave_the_state_alone() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    starts = federation.starts(6)
    hub = federation.hubs["hub-a"]
    before = hub.disk
    for broken in (changed(starts["hub-a"], question=bytes(32)), changed(starts["hub-a"], boxes=())):
        with pytest.raises((Equivocation, Malformed)):
            member.begin(hub.state, broken, question=QUESTION, keys=federation.keys)
        assert hub.disk == before


# --- dealers and keys -----------------------------------------------------------------------------------


def flipped_box(federation: Federation) -> None:
    """Hub-b seals something else to hub-c than it committed to."""
    ticket = federation.tickets["hub-b"]
    bad = bytes([ticket.boxes[1][0] ^ 1]) + ticket.boxes[1][1:]
    federation.tickets["hub-b"] = changed(ticket, boxes=(ticket.boxes[0], bad, *ticket.boxes[2:]))


def test_a_bad_box_names_its_dealer_before_anything_has_left() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    flipped_box(federation)
    start = federation.starts(6)["hub-c"]
    with pytest.raises(BadShare, match="hub-b dealt to hub-c"):
        federation.hubs["hub-c"].begin(start)


def test_control_a_box_that_is_not_checked_gets_its_holder_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    flipped_box(federation)

    def unchecked(terms: object, pub: object, sealed: object, **given: object) -> tickets.HeldShares:
        try:
            return tickets.open_box(terms, pub, sealed, **given)
        except BadShare:
            return tickets.HeldShares(bytes(33), bytes(33))

    monkeypatch.setattr(admission, "open_box", unchecked)
    assert federation.run(answers(federation.terms)).bad_shares == ("hub-c",)


SMALL = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
"""A point of order 8: every private key gives the same secret with it, all zero."""


def test_a_small_order_point_gives_no_key() -> None:
    for point in (SMALL, bytes(32)):
        with pytest.raises(Malformed, match="usable X25519"):
            AgreementKey(bytes(range(32))).agree(point)


def test_control_a_mask_made_with_a_small_order_point_is_known_to_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the zero secret let through, the mask would follow from public numbers alone."""
    monkeypatch.setattr(AgreementKey, "agree", lambda self, peer: bytes(32))
    ctx = b"c" * 32
    made = pair_mask(AgreementKey(bytes(range(32))), SMALL, ctx=ctx, me="hub-a", other="hub-b")
    assert made.key == derive(bytes(32), salt=ctx, info=info("mask", "hub-a", "hub-b"))


def chain_of_a_thief(federation: Federation) -> tuple[Start, bytes]:
    """Hub-b's key towards hub-a as it stands once the round has begun."""
    start = federation.starts(6)["hub-b"]
    federation.hubs["hub-b"].begin(start)
    return start, federation.hubs["hub-b"].state.inbound["hub-a"].chain


def opens(federation: Federation, start: Start, chain: bytes) -> bool:
    sealed = next(box for box in start.boxes if box.dealer == "hub-a")
    try:
        tickets.open_box(federation.terms, start.pubs[0], sealed, me="hub-b", chain=chain)
    except BadShare:
        return False
    return True


def test_a_key_that_is_stolen_later_opens_no_box_from_before() -> None:
    federation = Federation(group(5, 1, survivors_min=4))
    assert not opens(federation, *chain_of_a_thief(federation))


def test_control_without_the_ratchet_it_opens_every_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ratchet", lambda chain, steps=1: chain)
    federation = Federation(group(5, 1, survivors_min=4))
    assert opens(federation, *chain_of_a_thief(federation))
