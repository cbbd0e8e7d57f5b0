"""`check_algorithm`: everything that is looked at, in order. The first thing found is raised.

  statement     a whole privacy statement; questions of their own kind that can travel
  example       the algorithm accepts the example
  outline       public: steps, sizes, bounds, the same before and after patients were read
  fields        a step reads the declared fields, no others
  shape         one row per patient and as many columns as agreed
  hostile       no value makes a step fail or give numbers that are not finite
  determinism   the same bytes when it is called again; no chance of its own
  row-order     a row does not depend on its place
  own-row       a row depends on its own patient alone
  sensitivity   private: one patient with declared values moves the sum by at most the clip norm
  bounds        private: so does one with any values, whatever the coordinator asks with
  magnitude     exact: no coordinate is beyond what fixed point has room for
  empty-hub     a hub without patients answers
  blocks        private: blocks of rows are the rows
  total         exact: a hub's total is the sum of its rows, within what its patients could come to
  parameters    wrong ones are refused
  cells         exact: counts for the disclosure floor
  ending        it comes to a result within its outline
  result        plain JSON, nothing of single patients, no longer for more of them
  replay        `next` keeps nothing between calls
  splits        pooled, three hubs, ten hubs: the same result
  dropout       without one hub: what the others have
  nobody        no patient at all, or noise that drowns all: still a result
  plans         every plan that offers what it needs carries it
  duration      no longer on strange values
  program       on shares: all hubs open the same agreed numbers
  inputs        own code in the sandbox: a row of its own for every patient, and a result of whatever comes out

What it cannot show: that the statistic is the right one (compare it with a known implementation in tests of your
own), that a bound holds everywhere (it searches, it proves nothing), or what a step leaks by its timing below some
tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from flute.algorithms.contract import Algorithm, JointAlgorithm, OwnCode
from flute.questions.registry import Registration
from flute.testing import answers, own, rows, shares, totals
from flute.testing.course import Trial
from flute.testing.example import Example

Check = Callable[[Trial], None]

_FIRST: Final[Mapping[str, Check]] = {"statement": answers.statement, "example": answers.example}
_SUMS: Final[Mapping[str, Check]] = {
    "outline": answers.outline,
    "fields": rows.fields,
    "shape": rows.shape,
    "hostile": rows.hostile,
    "determinism": rows.determinism,
    "row-order": rows.row_order,
    "own-row": rows.own_row,
    "sensitivity": rows.sensitivity,
    "bounds": rows.bounds,
    "magnitude": rows.magnitude,
    "empty-hub": rows.empty_hub,
    "blocks": totals.blocks,
    "total": totals.total,
    "parameters": rows.parameters,
    "cells": rows.cells,
    "ending": answers.ending,
    "result": answers.result,
    "replay": answers.replay,
    "splits": answers.splits,
    "dropout": answers.dropout,
    "nobody": answers.nobody,
    "plans": answers.plans,
    "duration": rows.duration,
}
_SHARES: Final[Mapping[str, Check]] = {
    "outline": answers.outline,
    "fields": rows.fields,
    "cells": rows.cells,
    "program": shares.program,
}
_OWN_CODE: Final[Mapping[str, Check]] = {
    "outline": answers.outline,
    "fields": rows.fields,
    "cells": rows.cells,
    "inputs": own.inputs,
}
CHECKS: Final[Mapping[str, Check]] = MappingProxyType({**_FIRST, **_SUMS, **_SHARES, **_OWN_CODE})
"""All of them by name."""


def check_algorithm(registration: Registration, example: Example, *, seed: bytes = b"flute/testing") -> None:
    """Try an algorithm against everything that hubs, coordinators and hospitals rely on.

    Call it from a test, once per kind of question that the algorithm can be asked. The seed fixes the patients and
    every search, so that a failure comes again.
    Raises: NotConforming: names the check, what was found and what to change.
    """
    for mode in example.modes:
        trial = Trial(registration, example, mode, seed)
        for check in _FIRST.values():
            check(trial)
        checks = _checks_for(registration.algorithm)
        if checks is _SUMS:
            trial.begin()
        for check in checks.values():
            check(trial)


def _checks_for(algorithm: Algorithm) -> Mapping[str, Check]:
    if isinstance(algorithm, JointAlgorithm):
        return _SHARES
    return _OWN_CODE if isinstance(algorithm, OwnCode) else _SUMS
