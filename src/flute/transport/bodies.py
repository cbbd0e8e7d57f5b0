"""Bodies that are too long for a row of SQLite: a file each, in a folder beside the database.

A row is made of pages that are checked, copied into a log and copied back; a vector of millions takes thousands of
them, each time it is stored. Here it is written once. The order makes it safe: the file is whole before the row that
names it is committed, and is deleted after the row is gone. What a crash leaves in between is a file that no row
names, which `sweep` deletes at the next start.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from flute.defaults.rounds import LARGE_BODY_BYTES
from flute.homes import sync_folder

_NAME_BYTES: Final = 16


def is_large(size: int) -> bool:
    return size > LARGE_BODY_BYTES


class Bodies:
    """Files of one folder, readable by their owner alone; the folder is made with the first of them.

    durable: whether a file is on disk, and not only in the kernel's hands, when `put` returns.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self.folder = folder
        self._durable = durable

    def put(self, body: bytes) -> str:
        """The new file's name. Raises: OSError: it cannot be written, and is not there."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        name = secrets.token_hex(_NAME_BYTES)
        path = self.folder / name
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb", buffering=0) as file:
                _write_all(file.fileno(), body)
                if self._durable:
                    os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        if self._durable:
            sync_folder(self.folder)
        return name

    def get(self, name: str) -> bytes | None:
        """None where there is no such file: the database is older, or newer, than the folder."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return None

    def drop(self, names: Iterable[str]) -> None:
        """Delete files whose rows are gone. What cannot be deleted now is so at the next start."""
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    def sweep(self, named: Collection[str]) -> None:
        """Delete every file that no row names. Call before the first `put`."""
        if self.folder.is_dir():
            self.drop(path.name for path in self.folder.iterdir() if path.name not in named)


def _write_all(handle: int, body: bytes) -> None:
    left = memoryview(body)
    while left:
        left = left[os.write(handle, left) :]
