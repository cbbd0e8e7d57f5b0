"""TUF metadata as FLUTE uses it: four roles, one target, one shape. A typed skin over `tuf.api.metadata`.

Every file has exactly one accepted shape: it is rebuilt from the few facts it states and compared, so an unknown
field, a second name for the same key, a delegation or another kind of key is refused without a rule for each.
Source: The Update Framework Specification 1.0, sections 3 and 4; python-tuf's Metadata API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey  # type: ignore[attr-defined]
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exported there without saying so
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError, SerializationError

from flute.defaults import MAX_ROSTER_BYTES
from flute.errors import Malformed, RosterUnsigned, TooLarge
from flute.primitives.keys import SigningKey

Files = Mapping[str, bytes]
"""A roster set: file name to bytes."""
Signed = TypeVar("Signed", Root, Timestamp, Snapshot, Targets)

ROSTER_FILE: Final = "roster.json"
TARGETS_FILE: Final = "targets.json"
SNAPSHOT_FILE: Final = "snapshot.json"
TIMESTAMP_FILE: Final = "timestamp.json"
MAX_VERSION: Final = 2**31
_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}")


def root_file(version: int) -> str:
    return f"{version}.root.json"


@dataclass(frozen=True, slots=True)
class Authority:
    """Who may sign what, as one root says it."""

    owners: frozenset[bytes]
    """Ed25519 public keys of the hub owners: they sign root and targets, `threshold` of them together."""
    threshold: int
    online: bytes
    """Ed25519 public key of the coordinator: it signs snapshot and timestamp."""


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def tuf_key(public: bytes) -> SSlibKey:
    """Its key id is the digest that TUF prescribes, so one key has one id."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public))


def signer(key: SigningKey) -> Signer:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(key.raw), tuf_key(key.public))


# --- building --------------------------------------------------------------------------------


def build_root(authority: Authority, *, version: int, expires: datetime, spec: str | None = None) -> Root:
    owners = sorted((tuf_key(public) for public in authority.owners), key=lambda key: key.keyid)
    online = tuf_key(authority.online)
    by_owners = [key.keyid for key in owners]
    return Root(
        version,
        spec,
        expires,
        {key.keyid: key for key in (*owners, online)},
        {
            Root.type: Role(list(by_owners), authority.threshold),
            Targets.type: Role(list(by_owners), authority.threshold),
            Snapshot.type: Role([online.keyid], 1),
            Timestamp.type: Role([online.keyid], 1),
        },
        consistent_snapshot=False,  # the set travels as one piece: no file is read while another is written
    )


def build_targets(roster: bytes, *, version: int, expires: datetime, spec: str | None = None) -> Targets:
    return Targets(version, spec, expires, {ROSTER_FILE: TargetFile.from_data(ROSTER_FILE, roster)})


def build_snapshot(targets: bytes, *, version: int, expires: datetime, spec: str | None = None) -> Snapshot:
    return Snapshot(version, spec, expires, {TARGETS_FILE: MetaFile.from_data(version, targets, ["sha256"])})


def build_timestamp(
    snapshot: bytes, snapshot_version: int, *, version: int, expires: datetime, spec: str | None = None
) -> Timestamp:
    return Timestamp(version, spec, expires, MetaFile.from_data(snapshot_version, snapshot, ["sha256"]))


# --- reading ---------------------------------------------------------------------------------


def fetch(files: Files, name: str) -> bytes:
    """Raises: Malformed: the set lacks this file. TooLarge."""
    if name not in files:
        raise Malformed(f"The roster set lacks the file {name}. Fetch the whole set again.")
    return _bounded(files[name], name)


def read(raw: bytes, kind: type[Signed], name: str) -> Metadata[Signed]:
    """Parse one metadata file; checks size and form, no signature.

    Raises: TooLarge. Malformed: not TUF metadata of this kind, or not in the one accepted writing of it.
    """
    try:
        found = Metadata[Signed].from_bytes(_bounded(raw, name))
        canonical = found.to_bytes() == raw and bool(found.signed_bytes)
    except (DeserializationError, SerializationError) as error:
        raise Malformed(f"{name} is not roster metadata.") from error
    if not isinstance(found.signed, kind):
        raise Malformed(f"{name} is metadata of another kind: {found.signed.type}, not {kind.type}.")
    if not canonical or found.unrecognized_fields:
        raise Malformed(f"{name} is not in canonical form, or carries fields that nobody signed.")
    if not 1 <= found.signed.version <= MAX_VERSION:
        raise Malformed(f"{name} has a version outside 1 to {MAX_VERSION}.")
    for signature in found.signatures.values():
        if signature.unrecognized_fields or _SIGNATURE.fullmatch(str(signature.signature)) is None:
            raise Malformed(f"{name} carries something that is not an Ed25519 signature.")
    return found


def authority_of(root: Root, *, colluding: int) -> Authority:
    """Who may sign what, by a root of exactly our shape.

    Raises: Malformed: another shape (delegated keys, one key under two ids, other roles or algorithms).
        RosterUnsigned: so few owners may decide that `colluding` of them could do it alone.
    """
    role = root.roles[Root.type]
    online = root.roles[Timestamp.type].keyids
    try:
        authority = Authority(
            frozenset(_public(root, keyid) for keyid in role.keyids), role.threshold, _public(root, *online)
        )
        expected = build_root(authority, version=root.version, expires=root.expires, spec=root.spec_version)
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed("The root names keys that are missing or are not Ed25519 keys.") from error
    require_same(root, expected, root_file(root.version))
    check_threshold(authority.threshold, len(authority.owners), colluding)
    return authority


def require_same(found: Signed, expected: Signed, name: str) -> None:
    """Raises: Malformed: `found` says more, less or other than the file of ours that it should be."""
    if found.to_dict() != expected.to_dict():
        raise Malformed(f"{name} does not belong to this roster set, or is not of the shape that hubs accept.")


def require_signed(root: Root, found: Metadata[Any], name: str, who: str) -> None:
    """Raises: RosterUnsigned: fewer valid signatures of the role's keys than the root's threshold."""
    try:
        root.verify_delegate(found.signed.type, found.signed_bytes, found.signatures)
    except UnsignedMetadataError as error:
        needed = root.roles[found.signed.type].threshold
        raise RosterUnsigned(
            f"{name} is not signed by {needed} of {who}. Nothing of it was taken over; ask who made it."
        ) from error


def check_threshold(threshold: int, owners: int, colluding: int) -> None:
    """Raises: RosterUnsigned: `colluding` owners could sign alone, or more signatures than owners are asked for."""
    if threshold < max(2, colluding + 1):
        raise RosterUnsigned(
            f"A roster that {threshold} of {owners} owners can change does not hold against {colluding} colluding "
            f"hubs: at least {max(2, colluding + 1)} signatures are needed."
        )
    if threshold > owners:
        raise RosterUnsigned(f"A roster that needs {threshold} of {owners} owners could never be signed.")


def default_threshold(owners: int, *, colluding: int) -> int:
    """A majority, and never as few as the colluders: 2 of 3, 3 of 5."""
    return max(2, colluding + 1, owners // 2 + 1)


def _bounded(raw: bytes, name: str) -> bytes:
    if len(raw) > MAX_ROSTER_BYTES:
        raise TooLarge(f"{name} has {len(raw)} bytes, over the limit of {MAX_ROSTER_BYTES}.")
    return raw


def _public(root: Root, keyid: str) -> bytes:
    return bytes.fromhex(root.keys[keyid].keyval["public"])
