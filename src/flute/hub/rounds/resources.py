"""What a question needs of this hub besides records: a sandbox for a researcher's own code, packages for networks.

Looked at before a study is granted, and again before each question is charged. An evaluation needs what the models
that it scores need.
"""

from __future__ import annotations

from flute.algorithms.contract import Evaluate, NeedsParts, Setting, Spec
from flute.errors import NotPossible
from flute.hub.rounds.own_code import require_own_resources, require_own_runs
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question


def require_runs(agreement: Agreement) -> None:
    """Before a study is granted. Reads no record.

    Raises: NotPossible: a package or the sandbox is not here, or own code failed on invented rows: where and why."""
    for question in agreement.questions:
        _require_parts(question, agreement.setting)
    require_own_runs(agreement)


def require_resources(question: Question, setting: Setting) -> None:
    """Before anything is charged: what the question needs at least is there now.

    Raises: NotPossible: a package is not. SandboxRefusal: of what own code needs there is too little."""
    _require_parts(question, setting)
    require_own_resources(question, setting)


def _require_parts(question: Question, setting: Setting) -> None:
    for spec in (question.what, *_scored(question.what, setting)):
        algorithm = algorithm_for(spec)
        if not isinstance(algorithm, NeedsParts):
            continue
        try:
            algorithm.require_parts(spec)
        except NotPossible as refusal:
            raise NotPossible(f"{question.id}: {refusal.text}") from refusal


def _scored(spec: Spec, setting: Setting) -> list[Spec]:
    """The models that an evaluation is of."""
    return [setting.questions[model][0] for model in spec.models] if isinstance(spec, Evaluate) else []
