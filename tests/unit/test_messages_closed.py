"""There is no field in which a record could travel: every message type is walked, down to its last leaf."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import msgspec.inspect as mi
import pytest
from msgspec import Meta, Struct

import flute.messages
from flute.coordinator.desk import ACCEPTS as FROM_HUBS
from flute.defaults import MAX_ENVELOPE_BYTES
from flute.errors import TooLarge, UnknownVersion
from flute.hub.service import ACCEPTS as TO_HUBS
from flute.hub.service import ROSTER_ONLY, TALK_ONLY
from flute.messages.envelope import Envelope as RealEnvelope
from flute.messages.envelope import Header, parse_envelope
from flute.study.agreement import Agreement
from flute.transport.link import Parcel

pytestmark = pytest.mark.requirement("URS-12")

BOUNDED_ELSEWHERE = {
    "Envelope.body": "the whole envelope is measured before it is decoded (MAX_ENVELOPE_BYTES)",
    "Header.version": "any other than the one version is refused",
}
"""The only fields whose bound is not in their type; tests below show that the other bound is there."""

MAPS = {
    "RosterFiles.files": "TUF metadata by file name; both sides bounded, at most 8",
    "Said.boxes": "one sealed box for each other hub; both sides bounded, at most MAX_HUBS",
    "Heard.boxes": "one sealed box of each other hub; both sides bounded, at most MAX_HUBS",
}

WHAT_LEAVES = {
    "Consent.agreement": "digest",
    "Consent.decision": "one of three words",
    "Consent.key.study": "id",
    "Consent.key.agreement": "digest",
    "Consent.key.hub": "id",
    "Consent.key.public": "public key",
    "Consent.key.signature": "signature",
    "Consent.snapshot": "digest",
    **{
        f"{where}.{name}": what
        for where in ("TicketGiven.ticket", "SharesAnswer.shares.ticket")
        for name, what in {
            "pub.study": "id",
            "pub.hub": "id",
            "pub.serial": "the hub's own count of its tickets",
            "pub.terms": "digest",
            "pub.point": "public key",
            "pub.seed_commitment": "digest",
            "pub.shares_root": "digest",
            "pub.signature": "signature",
            "commitments[]": "hash cut to 128 bits",
            "boxes[]": "shares of mask keys, encrypted to another hub",
        }.items()
    },
    "MaskedAnswer.masked.ctx": "digest",
    "MaskedAnswer.masked.hub": "id",
    "MaskedAnswer.masked.length": "bytes of the masked vector",
    "MaskedAnswer.masked.sha256": "digest",
    "MaskedAnswer.masked.vector": "masked vector",
    "MaskedAnswer.masked.signature": "signature",
    "MaskedAnswer.receipt.release": "digest",
    "MaskedAnswer.receipt.line": "line number of the hub's journal",
    "MaskedAnswer.receipt.digest": "digest",
    "MaskedAnswer.receipt.head": "signed head of the hub's journal",
    "EchoAnswer.echo.ctx": "digest",
    "EchoAnswer.echo.hub": "id",
    "EchoAnswer.echo.signature": "signature",
    "SharesAnswer.shares.ctx": "digest",
    "SharesAnswer.shares.hub": "id",
    "SharesAnswer.shares.shares[]": "share of a mask seed, or of a private key of one round",
    **{
        f"{where}.{name}": what
        for where in ("JointBegun.said", "KeyBegun.said", "Said")
        for name, what in {
            "session": "digest",
            "step": "step of a computation among hubs",
            "boxes": "sealed to another hub of the study",
        }.items()
    },
    "JointTotal.session": "digest",
    "JointTotal.total": "noised vector",
    "KeyReady.session": "digest",
    **{
        f"KeyReady.terms.{name}": what
        for name, what in {
            "study": "id",
            "agreement": "digest",
            "roster": "digest",
            "roster_version": "version",
            "hubs[]": "id",
            "threshold": "number of hubs",
            "colluding": "number of hubs",
            "contributors_min": "number of hubs",
            "attempt": "number of the ceremony",
        }.items()
    },
    "KeyReady.whole": "public key",
    "KeyReady.shares[]": "public key",
    **{
        f"EncryptedAnswer.contribution.{name}": what
        for name, what in {
            "ctx": "digest",
            "hub": "id",
            "pads": "encrypted vector",
            "boxes": "encrypted vector",
            "challenge": "proof",
            "response": "proof",
            "signature": "signature",
        }.items()
    },
    **{
        f"OpeningAnswer.share.{name}": what
        for name, what in {
            "ctx": "digest",
            "hub": "id",
            "summed": "digest",
            "parts": "part of the opening of a total",
            "challenge": "proof",
            "response": "proof",
            "signature": "signature",
        }.items()
    },
    "SplitAnswer.boxes.ctx": "digest",
    "SplitAnswer.boxes.hub": "id",
    "SplitAnswer.boxes.boxes[]": "one share of a covered vector, sealed to an enclave",
    "SplitAnswer.boxes.signature": "signature",
    **{
        f"{where}.receipt.{name}": what
        for where in ("JointBegun", "EncryptedAnswer", "SplitAnswer")
        for name, what in {
            "release": "digest",
            "line": "line number of the hub's journal",
            "digest": "digest",
            "head": "signed head of the hub's journal",
        }.items()
    },
    "OwnTotal.total": "noised vector",
    "OwnTotal.receipt.release": "digest",
    "OwnTotal.receipt.line": "line number of the hub's journal",
    "OwnTotal.receipt.digest": "digest",
    "OwnTotal.receipt.head": "signed head of the hub's journal",
    "AccountsTold.hub": "id",
    "AccountsTold.nonce": "the researcher's own nonce",
    "AccountsTold.at": "unix time",
    "AccountsTold.line": "line number of the hub's journal",
    "AccountsTold.studies[].study": "id",
    "AccountsTold.studies[].agreement": "digest",
    "AccountsTold.studies[].decision": "code",
    "AccountsTold.studies[].decided_at": "unix time",
    "AccountsTold.studies[].ended": "yes or no",
    "AccountsTold.studies[].persons": "id",
    "AccountsTold.persons[].persons": "id",
    "AccountsTold.persons[].left": "budget, which no record moves",
    "AccountsTold.persons[].numbers_left": "budget, which no record moves",
    "AccountsTold.signature": "signature",
    **{
        f"AccountsTold.{where}.{name}": "yes or no" if name == "unbounded" else "budget, which no record moves"
        for where in ("studies[].spent", "persons[].spent", "own")
        for name in ("reserved", "settled", "numbers", "unbounded")
    },
    "Refused.code": "code",
    "Refused.text": "fixed text",
}
"""Every leaf of everything that a hub may say, and what it is. A new field fails until it is named here."""


class OpenTypeError(AssertionError):
    """A message type has room for something that nobody foresaw."""


# --- the walk -------------------------------------------------------------------------------------------


def structs_of(module: Any) -> list[type[Struct]]:
    """Structs that `module` itself defines."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Struct) and value.__module__ == module.__name__
    ]


def message_types() -> list[type[Struct]]:
    modules = [
        importlib.import_module(f"flute.messages.{m.name}") for m in pkgutil.iter_modules(flute.messages.__path__)
    ]
    return [t for module in modules for t in structs_of(module)]


def check_closed(kind: type[Struct]) -> None:
    """Raises OpenTypeError: names the field and what is open about it."""
    config = kind.__struct_config__
    if not (config.frozen and config.forbid_unknown_fields):
        raise OpenTypeError(f"{kind.__name__} is not frozen or lets unknown fields pass")
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    for field in info.fields:
        _check(field.type, f"{kind.__name__}.{field.name}")


def _check(found: mi.Type, where: str) -> None:
    match found:
        case mi.StructType(cls=cls):
            check_closed(cls)
        case mi.UnionType(types=types):
            for each in types:
                _check(each, where)
        case mi.VarTupleType(item_type=item, max_length=limit):
            _require(limit, where, "a list without a longest length")
            _check(item, where)
        case mi.TupleType(item_types=items):
            for each in items:
                _check(each, where)
        case mi.DictType(key_type=key, value_type=value, max_length=limit) if where in MAPS:
            _require(limit, where, "a map without a largest size")
            assert isinstance(key, mi.StrType)
            _check(key, where)
            _check(value, where)
        case mi.BytesType(max_length=limit) | mi.StrType(max_length=limit):
            if where not in BOUNDED_ELSEWHERE:
                _require(limit, where, "bytes or text without a longest length")
        case mi.IntType(ge=low, le=high):
            if where not in BOUNDED_ELSEWHERE:
                _require(low, where, "a number without a lower bound")
                _require(high, where, "a number without an upper bound")
        case mi.BoolType() | mi.NoneType() | mi.LiteralType():
            pass
        case _:
            raise OpenTypeError(f"{where} is of an open type: {type(found).__name__}")


def _require(limit: int | None, where: str, what: str) -> None:
    if limit is None:
        raise OpenTypeError(f"{where} is {what}")


def leaves(kind: type[Struct], where: str) -> Iterator[tuple[str, mi.Type]]:
    """(path, type) of every leaf; list items under `[]`."""
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType)
    for field in info.fields:
        yield from _leaves(field.type, f"{where}.{field.name}")


def _leaves(found: mi.Type, where: str) -> Iterator[tuple[str, mi.Type]]:
    match found:
        case mi.StructType(cls=cls):
            yield from leaves(cls, where)
        case mi.UnionType(types=types):
            for each in types:
                yield from _leaves(each, where)
        case mi.VarTupleType(item_type=item):
            yield from _leaves(item, f"{where}[]")
        case mi.NoneType():
            pass
        case _:
            yield where, found


# --- every type -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", message_types(), ids=lambda t: t.__name__)
def test_every_message_type_is_closed_and_bounded(kind: type[Struct]) -> None:
    check_closed(kind)


def test_what_the_wire_wraps_around_an_envelope_is_closed_and_bounded() -> None:
    check_closed(Parcel)


def test_the_walk_sees_every_kind_that_either_side_accepts() -> None:
    accepted = {*FROM_HUBS.values(), *TO_HUBS.values(), *ROSTER_ONLY.values(), *TALK_ONLY.values()}
    assert accepted <= set(message_types())
    tagged = {t for t in message_types() if t.__struct_config__.tag is not None}
    inner = {t.__name__ for t in tagged - accepted}
    assert inner == {  # parts of the messages above, never accepted by themselves
        "StudyKey", "Ticket", "Start", "Masked", "MaskedBlock", "Survivors", "Echo", "Echoes", "Shares", "Abort",
        "Contribution", "OpeningShare", "KeyCommitment", "KeyDealing", "KeyDealtShare", "KeyComplaint",
        "KeyConfirmation", "RangeProof", "EnclaveDuty", "EnclaveOffer", "EnclaveStart", "EnclaveBegin",
        "EnclaveBoxes", "EnclaveBox", "EnclaveTaken", "EnclaveFinish", "EnclaveTotal", "EnclaveGivenUp",
        "EnclaveRefused",
    }  # fmt: skip


def test_no_kind_travels_both_ways() -> None:
    """A question can never be taken for an answer."""
    assert not set(FROM_HUBS) & (set(TO_HUBS) | set(ROSTER_ONLY) | set(TALK_ONLY))


# --- what leaves a hub ------------------------------------------------------------------------------------


def test_every_leaf_of_what_a_hub_says_is_named_and_none_could_carry_a_record() -> None:
    found = {path: type_ for tag in FROM_HUBS.values() for path, type_ in leaves(tag, tag.__name__)}
    assert set(found) == set(WHAT_LEAVES)
    for path, type_ in found.items():
        allowed = {
            "digest": lambda t: isinstance(t, mi.BytesType) and t.min_length == t.max_length == 32,
            "public key": lambda t: isinstance(t, mi.BytesType) and t.min_length == t.max_length == 32,
            "proof": lambda t: isinstance(t, mi.BytesType) and t.min_length == t.max_length == 32,
            "signature": lambda t: isinstance(t, mi.BytesType) and t.min_length == t.max_length == 64,
            "hash cut to 128 bits": lambda t: isinstance(t, mi.BytesType) and t.min_length == t.max_length == 16,
            "share of a mask seed, or of a private key of one round": lambda t: (
                isinstance(t, mi.BytesType) and t.min_length == t.max_length == 33
            ),
            "shares of mask keys, encrypted to another hub": lambda t: (
                isinstance(t, mi.BytesType) and t.min_length == t.max_length == 82
            ),
            "id": lambda t: isinstance(t, mi.StrType) and (t.max_length or 99) <= 64 and t.pattern is not None,
            "code": lambda t: isinstance(t, mi.StrType) and (t.max_length or 99) <= 64 and t.pattern is not None,
            "fixed text": lambda t: isinstance(t, mi.StrType) and (t.max_length or 9_999) <= 2_000,
            "the researcher's own nonce": lambda t: (
                isinstance(t, mi.BytesType) and t.min_length == t.max_length == 16
            ),
            "yes or no": lambda t: isinstance(t, mi.BoolType),
            "one of three words": lambda t: isinstance(t, mi.LiteralType) and len(t.values) == 3,
        }.get(WHAT_LEAVES[path])
        if allowed is None:  # vectors under masks, encryption or noise, counts of the hub's own
            assert isinstance(type_, mi.BytesType | mi.IntType | mi.DictType), path
        else:
            assert allowed(type_), (path, type_)


def test_only_covered_fields_that_leave_a_hub_are_long_enough_for_a_table() -> None:
    """What `study.protection` covered: under masks, encrypted, opened by all hubs, or under the hub's own noise; and
    boxes that are sealed to another hub."""
    long = {
        path
        for kind in FROM_HUBS.values()
        for path, found in leaves(kind, kind.__name__)
        if isinstance(found, mi.DictType)
        or (isinstance(found, mi.BytesType | mi.StrType) and (found.max_length or 0) > 4_096)
    }
    assert long == {
        *("MaskedAnswer.masked.vector", "OwnTotal.total", "JointTotal.total"),
        *("EncryptedAnswer.contribution.pads", "EncryptedAnswer.contribution.boxes", "OpeningAnswer.share.parts"),
        *("JointBegun.said.boxes", "KeyBegun.said.boxes", "Said.boxes", "SplitAnswer.boxes.boxes[]"),
    }


SUSPICIOUS = {
    *("record", "records", "row", "rows", "patient", "patients", "data", "dataset", "pseudonym", "pseudonyms"),
    *("value", "values", "extra", "meta", "any"),
}


def test_no_field_anywhere_is_named_after_a_record() -> None:
    for kind in message_types():
        for path, _ in leaves(kind, kind.__name__):
            words = set(path.rsplit(".", 1)[-1].strip("[]").split("_"))
            assert not words & SUSPICIOUS, path


# --- the two fields that are bounded elsewhere ----------------------------------------------------------


def test_an_envelope_over_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("flute.messages.envelope.msgspec.msgpack.decode", never)
    with pytest.raises(TooLarge):
        parse_envelope(bytes(MAX_ENVELOPE_BYTES + 1))


@pytest.mark.parametrize("version", [-1, 0, 2, 2**63])
def test_any_other_version_is_refused(version: int) -> None:
    header = Header(version, "refused", "", 0, "north", "coordinator", 1, bytes(16), b"", 1, 2, False)
    with pytest.raises(UnknownVersion):
        parse_envelope(msgspec.msgpack.encode(RealEnvelope(header, b"", bytes(64))))


def test_the_study_agreement_holds_nothing_of_just_any_type() -> None:
    """It travels to hubs inside a proposal; it is written by a researcher and bounded as a whole."""
    seen: set[type] = set()

    def walk(found: mi.Type) -> None:
        assert not isinstance(found, mi.AnyType | mi.CustomType | mi.RawType)
        for part in ("item_type", "key_type", "value_type"):
            if hasattr(found, part):
                walk(getattr(found, part))
        for each in getattr(found, "types", ()):
            walk(each)
        if isinstance(found, mi.StructType) and found.cls not in seen:
            seen.add(found.cls)
            assert found.cls.__struct_config__.forbid_unknown_fields, found.cls
            for field in found.fields:
                walk(field.type)

    walk(mi.type_info(Agreement))
    assert len(seen) > 5


# --- a planted open type is caught --------------------------------------------------------------------


class _Inner(Struct, frozen=True, forbid_unknown_fields=True):
    note: str


class _Open:
    """Types with one hole each."""

    class Anything(Struct, frozen=True, forbid_unknown_fields=True):
        rows: Any

    class LongText(Struct, frozen=True, forbid_unknown_fields=True):
        text: str

    class LongBytes(Struct, frozen=True, forbid_unknown_fields=True):
        vector: bytes

    class LongList(Struct, frozen=True, forbid_unknown_fields=True):
        hubs: tuple[Annotated[str, Meta(max_length=8)], ...]

    class PlainList(Struct, frozen=True, forbid_unknown_fields=True):
        numbers: Annotated[list[int], Meta(max_length=3)]

    class AnyMap(Struct, frozen=True, forbid_unknown_fields=True):
        more: dict[str, Any]

    class BoundedMap(Struct, frozen=True, forbid_unknown_fields=True):
        more: Annotated[dict[Annotated[str, Meta(max_length=4)], bool], Meta(max_length=2)]

    class WideNumber(Struct, frozen=True, forbid_unknown_fields=True):
        count: int

    class Real(Struct, frozen=True, forbid_unknown_fields=True):
        value: float

    class Changeable(Struct, forbid_unknown_fields=True):
        flag: bool

    class Lenient(Struct, frozen=True):
        flag: bool

    class DeepInside(Struct, frozen=True, forbid_unknown_fields=True):
        inner: tuple[_Inner, bool] | None

    class Undecoded(Struct, frozen=True, forbid_unknown_fields=True):
        rest: msgspec.Raw


@pytest.mark.parametrize("kind", [v for v in vars(_Open).values() if isinstance(v, type)], ids=lambda t: t.__name__)
def test_a_planted_open_type_is_caught(kind: type[Struct]) -> None:
    with pytest.raises(OpenTypeError):
        check_closed(kind)


def test_a_planted_field_in_an_answer_is_caught() -> None:
    class Refused(Struct, frozen=True, forbid_unknown_fields=True):
        code: Annotated[str, Meta(max_length=8)]
        hint: Annotated[str, Meta(max_length=8)]

    assert {path for path, _ in leaves(Refused, "Refused")} - set(WHAT_LEAVES) == {"Refused.hint"}
