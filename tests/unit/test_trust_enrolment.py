"""Joining: invitation, request, admission."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.defaults import MAX_JOIN_BYTES
from flute.errors import (
    BadMessageError,
    BadSignature,
    FluteError,
    JoinRefused,
    Malformed,
    Stale,
    TooLarge,
    UnknownVersion,
)
from flute.primitives.keys import fingerprint
from flute.trust.enrolment import (
    Invitation,
    JoinRequest,
    join_digest,
    open_admission,
    read_invitation,
    read_join,
    token_digest,
    verify_join,
    write_admission,
    write_invitation,
    write_join,
)
from flute.trust.roster import Hub, taken_keys, taken_names, write_content
from unit.test_trust_roster import DAY, NOW, content, hub, owner, sealing, signing

TOKEN = bytes(range(20))
CA = "SHA256:" + ":".join(["AB"] * 32)
INVITATION = Invitation(
    "cancer-net",
    "coordinator",
    "https://flute.example:8443",
    "grpc://flute.example:8102",
    fingerprint(signing("coordinator").public),
    CA,
    TOKEN,
    NOW + 14 * DAY,
)


def request(name: str = "sant", **other: object) -> bytes:
    facts: dict[str, object] = {
        "signing": signing(name),
        "sealing_key": sealing(name).public,
        "owner": owner(name),
        "tls_common_name": f"{name}.example",
        "csr_zip": b"PK zip",
    }
    return write_join(INVITATION, hub=name, **(facts | other))  # type: ignore[arg-type]


def admitted(raw: bytes, *, token: bytes = TOKEN, now: int = NOW, federation: str = "cancer-net") -> Hub:
    return verify_join(
        read_join(raw),
        federation=federation,
        expected_token_digest=token_digest(token),
        expires=INVITATION.expires,
        now=now,
        taken_ids=taken_names(content()),
        taken_keys=taken_keys(content()),
    )


# --- invitation ------------------------------------------------------------------------------


def test_an_invitation_survives_being_mailed() -> None:
    text = write_invitation(INVITATION)
    assert max(map(len, text.splitlines())) < 120
    for mailed in (
        text,
        text.replace("\n", "\r\n"),
        "Dear colleague,\n\n" + text + "\n-- \nThe coordinator",
        "".join(f"> {line}\n" for line in text.splitlines()),
        text.replace("\n", "  \n\n"),
    ):
        assert read_invitation(mailed, now=NOW) == INVITATION


def test_an_invitation_ends() -> None:
    read_invitation(write_invitation(INVITATION), now=INVITATION.expires - 1)
    with pytest.raises(Stale, match="Ask the coordinator for a new one"):
        read_invitation(write_invitation(INVITATION), now=INVITATION.expires)


def test_an_invitation_with_a_line_missing_doubled_or_damaged_is_refused() -> None:
    lines = write_invitation(INVITATION).splitlines()
    facts = [i for i, line in enumerate(lines) if ": " in line]
    assert len(facts) == 8
    for i in facts:
        for broken in (
            lines[:i] + lines[i + 1 :],
            [*lines, lines[i]],
            [*lines[:i], lines[i].split(":")[0] + ": ?", *lines[i + 1 :]],
            lines[1:],
        ):
            with pytest.raises(Malformed):
                read_invitation("\n".join(broken), now=NOW)
    with pytest.raises(TooLarge):
        read_invitation(write_invitation(INVITATION) + "x" * 9_000, now=NOW)


def test_an_invitation_out_of_bounds_is_not_written() -> None:
    for field, value in [
        ("api_url", "flute.example"),
        ("coordinator_fingerprint", "AAAA"),
        ("ca_fingerprint", "SHA256:00"),
        ("token", b"short"),
        ("federation", "cancer-net\nexpires: 9"),
        ("coordinator", "coordinator\n"),
        ("engine_url", "grpc://a b"),
    ]:
        with pytest.raises(Malformed):
            write_invitation(msgspec.structs.replace(INVITATION, **{field: value}))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_an_invitation_or_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadMessageError):
        read_invitation("FLUTE invitation, version 1\n" + text, now=NOW)


def test_the_token_is_not_printed() -> None:
    shown = repr(INVITATION) + repr(read_join(request()))
    assert repr(TOKEN)[2:14] not in shown


# --- request ---------------------------------------------------------------------------------


def test_a_request_becomes_a_roster_entry_that_owners_can_sign() -> None:
    new = admitted(request())
    assert new == hub("sant")
    write_content(content(2, hubs=[*content().hubs, new]))


def test_a_request_proves_both_signing_keys() -> None:
    good = read_join(request())
    other = read_join(request("other"))
    for forged in (
        msgspec.structs.replace(good, by_signing_key=other.by_signing_key),
        msgspec.structs.replace(good, by_owner_key=other.by_owner_key),
        msgspec.structs.replace(good, by_owner_key=good.by_signing_key),
        msgspec.structs.replace(good, signing_key=other.signing_key),
        msgspec.structs.replace(good, owner_key=owner("chu").public),
        msgspec.structs.replace(good, sealing_key=other.sealing_key),
        msgspec.structs.replace(good, hub="mallory"),
        msgspec.structs.replace(good, tls_common_name="mallory.example"),
        msgspec.structs.replace(good, csr_zip=b"another"),
        msgspec.structs.replace(good, token=bytes(20)),
        msgspec.structs.replace(good, federation="other-net"),
    ):
        with pytest.raises(BadSignature, match="does not prove"):
            read_join(msgspec.msgpack.encode(forged))


def test_weak_keys_do_not_join() -> None:
    good = read_join(request())
    neutral = b"\x01" + bytes(31)
    for field in ("signing_key", "sealing_key", "owner_key"):
        weak = msgspec.structs.replace(good, **{field: neutral})
        with pytest.raises(Malformed, match="anybody can sign"):
            read_join(msgspec.msgpack.encode(weak))


def test_the_token_of_another_invitation_does_not_open() -> None:
    with pytest.raises(JoinRefused, match="token"):
        admitted(request(), token=bytes(20))


def test_a_late_request_is_stale_and_one_for_another_federation_is_refused() -> None:
    admitted(request(), now=INVITATION.expires - 1)
    with pytest.raises(Stale):
        admitted(request(), now=INVITATION.expires)
    with pytest.raises(JoinRefused, match="other-net"):
        admitted(request(), federation="other-net")


@pytest.mark.parametrize("name", ["chu", "ada", "coordinator", "server"])
def test_names_that_are_taken_or_reserved_are_refused(name: str) -> None:
    keys = {"signing": signing("new"), "sealing_key": sealing("new").public, "owner": owner("new")}
    with pytest.raises(JoinRefused, match="taken or reserved"):
        admitted(request(name, tls_common_name="fresh.example", **keys))
    with pytest.raises(JoinRefused, match="taken or reserved"):
        admitted(request("fresh", tls_common_name="chu.example" if name != "server" else "Server", **keys))


def test_a_name_with_a_line_end_is_refused() -> None:
    with pytest.raises((JoinRefused, Malformed)):
        admitted(request("sant\n", tls_common_name="sant.example"))
    with pytest.raises(Malformed):
        admitted(request("sant", tls_common_name="sant.example\n"))


def test_keys_that_are_used_already_are_refused() -> None:
    for reuse in (
        {"signing": owner("sant")},
        {"sealing_key": signing("sant").public},
        {"signing": signing("ada")},
        {"sealing_key": sealing("chu").public},
        {"owner": owner("chu")},
    ):
        with pytest.raises(JoinRefused, match="used already"):
            admitted(request("sant", **reuse))


def test_requests_out_of_bounds_of_another_version_or_not_canonical_are_refused() -> None:
    with pytest.raises(TooLarge):
        read_join(bytes(MAX_JOIN_BYTES + 1))
    with pytest.raises((Malformed, TooLarge)):
        request(csr_zip=bytes(MAX_JOIN_BYTES // 2 + 1))
    good = read_join(request())
    with pytest.raises(UnknownVersion):
        read_join(msgspec.msgpack.encode(msgspec.structs.replace(good, version=2)))
    with pytest.raises(Malformed):
        read_join(request() + b"\x00")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 5_000), st.integers(0, 7))
def test_no_bit_of_a_request_or_an_answer_can_be_flipped(place: int, bit: int) -> None:
    for raw, read in ((request(), read_join), (admission(), opened)):
        flipped = bytearray(raw)
        flipped[place % len(raw)] ^= 1 << bit
        with pytest.raises(FluteError):
            read(bytes(flipped))


# --- admission -------------------------------------------------------------------------------


def admission(key: str = "coordinator", name: str = "sant") -> bytes:
    return write_admission(
        read_join(request(name)),
        signing=signing(key),
        sealing_key=sealing(key).public,
        kit_zip=b"PK kit",
        root=b"root",
    )


def opened(raw: bytes) -> object:
    return open_admission(raw, invitation=INVITATION, request=read_join(request()))


def test_the_answer_is_the_invited_coordinators_to_this_request() -> None:
    answer = open_admission(admission(), invitation=INVITATION, request=read_join(request()))
    assert (answer.kit_zip, answer.root, answer.hub) == (b"PK kit", b"root", "sant")
    assert answer.coordinator_sealing_key == sealing("coordinator").public
    assert answer.request == join_digest(read_join(request()))
    with pytest.raises(BadSignature, match="another key than the invitation"):
        opened(admission("mallory"))
    with pytest.raises(JoinRefused, match="another request"):
        opened(admission(name="other"))


def test_a_request_made_anew_is_another_request() -> None:
    again = read_join(request(csr_zip=b"PK zip 2"))
    with pytest.raises(JoinRefused, match="another request"):
        open_admission(admission(), invitation=INVITATION, request=again)


def test_messages_of_joining_hold_no_field_without_a_bound() -> None:
    schema = msgspec.json.schema(JoinRequest)["$defs"]["JoinRequest"]["properties"]
    for name, field in schema.items():
        assert field.get("type") == "integer" or "maxLength" in field, name
