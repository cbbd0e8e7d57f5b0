"""Previewed errors beside measured ones: the same study on drawn patients, under the noise that hubs draw.

The patients are drawn anew, from the distribution that the preview assumes of them; everything else is the road of a
study: `study.protection` prices, clips and covers, the algorithm reads what was opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import Finished, Opened, Setting
from flute.algorithms.expected import marked
from flute.algorithms.made_up import Assumed
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question
from flute.study.protection import RAND_SIZE, Price, cover, prices, uncover
from support.studies import study_text
from support.sums import run

NUMBERS = 8
ASSUMED = Assumed(patients=2_000, rate=0.3)
KINDS = {
    "counts": ("n", "count"),
    "means": ("mean",),
    "histograms": ("counts",),
    "quantiles": ("5", "25", "50", "75", "95"),
    "coefficients": (),
}
"""The last part of a number's name, by kind; coefficients begin with their kind."""


def preview_study() -> Agreement:
    """Eight numbers, described and in a model; half of the budget each."""
    from flute.questions.code import code_digest
    from flute.study.files.file import read_study_file

    lines = [
        f"  x{k}: {{kind: number, range: [0, 100], centre: {40 + 2 * k}, spread: {8 + k}, scale: reference}}"
        for k in range(NUMBERS)
    ]
    names = ", ".join(f"x{k}" for k in range(NUMBERS))
    variables = "variables:\n" + "\n".join([*lines, "  flag: {kind: binary}", "  ill: {kind: binary}"]) + "\n"
    questions = (
        f"  table: {{algorithm: describe, variables: [{names}, flag], bins: 20, share: 0.6}}\n"
        f"  model: {{algorithm: logistic-regression, outcome: ill, predictors: [{names}, flag], share: 0.4}}\n"
    )
    text = study_text("budget: {epsilon: 2}", questions)
    start, end = text.index("variables:"), text.index("budget:")
    return read_study_file(text[:start] + variables + text[end:], path="preview.yaml", code=code_digest())[0]


def drawn_patients(setting: Setting, assumed: Assumed, count: int, rng: np.random.Generator) -> Dataset:
    """As `algorithms.made_up` describes them, by chance."""
    columns: dict[str, Array] = {}
    for used in setting.variables.values():
        v = used.variable
        if v.kind == "number":
            values = rng.normal(used.centre, used.spread, 3 * count)
            columns[v.name] = values[(values >= v.low) & (values <= v.high)][:count]
        else:
            columns[v.name] = (rng.random(count) < assumed.rate).astype(np.float64)
    score = sum((c - c.mean()) / c.std() for name, c in columns.items() if name != "ill")
    score = np.asarray(score / np.std(score))
    slope = 1.06  # an area of .75 at a rate of .3
    columns["ill"] = (rng.random(count) < expit(np.log(0.3 / 0.7) - 0.15 + slope * score)).astype(np.float64)
    pseudonyms = np.array([f"p{k}" for k in range(count)])
    return Dataset(pseudonyms, columns, [u.variable for u in setting.variables.values()])


@dataclass
class Measured:
    """Answers one question over and over. whole: every hub's rows are covered anew each time, rounding included;
    otherwise the clipped sum is taken once and hubs' noise alone is drawn."""

    agreement: Agreement
    question: Question
    hubs: Sequence[Dataset]
    seed: int
    whole: bool = False

    def __post_init__(self) -> None:
        self.priced = prices(self.agreement, self.question)
        self._sums: dict[int, Array] = {}
        self._calls = 0

    def exact(self) -> dict[str, Any]:
        return run(self.question.what, replace(self.agreement.setting, mode="exact"), self.hubs)

    def once(self) -> dict[str, Any]:
        algorithm, setting = algorithm_for(self.question.what), self.agreement.setting
        history: list[Opened] = []
        while True:
            answer = algorithm.next(self.question.what, setting, tuple(history), {})
            if isinstance(answer, Finished):
                return answer.result
            price, step = self.priced[len(history)], len(history)
            total, sigma = self._opened(step, answer.parameters, price)
            history.append(Opened(answer.parameters, total, sigma))

    def _opened(self, step: int, parameters: Array, price: Price) -> tuple[Array, float]:
        rows = [self._rows(step, parameters, data) for data in self.hubs] if self.whole or len(parameters) else []
        if self.whole:
            return uncover(
                np.sum([cover(r, price, hubs=len(self.hubs), rand=self._rand()) for r in rows], axis=0), price
            )
        total = self._sum(step, parameters, price, rows)
        nothing = np.zeros((0, price.shape.size))
        covered = [cover(nothing, price, hubs=len(self.hubs), rand=self._rand()) for _ in self.hubs]
        noise, sigma = uncover(np.sum(covered, axis=0), price)
        return total + noise, sigma

    def _sum(self, step: int, parameters: Array, price: Price, rows: list[Array]) -> Array:
        if len(parameters):
            return _clipped_sum(rows, price)
        if 0 not in self._sums:
            self._sums[0] = _clipped_sum([self._rows(step, np.zeros(0), data) for data in self.hubs], price)
        return self._sums[0]

    def _rows(self, step: int, parameters: Array, data: Dataset) -> Array:
        return algorithm_for(self.question.what).update(
            self.question.what, self.agreement.setting, step, parameters, data
        )

    def _rand(self) -> bytes:
        self._calls += 1
        return hashlib.shake_256(f"{self.seed}/{self._calls}".encode()).digest(RAND_SIZE)


def _clipped_sum(rows: Sequence[Array], price: Price) -> Array:
    norm = price.shape.clip_norm
    return np.sum(
        [(r * (norm / np.maximum(np.linalg.norm(r, axis=1), norm))[:, None]).sum(axis=0) for r in rows], axis=0
    )


def measured_errors(measured: Measured, runs: int) -> dict[str, float]:
    """Root mean square error of every number over `runs` answers, against the exact result."""
    right = marked(measured.exact())
    squares: dict[str, list[float]] = {name: [] for name in right}
    for _ in range(runs):
        got = marked(measured.once())
        for name, (value, _) in right.items():
            squares[name].append(float(np.mean((got[name][0] - value) ** 2)))
    return {name: float(np.sqrt(np.mean(found))) for name, found in squares.items()}


def drawn_hubs(agreement: Agreement, *, seed: int, assumed: Assumed = ASSUMED) -> list[Dataset]:
    """The study's hubs, each with as many patients as are assumed."""
    hubs = len(agreement.hubs)
    people = drawn_patients(agreement.setting, assumed, hubs * assumed.patients, np.random.default_rng(seed))
    return [people.where(np.arange(len(people)) % hubs == k) for k in range(hubs)]


def cohorts_measured(
    agreement: Agreement, question: Question, *, cohorts: int, each: int, whole: bool = False
) -> dict[str, float]:
    """As `measured_errors`, over many cohorts: what a fit leaves is another thing in each of them."""
    squares: dict[str, list[float]] = {}
    for seed in range(cohorts):
        measured = Measured(agreement, question, drawn_hubs(agreement, seed=seed), seed + 1_000, whole)
        for name, error in measured_errors(measured, each).items():
            squares.setdefault(name, []).append(error**2)
    return {name: float(np.sqrt(np.mean(found))) for name, found in squares.items()}


def by_kind(errors: Mapping[str, float], previewed: Mapping[str, float]) -> dict[str, float]:
    """Measured over previewed, per kind: root of the mean of squared ratios over the kind's numbers."""
    ratios: dict[str, list[float]] = {}
    for name, error in errors.items():
        kind = _kind(name)
        if kind and name in previewed:
            ratios.setdefault(kind, []).append((error / previewed[name]) ** 2)
    return {kind: float(np.sqrt(np.mean(found))) for kind, found in ratios.items()}


def _kind(name: str) -> str:
    if name.startswith("coefficient"):
        return "coefficients"
    last = name.rpartition(".")[2]
    return next((kind for kind, parts in KINDS.items() if last in parts), "")
