"""The roster: who is in the federation, with which keys, and what code is approved.

`RosterContent` is what hub owners sign. Its bytes are canonical JSON (one meaning, one digest), so that anybody
can read it with any tool. `Roster` is the content after `trust.verification.load` has checked who signed it and
that it is the newest; every other room asks it for keys. How it is signed: `trust.signing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from flute.defaults import MAX_APPROVED_CODES, MAX_HUBS, MAX_PEOPLE, MAX_ROSTER_BYTES, MAX_ROSTER_HUBS
from flute.errors import CodeNotApproved, Malformed, NotAllowed, NotInRoster, RosterExpired, TooLarge
from flute.messages.limits import Digest, Key, Name, PartyId
from flute.primitives.keys import digest, fingerprint
from flute.trust.weak_keys import refuse_weak_key

FORMAT: Final = 1
SERVER: Final = "server"
"""The coordinator's own name on the engine's wire; a hub of this name would be taken for it."""

Version = Annotated[int, Meta(ge=1, le=2**31)]
Expiry = Annotated[int, Meta(ge=946_684_800, le=253_402_300_799)]
"""Unix seconds, from the year 2000 to the last of 9999 (TUF writes years with four digits)."""
TlsName = Annotated[str, Meta(min_length=2, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*\Z")]
HomeHub = Annotated[str, Meta(max_length=32, pattern=r"^([a-z][a-z0-9-]*)?\Z")]


class Role(StrEnum):
    RESEARCHER = "researcher"
    STEWARD = "steward"
    ADMINISTRATOR = "administrator"


class Coordinator(Struct, frozen=True, forbid_unknown_fields=True):
    id: PartyId
    signing_key: Key
    """Ed25519. Also TUF's online key: it may say "this is still the newest" and nothing else about the roster."""
    sealing_key: Key


class Hub(Struct, frozen=True, forbid_unknown_fields=True):
    id: PartyId
    signing_key: Key
    sealing_key: Key
    owner_key: Key
    """Ed25519, signs rosters; apart from `signing_key`, which the running service holds."""
    tls_common_name: TlsName
    revoked: bool = False


class Person(Struct, frozen=True, forbid_unknown_fields=True):
    id: PartyId
    signing_key: Key
    role: Role
    home_hub: HomeHub = ""
    revoked: bool = False


class ApprovedCode(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    digest: Digest


class RosterContent(Struct, frozen=True, forbid_unknown_fields=True):
    """What hub owners sign. Lists are in the order of ids; revoked parties stay listed, so nothing is reused."""

    federation: Name
    version: Version
    expires: Expiry
    coordinator: Coordinator
    hubs: Annotated[tuple[Hub, ...], Meta(min_length=1, max_length=MAX_ROSTER_HUBS)]
    people: Annotated[tuple[Person, ...], Meta(max_length=MAX_PEOPLE)] = ()
    codes: Annotated[tuple[ApprovedCode, ...], Meta(max_length=MAX_APPROVED_CODES)] = ()
    format: int = FORMAT


Party = Coordinator | Hub | Person


def members(content: RosterContent) -> tuple[Party, ...]:
    return (content.coordinator, *content.hubs, *content.people)


def keys_of(party: Party) -> tuple[bytes, ...]:
    match party:
        case Coordinator():
            return (party.signing_key, party.sealing_key)
        case Hub():
            return (party.signing_key, party.sealing_key, party.owner_key)
        case Person():
            return (party.signing_key,)


def active_hubs(content: RosterContent) -> tuple[Hub, ...]:
    return tuple(hub for hub in content.hubs if not hub.revoked)


def taken_names(content: RosterContent) -> frozenset[str]:
    """Ids and TLS names that no newcomer may choose; those of revoked parties stay taken."""
    return frozenset(party.id for party in members(content)) | {hub.tls_common_name for hub in content.hubs}


def taken_keys(content: RosterContent) -> frozenset[bytes]:
    """Keys that no newcomer may bring; revoked ones stay taken."""
    return frozenset(key for party in members(content) for key in keys_of(party))


# --- bytes -----------------------------------------------------------------------------------


def arranged(content: RosterContent) -> RosterContent:
    """The same content with its lists in the one order that `check_content` takes."""
    return msgspec.structs.replace(
        content,
        hubs=tuple(sorted(content.hubs, key=lambda hub: hub.id)),
        people=tuple(sorted(content.people, key=lambda person: person.id)),
        codes=tuple(sorted(content.codes, key=lambda code: code.name)),
    )


def write_content(content: RosterContent) -> bytes:
    """Canonical bytes. Raises: Malformed, TooLarge: what `read_content` would refuse."""
    raw = msgspec.json.encode(content)
    read_content(raw)
    return raw


def read_content(raw: bytes) -> RosterContent:
    """Parse and check roster bytes; says nothing about who signed them.

    Raises: TooLarge. Malformed: form, bounds, not canonical, or a rule of `check_content`.
    """
    if len(raw) > MAX_ROSTER_BYTES:
        raise TooLarge(f"A roster of {len(raw)} bytes is over the limit of {MAX_ROSTER_BYTES}.")
    try:
        content = msgspec.json.decode(raw, type=RosterContent)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("These bytes are not a roster of ours, or one of its entries is out of bounds.") from error
    if msgspec.json.encode(content) != raw:
        raise Malformed("The roster is not in canonical form; write it with `flute roster`, not by hand.")
    check_content(content)
    return content


def content_digest(content: RosterContent) -> bytes:
    """32 bytes that name this content and no other."""
    return digest(b"flute/roster/v1", msgspec.json.encode(content))


def check_content(content: RosterContent) -> None:
    """Rules beyond field bounds: one id, one key and one TLS name per party, order, known home hubs.

    Raises: Malformed: which rule, by whom.
    """
    if content.format != FORMAT:
        raise Malformed(f"The roster is of format {content.format}; this side reads format {FORMAT}. Update it.")
    _in_order("hubs", [hub.id for hub in content.hubs])
    _in_order("people", [person.id for person in content.people])
    _in_order("approved codes", [code.name for code in content.codes])
    if len(active_hubs(content)) > MAX_HUBS:
        raise Malformed(f"The roster has {len(active_hubs(content))} active hubs; at most {MAX_HUBS} are supported.")
    _check_names(content)
    _check_keys(content)


def _in_order(what: str, names: list[str]) -> None:
    if any(earlier >= later for earlier, later in pairwise(names)):
        raise Malformed(f"The roster's {what} are not in order, or one stands twice.")
    if any(name != name.strip() for name in names):
        raise Malformed(f"One of the roster's {what} has a name that ends in white space.")


def _check_names(content: RosterContent) -> None:
    seen: set[str] = set()
    for party in members(content):
        if party.id in seen or party.id != party.id.strip():
            raise Malformed(f"The id {party.id!r} stands for two parties in the roster, or is not a plain name.")
        seen.add(party.id)
    names = [hub.tls_common_name.lower() for hub in content.hubs]
    if len(set(names)) != len(names) or any(name != name.strip() for name in names):
        raise Malformed("Two hubs of the roster have the same TLS name, or one is not a plain name.")
    if SERVER in names or SERVER in seen:
        raise Malformed(f"The name {SERVER!r} belongs to the coordinator on the wire; no party may carry it.")
    hubs = {hub.id for hub in content.hubs}
    for person in content.people:
        if person.home_hub and person.home_hub not in hubs:
            raise Malformed(f"{person.id} is at home at {person.home_hub!r}, which is not a hub of this roster.")


def _check_keys(content: RosterContent) -> None:
    owner_of: dict[bytes, str] = {}
    for party in members(content):
        for key in keys_of(party):
            refuse_weak_key(key, party.id)
            if key in owner_of:
                raise Malformed(
                    f"A key of {party.id} stands twice in the roster (the other place is {owner_of[key]}). "
                    "Every key belongs to one party and one use; one of the two has to make a new key."
                )
            owner_of[key] = party.id


# --- the verified roster ---------------------------------------------------------------------


@dataclass(frozen=True)
class Roster:
    """A roster that was verified. Made by `trust.verification.load`; tests may make one from content alone."""

    content: RosterContent
    threshold: int
    """How many hub owners must sign the next roster."""
    fresh_until: int
    """Unix seconds: until then the coordinator has said that this is the newest; at most a day ahead."""
    _parties: dict[str, Party] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parties", {party.id: party for party in members(self.content)})

    @property
    def version(self) -> int:
        return self.content.version

    @property
    def digest(self) -> bytes:
        return content_digest(self.content)

    @property
    def owners(self) -> tuple[tuple[str, bytes], ...]:
        """(hub, owner key) of every hub that is not revoked."""
        return tuple((hub.id, hub.owner_key) for hub in active_hubs(self.content))

    def require_current(self, now: int) -> None:
        """Raises: RosterExpired: the roster's own end, or a day without the coordinator's word, has passed."""
        if now >= self.content.expires:
            raise RosterExpired(
                f"Roster version {self.version} has expired. Nothing is answered until hub owners sign a new one."
            )
        if now >= self.fresh_until:
            raise RosterExpired(
                f"Nobody has confirmed for a day that roster version {self.version} is the newest. "
                "Fetch it again from the coordinator; until then nothing is answered."
            )

    def hubs(self) -> tuple[Hub, ...]:
        return active_hubs(self.content)

    def hub(self, hub: str) -> Hub:
        """Raises: NotInRoster: unknown, revoked, or not a hub."""
        party = self._party(hub)
        if not isinstance(party, Hub):
            raise NotInRoster(f"{hub} is not a hub of roster version {self.version}.")
        return party

    def person(self, person: str) -> Person:
        """Raises: NotInRoster: unknown, revoked, or not a person."""
        party = self._party(person)
        if not isinstance(party, Person):
            raise NotInRoster(f"{person} is not a person of roster version {self.version}.")
        return party

    def signing_key(self, party: str) -> bytes:
        """Ed25519 key of a hub, a person or the coordinator. Raises: NotInRoster: unknown or revoked."""
        return self._party(party).signing_key

    def sealing_key(self, party: str) -> bytes:
        """X25519 key of a hub or the coordinator. Raises: NotInRoster: unknown, revoked, or a person."""
        found = self._party(party)
        if isinstance(found, Person):
            raise NotInRoster(f"{party} is a person and has no sealing key; seal to the coordinator or to a hub.")
        return found.sealing_key

    def require_role(self, person: str, *roles: Role) -> Person:
        """The person, who has one of `roles`. Raises: NotInRoster. NotAllowed: another role."""
        found = self.person(person)
        if found.role not in roles:
            wanted = " or ".join(role.value for role in roles)
            raise NotAllowed(
                f"{person} is a {found.role.value}; this needs a {wanted}. Ask a hub owner for another role."
            )
        return found

    def approved(self, code: str) -> bytes:
        """Digest of the approved code of this name. Raises: CodeNotApproved."""
        for entry in self.content.codes:
            if entry.name == code:
                return entry.digest
        raise CodeNotApproved(
            f"The code {code!r} is not approved in roster version {self.version}. Hub owners approve code by signing "
            "a roster that lists its digest."
        )

    def explain(self) -> str:
        """The roster in sentences, with a fingerprint per party to compare by phone."""
        return "\n".join(self._sentences())

    def _party(self, party: str) -> Party:
        found = self._parties.get(party)
        if found is None:
            raise NotInRoster(
                f"{party} is not in roster version {self.version}. Compare roster versions, or ask a hub owner."
            )
        if not isinstance(found, Coordinator) and found.revoked:
            raise NotInRoster(f"{party} was revoked by hub owners (roster version {self.version}).")
        return found

    def _sentences(self) -> Iterator[str]:
        content = self.content
        yield (
            f"Federation {content.federation}, roster version {content.version}, valid until {day(content.expires)}. "
            f"A change needs {self.threshold} of {len(self.owners)} hub owners."
        )
        for party in members(content):
            yield describe(party)
        for code in content.codes:
            yield f"Approved code {code.name}: SHA-256 {code.digest.hex()}."


def describe(party: Party) -> str:
    """One line about a party, with the fingerprint of each key that signs."""
    state = "" if isinstance(party, Coordinator) or not party.revoked else " (revoked)"
    signs = fingerprint(party.signing_key)
    match party:
        case Coordinator():
            return f"Coordinator {party.id}: {signs}"
        case Hub():
            return f"Hub {party.id}{state}: {signs}; its owner: {fingerprint(party.owner_key)}"
        case Person():
            home = f" of {party.home_hub}" if party.home_hub else ""
            return f"Person {party.id}{state}, {party.role.value}{home}: {signs}"


def day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
