"""From estimators to the agreement of one run: names, shares, epsilon; made and checked as a study file is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from flute.errors import MisuseError
from flute.questions.code import code_digest
from flute.sdk.budgets.budget import StudyBudget, shares_of
from flute.sdk.budgets.prices import affordable
from flute.sdk.estimators import Estimator
from flute.sdk.terms import Budget, Terms, named
from flute.study.agreement import Agreement, write_agreement
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file
from flute.study.protection import budget_of

_PLACEHOLDER = "xx"
_LISTS = {"variables", "predictors"}
"""Elements in which a single name is a mistake that Python lets pass."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One run that could be proposed. queries: by the name of their question."""

    terms: Terms
    queries: Mapping[str, Estimator]
    questions: Mapping[str, Mapping[str, Any]]
    epsilon: float

    def text(self, study: str, numbers: int) -> str:
        """The study file."""
        return self.terms.document(study, self.questions, epsilon=self.epsilon, numbers=numbers)

    def agreement(self, study: str, numbers: int, known: Sequence[str] | None) -> Agreement:
        """Raises: StudyFileError: what cannot be, and what to write instead. `known`: the federation's hubs."""
        path = f"study file of {study}"
        agreement, lines = read_study_file(self.text(study, numbers), path=path, code=code_digest())
        check_study(agreement, roster_hubs=known, lines=lines, path=path)
        return agreement


def draft(terms: Terms, queries: Sequence[Estimator], epsilon: float | None, budget: StudyBudget) -> Draft:
    """Raises: MisuseError: no query, something that is none, or nothing says what a private run may spend."""
    if not queries or not all(isinstance(query, Estimator) for query in queries):
        raise MisuseError(
            "Ask with an estimator or a query, for example flute.Describe(['age']), or with a list of them."
        )
    under = _under_names(queries)
    names = {id(query): name for name, query in under.items()}
    questions = {name: _question(query, names) for name, query in under.items()}
    if not isinstance(terms.protection, Budget):
        return Draft(terms, under, questions, 0.0)
    whole, shares = _spent(list(under.values()), epsilon, terms.protection, budget)
    for one, share in zip(questions.values(), shares, strict=True):
        one["share"] = share
    return Draft(terms, under, questions, whole)


def _under_names(queries: Sequence[Estimator]) -> dict[str, Estimator]:
    """Each under its own name, its algorithm's where it has none; a number behind where that is taken."""
    under: dict[str, Estimator] = {}
    for query in queries:
        base = query.name or query.asks
        name, number = base, 1
        while name in under:
            number += 1
            name = f"{base}-{number}"
        under[name] = query
    return under


def _question(query: Estimator, names: Mapping[int, str]) -> dict[str, Any]:
    elements = {name: _plain(value, names) for name, value in query.elements().items()}
    for listed in _LISTS & elements.keys():
        named(elements[listed], listed)
    return {"algorithm": query.asks, **elements, **({"per_hub": True} if query.per_hub else {})}


def _plain(value: Any, names: Mapping[int, str]) -> Any:
    """As YAML has it; an estimator becomes the name of its question.

    Raises: MisuseError: an estimator that is not asked for in this run."""
    if isinstance(value, Estimator):
        if id(value) not in names:
            raise MisuseError(
                f"{type(value).__name__} is not asked for in this run. A model is evaluated in the run that fits it: "
                "study.run([model, flute.Evaluate(model)])."
            )
        return names[id(value)]
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, an index of pandas
        return _plain(value.tolist(), names)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, names) for key, inner in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(inner, names) for inner in value]
    return value


def _spent(
    queries: Sequence[Estimator], epsilon: float | None, protection: Budget, budget: StudyBudget
) -> tuple[float, list[float]]:
    """Epsilon of the run, and each question's share of it."""
    own = [query.epsilon for query in queries]
    if epsilon is None and all(one is not None for one in own):
        rhos = [_rho(one or 0.0, protection) for one in own]
        whole = affordable(math.fsum(rhos), protection.delta) if len(own) > 1 else float(own[0] or 0.0)
        total = _rho(whole, protection)
        return whole, [min(rho / total, 1.0) / max(1.0, math.fsum(rhos) / total) for rho in rhos]
    chosen = epsilon if epsilon is not None else protection.each
    if chosen is None:
        raise MisuseError(
            f"Say what this run may spend: epsilon=… , at most {budget.left:.3g}, which is what is left of the "
            "study's budget. Or give the study a usual amount: flute.Budget(epsilon=…, each=…)."
        )
    return float(chosen), shares_of([query.share for query in queries])


def _rho(epsilon: float, protection: Budget) -> float:
    if not epsilon > 0:
        raise MisuseError(f"epsilon is {epsilon!r}; write a number above 0, for example 1.")
    return budget_of(float(epsilon), protection.delta)[0]


def same_as(agreement: Agreement) -> bytes:
    """Names what an agreement asks, whatever run it is: equal for runs that would give the same kind of answer."""
    plain = msgspec.structs.replace(
        agreement, study=_PLACEHOLDER, title=_PLACEHOLDER, starts=0, ends=0, max_numbers=0, code=bytes(32)
    )
    return write_agreement(plain)
