"""A researcher's own code at this hub: whether it may run, what a steward is shown of it, and its run.

    granting: the owner allows such code -> there is a sandbox -> a trial on invented rows did not fail
Everything that may fail for the code's own reasons fails there, before a record is read, and is told in words. What
fails on patients' records later counts as zero under full noise, and shows in this hub's log alone.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np

from flute.algorithms.contract import OwnCode, Setting
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.errors import CodeNotApproved, NotPossible, SandboxRefusal
from flute.questions.registry import algorithm_for
from flute.sandbox.limits import Limits, Span, admit, offer_of_machine
from flute.sandbox.machine import available
from flute.sandbox.review import review
from flute.sandbox.run import Failure, Inputs, Output, Step, run
from flute.study.agreement import Agreement, Question

LOG = logging.getLogger("flute.hub")
_TRIAL_ROWS = 8
_STRIDE = 0.6180339887498949
"""Of the golden ratio: multiples of it fill [0, 1] evenly."""


def asks_own_code(agreement: Agreement) -> bool:
    return bool(_own(agreement))


def require_allowed(agreement: Agreement, *, allowed: bool, me: str) -> None:
    """Raises: CodeNotApproved: this hub's owner does not let researchers' own code run."""
    if asks_own_code(agreement) and not allowed:
        raise CodeNotApproved(
            f"{me} does not run researchers' own code; its owner can allow it (flute hub policy --own-code), or the "
            "study can do without."
        )


def require_own_runs(agreement: Agreement) -> None:
    """Before a study is granted. Reads no record.

    Raises: NotPossible: no sandbox here, or the trial failed: where and why."""
    for question, algorithm in _own(agreement):
        try:
            available().require()
            _require_trial(algorithm, question, agreement.setting)
        except SandboxRefusal as refusal:
            raise NotPossible(f"{question.id}: {refusal.text}") from refusal


def require_own_resources(question: Question, setting: Setting) -> None:
    """Before anything is charged: what the code needs at least is there now.

    Raises: SandboxRefusal: of what there is too little."""
    algorithm = algorithm_for(question.what)
    if isinstance(algorithm, OwnCode):
        available().require()
        admit(_limits(algorithm, question, setting), offer_of_machine())


def _require_trial(algorithm: OwnCode, question: Question, setting: Setting) -> None:
    tried = trial(algorithm, question, setting, invented(algorithm, question, setting))
    if tried.failures:
        raise NotPossible(
            f"{question.id}: on invented rows the code fails ({told(tried.failures[0])}). Nothing was read. Its "
            "researcher can try it beforehand in a notebook: OwnStep(...).try_out(study)."
        )


def trial(algorithm: OwnCode, question: Question, setting: Setting, rows: Dataset) -> Output:
    """A run on rows that are nobody's, as fast as it goes: there, time tells nothing. Raises: SandboxRefusal."""
    return _run(algorithm, question, setting, rows, paced=False)


def told(failure: Failure) -> str:
    """Class of error and line of the code: for rows that are nobody's only."""
    where = f" in its line {failure.line}" if failure.line else ""
    return f"{failure.error_class or failure.reason}{where}"


def invented(algorithm: OwnCode, question: Question, setting: Setting) -> Dataset:
    """Rows that are nobody's: even over every declared range and level, the last one all missing."""
    used = [setting.variables[name].variable for name in algorithm.fields(question.what, setting)]
    columns = {v.name: _spread(v, k) for k, v in enumerate(used)}
    return Dataset(np.array([f"invented-{k}" for k in range(_TRIAL_ROWS)]), columns, used)


def _spread(variable: Variable, shift: int) -> Array:
    part = (np.arange(_TRIAL_ROWS) * _STRIDE + shift / np.pi) % 1.0
    part[:2] = 0.0, 1.0
    if variable.kind == "number":
        values = variable.low + part * (variable.high - variable.low)
    else:
        values = np.rint(part * (max(len(variable.levels), 2) - 1))
    values[-1] = np.nan
    return np.asarray(values, dtype=np.float64)


def own_rows(algorithm: OwnCode, question: Question, setting: Setting, data: Dataset, stop: threading.Event) -> Array:
    """Per-patient rows [n, outputs] for the cover; zero for a patient on whom the code failed.

    Returns when the agreed time is over, whatever the code did. Raises: SandboxRefusal: nothing was run.
    ProtocolAbortedError: the study was stopped meanwhile."""
    output = _run(algorithm, question, setting, data, stop=stop)
    if output.failures:
        LOG.warning("own code of %s failed on %d patients; they count as zero", question.id, len(output.failures))
        for failure in output.failures[:5]:
            LOG.warning("%s: %s %s, line %d", question.id, failure.reason, failure.error_class, failure.line)
    if output.log:
        LOG.info("own code of %s printed: %s", question.id, output.log)
    return output.values


def shown(agreement: Agreement) -> list[dict[str, Any]]:
    """What a steward reads of own code before deciding: the code itself, and what a reviewer would look at."""
    return [
        {
            "question": question.id,
            "code": algorithm.request(question.what, agreement.setting).code.decode(),
            "findings": [
                {"line": f.line, "rule": f.rule, "text": f.text}
                for f in review(algorithm.request(question.what, agreement.setting).code)
            ],
        }
        for question, algorithm in _own(agreement)
    ]


def _own(agreement: Agreement) -> list[tuple[Question, OwnCode]]:
    found = [(q, algorithm_for(q.what)) for q in agreement.questions]
    return [(q, a) for q, a in found if isinstance(a, OwnCode)]


def _limits(algorithm: OwnCode, question: Question, setting: Setting, *, paced: bool = True) -> Limits:
    asked = algorithm.request(question.what, setting)
    time = Span(asked.seconds, asked.seconds)
    units = setting.max_patients if paced else _TRIAL_ROWS
    return Limits(Span(*asked.memory_bytes), Span(0, asked.seconds), time, units, constant_time=paced)


def _run(
    algorithm: OwnCode, question: Question, setting: Setting, data: Dataset, *, paced: bool = True,
    stop: threading.Event | None = None,
) -> Output:  # fmt: skip
    asked = algorithm.request(question.what, setting)
    inputs = Inputs(algorithm.inputs(question.what, setting, data), {"parameters": asked.parameters})
    limits = _limits(algorithm, question, setting, paced=paced)
    return run(Step("source", asked.code, asked.outputs), inputs, limits, stop=stop)
