"""The algorithm around a network: what it takes, what it refuses in words, what it says, and what scores it."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as changed
from scipy.special import expit

from flute.algorithms.contract import (
    Ask,
    BlockUpdates,
    Finished,
    HubTotals,
    NeedsParts,
    Opened,
    Setting,
    StudyVariable,
)
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.inputs import numbers, sized_for
from flute.deep.layers import Activation, Conv, Dense, Join, Layers, Monai
from flute.deep.scorer import NetworkScorer
from flute.deep.server import HEAD, next_asked, opened_round
from flute.deep.spec import NeuralNetwork, Training
from flute.deep.start import start_weights
from flute.deep.weights import write_weights
from flute.defaults.models.deep import CHANGE_BOUND, INPUT_REACH, LOSS_CAP
from flute.errors import MisuseError, NotPossible, StudyFileError
from support.networks import NETWORKS, table
from support.studies import EXACT, study

VARIABLES = (
    StudyVariable(Variable("age", "number", 20, 100), scale="reference", centre=60, spread=10),
    StudyVariable(Variable("psa", "number", 0.1, 100), log=True),
    StudyVariable(Variable("size", "number", 0, 4), scale="pooled", centre=2.0, spread=0.5),
    StudyVariable(Variable("tiny", "number", 0, 1), scale="reference", centre=0.0, spread=1e-5),
    StudyVariable(Variable("grade", "category", levels=("low", "mid", "high")), reference_level="mid"),
    StudyVariable(Variable("male", "binary")),
    StudyVariable(Variable("ill", "binary")),
    StudyVariable(Variable("scan", "image", 0, 10, shape=(1, 8, 8))),
)
LAYERS: Layers = (Dense(4), Activation("tanh"))
SPEC = NeuralNetwork("ill", ("age", "male", "grade"), network=LAYERS, training=Training(rounds=2))


def agreed(**other: Any) -> Setting:
    given: dict[str, Any] = {"missing": "drop", "mode": "exact", "hubs": ("x", "y"), "questions": {}} | other
    return Setting(variables={v.variable.name: v for v in VARIABLES}, **given)


def people(n: int = 12) -> Dataset:
    chance = np.random.default_rng(n)
    columns: dict[str, Array] = {v.variable.name: np.ones(n) for v in VARIABLES}
    columns |= {
        "age": chance.uniform(20, 100, n), "psa": chance.uniform(0.1, 100, n), "tiny": chance.uniform(0, 1, n),
        "size": chance.uniform(0, 4, n), "grade": chance.integers(0, 3, n).astype(float),
        "male": chance.integers(0, 2, n).astype(float), "ill": chance.integers(0, 2, n).astype(float),
    }  # fmt: skip
    return table(columns, VARIABLES, {"scan": chance.uniform(0, 10, (n, 1, 8, 8)).astype(np.float32)})


def test_it_is_what_hubs_look_for() -> None:
    assert isinstance(NETWORKS, BlockUpdates)
    assert isinstance(NETWORKS, HubTotals)
    assert isinstance(NETWORKS, NeedsParts)


def test_torch_is_needed_for_nothing_but_training_and_scoring() -> None:
    """Coordinators, the command line and notebooks do without: they check, price, ask, add up and read results."""
    code = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "monai", "safetensors"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Gone())
import numpy as np
from flute.algorithms.contract import Finished, Opened, Setting, StudyVariable
from flute.data.variables import Variable
from flute.deep.layers import Activation, Conv, Dense, Join, Norm, Pool, Residual
from flute.deep.network import NeuralNetworkAlgorithm
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork, Training
import flute.questions.registry
age, ill = StudyVariable(Variable("age", "number", 20, 100)), StudyVariable(Variable("ill", "binary"))
scan = StudyVariable(Variable("scan", "image", 0, 1, shape=(1, 8, 8)))
used = {v.variable.name: v for v in (age, ill, scan)}
where = Setting(used, "drop", "exact", ("a", "b"), {})
layers = (Conv(2), Norm(1), Residual((Conv(2),)), Pool(), Join(), Dense(3), Activation())
for method in ("fedavg", "scaffold", "fedadam"):
    spec = NeuralNetwork("ill", ("age",), "scan", layers, Training(method, 2))
    network, history = NeuralNetworkAlgorithm(), []
    network.check(spec, where)
    for shape in network.outline(spec, where):
        asked = network.next(spec, where, history, {})
        history.append(Opened(asked.parameters, np.full(shape.size, 0.5), 0.0))
    result = network.next(spec, where, history, {})
    assert isinstance(result, Finished)
    assert len(NetworkScorer().parameters(spec, where, result.result)) == result.result["size"]
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr


REFUSED: dict[str, tuple[NeuralNetwork, str]] = {
    "outcome": (changed(SPEC, outcome="age"), "outcome: 'age' must be a binary variable"),
    "no outcome": (changed(SPEC, outcome="gone"), "'gone' is not among the study's variables"),
    "itself": (changed(SPEC, predictors=("ill",)), "predictors: 'ill' is the outcome itself"),
    "twice": (changed(SPEC, predictors=("age", "age")), "predictors: 'age' stands twice"),
    "an image among numbers": (changed(SPEC, predictors=("scan",)), "predictors: 'scan' is an image; write it under"),
    "no image": (changed(SPEC, image="age"), "age is no image"),
    "nothing": (changed(SPEC, predictors=()), "needs some, or an image"),
    "layers": (changed(SPEC, network=(Conv(4),)), r"layer 1 \(conv\) needs an image; name one"),
    "batch": (
        changed(
            SPEC, image="scan", predictors=(), network=(Conv(2000, 1), Conv(8, 1)), training=Training(batch=4096)
        ),
        "batch: this network takes at most 2,0",
    ),
    "scaffold": (
        changed(SPEC, network=(Dense(1000), Dense(1000)), training=Training("scaffold")),
        "'scaffold' carries three numbers for each of 1,00",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_said_with_what_to_write(name: str) -> None:
    spec, text = REFUSED[name]
    with pytest.raises(StudyFileError, match=text):
        NETWORKS.check(spec, agreed())


def test_what_is_missing_at_a_hub_is_said_before_anything_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking: set[str] = set()
    monkeypatch.setattr("flute.deep.network.find_spec", lambda name: None if name in lacking else object())
    NETWORKS.require_parts(SPEC)
    lacking.add("monai")
    NETWORKS.require_parts(SPEC)
    with pytest.raises(NotPossible, match=r"trained with monai, which is not installed here.*flute\[deep\]"):
        NETWORKS.require_parts(changed(SPEC, network=(Monai("Classifier"),)))
    lacking.add("torch")
    with pytest.raises(NotPossible, match="trained with torch"):
        NETWORKS.require_parts(SPEC)


@pytest.mark.parametrize(("method", "times"), [("fedavg", 1), ("fedprox", 1), ("scaffold", 2), ("fedadam", 1)])
def test_the_outline_lists_every_round_and_every_number(method: Any, times: int) -> None:
    spec = changed(SPEC, training=Training(method, 7))
    outline = NETWORKS.outline(spec, agreed())
    total = sized_for(spec, agreed()).total
    assert total == 4 * 4 + 4 + 4 + 1
    assert [(s.name, s.size, s.magnitude) for s in outline] == [
        (f"round-{k}", 2 + times * total, 1.0) for k in range(7)
    ]


def test_a_round_may_take_as_long_as_the_study_says() -> None:
    assert NETWORKS.seconds(SPEC, agreed()) == 600
    assert NETWORKS.seconds(changed(SPEC, training=Training(minutes=3)), agreed()) == 180


def test_numbers_are_given_on_the_public_scale_and_within_reach() -> None:
    spec = changed(SPEC, predictors=("age", "psa", "size", "tiny", "grade", "male"))
    data = people()
    x = numbers(spec, agreed(), data)
    low, high = np.log(0.1), np.log(100)
    np.testing.assert_allclose(x[:, 0], (data.column("age") - 60) / 10, rtol=1e-5)
    np.testing.assert_allclose(
        x[:, 1], (np.log(data.column("psa")) - (low + high) / 2) / ((high - low) / 4), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(x[:, 2], (data.column("size") - 2) / 0.5, rtol=1e-5, atol=1e-5)
    assert np.all(x[:, 3] == INPUT_REACH)
    np.testing.assert_array_equal(x[:, 4], data.column("grade") == 0)
    np.testing.assert_array_equal(x[:, 5], data.column("grade") == 2)


def test_cells_are_the_outcome_and_every_column_of_0_and_1() -> None:
    data = people(50)
    found = NETWORKS.cells(SPEC, agreed(), data)
    male, ill, grade = (data.column(name) for name in ("male", "ill", "grade"))
    ones = [male.sum(), (grade == 0).sum(), (grade == 2).sum(), ill.sum()]
    assert found.tolist() == [*ones, *(50 - one for one in ones)]


def test_who_is_counted_is_who_is_trained_on() -> None:
    ages = people(10).column("age").copy()
    ages[:3] = np.nan
    columns = {v.variable.name: people(10).column(v.variable.name) for v in VARIABLES} | {"age": ages}
    data = table(columns, VARIABLES, {"scan": people(10).images("scan")})
    assert NETWORKS.counted(SPEC, agreed(), data).tolist() == [[0.0]] * 3 + [[1.0]] * 7
    assert NETWORKS.counted(SPEC, agreed(missing="indicate"), data).tolist() == [[1.0]] * 10


def opened(asked: Array, n: float, loss: float, change: Array) -> Opened:
    return Opened(asked, np.concatenate([[n, n * loss / LOSS_CAP], n * change / CHANGE_BOUND]), 0.0)


def ended(losses: tuple[float, float], n: float = 40) -> dict[str, Any]:
    start = start_weights(sized_for(SPEC, agreed()).parameters, 0)
    history = [opened(start, n, losses[0], np.full(25, 0.25)), opened(start + 0.25, n, losses[1], np.full(25, -0.5))]
    finished = NETWORKS.next(SPEC, agreed(), history, {})
    assert isinstance(finished, Finished)
    return finished.result


def test_the_result_holds_the_network_its_weights_and_its_course_in_plain_json() -> None:
    result = ended((0.6, 0.4))
    assert json.loads(json.dumps(result)) == result
    start = start_weights(sized_for(SPEC, agreed()).parameters, 0)
    weights = NetworkScorer().parameters(SPEC, agreed(), result)
    np.testing.assert_array_equal(weights, (start - 0.25).astype(np.float32))
    assert result["losses"] == pytest.approx([0.6, 0.4])
    assert (result["n"], result["size"], result["rounds"], result["ending"]) == (40, 25, 2, "agreed-rounds")
    assert result["layers"] == [{"layer": "dense", "size": 4}, {"layer": "activation", "kind": "tanh"}]
    assert result["columns"] == ["age", "male", "grade=low", "grade=high"]
    assert result["standardisation"] == {"age": {"centre": 60.0, "spread": 10.0}}


def test_a_rising_loss_and_a_cohort_of_nobody_are_said() -> None:
    assert ended((0.4, 0.6))["ending"] == "diverged"
    nobody = ended((0.0, 0.0), n=0)
    assert (nobody["ending"], nobody["n"]) == ("no-data", 0)
    start = start_weights(sized_for(SPEC, agreed()).parameters, 0)
    reached = NetworkScorer().parameters(SPEC, agreed(), nobody)
    np.testing.assert_array_equal(reached, (start + 0.25).astype(np.float32))  # where the last round stood


def test_a_round_without_patients_moves_nothing() -> None:
    start = start_weights(sized_for(SPEC, agreed()).parameters, 0)
    empty = Opened(start, np.zeros(HEAD + 25), 0.0)
    for method in ("fedavg", "fedadam"):
        training = changed(SPEC.training, method=method)
        np.testing.assert_array_equal(next_asked(training, sized_for(SPEC, agreed()).parameters, [empty]), start)
    assert opened_round(empty, 25).n == 0


def test_asked_anew_from_the_stored_totals_it_asks_the_same() -> None:
    for method in ("fedavg", "scaffold", "fedadam"):
        spec = changed(SPEC, training=changed(SPEC.training, method=method))
        size = NETWORKS.outline(spec, agreed())[0].size
        first = NETWORKS.next(spec, agreed(), [], {})
        assert isinstance(first, Ask)
        history = [Opened(first.parameters, np.linspace(0, 9, size), 0.0)]
        asked = [NETWORKS.next(spec, agreed(), history, {}) for _ in range(2)]
        assert all(isinstance(one, Ask) for one in asked)
        np.testing.assert_array_equal(asked[0].parameters, asked[1].parameters)


def made(weights: Array, spec: NeuralNetwork = SPEC) -> dict[str, Any]:
    return {"weights": b64encode(write_weights(sized_for(spec, agreed()).parameters, weights)).decode()}


def test_a_network_without_layers_scores_as_a_logistic_regression() -> None:
    pytest.importorskip("torch")
    spec, scorer, data = changed(SPEC, network=()), NetworkScorer(), people(200)
    weights = np.array([0.5, -1.0, 0.25, 2.0, -0.5])
    read = scorer.parameters(spec, agreed(), made(weights, spec))
    risks = scorer.risks(spec, agreed(), read, data)
    expected = expit(numbers(spec, agreed(), data).astype(float) @ weights[:4] + weights[4])
    np.testing.assert_allclose(risks, expected, atol=1e-6)
    assert scorer.size(spec, agreed()) == 5


def test_a_scorer_names_the_image_among_what_it_reads() -> None:
    spec = NeuralNetwork("ill", ("age",), "scan", (Join(),))
    assert NetworkScorer().predictors(spec) == ("age", "scan")
    assert NETWORKS.fields(spec, agreed()) == ("ill", "age", "scan")


@pytest.mark.parametrize("huge", [0.0, 1e30, 1e300, -1e308])
def test_risks_are_between_0_and_1_whatever_the_weights_and_the_records(huge: float) -> None:
    pytest.importorskip("torch")
    spec = NeuralNetwork("ill", ("age", "male"), "scan", (Conv(2), Activation("elu"), Join(), Dense(3)))
    strange = np.array([np.nan, np.inf, -np.inf, 1e308, 20.0, 100.0])
    columns = {v.variable.name: strange for v in VARIABLES}
    with np.errstate(over="ignore"):
        data = table(columns, VARIABLES, {"scan": np.resize(strange, (6, 1, 8, 8)).astype(np.float32)})
    risks = NetworkScorer().risks(spec, agreed(), np.full(sized_for(spec, agreed()).total, huge), data)
    assert risks.shape == (6,)
    assert np.all((risks >= 0) & (risks <= 1))


@pytest.mark.parametrize(
    "result",
    [{}, {"weights": None}, {"weights": "not base64!"}, {"weights": b64encode(b"pickle").decode()},
     made(np.zeros(5), changed(SPEC, network=()))],
)  # fmt: skip
def test_a_result_without_weights_of_this_network_scores_nobody(result: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        NetworkScorer().parameters(SPEC, agreed(), result)


MISSPELT = {
    "an element of a layer": ("network: [{layer: dense, sise: 3}]", "did you mean 'size'"),
    "an element of another layer": ("network: [{layer: conv, part: 3}]", "there may be channels, kernel, stride"),
    "within a residual": ("network: [{layer: residual, inner: [{layer: norm, grups: 3}]}]", "did you mean 'groups'"),
    "of training": ("training: {rouns: 3}", "did you mean 'rounds'"),
    "of the question": ("netwerk: []", "did you mean 'network'"),
    "a layer": ("network: [{layer: dence, size: 3}]", "for example 'network: "),
    "a size": ("network: [{layer: pool, size: 99}]", "of a pool 2 to 8"),
}


@pytest.mark.parametrize("name", MISSPELT)
def test_what_is_misspelt_in_a_layer_is_answered_with_what_may_stand_there(name: str) -> None:
    written, text = MISSPELT[name]
    question = f"  net:\n    algorithm: neural-network\n    outcome: ill\n    predictors: [age]\n    {written}\n"
    with pytest.raises(StudyFileError, match=text):
        study(EXACT, question)
