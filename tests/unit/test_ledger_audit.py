"""The audit log for people, and receipts for others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flute.errors import BadSignature, LedgerError, Malformed
from flute.ledger import audit
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy
from flute.ledger.journals.journal import Journal, JournalView, Position
from flute.ledger.lines.entries import ConsentGranted, PersonAct, Refused, ServiceStarted
from flute.primitives.keys import SigningKey

KEY = SigningKey(b"h" * 32)
D = bytes(range(32))
CHARGE = Charge(D, "s1", "q1", 2, "maria", "private", 0.25, 1e-12, 0, "secagg", "records", D)
pytestmark = [pytest.mark.requirement("URS-10"), pytest.mark.requirement("F-SRS-8")]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.db", KEY) as opened:
        over = [Ceiling(Level.HUB, Policy(1.0, 1e-6)), Ceiling(Level.STUDY, Policy(1.0, 1e-6))]
        opened.append(ServiceStarted("0.1.0", D), now=1_000)
        opened.append(ConsentGranted("s1", D, D, "jordi"), now=2_000)
        ledger = Ledger(opened, over)
        ledger.settle(ledger.reserve(CHARGE, now=3_000), "released", now=3_001)
        opened.append(Refused("no-consent", "No consent.", "mal\x1b[2Jlory\n", "secure-question", "s2"), now=4_000)
        opened.append(PersonAct("jordi", "signed-in", ""), now=5_000)
        yield opened


def test_every_line_is_a_sentence_with_its_time(journal: Journal) -> None:
    lines = list(audit.history(journal))
    assert [line.position.line for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[2].text == (
        "Reserved rho 0.25 (mu²/2) and delta 1e-12 for step 2 of question q1 of study s1, asked by maria; "
        "release 000102030405."
    )
    assert lines[1].text == "jordi granted study s1, agreement 000102030405."
    assert lines[0].time == "1970-01-01T00:16:40Z"


def test_what_a_stranger_claims_cannot_steer_the_terminal_of_who_reads_it(journal: Journal) -> None:
    (line,) = audit.history(journal, kinds=["refused"])
    assert line.text.isprintable()
    assert "mal\ufffd[2Jlory\ufffd" in line.text


def test_history_is_filtered_by_time_kind_and_study(journal: Journal) -> None:
    def numbers(**filters: object) -> list[int]:
        return [line.position.line for line in audit.history(journal, **filters)]  # type: ignore[arg-type]

    assert numbers(since=3_000) == [3, 4, 5, 6]
    assert numbers(since=2_000, until=3_000) == [2, 3]
    assert numbers(kinds=["settled", "person-act"]) == [4, 6]
    assert numbers(study="s1") == [2, 3, 4]
    assert numbers(study="s1", kinds=["reserved"]) == [3]
    assert numbers(study="s9") == []


def test_a_line_as_json_has_plain_values_only(journal: Journal) -> None:
    for line in audit.history(journal):
        shown = json.loads(json.dumps(line.as_json()))
        assert shown["line"] == line.position.line
        assert shown["digest"] == line.position.digest.hex()
        assert shown["text"] == line.text
    reserved = next(audit.history(journal, kinds=["reserved"])).as_json()
    assert reserved["entry"]["charge"]["release_id"] == D.hex()
    assert reserved["entry"]["charge"]["rho"] == 0.25


def test_a_receipt_proves_a_line_to_whoever_has_the_hubs_public_key(journal: Journal) -> None:
    position = next(audit.history(journal, kinds=["reserved"])).position
    raw = audit.write_receipt(audit.receipt(JournalView(journal.path), position))
    shown = audit.check_receipt(raw, KEY.public)
    assert shown.position == position
    assert shown.entry["charge"]["rho"] == 0.25
    with pytest.raises(BadSignature):
        audit.check_receipt(raw, SigningKey(b"x" * 32).public)


def test_a_changed_receipt_proves_nothing(journal: Journal) -> None:
    raw = audit.write_receipt(audit.receipt(journal, journal.last))
    for old, new in ((b"jordi", b"maria"), (b'"line":6', b'"line":7'), (b"signed-in", b"signed-im")):
        assert old in raw
        with pytest.raises((Malformed, BadSignature)):
            audit.check_receipt(raw.replace(old, new), KEY.public)
    for start in range(len(raw)):
        changed = bytearray(raw)
        changed[start] ^= 1
        with pytest.raises((Malformed, BadSignature)):
            audit.check_receipt(bytes(changed), KEY.public)
    for garbage in (b"", b"{}", b"null", b"[" * 5_000, b"\xff", raw + b" ", raw[:-1]):
        with pytest.raises(Malformed):
            audit.check_receipt(garbage, KEY.public)


def test_there_is_no_receipt_of_a_line_that_is_another_one(journal: Journal) -> None:
    with pytest.raises(LedgerError, match="not the one asked for"):
        audit.receipt(journal, Position(3, bytes(32)))
    with pytest.raises(LedgerError, match="no line 99"):
        audit.receipt(journal, Position(99, bytes(32)))
