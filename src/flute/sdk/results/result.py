"""What came out of one question, with all that vouches for it: as values, a frame, a plot, a page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from flute.algorithms.contract import Spec
from flute.questions.registry import REGISTRY
from flute.sdk.pages import heading, page, simulated, table, words
from flute.sdk.results import frames, plots
from flute.study.agreement import Agreement
from flute.study.protection import epsilon_at

_ROWS_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Result:
    """agreement: under which it was asked. party: the hub whose own answer it is, or empty. value: as released.

    release: the whole study run's, JSON-able, with statement and receipts."""

    agreement: Agreement
    question: str
    party: str
    value: dict[str, Any] = field(repr=False)
    release: dict[str, Any] = field(repr=False)

    @property
    def study(self) -> str:
        return self.agreement.study

    @property
    def spec(self) -> Spec:
        return self.agreement.question(self.question).what

    @property
    def algorithm(self) -> str:
        return REGISTRY[type(self.spec)].algorithm.name

    @property
    def reference(self) -> str:
        return f"{self.question}@{self.party}" if self.party else self.question

    @cached_property
    def epsilon(self) -> float:
        """What this question cost a patient at a hub, by the receipts; infinite for exact results."""
        if self.agreement.mode == "exact":
            return math.inf
        mine = [r for r in self.release["receipts"] if r["question"] == self.question]
        counted = [r for r in mine if not self.party or r["hubs"] == [self.party]]
        return epsilon_at(math.fsum(r["rho"] for r in counted), self.agreement.delta)

    @property
    def hubs(self) -> tuple[str, ...]:
        """Whose answers are in it: the smallest set of any of its rounds."""
        mine = [tuple(r["hubs"]) for r in self.release["receipts"] if r["question"] == self.question]
        counted = [hubs for hubs in mine if not self.party or hubs == (self.party,)]
        return min(counted, key=len, default=())

    @property
    def missing_hubs(self) -> tuple[str, ...]:
        """Hubs of the study without which a round was opened."""
        return () if self.party else tuple(sorted(set(self.agreement.hubs) - set(self.hubs)))

    @property
    def n(self) -> float | None:
        """Patients behind it as released, where the question releases that."""
        found = self.value.get("n")
        if isinstance(found, dict):
            found = found.get("value")
        return None if found is None else float(found)

    @property
    def statement(self) -> str:
        """What the whole run lets anyone learn about one patient."""
        return str(self.release["statement"])

    def to_frame(self) -> Any:
        """The figures that people look at first, as a pandas DataFrame; `value` has all of them."""
        return frames.frame_of(self.algorithm, self.value)

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """matplotlib Axes."""
        return plots.plot(self.algorithm, self.value, ax, simulated=self.agreement.simulated, **options)

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self.value)).decode()

    def __repr__(self) -> str:
        spent = "exact" if self.agreement.mode == "exact" else f"epsilon {self.epsilon:.3g}"
        n = "" if self.n is None else f", n {self.n:,.0f}"
        mark = "SIMULATED " if self.agreement.simulated else ""
        return f"<{mark}{self.reference} of {self.study}: {self.algorithm}, {spent}{n}>"

    def _repr_html_(self) -> str:
        head, rows = frames.rows_of(self.algorithm, self.value)
        cells = [[row.get(name) for name in head] for row in rows[:_ROWS_SHOWN]]
        more = f" {len(rows) - _ROWS_SHOWN} more rows: to_frame()." if len(rows) > _ROWS_SHOWN else ""
        cost = (
            "Exact: no epsilon bounds it." if self.agreement.mode == "exact" else f"Cost: epsilon {self.epsilon:.3g}."
        )
        away = f" Without {', '.join(self.missing_hubs)}." if self.missing_hubs else ""
        return page(
            heading(f"{self.reference}: {self.algorithm}"),
            simulated() if self.agreement.simulated else "",
            table(head, cells),
            words(str(self.value.get("ending_text", ""))) if self.value.get("ending_text") else "",
            words(f"Study run {self.study}. {cost}{away}{more}", quiet=True),
            words(self.statement, quiet=True),
        )


class HubResults(dict[str, Result]):
    """Hub to its own answer."""

    def to_frame(self) -> Any:
        return frames.stacked(self)

    def _repr_html_(self) -> str:
        return "".join(result._repr_html_() for result in self.values())
