"""`flute attack`: every attack is named, judged against its bound and told in a sentence; no record is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flute.attacks import figures
from flute.attacks.figures import Figure
from flute.attacks.suite import ATTACKS, attacked_question, chosen, judged, run, verdict
from flute.attacks.trial import Found
from flute.cli.attack import attack
from flute.errors import MisuseError
from support.attack_studies import DESCRIBE, MIXED_MODEL, ROBUST, mixed
from support.studies import PRIVATE, private_model, study_text

pytestmark = pytest.mark.usefixtures("few_resamples")
CLI = typer.Typer()
CLI.command()(attack)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said is tested here, not how wide intervals are."""
    monkeypatch.setattr(figures, "RESAMPLES", 40)


def found(low: float, high: float, bound: float | None, method: str = "exact") -> Found:
    figure = Figure((low + high) / 2, low, high, method)  # type: ignore[arg-type]
    return Found(Figure(0.9, 0.8, 1.0, "exact"), figure, bound, {})


def test_a_figure_is_judged_by_its_whole_interval() -> None:
    assert judged(found(0.1, 0.4, 0.46)) == "within"
    assert judged(found(0.5, 0.8, 0.46)) == "exceeds"
    assert judged(found(0.4, 0.5, 0.46)) == "undecided"
    assert judged(found(0.4, 0.5, None)) == "no promise"
    assert judged(found(0.9, 2.0, 1.0, "bound")) == "within"
    assert judged(found(1.1, 2.0, 1.0, "bound")) == "exceeds"


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_says_a_whole_sentence_with_and_without_a_bound(name: str) -> None:
    for bound in (0.46, None):
        says = verdict(ATTACKS[name], found(0.1, 0.4, bound)).says
        assert says[0].isupper()
        assert says.endswith(".")
        assert "{" not in says


def test_an_unknown_attack_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MisuseError, match="membership-model"):
        chosen(["gossip"])
    assert chosen([]) == tuple(ATTACKS)
    assert chosen(["backdoor", "backdoor"]) == ("backdoor",)


def test_a_model_is_attacked_where_there_is_one() -> None:
    both = mixed(None, DESCRIBE + MIXED_MODEL)
    assert attacked_question(both).id == "model"
    assert attacked_question(mixed(1.0, DESCRIBE)).id == "cohort"


@pytest.mark.parametrize("question", [DESCRIBE, ROBUST], ids=["describe", "robust-mean"])
def test_a_study_without_a_model_is_attacked_by_what_applies(question: str) -> None:
    verdicts = {v.attack: v for v in run(mixed(1.0, question), (), b"none", effort=0.1)}
    skipped = {name for name, v in verdicts.items() if v.found is None}
    assert {"membership-model", "backdoor", "label-flip"} <= skipped
    assert "no model" in verdicts["backdoor"].says
    assert {"membership-sums", "difference", "attribute", "property", "epsilon-audit"} <= set(verdicts) - skipped
    assert ("reconstruction" in skipped) is (question == ROBUST)
    assert not any(v.judged == "exceeds" for v in verdicts.values())


def test_the_same_seed_gives_the_same_figures() -> None:
    one, again, other = (next(run(mixed(1.0), ["reconstruction"], seed, effort=0.2)) for seed in (b"1", b"1", b"2"))
    assert one == again != other


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(study_text(PRIVATE, private_model()), encoding="utf-8")
    return path


def test_the_command_prints_figures_a_bound_and_a_sentence(study_file: Path, tmp_path: Path) -> None:
    page = tmp_path / "attacks.html"
    said = CliRunner().invoke(
        CLI, [str(study_file), "--attack", "reconstruction", "--effort", "0.2", "--report", str(page)]
    )
    assert said.exit_code == 0, said.output
    assert "SIMULATED" in said.stdout
    assert "unprotected 100.0 %" in said.stdout
    assert "within the bound" in said.stdout
    html = page.read_text(encoding="utf-8")
    assert "SIMULATED" in html
    assert "Content-Security-Policy" in html
    assert "<script" not in html


def test_the_command_gives_json_with_every_interval(study_file: Path) -> None:
    command = [str(study_file), "--attack", "difference", "--attack", "epsilon-audit", "--effort", "0.2"]
    said = CliRunner().invoke(CLI, [*command, "--format", "json", "--seed", "7"])
    assert said.exit_code == 0, said.output
    facts = json.loads(said.stdout)
    assert [a["attack"] for a in facts["attacks"]] == ["difference", "epsilon-audit"]
    assert facts["simulated"] is True
    assert facts["seed"] == 7
    first = facts["attacks"][0]
    assert first["protected"]["low"] <= first["protected"]["value"] <= first["protected"]["high"]
    assert first["details"]["AUC"]["unprotected"]["value"] == 1.0
    assert facts["attacks"][1]["unprotected"]["high"] is None


def test_the_command_tells_an_unknown_attack(study_file: Path) -> None:
    said = CliRunner().invoke(CLI, [str(study_file), "--attack", "gossip"])
    assert isinstance(said.exception, MisuseError)
