"""One battery for each contract that later stages stand on: whatever is registered has to pass it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flute.aggregation.plan import PLANS
from flute.algorithms.contract import Ask, Operation, PrivacyStatement, Setting
from flute.data.dataset import Dataset
from flute.data.source import RecordSource
from flute.data.variables import Variable
from flute.errors import MisuseError, SourceError, TooLarge
from flute.intake.flat import read_csv
from flute.intake.snapshot import SnapshotSource, write_snapshot
from flute.messages.channel import Channel
from flute.questions.registry import REGISTRY, algorithm_for
from flute.study.agreement import Question
from flute.study.files.check import check_study
from flute.transport.local import LocalExchange
from support.inprocess import ArraySource
from support.studies import DESCRIBE, EVALUATE, EXACT, MODEL, PRIVATE, private_model, study

ROBUST = """\
  steady:
    algorithm: robust-mean
    variables: [age, sex]
    groups: 5
    share: 0.1
"""
LINEAR = """\
  line:
    algorithm: glm
    outcome: age
    predictors: [sex, grade]
  held:
    algorithm: penalised-regression
    outcome: ill
    predictors: [age, pressure, sex, grade]
    strengths: [0.1]
    l1_ratio: 0.5
"""
PRIVATE_LINEAR = study(PRIVATE, LINEAR.replace("grade]\n", "grade]\n    share: 0.4\n"))
EXACT_LINEAR = study(EXACT, LINEAR)
PRIVATE_STUDY = study(PRIVATE, DESCRIBE + private_model(0.3) + EVALUATE + ROBUST)
EXACT_STUDY = study(EXACT, MODEL)
STUDIES = (PRIVATE_STUDY, EXACT_STUDY, PRIVATE_LINEAR, EXACT_LINEAR)
QUESTIONS = [(agreement, question) for agreement in STUDIES for question in agreement.questions]
ids = [f"{a.mode}-{q.id}" for a, q in QUESTIONS]


def dataset(setting: Setting, hostile: bool = False) -> Dataset:
    """Ten patients; hostile: values at every edge, infinite and missing among them."""
    n = 10
    columns = {}
    for name, used in setting.variables.items():
        v = used.variable
        top = len(v.levels) - 1 if v.kind == "category" else 1
        values = np.linspace(v.low, v.high, n) if v.kind == "number" else np.arange(n) % (top + 1)
        if hostile:
            values = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, -0.0, v.high, v.low, 1e-308])
        columns[name] = values.astype(np.float64)
    return Dataset(np.array([str(i) for i in range(n)]), columns, [u.variable for u in setting.variables.values()])


def parameters(question: Question, setting: Setting) -> tuple[float, ...]:
    """Those of a first step, or, for an evaluation, coefficients of zero for each model."""
    try:
        asked = algorithm_for(question.what).next(question.what, setting, [], {})
    except MisuseError:
        columns = 6
        return (0.0,) * columns
    assert isinstance(asked, Ask)
    return asked.parameters


@pytest.mark.requirement("NF-HUF-2")
def test_every_algorithm_says_what_it_releases_and_what_it_needs() -> None:
    assert len(REGISTRY) == 27
    for one in REGISTRY.values():
        algorithm = one.algorithm
        assert isinstance(algorithm.statement, PrivacyStatement)
        assert algorithm.operations <= set(Operation)


@pytest.mark.parametrize(("agreement", "question"), QUESTIONS, ids=ids)
class TestAlgorithm:
    def test_its_outline_is_fixed_by_the_agreement_alone(self, agreement: Any, question: Any) -> None:
        algorithm, setting = algorithm_for(question.what), agreement.setting
        outline = algorithm.outline(question.what, setting)
        assert outline == algorithm.outline(question.what, setting)
        assert all(s.size > 0 and s.clip_norm > 0 and np.isfinite(s.magnitude) for s in outline)
        if agreement.mode == "private":
            assert sum(s.weight for s in outline) == pytest.approx(1.0)

    def test_it_reads_only_declared_fields(self, agreement: Any, question: Any) -> None:
        fields = algorithm_for(question.what).fields(question.what, agreement.setting)
        assert set(fields) <= set(agreement.setting.variables)

    @pytest.mark.parametrize("hostile", [False, True])
    def test_it_gives_one_row_per_patient_whatever_the_values(
        self, agreement: Any, question: Any, hostile: bool
    ) -> None:
        algorithm, setting = algorithm_for(question.what), agreement.setting
        shape = algorithm.outline(question.what, setting)[0]
        data = dataset(setting, hostile)
        rows = algorithm.update(question.what, setting, 0, parameters(question, setting), data)
        assert rows.shape == (len(data), shape.size)
        assert rows.dtype == np.float64
        assert np.isfinite(rows).all()

    def test_wrong_parameters_are_refused(self, agreement: Any, question: Any) -> None:
        algorithm, setting = algorithm_for(question.what), agreement.setting
        good = parameters(question, setting)
        for bad in ((*good, 0.0), (float("nan"),) * max(len(good), 1)):
            with pytest.raises(MisuseError):
                algorithm.update(question.what, setting, 0, bad, dataset(setting))

    def test_no_patient_moves_the_sum_further_than_its_clip_norm(self, agreement: Any, question: Any) -> None:
        from flute.dp.clip import clip

        algorithm, setting = algorithm_for(question.what), agreement.setting
        shape = algorithm.outline(question.what, setting)[0]
        for hostile in (False, True):
            rows = algorithm.update(
                question.what, setting, 0, parameters(question, setting), dataset(setting, hostile)
            )
            assert np.linalg.norm(clip(rows, shape.clip_norm), axis=1).max() <= shape.clip_norm


def test_every_plan_offers_known_operations_and_prices_every_question() -> None:
    for plan in PLANS.values():
        assert plan.offers <= {o.value for o in Operation}
        assert plan.min_hubs >= 2
    for agreement in (PRIVATE_STUDY, EXACT_STUDY):
        checked = check_study(agreement)
        assert checked.plan.name in PLANS
        for question in agreement.questions:
            for price in checked.prices[question.id]:
                assert (price.rho > 0) == (agreement.mode == "private")
                assert (price.numbers > 0) == (agreement.mode == "exact")


# --- RecordSource ----------------------------------------------------------------------------


def array_source(_: Path) -> RecordSource:
    return ArraySource({"age": [50, 61, None], "sex": [0, 1, 1], "secret": [7, 8, 9]})


def snapshot_source(folder: Path) -> RecordSource:
    (folder / "t.csv").write_text("id,age,sex,secret\na,50,0,7\nb,61,1,8\nc,,1,9\n")
    variables = [Variable("age", "number", 0, 120), Variable("sex", "binary"), Variable("secret", "number", 0, 10)]
    rows, _ = read_csv(folder / "t.csv", variables, key=bytes(range(32)), id_column="id")
    return SnapshotSource(folder, write_snapshot(rows, folder))


@pytest.mark.parametrize("make", [array_source, snapshot_source])
class TestRecordSource:
    def test_it_opens_the_named_variables_and_no_others(
        self, make: Callable[..., RecordSource], tmp_path: Path
    ) -> None:
        data = make(tmp_path).open([Variable("age", "number", 0, 120), Variable("sex", "binary")])
        assert len(data) == 3
        assert sorted(data.column("age")[~np.isnan(data.column("age"))]) == [50.0, 61.0]
        with pytest.raises(MisuseError):
            data.column("secret")

    def test_its_snapshot_is_a_digest_that_stays(self, make: Callable[..., RecordSource], tmp_path: Path) -> None:
        source = make(tmp_path)
        assert len(source.snapshot) == 32
        assert source.snapshot == make(tmp_path).snapshot

    def test_an_absent_variable_is_an_error_of_ours(self, make: Callable[..., RecordSource], tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            make(tmp_path).open([Variable("absent", "number", 0, 1)])


# --- Channel (the relay's own battery is in tests/federation) --------------------------------


def pair() -> tuple[Channel, Channel, LocalExchange]:
    exchange = LocalExchange()
    return exchange.channel("huvh"), exchange.channel("coordinator"), exchange


class TestChannel:
    def test_either_end_may_start_and_messages_wait_for_the_other(self) -> None:
        hub, _, exchange = pair()
        hub.send("coordinator", b"first")
        late = exchange.channel("coordinator")
        delivery = late.receive(1)
        assert delivery is not None
        assert (delivery.peer, delivery.body) == ("huvh", b"first")

    def test_what_was_not_done_comes_again_after_a_restart(self) -> None:
        hub, coordinator, exchange = pair()
        hub.send("coordinator", b"once")
        assert coordinator.receive(1) is not None
        again = exchange.channel("coordinator").receive(1)
        assert again is not None
        assert again.body == b"once"

    def test_what_was_done_does_not_come_again(self) -> None:
        hub, coordinator, exchange = pair()
        hub.send("coordinator", b"once")
        delivery = coordinator.receive(1)
        assert delivery is not None
        coordinator.done(delivery)
        assert exchange.channel("coordinator").receive(0) is None

    def test_an_oversized_message_is_refused_at_once(self) -> None:
        hub, _, _ = pair()
        with pytest.raises(TooLarge):
            hub.send("coordinator", bytes(64 * 2**20 + 1))
