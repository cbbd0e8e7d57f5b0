"""The budget: nothing is read before its price is on disk, and no way round leads over a ceiling."""

from __future__ import annotations

import copy
import math
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flute.errors import BudgetExceeded, ExactNotAllowed, LedgerError, MisuseError
from flute.ledger.budgets import budget
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy, Reservation
from flute.ledger.journals.journal import Journal, verify
from flute.ledger.lines.entries import Reserved, Settled
from flute.primitives.keys import SigningKey, digest

KEY = SigningKey(b"h" * 32)
SNAPSHOT = digest(b"snapshot")


def release(number: int) -> bytes:
    return digest(b"release", number.to_bytes(8, "big"))


def private(number: int, rho: float = 0.1, *, study: str = "s1", **other: object) -> Charge:
    fields = {"question": "q1", "step": 0, "asker": "maria", "delta": 1e-12, "persons": "records"} | other
    return Charge(
        release_id=release(number), study=study, mode="private", rho=rho, numbers=0, plan="secagg",
        snapshot=SNAPSHOT, **fields,  # type: ignore[arg-type]
    )  # fmt: skip


def exact(number: int, numbers: int = 10, **other: object) -> Charge:
    return msgspec.structs.replace(private(number, **other), mode="exact", rho=0.0, delta=0.0, numbers=numbers)


def ceilings(
    hub: float = 2.0, study: float = 1.0, *, exact_allowed: bool = False, numbers: int = 0, mixed: bool = False
) -> list[Ceiling]:
    return [
        Ceiling(Level.PERSONS, Policy(hub, 1e-6, numbers * 2, exact_allowed)),
        Ceiling(Level.STUDY, Policy(study, 1e-6, numbers, exact_allowed, mixed)),
    ]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.db", KEY) as opened:
        yield opened


# --- reserve ---------------------------------------------------------------------------------


@pytest.mark.requirement("F-SRS-8")
def test_a_reservation_is_on_disk_when_it_is_given(journal: Journal) -> None:
    reservation = Ledger(journal, ceilings()).reserve(private(1), now=7)
    assert reservation.fresh
    line = next(iter(journal.lines()))  # by a connection of its own
    assert line.entry == Reserved(private(1))
    assert (line.position, line.at) == (reservation.position, 7)


def test_the_same_release_again_is_the_same_reservation_and_costs_nothing(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    first = ledger.reserve(private(1), now=1)
    again = ledger.reserve(private(1), now=2)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.position == first.position
    assert journal.last.line == 1
    assert ledger.standing("s1").reserved == 0.1


def test_a_release_that_was_reserved_before_pays_for_no_new_answer(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    ledger.reserve(private(1), now=1).require_fresh()
    with pytest.raises(MisuseError, match="is charged"):
        ledger.reserve(private(1), now=2).require_fresh()


@pytest.mark.parametrize(
    "change", [{"rho": 0.05}, {"step": 1}, {"study": "s2"}, {"asker": "joan"}, {"hub_set": b"x"}]
)
def test_another_charge_under_a_known_release_is_an_error(journal: Journal, change: dict[str, object]) -> None:
    ledger = Ledger(journal, ceilings())
    ledger.reserve(private(1), now=1)
    with pytest.raises(MisuseError, match="names one question in one context"):
        ledger.reserve(msgspec.structs.replace(private(1), **change), now=2)
    assert journal.last.line == 1


@pytest.mark.requirement("F-SRS-8")
def test_a_question_over_the_ceiling_is_refused_with_what_is_left_and_whom_to_ask(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(study=0.25))
    ledger.reserve(private(1, 0.125), now=1)
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve(private(2, 0.25), now=2)
    for part in (
        "costs 0.25 of rho",
        "0.125 of 0.25 is left",
        "study s1",
        "ask this hub's owner",
        "Nothing was read",
    ):
        assert part in refused.value.text
    assert journal.last.line == 1
    ledger.reserve(private(3, 0.125), now=3)  # to the last bit of it


def test_sums_are_exact_so_many_small_charges_do_not_drift_under_the_ceiling(journal: Journal) -> None:
    """In floats ten times 0.1 is 0.9999999999999999 and an eleventh charge of one ulp would pass."""
    ledger = Ledger(journal, ceilings(study=1.0))
    assert sum([0.1] * 10) < 1.0
    for i in range(9):
        ledger.reserve(private(i, 0.1), now=i)
    with pytest.raises(BudgetExceeded):  # 10 * 0.1 as IEEE values is a little over 1
        ledger.reserve(private(10, 0.1), now=10)
    left = ledger.standing("s1").left
    assert Fraction(left) <= 1 - 9 * Fraction(0.1)
    ledger.reserve(private(11, left), now=11)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(private(12, 1e-15), now=12)


def test_a_tiny_charge_after_a_large_one_is_not_swallowed(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(study=1.0))
    ledger.reserve(private(1, 1.0), now=1)
    assert 1.0 + 1e-20 == 1.0  # what floats would say
    with pytest.raises(BudgetExceeded):
        ledger.reserve(private(2, 1e-20), now=2)


def test_added_deltas_have_a_ceiling_of_their_own(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    ledger.reserve(private(1, delta=9e-7), now=1)
    with pytest.raises(BudgetExceeded, match="added delta"):
        ledger.reserve(private(2, delta=2e-7), now=2)


def test_a_failed_write_charges_nothing_and_gives_nothing(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    journal.close()
    with pytest.raises(MisuseError, match="was closed"):
        ledger.reserve(private(1), now=1)
    assert ledger.find(release(1)) is None
    assert ledger.standing("s1").reserved == 0


@pytest.mark.parametrize(
    "charge",
    [
        private(1, 0.0),
        msgspec.structs.replace(private(1), numbers=3),
        exact(1, 0),
        msgspec.structs.replace(exact(1), rho=0.1),
        msgspec.structs.replace(exact(1), delta=1e-9),
        private(1, math.nan),
        private(1, -1.0),
        msgspec.structs.replace(private(1), release_id=b"short"),
        msgspec.structs.replace(private(1), mode="free"),
    ],
)
def test_a_charge_that_cannot_be_is_not_reserved(journal: Journal, charge: Charge) -> None:
    with pytest.raises(MisuseError):
        Ledger(journal, ceilings(exact_allowed=True, numbers=100)).reserve(charge, now=1)
    assert journal.last.line == 0


# --- levels ----------------------------------------------------------------------------------


def test_studies_over_the_same_persons_share_their_ceiling(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(hub=1.5, study=1.0))
    ledger.reserve(private(1, 1.0, study="s1"), now=1)
    with pytest.raises(BudgetExceeded, match="all studies over dataset records"):
        ledger.reserve(private(2, 0.75, study="s2"), now=2)
    ledger.reserve(private(3, 0.75, study="s2", persons="others"), now=3)


def test_the_whole_hub_can_have_a_ceiling(journal: Journal) -> None:
    ledger = Ledger(journal, [*ceilings(), Ceiling(Level.HUB, Policy(1.0, 1e-6))])
    ledger.reserve(private(1, 0.75, persons="a"), now=1)
    with pytest.raises(BudgetExceeded, match="all studies at this hub"):
        ledger.reserve(private(2, 0.5, study="s2", persons="b"), now=2)


def test_a_person_and_a_question_can_have_ceilings(journal: Journal) -> None:
    over = [*ceilings(), Ceiling(Level.ASKER, Policy(0.5, 1e-6), of="maria")]
    ledger = Ledger(journal, over)
    ledger.reserve(private(1, 0.5), now=1)
    with pytest.raises(BudgetExceeded, match="all questions of maria"):
        ledger.reserve(private(2, 0.1, study="s2"), now=2)
    ledger.reserve(private(3, 0.1, asker="joan"), now=3)
    question = [Ceiling(Level.QUESTION, Policy(0.25, 1e-6))]
    with pytest.raises(BudgetExceeded, match="question s1/joan/q2"):
        ledger.reserve(private(4, 0.3, question="q2", asker="joan"), question, now=4)


def test_the_agreement_can_only_narrow_what_the_hub_allows(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(study=0.5))
    with pytest.raises(BudgetExceeded):
        ledger.reserve(private(1, 0.75), [Ceiling(Level.STUDY, Policy(99.0, 1e-6))], now=1)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(private(1, 0.25), [Ceiling(Level.STUDY, Policy(0.125, 1e-6), of="s1")], now=1)
    ledger.reserve(private(1, 0.25), [Ceiling(Level.STUDY, Policy(0.125, 1e-6), of="s2")], now=1)


@pytest.mark.parametrize("level", [Level.STUDY, Level.PERSONS])
def test_without_ceilings_nothing_is_reserved(journal: Journal, level: Level) -> None:
    ledger = Ledger(journal, [Ceiling(level, Policy(1.0, 1e-6))])
    with pytest.raises(MisuseError, match="needs a ceiling"):
        ledger.reserve(private(1), now=1)


def test_a_lowered_ceiling_leaves_nothing_but_forgets_nothing(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    ledger.reserve(private(1, 0.5), now=1)
    ledger.set_ceilings(ceilings(study=0.25))
    assert (ledger.standing("s1").reserved, ledger.standing("s1").left) == (0.5, 0.0)
    with pytest.raises(BudgetExceeded, match=r"0 of 0\.25 is left"):
        ledger.reserve(private(2), now=2)


@pytest.mark.parametrize("values", [(math.nan, 0.0), (math.inf, 0.0), (-1.0, 0.0), (1.0, math.nan), (1.0, -1e-9)])
def test_a_ceiling_that_is_no_number_is_refused(values: tuple[float, float]) -> None:
    with pytest.raises(MisuseError, match="finite"):
        Policy(*values)
    with pytest.raises(MisuseError, match="negative"):
        Policy(1.0, 0.0, max_numbers=-1)


# --- exact -----------------------------------------------------------------------------------


def test_exact_results_need_the_leave_of_every_ceiling(journal: Journal) -> None:
    with_leave = Ceiling(Level.STUDY, Policy(0.0, 0.0, 100, exact_allowed=True))
    ledger = Ledger(journal, ceilings())
    with pytest.raises(ExactNotAllowed, match="dataset records"):
        ledger.reserve(exact(1), [with_leave], now=1)
    assert journal.last.line == 0


def test_exact_numbers_are_capped_over_all_steps(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(exact_allowed=True, numbers=25))
    ledger.reserve(exact(1, step=0), now=1)
    ledger.reserve(exact(2, step=1), now=2)
    with pytest.raises(BudgetExceeded, match="opens 10 exact numbers, but 5 of 25 are left"):
        ledger.reserve(exact(3, step=2), now=3)
    with pytest.raises(BudgetExceeded):
        ledger.reserve(exact(3, 6, step=2), now=3)
    ledger.reserve(exact(3, 5, step=2), now=3)
    assert ledger.standing("s1").numbers_left == 0


@pytest.mark.requirement("F-PIL-21")
def test_after_an_exact_release_the_persons_are_unbounded_in_every_study(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(exact_allowed=True, numbers=25))
    ledger.reserve(private(1, study="s1"), now=1)
    ledger.reserve(private(2, study="s3", persons="others"), now=2)
    assert not ledger.standing("s1").unbounded
    ledger.settle(ledger.reserve(exact(3, study="s2"), now=3), "released", now=3)
    assert (ledger.standing("s2").exact, ledger.standing("s2").exact_numbers) == (True, 10)
    assert (ledger.standing("s1").exact, ledger.standing("s1").unbounded) == (False, True)
    assert (ledger.standing().exact, ledger.standing().unbounded) == (True, True)
    assert not ledger.standing("s3").unbounded
    assert ledger.standing("s2").numbers_left == 15


def test_an_aborted_exact_release_is_unbounded_too(journal: Journal) -> None:
    """The coordinator may have seen the total before the round was called off."""
    ledger = Ledger(journal, ceilings(exact_allowed=True, numbers=25))
    ledger.settle(ledger.reserve(exact(1), now=1), "aborted", now=2)
    assert ledger.standing("s1").unbounded


def test_a_study_is_private_or_exact_unless_both_sides_agreed_to_both(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(exact_allowed=True, numbers=25))
    ledger.reserve(private(1), now=1)
    with pytest.raises(ExactNotAllowed, match="private or exact, not both"):
        ledger.reserve(exact(2), now=2)
    ledger.reserve(exact(3, study="s2"), now=3)
    with pytest.raises(ExactNotAllowed, match="private or exact, not both"):
        ledger.reserve(private(4, study="s2"), now=4)
    ledger.set_ceilings(ceilings(exact_allowed=True, numbers=25, mixed=True))
    with pytest.raises(ExactNotAllowed):  # the hub's owner alone does not do
        ledger.reserve(exact(2), [Ceiling(Level.STUDY, Policy(1.0, 1e-6, 25, exact_allowed=True))], now=5)
    ledger.reserve(exact(2), now=6)


# --- settle and restart ----------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["released", "aborted", "failed"])
def test_settling_keeps_the_charge_whatever_the_outcome(journal: Journal, outcome: budget.Outcome) -> None:
    ledger = Ledger(journal, ceilings())
    reservation = ledger.reserve(private(1, 0.5), now=1)
    ledger.settle(reservation, outcome, now=2)
    standing = ledger.standing("s1")
    assert (standing.reserved, standing.settled, standing.left) == (0.0, 0.5, 0.5)
    assert ledger.outcome(release(1)) == outcome
    assert ledger.open() == ()


def test_settling_twice_is_harmless_but_not_with_another_outcome(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    reservation = ledger.reserve(private(1), now=1)
    position = ledger.settle(reservation, "aborted", now=2)
    assert ledger.settle(reservation, "aborted", now=3) == position
    assert journal.last.line == 2
    with pytest.raises(MisuseError, match="settled as aborted"):
        ledger.settle(reservation, "released", now=4)
    with pytest.raises(MisuseError):
        ledger.settle(ledger.reserve(private(2), now=5), "refunded", now=6)  # type: ignore[arg-type]


def test_a_reservation_of_another_ledger_is_not_settled_here(journal: Journal, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "other.db", KEY) as other:
        stranger = Ledger(other, ceilings()).reserve(private(1), now=1)
    ledger = Ledger(journal, ceilings())
    with pytest.raises(MisuseError, match="not of this ledger"):
        ledger.settle(stranger, "released", now=2)
    ledger.reserve(private(5), now=3)
    ledger.reserve(private(1), now=3)  # the same release, but another line
    with pytest.raises(MisuseError, match="not of this ledger"):
        ledger.settle(stranger, "released", now=4)


@pytest.mark.requirement("F-SRS-8")
def test_after_a_restart_unsettled_reservations_are_open_and_charged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal.open(path, KEY) as journal:
        ledger = Ledger(journal, ceilings())
        ledger.settle(ledger.reserve(private(1, 0.25), now=1), "released", now=2)
        ledger.reserve(private(2, 0.5), now=3)
        before = ledger.standing("s1")
    with Journal.open(path, KEY) as journal:
        ledger = Ledger(journal, ceilings())
        assert ledger.standing("s1") == before
        assert (before.reserved, before.settled, before.left) == (0.5, 0.25, 0.25)
        (waiting,) = ledger.open()
        assert (waiting.release_id, waiting.fresh) == (release(2), False)
        assert not ledger.reserve(private(2, 0.5), now=4).fresh
        ledger.settle(waiting, "failed", now=5)
        assert ledger.open() == ()


def test_what_was_never_reserved_is_not_found(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    assert ledger.find(release(1)) is None
    with pytest.raises(MisuseError, match="never reserved"):
        ledger.outcome(release(1))


@pytest.mark.parametrize(
    "lines",
    [
        [Reserved(private(1)), Reserved(private(1))],
        [Settled("s1", release(1), "released")],
        [Reserved(private(1)), Settled("s1", release(1), "released"), Settled("s1", release(1), "aborted")],
    ],
)
def test_a_journal_whose_budget_makes_no_sense_is_not_started_from(
    journal: Journal, lines: list[Reserved | Settled]
) -> None:
    journal.append_all(lines, now=1)
    with pytest.raises(LedgerError, match=f"Line {len(lines)} of the journal"):
        Ledger(journal, ceilings())


def test_one_journal_has_one_ledger(journal: Journal) -> None:
    Ledger(journal, ceilings())
    with pytest.raises(MisuseError, match="has its ledger already"):
        Ledger(journal, ceilings())
    with pytest.raises(MisuseError, match="ledger alone"):
        journal.append(Reserved(private(1)), now=1)


# --- reservations cannot be made, copied or altered ------------------------------------------


def test_a_reservation_cannot_be_made_elsewhere(journal: Journal) -> None:
    real = Ledger(journal, ceilings()).reserve(private(1), now=1)
    for issuer in (None, object(), real, "Ledger", Ledger):
        with pytest.raises(MisuseError, match="from the ledger alone"):
            Reservation(issuer, real.charge, real.position, fresh=True)
    assert not [
        name for name in vars(budget) if not name.startswith("_") and vars(budget)[name] is budget._ISSUED_HERE
    ]


def test_a_reservation_cannot_be_copied_sent_or_altered(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    ledger.reserve(private(1), now=1)
    known = ledger.reserve(private(1), now=1)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps, msgspec.msgpack.encode):
        with pytest.raises((MisuseError, TypeError)):
            attempt(known)
    for attempt in (
        lambda: setattr(known, "_fresh", True),
        lambda: setattr(known, "charge", private(2)),
        lambda: delattr(known, "_fresh"),
    ):
        with pytest.raises((MisuseError, AttributeError)):
            attempt()
    assert not known.fresh
    with pytest.raises(AttributeError):
        _ = object.__new__(Reservation).release_id  # an empty one names no release
    assert "maria" not in repr(known)


# --- concurrency -----------------------------------------------------------------------------


def test_threads_cannot_overspend_together(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings(study=1.0))
    granted: list[Reservation] = []
    start = threading.Barrier(6)

    def work(who: int) -> None:
        start.wait()
        for i in range(10):
            try:
                granted.append(ledger.reserve(private(who * 100 + i, 1 / 16), now=1))
            except BudgetExceeded:
                continue

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 16
    assert ledger.standing("s1").left == 0


def test_threads_with_the_same_question_are_charged_once(journal: Journal) -> None:
    ledger = Ledger(journal, ceilings())
    got: list[Reservation] = []
    threads = [threading.Thread(target=lambda: got.append(ledger.reserve(private(1), now=1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r.fresh for r in got].count(True) == 1
    assert journal.last.line == 1


SPENDER = """
import sys, time
from pathlib import Path
from flute.errors import BudgetExceeded, LedgerError
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Policy
from flute.ledger.journals.journal import Journal
from flute.primitives.keys import SigningKey, digest
path, who, granted, number = Path(sys.argv[1]), sys.argv[2], 0, 0
over = [Ceiling(Level.PERSONS, Policy(1.0, 1e-6)), Ceiling(Level.STUDY, Policy(1.0, 1e-6))]
print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        with Journal.open(path, SigningKey(b"h" * 32)) as journal:
            ledger = Ledger(journal, over)
            number += 1
            release = digest(who.encode(), bytes([number]))
            price = ("private", 1 / 32, 0.0, 0)
            charge = Charge(release, "s1", "q1", 0, "maria", *price, "secagg", "records", bytes(32))
            ledger.reserve(charge, now=number)
            granted += 1
    except BudgetExceeded:
        break
    except LedgerError:
        pass
    time.sleep(0.002)
print(granted)
"""


def test_processes_cannot_overspend_together(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(path), who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for who in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    counts = [int(process.communicate("go\n", timeout=60)[0]) for process in processes]
    assert sum(counts) == 32
    assert verify(path, KEY.public).lines == 32


def test_two_ledgers_that_got_past_the_lock_cannot_overspend(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = Journal.open(path, KEY)
    Path(f"{path}.lock").unlink()
    second = Journal.open(path, KEY)
    one, two = Ledger(first, ceilings()), Ledger(second, ceilings())
    one.reserve(private(1, 0.75), now=1)
    with pytest.raises(LedgerError, match="Another process wrote"):
        two.reserve(private(2, 0.75), now=2)
    first.close()
    second.close()


# --- any order of events ---------------------------------------------------------------------

RHOS = st.sampled_from([0.1, 0.2, 0.3, 1 / 3, 1e-17, 5e-324, 0.25, 0.7])
STUDIES = st.sampled_from(["s1", "s2", "s3"])
OVER = [Ceiling(Level.PERSONS, Policy(1.0, 1e-6)), Ceiling(Level.STUDY, Policy(0.6, 1e-6))]
CAPS = {Level.PERSONS: Fraction(1.0), Level.STUDY: Fraction(0.6)}


class Budget(RuleBasedStateMachine):
    """Against a model in exact fractions; a crash is a copy of the files as they lie, opened elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.charges: dict[int, Charge] = {}
        self.outcomes: dict[int, str] = {}
        self.lives = 0

    @initialize(folder=st.uuids())
    def begin(self, folder: object) -> None:
        self.folder = Path(pytest.ledger_folder) / str(folder)  # type: ignore[attr-defined]
        shutil.rmtree(self.folder, ignore_errors=True)
        self.start(self.folder / "0")

    def start(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "journal.db"
        self.journal = Journal.open(self.path, KEY)
        self.ledger = Ledger(self.journal, OVER)

    def spent(self, study: str | None = None) -> Fraction:
        return sum((Fraction(c.rho) for c in self.charges.values() if study in (None, c.study)), Fraction(0))

    @rule(number=st.integers(0, 12), rho=RHOS, study=STUDIES)
    def reserve(self, number: int, rho: float, study: str) -> None:
        charge = private(number, rho, study=study)
        known = self.charges.get(number)
        fits = self.spent() + Fraction(rho) <= CAPS[Level.PERSONS]
        fits = fits and self.spent(study) + Fraction(rho) <= CAPS[Level.STUDY]
        before = self.journal.last
        if known is not None and known != charge:
            with pytest.raises(MisuseError):
                self.ledger.reserve(charge, now=1)
        elif known is None and not fits:
            with pytest.raises(BudgetExceeded):
                self.ledger.reserve(charge, now=1)
        else:
            assert self.ledger.reserve(charge, now=1).fresh == (known is None)
            self.charges[number] = charge
        assert (self.journal.last != before) == (known is None and fits)

    @rule(number=st.integers(0, 12))
    def ask_again(self, number: int) -> None:
        if number in self.charges:
            assert not self.ledger.reserve(self.charges[number], now=2).fresh

    @rule(number=st.integers(0, 12), outcome=st.sampled_from(["released", "aborted", "failed"]))
    def settle(self, number: int, outcome: budget.Outcome) -> None:
        reservation = self.ledger.find(release(number))
        assert (reservation is None) == (number not in self.charges)
        if reservation is None:
            return
        if self.outcomes.setdefault(number, outcome) == outcome:
            self.ledger.settle(reservation, outcome, now=3)
        else:
            with pytest.raises(MisuseError):
                self.ledger.settle(reservation, outcome, now=3)

    @rule()
    def crash(self) -> None:
        self.lives += 1
        after = self.folder / str(self.lives)
        after.mkdir()
        for name in ("journal.db", "journal.db-wal"):
            if (self.path.parent / name).exists():
                shutil.copy(self.path.parent / name, after / name)
        self.journal.close()
        self.start(after)

    @invariant()
    def nothing_is_lost_and_nothing_overspent(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.spent() <= CAPS[Level.PERSONS]
        for study in ("s1", "s2", "s3"):
            assert self.spent(study) <= CAPS[Level.STUDY]
            standing = self.ledger.standing(study)
            assert Fraction(standing.reserved) + Fraction(standing.settled) >= self.spent(study)
            assert Fraction(standing.left) <= CAPS[Level.STUDY] - self.spent(study)
        assert {r.release_id for r in self.ledger.open()} == {
            release(n) for n in self.charges if n not in self.outcomes
        }

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            assert verify(self.path, KEY.public).lines == len(self.charges) + len(self.outcomes)


def test_no_order_of_reserving_settling_and_crashing_overspends_or_loses_a_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest, "ledger_folder", str(tmp_path), raising=False)
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Budget,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
