"""The frozen table that questions are asked of: one Parquet file, named by the digest of what it holds.

A study names a snapshot by its digest, so that the same question always meets the same rows. The digest is
over the rows in a canonical order and form, not over the file's bytes: writing the same import twice gives
the same snapshot. Images lie beside the table (`intake.pixels`); a column of the table holds their digests.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.intake.arrays import read_array
from flute.intake.pixels import Incoming, Picture, incoming, read_image, settled, stack_images, sweep, usable_image
from flute.intake.rows import IMAGE_TYPE, TABLE, ImportReport, Rows, database, plain_column, quoted
from flute.messages.limits import Name

FOLDER: Final = "records"
_DIGEST: Final = b"flute/snapshot/v1"
_HEX: Final = re.compile(r"[0-9a-f]{64}\Z")
OnOpen = Callable[[tuple[str, ...]], None]


def write_snapshot(rows: Rows, root: Path) -> bytes:
    """Write `root/records/<digest>.parquet` and give the 32-byte digest.

    The file appears whole or not at all, readable by its owner only; a snapshot that is already there stays.
    Raises: Unreachable: the folder cannot be written.
    """
    return write_rows(rows, root).snapshot


def write_rows(rows: Rows, root: Path, more: Sequence[tuple[Variable, Iterable[Picture]]] = ()) -> Written:
    """As `write_snapshot`, and says what became of the images: those that the rows name, and `more`.

    Raises: as `attach_images`."""
    named = [v for v in rows.variables if v.kind == "image"]
    if not named and not more:
        return Written(_written(rows.connection, [v.name for v in rows.variables], root))
    frozen = _columns_of(rows.connection, TABLE)
    files = [(v, frozen.columns.pop(v.name)) for v in named]
    patients = frozen.columns["patient"].tolist()
    rest = _Frozen(frozen.columns, {name: kind for name, kind in frozen.types.items() if name in frozen.columns})
    pictures = [(v, _read_files(patients, paths)) for v, paths in files]
    return _with_images(root, rest, [*pictures, *more])


def _read_files(patients: Sequence[str], paths: NDArray[Any]) -> Iterator[Picture]:
    for patient, path in zip(patients, paths.tolist(), strict=True):
        yield patient, None if path is None else read_array(Path(path))


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
    frozen = _frozen(root, digest)
    keep = np.array([patient not in patients for patient in frozen.columns["patient"]], dtype=bool)
    left = {name: column[keep] for name, column in frozen.columns.items()}
    return _written(*_table(left, frozen.types), root)


class Attached(Struct, frozen=True):
    """Patients by what became of their images. `images`: they have one. `missing`: nobody spoke of one. `unusable`:
    theirs is not what is declared, by reason. `unmatched`: images of somebody who is not in the dataset. `left_out`:
    patients on the shelf, of any dataset, whose images make none, by reason.
    """

    variable: Name
    images: int
    missing: int
    unusable: dict[str, int]
    unmatched: int
    left_out: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Written:
    """`attached`: what became of each of its variables that are images."""

    snapshot: bytes
    attached: tuple[Attached, ...] = ()

    def counted(self, report: ImportReport) -> ImportReport:
        """The report of what was read, with what became of the images."""
        missing = report.missing | {one.variable: one.missing for one in self.attached}
        unusable = report.unusable | {one.variable: sum(one.unusable.values()) for one in self.attached}
        return msgspec.structs.replace(report, missing=missing, unusable=unusable)


def attach_images(root: Path, digest: bytes, variable: Variable, images: Iterable[Picture]) -> Written:
    """A new snapshot: the old one's rows with the column `variable`, in place of one that was called so before.

    images: one of each patient at most, taken one at a time.
    Raises: MisuseError: the name is taken by another column. Unmappable: two images of one patient. Unreachable: the
    old snapshot cannot be read, or the folder not be written.
    """
    return _with_images(root, _frozen(root, digest), [(variable, images)])


def _with_images(root: Path, frozen: _Frozen, pictures: Sequence[tuple[Variable, Iterable[Picture]]]) -> Written:
    columns, types = dict(frozen.columns), dict(frozen.types)
    attached = []
    with incoming(root) as place:
        for variable, images in pictures:
            if variable.name.lower() in {name.lower() for name, kind in types.items() if kind != IMAGE_TYPE}:
                raise MisuseError(f"The dataset has a column {variable.name} that is no image; choose another name.")
            columns[variable.name], counts = _image_column(place, variable, images, columns["patient"])
            types[variable.name] = IMAGE_TYPE
            attached.append(counts)
        with settled():
            place.settle()
            return Written(_written(*_table(columns, types), root), tuple(attached))


def _image_column(
    place: Incoming, variable: Variable, images: Iterable[Picture], patients: NDArray[Any]
) -> tuple[NDArray[Any], Attached]:
    """Digests, None where there is no usable image, in the order of `patients`."""
    found: dict[str, bytes | None] = dict.fromkeys(patients.tolist())
    seen: set[str] = set()
    unusable: Counter[str] = Counter()
    unmatched = 0
    for patient, image in images:
        if patient in seen:
            raise Unmappable(f"A patient has two images {variable.name}; give one of each patient.")
        seen.add(patient)
        if patient not in found:
            unmatched += 1
        elif image is not None:
            numbers = usable_image(variable, image)
            if isinstance(numbers, str):
                unusable[numbers] += 1
            else:
                found[patient] = place.put(numbers)
    column = np.empty(len(patients), dtype=object)
    column[:] = list(found.values())
    there = sum(digest is not None for digest in found.values())
    missing = len(patients) - there - sum(unusable.values())
    return column, Attached(variable.name, there, missing, dict(unusable), unmatched)


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A snapshot's columns, `patient` first, and their SQL types."""

    columns: dict[str, NDArray[Any]]
    types: dict[str, str]


def _frozen(root: Path, digest: bytes) -> _Frozen:
    source = _opened(root, digest)
    frozen = _columns_of(source, "snapshot")
    source.close()
    return frozen


def _columns_of(connection: Any, table: str) -> _Frozen:
    types = {r[0]: r[1] for r in connection.execute(f"DESCRIBE {table}").fetchall()}
    columns = connection.execute(f"SELECT * FROM {table} ORDER BY patient").fetchnumpy()  # noqa: S608 a fixed name
    return _Frozen({name: plain_column(column) for name, column in columns.items()}, types)


def _table(columns: dict[str, NDArray[Any]], types: dict[str, str]) -> tuple[Any, list[str]]:
    """A connection with these columns as its table, and the names of the variables."""
    names = [name for name in types if name != "patient"]
    own = database()
    declared = ", ".join(f"{quoted(name)} {types[name]}" for name in ("patient", *names))
    own.execute(f"CREATE TABLE {TABLE} ({declared})")
    own.register("source", columns)
    own.execute(f"INSERT INTO {TABLE} BY NAME SELECT * FROM source")  # noqa: S608 a fixed name
    own.unregister("source")
    return own, names


def snapshots(root: Path) -> list[bytes]:
    """Digests of all that lie in the hub's folder."""
    return [bytes.fromhex(path.stem) for path in sorted((root / FOLDER).glob("*.parquet")) if _HEX.match(path.stem)]


def delete_snapshot(root: Path, digest: bytes) -> None:
    """Delete it, and the images that no other snapshot names.

    Raises: Unreachable: a file is there and cannot be deleted."""
    try:
        with settled():
            snapshot_path(root, digest).unlink(missing_ok=True)
            sweep(root, _all_images(root))
    except OSError as error:
        raise Unreachable(
            f"A snapshot cannot be deleted from the hub's folder {FOLDER}; delete it by hand."
        ) from error


def _all_images(root: Path) -> set[bytes]:
    """Digests that the snapshots of this folder name. Raises: Unreachable: one of them cannot be read."""
    named: set[bytes] = set()
    for digest in snapshots(root):
        connection = _opened(root, digest)
        named |= _image_digests(connection)
        connection.close()
    return named


def _image_digests(connection: Any) -> set[bytes]:
    named: set[bytes] = set()
    for name, kind in [row[:2] for row in connection.execute("DESCRIBE snapshot").fetchall()]:
        if kind == IMAGE_TYPE:
            found = connection.execute(f"SELECT DISTINCT {quoted(name)} FROM snapshot").fetchall()  # noqa: S608 quoted
            named |= {bytes(digest) for (digest,) in found if digest is not None}
    return named


def check_snapshot(root: Path, digest: bytes) -> None:
    """Compare a whole snapshot and its images with their names: for the owner, after a restore or a move.

    Raises: Unreachable: no such file. Unmappable: the file holds other rows than its name says, or an image's does.
    """
    connection = _opened(root, digest)
    names = [r[0] for r in connection.execute("DESCRIBE snapshot").fetchall() if r[0] != "patient"]
    if _digest_of(connection, "snapshot", names) != digest:
        raise Unmappable("A snapshot holds other rows than its name says; import the records again.")
    for image in sorted(_image_digests(connection)):
        read_image(root, image)


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

        Raises: Unreachable: the file, or an image, is gone. Unmappable: a column is absent, or an image altered.
        """
        names = tuple(variable.name for variable in variables)
        if self._on_open is not None:
            self._on_open(names)
        connection = _opened(self._root, self._digest)
        present = {row[0]: row[1] for row in connection.execute("DESCRIBE snapshot").fetchall()}
        _require_columns(variables, present)
        cells = ", ".join(["patient", *map(quoted, dict.fromkeys(names))])
        columns = connection.execute(f"SELECT {cells} FROM snapshot ORDER BY patient").fetchnumpy()  # noqa: S608
        connection.close()
        raw = {name: plain_column(column) for name, column in columns.items()}
        coded = {v.name: v.numbers(raw[v.name]) for v in variables if v.kind != "image"}
        images = {}
        for v in (v for v in variables if v.kind == "image"):
            coded[v.name], images[v.name] = stack_images(self._root, v, raw[v.name])
        return Dataset(raw["patient"], coded, list(variables), images)

    def __repr__(self) -> str:
        return f"<SnapshotSource {self._digest.hex()[:12]}>"


def _require_columns(variables: Sequence[Variable], present: dict[str, str]) -> None:
    absent = sorted({v.name for v in variables} - present.keys())
    if absent:
        raise Unmappable(f"The snapshot has no column {', '.join(absent)}.")
    other = sorted(v.name for v in variables if (v.kind == "image") != (present[v.name] == IMAGE_TYPE))
    if other:
        raise Unmappable(f"The snapshot's {', '.join(other)} holds images where values are asked for, or none.")
