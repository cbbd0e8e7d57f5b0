"""Allotments divide a budget and never add to it, whoever moves what, in whatever order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flute.errors import BudgetExceeded, FluteError, LedgerError, MisuseError, NotPossible
from flute.ledger.budgets.allotments import level_of
from flute.ledger.budgets.budget import Amount, Ceiling, Charge, Ledger, Level, Place, Policy
from flute.ledger.journals.journal import Journal
from flute.ledger.lines.budget import AllotmentMoved, Allotted
from flute.primitives.keys import SigningKey, digest

KEY = SigningKey(b"h" * 32)
OVER = (Ceiling(Level.STUDY, Policy(1.0, 1e-6)), Ceiling(Level.PERSONS, Policy(1.5, 1e-6)))
S1, ADA, JOAN, Q1 = Place("s1"), Place("s1", "ada"), Place("s1", "joan"), Place("s1", "ada", "q1")
pytestmark = [pytest.mark.requirement("F-SRS-8")]


def charge(number: int, rho: float, place: Place = Q1, **other: object) -> Charge:
    fields = {"delta": 0.0, "persons": "records", "mode": "private", "numbers": 0} | other
    return Charge(
        release_id=digest(number.to_bytes(8, "big")), study=place.study, question=place.question or "q1", step=0,
        asker=place.asker or "ada", rho=rho, plan="secagg", snapshot=bytes(32), **fields,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.db", KEY) as opened:
        yield opened


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    return Ledger(journal, OVER)


def allot(ledger: Ledger, place: Place, rho: float, caps: tuple[Ceiling, ...] = ()) -> None:
    ledger.allot(place, "records", Amount(rho), caps, person="eva", reason="as agreed", now=1)


def move(ledger: Ledger, source: Place, target: Place, rho: float, caps: tuple[Ceiling, ...] = ()) -> None:
    ledger.move(source, target, Amount(rho), caps, person="eva", reason="as agreed", now=2)


def held(ledger: Ledger) -> dict[str, float]:
    return {a.place.key: a.amount.rho for a in ledger.allotments()}


# --- what an allotment does --------------------------------------------------------------------------


@pytest.mark.parametrize("place", [S1, ADA, Q1], ids=["study", "researcher", "question"])
def test_an_allotment_is_a_ceiling_over_its_place_alone(ledger: Ledger, place: Place) -> None:
    allot(ledger, place, 0.25)
    ledger.reserve(charge(1, 0.25), now=3)
    with pytest.raises(BudgetExceeded, match=r"0 of 0\.25 is left"):
        ledger.reserve(charge(2, 0.125), now=3)
    elsewhere = {S1: Place("s2"), ADA: JOAN, Q1: Place("s1", "ada", "q2")}[place]
    ledger.reserve(charge(3, 0.5, elsewhere), now=3)


def test_what_was_spent_before_counts_against_an_allotment(ledger: Ledger) -> None:
    ledger.reserve(charge(1, 0.25), now=1)
    allot(ledger, ADA, 0.375)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(2, 0.25), now=3)
    assert ledger.account(Level.RESEARCHER, "s1/ada").left == 0.125
    allot(ledger, ADA, 0.125)  # less than was spent: nothing is left, and nothing breaks
    assert ledger.account(Level.RESEARCHER, "s1/ada").left == 0


def test_an_allotment_allows_nothing_that_a_ceiling_forbids(ledger: Ledger) -> None:
    allot(ledger, S1, 1.0)
    ledger.set_ceilings((Ceiling(Level.STUDY, Policy(0.25, 1e-6)), OVER[1]))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(1, 0.5), now=3)
    agreement = Ceiling(Level.STUDY, Policy(0.125, 1e-6), of="s1")
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(2, 0.25), (agreement,), now=3)
    exact = charge(3, 0.0, mode="exact", numbers=1)
    with pytest.raises(FluteError, match="not allowed"):
        ledger.reserve(exact, now=3)


def test_exact_numbers_are_allotted_as_well(journal: Journal) -> None:
    over = [Ceiling(level, Policy(1.0, 1e-6, 100, exact_allowed=True)) for level in (Level.STUDY, Level.PERSONS)]
    ledger = Ledger(journal, over)
    ledger.allot(S1, "records", Amount(numbers=30), person="eva", reason="", now=1)
    ledger.reserve(charge(1, 0.0, mode="exact", numbers=20), now=2)
    with pytest.raises(BudgetExceeded, match="10 of 30 are left"):
        ledger.reserve(charge(2, 0.0, mode="exact", numbers=20), now=2)
    with pytest.raises(BudgetExceeded, match="exact numbers"):
        ledger.allot(Place("s2"), "records", Amount(numbers=80), person="eva", reason="", now=3)


# --- never above what encloses it --------------------------------------------------------------------


def test_a_study_is_never_allotted_more_than_the_hubs_policy_or_its_agreement(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded, match="1 is the most for study s1"):
        allot(ledger, S1, 1.25)
    with pytest.raises(BudgetExceeded, match=r"0\.5 is the most for study s1"):
        allot(ledger, S1, 0.75, (Ceiling(Level.STUDY, Policy(0.5, 1e-6), of="s1"),))
    assert held(ledger) == {}


def test_studies_over_one_dataset_are_not_allotted_more_than_it_has(ledger: Ledger) -> None:
    allot(ledger, S1, 1.0)
    with pytest.raises(BudgetExceeded, match=r"all studies over dataset records together.*take it from another"):
        allot(ledger, Place("s2"), 0.75)
    allot(ledger, Place("s2"), 0.5)
    ledger.allot(Place("s3"), "others", Amount(1.0), person="eva", reason="", now=1)


def test_researchers_and_questions_fit_into_what_encloses_them(ledger: Ledger) -> None:
    allot(ledger, S1, 0.5)
    allot(ledger, ADA, 0.375)
    with pytest.raises(BudgetExceeded, match="for study s1"):
        allot(ledger, JOAN, 0.25)
    with pytest.raises(BudgetExceeded, match="for ada in study s1"):
        allot(ledger, Q1, 0.5)
    allot(ledger, Q1, 0.375)
    with pytest.raises(BudgetExceeded, match="lower those first"):
        allot(ledger, ADA, 0.25)
    with pytest.raises(BudgetExceeded, match="for ada in study s1"):
        allot(ledger, Place("s1", "ada", "q2"), 0.125)


def test_without_an_allotment_of_the_study_its_ceiling_encloses(ledger: Ledger) -> None:
    allot(ledger, ADA, 0.75)
    with pytest.raises(BudgetExceeded, match="study s1"):
        allot(ledger, JOAN, 0.5)
    allot(ledger, Place("s1", "joan", "q1"), 0.25)
    with pytest.raises(BudgetExceeded, match="study s1"):
        allot(ledger, Place("s1", "joan", "q2"), 0.125)


def test_an_allotment_can_be_lowered_after_the_policy_was(ledger: Ledger) -> None:
    allot(ledger, S1, 1.0)
    ledger.set_ceilings((Ceiling(Level.STUDY, Policy(0.25, 1e-6)), OVER[1]))
    allot(ledger, S1, 0.75)
    with pytest.raises(BudgetExceeded):
        allot(ledger, S1, 0.875)


def test_a_question_without_its_researcher_is_no_place(ledger: Ledger) -> None:
    with pytest.raises(NotPossible, match="STUDY/RESEARCHER/QUESTION"):
        allot(ledger, Place("s1", "", "q1"), 0.25)
    with pytest.raises(MisuseError):
        allot(ledger, Place("No Study"), 0.25)


# --- moving ------------------------------------------------------------------------------------------


def test_what_is_moved_is_gone_where_it_was(ledger: Ledger) -> None:
    allot(ledger, S1, 0.75)
    allot(ledger, Place("s2"), 0.25)
    move(ledger, S1, Place("s2"), 0.5)
    assert held(ledger) == {"s1": 0.25, "s2": 0.75}
    ledger.reserve(charge(1, 0.75, Place("s2")), now=3)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(charge(2, 0.5), now=3)


def test_what_was_spent_is_not_moved(ledger: Ledger) -> None:
    allot(ledger, S1, 0.75)
    allot(ledger, Place("s2"), 0.25)
    ledger.reserve(charge(1, 0.5), now=1)
    with pytest.raises(BudgetExceeded, match=r"0\.25 of rho \(mu²/2\) is left; 0\.5 cannot be moved"):
        move(ledger, S1, Place("s2"), 0.5)
    move(ledger, S1, Place("s2"), 0.25)


def test_a_move_goes_over_no_ceiling_of_the_target(ledger: Ledger) -> None:
    allot(ledger, S1, 0.75)
    allot(ledger, Place("s2"), 0.75)
    with pytest.raises(BudgetExceeded, match="study s2"):
        move(ledger, S1, Place("s2"), 0.5)
    agreement = Ceiling(Level.STUDY, Policy(0.75, 1e-6), of="s2")
    with pytest.raises(BudgetExceeded, match="study s2"):
        move(ledger, S1, Place("s2"), 0.125, (agreement,))
    assert held(ledger) == {"s1": 0.75, "s2": 0.75}


def test_a_move_leaves_enough_for_what_is_allotted_inside(ledger: Ledger) -> None:
    allot(ledger, S1, 0.75)
    allot(ledger, ADA, 0.5)
    allot(ledger, Place("s2"), 0.25)
    with pytest.raises(BudgetExceeded, match="lower those first"):
        move(ledger, S1, Place("s2"), 0.5)


def test_nothing_is_moved_from_or_to_what_has_no_allotment(ledger: Ledger) -> None:
    allot(ledger, S1, 0.75)
    for source, target in ((Place("s2"), S1), (S1, Place("s2"))):
        with pytest.raises(NotPossible, match="Nothing is allotted to study s2"):
            move(ledger, source, target, 0.25)
    with pytest.raises(NotPossible, match="two places"):
        move(ledger, S1, S1, 0.25)
    with pytest.raises(NotPossible, match="above 0"):
        move(ledger, S1, S1, 0.0)


def test_every_step_is_a_line_that_says_who_what_and_why(journal: Journal) -> None:
    ledger = Ledger(journal, OVER)
    allot(ledger, S1, 0.75)
    allot(ledger, Place("s2"), 0.25)
    move(ledger, S1, Place("s2"), 0.5)
    said = [line.entry.says() for line in journal.lines()]
    assert said[0] == "eva allotted rho 0.75 (mu²/2), delta 0.0 to study s1: as agreed"
    assert said[2] == "eva moved rho 0.5 (mu²/2), delta 0.0 from study s1 to study s2: as agreed"
    with pytest.raises(MisuseError, match="ledger alone"):
        journal.append(Allotted("eva", S1, "records", Amount(1.0), ""), now=5)


def test_after_a_restart_allotments_stand_as_they_did(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j.db", KEY) as journal:
        ledger = Ledger(journal, OVER)
        allot(ledger, S1, 0.7)
        allot(ledger, Place("s2"), 0.1)
        for rho in (0.1, 0.2, 1 / 3):
            move(ledger, S1, Place("s2"), rho)
        before = ledger.allotments()
    with Journal.open(tmp_path / "j.db", KEY) as journal:
        assert Ledger(journal, OVER).allotments() == before


def test_a_journal_that_moves_what_was_never_allotted_is_not_started_from(journal: Journal) -> None:
    journal.append(AllotmentMoved("eva", S1, Place("s2"), Amount(0.5), ""), now=1)
    with pytest.raises(LedgerError, match="Line 1 of the journal"):
        Ledger(journal, OVER)


# --- any order of events -----------------------------------------------------------------------------

PLACES = st.sampled_from([S1, ADA, JOAN, Q1, Place("s1", "ada", "q2"), Place("s2"), Place("s2", "joan"), Place("s3")])
RHOS = st.sampled_from([0.1, 0.2, 1 / 3, 0.25, 0.7, 1.0, 1e-17])


class Division(RuleBasedStateMachine):
    """Whatever was allotted, moved and spent: no place, study or dataset has more than encloses it."""

    @initialize(folder=st.uuids())
    def begin(self, folder: object) -> None:
        home = Path(pytest.ledger_folder) / str(folder)  # type: ignore[attr-defined]
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.journal = Journal.open(home / "journal.db", KEY)
        self.ledger = Ledger(self.journal, OVER)
        self.spent: list[Charge] = []

    @rule(place=PLACES, rho=RHOS)
    def allot(self, place: Place, rho: float) -> None:
        before = self.ledger.allotments()
        try:
            allot(self.ledger, place, rho)
        except BudgetExceeded:
            assert self.ledger.allotments() == before

    @rule(source=PLACES, goal=PLACES, rho=RHOS)
    def move(self, source: Place, goal: Place, rho: float) -> None:
        before = self.ledger.allotments()
        total = sum((Fraction(a.amount.rho) for a in before), Fraction(0))
        try:
            move(self.ledger, source, goal, rho)
        except (BudgetExceeded, NotPossible):
            assert self.ledger.allotments() == before
        else:
            assert sum((Fraction(a.amount.rho) for a in self.ledger.allotments()), Fraction(0)) <= total

    @rule(place=PLACES, rho=RHOS)
    def spend(self, place: Place, rho: float) -> None:
        asked = charge(len(self.spent), rho, place)
        try:
            self.ledger.reserve(asked, now=1)
        except BudgetExceeded:
            return
        self.spent.append(asked)
        for a in self.ledger.allotments():
            if self._inside(asked, a.place):
                assert self._spent(a.place) <= Fraction(a.amount.rho)

    def _inside(self, asked: Charge, place: Place) -> bool:
        return asked.place == place or place in asked.place.around

    def _spent(self, place: Place) -> Fraction:
        return sum((Fraction(c.rho) for c in self.spent if self._inside(c, place)), Fraction(0))

    @invariant()
    def nothing_has_more_than_encloses_it(self) -> None:
        if not hasattr(self, "ledger"):
            return
        book = {a.place: Fraction(a.amount.rho) for a in self.ledger.allotments()}
        top: dict[str, Fraction] = {}
        for place, amount in book.items():
            parent = next((p for p in place.around if p in book), None)
            if parent is None:
                top[place.study] = top.get(place.study, Fraction(0)) + amount
                continue
            siblings = [a for p, a in book.items() if next((q for q in p.around if q in book), None) == parent]
            assert sum(siblings, Fraction(0)) <= book[parent]
        assert all(total <= 1 for total in top.values())
        assert sum(top.values(), Fraction(0)) <= Fraction(1.5)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()


def test_no_order_of_allotting_moving_and_spending_makes_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest, "ledger_folder", str(tmp_path), raising=False)
    run_state_machine_as_test(
        Division,
        settings=settings(
            max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


def test_places_have_a_level_and_a_name() -> None:
    assert [level_of(p) for p in (S1, ADA, Q1)] == [Level.STUDY, Level.RESEARCHER, Level.QUESTION]
    assert [p.key for p in (S1, ADA, Q1)] == ["s1", "s1/ada", "s1/ada/q1"]
    assert msgspec.convert({"study": "s1", "asker": "ada"}, Place) == ADA
