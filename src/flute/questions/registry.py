"""Which questions there are. An algorithm without a complete privacy statement is not let in.

Others' algorithms are found by the entry point group `flute.algorithms`: each names a `Registration`, or a function
that gives several. Their code is part of `code_digest`, so a federation whose roster has not approved it does not run
it: all parties have to have the same ones installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final, Union

from flute.algorithms.contract import (
    Algorithm,
    Describe,
    Evaluate,
    HiddenModel,
    JointQuantiles,
    JointTest,
    LogisticRegression,
    LogRank,
    Operation,
    PrivacyStatement,
    RobustMean,
    Scorer,
    Spec,
)
from flute.algorithms.evaluation import EvaluateAlgorithm
from flute.algorithms.hidden_model import HiddenModelAlgorithm
from flute.algorithms.joint_statistics import JointQuantilesAlgorithm, JointTestAlgorithm, LogRankAlgorithm
from flute.algorithms.linear import LinearScorer, LogisticRegressionAlgorithm
from flute.algorithms.robust import RobustMeanAlgorithm
from flute.algorithms.statistics import DescribeAlgorithm
from flute.deep.network import NeuralNetworkAlgorithm
from flute.deep.scorer import NetworkScorer
from flute.deep.spec import NeuralNetwork
from flute.errors import MisuseError
from flute.models.imputation.chained import ImputedRegression, ImputedRegressionAlgorithm
from flute.models.machines.svm import SupportVectors, SvmAlgorithm, SvmScorer
from flute.models.own_step import OwnStep, OwnStepAlgorithm
from flute.models.regression.glm import BinomialScorer, GeneralisedLinearModel, GeneralisedLinearModelAlgorithm
from flute.models.regression.penalised import PenalisedRegression, PenalisedRegressionAlgorithm, PenalisedScorer
from flute.models.robust.model import RobustModel, RobustModelAlgorithm
from flute.models.trees.boosting import BoostingScorer, GradientBoosting, GradientBoostingAlgorithm
from flute.models.trees.forest import ForestScorer, RandomForest, RandomForestAlgorithm
from flute.models.trees.tree import DecisionTree, DecisionTreeAlgorithm, TreeScorer
from flute.models.validation.choice import ChooseModel, ChooseModelAlgorithm
from flute.models.validation.crossval import CrossValidate, CrossValidateAlgorithm
from flute.summaries.compare import Compare, CompareAlgorithm
from flute.summaries.correlation import Correlation, CorrelationAlgorithm
from flute.summaries.cross_table import CrossTable, CrossTableAlgorithm
from flute.summaries.survival.concordance import Concordance, ConcordanceAlgorithm
from flute.summaries.survival.cox import Cox, CoxAlgorithm
from flute.summaries.survival.curves import Survival, SurvivalAlgorithm
from flute.summaries.table_one import TableOne, TableOneAlgorithm

ENTRY_POINTS: Final = "flute.algorithms"


@dataclass(frozen=True, slots=True)
class Registration:
    """One algorithm: the struct that questions use, what answers them, and what scores the model, if it makes one."""

    spec: type[Spec]
    algorithm: Algorithm
    scorer: Scorer | None = None


def registered(found: Iterable[Registration]) -> Mapping[type[Spec], Registration]:
    """The registry of these algorithms, read-only.

    Raises: MisuseError: an algorithm lacks its privacy statement, a sentence of it, or its operations; its name
    is not the tag of its struct; or a struct or a name is registered twice.
    """
    kept: dict[type[Spec], Registration] = {}
    for one in found:
        _check_complete(one)
        if one.spec in kept or one.algorithm.name in {other.algorithm.name for other in kept.values()}:
            raise MisuseError(f"Algorithm {one.algorithm.name} is registered twice.")
        kept[one.spec] = one
    return MappingProxyType(kept)


def _check_complete(one: Registration) -> None:
    algorithm = one.algorithm
    name = getattr(algorithm, "name", "")
    if not isinstance(name, str) or not name:
        raise MisuseError("An algorithm without a name cannot be registered.")
    if not issubclass(one.spec, Spec) or one.spec.__struct_config__.tag != name:
        raise MisuseError(
            f"Algorithm {name}: its questions need a struct of their own kind of Spec, tagged {name!r}."
        )
    statement = getattr(algorithm, "statement", None)
    if not isinstance(statement, PrivacyStatement):
        raise MisuseError(f"Algorithm {name} has no privacy statement and cannot be registered.")
    for part in fields(PrivacyStatement):
        text = getattr(statement, part.name)
        if not isinstance(text, str) or not text.strip():
            raise MisuseError(f"Algorithm {name}: its privacy statement says nothing under {part.name!r}.")
    operations = getattr(algorithm, "operations", None)
    if not isinstance(operations, frozenset) or not operations or not all(type(o) is Operation for o in operations):
        raise MisuseError(f"Algorithm {name} does not say which operations it needs of a plan.")


def of_others() -> list[Registration]:
    """What installed packages register.

    Raises: MisuseError: an entry point that gives something else."""
    found: list[Registration] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: (p.name, p.value)):
        loaded: Any = point.load()
        given = [loaded] if isinstance(loaded, Registration) else list(loaded())
        if not all(isinstance(one, Registration) for one in given):
            raise MisuseError(f"Entry point {point.name} of {ENTRY_POINTS} gives something that is no Registration.")
        found += given
    return found


_MODELS: Final = (
    Registration(LogisticRegression, LogisticRegressionAlgorithm(), LinearScorer()),
    Registration(DecisionTree, DecisionTreeAlgorithm(), TreeScorer()),
    Registration(RobustModel, RobustModelAlgorithm(), LinearScorer()),
    Registration(GradientBoosting, GradientBoostingAlgorithm(), BoostingScorer()),
    Registration(GeneralisedLinearModel, GeneralisedLinearModelAlgorithm(), BinomialScorer()),
    Registration(SupportVectors, SvmAlgorithm(), SvmScorer()),
    Registration(PenalisedRegression, PenalisedRegressionAlgorithm(), PenalisedScorer()),
    Registration(RandomForest, RandomForestAlgorithm(), ForestScorer()),
    Registration(ImputedRegression, ImputedRegressionAlgorithm(), BinomialScorer()),
    Registration(NeuralNetwork, NeuralNetworkAlgorithm(), NetworkScorer()),
)
_OTHERS: Final = tuple(of_others())
_SCORED: Final = {one.spec: (one.algorithm, one.scorer) for one in _MODELS if one.scorer is not None}
_SCORERS: Final = {one.spec: one.scorer for one in (*_MODELS, *_OTHERS) if one.scorer is not None}

REGISTRY: Final = registered(
    (
        Registration(Describe, DescribeAlgorithm()),
        *_MODELS,
        Registration(Evaluate, EvaluateAlgorithm(_SCORERS)),
        Registration(CrossValidate, CrossValidateAlgorithm(_SCORED)),
        Registration(ChooseModel, ChooseModelAlgorithm(_SCORED)),
        Registration(RobustMean, RobustMeanAlgorithm()),
        Registration(Correlation, CorrelationAlgorithm()),
        Registration(CrossTable, CrossTableAlgorithm()),
        Registration(Compare, CompareAlgorithm()),
        Registration(Survival, SurvivalAlgorithm()),
        Registration(Cox, CoxAlgorithm()),
        Registration(Concordance, ConcordanceAlgorithm()),
        Registration(TableOne, TableOneAlgorithm()),
        Registration(JointQuantiles, JointQuantilesAlgorithm()),
        Registration(JointTest, JointTestAlgorithm()),
        Registration(LogRank, LogRankAlgorithm()),
        Registration(HiddenModel, HiddenModelAlgorithm()),
        Registration(OwnStep, OwnStepAlgorithm()),
        *_OTHERS,
    )
)

ANY_SPEC: Final[Any] = Union[tuple(REGISTRY)]  # noqa: UP007
"""What a question may ask, for decoders: the closed union of all registered structs."""


def algorithm_for(spec: Spec) -> Algorithm:
    """Raises: MisuseError: no algorithm is registered for this struct."""
    try:
        return REGISTRY[type(spec)].algorithm
    except KeyError:
        raise MisuseError(f"No algorithm is registered for {type(spec).__name__}.") from None


def makes_model(spec: Spec) -> bool:
    """Whether `evaluate` can score what this question makes."""
    return type(spec) in _SCORERS
