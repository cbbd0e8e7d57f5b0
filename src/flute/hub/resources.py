"""What a question needs of this hub besides records: a sandbox for a researcher's own code, packages for networks.

Looked at before a study is granted, and again before each question is charged.
"""

from __future__ import annotations

from flute.algorithms.contract import NeedsParts, Setting
from flute.errors import NotPossible
from flute.hub.own_code import require_own_resources, require_own_runs
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question


def require_runs(agreement: Agreement) -> None:
    """Before a study is granted. Reads no record.

    Raises: NotPossible: a package or the sandbox is not here, or own code failed on invented rows: where and why."""
    for question in agreement.questions:
        _require_parts(question)
    require_own_runs(agreement)


def require_resources(question: Question, setting: Setting) -> None:
    """Before anything is charged: what the question needs at least is there now.

    Raises: NotPossible: a package is not. SandboxRefusal: of what own code needs there is too little."""
    _require_parts(question)
    require_own_resources(question, setting)


def _require_parts(question: Question) -> None:
    algorithm = algorithm_for(question.what)
    if not isinstance(algorithm, NeedsParts):
        return
    try:
        algorithm.require_parts(question.what)
    except NotPossible as refusal:
        raise NotPossible(f"{question.id}: {refusal.text}") from refusal
