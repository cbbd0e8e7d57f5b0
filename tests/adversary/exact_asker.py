"""A researcher who asks exact questions by the thousand, and hubs that answer as the real ones do.

Every study is judged by each hub as at its consent (`hub.rounds.round.floor_holds`), every opened vector is charged
to each hub's real ledger, under the ceilings that its policy makes; only what all hubs answer is summed and seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from flute.algorithms.contract import Ask, Opened, Spec, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.errors import BudgetExceeded
from flute.hub.rounds.gate import hub_ceilings, study_ceilings
from flute.hub.rounds.round import floor_holds
from flute.hub.store import HubPolicy
from flute.ledger.budgets.budget import Charge, Ledger
from flute.ledger.journals.journal import Journal
from flute.primitives.keys import digest
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question
from flute.study.exact_rule import FEWEST, counts_of_few
from flute.study.files.check import check_study
from flute.study.protection import exact_sum
from support.parties import Party
from support.studies import EXACT, study

HUBS = ("north", "south", "west")


@dataclass
class Asked:
    """What the researcher has in the end. answers: opened first sums by question. refused: studies that a hub would
    not answer exactly, by its floor; capped: that the ledger ended. questions: all that were put."""

    answers: dict[str, Array] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    capped: int = 0
    questions: int = 0
    opened: int = 0


class ExactHubs:
    """Three hubs over fixed records. Close after use.

    together: all exact studies over the records are judged together, and the first refusal is the last look."""

    def __init__(self, folder: Path, records: Sequence[Dataset], policy: HubPolicy, *, together: bool = True) -> None:
        self.records, self.policy, self.together = dict(zip(HUBS, records, strict=True)), policy, together
        self.granted: dict[bytes, Agreement] = {}
        """By what was asked: the same questions again tell nothing more."""
        self.ended = False
        self.journals = {h: Journal.open(folder / f"{h}.db", Party(h).signing) for h in HUBS}
        self.ledgers = {h: Ledger(j, hub_ceilings(policy)) for h, j in self.journals.items()}

    def close(self) -> None:
        for journal in self.journals.values():
            journal.close()

    def ask(self, agreement: Agreement, asked: Asked, *, names: bool = True) -> None:
        """One study, all its questions, first steps only: what follows is a function of what they open."""
        asked.questions += len(agreement.questions)
        if not self._held(agreement):
            asked.refused.append(agreement.study)
            return
        self.granted[_asked(agreement)] = agreement
        for question in agreement.questions:
            total = self._answered(agreement, question)
            if total is None:
                asked.capped += 1
                continue
            asked.answers[f"{agreement.study}/{question.id}" if names else question.id] = total
            asked.opened += total.size

    def _held(self, agreement: Agreement) -> bool:
        if self.together and self.ended:
            return False
        distinct = tuple({q.what: q for q in agreement.questions}.values())  # the same question has the same counts
        once = msgspec.structs.replace(agreement, questions=distinct)
        floors = [floor_holds(once, data, self.policy.floor) for data in self.records.values()]
        few = [self.together and self._few(agreement, data) for data in self.records.values()]
        self.ended = not all(floors) or any(few)
        return not self.ended

    def _few(self, agreement: Agreement, data: Dataset) -> bool:
        known = _asked(agreement) in self.granted
        return not known and counts_of_few([*self.granted.values(), agreement], data, min(FEWEST, self.policy.floor))

    def _answered(self, agreement: Agreement, question: Question) -> Array | None:
        algorithm = algorithm_for(question.what)
        asked = algorithm.next(question.what, agreement.setting, (), {})
        assert isinstance(asked, Ask)
        size = algorithm.outline(question.what, agreement.setting)[0].size
        try:
            for ledger in self.ledgers.values():
                ledger.reserve(_charge(agreement, question, size), study_ceilings(agreement), now=1)
        except BudgetExceeded:
            return None
        rows = [
            algorithm.update(question.what, agreement.setting, 0, asked.parameters, d) for d in self.records.values()
        ]
        return Opened((), np.sum([exact_sum(r) for r in rows], axis=0), 0.0).total


def _asked(agreement: Agreement) -> bytes:
    return msgspec.msgpack.encode(sorted({msgspec.msgpack.encode(q.what) for q in agreement.questions}))


def _charge(agreement: Agreement, question: Question, numbers: int) -> Charge:
    name = f"{agreement.study}/{question.id}".encode()
    return Charge(
        release_id=digest(b"exact", name), study=agreement.study, question=question.id, step=0, asker="ada",
        mode="exact", rho=0.0, delta=0.0, numbers=numbers, plan="secagg", persons="records", snapshot=bytes(32),
    )  # fmt: skip


def exact_study(
    name: str, variables: Sequence[StudyVariable], questions: Mapping[str, Spec], **changed: Any
) -> Agreement:
    """Checked as every hub checks it. Raises: StudyFileError."""
    agreement = msgspec.structs.replace(
        study(EXACT), study=name, variables=tuple(variables), max_numbers=1_000_000,
        questions=tuple(Question(k, what) for k, what in questions.items()), **changed,
    )  # fmt: skip
    check_study(agreement)
    return agreement


def renamed(agreement: Agreement, name: str, questions: Mapping[str, Spec]) -> Agreement:
    """Another study over the same variables, which differs in what was not checked: its questions are of one kind."""
    asked = tuple(Question(k, what) for k, what in questions.items())
    return msgspec.structs.replace(agreement, study=name, questions=asked)


def number(name: str, low: float = 0, high: float = 100) -> StudyVariable:
    return StudyVariable(Variable(name, "number", low, high), scale="none")


def binary(name: str) -> StudyVariable:
    return StudyVariable(Variable(name, "binary"))
