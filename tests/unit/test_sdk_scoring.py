"""Risks on this machine: what a model needs is missed by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flute.algorithms.contract import LogisticRegression, StudyVariable
from flute.algorithms.linear import LogisticRegressionAlgorithm
from flute.data.variables import Variable
from flute.errors import MisuseError, NotPossible
from flute.sdk.results.scoring import risks
from support.sums import setting

USED = [StudyVariable(Variable("age", "number", 20, 100)), StudyVariable(Variable("ill", "binary"))]


def lacks(algorithm: Any, spec: Any) -> None:
    raise NotPossible("torch is not installed here: pip install 'flute[deep]'.")


def test_a_model_whose_package_is_not_here_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    result: Any = SimpleNamespace(
        spec=LogisticRegression("ill", ("age",)), agreement=SimpleNamespace(setting=setting(USED)),
        algorithm="logistic-regression", value={"raw_coefficients": [-6.0, 0.1]},
    )  # fmt: skip
    assert risks(result, {"age": [60.0]}) == pytest.approx([0.5])
    monkeypatch.setattr(LogisticRegressionAlgorithm, "require_parts", lacks, raising=False)
    with pytest.raises(MisuseError, match=r"pip install 'flute\[deep\]'"):
        risks(result, {"age": [60.0]})
