"""Snapshots: the same rows have the same name, and an opening reads the named columns after it was announced."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from flute.data.variables import Variable
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.intake.rows import Rows, database
from flute.intake.snapshot import (
    SnapshotSource,
    check_snapshot,
    delete_snapshot,
    snapshot_path,
    snapshot_without,
    write_snapshot,
)

AGE = Variable("age", "number", 0, 120)
GROUP = Variable("group", "category", levels=("a", "b"))
YES = Variable("yes", "binary")
ALL = (AGE, GROUP, YES)
CONTENT = [("p1", 61.5, "a", "1"), ("p2", None, None, None), ("p3", 0.0, "b", "no"), ("p4", 130.0, "z", "maybe")]


def made(content: list[tuple[object, ...]], variables: tuple[Variable, ...] = ALL) -> Rows:
    connection = database()
    columns = ", ".join(f'"{v.name}" {"DOUBLE" if v.kind == "number" else "VARCHAR"}' for v in variables)
    connection.execute(f"CREATE TABLE rows (patient VARCHAR, {columns})")
    for row in content:
        connection.execute(f"INSERT INTO rows VALUES ({', '.join('?' * len(row))})", list(row))
    return Rows(connection, variables)


def test_what_was_written_is_read_as_the_declared_numbers(tmp_path: Path) -> None:
    dataset = SnapshotSource(tmp_path, write_snapshot(made(CONTENT), tmp_path)).open(ALL)
    assert dataset.pseudonyms.tolist() == ["p1", "p2", "p3", "p4"]
    np.testing.assert_array_equal(dataset.column("age"), [61.5, np.nan, 0, np.nan])
    np.testing.assert_array_equal(dataset.column("group"), [0, np.nan, 1, np.nan])
    np.testing.assert_array_equal(dataset.column("yes"), [1, np.nan, 0, np.nan])


def test_the_digest_is_of_the_rows_and_not_of_their_order(tmp_path: Path) -> None:
    first = write_snapshot(made(CONTENT), tmp_path)
    assert write_snapshot(made(CONTENT[::-1]), tmp_path / "other") == first
    assert len(first) == 32
    assert [p.name for p in (tmp_path / "records").iterdir()] == [f"{first.hex()}.parquet"]


def test_the_digest_ignores_the_sign_of_zero_and_the_order_of_columns(tmp_path: Path) -> None:
    minus = [("p1", -0.0, "a")]
    plain = [("p1", 0.0, "a")]
    turned = [("p1", "a", 0.0)]
    names = {
        write_snapshot(made(minus, (AGE, GROUP)), tmp_path),
        write_snapshot(made(plain, (AGE, GROUP)), tmp_path),
        write_snapshot(made(turned, (GROUP, AGE)), tmp_path),
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    "changed",
    [
        [("p1", 61.5000001, "a", "1")],
        [("p1", 61.5, "b", "1")],
        [("p1", None, "a", "1")],
        [("p2", 61.5, "a", "1")],
        [("p1", 61.5, "a", "1"), ("p2", 61.5, "a", "1")],
        [("p1", 61.5, "1", "a")],
        [],
    ],
)
def test_any_change_of_a_row_changes_the_digest(tmp_path: Path, changed: list[tuple[object, ...]]) -> None:
    assert write_snapshot(made(CONTENT[:1]), tmp_path) != write_snapshot(made(changed), tmp_path)


def test_the_file_is_its_owner_s_alone_and_appears_whole(tmp_path: Path) -> None:
    digest = write_snapshot(made(CONTENT), tmp_path)
    path = snapshot_path(tmp_path, digest)
    assert path.stat().st_mode & 0o777 == 0o600
    written = path.read_bytes()
    path.with_suffix(".partial").write_bytes(b"left by a crash")
    path.unlink()
    assert write_snapshot(made(CONTENT), tmp_path) == digest
    assert path.read_bytes() == written
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_every_opening_is_announced_before_it_reads(tmp_path: Path) -> None:
    opened: list[tuple[str, ...]] = []
    source = SnapshotSource(tmp_path, write_snapshot(made(CONTENT), tmp_path), opened.append)
    assert opened == []
    source.open((AGE,))
    source.open((GROUP, YES))
    assert opened == [("age",), ("group", "yes")]


def test_nothing_is_read_when_the_announcement_fails(tmp_path: Path) -> None:
    def refuse(names: tuple[str, ...]) -> None:
        raise MisuseError("the journal is full")

    digest = write_snapshot(made(CONTENT), tmp_path)
    source = SnapshotSource(tmp_path, digest, refuse)
    # A file that cannot be read would raise something else, were it touched.
    snapshot_path(tmp_path, digest).write_bytes(b"no parquet")
    with pytest.raises(MisuseError, match="journal"):
        source.open((AGE,))


def test_only_named_columns_are_selected(tmp_path: Path) -> None:
    dataset = SnapshotSource(tmp_path, write_snapshot(made(CONTENT), tmp_path)).open((AGE,))
    with pytest.raises(MisuseError, match="not selected"):
        dataset.column("group")


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = SnapshotSource(tmp_path, write_snapshot(made(CONTENT), tmp_path))
    with pytest.raises(Unmappable, match="weight"):
        source.open((Variable("weight", "number", 0, 9),))


def test_a_snapshot_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    digest = write_snapshot(made(CONTENT), tmp_path)
    source = SnapshotSource(tmp_path, digest)
    snapshot_path(tmp_path, digest).unlink()
    with pytest.raises(Unreachable):
        source.open((AGE,))
    with pytest.raises(Unreachable):
        SnapshotSource(tmp_path, digest)
    with pytest.raises(MisuseError):
        SnapshotSource(tmp_path, b"../../etc")


def test_a_changed_snapshot_does_not_pass_the_owner_s_check(tmp_path: Path) -> None:
    digest = write_snapshot(made(CONTENT), tmp_path)
    check_snapshot(tmp_path, digest)
    path = snapshot_path(tmp_path, digest)
    duckdb.sql(f"SELECT patient, age + 1 AS age, \"group\", yes FROM '{path}'").write_parquet(str(path) + "x")
    Path(str(path) + "x").replace(path)
    with pytest.raises(Unmappable, match="other rows"):
        check_snapshot(tmp_path, digest)


def test_a_file_that_is_no_parquet_is_unreachable(tmp_path: Path) -> None:
    digest = write_snapshot(made(CONTENT), tmp_path)
    snapshot_path(tmp_path, digest).write_bytes(b"no parquet")
    with pytest.raises(Unreachable, match="cannot be read"):
        SnapshotSource(tmp_path, digest).open((AGE,))


def test_a_folder_with_pattern_letters_and_quotes_works(tmp_path: Path) -> None:
    root = tmp_path / "a[1]'*?"
    digest = write_snapshot(made(CONTENT), root)
    assert len(SnapshotSource(root, digest).open((AGE,))) == 4


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file where the folder belongs", encoding="utf-8")
    with pytest.raises(Unreachable, match="cannot be written"):
        write_snapshot(made(CONTENT), tmp_path)


def test_a_source_shows_no_rows(tmp_path: Path) -> None:
    source = SnapshotSource(tmp_path, write_snapshot(made(CONTENT), tmp_path))
    assert repr(source).startswith("<SnapshotSource ")
    assert not hasattr(source, "__dict__")


def test_a_snapshot_without_a_person_is_the_one_of_an_import_without_him(tmp_path: Path) -> None:
    first = write_snapshot(made(CONTENT), tmp_path)
    expected = write_snapshot(made([CONTENT[0], CONTENT[2], CONTENT[3]]), tmp_path / "other")
    without = snapshot_without(tmp_path, first, {"p2", "nobody"})
    assert without == expected
    check_snapshot(tmp_path, without)
    assert snapshot_path(tmp_path, first).exists()
    delete_snapshot(tmp_path, first)
    assert not snapshot_path(tmp_path, first).exists()
    delete_snapshot(tmp_path, first)
