"""The frozen table that questions are asked of: one Parquet file, named by the digest of what it holds.

A study names a snapshot by its digest, so that the same question always meets the same rows. The digest is
over the rows in a canonical order and form, not over the file's bytes: writing the same import twice gives
the same snapshot.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import numpy as np

from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.intake.rows import TABLE, Rows, database, plain_column, quoted

FOLDER: Final = "records"
_DIGEST: Final = b"flute/snapshot/v1"
_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")
OnOpen = Callable[[tuple[str, ...]], None]


def write_snapshot(rows: Rows, root: Path) -> bytes:
    """Write `root/records/<digest>.parquet` and give the 32-byte digest.

    The file appears whole or not at all, readable by its owner only; a snapshot that is already there stays.
    Raises: Unreachable: the folder cannot be written.
    """
    return _written(rows.connection, [v.name for v in rows.variables], root)


def _written(connection: Any, names: Sequence[str], root: Path) -> bytes:
    digest = _digest_of(connection, TABLE, names)
    target = snapshot_path(root, digest)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not target.exists():
            _write(connection, target)
    except (OSError, duckdb.IOException) as error:
        raise Unreachable(f"The snapshot cannot be written into the hub's folder {FOLDER}.") from error
    return digest


def _write(connection: Any, target: Path) -> None:
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    location = str(partial).replace("'", "''")
    connection.execute(
        f"COPY (SELECT * FROM {TABLE} ORDER BY patient) TO '{location}' (FORMAT parquet, COMPRESSION zstd)"  # noqa: S608
    )
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.chmod(0o600)
    partial.replace(target)


def snapshot_path(root: Path, digest: bytes) -> Path:
    """Where a snapshot lies. Raises: MisuseError: `digest` is not 32 bytes."""
    name = digest.hex()
    if not _HEX.match(name):
        raise MisuseError("A snapshot is named by 32 bytes.")
    return root / FOLDER / f"{name}.parquet"


def snapshot_without(root: Path, digest: bytes, patients: Collection[str]) -> bytes:
    """A new snapshot without the rows of these pseudonyms; gives its digest. The old one is not touched.

    Raises: Unreachable: the old one cannot be read, or the folder not be written.
    """
    source = _opened(root, digest)
    names = [r[0] for r in source.execute("DESCRIBE snapshot").fetchall() if r[0] != "patient"]
    types = {r[0]: r[1] for r in source.execute("DESCRIBE snapshot").fetchall()}
    columns = source.execute("SELECT * FROM snapshot").fetchnumpy()
    source.close()
    keep = np.array([patient not in patients for patient in columns["patient"]], dtype=bool)
    declared = ", ".join(f"{quoted(name)} {types[name]}" for name in ("patient", *names))
    left = database()
    left.execute(f"CREATE TABLE {TABLE} ({declared})")
    left.register("source", {name: plain_column(column)[keep] for name, column in columns.items()})
    left.execute(f"INSERT INTO {TABLE} BY NAME SELECT * FROM source")  # noqa: S608 a fixed name
    left.unregister("source")
    return _written(left, names, root)


def delete_snapshot(root: Path, digest: bytes) -> None:
    """Raises: Unreachable: the file is there and cannot be deleted."""
    try:
        snapshot_path(root, digest).unlink(missing_ok=True)
    except OSError as error:
        raise Unreachable(
            f"A snapshot cannot be deleted from the hub's folder {FOLDER}; delete it by hand."
        ) from error


def check_snapshot(root: Path, digest: bytes) -> None:
    """Read a whole snapshot and compare it with its name: for the owner, after a restore or a move.

    Raises: Unreachable: no such file. Unmappable: the file holds other rows than its name says.
    """
    connection = _opened(root, digest)
    names = [r[0] for r in connection.execute("DESCRIBE snapshot").fetchall() if r[0] != "patient"]
    if _digest_of(connection, "snapshot", names) != digest:
        raise Unmappable("A snapshot holds other rows than its name says; import the records again.")


def _digest_of(connection: Any, table: str, names: Sequence[str]) -> bytes:
    """SHA-256 over column names, then one msgpack line per patient, columns by name, patients by pseudonym."""
    ordered = sorted(names)
    cells = ", ".join(["patient", *map(quoted, ordered)])
    result = connection.execute(f"SELECT {cells} FROM {table} ORDER BY patient")  # noqa: S608 identifiers are quoted
    encode = msgspec.msgpack.Encoder().encode
    state = hashlib.sha256(_DIGEST + encode(ordered))
    while batch := result.fetchmany(10_000):
        # Adding 0.0 makes -0.0 and 0.0 one value.
        lines = (encode([c + 0.0 if isinstance(c, float) else c for c in row]) for row in batch)
        state.update(b"".join(len(line).to_bytes(4, "big") + line for line in lines))
    return state.digest()


def _opened(root: Path, digest: bytes) -> Any:
    """A connection with the view `snapshot` over the file."""
    path = snapshot_path(root, digest)
    if not path.is_file():
        raise Unreachable("The snapshot that this question is about is not in the hub's folder; import it again.")
    connection = database()
    # Brackets keep a folder name with *, ? or [ from being read as a pattern.
    location = re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''")
    try:
        connection.execute(f"CREATE VIEW snapshot AS SELECT * FROM read_parquet('{location}')")  # noqa: S608
    except duckdb.Error as error:
        raise Unreachable("The snapshot's file cannot be read; import the records again.") from error
    return connection


class SnapshotSource:
    """`RecordSource` over one snapshot. It holds no rows between two openings."""

    __slots__ = ("_digest", "_on_open", "_root")

    def __init__(self, root: Path, digest: bytes, on_open: OnOpen | None = None) -> None:
        """`on_open`: called with the names of the columns before each opening; if it raises, nothing is read.

        Raises: Unreachable: the snapshot's file is not there.
        """
        if not snapshot_path(root, digest).is_file():
            raise Unreachable("There is no snapshot of that name in the hub's folder; import the records first.")
        self._root = root
        self._digest = digest
        self._on_open = on_open

    @property
    def snapshot(self) -> bytes:
        return self._digest

    def patients(self) -> list[str]:
        """The pseudonyms alone, for the hub's own use."""
        connection = _opened(self._root, self._digest)
        found = connection.execute("SELECT patient FROM snapshot ORDER BY patient").fetchall()
        connection.close()
        return [row[0] for row in found]

    def size(self) -> int:
        connection = _opened(self._root, self._digest)
        (found,) = connection.execute("SELECT count(*) FROM snapshot").fetchone() or (0,)
        connection.close()
        return int(found)

    def open(self, variables: Sequence[Variable]) -> Dataset:
        """Read the pseudonyms and the columns of `variables`, no others.

        Raises: Unreachable: the file is gone. Unmappable: a column is absent.
        """
        names = tuple(variable.name for variable in variables)
        if self._on_open is not None:
            self._on_open(names)
        connection = _opened(self._root, self._digest)
        present = {row[0] for row in connection.execute("DESCRIBE snapshot").fetchall()}
        absent = sorted(set(names) - present)
        if absent:
            raise Unmappable(f"The snapshot has no column {', '.join(absent)}.")
        cells = ", ".join(["patient", *map(quoted, dict.fromkeys(names))])
        columns = connection.execute(f"SELECT {cells} FROM snapshot ORDER BY patient").fetchnumpy()  # noqa: S608
        connection.close()
        raw = {name: plain_column(column) for name, column in columns.items()}
        return Dataset(raw["patient"], {v.name: v.numbers(raw[v.name]) for v in variables}, list(variables))

    def __repr__(self) -> str:
        return f"<SnapshotSource {self._digest.hex()[:12]}>"
