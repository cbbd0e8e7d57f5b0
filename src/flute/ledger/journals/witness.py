"""The newest head, kept where a backup of the journal does not reach.

A whole older copy of a journal is sound in itself (`ledger.journals.chain`). It shows only against a head that was
kept elsewhere. A `Witness` is such a place: before a line is acknowledged its signed head is there, so a restored
copy that lacks an acknowledged line is noticed when the journal is opened. Only the hub's key can sign a head: nobody
can make the hub believe in lines that it never wrote.

`FileWitness` is a file in another directory. Whoever restores that as well, or removes it, is not noticed by it: it
guards against a restored backup and against a person who can write the hub's folder alone. Whoever holds the whole
machine is noticed by a head that the coordinator was given (`Journal.require_head`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

from flute.errors import LedgerError
from flute.homes import sync_folder
from flute.ledger.journals.chain import Head, is_signed
from flute.ledger.journals.heads import read_head_line, write_head_line

_SLOT: Final = 512
"""Bytes of one head: a disk writes a sector whole or not at all."""
_ACCUSING: Final = 2
"""The slot of a head that contradicts the journal and came from elsewhere."""
_SLOTS: Final = 3


_sync_data: Final = getattr(os, "fdatasync", os.fsync)
"""The file's size never changes, so its data is all that has to reach the disk."""


class Witness(Protocol):
    """Where heads are kept outside the journal's own folder."""

    @property
    def place(self) -> str:
        """For people."""
        ...

    def heads(self, public: bytes) -> tuple[Head, ...]:
        """Those that this hub signed: each must be in the journal. Empty where nothing was kept yet."""
        ...

    def advance(self, head: Head) -> None:
        """Durable when this returns. Raises: LedgerError: it cannot be kept."""
        ...

    def accuse(self, head: Head) -> None:
        """Keep a head that is not in the journal until `start_over`. Raises: LedgerError."""
        ...

    def start_over(self, head: Head) -> None:
        """After a recovery: forget everything but `head`. Raises: LedgerError."""
        ...


class FileWitness:
    """Two slots that are written in turn, so that a torn write leaves the head before it, and one for accusations.

    The file has its full size from the start: a full disk does not stop it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = 0
        self._newest: Head | None = None

    @property
    def place(self) -> str:
        return str(self._path)

    def heads(self, public: bytes) -> tuple[Head, ...]:
        """Raises: LedgerError: there is a file, and it cannot be read or holds no head of this hub."""
        written = self._read() if self._path.exists() else []
        if not any(written):
            return ()
        slots = [read_head_line(raw) for raw in written]
        ours = [head if head is not None and is_signed(head, public) else None for head in slots]
        found = [head for head in ours if head is not None]
        if not found:
            raise LedgerError(
                f"{self._path} holds no head of this hub's journal: it is damaged, or another hub's. Put the right "
                "one back, or run 'flute hub recover'."
            )
        regular = [(head.number, slot) for slot, head in enumerate(ours[:_ACCUSING]) if head is not None]
        if regular:
            _, slot = max(regular)
            self._turn, self._newest = 1 - slot, ours[slot]
        return tuple(found)

    def advance(self, head: Head) -> None:
        """Raises: LedgerError: somebody else wrote the file meanwhile (a copy of this hub runs); the disk failed."""
        if self._newest is not None and self._newest not in map(read_head_line, self._read()):
            raise LedgerError(
                f"{self._path} was written by another process: a copy of this hub runs elsewhere. Nothing may be "
                "relied on; stop both and run 'flute audit verify'."
            )
        self._write(self._turn, head)
        self._turn, self._newest = 1 - self._turn, head

    def accuse(self, head: Head) -> None:
        self._write(_ACCUSING, head)

    def start_over(self, head: Head) -> None:
        self._remake()
        self._turn, self._newest = 0, None
        self.advance(head)

    # --- the file ----------------------------------------------------------------------------------

    def _read(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                raw = file.read(_SLOTS * _SLOT)
        except OSError as error:
            raise self._failed(error) from error
        return [raw[at : at + _SLOT].rstrip(b"\0") for at in range(0, _SLOTS * _SLOT, _SLOT)]

    def _write(self, slot: int, head: Head) -> None:
        if not self._path.exists():
            self._remake()
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                raw = write_head_line(head).ljust(_SLOT, b"\0")
                if os.pwrite(handle, raw, slot * _SLOT) != _SLOT:
                    raise LedgerError(f"The witness {self._path} could not be written whole.")
                _sync_data(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise self._failed(error) from error

    def _remake(self) -> None:
        """An empty file of full size, in place of whatever was there."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, bytes(_SLOTS * _SLOT))
                os.fsync(handle)
            finally:
                os.close(handle)
            sync_folder(self._path.parent)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> LedgerError:
        return LedgerError(
            f"The witness {self._path} cannot be used ({error.strerror}): no line may be acknowledged without it. "
            "Mend that, or keep it elsewhere ('flute hub witness'), then start the hub service again."
        )
