"""To allow more takes two people with two keys, in time; to allow less takes one. Every step is a journal line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.errors import BadSignature, BudgetExceeded, Malformed, MisuseError, NotAllowed, Replayed, Stale
from flute.hub.decisions.change import CHANGE_LIFETIME_S, Change, PolicyChange, StewardIn, StewardOut
from flute.hub.decisions.changes import Changes
from flute.hub.parts import Parts
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import HubPolicy, HubStore, narrower, policy_digest, wider
from flute.ledger.budgets.budget import Ledger
from flute.ledger.journals.journal import Journal
from flute.ledger.lines.budget import ChangeConfirmed, ChangeProposed, StewardEnrolled
from flute.ledger.lines.entries import ConsentGranted, PolicySet
from flute.primitives.keys import SigningKey, digest
from flute.trust.people import write_card
from support.ledger_faults import charge

KEY = SigningKey(b"h" * 32)
PEOPLE = {name: SigningKey(digest(name.encode())) for name in ("eva", "berta", "joan")}
NOW = 2_000_000_000
MORE = HubPolicy(epsilon=5.0)
pytestmark = [pytest.mark.requirement("F-SRS-7"), pytest.mark.requirement("F-SRS-8")]


@dataclass
class Clock:
    now: int = NOW


@dataclass
class Hub:
    folder: Path
    clock: Clock
    parts: Parts
    changes: Changes

    def propose(self, wanted: Any = None, *, by: str = "eva", key: str = "", at: int | None = None) -> Change:
        at = self.clock.now if at is None else at
        change = Change(KEY.public, wanted or PolicyChange(MORE), by, at)
        return self.changes.propose(change, change.proposed_by(PEOPLE[key or by]))

    def confirm(self, change: Change, *, by: str = "berta", key: str = "") -> Change:
        return self.changes.confirm(change.id, by, change.confirmed_by(PEOPLE[key or by]))

    def said(self) -> list[str]:
        return [line.entry.says() for line in self.parts.journal.lines()]

    def policy(self) -> HubPolicy:
        return self.parts.store.policy()

    def granted(self) -> None:
        self.parts.journal.append(ConsentGranted("s1", bytes(32), bytes(32), "eva"), self.clock.now)


def open_hub(folder: Path, clock: Clock) -> Hub:
    store = HubStore(folder)
    journal = Journal.open(folder / "journal.db", KEY)
    ledger = Ledger(journal, hub_ceilings(store.policy()))
    parts = Parts(
        me="huvh", signing=KEY, sealing=None, store=store, journal=journal, ledger=ledger, trust=None,  # type: ignore[arg-type]
        sources=None, channel=None, now=lambda: clock.now,  # type: ignore[arg-type]
    )  # fmt: skip
    return Hub(folder, clock, parts, Changes(parts, threading.RLock()))


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Hub]:
    hub = open_hub(tmp_path, Clock())
    yield hub
    hub.parts.journal.close()
    hub.parts.store.close()


@pytest.fixture
def hub(empty: Hub) -> Hub:
    """Two stewards are enrolled."""
    for name in ("eva", "berta"):
        empty.changes.enrol(write_card(name, PEOPLE[name]), person="eva")
    return empty


# --- one person is enough ----------------------------------------------------------------------------


def test_to_allow_less_one_person_is_enough(hub: Hub) -> None:
    lower = HubPolicy(epsilon=2.0, epsilon_all=3.0, floor=20, hidden=("sex",))
    hub.changes.set_policy(lower, person="eva")
    assert hub.policy() == lower
    assert hub.said()[-1].startswith("eva set this hub's policy: epsilon at most 2 a study")


def test_before_anybody_relies_on_the_policy_one_person_sets_it_up(empty: Hub) -> None:
    empty.changes.set_policy(MORE, person="eva")
    assert empty.policy() == MORE
    empty.granted()
    with pytest.raises(NotAllowed, match="needs two stewards"):
        empty.changes.set_policy(HubPolicy(epsilon=6.0), person="eva")


@pytest.mark.parametrize(
    "more",
    [
        {"epsilon": 3.1}, {"epsilon_all": 6.1}, {"epsilon_catalogue": 3.1}, {"delta": 1e-5}, {"exact_allowed": True},
        {"exact_allowed": True, "max_numbers": 9_999}, {"floor": 9}, {"hidden": ()},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_allows_more_takes_two(hub: Hub, more: dict[str, Any]) -> None:
    hub.changes.set_policy(HubPolicy(hidden=("sex",)), person="eva")
    before = hub.policy()
    with pytest.raises(NotAllowed, match=r"would allow more.*Nothing was changed"):
        hub.changes.set_policy(msgspec.structs.replace(before, **more), person="eva")
    assert hub.policy() == before
    assert wider(msgspec.structs.replace(before, **more), before)


def test_less_in_one_respect_pays_for_no_more_in_another(hub: Hub) -> None:
    with pytest.raises(NotAllowed, match=r"epsilon 3\.5 a study"):
        hub.changes.set_policy(HubPolicy(epsilon=3.5, epsilon_all=1.0, floor=100), person="eva")


def test_what_two_policies_both_allow_is_wider_than_neither() -> None:
    one, other = HubPolicy(epsilon=5.0, floor=5, hidden=("a",)), HubPolicy(exact_allowed=True, hidden=("b",))
    both = narrower(one, other)
    assert (wider(both, one), wider(both, other)) == ((), ())
    assert both.hidden == ("a", "b")


# --- two people --------------------------------------------------------------------------------------


def test_a_second_stewards_word_puts_a_wider_policy_into_effect(hub: Hub) -> None:
    hub.granted()
    change = hub.propose()
    assert hub.policy() == HubPolicy()
    with pytest.raises(BudgetExceeded):
        hub.parts.ledger.reserve(charge(1, rho=0.4), now=NOW)
    hub.confirm(change)
    assert hub.policy() == MORE
    hub.parts.ledger.reserve(charge(1, rho=0.4), now=NOW)
    kinds = [type(line.entry) for line in hub.parts.journal.lines()][3:6]
    assert kinds == [ChangeProposed, ChangeConfirmed, PolicySet]
    assert [s.split(" change")[0] for s in hub.said()[3:5]] == ["eva proposed", "berta confirmed"]
    assert hub.changes.waiting() == ()


def test_the_one_who_proposed_cannot_confirm(hub: Hub) -> None:
    change = hub.propose()
    with pytest.raises(NotAllowed, match="another steward has to confirm"):
        hub.confirm(change, by="eva")
    with pytest.raises(BadSignature):
        hub.confirm(change, by="berta", key="eva")
    with pytest.raises(NotAllowed, match="joan is no steward"):
        hub.confirm(change, by="joan")
    assert hub.policy() == HubPolicy()


def test_a_name_is_not_enough_to_propose(hub: Hub) -> None:
    with pytest.raises(BadSignature):
        hub.propose(by="eva", key="joan")
    with pytest.raises(NotAllowed, match="no steward"):
        hub.propose(by="joan")
    assert hub.changes.waiting() == ()


def test_a_confirmation_of_one_change_serves_for_no_other(hub: Hub) -> None:
    small, large = hub.propose(), hub.propose(PolicyChange(HubPolicy(epsilon=50.0)))
    with pytest.raises(BadSignature):
        hub.changes.confirm(large.id, "berta", small.confirmed_by(PEOPLE["berta"]))
    with pytest.raises(BadSignature):  # a proposal's signature is no confirmation
        hub.changes.confirm(small.id, "berta", small.proposed_by(PEOPLE["berta"]))
    foreign = replace_hub(small)
    with pytest.raises(BadSignature, match="another hub"):
        hub.changes.propose(foreign, foreign.proposed_by(PEOPLE["eva"]))


def replace_hub(change: Change) -> Change:
    return msgspec.structs.replace(change, hub=SigningKey(b"o" * 32).public)


def test_a_change_is_confirmed_once_and_not_again_after_the_policy_was_lowered(hub: Hub) -> None:
    change = hub.propose()
    hub.confirm(change)
    hub.changes.set_policy(HubPolicy(), person="eva")
    with pytest.raises(Replayed):
        hub.confirm(change)
    with pytest.raises(Replayed):
        hub.changes.propose(change, change.proposed_by(PEOPLE["eva"]))
    assert hub.policy() == HubPolicy()


def test_a_change_waits_for_a_limited_time_and_a_clock_set_back_does_not_revive_it(hub: Hub) -> None:
    change = hub.propose()
    hub.clock.now = NOW + CHANGE_LIFETIME_S + 1
    assert hub.changes.waiting() == ()
    with pytest.raises(Stale):
        hub.confirm(change)
    hub.clock.now = NOW - 1_000
    with pytest.raises(Stale):
        hub.confirm(change)
    hub.clock.now = NOW + CHANGE_LIFETIME_S
    hub.confirm(change)
    for at in (NOW - 1_000, NOW + CHANGE_LIFETIME_S + 1_000):
        with pytest.raises(Stale, match="clock"):
            hub.propose(PolicyChange(HubPolicy(epsilon=9.0)), at=at)


def test_one_person_can_drop_a_change(hub: Hub) -> None:
    change = hub.propose()
    hub.changes.drop(change.id, person="berta", reason="not agreed")
    with pytest.raises(Replayed):
        hub.confirm(change)
    assert hub.said()[-1] == f"berta dropped change {change.id.hex()[:12]}: not agreed"


# --- after a crash, and with another store -----------------------------------------------------------


def test_what_waits_and_who_counts_survives_a_restart(hub: Hub) -> None:
    change = hub.propose()
    hub.parts.journal.close()
    hub.parts.store.close()
    again = open_hub(hub.folder, hub.clock)
    assert again.changes.stewards() == {name: PEOPLE[name].public for name in ("eva", "berta")}
    again.confirm(change)
    assert again.policy() == MORE
    again.parts.journal.close()
    again.parts.store.close()


def test_an_older_store_brings_no_ended_change_back(hub: Hub) -> None:
    change = hub.propose()
    (kept,) = hub.parts.store.changes().values()
    hub.confirm(change)
    hub.changes.set_policy(HubPolicy(), person="eva")
    hub.parts.store.put_change(change.id, kept)
    with pytest.raises(Replayed):
        hub.confirm(change)


def test_a_change_that_was_put_into_the_store_by_hand_is_none(hub: Hub) -> None:
    change = Change(KEY.public, PolicyChange(HubPolicy(epsilon=50.0)), "eva", NOW)
    body = {"change": change, "signature": change.proposed_by(PEOPLE["eva"])}
    hub.parts.store.put_change(change.id, msgspec.msgpack.encode(body))
    with pytest.raises(MisuseError, match="No such change"):
        hub.confirm(change)
    proposed = hub.propose()
    hub.parts.store.put_change(proposed.id, msgspec.msgpack.encode(body))
    with pytest.raises(MisuseError, match="altered"):
        hub.changes.confirm(proposed.id, "berta", change.confirmed_by(PEOPLE["berta"]))


# --- who counts --------------------------------------------------------------------------------------


def test_only_the_first_two_are_enrolled_by_one_person(hub: Hub) -> None:
    card = write_card("joan", PEOPLE["joan"])
    with pytest.raises(NotAllowed, match="needs both"):
        hub.changes.enrol(card, person="eva")
    hub.confirm(hub.propose(StewardIn("joan", PEOPLE["joan"].public)))
    assert set(hub.changes.stewards()) == {"eva", "berta", "joan"}
    hub.confirm(hub.propose(StewardOut("eva"), by="joan"))
    assert set(hub.changes.stewards()) == {"berta", "joan"}
    with pytest.raises(NotAllowed, match="no steward"):
        hub.propose(by="eva")
    with pytest.raises(NotAllowed, match="Two stewards have to remain"):
        hub.propose(StewardOut("joan"), by="berta")


def test_a_removed_proposers_change_is_not_confirmed(hub: Hub) -> None:
    hub.confirm(hub.propose(StewardIn("joan", PEOPLE["joan"].public)))
    change = hub.propose()
    hub.confirm(hub.propose(StewardOut("eva"), by="berta"), by="joan")
    with pytest.raises(NotAllowed, match="eva is no steward"):
        hub.confirm(change)


def test_one_key_is_one_person(empty: Hub) -> None:
    empty.changes.enrol(write_card("eva", PEOPLE["eva"]), person="eva")
    for card in (write_card("eva", PEOPLE["berta"]), write_card("eva-two", PEOPLE["eva"])):
        with pytest.raises(NotAllowed, match="two stewards are two people"):
            empty.changes.enrol(card, person="eva")
    with pytest.raises(NotAllowed, match="only one steward is enrolled"):
        empty.propose()
    with pytest.raises(Malformed):
        empty.changes.enrol("no card", person="eva")


def test_an_enrolment_is_in_the_journal_with_its_key(hub: Hub) -> None:
    lines = [line.entry for line in hub.parts.journal.lines() if isinstance(line.entry, StewardEnrolled)]
    assert [(e.person, e.steward, e.public) for e in lines][1] == ("eva", "berta", PEOPLE["berta"].public)


def test_the_journal_names_the_policy_that_is_stored(hub: Hub) -> None:
    hub.confirm(hub.propose(PolicyChange(HubPolicy(epsilon=5))))  # typed as a whole number
    (line,) = [x.entry for x in hub.parts.journal.lines() if isinstance(x.entry, PolicySet)]
    assert line.policy == policy_digest(hub.policy())
    assert replace(hub.clock).now == NOW
