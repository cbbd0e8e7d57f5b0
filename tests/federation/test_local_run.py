"""`flute local run` over public tables with missing values: real processes, the command as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import statsmodels.api as sm

HEAD = """\
flute: 1
study: {study}
title: {study}
purpose: To equal the pooled fit.
researcher: ada
hubs: [{hubs}]
period: {{from: 2026-01-01, until: 2030-12-31}}
conditions:
  all: {{legal_basis: public data, ethics_approval: none needed, retain_until: 2031-01-01}}
exact: {{max_numbers: 20000}}
variables:
{variables}
questions:
  model:
    algorithm: logistic-regression
    outcome: {outcome}
    predictors: [{predictors}]
"""


def with_holes(table: pd.DataFrame, columns: list[str], seed: int) -> pd.DataFrame:
    """Five in a hundred values of these columns missing, always the same ones."""
    rng = np.random.default_rng(seed)
    table = table.copy()
    for column in columns:
        table[column] = table[column].astype(object)
        table.loc[rng.random(len(table)) < 0.05, column] = None
    return table


def fair() -> tuple[pd.DataFrame, str]:
    """Affairs, 6,366 rows (statsmodels ships it): numbers, a category, an outcome made of a rate."""
    table = sm.datasets.fair.load_pandas().data
    table["affair"] = (table["affairs"] > 0).astype(int)
    table["religious"] = table["religious"].astype(int).astype(str)
    variables = """\
  age: {kind: number, range: [15, 60]}
  yrs_married: {kind: number, range: [0.1, 40], log: true}
  children: {kind: number, range: [0, 10]}
  religious: {kind: category, levels: [1, 2, 3, 4]}
  affair: {kind: binary}"""
    columns = ["age", "yrs_married", "children", "religious", "affair"]
    return with_holes(table[columns], ["age", "religious", "children"], 5), variables


def anes() -> tuple[pd.DataFrame, str]:
    """American election study 1996, 944 rows (statsmodels ships it)."""
    table = sm.datasets.anes96.load_pandas().data
    table["vote"] = table["vote"].astype(int)
    variables = """\
  age: {kind: number, range: [17, 95]}
  educ: {kind: number, range: [1, 7]}
  selfLR: {kind: category, levels: [1, 2, 3, 4, 5, 6, 7], reference: 4}
  income: {kind: number, range: [1, 24]}
  vote: {kind: binary}"""
    table = table[["age", "educ", "selfLR", "income", "vote"]]
    table["selfLR"] = table["selfLR"].astype(int).astype(str)
    return with_holes(table, ["age", "educ", "income"], 6), variables


def pooled(table: pd.DataFrame, outcome: str, logs: set[str]) -> tuple[np.ndarray, np.ndarray]:
    """statsmodels' maximum likelihood fit on complete cases, numbers standardised by the pooled moments."""
    table = table.dropna()
    columns = [np.ones(len(table))]
    for name in table.columns:
        if name == outcome:
            continue
        if name in ("religious", "selfLR"):
            levels = ["2", "3", "4"] if name == "religious" else ["1", "2", "3", "5", "6", "7"]
            columns += [(table[name] == level).to_numpy(float) for level in levels]
        else:
            x = table[name].to_numpy(float)
            x = np.log(x) if name in logs else x
            columns.append((x - x.mean()) / x.std(ddof=1))
    fit = sm.Logit(table[outcome].to_numpy(float), np.column_stack(columns)).fit(disp=0, tol=1e-14, maxiter=200)
    return fit.params, fit.bse


@pytest.mark.requirement("F-HUF-3")
@pytest.mark.parametrize(
    ("load", "outcome", "logs", "cuts"),
    [
        pytest.param(fair, "affair", {"yrs_married"}, [0.1, 0.4], marks=pytest.mark.soak),
        (anes, "vote", set(), [0.25, 0.4, 0.8]),
    ],
    ids=["fair-3-hubs", "anes-4-hubs"],
)
def test_the_command_gives_the_pooled_fit(tmp_path: Path, load, outcome, logs, cuts) -> None:
    table, variables = load()
    order = np.random.default_rng(1).permutation(len(table))
    parts = np.split(order, [int(c * len(table)) for c in cuts])
    hubs = [f"hub-{letter}" for letter in "abcd"[: len(parts)]]
    arguments: list[str] = []
    for hub, rows in zip(hubs, parts, strict=True):
        table.iloc[rows].to_csv(tmp_path / f"{hub}.csv", index_label="row")
        arguments += ["--hub", f"{hub}={tmp_path / hub}.csv"]
    predictors = [c for c in table.columns if c != outcome]
    text = HEAD.format(
        study="public", hubs=", ".join(hubs), variables=variables, outcome=outcome, predictors=", ".join(predictors)
    )
    (tmp_path / "study.yaml").write_text(text)
    command = [sys.executable, "-m", "flute", "local", "run", str(tmp_path / "study.yaml"), *arguments]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["results"]["model"]
    params, errors = pooled(table, outcome, logs)
    assert result["ending"] == "converged"
    assert np.abs(np.array(result["coefficients"]) - params).max() < 1e-6
    assert np.abs(np.array(result["standard_errors"]) - errors).max() < 1e-6
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert left == [], "a process was left behind"
