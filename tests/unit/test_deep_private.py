"""Private networks: rows, bounds, and what is made of noised sums."""

from __future__ import annotations

import numpy as np
import pytest

from flute.algorithms.contract import Ask, Opened, Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.deep.layers import Activation, Conv, Dense, Dropout, GlobalMean, Join, Norm, Pool, Residual
from flute.deep.parameter import Parameter
from flute.deep.private.coordinates import Entry, entries
from flute.deep.private.inputs import InputShape, cell_means, counted, opened_picture, picture_of
from flute.deep.private.reference import Reference
from flute.deep.private.steps import private_blocks, private_check, private_expected, private_next, private_outline
from flute.deep.scorer import NetworkScorer
from flute.deep.sizes import Sized, sized
from flute.deep.spec import NeuralNetwork, Training
from flute.deep.start import start_weights
from flute.defaults.models.private_networks import FILTER_PACE
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import REGISTRY
from flute.testing import Example, check_algorithm
from support.sums import Privacy, clipped, dataset, run, setting, spread

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.requirement("F-PIL-14")
VARIABLES = (
    StudyVariable(Variable("age", "number", 40, 90), scale="reference", centre=65, spread=10),
    StudyVariable(Variable("size", "number", 0, 100), scale="reference", centre=50, spread=25),
    StudyVariable(Variable("ill", "binary")),
)
SCAN = StudyVariable(Variable("scan", "image", 0.0, 1.0, shape=(1, 6, 6)))
NETWORK = (Dense(6), Activation("tanh"))
SEED_OF_A_START_THAT_TELLS_NOTHING = 10


def table_spec(rounds: int = 3, **changed: object) -> NeuralNetwork:
    given = {"network": NETWORK, "training": Training(rounds=rounds)} | changed
    return NeuralNetwork("ill", ("age", "size"), **given)  # type: ignore[arg-type]


def agreed(*variables: StudyVariable) -> Setting:
    return setting(variables or VARIABLES, mode="private")


def patients(count: int, seed: int = 0) -> dict[str, Array]:
    chance = np.random.default_rng(seed)
    age, size = chance.uniform(40, 90, count), 100 * chance.beta(2, 8, count)
    odds = 0.15 * (age - 65) + 0.1 * (size - 20)
    return {"age": age, "size": size, "ill": (chance.random(count) < 1 / (1 + np.exp(-odds))).astype(float)}


def scans(count: int, seed: int = 0) -> Dataset:
    chance = np.random.default_rng(seed)
    columns = patients(count, seed) | {"scan": np.where(np.arange(count) % 5 == 4, np.nan, 1.0)}
    variables = [v.variable for v in (*VARIABLES, SCAN)]
    pixels = chance.random((count, 1, 6, 6)).astype(np.float32)
    return Dataset(np.array([f"p{i}" for i in range(count)]), columns, variables, {"scan": pixels})


def asked_after(spec: NeuralNetwork, where: Setting, data: Dataset) -> Array:
    """What step 1 is asked with, step 0 opened without noise."""
    total = np.concatenate([*private_blocks(spec, where, 0, np.zeros(0), data)]).sum(axis=0)
    reached = private_next(spec, where, [Opened(np.zeros(0), total, 0.0)])
    assert isinstance(reached, Ask)
    return np.asarray(reached.parameters)


def rows_of(spec: NeuralNetwork, where: Setting, step: int, asked: Array, data: Dataset) -> Array:
    return np.concatenate([*private_blocks(spec, where, step, asked, data)])


def test_a_network_passes_what_every_algorithm_has_to_pass() -> None:
    spec = table_spec(rounds=2)
    check_algorithm(REGISTRY[NeuralNetwork], Example(spec, VARIABLES, modes=("private",), clipped_by_hub=True))


def test_a_step_is_the_gradient_of_the_loss_less_what_all_patients_share() -> None:
    spec, where, data = table_spec(), agreed(), dataset(patients(9), VARIABLES)
    asked = asked_after(spec, where, data)
    found = rows_of(spec, where, 1, asked, data)
    total = sized(spec.network, 2, ()).total
    weights, numbers, length = np.split(asked, [total, -1])
    picture = picture_of(InputShape(2, ()), numbers)
    network = Reference(spec.network, sized(spec.network, 2, ()), InputShape(2, ()))
    x = np.column_stack([(data.column("age") - 65) / 10, (data.column("size") - 50) / 25])
    chance, step = np.random.default_rng(1), 1e-5
    direction = chance.normal(size=total)  # of coordinates; the same one of weights by the chain rule
    moved = direction.copy()
    by_inputs = moved[:12].reshape(6, 2) / picture.spreads
    moved[:12], moved[12:18] = by_inputs.ravel(), direction[12:18] - by_inputs @ picture.means

    def slope(at: Array) -> Array:
        return (
            network.log_odds(weights + step * moved, at, None) - network.log_odds(weights - step * moved, at, None)
        ) / (2 * step)

    errors = 1 / (1 + np.exp(-network.log_odds(weights, x, None) - weights[-1])) - data.column("ill")
    along = (slope(x) - slope(picture.means[None])) / length + 0.3 * direction[-1]
    assert found @ direction == pytest.approx(errors * along / 0.35, abs=1e-4)


def first_convolution() -> Entry:
    """Of a network of one channel, whose pixels have mean -0.4 and spread 0.6."""
    layers, shape = (Conv(2), Pool(2)), InputShape(0, (1, 6, 6))
    picture = picture_of(shape, np.concatenate([[-0.4, 0.6], np.zeros(shape.coarse)]))
    (found,) = entries(layers, sized(layers, 0, shape.image).parameters, picture)
    return found


def test_a_gradient_by_coordinates_says_what_a_step_of_them_does() -> None:
    entry, chance = first_convolution(), np.random.default_rng(1)
    gradient, step = chance.normal(size=(1, 40)), chance.normal(size=40)
    by_coordinates, moved = gradient.copy(), step.copy()
    entry.gradient(by_coordinates)
    entry.step(moved)
    assert by_coordinates[0] @ step == pytest.approx(gradient[0] @ moved, rel=1e-12)


def test_filters_that_an_image_reaches_first_start_as_they_are_and_move_less() -> None:
    entry, chance = first_convolution(), np.random.default_rng(1)
    weights, pixels = chance.normal(size=40), chance.normal(size=9)
    started, moved = weights.copy(), weights.copy()
    entry.start(started)
    entry.step(moved)
    given = -0.4 + 0.6 * pixels

    def first(vector: Array) -> float:
        return float(vector[entry.weight][:9] @ given + vector[entry.bias][0])

    plain = float(weights[entry.weight][:9] @ pixels)
    assert first(started) == pytest.approx(plain + weights[entry.bias][0])
    assert first(moved) == pytest.approx(FILTER_PACE * plain + weights[entry.bias][0])


@pytest.mark.parametrize("count", [0, 1, 300])
def test_there_is_a_row_for_every_patient(count: int) -> None:
    spec, where, data = table_spec(), agreed(), dataset(patients(count), VARIABLES)
    asked = asked_after(spec, where, dataset(patients(20), VARIABLES))
    for step, parameters in ((0, np.zeros(0)), (1, asked)):
        found = rows_of(spec, where, step, parameters, data)
        assert found.shape == (count, private_outline(spec, where)[step].size)


def test_no_patient_moves_an_opened_sum_by_more_than_the_agreed_norm() -> None:
    spec, where = table_spec(), agreed()
    columns = patients(40)
    columns["age"][0], columns["size"][0] = 90.0, 100.0
    everyone, without = dataset(columns, VARIABLES), dataset({k: v[1:] for k, v in columns.items()}, VARIABLES)
    asked = asked_after(spec, where, everyone)
    outline = private_outline(spec, where)
    for step, parameters in ((0, np.zeros(0)), (1, asked), (1, 50 * asked)):
        norm = outline[step].clip_norm
        sums = [clipped(rows_of(spec, where, step, parameters, d), norm).sum(axis=0) for d in (everyone, without)]
        assert np.linalg.norm(sums[0] - sums[1]) <= norm * (1 + 1e-9)
    asked = asked.copy()
    asked[-1] /= 1_000  # lengths that a coordinator made up: every row is long
    unbounded = [rows_of(spec, where, 1, asked, d).sum(axis=0) for d in (everyone, without)]
    assert np.linalg.norm(unbounded[0] - unbounded[1]) > outline[1].clip_norm  # the control: clipping is what bounds


def test_who_is_left_out_adds_nothing() -> None:
    columns = patients(10)
    columns["age"][3], columns["ill"][4] = np.nan, np.nan
    spec, where, data = table_spec(), agreed(), dataset(columns, VARIABLES)
    asked = asked_after(spec, where, data)
    for step, parameters in ((0, np.zeros(0)), (1, asked)):
        found = rows_of(spec, where, step, parameters, data)
        assert not found[[3, 4]].any()
        assert found[[0, 1, 2, 5]].any(axis=1).all()


def test_an_image_and_predictors_go_through_one_network() -> None:
    layers = (Conv(2), Norm(1), Activation(), Pool(2), Join(), Dense(3), Activation("gelu"))
    spec, where = table_spec(network=layers, image="scan"), agreed(*VARIABLES, SCAN)
    data = scans(30)
    found = rows_of(spec, where, 1, asked_after(spec, where, data), data)
    assert np.isfinite(found).all()
    assert not found[4::5].any()  # no image
    assert found[0].any()


def test_a_hub_without_patients_has_no_rows_of_images() -> None:
    spec, where = table_spec(network=(Conv(2), Join()), image="scan"), agreed(*VARIABLES, SCAN)
    asked = asked_after(spec, where, scans(10))
    for step, parameters in ((0, np.zeros(0)), (1, asked)):
        found = rows_of(spec, where, step, parameters, scans(0))
        assert found.shape == (0, private_outline(spec, where)[step].size)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_parameters_that_are_no_numbers_are_refused(bad: float) -> None:
    spec, where, data = table_spec(), agreed(), dataset(patients(5), VARIABLES)
    asked = asked_after(spec, where, data).copy()
    asked[2] = bad
    with pytest.raises(MisuseError, match="finite"):
        rows_of(spec, where, 1, asked, data)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1e30, -1e300])
def test_no_parameters_make_a_row_that_is_no_number(factor: float) -> None:
    spec, where, data = table_spec(), agreed(), dataset(patients(5), VARIABLES)
    asked = asked_after(spec, where, data) * factor
    assert np.isfinite(rows_of(spec, where, 1, asked, data)).all()


def test_parameters_of_another_length_are_refused() -> None:
    spec, where, data = table_spec(), agreed(), dataset(patients(5), VARIABLES)
    with pytest.raises(MisuseError):
        rows_of(spec, where, 1, np.zeros(7), data)
    with pytest.raises(MisuseError):
        rows_of(spec, where, 0, np.zeros(1), data)
    with pytest.raises(MisuseError):
        rows_of(spec, where, 4, np.zeros(0), data)


def test_steps_share_the_budget() -> None:
    outline = private_outline(table_spec(rounds=7), agreed())
    assert len(outline) == 8
    assert sum(step.weight for step in outline) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("layers", "columns", "image"),
    [
        ((Dense(5), Activation("gelu"), Norm(1)), 7, ()),
        (
            (Conv(4, 3, 2), Norm(2), Activation("elu"), Residual((Conv(4), Activation("relu"))), Pool(2),
             Conv(3, 2), GlobalMean(), Join(), Dense(6), Activation("tanh")),
            3, (2, 9, 10),
        ),
        ((Conv(4), Pool(2, "mean"), Activation("tanh")), 0, (1, 6, 7, 8)),
        ((), 3, ()),
    ],
)  # fmt: skip
def test_the_coordinator_computes_what_torch_computes(
    layers: tuple[Dense, ...], columns: int, image: tuple[int, ...]
) -> None:
    from flute.deep.build import build, load

    found, chance = sized(layers, columns, image), np.random.default_rng(2)
    weights = start_weights(found.parameters, 3)
    x = chance.normal(size=(4, columns))
    images = chance.uniform(-1, 1, (4, *image)) if image else None
    module = build(layers, columns, image)
    load(module, weights, found.parameters)
    parts = [x] if images is None else [x, images]
    theirs = module(*(torch.tensor(part, dtype=torch.float32) for part in parts)).detach().numpy()
    ours = Reference(layers, found, InputShape(columns, image)).log_odds(weights, x, images)
    assert ours + weights[-1] == pytest.approx(theirs, abs=1e-5)


def test_means_and_spreads_are_read_off_the_first_sum() -> None:
    spec, where = table_spec(), agreed()
    data = dataset(patients(2_000), VARIABLES)
    total = rows_of(spec, where, 0, np.zeros(0), data).sum(axis=0)
    picture = opened_picture(InputShape(2, ()), Opened(np.zeros(0), total, 0.0))
    x = np.column_stack([(data.column("age") - 65) / 10, (data.column("size") - 50) / 25])
    assert picture.means == pytest.approx(x.mean(axis=0), abs=0.02)
    assert picture.spreads == pytest.approx(x.std(axis=0), rel=0.05)


def test_a_preview_foretells_the_error_of_the_number_of_patients() -> None:
    spec, where = table_spec(rounds=1), agreed()
    (told,) = private_expected([3.0, 1.0])
    data, chance, errors = dataset(patients(60), VARIABLES), np.random.default_rng(9), []
    total = rows_of(spec, where, 0, np.zeros(0), data).sum(axis=0)
    for _ in range(300):
        noised = Opened(np.zeros(0), total + 3.0 * chance.normal(size=total.size), 3.0)
        errors.append(counted(noised).patients - 60)
    assert np.std(errors) == pytest.approx(told.sd, rel=0.2)  # 5 deviations of it over 300 draws
    assert private_expected([0.0, 0.0]) == ()


def test_noise_alone_leaves_usable_means_and_spreads() -> None:
    shape, chance = InputShape(3, (2, 9, 9)), np.random.default_rng(4)
    for sigma in (1.0, 1e3, 1e6):
        picture = opened_picture(shape, Opened(np.zeros(0), sigma * chance.normal(size=shape.row), sigma))
        assert np.isfinite(picture.numbers()).all()
        assert (picture.spreads > 0).all()
        assert (picture.channel_spreads > 0).all()


def test_cells_of_an_image_are_means_of_their_pixels() -> None:
    shape, chance = InputShape(0, (2, 11, 20)), np.random.default_rng(5)
    images = chance.random((3, 2, 11, 20))
    means = cell_means(images, shape.cells)
    picture = picture_of(shape, np.zeros(shape.described))
    cell = picture.image(np.arange(shape.coarse, dtype=float).reshape(2, 8, 8))
    for number in (0, 17, 100, 127):
        assert means.reshape(3, -1)[1, number] == pytest.approx(images[1][cell == number].mean())


def test_a_private_network_tells_who_is_ill() -> None:
    columns = patients(3_000)
    owner = np.random.default_rng(6).integers(0, 3, 3_000)
    where = agreed()
    new = dataset(patients(2_000, seed=7), VARIABLES)
    areas = {}
    for rho in (0.5, 1e-9):
        spec = table_spec(rounds=10, seed=SEED_OF_A_START_THAT_TELLS_NOTHING)
        result = run(spec, where, spread(columns, owner, VARIABLES), privacy=Privacy(rho, np.random.default_rng(8)))
        weights = NetworkScorer().parameters(spec, where, result)
        risks = NetworkScorer().risks(spec, where, weights, new)
        ill = new.column("ill") == 1
        areas[rho] = np.mean(risks[ill][:, None] > risks[~ill])
    assert areas[0.5] > 0.85
    assert areas[1e-9] < 0.7  # the control: at next to no budget the network stays where it starts


def test_mean_risks_fit_how_many_are_ill() -> None:
    columns, where = patients(2_000), agreed()
    spec = table_spec(rounds=10)
    data = dataset(columns, VARIABLES)
    result = run(spec, where, [data], privacy=Privacy(10.0, np.random.default_rng(8)))
    risks = NetworkScorer().risks(spec, where, NetworkScorer().parameters(spec, where, result), data)
    assert risks.mean() == pytest.approx(columns["ill"].mean(), abs=0.03)


def test_batch_normalisation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Sized((Parameter("norm.running_mean", (2,), 0.0, trained=False),), 1)  # what only MONAI's networks have
    monkeypatch.setattr("flute.deep.private.steps.sized_for", lambda spec, setting: kept)
    with pytest.raises(StudyFileError, match="batch normalisation"):
        private_check(table_spec(), agreed())


@pytest.mark.parametrize("layers", [(Dropout(),), (Dense(2), Residual((Dropout(0.1),)))])
def test_dropout_is_refused(layers: tuple[Dropout, ...]) -> None:
    with pytest.raises(StudyFileError, match="dropout"):
        private_check(table_spec(network=layers), agreed())
