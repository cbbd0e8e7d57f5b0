"""What all exact questions over one dataset tell together: can any count of theirs be about very few patients?

Each question may keep to the floor and two of them still differ by one patient: a model of those who have `a` and one
of those who have `a` and `b`, if one patient lacks b; histograms of one variable with 9 and with 10 bins. So the hub
looks at all of them at once, with the rows it would add up, before it answers any.

Column j of M [n patients, k] says who is counted in the j-th count: one column per question for whom it leaves out
(their row is zero), and one for every 0/1 column of its first step (bins, levels, missing, persons). The leverage of
patient i is h_i = (M (M'M)^+ M')_ii.
    Claim: if h_i <= 1/t for all i, every combination of the columns that is 0 or 1 for each patient is 1 for none or
    for at least t of them. Proof: let A be those for whom it is 1, a = |A|, P the projection onto M's columns. P 1_A
    = 1_A, so a = 1_A' P 1_A = sum over i, j in A of P_ij <= a^2 max P_ij, and P_ij^2 <= h_i h_j <= 1/t^2: a >= t.
One yes or no for everything. It bounds counts, no other sums: means and a regression's products are numbers of many
patients that may be solved for few of them all the same, which only a cap on numbers limits. A network opens, every
round, the sum of what training came to at all hubs: mostly more numbers than there are patients. Nothing bounds what
may be worked out from these (single pictures have been brought back from gradients) but the owner's cap on numbers.
Its counts are looked at like all others, and nothing is trained for that (`HubTotals.counted`).
Sources: Hoaglin and Welsch 1978 (leverage); Chin and Ozsoyoglu 1982 (auditing of sums that are asked for); Geiping,
Bauermeister, Dröge, Moeller 2020 (pictures from gradients).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from flute.algorithms.contract import Ask, HubTotals, JointAlgorithm
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import MisuseError
from flute.primitives.keys import digest
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question

FEWEST: Final = 3
"""Patients that any count is of, whatever combination of counts it was worked out from. The floor of a single count
is another one, and larger."""
_RANK: Final = 1e-9
"""Of the largest eigenvalue: below it a column is a combination of others."""
_ROUNDING: Final = 1 + 1e-6


def counts_of_few(agreements: Sequence[Agreement], data: Dataset, fewest: int = FEWEST) -> bool:
    """Whether the exact studies' counts together may be worked out for fewer than `fewest` of these patients.

    `data`: all fields of all of them. Sufficient, not necessary: False is proved, True is a suspicion."""
    if len(data) == 0:
        return False
    asked = {_digest(a, q): (a, q) for a in agreements for q in a.questions}
    parts = [_counted(agreement, question, data) for agreement, question in asked.values()]
    return bool(np.max(_leverages(np.hstack(parts))) > _ROUNDING / fewest)


def _digest(agreement: Agreement, question: Question) -> bytes:
    """The same for questions that count the same persons: one that is asked again tells nothing more."""
    return digest(msgspec.msgpack.encode((question.what, agreement.missing, agreement.variables)))


def _counted(agreement: Agreement, question: Question, data: Dataset) -> Array:
    """[n, k] of 0 and 1: who is in the question, and who in each of its 0/1 columns."""
    algorithm = algorithm_for(question.what)
    if isinstance(algorithm, JointAlgorithm):  # nothing but its result is opened
        return np.zeros((len(data), 0))
    if isinstance(algorithm, HubTotals):
        return np.asarray(algorithm.counted(question.what, agreement.setting, data), dtype=np.float64)
    try:
        asked = algorithm.next(question.what, agreement.setting, (), {})
    except MisuseError:  # it waits for another question's result, which says who is in it
        return np.zeros((len(data), 0))
    rows = algorithm.update(
        question.what, agreement.setting, 0, asked.parameters if isinstance(asked, Ask) else np.zeros(0), data
    )
    counts = rows[:, np.all((rows == 0) | (rows == 1), axis=0)]
    return np.column_stack([np.any(rows != 0, axis=1), counts]).astype(np.float64)


def _leverages(m: Array) -> Array:
    """[n], each from 0 to 1."""
    values, vectors = np.linalg.eigh(m.T @ m)
    kept = values > _RANK * max(float(values[-1]), 1.0) if len(values) else np.zeros(0, dtype=np.bool_)
    across = (m @ vectors[:, kept]) / np.sqrt(values[kept])
    return np.asarray(np.sum(across**2, axis=1))
