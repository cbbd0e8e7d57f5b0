"""The hub's catalogue: what it releases about a dataset under noise, and the entry that it makes of that.

A release is the question `describe`, put by the hub to its own frozen snapshot and answered under its own noise
alone. It is paid for like any other: by the dataset's persons, under a ceiling of its own.

 1 asked     visible variables of the frozen snapshot, epsilon, bins: nothing that depends on a record
 2 priced    `study.protection`, one hub, no colluders
 3 reserved  on disk, under the catalogue's ceiling and the dataset's own (`ledger.budgets.budget`)
 4 read      only those columns; journaled first
 5 covered   clipped, summed, fresh noise
 6 kept      the noised sum is on disk before anyone sees it; then the charge is settled
The same snapshot and parameters again give the kept numbers and cost nothing. A charge that was interrupted
between 3 and 6 stands; asking again is a new charge.

The budget is not divided: all variables are one vector, so that one patient's whole row is bounded by one norm
and every number carries the same noise.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Describe, Finished, Opened, StudyVariable
from flute.catalogue.entry import Entry
from flute.catalogue.file import entry_variables, read_declaration
from flute.catalogue.statistics import Statistics, figures, persons
from flute.conformance.model import Coding
from flute.data.source import RecordSource
from flute.data.variables import Variable
from flute.defaults.records import CATALOGUE_BINS
from flute.errors import NotPossible, StudyFileError
from flute.homes import private_folder, write_private
from flute.hub.parts import OWN_STUDIES, Parts
from flute.hub.store import DatasetEntry, HubPolicy
from flute.ledger.budgets.budget import Ceiling, Charge, Level, Reservation
from flute.ledger.budgets.budget import Policy as BudgetPolicy
from flute.ledger.lines.entries import PersonAct, RecordSourceOpened
from flute.primitives.keys import digest
from flute.questions.registry import algorithm_for
from flute.study.agreement import VERSION, Agreement, PlanChoice, Question, write_agreement
from flute.study.protection import RAND_SIZE, Price, budget_of, cover, epsilon_at, prices, uncover

FOLDER: Final = "catalogue"
QUESTION: Final = "description"
_RELEASE: Final = b"flute/catalogue/v1"
_MAX_VARIABLES: Final = 64
"""As many as one question `describe` takes."""


def catalogue_study(dataset: str) -> str:
    """The name under which a dataset's catalogue releases are charged: an account of its own for every dataset.

    No study of a researcher may have a name that begins with `catalogue-`."""
    plain = re.sub(r"[^a-z0-9-]", "-", dataset.lower())[:32]
    return (
        f"{OWN_STUDIES}{plain}" if plain == dataset else f"{OWN_STUDIES}{plain}-{digest(dataset.encode()).hex()[:8]}"
    )


def catalogue_epsilon(policy: HubPolicy) -> float:
    """The owner's ceiling for all catalogue releases of one dataset together."""
    return policy.epsilon_catalogue


@dataclass(frozen=True, slots=True)
class _Asked:
    """A release before it is charged. `agreement` is the hub's with itself; it is never sent or signed."""

    dataset: DatasetEntry
    agreement: Agreement
    question: Question
    price: Price

    @property
    def spec(self) -> Describe:
        assert isinstance(self.question.what, Describe)
        return self.question.what

    @property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(v.variable for v in self.agreement.variables)

    def charge(self, hub: str, attempt: int) -> Charge:
        return Charge(
            release_id=digest(
                _RELEASE, write_agreement(self.agreement), self.dataset.snapshot, attempt.to_bytes(4, "big")
            ),
            study=self.agreement.study,
            question=self.question.id,
            step=0,
            asker=hub,
            mode="private",
            rho=self.price.rho,
            delta=self.price.delta,
            numbers=0,
            plan=self.agreement.plan.name,
            persons=self.dataset.name,
            snapshot=self.dataset.snapshot,
        )


class Catalogue:
    """Shares the service's lock. `folder`: the hub's; declarations and released statistics lie in `catalogue/`."""

    def __init__(self, parts: Parts, lock: threading.RLock, folder: Path) -> None:
        self._p = parts
        self._lock = lock
        self._folder = folder / FOLDER

    # --- what the steward declares ------------------------------------------------------------------

    def declare(self, dataset: str, text: str, *, person: str) -> None:
        """Keep the entry's file of a dataset. Raises: StudyFileError: with a line. NotPossible: no such dataset."""
        with self._lock:
            held = self._p.store.dataset(dataset)
            declared, lines = read_declaration(text, path=f"{dataset}.yaml")
            if declared.dataset != dataset:
                raise StudyFileError(
                    f"dataset is {declared.dataset!r}, and this is the entry of {dataset}; correct the name.",
                    line=lines.get(("dataset",), 0),
                    path=f"{dataset}.yaml",
                )
            entry_variables(declared, held.variables, lines, path=f"{dataset}.yaml", codes={})
            write_private(private_folder(self._folder) / f"{dataset}.yaml", text.encode())
            self._p.journal.append(PersonAct(person, "catalogue-declared", dataset), self._p.now())

    def entry(self, dataset: str, codes: Mapping[str, tuple[Coding, ...]] | None = None) -> Entry:
        """The entry as it stands. Statistics of an earlier snapshot are not shown as this one's.

        Raises: NotPossible: no such dataset, or its steward has declared nothing yet."""
        held = self._p.store.dataset(dataset)
        path = self._folder / f"{dataset}.yaml"
        if not self.is_declared(dataset):
            raise NotPossible(
                f"Dataset {dataset} has no entry yet: write its file (docs/how-to/catalogue.md) and give it."
            )
        declared, lines = read_declaration(path.read_text(encoding="utf-8"), path=path.name)
        shown = self._visible(held)
        hidden = set(declared.variables) - {v.name for v in shown}
        declared = msgspec.structs.replace(
            declared, variables={n: d for n, d in declared.variables.items() if n not in hidden}
        )
        imported = datetime.fromtimestamp(held.imported_at, UTC).date()
        variables = entry_variables(declared, shown, lines, path=path.name, codes=codes or {})
        return Entry(declared, variables, held.snapshot.hex(), imported, held.simulated, self._current(held))

    # --- what the hub releases ----------------------------------------------------------------------

    def released(self, dataset: str) -> Statistics | None:
        """The newest release, of whatever snapshot it was. Costs nothing."""
        path = self._folder / f"{dataset}.json"
        return msgspec.json.decode(path.read_bytes(), type=Statistics) if path.is_file() else None

    def release(
        self,
        dataset: str,
        *,
        epsilon: float,
        person: str,
        bins: int = CATALOGUE_BINS,
        variables: Sequence[str] = (),
    ) -> Statistics:
        """Statistics of the dataset's snapshot under noise, charged once. `variables`: all visible ones where none is
        named.

        Raises: BudgetExceeded: the catalogue's ceiling, or the dataset's. NotPossible: no such dataset, nothing
          visible in it, or an epsilon too small for so many numbers. SourceError: the snapshot cannot be read.
        """
        with self._lock:
            asked = self._asked(dataset, epsilon, bins, tuple(variables))
            kept = self._current(asked.dataset)
            if kept is not None and self._same(kept, asked):
                return kept
            self._p.journal.append(
                PersonAct(person, "catalogue-release", f"{dataset} at epsilon {epsilon:g}", asked.agreement.study),
                self._p.now(),
            )
            reservation, total = self._paid(asked)
            statistics = self._statistics(asked, reservation, total)
            encoded = msgspec.json.format(msgspec.json.encode(statistics))
            write_private(private_folder(self._folder) / f"{dataset}.json", encoded)
            return statistics

    def is_declared(self, dataset: str) -> bool:
        return (self._folder / f"{dataset}.yaml").is_file()

    def is_current(self, dataset: str, released: Statistics) -> bool:
        """Whether a release is of the snapshot that the dataset has now."""
        return released.snapshot == self._p.store.dataset(dataset).snapshot.hex()

    def budget(self, dataset: str) -> dict[str, Any]:
        """What the catalogue may spend on a dataset, what it has, what is left: as rho, and as epsilon."""
        held, policy = self._p.store.dataset(dataset), self._p.store.policy()
        account = self._p.ledger.account(Level.STUDY, catalogue_study(held.name), self._ceilings(held.name))
        spent = account.reserved + account.settled
        so_far, whole = (epsilon_at(rho, policy.delta) for rho in (spent, spent + account.left))
        return {
            "dataset": held.name,
            "ceiling_epsilon": catalogue_epsilon(policy),
            "delta": policy.delta,
            "rho_spent": spent,
            "rho_left": account.left,
            "epsilon_spent": so_far,
            "epsilon_left": max(whole - so_far, 0.0),
        }

    # --- steps --------------------------------------------------------------------------------------

    def _visible(self, held: DatasetEntry) -> tuple[Variable, ...]:
        hidden = set(self._p.store.policy().hidden)
        return tuple(v for v in held.variables if v.name not in hidden)

    def _chosen(self, held: DatasetEntry, names: tuple[str, ...]) -> tuple[Variable, ...]:
        shown = {v.name: v for v in self._visible(held)}
        absent = [name for name in names if name not in shown]
        if absent:
            raise NotPossible(f"Dataset {held.name} shows no variable {absent[0]!r}; it shows {', '.join(shown)}.")
        images = [name for name in names if shown[name].kind == "image"]
        if images:
            raise NotPossible(f"{images[0]} is an image, and a description is of numbers and levels; leave it out.")
        described = tuple(v for v in shown.values() if v.kind != "image")
        chosen = tuple(shown[name] for name in dict.fromkeys(names)) or described
        if not chosen:
            raise NotPossible(f"Dataset {held.name} shows no variable that can be described; there is nothing to do.")
        if len(chosen) > _MAX_VARIABLES:
            raise NotPossible(
                f"Dataset {held.name} shows {len(chosen)} variables, and one description takes {_MAX_VARIABLES}; "
                "name those that matter."
            )
        return chosen

    def _asked(self, dataset: str, epsilon: float, bins: int, names: tuple[str, ...]) -> _Asked:
        """Steps 1 and 2."""
        held = self._p.store.dataset(dataset)
        shown = self._chosen(held, names)
        question = Question(QUESTION, Describe(tuple(v.name for v in shown), bins), "each", 1.0)
        agreement = Agreement(
            version=VERSION,
            study=catalogue_study(dataset),
            title="Catalogue entry",
            purpose="Descriptive statistics for the catalogue.",
            researcher=self._p.me,
            hubs=(self._p.me,),
            conditions={},
            starts=0,
            ends=0,
            dataset=dataset,
            missing="drop",
            variables=tuple(StudyVariable(v) for v in shown),
            plan=PlanChoice("own", 0),
            mode="private",
            epsilon=float(epsilon),
            delta=self._p.store.policy().delta,
            max_numbers=0,
            questions=(question,),
            code=bytes(32),
            guarantees=bytes(32),  # no other party takes part
            simulated=held.simulated,
        )
        try:
            algorithm_for(question.what).check(question.what, agreement.setting)
            return _Asked(held, agreement, question, prices(agreement, question)[0])
        except StudyFileError as error:
            raise NotPossible(f"The catalogue cannot describe dataset {dataset} so: {error.text}") from error

    def _ceilings(self, dataset: str) -> tuple[Ceiling, ...]:
        policy = self._p.store.policy()
        rho, delta = budget_of(catalogue_epsilon(policy), policy.delta)
        return (Ceiling(Level.STUDY, BudgetPolicy(rho=rho, delta=delta), of=catalogue_study(dataset)),)

    def _paid(self, asked: _Asked) -> tuple[Reservation, NDArray[np.int64]]:
        """Steps 3 to 6, or the sum that was kept when they were done before."""
        for charge in self._attempts(asked):
            known = self._p.ledger.find(charge.release_id)
            if known is None:
                source = self._p.sources(asked.dataset.snapshot)  # nothing to read: nothing is charged
                reservation = self._p.ledger.reserve(charge, self._ceilings(asked.dataset.name), now=self._p.now())
                return reservation, self._answered(asked, reservation, source)
            kept = self._p.store.own_answer(charge.release_id)
            if kept is not None:
                return known, np.frombuffer(kept, dtype="<i8").astype(np.int64)
            if self._p.ledger.outcome(charge.release_id) is None:
                self._p.ledger.settle(known, "aborted", self._p.now())
        raise AssertionError("there is always another attempt")

    def _attempts(self, asked: _Asked) -> Iterator[Charge]:
        attempt = 0
        while True:
            yield asked.charge(self._p.me, attempt)
            attempt += 1

    def _answered(self, asked: _Asked, reservation: Reservation, source: RecordSource) -> NDArray[np.int64]:
        reservation.require_fresh()
        study, names = asked.agreement.study, tuple(v.name for v in asked.variables)
        self._p.journal.append(
            RecordSourceOpened(study, QUESTION, reservation.release_id, asked.dataset.snapshot, names), self._p.now()
        )
        data = source.open(asked.variables)
        algorithm = algorithm_for(asked.question.what)
        updates = algorithm.update(asked.question.what, asked.agreement.setting, 0, np.zeros(0), data)
        total = cover(updates, asked.price, hubs=1, rand=self._p.entropy(RAND_SIZE))
        self._p.store.keep_own_answer(reservation.release_id, total.astype("<i8").tobytes())
        self._p.ledger.settle(reservation, "released", self._p.now())
        return total

    def _statistics(self, asked: _Asked, reservation: Reservation, total: NDArray[np.int64]) -> Statistics:
        values, sigma = uncover(total, asked.price)
        setting, spec = asked.agreement.setting, asked.spec
        done = algorithm_for(spec).next(spec, setting, (Opened((), values, sigma),), {})
        assert isinstance(done, Finished)
        described = done.result["variables"]
        return Statistics(
            dataset=asked.dataset.name,
            snapshot=asked.dataset.snapshot.hex(),
            at=self._p.now(),
            epsilon=asked.agreement.epsilon,
            delta=asked.agreement.delta,
            rho=asked.price.rho,
            line=reservation.position.line,
            bins=spec.bins,
            persons=persons(asked.variables, values, sigma, spec.bins),
            variables=tuple(figures(v, described[v.name], spec.bins) for v in asked.variables),
            simulated=asked.dataset.simulated,
        )

    def _current(self, held: DatasetEntry) -> Statistics | None:
        """What was released of the snapshot that the dataset has now, less what is hidden since."""
        found = self.released(held.name)
        if found is None or found.snapshot != held.snapshot.hex():
            return None
        shown = {v.name for v in self._visible(held)}
        return msgspec.structs.replace(found, variables=tuple(f for f in found.variables if f.name in shown))

    def _same(self, kept: Statistics, asked: _Asked) -> bool:
        return (kept.epsilon, kept.delta, kept.bins, tuple(f.name for f in kept.variables)) == (
            asked.agreement.epsilon, asked.agreement.delta, asked.spec.bins, tuple(v.name for v in asked.variables),
        )  # fmt: skip
