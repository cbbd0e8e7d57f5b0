"""Estimators keep scikit-learn's conventions, and a released model scores a local frame as its coefficients say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import clone

import flute.sdk as flute
from flute.errors import MisuseError
from flute.questions.registry import REGISTRY
from flute.sdk.estimators import Estimator, Predictor, estimator_names
from support.heart import EXAMPLE, PREDICTORS, design, pooled


@pytest.fixture(scope="module")
def federation() -> Iterator[flute.Federation]:
    with flute.simulator(EXAMPLE) as made:
        yield made


def exact_study(federation: flute.Federation, name: str, missing: str = "drop") -> flute.Study:
    return federation.study(
        name, purpose="Test.", variables=EXAMPLE.variables, exact=flute.Exact(20_000), missing=missing
    )


@pytest.fixture(scope="module")
def model(federation: flute.Federation) -> flute.FederatedLogisticRegression:
    return flute.FederatedLogisticRegression("heart_disease", PREDICTORS).fit(exact_study(federation, "predict"))


@pytest.mark.requirement("F-HUF-1")
@pytest.mark.parametrize(
    "estimator",
    [
        flute.FederatedLogisticRegression("ill", ["age"], epsilon=0.5),
        flute.Describe(["age"], bins=8, per_hub=True, name="cohort"),
        flute.Query("joint-test", outcome="ill", by="sex"),
        flute.Model("decision-tree", outcome="ill", predictors=["age"]),
        flute.RobustModel(outcome="ill", predictors=["age"]),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_estimator_is_cloned_by_scikit_learn(estimator: Estimator) -> None:
    copy = clone(estimator)
    assert type(copy) is type(estimator)
    assert copy is not estimator
    assert copy.get_params() == estimator.get_params()
    assert copy.elements() == estimator.elements()
    assert copy.set_params(epsilon=2.0).get_params()["epsilon"] == 2.0 != estimator.get_params()["epsilon"]


def test_a_constructor_stores_its_arguments_and_nothing_else() -> None:
    predictors = ["age"]
    made = flute.FederatedLogisticRegression("ill", predictors)
    assert made.predictors is predictors
    assert not [name for name in vars(made) if name.endswith("_")]


def test_an_unknown_parameter_is_named_with_those_that_there_are() -> None:
    with pytest.raises(MisuseError, match=r"no parameter 'bin'; it has .*bins"):
        flute.Describe(["age"]).set_params(bin=3)


def test_every_registered_algorithm_has_an_estimator_of_its_name() -> None:
    made = {name: getattr(flute, name) for name in estimator_names()}
    assert len(made) == len(REGISTRY)
    scored = {one.algorithm.name for one in REGISTRY.values() if one.scorer is not None}
    assert {kind().asks for kind in made.values() if issubclass(kind, Predictor) and kind not in NAMED} >= scored - {
        "logistic-regression",
        "neural-network",
    }
    with pytest.raises(AttributeError):
        flute.NoSuchAlgorithm  # noqa: B018


NAMED = (
    flute.FederatedLogisticRegression, flute.Describe, flute.Evaluate, flute.RobustMean, flute.Quantiles,
    flute.NeuralNetwork,
)  # fmt: skip


@pytest.mark.requirement("F-HUF-1")
def test_learned_names_hold_the_raw_coefficients(model: flute.FederatedLogisticRegression) -> None:
    raw = model.result_.value["raw_coefficients"]
    assert model.coef_.shape == (1, len(raw) - 1)
    assert [*model.intercept_, *model.coef_[0]] == raw
    assert list(model.feature_names_in_) == model.result_.value["columns"][1:]
    assert model.n_ == model.result_.value["n"]
    assert np.isinf(model.epsilon_spent_)


@pytest.mark.requirement("F-HUF-1")
def test_a_local_frame_is_scored_by_the_released_coefficients(model: flute.FederatedLogisticRegression) -> None:
    table = pooled()
    expected = expit(design(table) @ np.concatenate([model.intercept_, model.coef_[0]]))
    complete = table[PREDICTORS].notna().all(axis=1).to_numpy()
    chances = model.predict_proba(table)
    assert np.allclose(chances[complete, 1], expected[complete], rtol=1e-12)
    assert (~complete).any()
    assert np.isnan(chances[~complete]).all()
    assert np.allclose(chances[complete].sum(axis=1), 1)
    said = model.predict(table)
    assert set(said[complete]) == {0.0, 1.0}
    assert np.isnan(said[~complete]).all()


def test_a_missing_cell_is_never_the_level_none(model: flute.FederatedLogisticRegression) -> None:
    """The heart example has a level 'none', which is how Python writes a missing cell."""
    rows = {name: [one, one] for name, one in pooled().dropna().iloc[0].items()}
    there, gone = model.predict_proba(pd.DataFrame(rows | {"chest_pain": ["none", None]}))[:, 1]
    assert np.isfinite(there)
    assert np.isnan(gone)


def test_where_a_study_indicates_missing_values_every_patient_has_a_risk(federation: flute.Federation) -> None:
    study = exact_study(federation, "indicate", missing="indicate")
    model = flute.FederatedLogisticRegression("heart_disease", ["age", "smoker"]).fit(study)
    risk = model.predict_proba(pd.DataFrame({"age": [60, None], "smoker": [None, 1]}))[:, 1]
    assert np.isfinite(risk).all()


def test_a_tree_predicts_through_the_scorer_it_is_registered_with(federation: flute.Federation) -> None:
    study = exact_study(federation, "tree")
    tree = flute.DecisionTree(outcome="heart_disease", predictors=["age", "chest_pain"])
    scores = flute.Evaluate(tree)
    study.run([tree, scores], progress=False)
    table = pooled().dropna(subset=["age", "chest_pain", "heart_disease"])
    risk, ill = tree.predict_proba(table)[:, 1], table["heart_disease"].to_numpy(float) == 1
    pairs = np.sign(risk[ill][:, None] - risk[~ill][None, :])
    assert abs(float((pairs + 1).mean() / 2) - scores.auc_) < 0.02  # scores fall into bins of risk at the hubs


def test_nothing_is_predicted_from_a_frame_that_lacks_a_column(model: flute.FederatedLogisticRegression) -> None:
    with pytest.raises(MisuseError, match="no column chest_pain"):
        model.predict(pooled().drop(columns="chest_pain"))


def test_a_question_that_makes_no_model_predicts_nothing(federation: flute.Federation) -> None:
    made = flute.Model("describe", variables=["age"]).fit(exact_study(federation, "no-model"))
    with pytest.raises(MisuseError, match="describe makes no model"):
        made.predict(pooled())
