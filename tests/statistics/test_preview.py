"""Previewed errors are the errors that are met: on drawn patients, under the noise that hubs draw."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from flute.algorithms.contract import Describe, Setting, StepShape
from flute.algorithms.expected import Asked, Expected, Foretelling, expected_errors, marked
from flute.algorithms.made_up import Assumed, made_up_patients
from flute.algorithms.statistics import DescribeAlgorithm
from flute.cli.study import APP
from flute.errors import MisuseError, WrongStudy
from flute.study.preview import Accuracy, cheapest, foreseen, preview, read_accuracy
from flute.study.protection import prices
from support.previewed import ASSUMED, Measured, by_kind, cohorts_measured, drawn_hubs, measured_errors, preview_study
from support.studies import EXACT, PRIVATE, private_model, study, study_text

STUDY = preview_study()
TABLE, MODEL = STUDY.questions
WITHIN = 0.10
"""Of the measured error, per kind of number: what issue 7 asks for."""
RUNS = 120


SMALL = study("budget: {epsilon: 2}", "  few: {algorithm: describe, variables: [sex, age], bins: 4, share: 0.6}\n")
FEW = SMALL.questions[0]


@cache
def expected_of(question: str) -> dict[str, Expected]:
    return {n.what: n for n in foreseen(STUDY, STUDY.question(question), ASSUMED).numbers}


@cache
def found_of(question: str) -> dict[str, float]:
    if question == "table":
        return measured_errors(Measured(STUDY, TABLE, drawn_hubs(STUDY, seed=1), seed=7), RUNS)
    return cohorts_measured(STUDY, MODEL, cohorts=20, each=4)


@pytest.mark.parametrize("question", ["table", "model"])
def test_measured_errors_are_within_a_tenth_of_the_previewed_ones(question: str) -> None:
    """Per kind over all its numbers: 26 counts, 8 means, 8 histograms, 40 quantiles; 10 coefficients. A kind's figure
    has a deviation of at most 3 % (8 numbers by 120 runs, 10 coefficients by 80, against 160 draws, hardly
    correlated), so that a sound preview fails for one seed in a thousand, and one that is a fifth off is rejected.
    """
    found, expected = found_of(question), {what: n.sd for what, n in expected_of(question).items()}
    kinds = {"counts", "means", "histograms", "quantiles"} if question == "table" else {"counts", "coefficients"}
    ratios = by_kind(found, expected)
    assert set(ratios) == kinds
    assert {kind: ratio for kind, ratio in ratios.items() if not 1 - WITHIN < ratio < 1 / (1 - WITHIN)} == {}
    for off in (0.8, 1.25):
        wrong = by_kind(found, {what: sd * off for what, sd in expected.items()})
        assert all(not 1 - WITHIN < ratio < 1 / (1 - WITHIN) for ratio in wrong.values()), "the control"


def test_no_number_of_a_table_is_far_from_its_preview() -> None:
    """Each by itself: 120 runs know an error to 6.5 %, a cohort's own bins move a quantile's by some 10 %; no one is
    twice as large or half as small, no count 40 % larger or 30 % smaller. False alarm over 90 numbers below 1e-3."""
    found = found_of("table")
    ratios = {what: found[what] / n.sd for what, n in expected_of("table").items()}
    assert {what: r for what, r in ratios.items() if not 0.5 < r < 2.0} == {}
    assert {what: r for what, r in ratios.items() if what.endswith((".n", ".count")) and not 0.7 < r < 1.4} == {}


def test_the_error_of_a_count_is_the_noise_that_its_price_buys() -> None:
    """In closed form: a level's count carries the noise of the mechanism and nothing else."""
    (price,) = prices(STUDY, TABLE)
    assert price.mechanism is not None
    sigma = price.mechanism.total_sigma / price.mechanism.scale
    count = expected_of("table")["flag.levels.1.count"]
    assert count.sd == pytest.approx(sigma, rel=4 / math.sqrt(2 * 400))
    assert count.within == pytest.approx(1.96 * sigma, rel=0.2)
    assert count.unit == "patients"


def test_errors_shrink_with_epsilon_and_means_with_patients() -> None:
    def errors(epsilon: float, patients: int) -> dict[str, float]:
        asked = msgspec.structs.replace(SMALL, epsilon=epsilon)
        return {n.what: n.sd for n in foreseen(asked, FEW, Assumed(patients), draws=100).numbers}

    less, more, many = errors(1.0, 2_000), errors(4.0, 2_000), errors(4.0, 20_000)
    assert less["age.n"] > 2 * more["age.n"]
    assert many["age.n"] == pytest.approx(more["age.n"], rel=0.15), "a count's error is the noise alone"
    assert many["age.mean"] == pytest.approx(more["age.mean"] / 10, rel=0.15)


def test_the_cheapest_epsilon_reaches_the_accuracy_and_a_smaller_one_does_not() -> None:
    wanted = read_accuracy("2 % of patients", "*.count")
    found = cheapest(SMALL, "few", wanted, Assumed(400), draws=60)

    def worst(epsilon: float) -> float:
        seen = foreseen(msgspec.structs.replace(SMALL, epsilon=epsilon), FEW, Assumed(400), draws=60)
        return max(n.within for n in seen.numbers if n.what.endswith(".count"))

    assert worst(found.epsilon) <= 0.02 * 3 * 400 < worst(found.epsilon * 0.98)
    assert found.share == pytest.approx(FEW.share * _rho(found.epsilon) / _rho(SMALL.epsilon))


def _rho(epsilon: float) -> float:
    return sum(p.rho for p in prices(msgspec.structs.replace(SMALL, epsilon=epsilon), FEW))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2 % of patients", Accuracy(0.02, True)),
        ("±2% of the patients", Accuracy(0.02, True)),
        ("0.02 of patients", Accuracy(0.02, True)),
        ("+/- 0.5", Accuracy(0.5)),
        ("1e-2", Accuracy(0.01)),
    ],
)
def test_an_accuracy_is_read_as_people_write_it(text: str, wanted: Accuracy) -> None:
    assert read_accuracy(text) == wanted


@pytest.mark.parametrize("text", ["", "2 %", "of patients", "-1", "0", "two", "nan", "2 % of women"])
def test_what_says_no_accuracy_is_told_what_does(text: str) -> None:
    with pytest.raises(MisuseError, match="2 % of patients"):
        read_accuracy(text)


def test_an_accuracy_that_no_epsilon_buys_and_numbers_that_are_not_there_are_said() -> None:
    with pytest.raises(MisuseError, match="no epsilon up to 100"):
        cheapest(SMALL, "few", Accuracy(1e-6, what="*.count"), Assumed(2), draws=20)
    with pytest.raises(MisuseError, match="no number 'weight"):
        cheapest(SMALL, "few", Accuracy(1.0, what="weight*"), Assumed(2), draws=20)


def test_a_preview_says_what_is_left_and_refuses_what_cannot_be() -> None:
    asked = study(PRIVATE, private_model(0.4))
    seen = preview(asked, Assumed(200), draws=16)
    assert seen.left_share == pytest.approx(0.6)
    assert 0 < seen.left_epsilon < asked.epsilon
    assert [q.people for q in seen.questions] == [600]
    with pytest.raises(MisuseError, match="adds no noise"):
        preview(study(EXACT))
    with pytest.raises(MisuseError, match="assumes"):
        preview(asked, Assumed(rate=1.0))
    with pytest.raises(WrongStudy):
        preview(asked, only="unknown")


def test_the_command_shows_errors_what_is_left_and_the_cheapest_epsilon(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    few = "  few: {algorithm: describe, variables: [sex], bins: 4, share: 0.6}\n"
    path.write_text(study_text("budget: {epsilon: 2}", few))
    shown = CliRunner().invoke(APP, ["preview", str(path), "--patients", "300"])
    assert shown.exit_code == 0, shown.output
    for part in ("few: 900 patients assumed", "sex.levels.1.count", "Left of the budget", "40%"):
        assert part in shown.output
    told = CliRunner().invoke(APP, ["preview", str(path), "--format", "json"])
    assert json.loads(told.output)["questions"][0]["numbers"][0]["what"] == "sex.n"
    asked = ["preview", str(path), "--question", "few", "--accuracy", "5 % of patients", "--numbers", "*.count"]
    found = CliRunner().invoke(APP, asked)
    assert "is that accurate from epsilon" in found.output
    refused = CliRunner().invoke(APP, ["preview", str(path), "--accuracy", "5 % of patients"])
    assert isinstance(refused.exception, MisuseError)


def test_the_same_preview_twice_is_the_same() -> None:
    one, two = (foreseen(SMALL, FEW, ASSUMED, draws=24) for _ in range(2))
    assert one == two


def test_an_algorithm_that_knows_its_errors_is_believed_and_a_huge_one_is_told_per_opened_number() -> None:
    class Knowing(DescribeAlgorithm):
        def expected_errors(self, *_: object) -> list[Expected]:
            return [Expected("all", 1.0, 2.0, 4.0)]

    setting, spec = STUDY.setting, Describe(("x0",))
    assert isinstance(Knowing(), Foretelling)
    assert not isinstance(DescribeAlgorithm(), Foretelling)
    asked = Asked(Knowing(), spec, setting, (1.0,), 100, {})
    assert expected_errors(asked, ASSUMED) == (Expected("all", 1.0, 2.0, 4.0),)

    class Huge(DescribeAlgorithm):
        def outline(self, spec: Describe, setting: Setting) -> tuple[StepShape, ...]:
            return tuple(replace(shape, size=10**6) for shape in super().outline(spec, setting))

    (told,) = expected_errors(replace(asked, algorithm=Huge()), ASSUMED)
    assert (told.what, told.sd) == ("each opened number of counts", 1.0)


def test_made_up_patients_are_as_assumed() -> None:
    data = made_up_patients(STUDY.setting, ASSUMED, 4_000)
    assert data.column("x0").mean() == pytest.approx(40, abs=0.2)
    assert data.column("x0").std() == pytest.approx(8, abs=0.2)
    assert data.column("ill").mean() == pytest.approx(ASSUMED.rate, abs=0.02)
    x = np.column_stack([data.column(f"x{k}") for k in range(8)])
    score = ((x - x.mean(axis=0)) / x.std(axis=0)).sum(axis=1) + (data.column("flag") - 0.3) / 0.458
    ill = data.column("ill") == 1
    area = float((score[ill][:, None] > score[~ill]).mean())
    assert area == pytest.approx(ASSUMED.auc, abs=0.03)
    others = made_up_patients(STUDY.setting, ASSUMED, 50, skip=4_000)
    assert not np.array_equal(others.column("x0"), data.column("x0")[:50])


def test_only_numbers_that_noise_moves_are_read_off_a_result() -> None:
    none = {"value": None, "noise_se": 0.0}
    found = marked(
        {
            "variables": {"age": {"unit": "a", "mean": {"value": 3.0, "noise_se": 1.0}, "sd": none}},
            "n": 5, "n_noise_se": 1.0, "bins": 4, "coefficients": [1.0, 2.0], "columns": ["one", "two"],
            "noise_standard_errors": None,
        }
    )  # fmt: skip
    assert {what: (value.tolist(), unit) for what, (value, unit) in found.items()} == {
        "age.mean": (3.0, "a"),
        "n": (5.0, "patients"),
        "coefficient one": (1.0, "log odds"),
        "coefficient two": (2.0, "log odds"),
    }
