"""Statistics that hubs compute together on shares (plan mpc): quantiles and tests whose tables nobody sees.

Each opens what its privacy statement says and nothing else, exactly; so they are for exact studies. Grids are public,
made from declared ranges; patients with a missing value in a needed variable are left out at their own hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from flute.algorithms.contract import (
    Ask,
    Finished,
    JointQuantiles,
    JointTest,
    LogRank,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import check_variable, known, present, values
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import MisuseError, StudyFileError
from flute.joint.arithmetic import MAX_COUNT_BITS
from flute.joint.fisher import MAX_BITS as FISHER_BITS
from flute.joint.fisher import fisher
from flute.joint.quantiles import on_grid, quantiles
from flute.joint.ranks import RANK_COUNT_BITS, kruskal_wallis
from flute.joint.survival import life_table, log_rank
from flute.joint.tables import chi_squared
from flute.mpc.party import Party
from flute.mpc.steps import Step

_NO_UPDATE: Final = "This algorithm is computed on shares; it has no sum of updates."
_OPENED: Final = "on shares, opened without noise: no event; exact studies only"


class JointBase:
    """What all of them share. They have one step, and no update."""

    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.PRODUCTS, Operation.COMPARISONS})

    def update(self, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset) -> Array:
        raise MisuseError(_NO_UPDATE)

    def _outline(self, size: int) -> tuple[StepShape, ...]:
        return (StepShape("computed", size, 1.0, 1.0, 1.0),)


def require_exact(setting: Setting, what: str, *, bits: int = MAX_COUNT_BITS) -> None:
    """Raises: StudyFileError: a private study, or more patients than counts on shares have room for."""
    if setting.mode != "exact":
        raise StudyFileError(
            f"{what} is computed on shares and opened without noise, so it is for exact studies: write 'exact:' "
            "instead of 'budget:', or ask for describe."
        )
    most = (2**bits - 2) // len(setting.hubs)
    if setting.max_patients > most:
        raise StudyFileError(
            f"{what} counts up to {most:,} patients a hub, and max_patients is {setting.max_patients:,}: write "
            f"'max_patients: {most}' if no hub has more."
        )


def count_bits(setting: Setting) -> int:
    """All hubs together have fewer than 2^this - 1 patients."""
    return max((len(setting.hubs) * setting.max_patients + 1).bit_length(), 2)


def grid_of(used: StudyVariable, size: int) -> Array:
    """[size] rising public values: upper ends of equal parts of the declared range, after the logarithm if any."""
    low, high = used.variable.low, used.variable.high
    if used.log:
        low, high = float(np.log(low)), float(np.log(high))
    return np.linspace(low, high, size + 1)[1:]


def groups_of(used: StudyVariable) -> tuple[str, ...]:
    return used.variable.levels if used.variable.kind == "category" else ("0", "1")


class JointQuantilesAlgorithm(JointBase):
    """Quantiles of all hubs' values, exact on the grid."""

    name: ClassVar[str] = "joint-quantiles"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released="Per variable and percent one value of the public grid: the quantile over all hubs' patients.",
        bounded_by="Nothing: a quantile is exact on its grid. One patient may move it by one patient's distance.",
        leaked_otherwise="That all hubs together have no more patients than the agreement says.",
        event=_OPENED,
    )

    def check(self, spec: JointQuantiles, setting: Setting) -> None:
        """Raises: StudyFileError."""
        require_exact(setting, self.name)
        for name in spec.variables:
            check_variable(known(name, setting))
            if spec.variables.count(name) > 1:
                raise StudyFileError(f"variables: {name!r} stands twice; keep one.")
            if known(name, setting).variable.kind != "number":
                raise StudyFileError(f"variables: {name!r} is no number and has no quantiles; ask for describe.")

    def fields(self, spec: JointQuantiles, setting: Setting) -> tuple[str, ...]:
        return spec.variables

    def outline(self, spec: JointQuantiles, setting: Setting) -> tuple[StepShape, ...]:
        return self._outline(len(spec.variables) * len(spec.percents))

    def program(self, spec: JointQuantiles, setting: Setting, data: Dataset, party: Party) -> Step[Array]:
        levels, found = [Fraction(percent, 100) for percent in spec.percents], []
        for name in spec.variables:
            used = known(name, setting)
            x = values(used, data)
            found.append(
                (
                    yield from quantiles(
                        party, x[~np.isnan(x)], grid=grid_of(used, spec.grid), levels=levels,
                        count_bits=count_bits(setting),
                    )
                )
            )  # fmt: skip
        return np.concatenate(found)

    def cells(self, spec: JointQuantiles, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients with a value, per variable."""
        return np.array([int(present((name,), setting, data).sum()) for name in spec.variables], dtype=np.int64)

    def next(
        self, spec: JointQuantiles, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        shown: dict[str, Any] = {}
        for name, row in zip(spec.variables, history[0].total.reshape(len(spec.variables), -1), strict=True):
            used = known(name, setting)
            back = np.exp(row) if used.log else row
            step = float(np.diff(grid_of(used, spec.grid))[0])
            shown[name] = {
                "label": used.variable.label,
                "unit": used.variable.unit,
                "quantiles": {str(p): float(v) for p, v in zip(spec.percents, back, strict=True)},
                "grid_step": step,
                "grid_of_logarithms": used.log,
            }
        return Finished({"variables": shown})


class JointTestAlgorithm(JointBase):
    """Pearson's chi-squared test, Kruskal and Wallis' rank test, or Fisher's exact one, without the table."""

    name: ClassVar[str] = "joint-test"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released="The test's statistic over all hubs' patients; for a number also how many patients each group has.",
        bounded_by="Nothing: the statistic is exact, for a number on the public grid.",
        leaked_otherwise="That all hubs together have no more patients than the agreement says.",
        event=_OPENED,
    )

    def check(self, spec: JointTest, setting: Setting) -> None:
        """Raises: StudyFileError."""
        for name in (spec.outcome, spec.by):
            check_variable(known(name, setting))
        if spec.outcome == spec.by:
            raise StudyFileError(f"by: {spec.by!r} is the outcome itself; name another variable.")
        if known(spec.by, setting).variable.kind == "number":
            raise StudyFileError(f"by: {spec.by!r} is a number; name a category or a 0/1 variable.")
        if spec.method == "fisher":
            self._require_two_by_two(spec, setting)
        bits = FISHER_BITS if spec.method == "fisher" else RANK_COUNT_BITS if self._ranks(spec, setting) else None
        require_exact(setting, self.name, bits=bits or MAX_COUNT_BITS)

    def _require_two_by_two(self, spec: JointTest, setting: Setting) -> None:
        for name in (spec.outcome, spec.by):
            variable = known(name, setting).variable
            if variable.kind == "number" or len(variable.levels) not in (0, 2):
                raise StudyFileError(
                    f"method: fisher takes two variables of two levels each, and {name!r} is none; write "
                    "'method: usual', or name a 0/1 variable."
                )

    def _ranks(self, spec: JointTest, setting: Setting) -> bool:
        return known(spec.outcome, setting).variable.kind == "number"

    def fields(self, spec: JointTest, setting: Setting) -> tuple[str, ...]:
        return (spec.outcome, spec.by)

    def outline(self, spec: JointTest, setting: Setting) -> tuple[StepShape, ...]:
        groups = len(groups_of(known(spec.by, setting)))
        return self._outline(1 + groups if self._ranks(spec, setting) else 1)

    def program(self, spec: JointTest, setting: Setting, data: Dataset, party: Party) -> Step[Array]:
        table, bits = self._table(spec, setting, data), count_bits(setting)
        if spec.method == "fisher":
            return np.array([(yield from fisher(party, table, count_bits=bits))], dtype=np.float64)
        if self._ranks(spec, setting):
            test = yield from kruskal_wallis(party, table, count_bits=bits)
            return np.array([test.statistic, *test.sizes], dtype=np.float64)
        found = yield from chi_squared(party, table, count_bits=bits)
        return np.array([found.statistic], dtype=np.float64)

    def _table(self, spec: JointTest, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """[groups, levels of the outcome or places of its grid] this hub's counts."""
        outcome, by = known(spec.outcome, setting), known(spec.by, setting)
        there = present((spec.outcome, spec.by), setting, data)
        group, y = values(by, data)[there], values(outcome, data)[there]
        if self._ranks(spec, setting):
            grid = grid_of(outcome, spec.grid)
            rows = [on_grid(y[group == k], grid) for k in range(len(groups_of(by)))]
            return np.array(rows, dtype=np.int64)
        table = np.zeros((len(groups_of(by)), len(groups_of(outcome))), dtype=np.int64)
        np.add.at(table, (group.astype(int), y.astype(int)), 1)
        return table

    def cells(self, spec: JointTest, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients per group."""
        groups: NDArray[np.int64] = self._table(spec, setting, data).sum(axis=1)
        return groups

    def next(
        self, spec: JointTest, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        if spec.method == "fisher":
            p = float(np.clip(history[0].total[0], 0.0, 1.0))
            return Finished({"test": "Fisher's exact", "statistic": None, "degrees_of_freedom": None, "p": p})
        groups = groups_of(known(spec.by, setting))
        statistic, *sizes = (float(v) for v in history[0].total)
        ranks = self._ranks(spec, setting)
        others = len(groups) if ranks else len(groups_of(known(spec.outcome, setting)))
        degrees = len(groups) - 1 if ranks else (len(groups) - 1) * (others - 1)
        result: dict[str, Any] = {
            "test": "Kruskal-Wallis" if ranks else "Pearson's chi-squared",
            "statistic": statistic,
            "degrees_of_freedom": degrees,
            "p": float(chi2.sf(statistic, degrees)),
        }
        if ranks:
            result["groups"] = dict(zip(groups, (round(s) for s in sizes), strict=True))
        return Finished(result)


class LogRankAlgorithm(JointBase):
    """The log-rank test of two groups, without the life table."""

    name: ClassVar[str] = "log-rank"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released="Observed less expected events of one group, and the variance of that, over all hubs' patients.",
        bounded_by="Nothing: both numbers are exact on the public grid of times.",
        leaked_otherwise="That all hubs together have no more patients than the agreement says.",
        event=_OPENED,
    )

    def check(self, spec: LogRank, setting: Setting) -> None:
        """Raises: StudyFileError."""
        require_exact(setting, self.name)
        for element, name, kind in (
            ("time", spec.time, "number"), ("event", spec.event, "binary"), ("by", spec.by, "binary")
        ):  # fmt: skip
            check_variable(known(name, setting))
            if known(name, setting).variable.kind != kind:
                asked = "a number" if kind == "number" else "a 0/1 variable"
                raise StudyFileError(f"{element}: {name!r} has to be {asked}.")
        if len({spec.time, spec.event, spec.by}) < 3:
            raise StudyFileError("by: time, event and by have to be three different variables.")

    def fields(self, spec: LogRank, setting: Setting) -> tuple[str, ...]:
        return (spec.time, spec.event, spec.by)

    def outline(self, spec: LogRank, setting: Setting) -> tuple[StepShape, ...]:
        return self._outline(2)

    def program(self, spec: LogRank, setting: Setting, data: Dataset, party: Party) -> Step[Array]:
        test = yield from log_rank(party, self._table(spec, setting, data), count_bits=count_bits(setting))
        return np.array([test.difference, test.variance])

    def _table(self, spec: LogRank, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        there = present(self.fields(spec, setting), setting, data)
        time = values(known(spec.time, setting), data)[there]
        grid = grid_of(known(spec.time, setting), spec.bins)
        at = np.minimum(np.searchsorted(grid, time), spec.bins - 1).astype(np.int64)
        event = values(known(spec.event, setting), data)[there] == 1
        group = values(known(spec.by, setting), data)[there].astype(np.int64)
        return life_table(at, event, group, spec.bins)

    def cells(self, spec: LogRank, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        """Patients per group and whether they had the event."""
        persons: NDArray[np.int64] = self._table(spec, setting, data).sum(axis=2).ravel()
        return persons

    def next(
        self, spec: LogRank, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        difference, variance = (float(v) for v in history[0].total)
        statistic = difference**2 / variance if variance > 0 else 0.0
        return Finished(
            {
                "observed_less_expected": difference,
                "variance": variance,
                "statistic": statistic,
                "degrees_of_freedom": 1,
                "p": float(chi2.sf(statistic, 1)),
            }
        )
