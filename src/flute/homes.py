"""Folders of a party on disk: private files written whole, small configuration files, short socket paths."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from flute.defaults.records import MAX_SECRET_BYTES
from flute.errors import KeyFileError, MisuseError

T = TypeVar("T", bound=Struct)
MAX_CONFIG_BYTES: Final = 64 * 1024
_MAX_SOCKET_PATH: Final = 100
"""The kernel allows 108 bytes with the final zero; some systems 104."""


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole: after a crash it is the old one or the new one. Owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was renamed or made in it is on disk when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_config(path: Path, config: Struct) -> None:
    write_private(path, msgspec.json.format(msgspec.json.encode(config)))


def read_config(path: Path, kind: type[T], *, made_by: str) -> T:
    """Raises: MisuseError: no such file (says which command makes it), or not one of ours."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise MisuseError(f"There is no {path.name} in {path.parent}; '{made_by}' makes it.") from None
    except OSError as error:
        raise MisuseError(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise MisuseError(f"{path} is larger than any configuration of ours.")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise MisuseError(f"{path} is damaged or of another version; '{made_by}' makes it anew.") from error


def short_socket(folder: Path, name: str) -> Path:
    """Where a party's Unix socket lies: in its folder, or, where that path is too long for the kernel, in a
    private folder of the system's run or temporary directory that is named after it."""
    path = folder / name
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return private_folder(base / f"flute-{os.getuid()}-{tag}") / name


def private_socket(path: Path) -> socket.socket:
    """A listening Unix socket that only this user can connect to; one left by a dead process is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen()
    return listener


def read_secret_file(path: Path) -> bytes:
    """Raises: KeyFileError: missing, not a plain file, too large, or open to every account of this machine.

    A group may read it and it may be a link: that is how container platforms hand out secrets.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"{path.name} is not an ordinary file.")
            if status.st_mode & 0o007:
                raise KeyFileError(
                    f"{path.name} can be read by every account of this machine. Run `chmod o-rwx {path.name}`, and "
                    "treat what it holds as known to others if they are not trusted."
                )
            if status.st_size > MAX_SECRET_BYTES:
                raise KeyFileError(f"{path.name} is too large for a secret.")
            return file.read(MAX_SECRET_BYTES)
    except OSError as error:
        raise KeyFileError(f"The file {path.name}, which the options name, cannot be read.") from error
