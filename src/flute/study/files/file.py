"""Study files: YAML that people write, checked so that every error points at a line and says what to write.

The file says what an `Agreement` says, in fewer words. Nothing is guessed that decides privacy.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct

from flute.aggregation.plan import PLANS
from flute.algorithms.contract import Spec
from flute.defaults import (
    COLLUDING,
    DELTA,
    EXACT_MAX_NUMBERS,
    MAX_AGGREGATORS,
    MAX_HUBS,
    MAX_ID_CHARS,
    MAX_PATIENTS,
    MAX_TEXT_CHARS,
)
from flute.errors import Malformed, StudyFileError, TooLarge
from flute.messages.limits import Name, PartyId
from flute.questions.registry import REGISTRY
from flute.study.agreement import (
    VERSION,
    Agreement,
    HubConditions,
    PlanChoice,
    Question,
    read_agreement,
    write_agreement,
)
from flute.study.files.lines import MAX_FILE_BYTES, Lines, convert, line_of, parse
from flute.study.files.variables import variable_of
from flute.study.threats import guarantees_digest

__all__ = ["MAX_FILE_BYTES", "Lines", "line_of", "read_study_file"]

_ALGORITHMS: Final[dict[str, type[Spec]]] = {one.algorithm.name: spec for spec, one in REGISTRY.items()}
_QUESTION_FIELDS: Final = ("algorithm", "share", "per_hub")
"""What every question may hold besides its algorithm's own elements."""
_NAME: Final = re.compile(rf"[A-Za-z][A-Za-z0-9_.-]{{0,{MAX_ID_CHARS - 1}}}")
_LAST_SECOND: Final = 86_399
"""Of a day: people mean that day too when they write 'until'."""
_Line = Annotated[str, Meta(min_length=1, max_length=500)]


class FileConditions(Struct, frozen=True, forbid_unknown_fields=True):
    legal_basis: _Line
    ethics_approval: _Line
    retain_until: date


class FilePeriod(Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from"}):
    start: date
    until: date


class FileBudget(Struct, frozen=True, forbid_unknown_fields=True):
    epsilon: Annotated[float, Meta(gt=0, le=100)]
    delta: Annotated[float, Meta(gt=0, le=1e-3)] = DELTA


class FileExact(Struct, frozen=True, forbid_unknown_fields=True):
    max_numbers: Annotated[int, Meta(gt=0, le=1_000_000_000)] = EXACT_MAX_NUMBERS


class FilePlan(Struct, frozen=True, forbid_unknown_fields=True):
    name: str = "secagg"
    colluding: Annotated[int, Meta(ge=0, le=MAX_HUBS)] = COLLUDING
    dropouts: Annotated[int, Meta(ge=0, le=MAX_HUBS)] = 0
    echo: bool = True
    openers: Annotated[int, Meta(ge=0, le=MAX_HUBS)] = 0
    aggregators: Annotated[tuple[Name, ...], Meta(max_length=MAX_AGGREGATORS)] = ()


class StudyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file's own shape. Conditions, variables and questions are read one by one, so that what is wrong
    with one of them points at its own line."""

    flute: Literal[1]
    study: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,63}\Z")]
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    purpose: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_CHARS)]
    researcher: PartyId
    hubs: Annotated[tuple[PartyId, ...], Meta(min_length=1, max_length=MAX_HUBS)]
    conditions: dict[Any, Any]
    period: FilePeriod
    variables: Annotated[dict[Any, Any], Meta(min_length=1, max_length=256)]
    questions: Annotated[dict[Any, Any], Meta(min_length=1, max_length=64)]
    dataset: Name = "records"
    max_patients: Annotated[int, Meta(ge=1, le=10**9)] = MAX_PATIENTS
    missing: Literal["drop", "indicate"] = "drop"
    plan: FilePlan = FilePlan()
    budget: FileBudget | None = None
    exact: FileExact | None = None
    simulated: bool = False
    hubs_min: Annotated[int, Meta(ge=2, le=MAX_HUBS)] | None = None
    decide_by: date | None = None


def read_study_file(text: str, *, path: str, code: bytes) -> tuple[Agreement, Lines]:
    """The agreement that the file stands for, and the line of every element (for later checks).

    Raises: StudyFileError: with the line, what is wrong and what to write."""
    try:
        document, lines = parse(text)
        agreement = _agreement(convert(document, StudyFile, (), lines), lines, code)
        return _as_it_will_be_read(agreement), lines
    except StudyFileError as error:
        raise StudyFileError(error.text, line=error.line, path=path) from error


def _as_it_will_be_read(agreement: Agreement) -> Agreement:
    """The agreement from its own bytes, as every party will read it."""
    try:
        return read_agreement(write_agreement(agreement))
    except (Malformed, TooLarge) as error:
        raise StudyFileError(f"No agreement can be made of this file. {error.text}") from error


def _agreement(file: StudyFile, lines: Lines, code: bytes) -> Agreement:
    mode = _mode(file, lines)
    plan = PlanChoice(**msgspec.structs.asdict(file.plan))
    questions = tuple(_question(name, raw, mode, lines) for name, raw in _named(file.questions, "questions", lines))
    return Agreement(
        version=VERSION,
        study=file.study,
        title=file.title,
        purpose=file.purpose,
        researcher=file.researcher,
        hubs=file.hubs,
        conditions=_conditions(file, lines),
        starts=_seconds(file.period.start, ("period", "from"), lines),
        ends=_seconds(file.period.until, ("period", "until"), lines) + _LAST_SECOND,
        dataset=file.dataset,
        missing=file.missing,
        variables=tuple(
            variable_of(name, raw, mode, lines) for name, raw in _named(file.variables, "variables", lines)
        ),
        plan=plan,
        mode=mode,
        epsilon=file.budget.epsilon if file.budget else 0.0,
        delta=file.budget.delta if file.budget else 0.0,
        max_numbers=file.exact.max_numbers if file.exact else 0,
        questions=questions,
        code=code,
        guarantees=guarantees_digest(mode, plan, questions) if plan.name in PLANS else bytes(32),
        simulated=file.simulated,
        max_patients=file.max_patients,
        hubs_min=UNSET if file.hubs_min is None else file.hubs_min,
        decide_by=UNSET if file.decide_by is None else _seconds(file.decide_by, ("decide_by",), lines) + _LAST_SECOND,
    )


def _mode(file: StudyFile, lines: Lines) -> Literal["private", "exact"]:
    if file.budget is not None and file.exact is not None:
        raise StudyFileError(
            "A study is private ('budget:') or exact ('exact:'), not both; keep one here, and ask for the other in a "
            "study of its own.",
            line=max(line_of(lines, "exact"), line_of(lines, "budget")),
        )
    if file.budget is None and file.exact is None:
        raise StudyFileError(
            "Nothing says how results are protected: write 'budget: {epsilon: 1}' for private results, or "
            "'exact: {max_numbers: 2000}' for exact ones, which every hub has to allow.",
            line=line_of(lines),
        )
    return "private" if file.budget is not None else "exact"


def _named(raw: dict[Any, Any], element: str, lines: Lines) -> list[tuple[str, Any]]:
    """Entries under names that people gave. Raises: StudyFileError: a name that cannot be one."""
    for name in raw:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            shown = str(name).lower() if isinstance(name, bool) else str(name)
            raise StudyFileError(
                f"{shown[:MAX_ID_CHARS]!r} cannot be a name in {element}; write letters, digits, '_', '.' and '-', a "
                f"letter first, at most {MAX_ID_CHARS} of them.",
                line=line_of(lines, element, str(name)),
            )
    return list(raw.items())


def _conditions(file: StudyFile, lines: Lines) -> dict[str, HubConditions]:
    """Per hub; the entry `all` serves the hubs that have none of their own."""
    read: dict[str, HubConditions] = {}
    for name, raw in file.conditions.items():
        at = ("conditions", str(name))
        if name != "all" and name not in file.hubs:
            raise StudyFileError(
                f"conditions names {name!r}, which is not among the study's hubs ({', '.join(file.hubs)}); correct "
                "the name, or write 'all' for the hubs that have no entry of their own.",
                line=line_of(lines, *at),
            )
        chosen = convert(raw, FileConditions, at, lines)
        kept = _seconds(chosen.retain_until, (*at, "retain_until"), lines)
        if chosen.retain_until < file.period.until:
            raise StudyFileError(
                f"{'.'.join(at)}: results would have to be deleted on {chosen.retain_until}, before the study ends "
                f"on {file.period.until}; write a later retain_until.",
                line=line_of(lines, *at, "retain_until"),
            )
        read[name] = HubConditions(chosen.legal_basis, chosen.ethics_approval, kept)
    silent = [hub for hub in file.hubs if hub not in read and "all" not in read]
    if silent:
        raise StudyFileError(
            f"conditions says nothing of {', '.join(silent)}; write legal_basis, ethics_approval and retain_until "
            "below that name, or below 'all'.",
            line=line_of(lines, "conditions"),
        )
    return {hub: read.get(hub) or read["all"] for hub in file.hubs}


def _seconds(day: date, element: tuple[str, ...], lines: Lines) -> int:
    if day.year < 1970:
        raise StudyFileError(f"{'.'.join(element)} is {day}; write a day after 1969.", line=line_of(lines, *element))
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _question(name: str, raw: Any, mode: str, lines: Lines) -> Question:
    at = ("questions", name)
    kind = _algorithm(name, raw, lines)
    own = {key: value for key, value in raw.items() if key not in _QUESTION_FIELDS}
    per_hub = raw.get("per_hub", False)
    if not isinstance(per_hub, bool):
        raise StudyFileError(
            f"{name}: per_hub is {per_hub!r}; write 'per_hub: true' for one answer of each hub, or leave it out.",
            line=line_of(lines, *at, "per_hub"),
        )
    what = convert(own, kind, at, lines, also=_QUESTION_FIELDS)
    return Question(name, what, "each" if per_hub else "pooled", _share(name, raw, mode, lines))


def _algorithm(name: str, raw: Any, lines: Lines) -> type[Spec]:
    at = ("questions", name)
    there = f"there are {', '.join(sorted(_ALGORITHMS))}."
    if not isinstance(raw, dict) or "algorithm" not in raw:
        raise StudyFileError(
            f"{name} does not say what it asks for: write 'algorithm: …' below it; {there}", line=line_of(lines, *at)
        )
    algorithm = str(raw["algorithm"])
    if algorithm not in _ALGORITHMS:
        near = difflib.get_close_matches(algorithm, _ALGORITHMS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else there
        raise StudyFileError(
            f"{name}: there is no algorithm {algorithm[:MAX_ID_CHARS]!r}; {hint}",
            line=line_of(lines, *at, "algorithm"),
        )
    return _ALGORITHMS[algorithm]


def _share(name: str, raw: dict[str, Any], mode: str, lines: Lines) -> float:
    line = line_of(lines, "questions", name, "share")
    share = raw.get("share")
    if mode == "exact":
        if "share" in raw:
            raise StudyFileError(
                f"{name}: 'share' divides a privacy budget, and an exact study has none; leave it out.", line=line
            )
        return 0.0
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share <= 1:
        wrong = f"share is {share!r}" if "share" in raw else "nothing says what it may spend"
        raise StudyFileError(
            f"{name}: {wrong}; write the part of the study's budget, a number above 0 and at most 1, for example "
            "'share: 0.5'. All questions together have 1.",
            line=line,
        )
    return float(share)
