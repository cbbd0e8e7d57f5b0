"""Which algorithms there are. One without a complete privacy statement is not let in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib.resources import files
from types import MappingProxyType
from typing import Final

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
    Spec,
)
from flute.algorithms.evaluation import EvaluateAlgorithm
from flute.algorithms.hidden_model import HiddenModelAlgorithm
from flute.algorithms.joint_statistics import JointQuantilesAlgorithm, JointTestAlgorithm, LogRankAlgorithm
from flute.algorithms.linear import LogisticRegressionAlgorithm
from flute.algorithms.robust import RobustMeanAlgorithm
from flute.algorithms.statistics import DescribeAlgorithm
from flute.errors import MisuseError
from flute.primitives.keys import digest

_ROOMS: Final = ("aggregation", "algorithms", "attestation", "dp", "enclaves", "joint", "mpc", "threshold")
"""What decides on privacy when a question runs: the roster approves these rooms' code, by digest."""


def registered(pairs: Iterable[tuple[type[Spec], Algorithm]]) -> Mapping[type[Spec], Algorithm]:
    """The registry of these algorithms, read-only.

    Raises: MisuseError: an algorithm lacks its privacy statement, a sentence of it, or its operations; or a
    struct or a name is registered twice.
    """
    found: dict[type[Spec], Algorithm] = {}
    for spec, algorithm in pairs:
        _check_complete(algorithm)
        if spec in found or algorithm.name in {other.name for other in found.values()}:
            raise MisuseError(f"Algorithm {algorithm.name} is registered twice.")
        found[spec] = algorithm
    return MappingProxyType(found)


def _check_complete(algorithm: Algorithm) -> None:
    name = getattr(algorithm, "name", "")
    if not isinstance(name, str) or not name:
        raise MisuseError("An algorithm without a name cannot be registered.")
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


ALGORITHMS: Final = registered(
    (
        (Describe, DescribeAlgorithm()),
        (LogisticRegression, LogisticRegressionAlgorithm()),
        (Evaluate, EvaluateAlgorithm()),
        (RobustMean, RobustMeanAlgorithm()),
        (JointQuantiles, JointQuantilesAlgorithm()),
        (JointTest, JointTestAlgorithm()),
        (LogRank, LogRankAlgorithm()),
        (HiddenModel, HiddenModelAlgorithm()),
    )
)


def algorithm_for(spec: Spec) -> Algorithm:
    """Raises: MisuseError: no algorithm is registered for this struct."""
    try:
        return ALGORITHMS[type(spec)]
    except KeyError:
        raise MisuseError(f"No algorithm is registered for {type(spec).__name__}.") from None


def code_digest() -> bytes:
    """32 bytes over path and source of every module in _ROOMS, as installed: what hubs approve and compare.

    Line ends count: an installation that rewrote them runs other bytes than the ones approved.
    """
    parts = [b"flute/code/v1"]
    for room in _ROOMS:
        modules = [f for f in files("flute").joinpath(room).iterdir() if f.name.endswith(".py")]
        for module in sorted(modules, key=lambda f: f.name):
            parts += [f"{room}/{module.name}".encode(), hashlib.sha256(module.read_bytes()).digest()]
    return digest(*parts)
