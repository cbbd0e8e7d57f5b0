"""Key files: one secret per file, readable by its owner alone.

A file holds two lines: a label (`flute-key v1 KIND PARTY`) and the 32 secret bytes in base64. Signing and
owner keys are Ed25519, sealing keys X25519. A hub's *owner* key signs rosters: it has a function of its own
to load it, so that the running hub service never holds it and the file can be kept on another medium.

Guarantees: a file is written in full or not at all (temporary file, fsync, hard link, fsync of the folder); an
existing key is never replaced; folder 0700 and files 0600, and loading refuses anything looser, links, files of
another user and files of the wrong form. Randomness is an argument.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from flute.errors import KeyFileError, MisuseError
from flute.primitives.keys import KEY_SIZE, AgreementKey, SigningKey

MAX_KEY_FILE_BYTES: Final = 256
"""A key file is 44 base64 letters and a label of at most about 70."""
_PARTY: Final = re.compile(r"[a-z][a-z0-9-]{1,31}")
_FORM: Final = re.compile(
    r"flute-key v(?P<version>\d{1,3}) (?P<kind>[a-z]{1,16}) (?P<party>[a-z][a-z0-9-]{1,31})\n"
    r"(?P<secret>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)\n"
)


class KeyKind(StrEnum):
    SIGNING = "signing"
    SEALING = "sealing"
    OWNER = "owner"


HUB_KINDS: Final = (KeyKind.SIGNING, KeyKind.SEALING, KeyKind.OWNER)
COORDINATOR_KINDS: Final = (KeyKind.SIGNING, KeyKind.SEALING)
PERSON_KINDS: Final = (KeyKind.SIGNING,)


@dataclass(frozen=True, slots=True)
class PartyKeys:
    """What a running hub or coordinator holds: who it is, its Ed25519 and its X25519 key."""

    party: str
    signing: SigningKey
    sealing: AgreementKey


@dataclass(frozen=True, slots=True)
class NamedKey:
    """An Ed25519 key and the party whose file it came from (a person, or the owner of a hub)."""

    party: str
    key: SigningKey


def make_hub_keys(folder: Path, hub: str, *, rand: bytes) -> None:
    """Write `signing.key`, `sealing.key` and `owner.key`. `rand`: 96 fresh secret bytes.

    Raises: KeyFileError: a key is there already, or the folder is open to others. MisuseError: size of `rand`.
    """
    _make(folder, hub, HUB_KINDS, rand)


def make_coordinator_keys(folder: Path, coordinator: str, *, rand: bytes) -> None:
    """Write `signing.key` and `sealing.key`. `rand`: 64 fresh secret bytes. Raises: as `make_hub_keys`."""
    _make(folder, coordinator, COORDINATOR_KINDS, rand)


def make_person_key(folder: Path, person: str, *, rand: bytes) -> None:
    """Write a person's `signing.key`. `rand`: 32 fresh secret bytes. Raises: as `make_hub_keys`."""
    _make(folder, person, PERSON_KINDS, rand)


def load_party_keys(folder: Path) -> PartyKeys:
    """A hub's or the coordinator's two working keys; never the owner key.

    Raises: KeyFileError: missing, open to others, damaged, or the two files belong to two parties.
    """
    party, signing = _load(folder, KeyKind.SIGNING)
    other, sealing = _load(folder, KeyKind.SEALING)
    if party != other:
        raise KeyFileError(
            f"In {folder} the signing key belongs to {party} and the sealing key to {other}. "
            "Keep each party's keys in a folder of its own."
        )
    return PartyKeys(party, SigningKey(signing), AgreementKey(sealing))


def load_owner_key(folder: Path) -> NamedKey:
    """The key that signs rosters for a hub. Raises: KeyFileError."""
    party, raw = _load(folder, KeyKind.OWNER)
    return NamedKey(party, SigningKey(raw))


def load_person_key(folder: Path) -> NamedKey:
    """A person's key. Raises: KeyFileError."""
    party, raw = _load(folder, KeyKind.SIGNING)
    return NamedKey(party, SigningKey(raw))


def key_path(folder: Path, kind: KeyKind) -> Path:
    return folder / f"{kind.value}.key"


# --- writing ---------------------------------------------------------------------------------


def _make(folder: Path, party: str, kinds: tuple[KeyKind, ...], rand: bytes) -> None:
    if len(rand) != KEY_SIZE * len(kinds):
        raise MisuseError(f"{len(kinds)} keys need {KEY_SIZE * len(kinds)} random bytes; {len(rand)} were given.")
    secrets = [rand[i : i + KEY_SIZE] for i in range(0, len(rand), KEY_SIZE)]
    if len(set(secrets)) != len(secrets) or bytes(KEY_SIZE) in secrets:
        raise MisuseError("The random bytes repeat or are zero: the source of randomness is broken. Make no keys.")
    if _PARTY.fullmatch(party) is None:
        raise MisuseError(f"{party!r} is no party id: 2 to 32 lower-case letters, digits, hyphens; a letter first.")
    _prepare_folder(folder)
    for kind in kinds:
        if key_path(folder, kind).exists():
            raise KeyFileError(
                f"{key_path(folder, kind)} exists already and is not replaced: a lost key cannot be made again. "
                "Use another folder, or move the old key away if it was never put into a roster."
            )
    for kind, secret in zip(kinds, secrets, strict=True):
        _write(key_path(folder, kind), _text(kind, party, secret))


def _text(kind: KeyKind, party: str, secret: bytes) -> bytes:
    return f"flute-key v1 {kind.value} {party}\n{base64.b64encode(secret).decode()}\n".encode()


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"The key folder {folder} cannot be made: {_reason(error)}.") from error
    _check_folder(folder)


def _write(path: Path, content: bytes) -> None:
    """All or nothing, and never over an existing file: a hard link fails where a rename would replace."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be written: {_reason(error)}.") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading ---------------------------------------------------------------------------------


def _load(folder: Path, kind: KeyKind) -> tuple[str, bytes]:
    _check_folder(folder)
    path = key_path(folder, kind)
    found = _FORM.fullmatch(_read(path).decode("ascii", errors="replace"))
    if found is None:
        raise KeyFileError(f"{path} is not a key file of ours, or it is damaged. Restore it from its backup.")
    if found["version"] != "1":
        raise KeyFileError(f"{path} is of version {found['version']}; this program reads version 1. Update it.")
    if found["kind"] != kind.value:
        raise KeyFileError(f"{path} holds a {found['kind']} key where a {kind.value} key belongs. Put it back.")
    try:
        raw = base64.b64decode(found["secret"], validate=True)
    except binascii.Error as error:
        raise KeyFileError(f"{path} is damaged. Restore it from its backup.") from error
    if len(raw) != KEY_SIZE:
        raise KeyFileError(f"{path} holds {len(raw)} bytes where a key has {KEY_SIZE}. Restore it from its backup.")
    return found["party"], raw


def _read(path: Path) -> bytes:
    """The file's bytes, checked on the open handle so that it cannot be swapped between check and use."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise KeyFileError(f"There is no key file {path}. Make keys first, or name their folder.") from error
    except OSError as error:
        raise KeyFileError(f"The key file {path} cannot be opened: {_reason(error)}.") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not an ordinary file. Put the key file itself there.")
        _check_private(path, status, "600")
        if status.st_size > MAX_KEY_FILE_BYTES:
            raise KeyFileError(f"{path} has {status.st_size} bytes, too many for a key file. Restore its backup.")
        return os.read(handle, MAX_KEY_FILE_BYTES)
    finally:
        os.close(handle)


def _check_folder(folder: Path) -> None:
    try:
        status = folder.stat()
    except OSError as error:
        raise KeyFileError(f"The key folder {folder} cannot be opened: {_reason(error)}.") from error
    if not stat.S_ISDIR(status.st_mode):
        raise KeyFileError(f"{folder} is not a folder. Name the folder that holds the keys.")
    _check_private(folder, status, "700")


def _check_private(path: Path, status: os.stat_result, mode: str) -> None:
    if status.st_mode & 0o077:
        raise KeyFileError(
            f"{path} can be used by other accounts of this machine. Run `chmod {mode} {path}`, and treat the key "
            "as known to others if they are not trusted."
        )
    if status.st_uid != os.geteuid():
        raise KeyFileError(
            f"{path} belongs to another account. Start the program under the account that owns the keys, "
            "or give the file to this one."
        )


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a link; put the file itself there"
    return (error.strerror or "the system gave no reason").lower()
