"""Study files for tests, as text, with small changes."""

from __future__ import annotations

import msgspec

from flute.questions.code import code_digest
from flute.study.agreement import Agreement, PlanChoice
from flute.study.files.file import read_study_file
from flute.study.threats import guarantees_digest

BASE = """\
flute: 1
study: heart
title: A test of the whole road
purpose: To see that it holds.
researcher: ada
hubs: [north, south, west]
simulated: true
period: {from: 2026-01-01, until: 2027-12-31}
conditions:
  all: {legal_basis: test, ethics_approval: test, retain_until: 2030-01-01}
variables:
  age: {kind: number, range: [20, 100], unit: a}
  pressure: {kind: number, range: [60, 260], log: true}
  sex: binary_placeholder
  grade: {kind: category, levels: [low, mid, high]}
  ill: {kind: binary}
PROTECTION
questions:
QUESTIONS
"""
EXACT = "exact: {max_numbers: 20000}"
PRIVATE = "budget: {epsilon: 3}"
MODEL = """\
  model:
    algorithm: logistic-regression
    outcome: ill
    predictors: [age, pressure, sex, grade]
"""
DESCRIBE = """\
  cohort:
    algorithm: describe
    variables: [age, sex, grade]
    per_hub: true
    bins: 8
    share: 0.3
"""
EVALUATE = """\
  comparison:
    algorithm: evaluate
    models: [model]
    by: grade
    bins: 16
    share: 0.3
"""


def study_text(protection: str = EXACT, questions: str = MODEL, **replace: str) -> str:
    text = BASE.replace("PROTECTION", protection).replace("QUESTIONS\n", questions)
    text = text.replace("binary_placeholder", "{kind: binary}")
    for old, new in replace.items():
        text = text.replace(old.replace("__", ": "), new)
    return text


def study(protection: str = EXACT, questions: str = MODEL) -> Agreement:
    return read_study_file(study_text(protection, questions), path="test.yaml", code=code_digest())[0]


def private_model(share: float = 0.4) -> str:
    return MODEL + f"    share: {share}\n"


def under_plan(agreement: Agreement, plan: PlanChoice, **changes: object) -> Agreement:
    """The same study under another plan, with what that plan promises."""
    changed = msgspec.structs.replace(agreement, plan=plan, **changes)
    return msgspec.structs.replace(changed, guarantees=guarantees_digest(changed.mode, plan, changed.questions))
