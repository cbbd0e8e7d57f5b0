"""The heart example's four tables as hubs read them, and its pooled fits, for tests of notebooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import flute.sdk as flute

PREDICTORS = ["age", "sex", "pressure", "smoker", "chest_pain", "max_heart_rate"]
EXAMPLE = flute.example("heart")


def pooled() -> pd.DataFrame:
    """All four tables, one below the other; levels as text, whatever pandas guesses of 'none'."""
    return pd.concat([pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in EXAMPLE.values()])


def design(table: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Raw columns of PREDICTORS behind an intercept, first levels left out."""
    columns: list[Any] = [np.ones(len(table))]
    for name in PREDICTORS:
        declared = EXAMPLE.variables[name]
        if declared["kind"] == "category":
            columns += [(table[name] == level).to_numpy(float) for level in declared["levels"][1:]]
        else:
            columns.append(table[name].to_numpy(float))
    return np.column_stack(columns)


def with_months(seed: int = 1) -> dict[str, pd.DataFrame]:
    """The example's tables with a time and an event besides: SIMULATED too."""
    chance = np.random.default_rng(seed)
    tables = {}
    for hub, path in EXAMPLE.items():
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        table["months"] = chance.exponential(30, len(table)).clip(0.1, 59).round(1)
        table["event"] = (chance.random(len(table)) < 0.6).astype(int)
        tables[hub] = table
    return tables
