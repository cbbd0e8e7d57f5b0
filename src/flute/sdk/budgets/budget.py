"""What a study of a notebook may spend, has spent, and has left: by its own runs, and as the hubs' ledgers say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flute.defaults import DELTA
from flute.dp.odds import exact_sentence, odds_sentence
from flute.sdk.budgets.prices import affordable
from flute.sdk.extras import frame
from flute.sdk.hubs.told import sentence
from flute.sdk.pages import heading, page, table, words
from flute.sdk.place import Account
from flute.sdk.terms import Budget, Exact
from flute.study.agreement import Agreement, write_agreement
from flute.study.files.check import checked_agreement
from flute.study.protection import budget_of, epsilon_at, study_budget


@dataclass(frozen=True, slots=True)
class Spending:
    """One run. rho: of the whole run, charged per patient and hub; numbers: exact ones it may open; open: in flight,
    so that they are reserved and not yet spent."""

    run: str
    epsilon: float
    rho: float
    numbers: int
    open: bool


def spending(agreement: Agreement, status: Mapping[str, Any]) -> Spending | None:
    """None for a run that ended before anything was asked of a hub: nobody was charged."""
    if status["state"] == "stopped" and not (status["rounds"] or status["repeated"] or status["now"]):
        return None
    numbers = checked_agreement(write_agreement(agreement)).numbers if agreement.mode == "exact" else 0
    in_flight = status["state"] not in ("finished", "stopped")
    return Spending(agreement.study, agreement.epsilon, study_budget(agreement)[0], numbers, in_flight)


@dataclass(frozen=True, slots=True)
class StudyBudget:
    """Epsilons are at the study's delta. They do not add up; rho does, and decides."""

    protection: Budget | Exact
    runs: tuple[Spending, ...]
    accounts: tuple[Account, ...]

    @property
    def delta(self) -> float:
        return self.protection.delta if isinstance(self.protection, Budget) else DELTA

    @property
    def rho(self) -> float:
        return budget_of(self.protection.epsilon, self.delta)[0] if isinstance(self.protection, Budget) else 0.0

    @property
    def rho_spent(self) -> float:
        return math.fsum(r.rho for r in self.runs if not r.open)

    @property
    def rho_reserved(self) -> float:
        return math.fsum(r.rho for r in self.runs if r.open)

    @property
    def rho_left(self) -> float:
        return max(self.rho - self.rho_spent - self.rho_reserved, 0.0)

    @property
    def spent(self) -> float:
        """Epsilon of all that was spent together."""
        return epsilon_at(self.rho_spent, self.delta)

    @property
    def reserved(self) -> float:
        return epsilon_at(self.rho_reserved, self.delta)

    @property
    def left(self) -> float:
        """Epsilon that one more run may have."""
        return affordable(self.rho_left, self.delta)

    @property
    def numbers_left(self) -> int:
        """Exact numbers that further runs may open."""
        if not isinstance(self.protection, Exact):
            return 0
        return max(self.protection.max_numbers - sum(r.numbers for r in self.runs), 0)

    @property
    def sentence(self) -> str:
        """What all runs so far let anyone learn about one patient."""
        if isinstance(self.protection, Exact):
            return exact_sentence(0.0, DELTA) if self.runs else "Nothing was asked yet: nothing can be learnt."
        rho = self.rho_spent + self.rho_reserved
        return odds_sentence(rho, self.delta) if rho else "Nothing was asked yet: nothing can be learnt."

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [
            {"who": "this study", "reserved": self.reserved, "spent": self.spent, "left": self.left,
             "rho spent": self.rho_spent, "rho left": self.rho_left, "exact numbers": self._numbers(),
             "in words": self.sentence},
        ]  # fmt: skip
        for account in self.accounts:
            if not account.told:
                rows.append({"who": f"hub {account.hub}", "in words": account.why})
                continue
            mine = [account.runs[r.run] for r in self.runs if r.run in account.runs]
            rho, waiting = (math.fsum(a[which] for a in mine) for which in ("rho", "rho_reserved"))
            rows.append(
                {"who": f"hub {account.hub}, this study", "reserved": epsilon_at(waiting, self.delta),
                 "spent": epsilon_at(rho, self.delta), "rho spent": rho,
                 "exact numbers": sum(a["exact_numbers"] for a in mine),
                 "in words": sentence(rho, unbounded=any(a["unbounded"] for a in mine))}
            )  # fmt: skip
            if account.own is not None:
                own = account.own
                rows.append(
                    {"who": f"hub {account.hub}, all your questions", "spent": own["epsilon_noised"],
                     "rho spent": own["rho"], "exact numbers": own["exact_numbers"], "in words": own["sentence"]}
                )  # fmt: skip
            if account.dataset is not None:
                whole = account.dataset
                left = whole.get("rho_left")
                rows.append(
                    {"who": f"hub {account.hub}, all studies", "spent": whole["epsilon_noised"],
                     "left": None if left is None else affordable(left, DELTA), "rho spent": whole["rho"],
                     "rho left": left, "exact numbers": whole["exact_numbers"], "in words": whole["sentence"]}
                )  # fmt: skip
        return rows

    def _numbers(self) -> int:
        return sum(r.numbers for r in self.runs)

    def to_frame(self) -> Any:
        return frame(self._rows(), "who")

    def __repr__(self) -> str:
        if isinstance(self.protection, Exact):
            return f"<exact: {self._numbers():,} numbers opened at most, {self.numbers_left:,} left. {self.sentence}>"
        return (
            f"<epsilon {self.protection.epsilon:g} at delta {self.delta:g}: {self.spent:.3g} spent, "
            f"{self.reserved:.3g} reserved, {self.left:.3g} left for one more run. {self.sentence}>"
        )

    def _repr_html_(self) -> str:
        rows = self._rows()
        head = [h for h in ("who", "reserved", "spent", "left", "exact numbers") if any(r.get(h) for r in rows)]
        return page(
            heading("Privacy budget"),
            table(head, [[row.get(name) for name in head] for row in rows]),
            words(self.sentence),
            *(
                words(f"Hub {account.hub}: {account.why}", quiet=True)
                for account in self.accounts
                if not account.told
            ),
            words("Epsilons do not add up: what is left is what one more run may have.", quiet=True),
        )


def shares_of(wanted: Sequence[float | None]) -> list[float]:
    """Parts of a run's budget: those that were said, and equal parts of the rest, in sum at most 1."""
    rest = 1.0 - math.fsum(s for s in wanted if s is not None)
    silent = sum(1 for s in wanted if s is None)
    return [s if s is not None else max(rest, 0.0) / silent for s in wanted]
