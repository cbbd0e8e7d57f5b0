"""What an algorithm is: it declares, prices nothing, sends nothing.

An algorithm turns rows into per-patient updates whose *sum over patients and hubs* is all it ever sees
again, and turns opened sums into a result. It runs unchanged under every plan that offers the operations
it needs. Everything that decides privacy is fixed beforehand by `outline`, a function of the signed study
agreement alone: how many vectors are opened, how long each is, how far one patient can move it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.defaults import MAX_PATIENTS
from flute.messages.limits import Name
from flute.messages.numbers import read_only
from flute.mpc.party import Party
from flute.mpc.steps import Step

Mode = Literal["private", "exact"]
Scope = Literal["pooled", "each"]


class Operation(StrEnum):
    """What an algorithm asks of a plan."""

    SUMS = "sums"
    PRODUCTS = "products"
    COMPARISONS = "comparisons"


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """Without one, an algorithm cannot be registered. Sentences are for a data protection officer."""

    released: str
    """What becomes known when it ran."""
    bounded_by: str
    """How one patient's contribution is bounded (norm, clip), and where the bound comes from."""
    leaked_otherwise: str
    """What becomes known besides, in private and in exact mode."""
    unit: str = "patient, added or removed, at one hub"
    norm: str = "L2"
    event: str = "discrete Gaussian noise on a clipped sum (Gaussian DP)"


class StudyVariable(Struct, frozen=True, forbid_unknown_fields=True):
    """A variable as one study uses it: what it is, and how it enters a model.

    log: natural logarithm first. scale "reference": (x - centre) / spread, both public constants of the
    study file (by default the middle and a quarter of the declared range, after the logarithm);
    "pooled": by the pooled mean and standard deviation, which an exact fit reads off its first opened sums
    (refused in private mode); "none": as is.
    reference_level: the category's level that gets no column of its own.
    """

    variable: Variable
    log: bool = False
    scale: Literal["none", "reference", "pooled"] = "none"
    centre: float = 0.0
    spread: Annotated[float, Meta(gt=0)] = 1.0
    reference_level: str = ""


class Spec(Struct, frozen=True, forbid_unknown_fields=True, tag_field="algorithm", tag="none"):
    """What one question asks for: the struct that an algorithm reads. Each algorithm has its own, whose tag is the
    name in study files; `questions.registry` knows them all."""


class Describe(Spec, frozen=True, tag="describe"):
    """Counts, histograms, means, deviations and quantiles of variables, `bins` equal bins over each range."""

    variables: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    bins: Annotated[int, Meta(ge=4, le=1024)] = 64


class LogisticRegression(Spec, frozen=True, tag="logistic-regression"):
    """Exact mode: unpenalised maximum likelihood. Private mode: noised moments and three noised gradient steps."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]


class Evaluate(Spec, frozen=True, tag="evaluate"):
    """ROC, AUC, calibration, Brier score and net benefit of models that earlier questions of the study made.

    `models`: ids of questions that make models. `by`: a variable for risk by level, or empty; a number needs `cuts`,
    where its groups begin. `fairness`: every model is scored in every group. Left out, the last two leave no trace in
    an agreement, so that those made before they were known stay what they are.
    """

    models: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=8)]
    by: Annotated[str, Meta(max_length=64)] = ""
    bins: Annotated[int, Meta(ge=8, le=256)] = 64
    cuts: Annotated[tuple[float, ...], Meta(max_length=15)] | UnsetType = UNSET
    fairness: bool | UnsetType = UNSET


class RobustMean(Spec, frozen=True, tag="robust-mean"):
    """Means that poisoned records cannot drag: the median over `groups` (odd) of their means.

    influence: a value farther than this part of half its range from the range's middle counts as no farther.
    """

    variables: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    groups: Annotated[int, Meta(ge=3, le=101)] = 11
    influence: Annotated[float, Meta(gt=0, le=1)] = 1.0


class JointQuantiles(Spec, frozen=True, tag="joint-quantiles"):
    """Quantiles of numbers, exact on a public grid of `grid` values over each range, and nothing else."""

    variables: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=16)]
    percents: Annotated[tuple[Annotated[int, Meta(ge=1, le=99)], ...], Meta(min_length=1, max_length=16)] = (50,)
    grid: Annotated[int, Meta(ge=4, le=4096)] = 1024


class JointTest(Spec, frozen=True, tag="joint-test"):
    """Do groups differ? Of a category or 0/1 outcome Pearson's chi-squared test, of a number Kruskal and Wallis' rank
    test on a public grid of `grid` values; the table is not opened.

    method "fisher": Fisher's exact test of two 0/1 variables (or categories of two levels), of few patients."""

    outcome: Name
    by: Name
    grid: Annotated[int, Meta(ge=4, le=1024)] = 256
    method: Literal["usual", "fisher"] = "usual"


class LogRank(Spec, frozen=True, tag="log-rank"):
    """Do two groups' times to an event differ? Times on a public grid of `bins` values; the life table is not opened.

    time: a number; event: 0/1, 0 where the patient was only followed so long; by: 0/1."""

    time: Name
    event: Name
    by: Name
    bins: Annotated[int, Meta(ge=2, le=256)] = 64


class HiddenModel(Spec, frozen=True, tag="hidden-model"):
    """A logistic regression that neither coordinator nor researcher sees: opened is how well it tells who is ill."""

    outcome: Name
    predictors: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]
    bins: Annotated[int, Meta(ge=8, le=256)] = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """What a study agreement fixes for every algorithm; public, the same at all parties."""

    variables: Mapping[str, StudyVariable]
    missing: Literal["drop", "indicate"]
    """drop: a patient with a missing value in a needed variable is left out of that question.
    indicate: a missing predictor takes its reference value and a 0/1 column says so."""
    mode: Mode
    hubs: tuple[str, ...]
    questions: Mapping[str, tuple[Spec, Scope]]
    """All questions of the study by id: `evaluate` looks up the models it scores."""
    max_patients: int = MAX_PATIENTS
    """No hub has more patients: public."""


@dataclass(frozen=True, slots=True)
class StepShape:
    """One vector that may be opened.

    size: coordinates. clip_norm: L2 bound of one patient's row, in the update's own unit; rows are clipped
    to it in private mode. weight: the step's part of its question's privacy budget (all steps of a question
    add up to 1). magnitude: public bound of any |coordinate| of one patient's row, for exact fixed point.
    """

    name: str
    size: int
    clip_norm: float
    weight: float
    magnitude: float


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Opened:
    """One opened total: `parameters` float64 [k] that it was asked with; `total` float64 [size]; `sigma`: deviation
    of the noise on each coordinate as an outsider sees it, in the update's unit, 0 in exact mode. Read-only."""

    parameters: Array
    total: Array
    sigma: float

    def __init__(self, parameters: Sequence[float] | Array, total: Array, sigma: float) -> None:
        object.__setattr__(self, "parameters", read_only(parameters))
        object.__setattr__(self, "total", read_only(total))
        object.__setattr__(self, "sigma", sigma)


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Ask:
    """The next step's public parameters (coefficients so far, centres and spreads), float64 [k], read-only."""

    parameters: Array

    def __init__(self, parameters: Sequence[float] | Array) -> None:
        object.__setattr__(self, "parameters", read_only(parameters))


@dataclass(frozen=True, slots=True)
class Finished:
    """The result, as plain JSON-able values."""

    result: dict[str, Any]


class Algorithm(Protocol):
    """One algorithm. Stateless: every method is a pure function of its arguments.

    `spec` is the algorithm's own kind of `Spec`.
    """

    name: ClassVar[str]
    statement: ClassVar[PrivacyStatement]
    operations: ClassVar[frozenset[Operation]]

    def check(self, spec: Any, setting: Setting) -> None:
        """Raises: StudyFileError: what in the study file cannot be carried out, and what to write instead."""
        ...

    def fields(self, spec: Any, setting: Setting) -> tuple[str, ...]:
        """Variables that the hub must read for this question, no others."""
        ...

    def outline(self, spec: Any, setting: Setting) -> tuple[StepShape, ...]:
        """Every vector that may be opened, in order, from public facts only. In exact mode the longest run."""
        ...

    def update(self, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """Per-patient rows float64 [n, outline[step].size]; the hub clips, sums, covers and masks them.
        `parameters`: float64 [k], which it must not change.

        Must not fail, nor take longer, on account of what one patient's values are.
        Raises: MisuseError: parameters of the wrong length or not finite.
        """
        ...

    def cells(self, spec: Any, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Exact mode: how many persons stand behind each count this question could show; the hub's own
        disclosure floor is held against every one that is not 0."""
        ...

    def next(
        self, spec: Any, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        """What to ask after the totals opened so far, or the result.

        `inputs`: results of earlier questions by model reference (`evaluate` needs them).
        Deterministic: a coordinator that was killed gets the same answer from the stored totals.
        """
        ...


@runtime_checkable
class JointAlgorithm(Algorithm, Protocol):
    """An algorithm that hubs compute together on shares (plan mpc): not a sum of updates, which it has none of.

    Its outline has one step, whose size is how many numbers are opened. `next` reads them as the step's total.
    """

    def program(self, spec: Any, setting: Setting, data: Dataset, party: Party) -> Step[Array]:
        """This hub's part, over its own patients. Returns what was opened, float64 [outline[0].size], |x| < 2^29, the
        same at every hub; JOINT_FRACTION_BITS binary digits of it are kept.

        Must not fail, nor take longer, on account of what one patient's values are.
        """
        ...


@runtime_checkable
class BlockUpdates(Algorithm, Protocol):
    """An algorithm whose rows, in private mode, are too many numbers to be held at once."""

    def blocks(self, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Iterator[Array]:
        """The rows of `update`, in order, float64 [k, outline[step].size] at a time, k as the algorithm likes."""
        ...


@runtime_checkable
class HubTotals(Algorithm, Protocol):
    """An algorithm that in exact mode gives a hub's total at once, such as what training there comes to.

    It stands for a sum over the hub's patients, and bounds it as such: |coordinate| <= patients * magnitude."""

    def total(self, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        """float64 [outline[step].size].

        Must not fail, nor take longer, on account of what one patient's values are."""
        ...

    def counted(self, spec: Any, setting: Setting, data: Dataset) -> Array:
        """[n, k] of 0 and 1: who is in it, and who in each count that its totals hold (see `study.exact_rule`)."""
        ...


@runtime_checkable
class NeedsParts(Algorithm, Protocol):
    """An algorithm that needs packages which not every hub has."""

    def require_parts(self, spec: Any) -> None:
        """Before a study is granted, and before anything is charged.

        Raises: NotPossible: what has to be installed here first."""
        ...


@runtime_checkable
class TakesTime(Algorithm, Protocol):
    """An algorithm whose steps may take a hub long, such as one that trains."""

    def seconds(self, spec: Any, setting: Setting) -> float:
        """For one step, beside the usual time of an answer; public. A round that takes longer is given up."""
        ...


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """What is to run in a hub's sandbox. memory_bytes: from what it needs to what it may use at most, of its own.
    seconds: for all patients together; `parameters` float64 [k], public."""

    code: bytes
    outputs: int
    parameters: Array
    memory_bytes: tuple[float, float]
    seconds: float


@runtime_checkable
class OwnCode(Algorithm, Protocol):
    """An algorithm whose rows are computed by a researcher's own code, in the sandbox, on one patient at a time."""

    def request(self, spec: Any, setting: Setting) -> CodeRequest: ...

    def inputs(self, spec: Any, setting: Setting, data: Dataset) -> Array:
        """float64 [n, columns], one row per patient: what the code is given. It gives outline[0].size numbers for
        each, which are covered as they come."""
        ...


class Scorer(Protocol):
    """What `evaluate` needs of a model: how likely each patient is to have the outcome, given what was released."""

    def outcome(self, spec: Any) -> str:
        """The 0/1 variable that is predicted."""
        ...

    def predictors(self, spec: Any) -> tuple[str, ...]: ...

    def size(self, spec: Any, setting: Setting) -> int:
        """How many numbers the model is; fixed by the agreement."""
        ...

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Sequence[float] | Array:
        """The model out of its question's result, [size]; of another length or not finite where there is none."""
        ...

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        """[n] in [0, 1]; finite for all who have the outcome and, under "drop", every predictor.

        Must not fail, nor take longer, on account of what one patient's values are."""
        ...
