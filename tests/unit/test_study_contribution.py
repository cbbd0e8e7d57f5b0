"""What an algorithm gives, rows, blocks or a total, to the covered vector; a fault counts as zeros."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flute.aggregation.codec import Layout, decode_exact, encode_exact, exact_bounds
from flute.algorithms.contract import BlockUpdates, HubTotals, Setting, StepShape, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.dp.calibrate import mechanism_for
from flute.errors import MisuseError, ProtocolAbortedError
from flute.study.contribution import contribution, covered
from flute.study.protection import RAND_SIZE, Price, cover, exact_sum
from unit.faulty_algorithms import Spread, SpreadAlgorithm

RAND = bytes(range(RAND_SIZE))
USED = StudyVariable(Variable("age", "number", 20, 100))
EXACT = Setting({"age": USED}, "drop", "exact", ("a", "b", "c"), {}, 1000)
PRIVATE = replace(EXACT, mode="private")
SPEC = Spread("age")
NOTHING = np.zeros(0)


def people(count: int) -> Dataset:
    ages = np.random.default_rng(1).uniform(20, 100, count)
    return Dataset(np.array([f"p{k}" for k in range(count)], dtype=str), {"age": ages}, [USED.variable])


def exact_price(size: int = 2, magnitude: float = 1.0) -> Price:
    shape = StepShape("sum", size, math.sqrt(2), 0.5, magnitude)
    return Price(shape, None, 0.0, 0.0, size, Layout(64, size), exact_bounds(3))


def private_price(size: int = 2) -> Price:
    mechanism = mechanism_for(0.5, math.sqrt(2), size, 3, 3, 1)
    return replace(exact_price(size), mechanism=mechanism, numbers=0)


class InBlocks(SpreadAlgorithm):
    """`kind`: how the rows of step 0 are given."""

    kind = "sevens"

    def blocks(self, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Iterator[Array]:
        rows = self.update(spec, setting, step, parameters, data)
        if self.kind == "fails at once":
            raise ZeroDivisionError
        for start in range(0, len(rows), 7):
            if self.kind == "fails midway" and start:
                raise ZeroDivisionError
            if self.kind == "refuses midway" and start:
                raise MisuseError("These are no parameters.")
            if self.kind == "other kind midway" and start:
                yield rows[start : start + 7].astype(np.float32)
            if self.kind == "longer rows midway" and start:
                yield np.ones((7, 3))
            if self.kind == "no table midway" and start:
                yield [1.0, 2.0]  # type: ignore[misc]
            yield rows[start : start + 7]
        if self.kind == "too many":
            yield rows[:1]

    def update(self, spec: Any, setting: Setting, step: int, parameters: Any, data: Dataset) -> Array:
        rows = super().update(spec, setting, step, parameters, data)
        return rows[:-1] if self.kind == "too few" else rows


class AtOnce(SpreadAlgorithm):
    """`given`: the total in place of the right one."""

    given: Any = None

    def total(self, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        if isinstance(self.given, Exception):
            raise self.given
        return self.update(spec, setting, step, parameters, data).sum(axis=0) if self.given is None else self.given

    def counted(self, spec: Any, setting: Setting, data: Dataset) -> Array:
        return np.ones((len(data), 1))


def asked(algorithm: Any, setting: Setting, data: Dataset, price: Price, parameters: Sequence[float] = ()) -> Array:
    numbers = np.array(parameters, dtype=np.float64)
    return contribution(algorithm, SPEC, setting, 0, numbers, data, price, hubs=3, rand=RAND, question="age")


def as_kind(kind: str) -> InBlocks:
    algorithm = InBlocks()
    algorithm.kind = kind  # type: ignore[misc]
    return algorithm


def giving(total: Any) -> AtOnce:
    algorithm = AtOnce()
    algorithm.given = total
    return algorithm


def test_the_algorithms_of_this_file_are_of_the_kinds_they_stand_for() -> None:
    assert isinstance(InBlocks(), BlockUpdates)
    assert isinstance(AtOnce(), HubTotals)
    assert not isinstance(SpreadAlgorithm(), BlockUpdates | HubTotals)


@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_blocks_give_the_bytes_of_the_whole_table(count: int) -> None:
    data, price = people(count), private_price()
    whole = asked(SpreadAlgorithm(), PRIVATE, data, price)
    assert asked(InBlocks(), PRIVATE, data, price).tobytes() == whole.tobytes()
    assert count == 0 or (whole != asked(SpreadAlgorithm(), PRIVATE, people(0), price)).any()


def test_in_exact_mode_blocks_are_not_asked_for_and_in_private_mode_no_total() -> None:
    data = people(30)
    whole = asked(SpreadAlgorithm(), EXACT, data, exact_price())
    assert asked(as_kind("fails at once"), EXACT, data, exact_price()).tobytes() == whole.tobytes()
    private = asked(SpreadAlgorithm(), PRIVATE, data, private_price())
    assert asked(giving(ZeroDivisionError()), PRIVATE, data, private_price()).tobytes() == private.tobytes()


FAULTS = ["fails at once", "fails midway", "other kind midway", "longer rows midway", "no table midway", "too many"]


@pytest.mark.parametrize("kind", [*FAULTS, "too few"])
def test_of_blocks_that_stop_nothing_counts_and_the_noise_is_whole(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="flute.hub"):
        answer = asked(as_kind(kind), PRIVATE, people(30), private_price())
    nobody = asked(SpreadAlgorithm(), PRIVATE, people(0), private_price())
    assert answer.tobytes() == nobody.tobytes()
    assert "step sum of age" in caplog.text
    assert "enters the sum as zero" in caplog.text


def test_the_first_blocks_would_have_counted_without_that() -> None:
    """The control: what a hub that added up as it went would send for blocks that stop midway."""
    first = SpreadAlgorithm().update(SPEC, PRIVATE, 0, (), people(30))[:7]
    nobody = asked(SpreadAlgorithm(), PRIVATE, people(0), private_price())
    assert (cover(iter([first]), private_price(), hubs=3, rand=RAND) != nobody).any()


def test_a_callers_mistake_passes_through_wherever_it_shows() -> None:
    for algorithm in (SpreadAlgorithm(), InBlocks()):
        with pytest.raises(MisuseError):
            asked(algorithm, PRIVATE, people(30), private_price(), (1.0, 2.0))
    with pytest.raises(MisuseError):
        asked(as_kind("refuses midway"), PRIVATE, people(30), private_price())


def test_a_stopped_study_passes_through() -> None:
    def stopped() -> Array:
        raise ProtocolAbortedError("It was stopped.")

    with pytest.raises(ProtocolAbortedError):
        covered(stopped, 30, private_price(), hubs=3, rand=RAND)


@pytest.mark.parametrize("mode", [EXACT, PRIVATE])
@pytest.mark.parametrize(
    "rows", [np.ones((29, 2)), np.ones((30, 3)), np.ones((30, 2), np.float32), None, ValueError()]
)
def test_rows_other_than_agreed_count_as_zeros(mode: Setting, rows: Any) -> None:
    class Other(SpreadAlgorithm):
        def update(self, *given: Any) -> Array:
            if isinstance(rows, Exception):
                raise rows
            return rows

    price = exact_price() if mode is EXACT else private_price()
    nobody = asked(SpreadAlgorithm(), mode, people(0), price)
    assert asked(Other(), mode, people(30), price).tobytes() == nobody.tobytes()


def test_a_total_is_what_its_rows_come_to() -> None:
    whole = asked(SpreadAlgorithm(), EXACT, people(30), exact_price())
    np.testing.assert_allclose(asked(AtOnce(), EXACT, people(30), exact_price()), whole, atol=2)
    assert not np.allclose(whole, 0, atol=2)


BAD_TOTALS = [
    np.ones(3), np.ones((1, 3)), np.ones(2, np.float32), np.array([math.nan, 1]), np.array([math.inf, 1]), None,
    ValueError(), [1.0, 2.0],
]  # fmt: skip


@pytest.mark.parametrize("total", BAD_TOTALS, ids=repr)
def test_a_total_other_than_agreed_counts_as_zeros(total: Any, caplog: pytest.LogCaptureFixture) -> None:
    algorithm = giving(total)
    if total is None:
        algorithm.total = lambda *_: None  # type: ignore[method-assign, assignment, return-value]
    with caplog.at_level(logging.ERROR, logger="flute.hub"):
        assert asked(algorithm, EXACT, people(30), exact_price()).tolist() == [0, 0]
    assert "enters the sum as zero" in caplog.text


def test_no_total_weighs_more_than_its_patients_could() -> None:
    answer = asked(giving(np.array([1e300, -31.0])), EXACT, people(30), exact_price(magnitude=0.5))
    assert decode_exact(answer).tolist() == [15.0, -15.0]
    assert asked(giving(np.array([1.0, -1.0])), EXACT, people(0), exact_price()).tolist() == [0, 0]


def test_the_sum_of_one_row_is_that_row_and_of_several_is_rounded_once() -> None:
    row = np.array([[0.1, -0.0, 1e16, 5e-324]])
    assert exact_sum(row).tolist() == row[0].tolist()
    assert exact_sum(np.zeros((0, 3))).tolist() == [0, 0, 0]
    assert exact_sum(np.array([[1e16], [1.0], [-1e16]])).tolist() == [1.0]


def test_exact_sums_are_of_one_table() -> None:
    with pytest.raises(MisuseError):
        cover(iter([np.ones((1, 2))]), exact_price(), hubs=3, rand=RAND)


def test_a_total_of_a_million_numbers_is_encoded_in_a_tenth_of_a_second() -> None:
    total = np.random.default_rng(2).uniform(-30, 30, 1_000_000)
    price, algorithm, data = exact_price(len(total)), giving(total), people(30)
    taken = []
    for _ in range(3):
        start = time.process_time()
        answer = asked(algorithm, EXACT, data, price)
        taken.append(time.process_time() - start)
    assert answer.tobytes() == encode_exact(total, hubs=3).tobytes()
    assert min(taken) < 0.1
