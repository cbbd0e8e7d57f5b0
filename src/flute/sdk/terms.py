"""What a study in a notebook is agreed on, as the study file that says the same.

The agreement of every run is made from that file by `study.files.file`, so a notebook and a file are checked by the
same code, fail with the same sentences, and the file can be shown to a data protection officer (`Study.to_yaml`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import yaml

from flute.defaults import DELTA, EXACT_MAX_NUMBERS
from flute.errors import MisuseError
from flute.sdk.variables import Declared, Variables

OWN_RECORDS: Final = "the researcher's own records on the researcher's own machine"
"""The ground on which a simulator's and a local federation's hubs take part, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Private results. epsilon: what all runs of the study may spend together, per patient and hub, at `delta`.

    each: epsilon of a run that says none of its own; None: every run has to say it."""

    epsilon: float
    delta: float = DELTA
    each: float | None = None


@dataclass(frozen=True, slots=True)
class Exact:
    """Exact results, which every hub has to allow. max_numbers: opened by all runs of the study together."""

    max_numbers: int = EXACT_MAX_NUMBERS


@dataclass(frozen=True, slots=True)
class Conditions:
    """On what ground hubs take part, word for word as their data protection officers read it."""

    legal_basis: str
    ethics_approval: str
    retain_until: date | str

    def element(self) -> dict[str, Any]:
        return {
            "legal_basis": self.legal_basis,
            "ethics_approval": self.ethics_approval,
            "retain_until": _day(self.retain_until),
        }


@dataclass(frozen=True, slots=True)
class Terms:
    """All that stays the same in every run of one study."""

    name: str
    title: str
    purpose: str
    researcher: str
    hubs: tuple[str, ...]
    conditions: Mapping[str, Conditions]
    period: tuple[date | str, date | str]
    variables: Mapping[str, Declared]
    protection: Budget | Exact
    plan: Mapping[str, Any]
    dataset: str
    missing: str
    max_patients: int
    simulated: bool
    hubs_min: int | None = None
    decide_by: date | str | None = None

    def document(
        self, study: str, questions: Mapping[str, Mapping[str, Any]], *, epsilon: float = 0.0, numbers: int = 0
    ) -> str:
        """The study file of one run. epsilon: of this run; numbers: exact ones that may still be opened."""
        start, until = self.period
        if isinstance(self.protection, Budget):
            protection: dict[str, Any] = {"budget": {"epsilon": epsilon, "delta": self.protection.delta}}
        else:
            protection = {"exact": {"max_numbers": numbers}}
        said = {
            "flute": 1,
            "study": study,
            "title": self.title,
            "purpose": self.purpose,
            "researcher": self.researcher,
            "hubs": list(self.hubs),
            **self._fewer(),
            "simulated": self.simulated,
            "dataset": self.dataset,
            "missing": self.missing,
            "max_patients": self.max_patients,
            "period": {"from": _day(start), "until": _day(until)},
            "conditions": {who: one.element() for who, one in self.conditions.items()},
            "variables": {name: dict(one) for name, one in self.variables.items()},
            "plan": self._plan(),
            **protection,
            "questions": {name: dict(one) for name, one in questions.items()},
        }
        return str(yaml.dump(said, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110))

    def _fewer(self) -> dict[str, Any]:
        said = {} if self.hubs_min is None else {"hubs_min": self.hubs_min}
        return said if self.decide_by is None else {**said, "decide_by": _day(self.decide_by)}

    def _plan(self) -> dict[str, Any]:
        """Under noise, sums have to bear the lack of as many hubs as may be left out, where nothing else is said."""
        plan = dict(self.plan)
        if isinstance(self.hubs_min, int) and isinstance(self.protection, Budget):
            plan.setdefault("dropouts", max(len(self.hubs) - self.hubs_min, 0))
        return plan


class _Plain(yaml.SafeDumper):
    """No anchors: a block that stands twice is written twice, as a person would."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _day(said: date | str) -> date:
    """Raises: MisuseError: not a day."""
    if isinstance(said, date):
        return said
    try:
        return date.fromisoformat(said)
    except (TypeError, ValueError):
        raise MisuseError(f"{said!r} is not a day; write for example '2027-12-31'.") from None


def protection_of(budget: Budget | float | None, exact: Exact | bool | None) -> Budget | Exact:
    """Raises: MisuseError: neither, or both."""
    if bool(exact) == (budget is not None):
        raise MisuseError(
            "Say how results are protected, in one way: budget=flute.Budget(epsilon=1) for private results, or "
            "exact=flute.Exact() for exact ones, which every hub has to allow."
        )
    if budget is not None:
        return budget if isinstance(budget, Budget) else Budget(float(budget))
    return exact if isinstance(exact, Exact) else Exact()


def conditions_of(
    said: Conditions | Mapping[str, Conditions] | None, default: Conditions | None
) -> Mapping[str, Conditions]:
    """Raises: MisuseError: nothing was said, and the hubs are not the researcher's own."""
    if said is None and default is None:
        raise MisuseError(
            "Say on what ground the hubs take part: conditions=flute.Conditions(legal_basis=…, ethics_approval=…, "
            "retain_until='2030-12-31'), or one for each hub by name."
        )
    said = said if said is not None else default
    return {"all": said} if isinstance(said, Conditions) else dict(said or {})


def plan_of(said: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": said} if isinstance(said, str) else said


def variables_of(said: Mapping[str, Declared] | str | None, known: Variables | None) -> Variables:
    """Raises: MisuseError: nothing was said and no catalogue tells."""
    if isinstance(said, Mapping):
        return said if isinstance(said, Variables) else Variables(said)
    if said is not None:
        return Variables.read(said)
    if known is None:
        raise MisuseError(
            "Say which variables the study reads: variables=flute.Variables(age=flute.number(18, 100), "
            "sex=flute.category('f', 'm'), …), or the path of a public dictionary."
        )
    return known


def default_period(today: date) -> tuple[date, date]:
    """From today until the end of next year: the same end for all runs, so that a steward's word can cover them."""
    return today, date(today.year + 1, 12, 31)


def named(given: Sequence[str], what: str) -> tuple[str, ...]:
    """Raises: MisuseError: a single text where a list of names belongs."""
    if isinstance(given, str):
        raise MisuseError(f"{what} is a list of names: write [{given!r}], not {given!r}.")
    return tuple(given)
