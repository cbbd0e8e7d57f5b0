"""Cell P of plan `secagg`: tickets, keys and boxes that are not what they should be.

Every attack is run twice: against the protocol, where it is refused before anything of the hub is used, and
with its one defence taken away in the test, where it wins.
"""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from tests.adversary.secagg_rounds import (
    Chance,
    Federation,
    Hub,
    answers,
    group,
    integers,
    remove_mask,
    spy,
    words,
)

from flute.aggregation import admission, collector
from flute.aggregation.context import context, echo_to_sign, terms_digest, ticket_to_sign
from flute.aggregation.masks import pair_mask, self_mask
from flute.aggregation.state import encode_state
from flute.errors import (
    BadShare,
    BadSignature,
    Equivocation,
    Malformed,
    NotInRoster,
    Replayed,
    Stale,
    TooFewHubs,
    WrongStudy,
)
from flute.messages.protocol import Echo, Echoes, GroupTerms, Start, Survivors, Ticket
from flute.primitives.keys import AgreementKey, SigningKey


def with_pub(start: Start, hub: str, **changes: object) -> Start:
    return replace(start, pubs=tuple(replace(p, **changes) if p.hub == hub else p for p in start.pubs))


def signed_bytes(start: Start, hub: str) -> bytes:
    return ticket_to_sign(next(p for p in start.pubs if p.hub == hub))


def test_swapped_key_is_refused() -> None:
    federation = Federation()
    start = federation.starts(6)["hub-a"]
    mine = spy(federation)["hub-c"].point.public
    with pytest.raises(BadSignature, match="hub-b is not signed"):
        federation.hubs["hub-a"].begin(with_pub(start, "hub-b", point=mine))


def test_swapped_key_of_a_hub_that_signs_it_does_not_fit_its_shares() -> None:
    """A colluding hub-b signs a changed pub; the shares that it dealt are bound to the first."""
    federation = Federation()
    start = federation.starts(6)["hub-a"]
    changed = with_pub(start, "hub-b", point=spy(federation)["hub-c"].point.public)
    signature = federation.hubs["hub-b"].key.sign(signed_bytes(changed, "hub-b"))
    with pytest.raises(BadShare, match="hub-b must deal a new ticket"):
        federation.hubs["hub-a"].begin(with_pub(changed, "hub-b", signature=signature))


def test_control_a_key_that_is_swapped_unchecked_gives_the_pair_mask_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys that hub-a sees are the coordinator's: with the seed opened, its vector is bare."""
    federation = Federation()
    spied, start = spy(federation), federation.starts(6)["hub-a"]
    values = answers(federation.terms)["hub-a"]
    mine = spied["hub-c"].point
    for hub in ("hub-b", "hub-c"):
        start = with_pub(start, hub, point=mine.public)
    held = federation.hubs["hub-a"].state.dealt.own
    monkeypatch.setattr(admission, "check_pub", lambda pub, terms, key: None)
    monkeypatch.setattr(admission, "open_box", lambda *args, **kwargs: held)
    federation.hubs["hub-a"].begin(start)
    masked = federation.hubs["hub-a"].mask(values)
    y = words(masked)
    remove_mask(y, self_mask(spied["hub-a"].seed, ctx=context(start), hub="hub-a"))
    a_point = start.pubs[0].point
    for hub in ("hub-b", "hub-c"):
        key = pair_mask(mine, a_point, ctx=context(start), me=hub, other="hub-a")
        remove_mask(y, replace(key, negative=not key.negative))
    assert np.array_equal(integers(y), values)


def test_old_ticket_of_an_offline_hub_is_refused() -> None:
    federation = Federation()
    old = federation.tickets["hub-c"]
    federation.run(answers(federation.terms))
    federation.tickets["hub-c"] = old
    starts = federation.starts(6)
    for name in ("hub-a", "hub-b"):
        with pytest.raises(Replayed, match="hub-c was named in a round before"):
            federation.hubs[name].begin(starts[name])
    with pytest.raises(Replayed, match="hub-c that was used"):
        federation.hubs["hub-c"].begin(starts["hub-c"])


def test_ticket_named_but_never_answered_is_burnt() -> None:
    """Hub-c is named in message 0 and stays silent; its ticket is of no use with the others' fresh ones."""
    federation = Federation()
    starts = federation.starts(6)
    for name in ("hub-a", "hub-b"):
        federation.hubs[name].begin(starts[name])
        federation.tickets[name] = federation.hubs[name].deal(after=1)
    again = federation.starts(6)
    with pytest.raises(Replayed, match="hub-c"):
        federation.hubs["hub-a"].begin(again["hub-a"])


TERMS = {
    "another roster": {"roster": b"r" * 32},
    "an older roster": {"roster_version": 3},
    "another agreement": {"agreement": b"a" * 32},
    "a lower threshold": {"threshold": 2, "colluding": 0},
    "fewer colluding": {"colluding": 0},
    "exact": {"exact": True},
    "more hubs": {"hubs": ("hub-a", "hub-b", "hub-c", "hub-d")},
}


@pytest.mark.parametrize("name", TERMS)
def test_ticket_dealt_under_other_terms_is_refused(name: str) -> None:
    """Hub-c's ticket is truly signed by it, but was dealt for another group of rules."""
    federation = Federation()
    start = federation.starts(6)["hub-a"]
    foreign: GroupTerms = replace(federation.terms, **TERMS[name])
    changed = with_pub(start, "hub-c", terms=terms_digest(foreign))
    signature = federation.hubs["hub-c"].key.sign(signed_bytes(changed, "hub-c"))
    with pytest.raises(Stale, match="hub-c must deal a new one"):
        federation.hubs["hub-a"].begin(with_pub(changed, "hub-c", signature=signature))
    with pytest.raises(Stale, match="other terms"):
        federation.hubs["hub-a"].begin(replace(start, terms=foreign))


def test_own_ticket_absent_or_changed_is_refused() -> None:
    federation = Federation()
    start = federation.starts(6)["hub-a"]
    with pytest.raises(Equivocation, match="does not count it"):
        federation.hubs["hub-a"].begin(replace(start, pubs=start.pubs[1:]))
    with pytest.raises(Equivocation, match="another ticket for hub-a"):
        federation.hubs["hub-a"].begin(with_pub(start, "hub-a", signature=bytes(64)))
    federation.hubs["hub-a"].begin(start)


BROKEN = (
    "flipped", "swapped", "with another chunk", "with another path", "with a longer path", "with no path",
    "with a chunk cut short", "missing", "doubled",
)  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_bad_ciphertext_to_one_hub_names_its_dealer_and_burns_nothing(broken: str) -> None:
    """Nine hubs, so that there are two chunks and a path of one step."""
    federation = Federation(group(9, 1))
    start = federation.starts(6)["hub-a"]
    b, c, *others = start.boxes
    boxes = {
        "flipped": (replace(b, box=bytes([b.box[0] ^ 1]) + b.box[1:]), c),
        "swapped": (replace(b, box=c.box), replace(c, box=b.box)),
        "with another chunk": (replace(b, chunk=c.chunk), c),
        "with another path": (replace(b, path=c.path), c),
        "with a longer path": (replace(b, path=(*b.path, bytes(32))), c),
        "with no path": (replace(b, path=()), c),
        "with a chunk cut short": (replace(b, chunk=b.chunk[:-32]), c),
        "missing": (b,),
        "doubled": (b, b, c),
    }[broken]
    error, says = (Malformed, "one box") if broken in ("missing", "doubled") else (BadShare, "hub-b dealt")
    before = federation.hubs["hub-a"].disk
    with pytest.raises(error, match=says):
        federation.hubs["hub-a"].begin(replace(start, boxes=(*boxes, *others)))
    assert federation.hubs["hub-a"].disk == before
    federation.hubs["hub-a"].begin(start)


def spoilt_ticket(ticket: Ticket, how: str) -> Ticket:
    first, second, *rest = ticket.commitments
    return {
        "commitments swapped": replace(ticket, commitments=(second, first, *rest)),
        "one commitment changed": replace(ticket, commitments=(bytes(16), second, *rest)),
        "one commitment missing": replace(ticket, commitments=(second, *rest)),
        "one box missing": replace(ticket, boxes=ticket.boxes[1:]),
        "one box too many": replace(ticket, boxes=(*ticket.boxes, ticket.boxes[0])),
    }[how]


SPOILT = {
    "commitments swapped": (BadShare, "hub-b shows other commitments than hub-b signed"),
    "one commitment changed": (BadShare, "hub-b shows other commitments than hub-b signed"),
    "one commitment missing": (Malformed, "hub-b does not hold"),
    "one box missing": (Malformed, "hub-b does not hold"),
    "one box too many": (Malformed, "hub-b does not hold"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_ticket_whose_unsigned_parts_were_changed_is_refused_by_the_coordinator(how: str) -> None:
    """What a relay could change of a ticket: the commitments are under the signed root, boxes are counted."""
    federation = Federation()
    error, says = SPOILT[how]
    federation.tickets["hub-b"] = spoilt_ticket(federation.tickets["hub-b"], how)
    with pytest.raises(error, match=says):
        federation.starts(6)


def test_control_commitments_that_nobody_compared_with_the_root_get_honest_holders_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hub-b changes its commitment to hub-a's share; hub-g, of its party, sends a bad share, so all are compared."""
    federation = Federation(group(7, 1))
    federation.tickets["hub-b"] = replace(
        federation.tickets["hub-b"], commitments=(bytes(16), *federation.tickets["hub-b"].commitments[1:])
    )
    monkeypatch.setattr(collector, "check_ticket", lambda ticket, terms, key: None)
    honest = collector.proofs
    signed = honest(federation.hubs["hub-b"].state.dealt.ticket.commitments)
    lies = federation.tickets["hub-b"].commitments
    monkeypatch.setattr(collector, "proofs", lambda shown: signed if shown == lies else honest(shown))
    starts = federation.starts(6)
    masked = federation.masked(starts, answers(federation.terms))
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    shares["hub-g"] = replace(shares["hub-g"], shares=shares["hub-g"].shares[::-1])
    assert federation.total(starts, told, masked, shares).bad_shares == ("hub-a", "hub-g")


NO_KEYS = {
    "zero point": (bytes(32), "no shared secret"),
    "point of order 8": (
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        "no shared secret",
    ),
    "high bit set": (bytes(31) + b"\x80", "canonical"),
    "u = p": ((2**255 - 19).to_bytes(32, "little"), "canonical"),
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_public_key_that_makes_the_pair_mask_known_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colluding hub-b deals a ticket, in all else well formed, whose point gives everyone the same secret."""
    point, says = NO_KEYS[name]
    federation = Federation()
    monkeypatch.setattr(AgreementKey, "public", property(lambda self: point))
    federation.tickets["hub-b"] = federation.hubs["hub-b"].deal(after=1)
    monkeypatch.undo()
    if says == "canonical":
        with pytest.raises(Malformed, match=r"hub-b .*canonical"):
            federation.starts(6)
    monkeypatch.setattr(collector, "check_ticket", lambda ticket, terms, key: None)
    start = federation.starts(6)["hub-a"]
    before = federation.hubs["hub-a"].disk
    with pytest.raises(Malformed, match=rf"hub-b .*{says}"):
        federation.hubs["hub-a"].begin(start)
    assert federation.hubs["hub-a"].disk == before


def test_study_keys_are_taken_only_as_their_hubs_signed_them() -> None:
    federation = Federation()
    hub = federation.hubs["hub-a"]
    for change, error in (
        ({"public": spy(federation)["hub-b"].point.public}, BadSignature),
        ({"agreement": b"a" * 32}, WrongStudy),
        ({"study": "another"}, WrongStudy),
        ({"hub": "hub-c"}, Malformed),
    ):
        study_keys = [h.enrol(federation.terms) for h in federation.hubs.values()]
        study_keys[1] = replace(study_keys[1], **change)
        with pytest.raises(error):
            hub.setup(study_keys, federation.terms)
    study_keys = [h.enrol(federation.terms) for h in federation.hubs.values()]
    hub.enrol(federation.terms)
    with pytest.raises(Equivocation, match="shown for hub-a"):
        hub.setup(study_keys, federation.terms)


def test_hub_that_left_the_roster_cannot_be_checked_and_is_refused() -> None:
    federation = Federation()
    start = federation.starts(6)["hub-a"]
    hub = federation.hubs["hub-a"]
    hub.keys = {name: key for name, key in hub.keys.items() if name != "hub-b"}
    with pytest.raises(NotInRoster, match="hub-b"):
        hub.begin(start)


def test_ticket_that_skips_too_far_is_refused() -> None:
    """Each skipped ticket costs its peers work: a colluding hub cannot keep them busy."""
    federation = Federation()
    with pytest.raises(Malformed, match="at most 1000"):
        federation.hubs["hub-b"].deal(after=1_002)
    federation.hubs["hub-b"].deal(after=700)
    federation.tickets["hub-b"] = federation.hubs["hub-b"].deal(after=1_400)
    start = federation.starts(6)["hub-a"]
    with pytest.raises(Malformed, match="hub-b skips more than 1000"):
        federation.hubs["hub-a"].begin(start)


def test_two_tickets_of_one_serial_shown_to_two_hubs_open_nothing() -> None:
    """Hub-c deals twice under one serial (from a copied state); its second pub goes to hub-b alone."""
    federation = Federation()
    first, copied = federation.tickets["hub-c"], federation.hubs["hub-c"]
    twin = Federation()
    twin.hubs["hub-c"].chance = Chance("another")
    study_state = replace(copied.state, dealt=None, serial=1, outbound=fresh_outbound())
    twin.hubs["hub-c"].disk = encode_state(study_state)
    second = twin.hubs["hub-c"].deal()
    assert (first.pub.serial, second.pub.serial) == (1, 1)
    assert first.pub != second.pub
    one = federation.starts(6)
    federation.tickets["hub-c"], federation.round = second, 0
    two = federation.starts(6)
    for name, start in (("hub-a", one["hub-a"]), ("hub-b", two["hub-b"])):
        federation.hubs[name].begin(start)
        federation.hubs[name].mask(answers(federation.terms)[name])
    assert context(one["hub-a"]) != context(two["hub-b"])
    hubs = federation.terms.hubs
    tags = [federation.hubs[n].echo(Survivors(context(s[n]), hubs)) for n, s in (("hub-a", one), ("hub-b", two))]
    for ctx in (context(one["hub-a"]), context(two["hub-b"])):
        signed = federation.hubs["hub-c"].key.sign(echo_to_sign(federation.terms, ctx, "hub-c", hubs))
        tags.append(Echo(ctx, "hub-c", signed))
    for name, start in (("hub-a", one), ("hub-b", two)):
        with pytest.raises(TooFewHubs, match="Only 2 hubs"):
            federation.hubs[name].unmask(Echoes(context(start[name]), tuple(tags)))


def fresh_outbound() -> dict[str, bytes]:
    """Hub-c's chains as they were before its first ticket, in the federation with the default seed."""
    federation = Federation.__new__(Federation)
    federation.terms = group()
    hubs = {n: Hub(n, SigningKey(Chance((0, n, "key"))()), Chance((0, n))) for n in federation.terms.hubs}
    study_keys = [hub.enrol(federation.terms) for hub in hubs.values()]
    hubs["hub-c"].keys = {n: hub.key.public for n, hub in hubs.items()}
    hubs["hub-c"].setup(study_keys, federation.terms)
    return hubs["hub-c"].state.outbound
