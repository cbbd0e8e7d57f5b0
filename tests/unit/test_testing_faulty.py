"""The conformance suite sees what is planted, every fault by its own check, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flute.testing import CHECKS, NotConforming, check_algorithm
from flute.testing.course import Trial
from unit.faulty_algorithms import (
    EXAMPLE,
    FAULTY,
    AtOnce,
    InBlocks,
    SpreadAlgorithm,
    TrainsAtHubs,
    registration,
)

pytestmark = pytest.mark.requirement("NF-HUF-2")


def test_a_sound_algorithm_passes() -> None:
    check_algorithm(registration(SpreadAlgorithm), EXAMPLE)
    check_algorithm(registration(SpreadAlgorithm), EXAMPLE, seed=b"another")


@pytest.mark.parametrize("algorithm", [InBlocks, AtOnce, TrainsAtHubs])
def test_a_sound_algorithm_of_blocks_or_totals_passes(algorithm: type[SpreadAlgorithm]) -> None:
    check_algorithm(registration(algorithm), EXAMPLE)


def test_what_hubs_train_is_another_result_for_another_division_and_rows_that_did_so_would_be_seen() -> None:
    class AsRows(TrainsAtHubs):
        total = None  # type: ignore[assignment]

    with pytest.raises(NotConforming) as seen:
        check_algorithm(registration(AsRows), EXAMPLE)
    assert seen.value.check in ("own-row", "splits")


@pytest.mark.parametrize("fault", FAULTY)
def test_a_planted_fault_fails_by_its_own_check(fault: str) -> None:
    algorithm, check = FAULTY[fault]
    with pytest.raises(NotConforming) as seen:
        check_algorithm(registration(algorithm), EXAMPLE)
    assert seen.value.check == check
    assert len(seen.value.text) > 30
    assert check in CHECKS


@pytest.mark.parametrize("fault", FAULTY)
def test_the_named_check_alone_sees_the_fault_and_passes_the_sound_algorithm(fault: str) -> None:
    algorithm, check = FAULTY[fault]
    saw = []
    for tried in (algorithm, SpreadAlgorithm):
        for mode in EXAMPLE.modes:
            trial = Trial(registration(tried), EXAMPLE, mode, b"alone")
            trial.begin()
            try:
                CHECKS[check](trial)
            except NotConforming as found:
                saw.append((tried, found.check))
    assert set(saw) == {(algorithm, check)}


def test_at_least_twelve_kinds_of_faults_are_planted_and_every_check_sees_one() -> None:
    seen = {check for _, check in FAULTY.values()}
    assert len(seen) >= 12
    needs_a_plan_or_shares = {"example", "plans", "program", "inputs", "dropout"}
    assert set(CHECKS) - seen == needs_a_plan_or_shares


def test_a_question_that_the_algorithm_refuses_is_no_example() -> None:
    wrong = replace(EXAMPLE, spec=type(EXAMPLE.spec)("unknown"))
    with pytest.raises(NotConforming, match="refuses it"):
        check_algorithm(registration(SpreadAlgorithm), wrong)
