"""Plan secagg-enclave in a real study: neither masks nor enclaves can be left out, and anybody may die."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.test_study_enclaves import HUBS, NAMES, SNP, charged, federation, planned

from flute.coordinator import turns
from flute.coordinator.plans.split import SplitRounds
from flute.coordinator.runs import Runner
from flute.errors import PeerUnreachable, ProtocolAbortedError, StudyFileError
from flute.hub.service import HubService
from flute.ledger import audit
from flute.messages.answer import Refused, SplitAnswer
from flute.messages.enclave import AggregatorCall, EnclaveDuty, EnclaveFinish
from flute.messages.question import EchoesSaid, SecureQuestion, SplitQuestion, SurvivorsSaid
from flute.study.agreement import Agreement, PlanChoice
from flute.study.files.check import check_study
from support.inprocess import InProcessFederation
from support.studies import under_plan

PLAN = "secagg-enclave"

pytestmark = pytest.mark.requirement("F-SRS-4")


def ready(folder: Path, plan: str = PLAN) -> tuple[InProcessFederation, Agreement]:
    """A study that everybody consented to, and that is about to run."""
    agreement = planned("exact", plan)
    fed = federation(folder, agreement)
    fed.propose(agreement)
    fed.consent(agreement.study)
    return fed, agreement


def ended(fed: InProcessFederation, agreement: Agreement) -> Any:
    """The study's row, once it has finished or was stopped."""
    for _ in range(400):
        fed.settle()
        row = fed.rounds.study(agreement.study)
        assert row is not None
        if row.state in ("finished", "stopped"):
            return row
        time.sleep(0.02)
        fed.runner.tick_all()
    raise AssertionError(f"the study is still {row.state}")


def first_question(fed: InProcessFederation, agreement: Agreement) -> SplitQuestion:
    """What north is asked at first. No hub gets to see its question."""

    def kept(hub: str) -> Callable[[Any], None]:
        def dealing(delivery: Any) -> None:
            if b"split-question" in delivery.body[:400]:
                fed.hubs[hub].parts.channel.done(delivery)
            else:
                HubService.deal(fed.hubs[hub].service, delivery)

        return dealing

    for name, hub in fed.hubs.items():
        hub.service.deal = kept(name)  # type: ignore[method-assign]
    fed.runner.run(agreement.study)
    fed.settle()
    (r,) = fed.rounds.rounds(agreement.study)
    asked = {m.hub: m.body for m in fed.rounds.messages(r.id, "split-question", outgoing=True)}
    assert sorted(asked) == sorted(HUBS)
    question = msgspec.msgpack.decode(asked["north"], type=SplitQuestion)
    return msgspec.structs.replace(question, parameters=fed.rounds.parameters(r.id))


def reply(fed: InProcessFederation, asked: Any) -> Any:
    """What north says to a question that the coordinator signed."""
    _, envelope = fed.desk.write(asked, hub="north", study="heart")
    raw = fed.hubs["north"].service.reply_to(envelope)
    assert raw is not None
    return fed.desk.open(raw).body


# --- a coordinator that lies ----------------------------------------------------------------------------


@pytest.mark.requirement("NF-SRS-5")
def test_a_coordinator_cannot_leave_out_the_masks_or_the_enclaves(tmp_path: Path) -> None:
    """Asked as agreed, the same hub answers: the control."""
    fed, agreement = ready(tmp_path)
    asked = first_question(fed, agreement)
    assert asked.masked is not None
    before = len(fed.hubs["north"].source.opened)
    without = [
        msgspec.structs.replace(asked, masked=None),
        SecureQuestion(asked.agreement, asked.question, asked.step, asked.attempt, asked.parameters, asked.masked),
    ]
    for question in without:
        refused = reply(fed, question)
        assert isinstance(refused, Refused)
        assert refused.code == "wrong-study"
    assert len(fed.hubs["north"].source.opened) == before
    assert charged(fed) == 0
    assert isinstance(reply(fed, asked), SplitAnswer)
    fed.close()


def test_a_hub_of_a_study_in_enclaves_alone_answers_no_question_with_masks(tmp_path: Path) -> None:
    for plan in (PLAN, "enclave"):
        (tmp_path / plan).mkdir()
    other, masked_study = ready(tmp_path / PLAN)
    masked = first_question(other, masked_study).masked
    other.close()
    fed, agreement = ready(tmp_path / "enclave", "enclave")
    refused = reply(fed, msgspec.structs.replace(first_question(fed, agreement), masked=masked))
    assert isinstance(refused, Refused)
    assert refused.code == "wrong-study"
    fed.close()


def test_masks_of_another_round_than_the_enclaves_were_told_of_are_refused_at_no_charge(tmp_path: Path) -> None:
    fed, agreement = ready(tmp_path)
    asked = first_question(fed, agreement)
    assert asked.masked is not None
    other = msgspec.structs.replace(asked.masked, round=asked.masked.round + 1)
    refused = reply(fed, msgspec.structs.replace(asked, masked=other))
    assert isinstance(refused, Refused)
    assert "told of another question" in refused.text
    assert charged(fed) == 0
    fed.close()


def test_a_masked_vector_is_split_once_whatever_round_among_enclaves_comes_next(tmp_path: Path) -> None:
    """The coordinator draws a new check key, which makes another round among enclaves, and names the same masks."""
    fed, agreement = ready(tmp_path)
    asked = first_question(fed, agreement)
    assert isinstance(reply(fed, asked), SplitAnswer)
    before = len(fed.hubs["north"].source.opened)
    refused = reply(
        fed, msgspec.structs.replace(asked, start=msgspec.structs.replace(asked.start, check_key=bytes(32)))
    )
    assert isinstance(refused, Refused)
    assert "split once" in refused.text
    assert len(fed.hubs["north"].source.opened) == before
    fed.close()


def test_neither_the_masked_vector_nor_its_hash_leaves_a_hub(tmp_path: Path) -> None:
    """Whoever knew the masks could try out answers by the hash. Control: it is found where it is kept, at the hub."""
    fed, agreement = ready(tmp_path)
    sent = msgspec.msgpack.encode(reply(fed, first_question(fed, agreement)))
    vector = fed.hubs["north"].parts.store.vector(agreement.study)
    kept = fed.hubs["north"].parts.store.member(agreement.study)
    named = hashlib.sha256(vector).digest()
    assert len(vector) > 100
    assert kept is not None
    assert named in kept
    assert named not in sent
    assert not any(vector[at : at + 16] in sent for at in range(0, len(vector), 16))
    fed.close()


# --- whoever dies ---------------------------------------------------------------------------------------


def revive(fed: InProcessFederation, name: str) -> None:
    """Started again, with the roots under which these tests' evidence stands."""
    hub = fed.restart_hub(name)
    object.__setattr__(hub.parts, "roots", SNP.roots)
    hub.service._gate._roots = SNP.roots


@pytest.mark.parametrize("kind", [SplitQuestion, SurvivorsSaid, EchoesSaid], ids=lambda kind: str(kind.__name__))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_hub_that_dies_at_any_message_costs_a_round_at_most_and_not_the_study(
    tmp_path: Path, kind: type, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it deals with the message, or when it has, and its answer is not yet remembered."""
    monkeypatch.setattr(turns, "ASK_AGAIN_S", 0.2)
    monkeypatch.setattr(turns, "STRAGGLER_S", 0.2)
    fed, agreement = ready(tmp_path)
    south, tag, died = fed.hubs["south"], str(kind.__struct_config__.tag).encode(), False

    def dealing(delivery: Any) -> None:
        nonlocal died
        if tag not in delivery.body[:400]:
            HubService.deal(south.service, delivery)
            return
        died = True
        if after:
            monkeypatch.setattr(south.parts.store, "remember", full)
            with pytest.raises(OSError, match="disk is full"):
                south.service._answer(delivery.body, fed.now)
        south.parts.channel.done(delivery)
        revive(fed, "south")

    south.service.deal = dealing  # type: ignore[method-assign]
    fed.runner.run(agreement.study)
    row = ended(fed, agreement)
    assert died
    assert row.state == "finished", row.why
    states = [r.state for r in fed.rounds.rounds(agreement.study)]
    assert states == (["failed", "opened"] if after and kind is SplitQuestion else ["opened"])
    fed.close()


def full(*_: Any) -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_coordinator_that_dies_goes_on_where_it_was(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many times in which every hub got a message and the coordinator their answers."""
    monkeypatch.setattr(turns, "ASK_AGAIN_S", 0.2)
    fed, agreement = ready(tmp_path)
    fed.runner.run(agreement.study)
    for _ in range(steps):
        for hub in fed.hubs.values():
            if (delivery := hub.parts.channel.receive(0)) is not None:
                hub.service.deal(delivery)
        while (delivery := fed.channel.receive(0)) is not None:
            fed.runner.receive(delivery.body)
            fed.channel.done(delivery)
    fed.runner = Runner(fed.rounds, fed.desk, aggregators=fed.runner._exchange._split._aggregators)
    row = ended(fed, agreement)
    assert row.state == "finished", row.why
    assert [r.state for r in fed.rounds.rounds(agreement.study)] == ["opened"]
    fed.close()


@pytest.mark.parametrize("call", [EnclaveDuty, EnclaveFinish], ids=["before it offers", "with all boxes"])
def test_an_aggregator_that_dies_is_named_and_nothing_opens(
    tmp_path: Path, call: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays away: what hubs charged is settled, and no total is kept. Once it is back, a new study runs."""
    fed, agreement = ready(tmp_path)
    say, dead = SplitRounds._say, False

    def silent(self: SplitRounds, name: str, said: AggregatorCall, kind: Any) -> Any:
        nonlocal dead
        dead = dead or (name == "second" and isinstance(said, call))
        if dead and name == "second":
            raise ProtocolAbortedError("aggregator second does not answer")
        return say(self, name, said, kind)

    monkeypatch.setattr(SplitRounds, "_say", silent)
    fed.runner.run(agreement.study)
    row = ended(fed, agreement)
    assert row.state == "stopped"
    assert "aggregator second does not answer" in row.why
    assert not [r for r in fed.rounds.rounds(agreement.study) if fed.rounds.total(r.id)]
    paid = 0 if call is EnclaveDuty else 1
    for hub in fed.hubs.values():
        kinds = [line.kind for line in audit.history(hub.parts.journal, study="heart")]
        assert (kinds.count("reserved"), kinds.count("settled")) == (paid, paid)
    monkeypatch.setattr(SplitRounds, "_say", say)
    assert fed.run(msgspec.structs.replace(agreement, study="heart-2"))["results"]["cohort"]
    fed.close()


def test_an_aggregator_that_is_not_reached_ends_the_round_in_its_own_words(tmp_path: Path) -> None:
    fed, agreement = ready(tmp_path)

    def ask(name: str, *_: Any) -> Any:
        raise PeerUnreachable(f"aggregator {name} does not answer at /run/first")

    fed.runner._exchange._split._aggregators.ask = ask  # type: ignore[method-assign]
    fed.runner.run(agreement.study)
    assert "aggregator first does not answer at /run/first" in ended(fed, agreement).why
    fed.close()


# --- what it cannot do ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"aggregators": ()}, "at least two"),
        ({"aggregators": ("first", "first")}, "at least two"),
        ({"dropouts": 1}, "opened of all hubs or of none: write 'dropouts: 0'"),
        ({"echo": False}, "belongs to plan secagg"),
        ({"openers": 2}, "belongs to plan threshold-he"),
        ({"colluding": 2}, "at most 1"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_to_write(choice: dict[str, Any], says: str) -> None:
    asked = PlanChoice(PLAN, **({"aggregators": NAMES} | choice))
    with pytest.raises(StudyFileError, match=says):
        check_study(under_plan(planned("private"), asked, max_patients=400))
