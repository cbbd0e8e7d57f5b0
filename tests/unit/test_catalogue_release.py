"""A catalogue release is charged before a row is read, once, under its own ceiling; looking again costs nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.algorithms.contract import Describe, Setting, StudyVariable
from flute.algorithms.statistics import DescribeAlgorithm
from flute.catalogue.statistics import persons
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.errors import BudgetExceeded, NotPossible, StudyFileError
from flute.hub.records.catalogue import catalogue_study
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import HubPolicy
from flute.ledger.budgets.budget import Level
from flute.ledger.journals.journal import verify
from flute.ledger.lines.entries import PersonAct, RecordSourceOpened, Reserved, Settled
from flute.study.protection import hub_epsilon
from support.catalogue_entries import HEART
from support.catalogue_hub import VARIABLES, catalogue_of, open_hub, records
from support.inprocess import TestHub

STUDY = "catalogue-heart"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TestHub]:
    opened = open_hub(tmp_path, records(1))
    yield opened
    opened.close()


def kinds(hub: TestHub) -> list[type]:
    return [type(line.entry) for line in hub.parts.journal.lines()]


@pytest.mark.requirement("F-PIL-18")
def test_a_release_is_journaled_in_order_before_anything_is_read(hub: TestHub) -> None:
    catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    assert kinds(hub) == [PersonAct, Reserved, RecordSourceOpened, Settled]
    lines = [line.entry for line in hub.parts.journal.lines()]
    assert isinstance(lines[0], PersonAct)
    assert lines[0].says() == "eva: catalogue-release heart at epsilon 0.5 of study catalogue-heart."
    assert isinstance(lines[2], RecordSourceOpened)
    assert lines[2].fields == ("age", "pressure", "smoker", "grade")
    verify(hub.parts.journal.path, hub.parts.signing.public)


def test_what_a_release_costs_is_what_was_asked_for(hub: TestHub) -> None:
    released = catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    account = hub.parts.ledger.account(Level.STUDY, STUDY)
    assert account.settled == released.rho
    assert account.reserved == 0
    assert 0.49 < hub_epsilon(released.rho, 1e-6) <= 0.5
    assert released.line == 2  # the journal's line of the charge
    assert hub.parts.ledger.account(Level.PERSONS, "heart").settled == released.rho  # the dataset's persons pay
    budget = catalogue_of(hub).budget("heart")
    assert budget["ceiling_epsilon"] == 1.0
    assert 0.49 < budget["epsilon_spent"] <= 0.5
    assert budget["rho_left"] > 0


def test_looking_at_it_again_costs_nothing_and_reads_nothing(hub: TestHub) -> None:
    first = catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    lines = hub.parts.journal.last.line
    assert catalogue_of(hub).release("heart", epsilon=0.5, person="ann") == first
    assert catalogue_of(hub).released("heart") == first
    assert hub.parts.journal.last.line == lines
    assert len(hub.source.opened) == 1


def test_a_lost_file_is_made_again_from_the_kept_sum(hub: TestHub) -> None:
    first = catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    (hub.folder / "catalogue" / "heart.json").unlink()
    assert catalogue_of(hub).released("heart") is None
    assert catalogue_of(hub).release("heart", epsilon=0.5, person="eva") == first
    assert kinds(hub).count(Reserved) == 1
    assert len(hub.source.opened) == 1


def test_other_parameters_are_another_release(hub: TestHub) -> None:
    a = catalogue_of(hub).release("heart", epsilon=0.4, person="eva")
    b = catalogue_of(hub).release("heart", epsilon=0.4, person="eva", bins=16)
    c = catalogue_of(hub).release("heart", epsilon=0.4, person="eva", variables=["age"])
    assert kinds(hub).count(Reserved) == 3
    assert a.persons != b.persons
    assert [f.name for f in c.variables] == ["age"]


def test_over_the_ceiling_a_release_is_refused_in_words(hub: TestHub) -> None:
    """The catalogue's ceiling is epsilon 1: two releases at .6 fit, as they add up as rho; a third does not."""
    catalogue = catalogue_of(hub)
    catalogue.release("heart", epsilon=0.6, person="eva")
    catalogue.release("heart", epsilon=0.6, person="eva", bins=16)
    with pytest.raises(BudgetExceeded) as caught:
        catalogue.release("heart", epsilon=0.6, person="eva", bins=8)
    assert "left for study catalogue-heart" in caught.value.text
    assert "Nothing was read" in caught.value.text
    assert len(hub.source.opened) == 2
    assert kinds(hub).count(Reserved) == 2


def test_a_dataset_that_studies_have_used_up_has_nothing_left_for_its_catalogue(tmp_path: Path) -> None:
    policy = HubPolicy(epsilon=0.2, epsilon_all=0.2)
    hub = open_hub(tmp_path, records(1), policy)
    with pytest.raises(BudgetExceeded):
        catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    assert hub.source.opened == []
    hub.close()


def test_a_crash_while_reading_leaves_the_charge(tmp_path: Path) -> None:
    """kill -9 between the reservation and the answer. The next call is a new charge, and says so in the journal."""
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from support.catalogue_hub import catalogue_of, open_hub, records
hub = open_hub(Path({str(tmp_path)!r}), records(1))
hub.source.open = lambda variables: os.kill(os.getpid(), signal.SIGKILL)
catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    hub = open_hub(tmp_path, records(1))
    charged = hub.parts.ledger.account(Level.STUDY, STUDY)
    assert charged.reserved > 0
    assert len(hub.parts.ledger.open()) == 1
    released = catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    assert hub.parts.ledger.account(Level.STUDY, STUDY).settled == 2 * released.rho
    outcomes = [line.entry.outcome for line in hub.parts.journal.lines() if isinstance(line.entry, Settled)]
    assert outcomes == ["aborted", "released"]
    verify(hub.parts.journal.path, hub.parts.signing.public)
    hub.close()


def test_a_crash_after_the_answer_was_kept_costs_nothing_more(hub: TestHub) -> None:
    catalogue = catalogue_of(hub)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    catalogue._statistics = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        catalogue.release("heart", epsilon=0.5, person="eva")
    released = catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    assert hub.parts.ledger.account(Level.STUDY, STUDY).settled == released.rho
    assert len(hub.source.opened) == 1


def test_a_new_snapshot_has_no_statistics_until_they_are_paid_for(hub: TestHub) -> None:
    catalogue = catalogue_of(hub)
    catalogue.declare("heart", HEART, person="eva")
    old = catalogue.release("heart", epsilon=0.5, person="eva")
    assert catalogue.entry("heart").statistics == old
    held = hub.parts.store.dataset("heart")
    hub.parts.store.put_dataset(msgspec.structs.replace(held, snapshot=bytes(range(32))))
    assert catalogue.entry("heart").statistics is None
    new = catalogue.release("heart", epsilon=0.5, person="eva")
    assert new.snapshot == bytes(range(32)).hex()
    assert kinds(hub).count(Reserved) == 2


def test_a_hidden_variable_is_in_no_release_and_no_entry(hub: TestHub) -> None:
    catalogue = catalogue_of(hub)
    catalogue.declare("heart", HEART, person="eva")
    catalogue.release("heart", epsilon=0.5, person="eva")
    policy = HubPolicy(hidden=("smoker",))
    hub.parts.store.put_policy(policy)
    hub.parts.ledger.set_ceilings(hub_ceilings(policy))
    entry = catalogue.entry("heart")
    assert [v.variable.name for v in entry.variables] == ["age", "pressure", "grade"]
    assert entry.statistics is not None
    assert [f.name for f in entry.statistics.variables] == ["age", "pressure", "grade"]
    other = catalogue.release("heart", epsilon=0.4, person="eva")
    assert "smoker" not in {f.name for f in other.variables}
    assert "smoker" not in hub.source.opened[-1]
    with pytest.raises(NotPossible, match="shows no variable 'smoker'"):
        catalogue.release("heart", epsilon=0.4, person="eva", variables=["smoker"])


def test_what_cannot_be_described_is_refused_before_any_charge(hub: TestHub) -> None:
    catalogue = catalogue_of(hub)
    with pytest.raises(NotPossible, match="no dataset 'lungs'"):
        catalogue.release("lungs", epsilon=0.5, person="eva")
    with pytest.raises(NotPossible, match="too small"):
        catalogue.release("heart", epsilon=1e-9, person="eva")
    with pytest.raises(NotPossible, match="no entry yet"):
        catalogue.entry("heart")
    held = hub.parts.store.dataset("heart")
    hub.parts.store.put_dataset(msgspec.structs.replace(held, name="lungs"))
    with pytest.raises(StudyFileError, match="dataset is 'heart', and this is the entry of"):
        catalogue.declare("lungs", HEART, person="eva")
    assert Reserved not in kinds(hub)


def test_more_variables_than_one_question_takes_are_refused_not_cut(tmp_path: Path) -> None:
    hub = open_hub(tmp_path, records(1, 50))
    held = hub.parts.store.dataset("heart")
    many = tuple(Variable(f"v{i}", "binary") for i in range(65))
    hub.parts.store.put_dataset(msgspec.structs.replace(held, variables=many))
    with pytest.raises(NotPossible, match="shows 65 variables"):
        catalogue_of(hub).release("heart", epsilon=0.5, person="eva")
    hub.close()


@pytest.mark.parametrize(
    ("dataset", "study"),
    [("heart", "catalogue-heart"), ("Heart", None), ("heart_1", None), ("x" * 64, None), ("heart.2026", None)],
)
def test_every_dataset_has_an_account_of_its_own(dataset: str, study: str | None) -> None:
    found = catalogue_study(dataset)
    assert len(found) <= 64
    assert found.startswith("catalogue-")
    assert found == study or study is None
    others = {catalogue_study(d) for d in ("heart", "Heart", "heart_1", "heart-1", "heart.2026") if d != dataset}
    assert found not in others


def test_persons_are_counted_from_every_block_without_bias() -> None:
    """Without noise the count is exact; 2,000 draws with noise: the mean is within 5 deviations, the spread as
    stated within 12 %, and a count that is cut at nobody missing would be .4 deviations too high."""
    variables, bins = VARIABLES, 8
    rng = np.random.default_rng(1)
    n = 400
    data = Dataset(
        np.array([str(i) for i in range(n)]),
        {
            "age": rng.uniform(20, 100, n), "pressure": rng.uniform(60, 250, n),
            "smoker": rng.integers(0, 2, n).astype(float), "grade": rng.integers(0, 3, n).astype(float),
        },
        list(variables),
    )  # fmt: skip
    setting = Setting({v.name: StudyVariable(v) for v in variables}, "drop", "private", ("north",), {})
    spec = Describe(tuple(v.name for v in variables), bins)
    truth = DescribeAlgorithm().update(spec, setting, 0, (), data).sum(axis=0)
    assert persons(variables, truth, 1e-9, bins).value == pytest.approx(n)
    sigma = 20.0
    draws = [persons(variables, truth + sigma * rng.standard_normal(len(truth)), sigma, bins) for _ in range(2000)]
    values = np.array([d.value for d in draws], dtype=float)
    stated = float(np.mean([(d.high - d.low) / 2 / 1.96 for d in draws]))  # type: ignore[operator]
    assert abs(values.mean() - n) < 5 * stated / np.sqrt(2000)
    assert 0.88 < values.std() / stated < 1.12
    assert 0.4 * sigma > 5 * stated / np.sqrt(2000)
