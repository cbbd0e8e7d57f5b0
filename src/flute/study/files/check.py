"""Can this study be carried out, and what would it cost? Asked before anybody is bothered with it.

`check_study` is run by the researcher's command line, by the coordinator and by every hub: the same code,
none of them trusting the other's answer. Every finding points at the study file's line where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from msgspec import UNSET

from flute.aggregation.plan import PLANS, Plan
from flute.algorithms.contract import Evaluate
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import algorithm_for, makes_model
from flute.study.agreement import Agreement, Question, read_agreement
from flute.study.files.check_plan import check_plan, one_of
from flute.study.files.lines import Lines, line_of
from flute.study.protection import Price, prices

_NAMES_ONE: Final = ("outcome", "by", "time", "event", "image")
_NAMES_SEVERAL: Final = ("predictors", "variables", "incomplete")
"""Elements of questions that name variables."""


@dataclass(frozen=True, slots=True)
class Checked:
    """An agreement that can be carried out, with the price of every step of every question."""

    agreement: Agreement
    plan: Plan
    prices: dict[str, tuple[Price, ...]]

    @property
    def numbers(self) -> int:
        """How many numbers are opened at most (all iterations, all hubs of per-hub questions)."""
        total = 0
        for question in self.agreement.questions:
            times = len(self.agreement.hubs) if question.scope == "each" else 1
            total += times * sum(p.shape.size for p in self.prices[question.id])
        return total


def check_study(
    agreement: Agreement,
    *,
    roster_hubs: Sequence[str] | None = None,
    lines: Lines | None = None,
    path: str = "",
) -> Checked:
    """Raises: StudyFileError: the first thing that cannot be, where it stands and what to write instead.

    `roster_hubs`: the hubs of the federation, None where the caller has no roster (a file alone). `lines`,
    `path`: of the study file, where there is one.
    """
    try:
        return _check(agreement, roster_hubs, lines or {})
    except StudyFileError as error:
        raise StudyFileError(error.text, line=error.line, path=path) from error


@lru_cache(maxsize=64)
def checked_agreement(raw: bytes) -> Checked:
    """An agreement that was checked when it was proposed, from its bytes; kept, since every message needs it.

    Raises: Malformed, TooLarge, StudyFileError."""
    return check_study(read_agreement(raw))


def _check(agreement: Agreement, roster_hubs: Sequence[str] | None, lines: Lines) -> Checked:
    _check_hubs(agreement, roster_hubs, lines)
    plan = check_plan(agreement, lines)
    _check_time(agreement, lines)
    _check_unique(agreement)
    for question in agreement.questions:
        _check_question(agreement, question, plan, lines)
    _check_shares(agreement, lines)
    checked = Checked(agreement, plan, {q.id: _prices(agreement, q, lines) for q in agreement.questions})
    if agreement.mode == "exact" and checked.numbers > agreement.max_numbers:
        raise StudyFileError(
            f"These questions may open up to {checked.numbers:,} exact numbers, all steps counted, and "
            f"max_numbers is {agreement.max_numbers:,}. Ask for less, or write 'max_numbers: {checked.numbers}' if "
            "the hubs allow that many.",
            line=line_of(lines, "exact", "max_numbers"),
        )
    return checked


def _prices(agreement: Agreement, question: Question, lines: Lines) -> tuple[Price, ...]:
    try:
        return prices(agreement, question)
    except StudyFileError as error:
        if not isinstance(error.__cause__, MisuseError):  # the plan's own limits
            raise StudyFileError(error.text, line=line_of(lines, "questions", question.id)) from error
        steps = algorithm_for(question.what).outline(question.what, agreement.setting)
        raise StudyFileError(
            f"{question.id}: the budget is too small for sound noise. Its share, {question.share:g} of epsilon "
            f"{agreement.epsilon:g}, would have to cover {sum(s.size for s in steps):,} numbers in {len(steps)} "
            f"{'steps' if len(steps) > 1 else 'step'}. Give it a larger share or the study a larger epsilon, or ask "
            "for fewer variables or bins.",
            line=line_of(lines, "questions", question.id, "share"),
        ) from error


def _check_hubs(agreement: Agreement, roster_hubs: Sequence[str] | None, lines: Lines) -> None:
    for index, hub in enumerate(agreement.hubs):
        line = line_of(lines, "hubs", str(index))
        if hub in agreement.hubs[:index]:
            raise StudyFileError(f"Hub {hub} stands twice in hubs; keep one.", line=line)
        if roster_hubs is not None and hub not in roster_hubs:
            raise StudyFileError(
                f"Hub {hub!r} is not in the federation's roster; write one of {', '.join(sorted(roster_hubs))}.",
                line=line,
            )
    missing = set(agreement.hubs) - set(agreement.conditions)
    if missing:
        raise StudyFileError(
            f"conditions says nothing of hub {min(missing)}; write its legal_basis, ethics_approval and "
            "retain_until.",
            line=line_of(lines, "conditions"),
        )


def _check_time(agreement: Agreement, lines: Lines) -> None:
    if agreement.ends <= agreement.starts:
        raise StudyFileError(
            "The period ends before it begins: 'until' must not be an earlier day than 'from'.",
            line=line_of(lines, "period", "until"),
        )


def _check_unique(agreement: Agreement) -> None:
    """A file cannot say a name twice, bytes that somebody else wrote can: each name then means two things."""
    for names in ([q.id for q in agreement.questions], [v.variable.name for v in agreement.variables]):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise StudyFileError(f"The agreement declares {', '.join(twice)} more than once; each name stands once.")


def _check_question(agreement: Agreement, question: Question, plan: Plan, lines: Lines) -> None:
    at = ("questions", question.id)
    algorithm = algorithm_for(question.what)
    lacking = sorted(o.value for o in algorithm.operations if o.value not in plan.offers)
    if lacking:
        able = sorted(p.name for p in PLANS.values() if {o.value for o in algorithm.operations} <= p.offers)
        instead = f"Write 'plan: {{name: {able[0]}}}', or ask" if able else "No plan offers that yet: ask"
        raise StudyFileError(
            f"{question.id}: {algorithm.name} needs {' and '.join(lacking)}, which plan {plan.name} cannot carry (it "
            f"offers {', '.join(sorted(plan.offers))}). {instead} with another algorithm.",
            line=line_of(lines, *at, "algorithm"),
        )
    if agreement.mode == "exact" and question.scope == "each":
        raise StudyFileError(
            f"{question.id}: exact results of one hub alone are never opened. Leave 'per_hub' out, or ask in a "
            "private study ('budget:' instead of 'exact:').",
            line=line_of(lines, *at, "per_hub"),
        )
    _check_names(agreement, question, lines)
    try:
        algorithm.check(question.what, agreement.setting)
    except StudyFileError as error:
        text, place = _about(agreement, question, error.text)
        raise StudyFileError(text, line=line_of(lines, *place)) from error


def _about(agreement: Agreement, question: Question, text: str) -> tuple[str, tuple[str, ...]]:
    """The sentence with the question's name where that helps, and the place in the file that it is about.

    Algorithms begin their sentences with the element (`predictors: 'age' stands twice`) or the variable."""
    at = ("questions", question.id)
    about, _, rest = text.partition(":")
    if about in question.what.__struct_fields__:
        named = re.match(r" '([^']+)'", rest)
        listed = getattr(question.what, about)
        names = listed if isinstance(listed, tuple) else ()
        places = [i for i, name in enumerate(names) if named and name == named.group(1)]
        where = (*at, about, str(places[-1])) if places else (*at, about)
        return f"{question.id}.{text}", where
    variable = text.replace(":", " ").split(" ", 1)[0]
    if variable in {v.variable.name for v in agreement.variables}:
        return text if text.startswith(f"{variable}:") else f"{question.id}: {text}", ("variables", variable)
    return f"{question.id}: {text}", at


def _check_names(agreement: Agreement, question: Question, lines: Lines) -> None:
    """Every variable is declared, every model of an evaluation is one that an earlier question makes."""
    known = [v.variable.name for v in agreement.variables]
    images = {v.variable.name for v in agreement.variables if v.variable.kind == "image"}
    what = question.what
    if isinstance(what, Evaluate):
        _check_models(agreement, question, what, lines)
    used: list[tuple[tuple[str, ...], str]] = [
        ((one,), getattr(what, one)) for one in _NAMES_ONE if getattr(what, one, "")
    ]
    for several in _NAMES_SEVERAL:
        used += _places(several, getattr(what, several, ()))
    for place, name in used:
        if name not in known:
            raise StudyFileError(
                f"{question.id}: {name!r} is not among the study's variables; {one_of(name, known, 'they are')}",
                line=line_of(lines, "questions", question.id, *place),
            )
        if (name in images) != (place == ("image",)):
            wrong = "an image, which only 'image' of a network takes" if name in images else "no image"
            raise StudyFileError(
                f"{question.id}: {name!r} is {wrong}; write the name of a variable of another kind.",
                line=line_of(lines, "questions", question.id, *place),
            )


def _places(element: str, names: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    return [((element, str(index)), name) for index, name in enumerate(names)]


def _check_models(agreement: Agreement, question: Question, what: Evaluate, lines: Lines) -> None:
    earlier: list[str] = []
    for other in agreement.questions:
        if other.id == question.id:
            break
        if makes_model(other.what):
            earlier.append(other.id)
    for index, model in enumerate(what.models):
        if model in earlier and agreement.hubs_min is not UNSET and agreement.question(model).scope == "each":
            raise StudyFileError(
                f"{question.id}: {model!r} is one model of each hub, and with 'hubs_min' some may not be made; leave "
                "hubs_min out, or score pooled models.",
                line=line_of(lines, "questions", question.id, "models", str(index)),
            )
        if model not in earlier:
            instead = f"write {' or '.join(earlier)}" if earlier else "ask for the model first"
            raise StudyFileError(
                f"{question.id}: {model!r} is no model that stands before this question; {instead}.",
                line=line_of(lines, "questions", question.id, "models", str(index)),
            )


def _check_shares(agreement: Agreement, lines: Lines) -> None:
    total = sum(q.share for q in agreement.questions)
    if agreement.mode == "private" and total > 1 + 1e-9:
        shares = " + ".join(f"{q.share:g}" for q in agreement.questions)
        raise StudyFileError(
            f"The questions' shares add up to {total:.4g} ({shares}); together they may spend at most 1, the whole "
            "budget. Write smaller shares.",
            line=line_of(lines, "questions"),
        )
