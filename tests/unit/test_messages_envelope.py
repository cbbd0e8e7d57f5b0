"""Envelopes: every check, in its order, and that nothing altered passes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.defaults import MAX_CLOCK_SKEW_S, MAX_ENVELOPE_BYTES, MESSAGE_LIFETIME_S
from flute.errors import (
    BadMessageError,
    BadSignature,
    FluteError,
    Malformed,
    NotInRoster,
    Stale,
    TooLarge,
    UnknownVersion,
    WrongRecipient,
)
from flute.messages.answer import Refused
from flute.messages.envelope import Envelope, Opened, bodies, open_envelope, parse_envelope, write_envelope
from support.parties import Party, TableRoster

NOW = 1_800_000_000
ACCEPTS = bodies(Refused)
BODY = Refused("no-consent", "This hub has not consented.")


def written(parties: dict[str, Party], **changes: object) -> bytes:
    arguments: dict[str, object] = {
        "key": parties["huvh"].signing, "sender": "huvh", "recipient": "coordinator", "roster_version": 1,
        "now": NOW, "rand": bytes(range(16)), "study": "pilot", "round": 3, "answers": bytes(32),
        "seal_to": parties["coordinator"].sealing.public,
    }  # fmt: skip
    return write_envelope(BODY, **(arguments | changes))  # type: ignore[arg-type]


def opened(raw: bytes, roster: TableRoster, me: str = "coordinator", now: int = NOW) -> Opened:
    return open_envelope(raw, me=me, roster=roster, accepts=ACCEPTS, now=now, key=roster.parties[me].sealing)


def test_what_was_written_is_what_is_opened(parties: dict[str, Party], table_roster: TableRoster) -> None:
    result = opened(written(parties), table_roster)
    assert result.body == BODY
    assert (result.header.study, result.header.round, result.header.sender) == ("pilot", 3, "huvh")


def test_a_sealed_body_is_not_readable_on_the_way(parties: dict[str, Party]) -> None:
    assert b"has not consented" not in written(parties)
    assert b"has not consented" in written(parties, seal_to=None)


@pytest.mark.parametrize(
    ("changes", "now", "me", "error"),
    [
        ({"sender": "chu"}, NOW, "coordinator", BadSignature),
        ({"sender": "stranger"}, NOW, "coordinator", NotInRoster),
        ({"recipient": "chu"}, NOW, "coordinator", WrongRecipient),
        ({"roster_version": 0}, NOW, "coordinator", Stale),
        ({"roster_version": 2}, NOW, "coordinator", Stale),
        ({}, NOW + MESSAGE_LIFETIME_S + MAX_CLOCK_SKEW_S + 1, "coordinator", Stale),
        ({}, NOW - MAX_CLOCK_SKEW_S - 1, "coordinator", Stale),
        ({"lifetime_s": MESSAGE_LIFETIME_S + 1}, NOW, "coordinator", Stale),
    ],
)
def test_each_wrong_header_is_refused_with_its_own_error(
    parties: dict[str, Party],
    table_roster: TableRoster,
    changes: dict[str, object],
    now: int,
    me: str,
    error: type[FluteError],
) -> None:
    with pytest.raises(error) as caught:
        opened(written(parties, **changes), table_roster, me, now)
    assert caught.value.text.endswith(".")


def test_a_message_at_the_very_edge_of_its_life_is_taken(
    parties: dict[str, Party], table_roster: TableRoster
) -> None:
    opened(written(parties), table_roster, now=NOW + MESSAGE_LIFETIME_S + MAX_CLOCK_SKEW_S)
    opened(written(parties), table_roster, now=NOW - MAX_CLOCK_SKEW_S)


def test_a_revoked_party_is_not_heard(parties: dict[str, Party], table_roster: TableRoster) -> None:
    table_roster.revoked.add("huvh")
    with pytest.raises(NotInRoster):
        opened(written(parties), table_roster)


def test_another_version_is_named(parties: dict[str, Party]) -> None:
    envelope = parse_envelope(written(parties))
    header = msgspec.structs.replace(envelope.header, version=2)
    with pytest.raises(UnknownVersion, match="version 2"):
        parse_envelope(msgspec.msgpack.encode(msgspec.structs.replace(envelope, header=header)))


def test_an_oversized_message_is_refused_before_it_is_read(table_roster: TableRoster) -> None:
    with pytest.raises(TooLarge):
        opened(b"\xc1" * (MAX_ENVELOPE_BYTES + 1), table_roster)


def test_a_sealed_body_moved_under_another_header_does_not_open(
    parties: dict[str, Party], table_roster: TableRoster
) -> None:
    """Even the sender itself cannot re-use the ciphertext: the header is the seal's context."""
    first, second = parse_envelope(written(parties)), parse_envelope(written(parties, round=4))
    from flute.messages.envelope import _to_sign

    forged = Envelope(second.header, first.body, parties["huvh"].signing.sign(_to_sign(second.header, first.body)))
    with pytest.raises(Malformed):
        opened(msgspec.msgpack.encode(forged), table_roster)


def test_a_kind_that_is_not_accepted_here_is_refused(parties: dict[str, Party], table_roster: TableRoster) -> None:
    with pytest.raises(Malformed, match="not accepted"):
        open_envelope(
            written(parties), me="coordinator", roster=table_roster, accepts={}, now=NOW,
            key=parties["coordinator"].sealing,
        )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(position: int, bit: int) -> None:
    parties = {name: Party(name) for name in ("coordinator", "huvh", "chu")}
    raw = bytearray(written(parties))
    raw[position % len(raw)] ^= 1 << bit
    with pytest.raises((BadMessageError, NotInRoster)):
        opened(bytes(raw), TableRoster(parties))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_and_never_crash(raw: bytes) -> None:
    with pytest.raises((BadMessageError, NotInRoster)):
        opened(raw, TableRoster({"coordinator": Party("coordinator")}))


def test_bytes_in_another_encoding_of_the_same_meaning_are_refused(
    parties: dict[str, Party], table_roster: TableRoster
) -> None:
    """One meaning has one digest: a map with its keys in another order decodes, but is not canonical."""
    plain = msgspec.msgpack.decode(written(parties))
    shuffled = msgspec.msgpack.encode(dict(reversed(list(plain.items()))))
    with pytest.raises(Malformed, match="canonical"):
        opened(shuffled, table_roster)
