"""What `flute study check` says of a wrong study file, word for word.

Each case changes one place of a good file. The expected sentence, with file and line, is in NAME.txt beside this
module. After a sentence was changed on purpose: `FLUTE_WRITE_GOLDEN=1 pytest tests/golden`, then read the diff.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.algorithms.contract import Operation
from flute.algorithms.linear import LogisticRegressionAlgorithm
from flute.cli.app import run
from flute.errors import StudyFileError
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file

HERE = Path(__file__).parent
GOOD = """\
flute: 1
study: heart
title: Heart disease at three hospitals
purpose: To see who falls ill.
researcher: ada
hubs: [north, south, west]
missing: drop
period: {from: 2026-01-01, until: 2027-12-31}
conditions:
  all:
    legal_basis: consent for research
    ethics_approval: "2026/17"
    retain_until: 2030-12-31
variables:
  age: {kind: number, unit: a, range: [18, 110]}
  pressure: {kind: number, unit: "mm[Hg]", range: [60, 260], log: true}
  sex: {kind: category, levels: [f, m], reference: f}
  smoker: {kind: binary}
  ill: {kind: binary}
plan: {name: secagg, colluding: 1}
budget: {epsilon: 1, delta: 1.0e-6}
questions:
  cohort:
    algorithm: describe
    variables: [age, pressure, sex]
    bins: 20
    share: 0.2
  model:
    algorithm: logistic-regression
    outcome: ill
    predictors:
      - age
      - pressure
      - sex
      - smoker
    share: 0.5
  performance:
    algorithm: evaluate
    models: [model]
    share: 0.3
"""
BUDGET = "budget: {epsilon: 1, delta: 1.0e-6}\n"
EXACT = "exact: {max_numbers: 5000}\n"
TO_EXACT = [(BUDGET, EXACT), ("    share: 0.2\n", ""), ("    share: 0.5\n", ""), ("    share: 0.3\n", "")]


@dataclass(frozen=True)
class Case:
    """`changes`: (old, new) in the good file. `line`: the one that the sentence must point at."""

    name: str
    line: int
    changes: Sequence[tuple[str, str]] = ()
    arguments: Sequence[str] = ()
    text: str = ""


CASES = [
    # fields
    Case("unknown_field", 7, [("missing: drop", "missin: drop")]),
    Case("unknown_field_without_a_near_name", 21, [("{epsilon: 1,", "{euros: 5,")]),
    Case("unknown_field_of_a_variable", 18, [("{kind: binary}\n  ill", "{kind: binary, colour: red}\n  ill")]),
    Case("unknown_field_of_a_question", 26, [("bins: 20", "bin: 20")]),
    Case("missing_field", 1, [("purpose: To see who falls ill.\n", "")]),
    Case("missing_field_of_conditions", 10, [('    ethics_approval: "2026/17"\n', "")]),
    Case("missing_kind", 18, [("smoker: {kind: binary}", "smoker: {label: Smokes}")]),
    Case("missing_outcome", 28, [("    outcome: ill\n", "")]),
    Case("wrong_form_version", 1, [("flute: 1", "flute: 2")]),
    # types
    Case("wrong_type_of_a_number", 26, [("bins: 20", "bins: many")]),
    Case("a_truth_that_is_no_number", 26, [("bins: 20", "bins: yes")]),
    Case("wrong_type_of_a_text", 3, [("title: Heart disease at three hospitals", "title: 2026")]),
    Case("wrong_type_of_a_list", 6, [("[north, south, west]", "north")]),
    Case("wrong_type_of_a_block", 8, [("{from: 2026-01-01, until: 2027-12-31}", "2026")]),
    Case("wrong_type_of_a_day", 8, [("from: 2026-01-01", "from: soon")]),
    Case("wrong_kind", 19, [("ill: {kind: binary}", "ill: {kind: boolean}")]),
    Case("wrong_log", 16, [("log: true", "log: 10")]),
    Case("variable_without_a_block", 18, [("smoker: {kind: binary}", "smoker: binary")]),
    Case("empty_question", 37, [("    algorithm: evaluate\n    models: [model]\n    share: 0.3\n", "")]),
    Case("question_without_algorithm", 37, [("    algorithm: evaluate\n", "")]),
    Case("a_yes_that_is_no_text", 17, [("levels: [f, m], reference: f", "levels: [no, yes]")]),
    Case("a_hub_called_no", 6, [("[north, south, west]", "[no, se, fi]")]),
    Case("a_delta_that_yaml_reads_as_text", 21, [("1.0e-6", "1e-6")]),
    Case("a_day_that_does_not_exist", 8, [("2027-12-31", "2027-02-30")]),
    Case("a_name_that_is_a_number", 18, [("smoker: {kind: binary}", "7: {kind: binary}")]),
    Case("a_name_with_a_space", 18, [("smoker: {kind: binary}", "smokes daily: {kind: binary}")]),
    Case("a_study_name_in_capitals", 2, [("study: heart", "study: Heart")]),
    # YAML
    Case("duplicate_key", 22, [("questions:", "budget: {epsilon: 3}\nquestions:")]),
    Case("duplicate_variable", 20, [("plan:", "  age: {kind: binary}\nplan:")]),
    Case("bad_yaml_colon", 4, [("To see who falls ill.", "To see: who falls ill.")]),
    Case("bad_yaml_tab", 19, [("  ill: {", "\till: {")]),
    Case("bad_yaml_open_list", 6, [("[north, south, west]", "[north, south, west")]),
    Case("bad_yaml_open_quote", 4, [("To see who falls ill.", "'To see who falls ill.")]),
    Case("bad_yaml_indentation", 19, [("  ill: {", " ill: {")]),
    Case("bad_yaml_no_colon", 5, [("researcher: ada", "researcher ada")]),
    Case("not_a_mapping", 1, text="just a sentence\n"),
    Case("empty_file", 1, text=""),
    Case("a_list_that_holds_itself", 6, [("[north, south, west]", "&h [north, *h]")]),
    # variables
    Case("missing_range", 15, [(", range: [18, 110]", "")]),
    Case("range_upside_down", 15, [("[18, 110]", "[110, 18]")]),
    Case("range_of_one_number", 15, [("[18, 110]", "[18]")]),
    Case("log_of_a_range_at_0", 16, [("[60, 260]", "[0, 260]")]),
    Case("category_without_levels", 17, [("levels: [f, m], reference: f", "label: Sex")]),
    Case("category_of_a_level_twice", 17, [("levels: [f, m]", "levels: [f, f]")]),
    Case("category_of_one_level", 17, [("levels: [f, m]", "levels: [f]")]),
    Case("reference_that_is_no_level", 17, [("reference: f", "reference: w")]),
    Case("range_of_a_category", 17, [("reference: f", "range: [0, 1]")]),
    Case("levels_of_a_number", 15, [("range: [18, 110]", "range: [18, 110], levels: [a, b]")]),
    Case("spread_of_0", 15, [("range: [18, 110]", "range: [18, 110], spread: 0")]),
    Case("tiny_spread", 15, [("range: [18, 110]", "range: [18, 110], spread: 1.0e-9")]),
    Case("pooled_scale_in_a_private_study", 15, [("range: [18, 110]", "range: [18, 110], scale: pooled")]),
    # protection
    Case("epsilon_of_0", 21, [("epsilon: 1", "epsilon: 0")]),
    Case("negative_epsilon", 21, [("epsilon: 1", "epsilon: -1")]),
    Case("epsilon_that_is_no_number", 21, [("epsilon: 1", "epsilon: .nan")]),
    Case("epsilon_too_small_for_the_questions", 27, [("epsilon: 1", "epsilon: 0.001")]),
    Case("exact_and_budget", 22, [(BUDGET, BUDGET + EXACT)]),
    Case("neither_exact_nor_budget", 1, [(BUDGET, "")]),
    Case("exact_and_per_hub", 27, [*TO_EXACT, ("    bins: 20\n", "    bins: 20\n    per_hub: true\n")]),
    Case("exact_and_share", 27, [(BUDGET, EXACT)]),
    Case("max_numbers_too_low", 21, [*TO_EXACT, ("5000", "100")]),
    Case("share_missing", 23, [("    share: 0.2\n", "")]),
    Case("share_above_1", 27, [("share: 0.2", "share: 20")]),
    Case("shares_over_1", 22, [("share: 0.2", "share: 0.9")]),
    Case("per_hub_that_is_no_yes_or_no", 26, [("bins: 20", "per_hub: north")]),
    # plan and hubs
    Case("unknown_plan", 20, [("name: secagg", "name: secag")]),
    Case("colluding_0", 20, [("colluding: 1", "colluding: 0")]),
    Case("colluding_too_many", 20, [("colluding: 1", "colluding: 2")]),
    Case("two_hubs", 6, [("[north, south, west]", "[north, south]")]),
    Case("hub_twice", 6, [("[north, south, west]", "[north, south, south]")]),
    Case("hub_not_in_the_roster", 6, arguments=["--hubs", "north,south,west-coast,east"]),
    Case("hub_of_another_federation", 6, arguments=["--hubs", "huvh,chu,irst"]),
    Case("conditions_of_a_stranger", 10, [("  all:\n", "  east:\n")]),
    Case("conditions_for_some", 9, [("  all:\n", "  north:\n")]),
    Case("period_that_ends_before_it_begins", 8, [("until: 2027-12-31", "until: 2025-12-31")]),
    Case("results_deleted_too_early", 13, [("retain_until: 2030-12-31", "retain_until: 2027-06-30")]),
    # questions
    Case("unknown_algorithm_with_a_near_name", 29, [("logistic-regression", "logistic_regresion")]),
    Case("unknown_algorithm", 29, [("logistic-regression", "oracle")]),
    Case("unknown_variable", 33, [("      - pressure\n", "      - presure\n")]),
    Case("unknown_variable_without_a_near_name", 25, [("[age, pressure, sex]", "[age, income]")]),
    Case("outcome_that_is_no_binary", 30, [("outcome: ill", "outcome: sex")]),
    Case("outcome_among_predictors", 35, [("      - smoker\n", "      - ill\n")]),
    Case("predictor_twice", 35, [("      - smoker\n", "      - age\n")]),
    Case("evaluation_of_no_model", 39, [("models: [model]", "models: [cohort]")]),
    Case("evaluation_by_a_number", 40, [("    models: [model]\n", "    models: [model]\n    by: age\n")]),
    Case(
        "evaluation_before_any_model",
        25,
        [("algorithm: describe\n    variables: [age, pressure, sex]", "algorithm: evaluate\n    models: [model]")],
    ),
    Case("unknown_by", 40, [("    models: [model]\n", "    models: [model]\n    by: sexx\n")]),
    Case("too_few_bins", 26, [("bins: 20", "bins: 2")]),
]


def check(monkeypatch: pytest.MonkeyPatch, folder: Path, case: Case) -> int:
    """`flute study check`, as the command runs it; returns its exit code."""
    text = case.text
    if not text and case.name != "empty_file":
        text = GOOD
        for old, new in case.changes:
            assert text.count(old) == 1, f"{old!r} must stand once in the good file"
            text = text.replace(old, new)
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["flute", "study", "check", "study.yaml", *case.arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    return int(ended.value.code or 0)


def agrees_with_golden(name: str, said: str) -> None:
    path = HERE / f"{name}.txt"
    if os.environ.get("FLUTE_WRITE_GOLDEN"):
        path.write_text(said, encoding="utf-8")
    assert said == path.read_text(encoding="utf-8")


def test_the_good_file_passes(monkeypatch, tmp_path, capsys) -> None:
    assert check(monkeypatch, tmp_path, Case("good", 0)) == 0
    assert "can be carried out" in capsys.readouterr().out


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_file_is_answered_with_its_line_and_what_to_write(monkeypatch, tmp_path, capsys, case: Case) -> None:
    assert check(monkeypatch, tmp_path, case) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"study.yaml:{case.line}: ")
    assert "Traceback" not in shown.err
    agrees_with_golden(case.name, shown.err)


def test_an_algorithm_that_the_plan_cannot_carry_is_named(monkeypatch, tmp_path, capsys) -> None:
    """Here one that needs more than sums: the message names the plan that can."""
    needs = frozenset({Operation.SUMS, Operation.COMPARISONS})
    monkeypatch.setattr(LogisticRegressionAlgorithm, "operations", needs)
    assert check(monkeypatch, tmp_path, Case("plan", 29)) == 1
    said = capsys.readouterr().err
    assert said.startswith("study.yaml:29: ")
    agrees_with_golden("algorithm_that_the_plan_cannot_carry", said)


def test_a_file_that_is_not_there_is_named(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["flute", "study", "check", "nowhere.yaml"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 1
    assert "There is no study file nowhere.yaml." in capsys.readouterr().err


def test_every_golden_file_has_its_case() -> None:
    cases = {case.name for case in CASES} | {"algorithm_that_the_plan_cannot_carry"}
    assert {path.stem for path in HERE.glob("*.txt")} == cases


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_written_gets_a_sentence_and_no_stack_trace(data: st.DataObject) -> None:
    """Lines of the good file dropped, doubled, swapped for odd ones: an agreement comes out, or one sentence."""
    lines = GOOD.splitlines()
    odd = st.sampled_from(
        ["  - [", "questions: 3", "  ? x", "hubs: &a [*a]", "budget: []", "  7: {}", "\t", "plan: ~", "<<: {}"]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "odd", "cut", "value"]))
        if change == "drop":
            lines[at] = ""
        elif change == "double":
            lines.insert(at, lines[at])
        elif change == "odd":
            lines[at] = data.draw(odd)
        elif change == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        else:
            name = lines[at].split(":")[0]
            lines[at] = f"{name}: {data.draw(st.text(max_size=8))}"
    said = _said_of("\n".join(lines))
    assert said is None or (said.path == "study.yaml" and said.text.endswith((".", "?")))
    assert said is None or 0 <= said.line <= len(lines) + 1


def _said_of(text: str) -> StudyFileError | None:
    """None where an agreement came out."""
    try:
        agreement, places = read_study_file(text, path="study.yaml", code=bytes(32))
        check_study(agreement, lines=places, path="study.yaml")
    except StudyFileError as error:
        return error
    return None


def test_an_agreement_that_says_a_name_twice_is_refused() -> None:
    """No file can, but bytes that somebody else wrote can: which of the two would a hub be paid for?"""
    agreement, _ = read_study_file(GOOD, path="study.yaml", code=bytes(32))
    doubled = msgspec.structs.replace(agreement, questions=(agreement.questions[0], *agreement.questions))
    with pytest.raises(StudyFileError, match="cohort more than once"):
        check_study(doubled)


def test_until_means_that_day_too() -> None:
    agreement, _ = read_study_file(GOOD, path="study.yaml", code=bytes(32))
    last = datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert agreement.ends == int(last.timestamp())
