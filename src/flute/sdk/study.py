"""A study in a notebook: fixed terms, and runs that are drawn on its budget one after the other.

Each run is an agreement of its own (`heart-1`, `heart-2`, …) that every hub decides about, because a question that
depends on earlier answers cannot stand in an agreement made before them. What the runs spend adds up as rho, which
holds for questions chosen in view of answers; this object keeps the sum, and every hub's ledger is the judge.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flute.algorithms.made_up import Assumed
from flute.errors import BudgetExceeded, MisuseError
from flute.sdk.budgets.budget import StudyBudget, spending
from flute.sdk.budgets.foreseen import Foresight, accuracy_of, foresee
from flute.sdk.draft import Draft, draft, same_as
from flute.sdk.estimators import Estimator
from flute.sdk.hubs.agreed import Agreed, Approvals, approvals
from flute.sdk.pages import heading, page, simulated, table, words
from flute.sdk.place import Place
from flute.sdk.progress import waiting
from flute.sdk.running import Results, Running
from flute.sdk.terms import Budget, Exact, Terms
from flute.study.agreement import Agreement, write_agreement
from flute.study.files.check import checked_agreement
from flute.study.preview import TRYING, cheapest
from flute.study.protection import budget_of

_ROOM = 1 + 1e-9
"""Float error of a budget that is spent to its end."""
Asked = Estimator | Sequence[Estimator]


@dataclass(eq=False)
class Study:
    """Made by `Federation.study`."""

    terms: Terms
    place: Place = field(repr=False)

    @property
    def name(self) -> str:
        return self.terms.name

    # --- asking --------------------------------------------------------------------------------------

    def run(
        self, queries: Asked, *, epsilon: float | None = None, accuracy: str | None = None, again: bool = False,
        assumed: Assumed = Assumed(), timeout: float | None = None, progress: bool | None = None,
    ) -> Any:  # fmt: skip
        """Ask, wait, and give the result; of several queries a list of results, asked in one agreement.

        epsilon: of this run. accuracy: instead of it, for example "2 % of patients": the cheapest that keeps to it if
        patients are as `assumed`.
        again: with fresh noise, at a new charge, though it was answered before; otherwise that answer is looked up.
        Raises: StudyFileError, MisuseError, BudgetExceeded: before anything is asked; StudyStopped, Answered:
        what hubs and coordinator said; TimeoutError: after `timeout` seconds."""
        running = self.start(queries, epsilon=epsilon, accuracy=accuracy, again=again, assumed=assumed)
        if running.answered and progress is not False:
            gone = running.status().get("missing")
            without = f", without {', '.join(gone)}" if gone else ""
            print(f"{running.id} answered this before{without}; looking it up costs nothing. again=True asks anew.")
        running.results(timeout, progress)
        results = [query.results_ if query.per_hub else query.fitted for query in _several(queries)]
        return results[0] if isinstance(queries, Estimator) else results

    def start(
        self, queries: Asked, *, epsilon: float | None = None, accuracy: str | None = None, again: bool = False,
        assumed: Assumed = Assumed(),
    ) -> Running:  # fmt: skip
        """Propose, and return at once. Raises: as `run`, but for what happens later."""
        if accuracy is not None:
            epsilon = self.epsilon_for(queries, accuracy, assumed=assumed)
        budget = self._budget()
        made = draft(self.terms, _several(queries), epsilon, budget)
        agreement = self._agreement(made)
        known = None if again else self._known(agreement)
        if known is not None:
            state = self.place.status(known.study)["state"]
            return Running(self.place, known, state == "finished", _hand_out(made))
        self._require_room(agreement, budget)
        self.place.prepare(agreement)
        self.place.propose(agreement)
        return Running(self.place, agreement, then=_hand_out(made))

    async def arun(self, queries: Asked, **options: Any) -> Any:
        """`run`, awaited."""
        return await asyncio.to_thread(lambda: self.run(queries, **{"progress": False, **options}))

    def attach(self, run: str) -> Running:
        """A run of this study, by its name. Raises: MisuseError: no such run was proposed from here."""
        return attached(self.place, run)

    # --- before asking -------------------------------------------------------------------------------

    def preview(self, queries: Asked, *, epsilon: float | None = None, assumed: Assumed = Assumed()) -> Foresight:
        """The error that each number will have, from public facts and what is `assumed` of the patients; no hub is
        asked and nothing is spent. Raises: MisuseError: an exact study. StudyFileError."""
        budget = self._budget()
        agreement = self._agreement(draft(self.terms, _several(queries), epsilon, budget))
        with waiting(TRYING):
            return foresee(agreement, assumed, budget)

    def epsilon_for(self, query: Asked, accuracy: str, *, what: str = "*", assumed: Assumed = Assumed()) -> float:
        """The smallest epsilon of a run at which the first query is so accurate: "2 % of patients", or a number in
        the unit of what is asked. what: which of its numbers. Raises: MisuseError: none up to 100 does."""
        budget = self._budget()
        made = draft(self.terms, _several(query), 1.0, budget)
        agreement = self._agreement(made)
        with waiting(TRYING):
            return cheapest(agreement, agreement.questions[0].id, accuracy_of(accuracy, what), assumed).epsilon

    def to_agreement(self, queries: Asked, *, epsilon: float | None = None) -> Agreement:
        """The agreement that a run of these would be. Nothing is asked."""
        return self._agreement(draft(self.terms, _several(queries), epsilon, self._budget()))

    def to_yaml(self, queries: Asked | None = None, *, epsilon: float | None = None) -> str:
        """The study file that says the same: of the run that `queries` would be, or of the terms alone."""
        budget = self._budget()
        if queries is None:
            return Draft(self.terms, {}, {}, _whole(self.terms)).text(self.name, self._numbers)
        made = draft(self.terms, _several(queries), epsilon, budget)
        return made.text(self._next_name(), self._numbers)

    # --- what was asked ------------------------------------------------------------------------------

    @property
    def runs(self) -> dict[str, Agreement]:
        """Runs of this study that were proposed from here, in order."""
        numbered = re.compile(rf"{re.escape(self.name)}-(\d+)")
        found = {name: agreement for name, agreement in self.place.agreements().items() if numbered.fullmatch(name)}
        return dict(sorted(found.items(), key=lambda item: int(item[0].rpartition("-")[2])))

    @property
    def budget(self) -> StudyBudget:
        """What the study has, has spent and has left; and what the hubs' ledgers say, where they can be read."""
        return self._budget(told=True)

    def agreement(self, run: str | None = None) -> Agreed:
        """What a run was agreed on, as hubs' stewards read it: the signed document, checked. None: the latest run.

        Raises: MisuseError: no such run. BadSignature, Equivocation: it is not what was proposed from here."""
        runs = list(self.runs)
        if not runs:
            raise MisuseError(
                f"Nothing was proposed of study {self.name} yet, so nothing is agreed; to_yaml() shows its terms."
            )
        name = run or runs[-1]
        if name not in runs:
            raise MisuseError(f"Study {self.name} has no run {name!r} to show; its runs are {', '.join(runs)}.")
        return Agreed(self.place.document(name))

    @property
    def approvals(self) -> Approvals:
        """What each hub decided about each run, by its own signed word where it answers."""
        runs = tuple(self.runs)
        consents = {run: self.place.status(run)["consents"] for run in runs}
        return approvals(consents, self.place.accounts(runs, self.terms.dataset))

    def _budget(self, *, told: bool = False) -> StudyBudget:
        spent = [spending(agreement, self.place.status(name)) for name, agreement in self.runs.items()]
        accounts = tuple(self.place.accounts(tuple(self.runs), self.terms.dataset)) if told else ()
        return StudyBudget(self.terms.protection, tuple(s for s in spent if s is not None), accounts)

    def _known(self, agreement: Agreement) -> Agreement | None:
        """The latest run that asks the very same and was not stopped."""
        same = same_as(agreement)
        for name, other in reversed(self.runs.items()):
            if same_as(other) == same and self.place.status(name)["state"] != "stopped":
                return other
        return None

    def _agreement(self, made: Draft) -> Agreement:
        """Checked against all exact numbers of the study: what was answered can be looked up when none are left."""
        return made.agreement(self._next_name(), self._numbers, self.place.hubs)

    @property
    def _numbers(self) -> int:
        protection = self.terms.protection
        return protection.max_numbers if isinstance(protection, Exact) else 0

    def _next_name(self) -> str:
        taken, number = self.place.taken(), 1
        while f"{self.name}-{number}" in taken:
            number += 1
        return f"{self.name}-{number}"

    def _require_room(self, agreement: Agreement, budget: StudyBudget) -> None:
        """Raises: BudgetExceeded: this study's own sum; the hubs' ledgers are asked by the hubs."""
        protection = self.terms.protection
        if isinstance(protection, Exact):
            wanted_numbers = checked_agreement(write_agreement(agreement)).numbers
            if wanted_numbers > budget.numbers_left:
                raise BudgetExceeded(
                    f"This run may open {wanted_numbers:,} exact numbers; {budget.numbers_left:,} are left of the "
                    f"study's {protection.max_numbers:,}. Ask for less, or make a study with a larger flute.Exact."
                )
            return
        wanted = budget_of(agreement.epsilon, agreement.delta)[0]
        if budget.rho_spent + budget.rho_reserved + wanted > budget.rho * _ROOM:
            raise BudgetExceeded(
                f"This run would spend epsilon {agreement.epsilon:g}; {budget.left:.3g} are left of the study's "
                f"{protection.epsilon:g}. Ask for less, or make a study with a larger budget, "
                "about which the hubs decide."
            )

    # --- shown ---------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<study {self.name} at {', '.join(self.terms.hubs)}: {self._budget()!r}>"

    def _repr_html_(self) -> str:
        rows = [(name, a.epsilon or "exact", ", ".join(q.id for q in a.questions), self.place.status(name)["state"])
                for name, a in self.runs.items()]  # fmt: skip
        return page(
            heading(self.terms.title),
            simulated() if self.terms.simulated else "",
            words(self.terms.purpose),
            words(f"{self.place.name}; hubs {', '.join(self.terms.hubs)}; plan {self.terms.plan['name']}"),
            table(("run", "epsilon", "questions", "state"), rows) if rows else words("Nothing was asked yet."),
            words(self._budget().sentence, quiet=True),
        )


def attached(place: Place, run: str) -> Running:
    """Raises: MisuseError: no such run was proposed from here."""
    known = place.agreements()
    if run not in known:
        there = f"there are {', '.join(sorted(known))}" if known else "none was proposed from here"
        raise MisuseError(f"There is no run {run!r}; {there}.")
    return Running(place, known[run], place.status(run)["state"] == "finished")


def _several(queries: Asked) -> list[Estimator]:
    return [queries] if isinstance(queries, Estimator) else list(queries)


def _whole(terms: Terms) -> float:
    return terms.protection.epsilon if isinstance(terms.protection, Budget) else 0.0


def _hand_out(made: Draft) -> Any:
    """Gives every estimator what came of its own question."""

    def take(results: Results) -> None:
        for name, query in made.queries.items():
            query.take({reference: one for reference, one in results.items() if one.question == name})

    return take
