"""A researcher's own code from a notebook: as a function, tried on invented rows, then asked."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import flute.sdk as flute
from flute.errors import MisuseError, SandboxRefusal
from flute.sandbox.machine import available

N = 30
VARIABLES = flute.Variables(age=flute.number(20, 100, unit="a"), ill=flute.binary())


def step(rows, parameters):  # type: ignore[no-untyped-def]  # as a notebook has it
    age, ill = rows[0]
    return [0.0, 0.0] if np.isnan(age + ill) else [ill, ill * (age - 60) / 40]


def other(rows, parameters):  # type: ignore[no-untyped-def]
    return [0.0]


@pytest.fixture(scope="module", autouse=True)
def sandbox() -> None:
    try:
        available().require()
    except SandboxRefusal as refusal:
        if os.environ.get("CI"):
            raise
        pytest.skip(refusal.text)


@pytest.fixture(scope="module")
def study() -> Iterator[flute.Study]:
    chance = np.random.default_rng(3)
    hubs = {
        name: pd.DataFrame({"age": chance.uniform(30, 90, N), "ill": chance.integers(0, 2, N)})
        for name in ("north", "south", "west")
    }
    with flute.simulator(hubs) as fed:
        yield fed.study("own", purpose="A test.", variables=VARIABLES, budget=flute.Budget(epsilon=3), max_patients=N)


def asked(code: object = step, outputs: int = 2) -> flute.OwnStep:
    return flute.OwnStep(["age", "ill"], code, outputs, clip_norm=1.5, seconds=2, memory_mb=64)  # type: ignore[arg-type]


@pytest.mark.requirement("F-PIL-23")
def test_a_function_is_tried_on_invented_rows_and_asked_of_the_hubs(study: flute.Study) -> None:
    query = asked()
    tried = query.try_out(study)
    assert list(tried.columns) == ["age", "ill", "output 1", "output 2"]
    assert study.budget.spent == 0
    query.fit(study, epsilon=2.5, progress=False)
    assert len(query.sums_) == 2
    assert abs(query.sums_[0] - 3 * N / 2) < 3 * N  # half of them are ill; noise_se_ is about 2
    assert 0 < query.noise_se_ < 10


def test_what_it_prints_and_where_it_fails_are_told_on_invented_rows_only(study: flute.Study) -> None:
    with pytest.raises(MisuseError, match=r"invented row \d+: ZeroDivisionError in its line 2\."):
        asked("def step(rows, parameters):\n    return [1 / 0, 0]\n").try_out(study)


def test_a_function_has_to_be_called_step(study: flute.Study) -> None:
    with pytest.raises(MisuseError, match="Call the function step, not other"):
        asked(other).try_out(study)


def test_its_text_is_what_the_agreement_holds(study: flute.Study) -> None:
    text = study.to_yaml(asked(), epsilon=1)
    assert "def step(rows, parameters)" in text
    assert "import numpy as np" in text
