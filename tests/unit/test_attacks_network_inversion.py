"""What is inverted is what hubs send; which attacks of the suite fit a network, and why others are not tried."""

from __future__ import annotations

import numpy as np
import pytest

from flute.attacks import networks
from flute.attacks.chance import Chance
from flute.attacks.records import replaced, simulated, together
from flute.attacks.releases import Seen, protected, subject_of, unprotected
from flute.attacks.suite import ATTACKS, attacked_question, run
from flute.attacks.trial import Trial
from flute.data.dataset import Dataset
from flute.study.agreement import Agreement
from support.attack_networks import CONV, IMAGE, MODEL, cnn, dense
from support.attack_studies import DESCRIBE, MIXED_MODEL, agreed, mixed, subject, trial

pytestmark = pytest.mark.requirement("URS-6")
JOINED = CONV.replace("      - {layer: dense", "      - {layer: join}\n      - {layer: dense")


def of_both(epsilon: float | None, network: str = JOINED) -> Agreement:
    """An image and numbers."""
    question = f"{MODEL}    image: scan\n    predictors: [age, sex]\n{network}    training: {{rounds: 3}}\n"
    return agreed(IMAGE, question, epsilon=epsilon)


def alone(attacked: Trial) -> dict[str, Dataset]:
    patient = attacked.patients(1, Chance(b"alone"))
    nobody = patient.where(np.zeros(1, dtype=np.bool_))
    return dict.fromkeys(attacked.subject.hubs, nobody) | {attacked.subject.hubs[0]: patient}


def as_modelled(agreement: Agreement) -> tuple[np.ndarray, np.ndarray]:
    """What a patient alone adds to the first training step, as her hub sends it and as the attack models it: unit
    vectors. Private: asked with what others' inputs and gradients led to."""
    torch = pytest.importorskip("torch")
    from flute.attacks.network_inversion import Network, direction_of, model_of, on_range, outcome_of
    from flute.deep.inputs import numbers

    attacked = subject(agreement)
    there, spec = alone(Trial(attacked, Chance(b""))), networks.network_of(attacked)
    hers = there[attacked.hubs[0]]
    if agreement.mode == "exact":
        seen = unprotected(attacked, there, steps=1).steps[0]
    else:
        others = {hub: Trial(attacked, Chance(b"")).patients(9, Chance(hub.encode())) for hub in attacked.hubs}
        asked = unprotected(attacked, others, steps=3).steps[2].parameters
        seen = Seen(asked, attacked.rows(2, asked, hers)[0], 0.0)
    network = Network(spec, attacked.setting)
    x = torch.tensor(numbers(spec, attacked.setting, hers)[0], dtype=torch.float64)
    image = torch.tensor(on_range(hers.images("scan")[0], hers.variable("scan"))) if spec.image else None
    sent = direction_of(network, seen)
    assert outcome_of(network, sent) == hers.column("ill")[0]
    modelled = model_of(network, seen.parameters)(x, image, hers.column("ill")[0]).detach().numpy()
    return sent / np.linalg.norm(sent), modelled / np.linalg.norm(modelled)


@pytest.mark.parametrize(
    "training",
    [
        "{rounds: 1}",
        "{rounds: 1, local_epochs: 3, weight_decay: 0.1}",
        "{rounds: 1, method: fedprox, proximal: 1, local_epochs: 3}",
        "{rounds: 1, method: scaffold, local_epochs: 3}",
    ],
)
def test_an_exact_update_of_one_patient_is_modelled_as_her_hub_sends_it(training: str) -> None:
    sent, modelled = as_modelled(cnn(None, training))
    assert np.abs(sent - modelled).max() < 1e-5


@pytest.mark.parametrize("study", [cnn, dense, of_both])
def test_a_private_row_is_modelled_as_her_hub_sends_it(study: object) -> None:
    sent, modelled = as_modelled(study(1.0))  # type: ignore[operator]
    assert np.abs(sent - modelled).max() < 1e-5
    assert np.abs(sent[:-1]).max() > 0.01


def test_numbers_that_a_dense_layer_is_given_are_read_without_a_search() -> None:
    pytest.importorskip("torch")
    from flute.attacks.network_inversion import Network, read
    from flute.deep.inputs import numbers

    for agreement in (dense(None), of_both(None)):
        attacked = subject(agreement)
        there = alone(Trial(attacked, Chance(b"")))
        seen = unprotected(attacked, there, steps=1).steps
        spec = networks.network_of(attacked)
        x, _ = read(Network(spec, attacked.setting), seen)
        assert np.allclose(x, numbers(spec, attacked.setting, there[attacked.hubs[0]])[0], atol=1e-4)


def test_all_fields_of_a_record_are_found_in_clear() -> None:
    pytest.importorskip("torch")
    from flute.attacks.network_inversion import reconstruction

    found = reconstruction(trial(dense(1.0), "fields", 0.1))
    assert found.unprotected.value > 0.95
    assert found.bound is not None
    assert found.protected.low <= found.bound < 0.75


def test_a_networks_sums_are_attacked_as_others_are() -> None:
    pytest.importorskip("torch")
    verdicts = [*run(dense(1.0), ("membership-sums", "attribute", "property"), b"sums", effort=0.1)]
    assert all(v.found is not None and v.judged != "exceeds" for v in verdicts), [v.says for v in verdicts]


# --- which attacks ------------------------------------------------------------------------------------


def test_a_network_is_attacked_where_a_study_has_no_logistic_regression() -> None:
    asked = cnn(1.0).questions[0]
    assert attacked_question(cnn(1.0)) == asked
    both = mixed(None, DESCRIBE + MIXED_MODEL)
    assert attacked_question(both).id == "model"
    described = agreed(IMAGE, DESCRIBE.replace("[age, sex, grade]", "[age]") + cnn_question(), epsilon=None)
    assert attacked_question(described).id == "model"


def cnn_question() -> str:
    return f"{MODEL}    image: scan\n{CONV}    training: {{rounds: 2}}\n"


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_that_does_not_fit_a_network_says_why(name: str) -> None:
    pytest.importorskip("torch")
    private, exact = networks.lacking(name, subject(dense(1.0))), networks.lacking(name, subject(dense(None)))
    written_for_others = {"cheating-coordinator", "attribute-model", "label-flip", "scaling", "scaling-by-a-hub"}
    written_for_others |= {"backdoor", "free-riding"}
    assert ("logistic regressions" in private) is (name in written_for_others)
    assert bool(exact) is (name not in ("membership-model", "reconstruction"))
    assert exact == "" or exact.endswith(".")


def test_a_network_that_is_too_large_or_has_no_torch_is_not_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    large = dense(1.0).questions[0]
    monkeypatch.setattr(networks, "MOST_WEIGHTS", 10)
    assert "too large" in networks.lacking("difference", subject_of(dense(1.0), large))
    monkeypatch.undo()
    monkeypatch.setattr("flute.deep.network.find_spec", lambda name: None)
    verdicts = [*run(dense(1.0), ("membership-model", "difference"), b"none")]
    assert all("torch" in v.skipped and v.found is None for v in verdicts)


# --- images -------------------------------------------------------------------------------------------


def test_simulated_images_lie_in_the_declared_range_and_stay_with_their_patients() -> None:
    setting = cnn(None).setting
    one, other = (simulated(setting, ("scan", "ill"), 3, Chance(seed)) for seed in (b"one", b"other"))
    assert one.images("scan").shape == (3, 1, 8, 8)
    assert one.images("scan").min() >= 0
    assert one.images("scan").max() <= 16
    both = together([one, other], setting)
    assert np.array_equal(both.images("scan")[3:], other.images("scan"))
    changed = replaced(one, setting, {"ill": np.zeros(3)})
    assert np.array_equal(changed.images("scan"), one.images("scan"))
    assert not changed.column("ill").any()


def test_a_larger_network_is_tried_less_often() -> None:
    assert trial(dense(1.0), "t").times(200) == 200
    assert trial(cnn(1.0), "t").times(200) < 100


def test_a_hub_without_patients_gives_nothing_in_clear_and_noise_under_the_plan() -> None:
    pytest.importorskip("torch")
    attacked = subject(cnn(1.0))
    everybody = alone(trial(cnn(1.0), "")).items()
    nobody = {hub: data.where(np.zeros(len(data), dtype=np.bool_)) for hub, data in everybody}
    assert not unprotected(attacked, nobody, steps=1).steps[0].total.any()
    assert protected(attacked, nobody, Chance(b"n"), steps=1).steps[0].total.any()
