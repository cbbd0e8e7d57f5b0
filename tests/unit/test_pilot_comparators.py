"""The published calculators, against the values that their own code prints."""

from __future__ import annotations

import numpy as np
import pytest

from flute.errors import MisuseError
from flute.pilot.comparators import BCN1, BCN2, COMPARATORS, inputs_from_pilot

FIRST = {"psa": 7, "age": 67, "african_ancestry": 0, "prior_negative_biopsy": 0, "dre": 1, "family_history": 0}
SECOND = {"psa": 5, "age": 60, "african_ancestry": 0, "prior_negative_biopsy": 1, "dre": 0, "family_history": 1}
MRI = {"psa": 7, "dre": 1, "volume": 45, "age": 67, "pirads": 4}


@pytest.mark.parametrize(
    ("name", "inputs", "published"),
    [
        ("pbcg", FIRST, 0.52484),
        ("pcptrc", FIRST, 0.14843),
        ("pbcg", SECOND, 0.11648),
        ("pcptrc", SECOND, 0.06085),
        ("mri-erspc-naive", MRI, 0.26703),
        ("mri-erspc-prior", MRI, 0.36221),
    ],
)
def test_a_calculator_gives_its_published_risk(name: str, inputs: dict[str, float], published: float) -> None:
    assert float(COMPARATORS[name].risk(inputs)) == pytest.approx(published, abs=5.1e-6)


def test_the_risk_by_percent_is_what_the_r_code_prints() -> None:
    printed = [round(100 * float(COMPARATORS[n].risk(i))) for i in (FIRST, SECOND) for n in ("pbcg", "pcptrc")]
    assert printed == [52, 15, 12, 6]


@pytest.mark.parametrize("name", COMPARATORS)
def test_a_missing_input_gives_a_missing_risk(name: str) -> None:
    complete = {**FIRST, **MRI}
    for absent in COMPARATORS[name].needs:
        inputs = {k: np.array([v, v], dtype=float) for k, v in complete.items()}
        inputs[absent][1] = np.nan
        risk = COMPARATORS[name].risk(inputs)
        assert np.isfinite(risk[0])
        assert np.isnan(risk[1])


def test_an_input_that_was_not_given_is_named() -> None:
    with pytest.raises(MisuseError, match="volume"):
        COMPARATORS["mri-erspc-naive"].risk({k: v for k, v in MRI.items() if k != "volume"})


def test_erspc_knows_three_volumes_cut_at_30_and_50() -> None:
    inputs = {k: np.full(6, v, dtype=float) for k, v in MRI.items()}
    inputs["volume"] = np.array([10, 29.9, 30, 49.9, 50, 200])
    risks = COMPARATORS["mri-erspc-naive"].risk(inputs)
    assert len(np.unique(risks)) == 3
    assert risks[0] == risks[1] > risks[2] == risks[3] > risks[4] == risks[5]


def test_a_score_that_is_no_score_has_no_risk() -> None:
    assert np.isnan(COMPARATORS["mri-erspc-prior"].risk(MRI | {"pirads": 6}))


def test_pilot_columns_become_calculator_inputs() -> None:
    columns = {k: np.array([1.0]) for k in ("psa", "age", "dre", "family_history", "volume", "pirads", "biopsy_type")}
    inputs = inputs_from_pilot(columns)
    assert set(inputs) == {need for c in COMPARATORS.values() for need in c.needs}


def test_the_barcelona_models_have_no_coefficients_to_run() -> None:
    assert not any(hasattr(model, "formula") for model in (BCN1, BCN2))
    assert (BCN1.auc["external"], BCN2.auc["external"]) == (0.837, 0.858)
