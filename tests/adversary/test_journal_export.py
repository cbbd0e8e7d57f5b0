"""An exported audit log in the hands of somebody who would like it to say something else."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flute.errors import JournalBroken, LedgerError
from flute.ledger import audit
from flute.ledger.journals.journal import Journal, Position
from flute.ledger.lines.entries import PersonAct
from flute.primitives.keys import SigningKey

KEY = SigningKey(b"h" * 32)
THIEF = SigningKey(b"t" * 32)
LINES = 9
Lines = list[bytes]
pytestmark = [
    pytest.mark.requirement("URS-10"),
    pytest.mark.requirement("F-SRS-8"),
    pytest.mark.requirement("F-PIL-21"),
]


def exported(folder: Path, key: SigningKey = KEY, lines: int = LINES) -> tuple[Lines, Position]:
    with Journal.open(folder / f"{key.raw[:1].decode()}.db", key) as journal:
        for number in range(journal.last.line + 1, lines + 1):
            journal.append(PersonAct("jordi", "opened-page", f"page {number}"), now=1_000 + number)
        file = io.BytesIO()
        position = audit.export(journal, file)
    return file.getvalue().splitlines(keepends=True), position


def put(folder: Path, lines: Lines) -> Path:
    path = folder / "export.ndjson"
    path.write_bytes(b"".join(lines))
    return path


def broken(folder: Path, lines: Lines, expected: Position | None = None) -> JournalBroken:
    with pytest.raises(JournalBroken) as found:
        audit.verify_export(put(folder, lines), KEY.public, expected)
    return found.value


def test_an_export_proves_itself(tmp_path: Path) -> None:
    lines, position = exported(tmp_path)
    verified = audit.verify_export(put(tmp_path, lines), KEY.public, position)
    assert verified.position == position
    assert (verified.lines, verified.first_at, verified.last_at) == (LINES, 1_001, 1_009)
    assert json.loads(lines[0])["entry"] == {
        "kind": "person-act", "person": "jordi", "act": "opened-page", "target": "page 1", "study": ""
    }  # fmt: skip


def test_an_empty_journal_exports_its_head_alone(tmp_path: Path) -> None:
    lines, _ = exported(tmp_path, lines=0)
    assert len(lines) == 1
    assert audit.verify_export(put(tmp_path, lines), KEY.public).lines == 0


def moved(lines: Lines, source: int, target: int) -> Lines:
    rest = [line for i, line in enumerate(lines) if i != source]
    return [*rest[:target], lines[source], *rest[target:]]


def swapped(lines: Lines, one: int, two: int) -> Lines:
    lines = list(lines)
    lines[one], lines[two] = lines[two], lines[one]
    return lines


ATTACKS: dict[str, tuple[Callable[[Lines], Lines], int, str]] = {
    "readable part changed": (
        lambda x: [*x[:4], x[4].replace(b'"target":"page 5"', b'"target":"page 6"'), *x[5:]], 5, "Line 5 was changed",
    ),
    "time changed": (lambda x: [*x[:4], x[4].replace(b'"at":1005', b'"at":1004'), *x[5:]], 5, "Line 5 was changed"),
    "seal changed": (lambda x: [*x[:4], x[4].replace(b'"seal":"', b'"seal":"00'), *x[5:]], 5, "Line 5 was changed"),
    "spaces added": (lambda x: [*x[:4], x[4].replace(b'"at"', b' "at"'), *x[5:]], 5, "Line 5 was changed"),
    "garbage": (lambda x: [*x[:4], b"\xff\xfe{\n", *x[5:]], 5, "Line 5 was changed"),
    "very deep": (lambda x: [*x[:4], b"[" * 100_000 + b"\n", *x[5:]], 5, "Line 5 was changed"),
    "dropped": (lambda x: [*x[:4], *x[5:]], 5, "Line 5 was dropped"),
    "three dropped": (lambda x: [*x[:4], *x[7:]], 5, "Lines 5 to 7 were dropped"),
    "inserted copy": (lambda x: [*x[:4], x[1], *x[4:]], 5, "Line 5 was inserted"),
    "inserted blank": (lambda x: [*x[:4], b"\n", *x[4:]], 5, "Line 5 was inserted"),
    "swapped": (lambda x: swapped(x, 4, 6), 5, "Line 5 was reordered"),
    "moved up": (lambda x: moved(x, 7, 4), 5, "Line 5 was reordered"),
    "moved down": (lambda x: moved(x, 4, 7), 5, "Line 5 was reordered"),
    "truncated": (lambda x: [*x[:6], x[-1]], 7, "truncated"),
    "cut off with the head": (lambda x: x[:6], 7, "head is missing"),
    "head alone": (lambda x: x[-1:], 1, "truncated"),
    "nothing": (lambda x: [], 1, "head is missing"),
    "head pointed elsewhere": (
        lambda x: [*x[:6], x[-1].replace(b'"head":9', b'"head":6')], 7, "head was forged",
    ),
    "head unreadable": (lambda x: [*x[:-1], b'{"head":true}\n'], 10, "head was forged"),
    "a line after the head": (lambda x: [*x, x[0]], 10, "Line 10"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_done_to_an_export_is_named_with_its_line(tmp_path: Path, attack: str) -> None:
    lines, _ = exported(tmp_path)
    change, line, words = ATTACKS[attack]
    changed = change(lines)
    assert changed != lines
    error = broken(tmp_path, changed)
    assert error.line == line
    assert words in error.text


def test_an_export_made_with_another_key_is_another_hubs(tmp_path: Path) -> None:
    lines, _ = exported(tmp_path, THIEF)
    error = broken(tmp_path, lines)
    assert (error.line, "another hub's journal" in error.text) == (1, True)


def test_the_end_of_an_export_cannot_be_replaced_by_lines_of_the_thiefs(tmp_path: Path) -> None:
    mine, _ = exported(tmp_path)
    theirs, _ = exported(tmp_path, THIEF)
    error = broken(tmp_path, mine[:5] + theirs[5:])
    assert error.line == 6


def test_an_older_export_is_seen_only_by_a_later_receipt(tmp_path: Path) -> None:
    older, _ = exported(tmp_path, lines=6)
    _, receipt = exported(tmp_path, lines=9)
    assert audit.verify_export(put(tmp_path, older), KEY.public).lines == 6
    error = broken(tmp_path, older, expected=receipt)
    assert (error.line, "a receipt of line 9 exists" in error.text) == (7, True)


def test_every_flipped_bit_of_an_export_is_found(tmp_path: Path) -> None:
    """All but the last newline, which ends the file and carries nothing."""
    lines, _ = exported(tmp_path, lines=2)
    whole = b"".join(lines)
    for at in range(len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        assert broken(tmp_path, [bytes(changed)]).line == whole[:at].count(b"\n") + 1


def test_a_missing_export_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        audit.verify_export(tmp_path / "none.ndjson", KEY.public)
