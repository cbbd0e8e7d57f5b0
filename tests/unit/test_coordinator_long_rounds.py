"""Rounds of long vectors: what is stored of them, that nothing is read twice, and an older coordinator's database."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import flute.coordinator.plans.exchange as exchange
import flute.coordinator.runs as runs
import flute.coordinator.turns as turns
from flute.algorithms.linear import LogisticRegressionAlgorithm
from flute.coordinator.doors.results import study_release
from flute.coordinator.rounds import Rounds
from flute.coordinator.runs import Runner
from flute.coordinator.store import open_store
from flute.defaults import ROUND_TIMEOUT_S
from flute.errors import MisuseError
from flute.messages.answer import MaskedAnswer, OwnTotal, Receipt
from flute.messages.envelope import ID_SIZE, envelope_digest, parse_envelope, write_envelope
from flute.messages.numbers import read_numbers, write_numbers
from flute.messages.protocol import Masked
from flute.messages.question import OwnQuestion
from flute.primitives.keys import SigningKey
from flute.study.agreement import Agreement
from support.folders import quick_folder
from support.inprocess import NOW, InProcessFederation
from support.studies import EXACT, MODEL, PRIVATE, study
from unit.test_study_rounds import people

MIGRATIONS = Path(runs.__file__).parent / "migrations"


def federation(folder: Path, agreement: Agreement) -> InProcessFederation:
    data = people(1, {"north": 60, "south": 50, "west": 40})
    return InProcessFederation(folder, data, [v.variable for v in agreement.variables])


# --- histories --------------------------------------------------------------------------------------


def test_a_restarted_coordinator_reads_the_very_history_that_the_first_one_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Any] = []
    real = runs.next_step

    def watched(agreement: Agreement, track: Any, history: Any, results: Any) -> Any:
        kept.append((track, history))
        return real(agreement, track, history, results)

    monkeypatch.setattr(runs, "next_step", watched)
    agreement = study(EXACT, MODEL)
    with quick_folder() as folder:
        fed = federation(folder, agreement)
        read: list[int] = []
        total = fed.rounds.total
        monkeypatch.setattr(fed.rounds, "total", lambda number: read.append(number) or total(number))
        fed.propose(agreement)
        fed.consent(agreement.study)
        fed.runner.run(agreement.study)
        fed.settle()
        assert len(kept) > 3
        assert len(read) == len(set(read)) == len(kept) - 1, "a total was read twice"
        track, history = kept[-1]
        row = fed.rounds.study(agreement.study)
        again = Runner(fed.rounds, fed.desk)._history(row, track, fed.rounds.rounds(agreement.study))
        for one, other in zip(history, again, strict=True):
            assert one.parameters.tobytes() == other.parameters.tobytes()
            assert one.total.tobytes() == other.total.tobytes()
            assert one.sigma == other.sigma
            with pytest.raises(ValueError, match="read-only"):
                one.total[0] = 1.0
        assert fed.runner._histories == {}, "what belongs to an ended study was not dropped"
        fed.close()


# --- what is kept of a round --------------------------------------------------------------------------


RECEIPT = Receipt(bytes(32), 1, bytes(32))


def question_of(made: int, size: int, hub: str) -> bytes:
    return write_envelope(
        OwnQuestion(bytes(32), "q", 0, 0, bytes(size)), key=SigningKey(bytes(32)), sender="coordinator",
        recipient=hub, roster_version=7, now=NOW, rand=bytes(ID_SIZE), study="long", round=made,
    )  # fmt: skip


def one_round(rounds: Rounds, number: int, size: int) -> int:
    """A round over three hubs, as the runner stores it, with vectors of `size` bytes."""
    made = rounds.add_round("long", "q", "", number, 0, bytes(size), 0.0, 1.0)
    sent = []
    for hub in ("north", "south", "west"):
        envelope = question_of(made, size, hub)
        sent.append((hub, "secure-question", envelope_digest(envelope), envelope, b"small"))
    rounds.advance(made, {"state": "asked"}, sent)
    for hub in ("north", "south", "west"):
        answer = MaskedAnswer(Masked(bytes(32), hub, size, bytes(32), b"\x01" * size, bytes(64)), RECEIPT)
        rounds.add_answer(made, hub, "masked-answer", bytes(32), b"", msgspec.msgpack.encode(answer))
    rounds.end(made, {"state": "opened", "total": bytes(size)})
    return made


def used_bytes(path: Path) -> int:
    """Of the database and the files beside it."""
    files = sum(file.stat().st_size for file in path.with_name("coordinator-bodies").iterdir())
    with sqlite3.connect(path) as db:
        page, pages, free = (db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_size", "page_count",
                                                                             "freelist_count"))  # fmt: skip
    return page * (pages - free) + files


def test_the_database_grows_by_what_was_asked_and_opened_alone() -> None:
    size = 400_000
    with quick_folder() as folder:
        engine = open_store(folder / "coordinator.db")
        rounds = Rounds(engine)
        one_round(rounds, 0, size)
        before, whole = used_bytes(folder / "coordinator.db"), (folder / "coordinator.db").stat().st_size
        for number in range(1, 9):
            one_round(rounds, number, size)
        grown = used_bytes(folder / "coordinator.db") - before
        engine.dispose()
        assert grown < 8 * 2 * size * 1.3, "messages of ended rounds stayed"
        assert (folder / "coordinator.db").stat().st_size - whole < 8 * 2 * size * 1.3 + 6 * size


def test_of_a_large_message_stay_its_header_signature_and_receipt() -> None:
    with quick_folder() as folder:
        engine = open_store(folder / "coordinator.db")
        rounds = Rounds(engine)
        made = one_round(rounds, 0, 200_000)
        (first, *_) = rounds.messages(made, "secure-question", outgoing=True)
        kept = parse_envelope(first.envelope)
        assert (kept.header.recipient, kept.header.roster_version, kept.body) == ("north", 7, b"")
        answer = msgspec.msgpack.decode(rounds.answer(made, "west", "masked-answer"), type=MaskedAnswer)
        assert (answer.receipt, answer.masked.length, answer.masked.vector) == (RECEIPT, 200_000, b"")
        small = one_round(rounds, 1, 100)
        (first, *_) = rounds.messages(small, "secure-question", outgoing=True)
        assert parse_envelope(first.envelope).body != b"", "a small message was not kept whole"
        engine.dispose()


def test_what_a_crash_leaves_of_a_transition_is_deleted_and_what_rows_name_stays() -> None:
    with quick_folder() as folder:
        engine = open_store(folder / "coordinator.db")
        rounds = Rounds(engine)
        made = rounds.add_round("long", "q", "", 0, 0, b"\x07" * 200_000, 0.0, 1.0)
        files = folder / "coordinator-bodies"
        before = sorted(files.iterdir())
        with pytest.raises(sa.exc.IntegrityError):
            rounds.add_round("long", "q", "", 0, 0, bytes(200_000), 0.0, 1.0)
        assert sorted(files.iterdir()) == before, "a transition that failed left its file"
        (files / "stray").write_bytes(bytes(10))
        again = Rounds(engine)
        again.sweep()
        assert sorted(files.iterdir()) == before
        assert again.parameters(made) == b"\x07" * 200_000
        before[0].unlink()
        with pytest.raises(MisuseError, match="gone"):
            again.parameters(made)
        engine.dispose()


def test_a_study_that_is_stopped_gives_up_the_messages_of_its_open_round() -> None:
    with quick_folder() as folder:
        engine = open_store(folder / "coordinator.db")
        rounds = Rounds(engine)
        made = rounds.add_round("long", "q", "", 0, 0, b"", 0.0, 1.0)
        envelope = question_of(made, 200_000, "north")
        rounds.advance(made, {"state": "asked"}, [("north", "secure-question", bytes(32), envelope, b"")])
        assert len(list((folder / "coordinator-bodies").iterdir())) == 1
        rounds.stop_study("long", "enough", 1, 1.0)
        assert list((folder / "coordinator-bodies").iterdir()) == []
        (message,) = rounds.messages(made, "secure-question", outgoing=True)
        assert parse_envelope(message.envelope).header.recipient == "north"
        engine.dispose()


WIDE = """\
  wide:
    algorithm: describe
    variables: [age]
    bins: 512
"""


@pytest.mark.parametrize("per_hub", [False, True])
def test_a_study_of_long_vectors_has_its_receipts_when_its_messages_are_lighter(
    monkeypatch: pytest.MonkeyPatch, per_hub: bool
) -> None:
    monkeypatch.setattr("flute.transport.bodies.LARGE_BODY_BYTES", 3_000)
    agreement = study(PRIVATE, WIDE + "    per_hub: true\n    share: 1\n") if per_hub else study(EXACT, WIDE)
    with quick_folder() as folder:
        fed = federation(folder, agreement)
        release = fed.run(agreement)
        kind, body = ("own-total", OwnTotal) if per_hub else ("masked-answer", MaskedAnswer)
        for r in fed.rounds.rounds(agreement.study):
            assert len(fed.rounds.total(r.id)) > 3_000
            for hub in (r.party,) if per_hub else fed.hubs:
                stored = fed.rounds.answer(r.id, hub, kind)
                assert len(stored) < 1_000
                assert msgspec.msgpack.decode(stored, type=body).receipt.line > 0
        assert [len(receipt["journal"]) for receipt in release["receipts"]] == ([1] * 3 if per_hub else [3])
        row = fed.rounds.study(agreement.study)
        assert row is not None
        assert msgspec.to_builtins(study_release(fed.rounds, row)) == release
        fed.close()


def test_control_before_a_round_has_ended_nothing_is_taken_from_its_messages() -> None:
    """They are offered again byte for byte, and added up."""
    with quick_folder() as folder:
        engine = open_store(folder / "coordinator.db")
        rounds = Rounds(engine)
        made = rounds.add_round("long", "q", "", 0, 0, bytes(800_000), 0.0, 1.0)
        envelope = question_of(made, 800_000, "north")
        rounds.advance(made, {"state": "asked"}, [("north", "secure-question", bytes(32), envelope, b"")])
        assert Rounds(engine).messages(made, "secure-question", outgoing=True)[0].envelope == envelope
        engine.dispose()


# --- steps that take time -------------------------------------------------------------------------------


def at_work(reply_to: Any) -> Any:
    """What a hub says that computes its answer still."""
    return lambda raw: None if parse_envelope(raw).header.kind == "secure-question" else reply_to(raw)


@pytest.mark.parametrize(("extra", "offers"), [(0.0, 60), (900.0, 7)])
def test_a_step_that_takes_time_is_given_it_and_its_question_is_offered_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch, extra: float, offers: int
) -> None:
    if extra:
        monkeypatch.setattr(LogisticRegressionAlgorithm, "seconds", lambda *_: extra, raising=False)
    agreement, clock = study(EXACT, MODEL), [1000.0]
    for module in (turns, exchange):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0], time=lambda: 0.0))
    with quick_folder() as folder:
        fed = federation(folder, agreement)
        fed.propose(agreement)
        fed.consent(agreement.study)
        monkeypatch.setattr(fed.hubs["west"].service, "reply_to", at_work(fed.hubs["west"].service.reply_to))
        fed.runner.run(agreement.study)
        fed.settle()
        (r,) = fed.rounds.rounds(agreement.study)
        assert (r.state, r.deadline) == ("asked", ROUND_TIMEOUT_S + extra)
        sent: list[str] = []
        monkeypatch.setattr(fed.desk, "send", lambda hub, envelope: sent.append(hub))
        for _ in range(300):
            clock[0] += 1.0
            fed.runner.tick(agreement.study)
        assert sent == ["west"] * offers
        fed.close()


def test_the_others_are_waited_for_as_long_again_as_the_first_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogisticRegressionAlgorithm, "seconds", lambda *_: 900.0, raising=False)
    agreement, clock = study(EXACT, MODEL), [1000.0]
    for module in (turns, exchange):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0], time=lambda: 0.0))
    with quick_folder() as folder:
        fed = federation(folder, agreement)
        fed.propose(agreement)
        fed.consent(agreement.study)
        monkeypatch.setattr(fed.hubs["west"].service, "reply_to", at_work(fed.hubs["west"].service.reply_to))
        fed.runner.run(agreement.study)
        fed.settle()
        (r,) = fed.rounds.rounds(agreement.study)
        taken = turns.Turns(fed.rounds, fed.desk, ROUND_TIMEOUT_S)
        taken._asked_at[r.id] = clock[0] - 100
        assert not taken.waited(r, ["north", "south"], list(fed.hubs), 2)
        clock[0] += 99
        assert not taken.waited(r, ["north", "south"], list(fed.hubs), 2)
        clock[0] += 2
        assert taken.waited(r, ["north", "south"], list(fed.hubs), 2)
        fed.close()


# --- an older database --------------------------------------------------------------------------------


def test_rounds_of_an_older_database_are_read_as_they_were(tmp_path: Path) -> None:
    asked = {1: [0.1, -2.5e-300, 1e308], 2: [], 3: list(np.linspace(0, 1, 1000))}
    path = tmp_path / "coordinator.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for number, numbers in asked.items():
            connection.execute(
                sa.text(
                    "INSERT INTO round (id, study, question, party, step, attempt, state, why, parameters, total,"
                    " sigma, deadline, began_at, ended_at)"
                    " VALUES (:id, 'old', 'q', '', :id, 0, 'opened', '', :numbers, :total, 2.5, 1, 2, 3)"
                ),
                {"id": number, "numbers": json.dumps(numbers), "total": bytes([number] * 8)},
            )
    engine.dispose()
    new = open_store(path)
    rounds = Rounds(new)
    for number, numbers in asked.items():
        assert read_numbers(rounds.parameters(number)).tolist() == numbers
        assert rounds.total(number) == bytes([number] * 8)
    assert [(r.step, r.state, r.sigma, r.ended_at) for r in rounds.rounds("old")] == [
        (n, "opened", 2.5, 3.0) for n in asked
    ]
    large = {"envelope": question_of(3, 200_000, "north"), "round": 3}
    with new.begin() as connection:  # a round that was under way
        connection.execute(
            sa.text(
                "INSERT INTO message (round, hub, kind, outgoing, digest, envelope, body)"
                " VALUES (:round, 'north', 'secure-question', 1, x'00', :envelope, x'00')"
            ),
            large,
        )
    assert rounds.messages(3, "secure-question", outgoing=True)[0].envelope == large["envelope"]
    rounds.end(3, {"state": "opened"})
    assert parse_envelope(rounds.messages(3, "secure-question", outgoing=True)[0].envelope).body == b""
    added = rounds.add_round("old", "q", "", 9, 0, write_numbers(np.array([4.5])), 0.0, 1.0)
    assert read_numbers(rounds.parameters(added)).tolist() == [4.5]
    with pytest.raises(sa.exc.IntegrityError):
        rounds.add_round("old", "q", "", 9, 0, b"", 0.0, 1.0)
    new.dispose()
