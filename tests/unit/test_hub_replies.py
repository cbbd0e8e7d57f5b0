"""Long answers of a hub: on disk before they leave, said again byte for byte, and not kept longer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flute.defaults import REPLAY_MEMORY_S
from flute.errors import Replayed
from flute.hub.store import HubStore

LONG = bytes(range(256)) * 400
ONE, OTHER, DIGEST = b"1" * 16, b"2" * 16, bytes(32)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "hub-bodies").iterdir())


def test_a_long_reply_is_repeated_after_a_restart_and_forgotten_in_time(tmp_path: Path) -> None:
    store = HubStore(tmp_path)
    store.remember(ONE, DIGEST, LONG, 100)
    store.close()
    store = HubStore(tmp_path)
    assert store.seen(ONE, DIGEST, 100) == LONG
    assert [path.stat().st_mode & 0o777 for path in files(tmp_path)] == [0o600]
    store.remember(OTHER, DIGEST, b"short", 101 + REPLAY_MEMORY_S)
    assert files(tmp_path) == []
    assert store.seen(ONE, DIGEST, 101 + REPLAY_MEMORY_S) is None
    store.close()


def test_a_reply_whose_file_is_gone_is_known_and_not_given_again(tmp_path: Path) -> None:
    """As in a copy of hub.db that was restored alone: the message must not be dealt with a second time."""
    store = HubStore(tmp_path)
    store.remember(ONE, DIGEST, LONG, 100)
    files(tmp_path)[0].unlink()
    with pytest.raises(Replayed):
        store.seen(ONE, DIGEST, 100)
    store.close()


def test_of_masked_vectors_the_last_one_of_a_study_stays_until_the_study_ends(tmp_path: Path) -> None:
    store = HubStore(tmp_path)
    for k in range(3):
        store.put_member("study", b"state", LONG[k:])
    assert len(files(tmp_path)) == 1
    store.close()
    store = HubStore(tmp_path)
    assert (store.vector("study"), store.member("study")) == (LONG[2:], b"state")
    store.erase_member("study")
    assert (store.vector("study"), files(tmp_path)) == (b"", [])
    store.close()


def test_a_vector_that_could_not_be_stored_leaves_no_file_and_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = HubStore(tmp_path)
    store.put_member("study", b"state", LONG)
    store._hub.execute("CREATE TRIGGER full BEFORE INSERT ON masked BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.Error, match="full"):
        store.put_member("study", b"later", LONG[1:])
    assert len(files(tmp_path)) == 1
    assert (store.vector("study"), store.member("study")) == (LONG, b"state")
    store.close()


def test_files_that_no_row_names_are_deleted_at_the_start(tmp_path: Path) -> None:
    store = HubStore(tmp_path)
    store.remember(ONE, DIGEST, LONG, 100)
    store.close()
    (tmp_path / "hub-bodies" / "stray").write_bytes(b"of a crash")
    store = HubStore(tmp_path)
    assert len(files(tmp_path)) == 1
    assert store.seen(ONE, DIGEST, 100) == LONG
    store.close()


def test_a_database_of_before_there_were_files_goes_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "hub.db") as old:
        old.executescript(
            """CREATE TABLE seen(
                   message_id BLOB PRIMARY KEY, digest BLOB NOT NULL, reply BLOB, forget_at INTEGER NOT NULL);
               CREATE TABLE masked(study TEXT PRIMARY KEY, vector BLOB NOT NULL);"""
        )
        old.execute("INSERT INTO seen VALUES (?, ?, ?, 1000)", (ONE, DIGEST, LONG))
        old.execute("INSERT INTO masked VALUES ('study', ?)", (LONG,))
    old.close()
    store = HubStore(tmp_path)
    assert (store.seen(ONE, DIGEST, 100), store.vector("study")) == (LONG, LONG)
    store.put_member("study", b"state", LONG[1:])
    assert store.vector("study") == LONG[1:]
    store.close()
