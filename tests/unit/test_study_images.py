"""An image in a study file: what it needs, what has no use for it, and what older files and agreements stay."""

from __future__ import annotations

import pytest

from flute.data.variables import Variable
from flute.errors import StudyFileError
from flute.study.agreement import Agreement
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file
from support.studies import study_text

MRI = "  mri: {kind: image, shape: [1, 4, 4], range: [0, 16]}\n"
LINE = 16
"""Where it stands in the test's file."""
NETWORK = """\
  net:
    algorithm: neural-network
    outcome: ill
    image: mri
    network: [{layer: conv, channels: 2}, {layer: activation}]
    training: {rounds: 2}
"""


def read(variable: str = MRI, questions: str = NETWORK) -> Agreement:
    text = study_text(questions=questions, sex="binary").replace("  ill: {", f"{variable}  ill: {{")
    text = text.replace("sex: binary_placeholder", "sex: {kind: binary}")
    agreement, lines = read_study_file(text, path="study.yaml", code=bytes(32))
    check_study(agreement, lines=lines, path="study.yaml")
    return agreement


def test_an_image_is_declared_by_shape_and_range() -> None:
    declared = read().setting.variables["mri"]
    assert declared.variable == Variable("mri", "image", 0, 16, shape=(1, 4, 4))
    assert declared.scale == "none"
    assert "mri" in read().fields()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("  mri: {kind: image, range: [0, 16]}\n", "mri is an image and needs its shape"),
        ("  mri: {kind: image, shape: [1, 4, 4]}\n", "mri is an image and needs its plausible values"),
        ("  mri: {kind: image, shape: [4, 4], range: [0, 16]}\n", "shape"),
        ("  mri: {kind: image, shape: [1, 4, 600], range: [0, 16]}\n", "shape"),
        ("  mri: {kind: image, shape: [3, 200, 100, 100], range: [0, 16]}\n", "4,000,000"),
        ("  mri: {kind: image, shape: [1, 4, 4], range: [16, 0]}\n", "from a lower to a higher"),
        ("  mri: {kind: image, shape: [1, 4, 4], range: [0, 16], log: true}\n", "'log', which is for numbers"),
        ("  mri: {kind: image, shape: [1, 4, 4], range: [0, 16], levels: [a, b]}\n", "which is for categories"),
        ("  mri: {kind: number, shape: [1, 4, 4], range: [0, 16]}\n", "'shape', which is for images"),
        ("  mri: {kind: binary, range: [0, 16]}\n", "'range', which is for numbers and images"),
    ],
)
def test_what_is_wrong_with_an_image_is_said_at_its_line(variable: str, said: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        read(variable)
    assert said in caught.value.text
    assert caught.value.line == LINE


@pytest.mark.parametrize(
    "question",
    [
        "  q: {algorithm: describe, variables: [age, mri]}\n",
        "  q: {algorithm: logistic-regression, outcome: ill, predictors: [mri]}\n",
        "  q: {algorithm: cross-table, by: mri, outcome: ill}\n",
        "  q: {algorithm: table-one, by: grade, variables: [mri]}\n",
        "  q: {algorithm: gradient-boosting, outcome: ill, predictors: [age, mri]}\n",
        "  q: {algorithm: survival, time: mri, event: ill}\n",
        "  q: {algorithm: glm, family: poisson, outcome: age, predictors: [sex], exposure: mri}\n",
        "  q: {algorithm: correlation, variables: [age, mri]}\n",
        "  q: {algorithm: neural-network, outcome: ill, predictors: [mri], network: [{layer: dense, size: 2}]}\n",
        "  q: {algorithm: cross-validate, model: {algorithm: svm, outcome: ill, predictors: [mri]}}\n",
    ],
)
def test_an_image_is_no_outcome_predictor_or_group(question: str) -> None:
    with pytest.raises(StudyFileError, match="an image"):
        read(questions=question)


def test_a_network_s_image_is_an_image() -> None:
    with pytest.raises(StudyFileError, match="'age' is no image"):
        read(questions=NETWORK.replace("image: mri", "image: age"))
    with pytest.raises(StudyFileError, match="'ct' is not among the study's variables"):
        read(questions=NETWORK.replace("image: mri", "image: ct"))
