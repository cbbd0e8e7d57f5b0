"""Training across hubs is the training that papers describe, and a hub's part tells nothing by how it goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as changed
from scipy.special import expit

from flute.algorithms.contract import Ask, Finished, Opened, Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.inputs import inputs, sized_for
from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Layers, Monai, Norm
from flute.deep.scorer import NetworkScorer
from flute.deep.server import HEAD, opened_round
from flute.deep.spec import NeuralNetwork, Training
from flute.deep.start import start_weights
from flute.defaults.models.deep import ADAM_FLOOR, CHANGE_BOUND
from flute.errors import MisuseError
from support.networks import NETWORKS, carried, step, table

torch = pytest.importorskip("torch")

VARIABLES = (
    StudyVariable(Variable("a", "number", -4, 4), scale="reference", centre=0.0, spread=1.0),
    StudyVariable(Variable("b", "number", -4, 4), scale="reference", centre=0.0, spread=1.0),
    StudyVariable(Variable("male", "binary")),
    StudyVariable(Variable("ill", "binary")),
    StudyVariable(Variable("scan", "image", 0, 10, shape=(1, 4, 4))),
)
LAYERS: Layers = (Dense(5), Activation("tanh"))
FULL = Training(rounds=3, batch=4096, learning_rate=0.5, momentum=0.0)
"""One step over all patients in a round."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # steps are tiny, and threads that wait would cost more than they bring


def agreed(**other: Any) -> Setting:
    given: dict[str, Any] = {"missing": "drop", "mode": "exact", "hubs": ("x", "y", "z"), "questions": {}} | other
    return Setting(variables={v.variable.name: v for v in VARIABLES}, **given)


def asked(layers: Layers = LAYERS, **other: Any) -> NeuralNetwork:
    return NeuralNetwork("ill", **({"predictors": ("a", "b", "male"), "network": layers, "training": FULL} | other))


def people(n: int, seed: int = 0, shift: float = 0.0) -> Dataset:
    chance = np.random.default_rng([n, seed])
    a, b = chance.normal(shift, 1, (2, n)).clip(-4, 4)
    male = (chance.random(n) < 0.5).astype(float)
    ill = (chance.random(n) < expit(1.5 * a - b + a * b + male)).astype(float)
    scans = (5 + 2 * ill[:, None, None, None] + chance.normal(0, 1, (n, 1, 4, 4))).clip(0, 10).astype(np.float32)
    columns = {"a": a, "b": b, "male": male, "ill": ill, "scan": np.ones(n)}
    return table(columns, VARIABLES, {"scan": scans})


def with_column(data: Dataset, name: str, values: Array) -> Dataset:
    columns = {v.variable.name: data.column(v.variable.name) for v in VARIABLES} | {name: values}
    return table(columns, VARIABLES, {"scan": data.images("scan")})


def thirds(data: Dataset, sizes: Sequence[int] = (11, 60)) -> list[Dataset]:
    place = np.searchsorted(np.array(sizes), np.arange(len(data)), side="right")
    return [data.where(place == hub) for hub in range(3)]


def weights_after(spec: NeuralNetwork, hubs: Sequence[Dataset], setting: Setting | None = None) -> Array:
    where = setting or agreed()
    return NetworkScorer().parameters(spec, where, carried(spec, where, hubs))


def by_torch(spec: NeuralNetwork, data: Dataset, passes: Sequence[Sequence[Any]]) -> Array:
    """The usual loop: `passes` gives each pass's batches of rows."""
    from flute.deep.build import build, flat, load

    parameters = sized_for(spec, agreed()).parameters
    module, given = build(spec.network, 3, ()), inputs(spec, agreed(), data)
    load(module, start_weights(parameters, spec.seed), parameters)
    training = spec.training
    optimiser = torch.optim.SGD(
        module.parameters(), training.learning_rate, training.momentum, weight_decay=training.weight_decay
    )
    for batches in passes:
        for rows in batches:
            optimiser.zero_grad()
            found = module(torch.from_numpy(given.x[rows]))
            torch.nn.functional.binary_cross_entropy_with_logits(found, torch.from_numpy(given.y[rows])).backward()
            optimiser.step()
    return flat(module, parameters)


def test_fedavg_of_one_hub_and_one_round_is_plain_training() -> None:
    from flute.deep.training import _batches, _shuffled

    training = Training(rounds=1, local_epochs=3, batch=16, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    spec, data = asked(training=training, seed=4), people(70)
    passes = [list(_batches(_shuffled(70, 4, 0, epoch), 16)) for epoch in range(3)]
    assert [len(batches) for batches in passes] == [5, 5, 5]
    expected = by_torch(spec, data, passes)
    found = weights_after(spec, [data])
    assert np.abs(found - start_weights(sized_for(spec, agreed()).parameters, 4)).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("sizes", [(11, 60), (0, 1), (90, 90)])
def test_with_full_batches_a_round_over_hubs_of_any_size_is_a_step_over_all(sizes: tuple[int, int]) -> None:
    spec, data = asked(), people(90)
    expected = by_torch(spec, data, [[np.arange(90)]] * 3)
    np.testing.assert_allclose(weights_after(spec, thirds(data, sizes)), expected, atol=1e-6)


def test_the_mean_over_hubs_without_their_sizes_would_be_another_step() -> None:
    spec, data = asked(), people(90)
    alone = [weights_after(spec, [hub]) for hub in thirds(data)]
    expected = by_torch(spec, data, [[np.arange(90)]] * 3)
    assert np.abs(np.mean(alone, axis=0) - expected).max() > 1e-3


def unlike() -> list[Dataset]:
    return [people(40, 1, shift=1.0), people(60, 2, shift=-1.0)]


def everybody() -> tuple[Array, Array]:
    """(inputs and a column of 1, outcomes) of both hubs' patients, as a network without layers sees them."""
    given = [inputs(asked(()), agreed(), hub) for hub in unlike()]
    x = np.hstack([np.vstack([g.x for g in given]).astype(float), np.ones((100, 1))])
    return x, np.concatenate([g.y for g in given]).astype(float)


def gradient_at(weights: Array) -> Array:
    x, y = everybody()
    return np.asarray(x.T @ (expit(x @ weights) - y) / 100)


def resting_point() -> Array:
    """Weights at which the gradient of both hubs' patients together is 0: of a network without layers, by Newton."""
    (x, _), w = everybody(), np.zeros(4)
    for _ in range(30):
        p = expit(x @ w)
        w -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x / 100, gradient_at(w))
    return w


def moved_from(weights: Array, method: str) -> float:
    """How far the second round moves weights that the first one was asked with too."""
    training = Training(method, 2, 20, 4096, 0.5, 0.0)
    spec = asked((), training=training)
    parts = [weights, weights, gradient_at(weights)] if method == "scaffold" else [weights]
    totals = [NETWORKS.total(spec, agreed(), 1, np.concatenate(parts), hub) for hub in unlike()]
    return float(np.abs(opened_round(Opened(np.zeros(0), np.sum(totals, axis=0), 0.0), 4).change).max())


def test_scaffold_stays_where_all_patients_together_rest_and_fedavg_does_not() -> None:
    rest = resting_point()
    assert moved_from(rest, "scaffold") < 1e-4
    assert moved_from(rest, "fedavg") > 1e-2
    assert moved_from(rest + 0.3, "scaffold") > 1e-2


def test_scaffold_opens_the_gradient_and_asks_with_it() -> None:
    spec = asked((), training=Training("scaffold", 2, 2, 8, 0.1))
    first = step(spec, agreed(), unlike(), [])
    assert first is not None
    assert len(first.total) == HEAD + 2 * 4
    w = first.parameters
    expected = gradient_at(w)
    np.testing.assert_allclose(opened_round(first, 4).gradient, expected, atol=1e-6)
    second = NETWORKS.next(spec, agreed(), [first], {})
    assert isinstance(second, Ask)
    np.testing.assert_allclose(second.parameters[4:8], w)
    np.testing.assert_allclose(second.parameters[8:], expected, atol=1e-6)


def test_scaffold_takes_no_momentum_and_is_pulled_like_fedprox() -> None:
    hubs = unlike()
    training = Training("scaffold", 3, 3, 16, 0.05, momentum=0.0, proximal=0.5)
    found = weights_after(asked(training=training), hubs)
    assert np.array_equal(weights_after(asked(training=changed(training, momentum=0.9)), hubs), found)
    free = weights_after(asked(training=changed(training, proximal=0.0)), hubs)
    start = start_weights(sized_for(asked(), agreed()).parameters, 0)
    assert np.linalg.norm(found - start) < np.linalg.norm(free - start)


def test_fedprox_pulls_towards_the_common_weights() -> None:
    hubs = unlike()

    def moved(method: str, proximal: float) -> float:
        spec = asked(training=Training(method, 1, 10, 16, 0.05, 0.0, proximal=proximal))
        return float(
            np.linalg.norm(weights_after(spec, hubs) - start_weights(sized_for(spec, agreed()).parameters, 0))
        )

    free = moved("fedavg", 10.0)
    assert moved("fedprox", 0.0) == pytest.approx(free)
    assert moved("fedprox", 1.0) < 0.8 * free
    assert moved("fedprox", 10.0) < 0.2 * free


def test_fedadam_is_the_paper_s_formula() -> None:
    spec = asked(training=changed(FULL, method="fedadam", server_rate=0.1))
    hubs, history = unlike(), []
    weights = start_weights(sized_for(spec, agreed()).parameters, 0)
    first, second = 0.0, ADAM_FLOOR**2
    for _ in range(3):
        opened = step(spec, agreed(), hubs, history)
        assert opened is not None
        np.testing.assert_allclose(opened.parameters, weights, atol=1e-12)
        change = opened.total[HEAD:] / opened.total[0] * CHANGE_BOUND
        first = 0.9 * first + 0.1 * change
        second = 0.99 * second + 0.01 * change**2
        moved = weights + 0.1 * first / (np.sqrt(second) + ADAM_FLOOR)
        weights = moved.astype(np.float32).astype(np.float64)  # as they travel
        history.append(opened)
    finished = NETWORKS.next(spec, agreed(), history, {})
    assert isinstance(finished, Finished)
    found = NetworkScorer().parameters(spec, agreed(), finished.result)
    np.testing.assert_array_equal(found, weights.astype(np.float32))


def test_the_server_rate_multiplies_the_mean_change() -> None:
    spec = asked(training=changed(FULL, rounds=1))
    start = start_weights(sized_for(spec, agreed()).parameters, 0)
    once = weights_after(spec, unlike()) - start
    half = weights_after(changed(spec, training=changed(spec.training, server_rate=0.5)), unlike()) - start
    np.testing.assert_allclose(half, once / 2, atol=1e-6)


BUSY = Training(rounds=2, local_epochs=2, batch=8, learning_rate=0.1)


def first_total(spec: NeuralNetwork, data: Dataset, setting: Setting | None = None) -> Array:
    opened = step(spec, setting or agreed(), [data], [])
    assert opened is not None
    return opened.total


def test_a_hub_gives_the_same_again_whatever_torch_s_own_chance() -> None:
    spec = asked((Dense(5), Dropout(0.5), Activation()), training=BUSY)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = first_total(spec, people(40))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(first_total(spec, people(40)), first)
    assert not np.array_equal(first_total(changed(spec, seed=1), people(40)), first)


def test_the_order_of_rows_changes_nothing() -> None:
    data, order = people(40), np.random.default_rng(1).permutation(40)
    columns = {v.variable.name: data.column(v.variable.name)[order] for v in VARIABLES}
    moved = Dataset(data.pseudonyms[order], columns, [v.variable for v in VARIABLES],
                    {"scan": data.images("scan")[order]})  # fmt: skip
    spec = asked(training=BUSY)
    assert np.array_equal(first_total(spec, moved), first_total(spec, data))


@pytest.mark.parametrize("method", ["fedavg", "scaffold"])
def test_values_of_a_patient_who_is_left_out_change_nothing(method: str) -> None:
    spec, data = asked(training=changed(BUSY, method=method)), people(40)
    ill, a = data.column("ill").copy(), data.column("a").copy()
    ill[[3, 17]] = np.nan
    a[3] = 3.9
    without, other = with_column(data, "ill", ill), with_column(with_column(data, "ill", ill), "a", a)
    assert np.array_equal(first_total(spec, without), first_total(spec, other))
    assert first_total(spec, without)[0] == 38
    assert not np.array_equal(first_total(spec, without)[1:], first_total(spec, data)[1:])


def test_a_missing_predictor_leaves_out_or_is_said_by_a_column() -> None:
    a = people(40).column("a").copy()
    a[[1, 2, 3]] = np.nan
    data, spec = with_column(people(40), "a", a), asked(training=BUSY)
    assert first_total(spec, data)[0] == 37
    indicate = agreed(missing="indicate")
    total = first_total(spec, data, indicate)
    assert total[0] == 40
    assert len(total) == HEAD + (6 + 1) * 5 + 6


@pytest.mark.parametrize("layers", [LAYERS, ()])
def test_an_empty_hub_gives_zeros_and_a_hub_of_one_counts_as_one(layers: Layers) -> None:
    spec = asked(layers, training=BUSY)
    nobody = people(5).where(np.zeros(5, dtype=np.bool_))
    assert not first_total(spec, nobody).any()
    one = first_total(spec, people(1))
    assert one[0] == 1
    assert np.abs(one[HEAD:]).max() > 0
    everybody_left_out = with_column(people(9), "ill", np.full(9, np.nan))
    assert not first_total(spec, everybody_left_out).any()


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "scaffold", "fedadam"])
@pytest.mark.parametrize("huge", [1e30, 1e300, -1e308])
def test_parameters_of_any_size_move_no_number_beyond_its_public_bound(method: str, huge: float) -> None:
    spec, data = asked(training=changed(BUSY, method=method)), people(20)
    total = sized_for(spec, agreed()).total
    for k in range(2):
        size = total * (3 if k and method == "scaffold" else 1)
        found = NETWORKS.total(spec, agreed(), k, np.full(size, huge), data)
        assert np.isfinite(found).all()
        assert np.abs(found).max() <= 20
        assert found[0] == 20


def test_parameters_that_a_round_does_not_take_are_refused() -> None:
    spec, data = asked(training=changed(BUSY, method="scaffold")), people(3)
    total = sized_for(spec, agreed()).total
    for k, bad in ((0, np.zeros(total - 1)), (1, np.zeros(total)), (0, np.full(total, np.nan)), (2, np.zeros(total))):
        with pytest.raises(MisuseError):
            NETWORKS.total(spec, agreed(), k, bad, data)


def test_strange_values_are_no_numbers_that_a_network_sees() -> None:
    strange = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, -0.0, 5e-324, 4.0, 5.0])
    columns = {v.variable.name: strange for v in VARIABLES}
    scans = np.resize(strange, (10, 1, 4, 4)).astype(np.float32)
    data = table(columns, VARIABLES, {"scan": scans})
    spec = asked((Conv(2), Join()), image="scan", training=BUSY)
    for missing in ("drop", "indicate"):
        total = first_total(spec, data, agreed(missing=missing))
        assert np.isfinite(total).all()
        assert np.abs(total).max() <= 10


IMAGE: Layers = (Conv(3), Norm(1), Activation(), GlobalMean(), Dense(4))


def test_a_patient_without_the_image_is_left_out_under_either_rule() -> None:
    data = people(30)
    there = np.where(np.arange(30) < 4, np.nan, 1.0)
    scans = data.images("scan") * np.nan_to_num(there)[:, None, None, None].astype(np.float32)
    columns = {v.variable.name: data.column(v.variable.name) for v in VARIABLES} | {"scan": there}
    some = table(columns, VARIABLES, {"scan": scans})
    spec = asked(IMAGE, predictors=(), image="scan", training=BUSY)
    for missing in ("drop", "indicate"):
        assert first_total(spec, some, agreed(missing=missing))[0] == 26


def test_images_are_given_within_one_of_zero() -> None:
    data = people(6)
    spec = asked(IMAGE, predictors=(), image="scan")
    given = inputs(spec, agreed(), data).images(np.arange(6))
    assert given is not None
    np.testing.assert_allclose(given, (data.images("scan") - 5) / 5, atol=1e-6)


def test_a_network_of_images_and_numbers_learns_across_hubs() -> None:
    training = Training(rounds=6, local_epochs=2, batch=16)
    for predictors, layers in (((), IMAGE), (("a", "b"), (Conv(3), Activation(), Join(), Dense(4)))):
        spec = asked(layers, predictors=predictors, image="scan", training=training)
        result = carried(spec, agreed(), [people(40, 1), people(30, 2), people(50, 3)])
        judge = people(200, 9)
        risks = NetworkScorer().risks(spec, agreed(), NetworkScorer().parameters(spec, agreed(), result), judge)
        ill = judge.column("ill") == 1
        assert np.mean(risks[ill][:, None] > risks[~ill][None, :]) > 0.9
        assert result["losses"][-1] < result["losses"][0]


def test_batch_normalisation_goes_with_the_weights_and_takes_a_hub_of_one() -> None:
    pytest.importorskip("monai")
    layer = Monai("DenseNet", 4, {"init_features": 4, "growth_rate": 2, "block_config": [1]})
    wide = StudyVariable(Variable("scan", "image", 0, 10, shape=(1, 16, 16)))
    setting = replace(agreed(), variables={"ill": VARIABLES[3], "scan": wide})
    spec = asked((layer,), predictors=(), image="scan", training=Training(rounds=1, batch=4))

    def hub(n: int) -> Dataset:
        chance = np.random.default_rng(n)
        scans = chance.uniform(0, 10, (n, 1, 16, 16)).astype(np.float32)
        columns = {"ill": (np.arange(n) % 2).astype(float), "scan": np.ones(n)}
        return table(columns, (VARIABLES[3], wide), {"scan": scans})

    sized = sized_for(spec, setting)
    buffers = np.concatenate([np.full(p.size, not p.trained) for p in sized.parameters])
    for n in (1, 9):
        opened = step(spec, setting, [hub(n)], [])
        assert opened is not None
        assert opened.total[0] == n
        assert np.abs(opened.total[HEAD:][buffers]).max() > 0
    result = carried(spec, setting, [hub(1), hub(9)])
    risks = NetworkScorer().risks(spec, setting, NetworkScorer().parameters(spec, setting, result), hub(5))
    assert np.all((risks > 0) & (risks < 1))
