"""Where a hub keeps images: de-identified files by pseudonym, and an index that says what is there already.

The index knows an image by a keyed hash of its UID, so neither it nor the folder leads back to the PACS without the
hub's key. A file is whole on disk before the index names it; what a crash left in between is written again.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

import msgspec
from pydicom.dataset import Dataset

from flute.deidentify.pseudonyms import keyed
from flute.errors import MisuseError
from flute.homes import private_folder, write_private
from flute.imaging.headers import Header
from flute.imaging.quality import StudyQuality
from flute.imaging.sources.source import UID

_DOMAIN: Final = b"flute/images/v1/"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS studies (
    key BLOB PRIMARY KEY, patient TEXT NOT NULL, linked_by TEXT NOT NULL, quality BLOB,
    folder TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images (
    key BLOB PRIMARY KEY, study BLOB NOT NULL REFERENCES studies(key) ON DELETE CASCADE,
    file TEXT NOT NULL, refused TEXT NOT NULL, headers BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_of_study ON images(study);
"""


class Shelf:
    """One hub's images. One process at a time writes; `key` is the hub's own, 32 bytes."""

    def __init__(self, folder: Path, key: bytes) -> None:
        keyed(key, _DOMAIN)  # raises where the key is none, before anything is made
        self.folder = private_folder(folder)
        self._key = key
        self._db = sqlite3.connect(folder / "images.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.executescript(_SCHEMA)
        (folder / "images.db").chmod(0o600)
        for left in folder.glob("*/*/*/.*.dcm.*"):
            left.unlink()  # half a file of a process that died

    def close(self) -> None:
        self._db.close()

    def name(self, uid: str) -> bytes:
        """What the index calls a UID of the PACS."""
        return keyed(self._key, _DOMAIN + uid.encode())

    # --- writing -------------------------------------------------------------------------------

    def begin(self, study_uid: str, patient: str, linked_by: str) -> None:
        """Know a study. One that is known under another patient is taken away first: the link was wrong, or is."""
        known = self._db.execute("SELECT patient FROM studies WHERE key = ?", (self.name(study_uid),)).fetchone()
        if known is not None and known[0] != patient:
            self._forget_study(self.name(study_uid))
        self._db.execute(
            "INSERT INTO studies (key, patient, linked_by) VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET linked_by = ?",
            (self.name(study_uid), patient, linked_by, linked_by),
        )

    def put(self, study_uid: str, instance_uid: str, cleaned: Dataset, headers: Iterable[Header]) -> Path:
        """Store one de-identified image: the file first, then the index. Writing it again changes nothing."""
        row = self._db.execute("SELECT patient FROM studies WHERE key = ?", (self.name(study_uid),)).fetchone()
        patient = str(row[0])
        parts = [str(cleaned.StudyInstanceUID), str(cleaned.SeriesInstanceUID), str(cleaned.SOPInstanceUID)]
        if not all(UID.match(part) for part in parts) or not patient.isalnum():
            raise MisuseError(
                "A cleaned image must have valid UIDs, and its patient a pseudonym of letters and digits."
            )
        path = self.folder / patient / parts[0] / parts[1] / f"{parts[2]}.dcm"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        raw = BytesIO()
        cleaned.save_as(raw, enforce_file_format=True)
        write_private(path, raw.getvalue())
        with self._transaction():
            self._record(
                study_uid, instance_uid, file=path.relative_to(self.folder).as_posix(), headers=tuple(headers)
            )
            self._db.execute(
                "UPDATE studies SET folder = ?, quality = NULL WHERE key = ?",
                (path.parent.parent.relative_to(self.folder).as_posix(), self.name(study_uid)),
            )
        return path

    def refuse(self, study_uid: str, instance_uid: str, reason: str) -> None:
        """Remember that an image was looked at and not taken, so that it is not fetched again."""
        self._record(study_uid, instance_uid, refused=reason, headers=())

    def _record(
        self, study_uid: str, instance_uid: str, *, file: str = "", refused: str = "", headers: tuple[Header, ...]
    ) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)",
            (self.name(instance_uid), self.name(study_uid), file, refused, msgspec.msgpack.encode(headers)),
        )

    def finish(self, study_uid: str, quality: StudyQuality) -> None:
        self._db.execute(
            "UPDATE studies SET quality = ? WHERE key = ?", (msgspec.msgpack.encode(quality), self.name(study_uid))
        )

    def forget(self, patient: str) -> int:
        """Take away everything of a patient (withdrawal): files, then index. Gives how many images there were."""
        studies = self._db.execute("SELECT key FROM studies WHERE patient = ?", (patient,)).fetchall()
        gone = sum(self._forget_study(key) for (key,) in studies)
        if patient.isalnum():
            shutil.rmtree(self.folder / patient, ignore_errors=True)
        return gone

    def _forget_study(self, key: bytes) -> int:
        files = [f for (f,) in self._db.execute("SELECT file FROM images WHERE study = ? AND file != ''", (key,))]
        for file in files:
            (self.folder / file).unlink(missing_ok=True)
        with self._transaction():
            self._db.execute("DELETE FROM images WHERE study = ?", (key,))
            self._db.execute("DELETE FROM studies WHERE key = ?", (key,))
        return len(files)

    def forget_refusals(self) -> int:
        """So that what was refused is tried again, after the cause was mended."""
        return self._db.execute("DELETE FROM images WHERE refused != ''").rowcount

    # --- reading -------------------------------------------------------------------------------

    def has(self, instance_uid: str) -> bool:
        """Whether an image needs no fetching: it is on disk, or was refused."""
        found = self._db.execute(
            "SELECT file, refused FROM images WHERE key = ?", (self.name(instance_uid),)
        ).fetchone()
        return found is not None and (bool(found[1]) or (self.folder / found[0]).is_file())

    def headers(self, study_uid: str) -> list[Header]:
        """Of the images of a study that are here. A withheld one is not: its place is a missing slice."""
        rows = self._db.execute("SELECT headers FROM images WHERE study = ? ORDER BY key", (self.name(study_uid),))
        return [h for (raw,) in rows for h in msgspec.msgpack.decode(raw, type=tuple[Header, ...])]

    def refusals(self, study_uid: str) -> list[str]:
        rows = self._db.execute(
            "SELECT refused FROM images WHERE study = ? AND refused != ''", (self.name(study_uid),)
        )
        return [reason for (reason,) in rows]

    def quality(self, study_uid: str) -> StudyQuality | None:
        """None: the study is not finished."""
        row = self._db.execute("SELECT quality FROM studies WHERE key = ?", (self.name(study_uid),)).fetchone()
        return None if row is None or row[0] is None else msgspec.msgpack.decode(row[0], type=StudyQuality)

    def studies(self) -> Iterator[tuple[str, Path, StudyQuality | None]]:
        """(pseudonym, folder, quality or None where unfinished) of every study with an image."""
        for patient, folder, quality in self._db.execute(
            "SELECT patient, folder, quality FROM studies WHERE folder != ''"
        ):
            yield (
                patient,
                self.folder / folder,
                (None if quality is None else msgspec.msgpack.decode(quality, type=StudyQuality)),
            )

    def files(self) -> list[Path]:
        return [
            self.folder / f for (f,) in self._db.execute("SELECT file FROM images WHERE file != '' ORDER BY file")
        ]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
