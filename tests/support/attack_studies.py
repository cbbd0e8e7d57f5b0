"""Studies to attack, as agreements: wide ones whose models know their patients by heart, and small ones."""

from __future__ import annotations

from dataclasses import replace

from flute.attacks.chance import Chance
from flute.attacks.releases import Subject, subject_of
from flute.attacks.trial import Trial
from flute.defaults import MIN_HUB_SIGMA
from flute.questions.code import code_digest
from flute.study.agreement import Agreement
from flute.study.files.file import read_study_file
from flute.study.protection import Price

HEAD = """\
flute: 1
study: attacked
title: A study to attack
purpose: To see what it gives away.
researcher: ada
hubs: [HUBS]
simulated: true
period: {from: 2026-01-01, until: 2027-12-31}
conditions:
  all: {legal_basis: test, ethics_approval: test, retain_until: 2030-01-01}
max_patients: MOST
"""
MIXED = """\
  age: {kind: number, range: [20, 100], centre: 60, spread: 12}
  marker: {kind: number, range: [1, 100], log: true}
  sex: {kind: binary}
  grade: {kind: category, levels: [low, mid, high]}
  ill: {kind: binary}
"""
MIXED_MODEL = """\
  model:
    algorithm: logistic-regression
    outcome: ill
    predictors: [age, marker, sex, grade]
"""
DESCRIBE = """\
  cohort:
    algorithm: describe
    variables: [age, sex, grade]
    bins: 4
"""
ROBUST = """\
  means:
    algorithm: robust-mean
    variables: [age]
"""
THREE = "north, south, west"
FIVE = "east, north, south, upper, west"


def agreed(
    variables: str, question: str, *, epsilon: float | None, hubs: str = THREE, most: int = 1_000_000
) -> Agreement:
    """One question with the whole budget, or exact where epsilon is None."""
    protection = "exact: {max_numbers: 5000000}" if epsilon is None else f"budget: {{epsilon: {epsilon:g}}}"
    asked = question if epsilon is None else f"{question}    share: 1\n"
    text = HEAD.replace("HUBS", hubs).replace("MOST", str(most))
    text += f"{protection}\nvariables:\n{variables}questions:\n{asked}"
    return read_study_file(text, path="attacked.yaml", code=code_digest())[0]


def wide(columns: int, epsilon: float | None, hubs: str = THREE) -> Agreement:
    """A model of so many numbers that few patients are learnt by heart."""
    names = [f"v{i}" for i in range(columns)]
    variables = "".join(f"  {n}: {{kind: number, range: [0, 1], centre: 0.5, spread: 0.29}}\n" for n in names)
    question = (
        f"  model:\n    algorithm: logistic-regression\n    outcome: ill\n    predictors: [{', '.join(names)}]\n"
    )
    return agreed(variables + "  ill: {kind: binary}\n", question, epsilon=epsilon, hubs=hubs)


def mixed(epsilon: float | None, question: str = MIXED_MODEL, hubs: str = THREE, most: int = 1_000_000) -> Agreement:
    return agreed(MIXED, question, epsilon=epsilon, hubs=hubs, most=most)


def subject(agreement: Agreement) -> Subject:
    return subject_of(agreement, agreement.questions[0])


def trial(agreement: Agreement, seed: str, effort: float = 1.0) -> Trial:
    return Trial(subject(agreement), Chance(seed.encode()), effort)


def hardly_noised(attacked: Trial, part: float = 0.003) -> Trial:
    """The same study in a build whose hubs add only that part of the noise they charge for."""
    return replace(
        attacked,
        subject=replace(attacked.subject, steps=tuple(_with_part(price, part) for price in attacked.subject.steps)),
    )


def _with_part(price: Price, part: float) -> Price:
    """Where the noise would be too small to be drawn, the grid is refined instead."""
    assert price.mechanism is not None
    wanted = part * price.mechanism.hub_sigma
    drawn = max(MIN_HUB_SIGMA, wanted)
    scale = price.mechanism.scale * drawn / wanted
    return replace(price, mechanism=replace(price.mechanism, hub_sigma=drawn, scale=scale))
