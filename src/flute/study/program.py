"""The order of a study: which question is next, with which parameters, and what came out.

Pure functions over stored totals: a coordinator that was killed computes the very same next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flute.algorithms.contract import Ask, Finished, Opened
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question


@dataclass(frozen=True, slots=True)
class Track:
    """One question, asked of all hubs together (`party` "") or of one hub."""

    question: Question
    party: str

    @property
    def reference(self) -> str:
        """How results and evaluations name it: `model`, or `own@huvh`."""
        return f"{self.question.id}@{self.party}" if self.party else self.question.id


def tracks(agreement: Agreement) -> tuple[tuple[Track, ...], ...]:
    """Questions in the agreed order; the tracks of one question may run side by side."""
    return tuple(
        tuple(Track(q, hub) for hub in sorted(agreement.hubs)) if q.scope == "each" else (Track(q, ""),)
        for q in agreement.questions
    )


def next_step(
    agreement: Agreement, track: Track, history: Sequence[Opened], results: Mapping[str, dict[str, Any]]
) -> Ask | Finished:
    what = track.question.what
    return algorithm_for(what).next(what, agreement.setting, history, results)
