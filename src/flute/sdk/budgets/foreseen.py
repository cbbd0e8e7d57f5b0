"""A preview as a notebook shows it: the error of each number of a run, and what the study has left afterwards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from flute.algorithms.made_up import Assumed
from flute.sdk.budgets.budget import StudyBudget
from flute.sdk.budgets.prices import affordable
from flute.sdk.extras import frame
from flute.sdk.pages import heading, page, table, words
from flute.study.agreement import Agreement
from flute.study.preview import Accuracy, Preview, preview, read_accuracy
from flute.study.protection import study_budget

_ROWS_SHOWN: Final = 30
_OF_A_LIST: Final = re.compile(r"\.\d")
"""Points of a curve, bins, groups: there are many, and few are read."""


@dataclass(frozen=True, slots=True)
class Foresight:
    """preview: all of it. left: epsilon that one more run of the study could have afterwards; below 0: it does not
    fit any more."""

    preview: Preview
    left: float
    rho_left: float

    @property
    def fits(self) -> bool:
        return self.rho_left >= 0

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"question": seen.question, "what": n.what, "value if as assumed": n.value, "sd of the noise": n.sd,
             "95 % within": n.within, "unit": n.unit}
            for seen in self.preview.questions for n in seen.numbers
        ]  # fmt: skip

    def to_frame(self) -> Any:
        return frame(self._rows(), ["question", "what"])

    @property
    def sentence(self) -> str:
        assumed = self.preview.assumed
        after = f"{self.left:.3g} would be left" if self.fits else "the study has less than that left"
        return (
            f"Epsilon {self.preview.epsilon:g}; {after}. Assumed: {assumed.patients:,} patients at each hub, "
            f"{assumed.rate:.0%} of them with a 0/1 variable at 1. No record was looked at."
        )

    def __repr__(self) -> str:
        return f"<preview: {self.sentence}>"

    def _repr_html_(self) -> str:
        rows = self._rows()
        head = list(rows[0]) if rows else []
        first = [row for row in rows if not _OF_A_LIST.search(str(row["what"]))][:_ROWS_SHOWN]
        cells = [list(row.values()) for row in first]
        left = len(rows) - len(first)
        more = f"{left} more, of curves, bins and groups for the most part: to_frame()." if left else ""
        return page(heading("Preview"), words(self.sentence), table(head, cells), words(more, quiet=True))


def foresee(agreement: Agreement, assumed: Assumed, budget: StudyBudget) -> Foresight:
    """Raises: MisuseError: an exact study, or impossible assumptions."""
    seen = preview(agreement, assumed)
    left = budget.rho_left - study_budget(agreement)[0]
    if abs(left) < 1e-9 * budget.rho:
        left = 0.0
    return Foresight(seen, affordable(left, budget.delta) if left > 0 else min(left, 0.0), left)


def accuracy_of(text: str, what: str) -> Accuracy:
    return read_accuracy(text, what)
