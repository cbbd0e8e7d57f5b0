"""One study from agreement to release, in one process: exact equals pooled, private is charged as agreed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from flute.errors import ExactNotAllowed
from flute.hub.store import HubPolicy
from flute.ledger.budgets.budget import Level
from flute.ledger.journals.journal import verify
from flute.study.protection import hub_epsilon, study_budget
from support.inprocess import InProcessFederation
from support.studies import DESCRIBE, EVALUATE, EXACT, MODEL, PRIVATE, private_model, study


def people(seed: int, sizes: dict[str, int]) -> dict[str, dict[str, list[object]]]:
    rng = np.random.default_rng(seed)
    found = {}
    for hub, n in sizes.items():
        age = rng.normal(60, 10, n).clip(25, 95)
        pressure = np.exp(rng.normal(4.9, 0.2, n)).clip(70, 250)
        sex = rng.integers(0, 2, n)
        grade = rng.choice(["low", "mid", "high"], n, p=[0.5, 0.3, 0.2])
        eta = -0.8 + 0.04 * (age - 60) + 1.2 * (grade == "high") + 0.5 * sex + 1.5 * (np.log(pressure) - 4.9)
        ill = rng.random(n) < 1 / (1 + np.exp(-eta))
        found[hub] = {
            "age": [float(a) if rng.random() > 0.03 else None for a in age],
            "pressure": [float(p) for p in pressure],
            "sex": [int(s) for s in sex],
            "grade": [str(g) for g in grade],
            "ill": [int(i) for i in ill],
        }
    return found


@pytest.fixture
def data() -> dict[str, dict[str, list[object]]]:
    return people(1, {"north": 400, "south": 150, "west": 60})


def federation(tmp_path: Path, data: dict, policy: HubPolicy | None = None) -> InProcessFederation:
    variables = [v.variable for v in study().variables]
    return InProcessFederation(tmp_path, data, variables, policy=policy)


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std(ddof=1)


@pytest.mark.requirement("F-HUF-3")
def test_an_exact_model_equals_the_pooled_fit(tmp_path: Path, data: dict) -> None:
    with_all = federation(tmp_path, data)
    result = with_all.run(study(EXACT, MODEL))["results"]["model"]
    rows = [
        (a, p, s, g, y)
        for hub in data.values()
        for a, p, s, g, y in zip(hub["age"], hub["pressure"], hub["sex"], hub["grade"], hub["ill"], strict=True)
        if a is not None
    ]
    age, pressure = np.array([r[0] for r in rows]), np.log(np.array([r[1] for r in rows]))
    design = np.column_stack(
        [
            np.ones(len(rows)), standardised(age), standardised(pressure),
            [r[2] for r in rows], [r[3] == "mid" for r in rows], [r[3] == "high" for r in rows],
        ]
    ).astype(float)  # fmt: skip
    pooled = sm.Logit(np.array([r[4] for r in rows], dtype=float), design).fit(disp=0, tol=1e-14, maxiter=100)
    assert np.abs(np.array(result["coefficients"]) - pooled.params).max() < 1e-6
    assert np.abs(np.array(result["standard_errors"]) - pooled.bse).max() < 1e-6
    assert result["ending"] == "converged"
    for hub in with_all.hubs.values():
        verify(hub.folder / "journal.db", hub.parts.signing.public)


@pytest.mark.parametrize("epsilon", [1, 3])
def test_a_private_study_is_charged_what_was_agreed_and_not_more(tmp_path: Path, data: dict, epsilon: int) -> None:
    fed = federation(tmp_path, data, HubPolicy())
    protection = PRIVATE.replace("epsilon: 3", f"epsilon: {epsilon}")
    agreement = study(protection, DESCRIBE + private_model(0.4) + EVALUATE)
    assert agreement.epsilon == epsilon
    release = fed.run(agreement)
    assert set(release["results"]) == {"cohort@north", "cohort@south", "cohort@west", "model", "comparison"}
    assert np.isfinite(release["results"]["model"]["coefficients"]).all()
    assert 0 <= release["results"]["comparison"]["models"]["model"]["auc"]["value"] <= 1
    budget = study_budget(agreement)[0]
    for hub in fed.hubs.values():
        account = hub.parts.ledger.account(Level.STUDY, "heart")
        assert 0.99 * budget < account.settled <= budget
        assert hub_epsilon(account.settled, 1e-6) <= epsilon
        assert hub.parts.ledger.open() == ()


def test_a_hub_that_stays_silent_is_named_and_the_round_repeated(tmp_path: Path, data: dict) -> None:
    """West is away for one round: it fails, the others' charges stand, and the repeat needs fresh tickets."""
    fed = federation(tmp_path, data)
    agreement = study(EXACT, MODEL)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner = type(fed.runner)(fed.rounds, fed.desk, timeout_s=0.0)
    away = fed.hubs.pop("west")
    fed.runner.run(agreement.study)
    fed.settle()
    fed.runner.tick(agreement.study)
    first = fed.rounds.rounds(agreement.study)[0]
    assert first.state == "failed"
    assert "west" in first.why
    fed.hubs["west"] = away
    fed.runner = type(fed.runner)(fed.rounds, fed.desk)
    fed.runner.tick(agreement.study)
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert row.state in ("finished", "stopped")
    assert row.state == "finished" or "failed" in row.why


@pytest.mark.requirement("URS-11")
@pytest.mark.requirement("F-SRS-9")
def test_a_withdrawn_consent_stops_the_study_and_erases_its_keys(tmp_path: Path, data: dict) -> None:
    fed = federation(tmp_path, data)
    agreement = study(EXACT, MODEL)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.hubs["west"].steward.withdraw(agreement.study, person="eva", reason="the patients' council asked")
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert (row.state, row.why) == ("stopped", "west withdrew its consent")
    assert all(hub.parts.store.member(agreement.study) is None for hub in fed.hubs.values())
    assert all(hub.source.opened == [agreement.fields()] for hub in fed.hubs.values()), (
        "the floor was judged, no more"
    )


def test_a_denied_study_never_runs(tmp_path: Path, data: dict) -> None:
    fed = federation(tmp_path, data)
    agreement = study(EXACT, MODEL)
    fed.propose(agreement)
    fed.hubs["north"].steward.decide(agreement.study, grant=False, person="eva", reason="no ethics approval")
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert (row.state, row.why) == ("stopped", "north did not consent")
    assert {hub.parts.store.study(agreement.study).state for hub in fed.hubs.values()} == {"denied", "closed"}
    assert all(hub.source.opened == [] for hub in fed.hubs.values())


def test_an_exact_study_cannot_be_granted_where_exact_results_are_not_allowed(tmp_path: Path, data: dict) -> None:
    fed = federation(tmp_path, data, HubPolicy())
    agreement = study(EXACT, MODEL)
    fed.propose(agreement)
    with pytest.raises(ExactNotAllowed, match="its owner can allow them first"):
        fed.hubs["north"].steward.decide(agreement.study, grant=True, person="eva")
    assert fed.hubs["north"].parts.store.study(agreement.study).state == "proposed"
    assert fed.hubs["north"].source.opened == []
