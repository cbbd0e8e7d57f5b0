"""The nine cells: one table for the command, the page, the agreement and the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flute.aggregation.plan import PLANS
from flute.algorithms.contract import Describe
from flute.cli.app import commands
from flute.models.robust.model import RobustModel
from flute.study.agreement import PlanChoice, Question
from flute.study.cautions import cautions
from flute.study.threats import ENCLAVES, PARTIES, guarantees, guarantees_digest, outvotes
from support.studies import study as made
from support.studies import study_text, under_plan

RUNNER = CliRunner()


@pytest.mark.requirement("URS-14")
@pytest.mark.requirement("URS-15")
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("mode", ["private", "exact"])
def test_every_plan_decides_all_nine_cells_and_says_why(plan: str, mode: str) -> None:
    cells = guarantees(mode, PlanChoice(plan))  # type: ignore[arg-type]
    assert [(c.parties, c.enclaves) for c in cells] == [(p, e) for p in PARTIES.values() for e in ENCLAVES.values()]
    for cell in cells:
        assert all(len(text) > 20 for text in (cell.because, cell.assumes, cell.residual))


def test_no_plan_claims_what_exact_totals_cannot_hold() -> None:
    """Colluding hubs subtract their own: no exact total holds against them, whatever the plan."""
    for plan in PLANS:
        assert not any(c.holds for c in guarantees("exact", PlanChoice(plan)) if c.parties == PARTIES["P"])


def test_enclaves_hold_nothing_where_none_is_trusted() -> None:
    for mode in ("private", "exact"):
        cells = guarantees(mode, PlanChoice("enclave", aggregators=("snp", "tdx")))
        assert not any(c.holds for c in cells if c.enclaves == ENCLAVES["N"])
        assert any(c.holds for c in cells if c.enclaves == ENCLAVES["S"])


def test_masks_hold_below_enclaves_of_which_none_is_trusted() -> None:
    """What plan secagg-enclave has that plan enclave lacks; and where an enclave is honest, it says more."""
    cells = guarantees("private", PlanChoice("secagg-enclave", aggregators=("snp", "tdx")))
    fraction = {c.enclaves: c for c in cells if c.parties == PARTIES["P"]}
    assert all(c.holds for c in cells if c.parties != PARTIES["D"])
    assert "masked answers" in fraction[ENCLAVES["N"]].because
    assert "an honest enclave still keeps" in fraction[ENCLAVES["S"]].residual
    assert "an honest enclave still keeps" not in fraction[ENCLAVES["N"]].residual


@pytest.mark.parametrize("plan", PLANS)
def test_poisoned_hubs_are_outvoted_under_mpc_where_every_question_votes(plan: str) -> None:
    voting, counting = Question("model", RobustModel("ill", ("age",))), Question("cohort", Describe(("age",)))
    assert outvotes([voting])
    assert not outvotes([voting, counting])
    told = guarantees("exact", PlanChoice(plan), outvoting=True)
    assert {c.holds for c in told if c.parties == PARTIES["D"]} == {plan == "mpc"}
    both = [guarantees_digest("exact", PlanChoice(plan), asked) for asked in ([voting], [voting, counting])]
    assert (both[0] != both[1]) is (plan == "mpc")


def test_promises_that_differ_have_different_digests() -> None:
    choices = [PlanChoice(plan) for plan in PLANS] + [PlanChoice("secagg", echo=False)]
    asked = [Question("cohort", Describe(("age",)))]
    digests = {guarantees_digest(mode, plan, asked) for plan in choices for mode in ("private", "exact")}
    assert len(digests) == 2 * len(choices) - 1  # without the echo, exact promises are worded alike


def test_the_command_prints_every_cell_with_its_assumption_and_its_test(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(study_text("budget: {epsilon: 3}\nplan: {name: mpc}\nmax_patients: 500", PRIVATE_MODEL))
    text = RUNNER.invoke(commands("threats"), ["threats", str(file)])
    assert text.exit_code == 0, text.output
    found = json.loads(RUNNER.invoke(commands("threats"), ["threats", str(file), "--format", "json"]).output)
    assert len(found["cells"]) == 9
    for cell in found["cells"]:
        for said in (cell["because"], cell["assumes"], cell["residual"], cell["test"]):
            assert said in text.output
    assert "UNAUDITED" in text.output


PRIVATE_MODEL = """\
  model:
    algorithm: logistic-regression
    outcome: ill
    predictors: [age, pressure, sex, grade]
    share: 0.9
"""


def test_cautions_say_who_has_to_be_trusted_under_each_plan() -> None:
    base = made("budget: {epsilon: 3}", PRIVATE_MODEL)
    said = {
        plan.name: " ".join(cautions(under_plan(base, plan)))
        for plan in (
            PlanChoice("mpc"),
            PlanChoice("threshold-he"),
            PlanChoice("enclave", aggregators=("snp", "tdx")),
            PlanChoice("secagg-enclave", aggregators=("snp", "tdx")),
        )
    }
    assert "no more than 1 of the 3 hubs" in said["mpc"]
    assert "Any 2 of the 3 hubs can open" in said["threshold-he"]
    assert "snp, tdx" in said["enclave"]
    assert "if more do, one honest enclave of snp, tdx still does" in said["secagg-enclave"]
