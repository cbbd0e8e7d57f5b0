"""kill -9 of every part at every step: a study goes on or stops with a reason, and no privacy is lost by it.

Two layers. In one process, exhaustively: a party dies before or after its n-th write, for every n. With real
processes: services and relays are killed in the middle of rounds. After each: no reservation lost, no records
read twice for one release, no second answer to one release or under one ticket, budget kept, journals whole.
The default run takes a sample; `-m soak` takes all of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.errors import Refusal
from flute.hub.store import HubPolicy
from flute.messages.answer import Consent, OwnTotal, Receipt
from flute.messages.envelope import Header
from flute.messages.question import Proposal
from flute.study.agreement import Agreement, agreement_digest, sign_agreement, write_agreement
from support.crashes import (
    Crash,
    CrashingFederation,
    When,
    check_all,
    check_said_once,
    check_tidy,
)
from support.folders import quick_folder
from support.hostile import marked_people
from support.inprocess import InProcessFederation
from support.killing import HUBS, STATES, KilledFederation
from support.parties import Party
from support.studies import MODEL, PRIVATE, private_model, study
from support.wiretap import Said

VARIABLES = tuple(v.variable for v in study().variables)
OWN = """\
  cohort:
    algorithm: describe
    variables: [sex]
    per_hub: true
    bins: 4
    share: SHARE
"""
POOLED = OWN.replace("cohort", "all").replace("    per_hub: true\n", "")
SHORT = study(PRIVATE, (OWN + POOLED).replace("SHARE", "0.15"))
"""One own round per hub and one masked round, with budget left for repeats."""
LONG = study(PRIVATE, OWN.replace("SHARE", "0.15") + private_model(0.3))
"""Three masked rounds, so that tickets are handed on from one to the next."""
SPENT = study(PRIVATE, OWN.replace("SHARE", "1.0"))
"""No budget left for a repeat."""
PARTIES = ("north", "west", "coordinator")

pytestmark = pytest.mark.requirement("URS-11")


@pytest.fixture
def quick() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


def federation(folder: Path, **policy: Any) -> CrashingFederation:
    return CrashingFederation(folder, marked_people(n=12), VARIABLES, policy=HubPolicy(**policy))


def points_of(agreement: Agreement, party: str) -> int:
    """How many writes `party` makes in an undisturbed study: what a run with a crash is held against."""
    with quick_folder() as folder:
        fed = federation(folder)
        before = fed.points[party].count
        assert fed.drive(agreement) == ("finished", "")
        check_all(fed, agreement, "finished", "")
        check_tidy(fed, agreement)
        return fed.points[party].count - before


def run_with_crash(agreement: Agreement, party: str, number: int, when: When) -> tuple[str, str]:
    with quick_folder() as folder:
        fed = federation(folder)
        at = fed.points[party].count + number
        fed.points[party].dies = lambda n, w: n == at and w == when
        state, why = fed.drive(agreement)
        assert fed.points[party].crashes == 1, "nothing died; this run shows nothing"
        check_all(fed, agreement, state, why)
        if state == "finished":
            check_tidy(fed, agreement)
        fed.close()
        return state, why


def sweep(agreement: Agreement, party: str, *, stride: int = 1) -> None:
    """Die before and after every `stride`-th write. With budget left, every such study still finishes."""
    for number in range(0, points_of(agreement, party), stride):
        for when in ("before", "after"):
            state, why = run_with_crash(agreement, party, number, when)
            assert state == "finished", f"{when} point {number} of {party}: {why}"


# --- in one process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("party", "stride"), [("north", 5), ("coordinator", 13)])
def test_a_party_that_dies_around_a_write_costs_a_restart_and_not_the_study(party: str, stride: int) -> None:
    sweep(SHORT, party, stride=stride)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("party", PARTIES)
@pytest.mark.parametrize("agreement", [SHORT, LONG], ids=["one round", "three rounds"])
def test_a_party_that_dies_around_any_write_costs_a_restart_and_not_the_study(
    agreement: Agreement, party: str
) -> None:
    sweep(agreement, party)


def storm(seed: int, chance: float) -> None:
    """Every party may die around every write, also of its own recovery."""
    rng = random.Random(seed)
    with quick_folder() as folder:
        fed = federation(folder)
        for party in ("coordinator", *fed.hubs):
            fed.points[party].dies = lambda n, w: rng.random() < chance
        state, why = fed.drive(LONG, patience=200)
        assert sum(p.crashes for p in fed.points.values()) > 0
        for points in fed.points.values():
            points.dies = lambda n, w: False
        fed.time_passes()
        check_all(fed, LONG, state, why)
        fed.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_deaths_ends_in_a_named_state_and_says_nothing_twice(seed: int) -> None:
    storm(seed, chance=0.01)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chance", [0.003, 0.01, 0.03])
def test_storms_of_deaths_end_in_a_named_state_and_say_nothing_twice(chance: float) -> None:
    for seed in range(100, 160):
        storm(seed, chance)


def test_a_death_between_charge_and_answer_is_not_answered_later_and_says_so(quick: Path) -> None:
    """The whole budget is in that one question: the repeat is refused, and the study says why it stopped."""
    fed = federation(quick)
    dead = False

    def dies(number: int, when: When) -> bool:
        """After the line that says that records are about to be read."""
        nonlocal dead
        kinds = [line.kind for line in fed.hubs["north"].parts.journal.lines()]
        dead_now = not dead and when == "after" and "record-source-opened" in kinds
        dead = dead or dead_now
        return dead_now

    fed.points["north"].dies = dies
    state, why = fed.drive(SPENT)
    assert (state, dead) == ("stopped", True)
    assert "north refused (budget-exceeded)" in why
    check_all(fed, SPENT, state, why)


def test_the_sweep_would_see_a_hub_that_answers_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a hub that computes again what it had charged before it died reads the records twice."""
    monkeypatch.setattr("flute.hub.rounds.round._require_unanswered", lambda reservation: None)
    with pytest.raises(AssertionError, match="records were read twice"):
        sweep(SHORT, "north")


def test_the_checks_would_see_a_second_answer_to_one_release() -> None:
    """Control: two totals under one release id, as averaging of fresh noise would need them."""
    header = Header(1, "own-total", "heart", 1, "north", "coordinator", 1, bytes(16), bytes(32), 1, 2, True)
    receipt = Receipt(bytes(32), 1, bytes(32))
    said = [Said(header, OwnTotal(total, receipt), b"", bytes(32)) for total in (b"a" * 8, b"b" * 8)]
    check_said_once(said[:1], {}, lambda hub, release: True)
    with pytest.raises(AssertionError, match="two different answers"):
        check_said_once(said, {}, lambda hub, release: True)
    with pytest.raises(AssertionError, match="nobody had paid"):
        check_said_once(said[:1], {}, lambda hub, release: False)


def test_a_withdrawal_that_a_death_interrupts_can_be_repeated_and_then_holds(quick: Path) -> None:
    """Wherever it dies: after the steward's second try nothing of the study is answered, and the study stops."""
    number = 0
    while True:
        folder = quick / str(number)
        folder.mkdir()
        fed = federation(folder)
        fed.propose_only(SHORT)
        fed.settle()
        for hub in fed.hubs.values():
            hub.steward.decide("heart", grant=True, person="eva")
        fed.settle()
        at = fed.points["west"].count + number
        fed.points["west"].dies = lambda n, w, at=at: n == at and w == "after"  # type: ignore[misc]
        for _ in range(2):
            with fed.alive("west"), suppress(Refusal):  # where the first try had come through
                fed.hubs["west"].steward.withdraw("heart", person="eva")
        if fed.points["west"].crashes == 0:
            break
        assert fed.hubs["west"].parts.store.study("heart").state == "withdrawn"
        state, why = fed.drive(SHORT)
        assert state == "stopped"
        assert "west" in why
        assert fed.hubs["west"].source.opened == []
        check_all(fed, SHORT, state, why)
        number += 1
    assert number >= 4  # journal, store, secrets, channel


# --- what deaths brought to light -------------------------------------------------------------------------


def test_a_study_that_one_hub_refuses_stops_once_and_asks_nobody_again(quick: Path) -> None:
    """North's refusal ends the study: the other hubs' rounds are not begun anew after it."""
    fed = federation(quick)
    fed.propose_only(SHORT)
    fed.settle()
    for hub in fed.hubs.values():
        hub.steward.decide("heart", grant=True, person="eva")
    fed.settle()
    fed.hubs["north"].steward.set_policy(HubPolicy(hidden=("sex",)), person="eva")
    state, why = fed.drive(SHORT)
    assert (state, why.startswith("north refused (field-hidden)")) == ("stopped", True)
    rounds = fed.rounds.rounds("heart")
    assert {(r.party, r.attempt) for r in rounds} == {(hub, 0) for hub in HUBS}
    assert not [r for r in rounds if r.state not in ("failed", "opened")]
    for name in ("south", "west"):
        assert fed.hubs[name].parts.store.study("heart").state == "closed"
    check_tidy(fed, SHORT)


def test_a_proposal_that_arrives_late_does_not_change_the_hubs_study_key(quick: Path) -> None:
    """A coordinator that comes back proposes again; the key given with the consent must stay the one in use."""
    fed = federation(quick)
    fed.propose_only(LONG)
    fed.settle()
    for hub in fed.hubs.values():
        hub.steward.decide("heart", grant=True, person="eva")
    raw = write_agreement(LONG)
    body = Proposal(raw, sign_agreement(raw, Party("ada").signing))

    def propose_late() -> None:
        fed.desk.send("north", fed.desk.write(body, hub="north", study="heart")[1])

    def keys() -> int:
        consents = [s.body for s in fed.said if isinstance(s.body, Consent)]
        return len({msgspec.msgpack.encode(consent.key) for consent in consents})

    propose_late()
    fed.settle()
    assert keys() == len(fed.hubs), "a second key was given for one study"
    fed.runner.run("heart")
    late = 0
    for _ in range(200):  # message by message, with a late proposal in every state of a masked round
        now = fed.rounds.rounds("heart")[-1]
        if not now.party and now.state in ("asked", "masked", "echoed"):
            propose_late()
            late += 1
        for name in fed.hubs:
            fed._deliver_to_hub(name)
            fed._deliver_to_coordinator()
    assert late > 5
    assert fed.drive(LONG) == ("finished", "")
    assert keys() == len(fed.hubs)
    assert {r.state for r in fed.rounds.rounds("heart")} == {"opened"}, "a late proposal cost a round"
    assert agreement_digest(raw) == fed.rounds.study("heart").digest  # type: ignore[union-attr]


def test_a_coordinator_that_was_away_longer_than_a_round_may_last_does_not_give_the_round_up(quick: Path) -> None:
    """Its hubs answered or waited all the time; a repeat would charge their patients again for nothing."""
    fed = federation(quick)
    fed.propose_only(SHORT)
    fed.settle()
    for hub in fed.hubs.values():
        hub.steward.decide("heart", grant=True, person="eva")
    fed.settle()
    fed.runner.run("heart")
    for r in fed.rounds.rounds("heart"):
        fed.rounds.advance(r.id, {"deadline": 1.0}, [])
    fed.open_coordinator()
    fed.runner.tick_all()
    assert fed.drive(SHORT) == ("finished", "")
    assert {r.state for r in fed.rounds.rounds("heart")} == {"opened"}


def test_a_withdrawal_after_the_end_does_not_unmake_a_finished_study(quick: Path) -> None:
    fed = federation(quick)
    assert fed.drive(SHORT) == ("finished", "")
    west = fed.hubs["west"].parts
    gone = msgspec.structs.replace(west.store.study("heart"), state="withdrawn")
    west.channel.send("coordinator", west.envelope(west.decision(gone), "heart", b"", fed.now))
    fed.settle()
    row = fed.rounds.study("heart")
    assert row is not None
    assert row.state == "finished"
    assert fed.rounds.consents("heart")["west"]["decision"] == "withdrawn"


def test_a_crash_is_nothing_that_the_service_could_catch(quick: Path) -> None:
    """Control of the method: the service's own handlers of failures do not see the crash."""
    fed = InProcessFederation(quick, marked_people(n=12), VARIABLES)
    hub = fed.hubs["north"]

    def dies(*_: object) -> Any:
        raise Crash

    hub.parts.journal._append = dies  # type: ignore[method-assign, assignment]
    with pytest.raises(Crash):
        hub.service.reply_to(b"anything")


# --- real processes ---------------------------------------------------------------------------------------

MANY = "".join(MODEL.replace("model:", f"model-{n}:") for n in range(4))
EXACT_STUDY = study("exact: {max_numbers: 200000}", MANY)
"""Some thirty rounds of four steps each: enough for a step of a round to be met while it lasts."""
PRIVATE_STUDY = study(PRIVATE, OWN.replace("SHARE", "0.1") + "".join(
    private_model(0.08).replace("model:", f"model-{n}:") for n in range(6)
))  # fmt: skip
VICTIMS = ("hub relay", "hub service", "coordinator relay", "coordinator service")


def kill(fed: KilledFederation, victim: str, hub: str = "south") -> None:
    party = hub if victim.startswith("hub") else "coordinator"
    (fed.kill_service if victim.endswith("service") else fed.kill_relay)(party)


def renamed(agreement: Agreement, name: str) -> Agreement:
    return msgspec.structs.replace(agreement, study=name)


@pytest.mark.timeout(120)
def test_kill_9_of_each_part_in_the_middle_of_a_study_of_real_processes(tmp_path: Path) -> None:
    """One study, four deaths in different steps of its rounds."""
    fed = KilledFederation(tmp_path, EXACT_STUDY)
    try:
        fed.begin(EXACT_STUDY)
        met = 0
        for number, (victim, state) in enumerate(zip(VICTIMS, ("masked", "asked", "echoed", "asked"), strict=True)):
            if fed.wait_round("heart", number, state):
                kill(fed, victim)
                met += 1
        assert met == len(VICTIMS), "the study was over before every part had died"
        state, why = fed.wait_ended("heart")
        assert state == "finished", why
        fed.check()
    finally:
        fed.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_9_of_each_part_at_each_step_of_real_processes(tmp_path: Path) -> None:
    """Every part, in every state of a round, in private and in exact studies; all over one federation."""
    fed = KilledFederation(tmp_path, EXACT_STUDY)
    ends: dict[str, int] = {}
    try:
        for mode, agreement in (("exact", EXACT_STUDY), ("private", PRIVATE_STUDY)):
            for victim in VICTIMS:
                for state in STATES:
                    name = f"{mode}-{victim.replace(' ', '-')}-{state}"
                    ended = one_killed_study(fed, renamed(agreement, name), victim, state)
                    ends[ended] = ends.get(ended, 0) + 1
                    fed.check()
        assert ends.get("finished", 0) >= 24, ends
    finally:
        fed.close()


def one_killed_study(fed: KilledFederation, agreement: Agreement, victim: str, state: str) -> str:
    fed.begin(agreement)
    if fed.wait_round(agreement.study, 1, state):
        kill(fed, victim)
    ended, why = fed.wait_ended(agreement.study)
    assert ended == "finished" or len(why) > 10
    fed.wait_connected()
    return ended
