"""YAML with the line of every element, and what is wrong with an element in words that say what to write.

`parse` reads text, `convert` turns a part of it into a struct. Both raise StudyFileError and nothing else on
account of what a person wrote. A `Form` says what kind of file it is; the study file is the first of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, TypeVar

import msgspec
import yaml
from msgspec import Struct

from flute.errors import StudyFileError
from flute.study.files.wording import WRITE, YES_OR_NO

MAX_FILE_BYTES: Final = 256 * 1024
_MAX_ELEMENTS: Final = 50_000
"""More than fit a file of that size by any honest spelling; what repeats itself through aliases stops here."""
_MAX_DEPTH: Final = 16
_SHOWN_CHARS: Final = 60
Lines = dict[tuple[str, ...], int]
T = TypeVar("T", bound=Struct)


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of file that people write. `begins`: its first line. `page`: where its elements are listed.

    `write`: what to write, for each element's name. `named`: what to write where people give names of their own, by
    the outermost element and the depth (1 is the element itself).
    """

    file: str
    begins: str
    page: str
    write: Mapping[str, str]
    named: Mapping[tuple[str, int], str] = field(default_factory=dict)


STUDY_FILE: Final = Form(
    file="study file",
    begins="flute: 1",
    page="docs/reference/study-file.md",
    write=WRITE,
    named={
        ("variables", 1): "write each variable's name, and below it its kind",
        ("variables", 2): "write its kind below it, for example '{kind: binary}'",
        ("questions", 1): "write each question's name, and below it its algorithm",
        ("questions", 2): "write each question's name, and below it its algorithm",
    },
)

_YAML_SAYS: Final = (
    (r"character '\\t'", "there is a tab; indent with spaces", False),
    (r"mapping values are not allowed", "a colon stands where none can; put a text with a colon in quotes", False),
    (r"could not find expected ':'", "this line has no colon; write 'name: value'", True),
    (r"expected ',' or ']'", "the list that begins here is not closed; end it with ']'", True),
    (r"expected ',' or '}'", "the '{' in this line is not closed; end it with '}'", True),
    (r"expected <block end>", "this line is not indented like the ones it belongs to", False),
    (r"found unexpected end of stream", "the quote that begins here is not closed; end it with the same sign", True),
    (r"unhashable key", "a name is a list or a block; write plain text before the colon", False),
    (r"found undefined alias", "an '*' refers to nothing; put a text that begins with '*' in quotes", False),
    (r"constructor for the tag", "a word begins with '!'; put it in quotes", False),
    (r"cannot start any token", "a value begins with a sign that YAML keeps for itself; put it in quotes", False),
)
"""Pattern of PyYAML's message; what people are told; whether the line is where the unfinished thing began."""


def line_of(lines: Lines, *element: str) -> int:
    """The line of an element, or of the nearest one around it; 0 where there are no lines at all."""
    for end in range(len(element), -1, -1):
        if element[:end] in lines:
            return lines[element[:end]]
    return 0


# --- YAML ------------------------------------------------------------------------------------


def parse(text: str, form: Form = STUDY_FILE) -> tuple[dict[Any, Any], Lines]:
    """The document, and the line of every element by its path of names. Raises: StudyFileError."""
    if len(text.encode()) > MAX_FILE_BYTES:
        raise StudyFileError(f"A {form.file} may have {MAX_FILE_BYTES // 1024} KiB; this one is larger.")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: Lines = {(): 1}
        if node is not None:
            _collect_lines(node, (), lines, form)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        text, line = _yaml_problem(error)
        raise StudyFileError(f"This is not YAML: {text}.", line=line) from error
    except yaml.YAMLError as error:
        raise StudyFileError("This is not YAML text: it holds control characters. Save it as plain UTF-8.") from error
    except RecursionError:
        raise StudyFileError(f"Brackets are nested far deeper than a {form.file} needs.", line=1) from None
    if not isinstance(document, dict):
        raise StudyFileError(
            f"This is no {form.file}: it must be lines of 'name: value', the first of them {form.begins!r}.", line=1
        )
    return document, lines


def _yaml_problem(error: yaml.MarkedYAMLError) -> tuple[str, int]:
    """What is wrong, and in which line: where the thing began that does not end, else where it was noticed."""
    problem = error.problem or error.context or "it cannot be read"
    began, noticed = (mark.line + 1 if mark else 0 for mark in (error.context_mark, error.problem_mark))
    for pattern, said, at_its_beginning in _YAML_SAYS:
        if re.search(pattern, problem):
            return said, (began if at_its_beginning and began else noticed)
    return problem, noticed


def _collect_lines(node: yaml.Node, at: tuple[str, ...], lines: Lines, form: Form) -> None:
    """Raises: StudyFileError: a name twice; nesting or repetition beyond any such file."""
    if len(at) > _MAX_DEPTH or len(lines) > _MAX_ELEMENTS:
        raise StudyFileError(
            f"This is nested or repeated far more than a {form.file} needs; write it out plainly.",
            line=node.start_mark.line + 1,
        )
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*at, str(key.value))
            if below in lines:
                raise StudyFileError(
                    f"{key.value!r} stands here twice (first in line {lines[below]}); keep one.",
                    line=key.start_mark.line + 1,
                )
            lines[below] = key.start_mark.line + 1
            _collect_lines(value, below, lines, form)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            below = (*at, str(index))
            lines[below] = value.start_mark.line + 1
            _collect_lines(value, below, lines, form)
    else:
        _check_scalar(node)


def _check_scalar(node: yaml.Node) -> None:
    """Raises: StudyFileError: it looks like a day or a number and is none (the thirtieth of February)."""
    try:
        yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        raise StudyFileError(
            f"{_cut(str(node.value))} is no day of the calendar and no number; correct it, or put it in quotes.",
            line=node.start_mark.line + 1,
        ) from error


# --- structs ---------------------------------------------------------------------------------


def convert(
    raw: Any, kind: type[T], at: tuple[str, ...], lines: Lines, *, also: Sequence[str] = (), form: Form = STUDY_FILE
) -> T:
    """`raw`, which stands at path `at` of the file, as a struct. `also`: elements it may hold besides.

    Raises: StudyFileError: with the element's line, what stands there and what to write instead."""
    if not isinstance(raw, dict):
        raise StudyFileError(_wrong(at, raw, form), line=line_of(lines, *at))
    try:
        return msgspec.convert(raw, type=kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        element = tuple(part for part in re.split(r"[.\[\]]+", where.partition("$")[2].rstrip("`")) if part)
        text, element = _sentence(message, raw, (*at, *element), len(at), kind, also, form)
        raise StudyFileError(text, line=line_of(lines, *element)) from error


def _sentence(
    message: str, raw: Any, element: tuple[str, ...], depth: int, kind: type[Struct], also: Sequence[str], form: Form
) -> tuple[str, tuple[str, ...]]:
    """One sentence for msgspec's message, and the element that it is about."""
    if unknown := re.search(r"unknown field `(.+?)`", message):
        name = unknown.group(1)
        known = (*_fields_at(kind, element[depth:], raw), *(() if element[depth:] else also))
        where = f"a {form.file}" if not element else _name(element)
        return f"There is no element {name!r} in {where}; {_near(name, known)}", (*element, name)
    if missing := re.search(r"missing required field `(.+?)`", message):
        name = missing.group(1)
        return f"{_name(element)} needs an element {name!r}: {_advice((*element, name), form)}.", element
    return _wrong(element, _at(raw, element[depth:]), form), element


def _wrong(element: tuple[str, ...], value: Any, form: Form) -> str:
    advice = _advice(element, form)
    if isinstance(value, bool) and advice != YES_OR_NO:
        words = "yes, on or true" if value else "no, off or false"
        return (
            f"{_name(element)} is a bare {words}, which YAML reads as yes or no and not as text; put it in "
            f"quotes, or {advice}."
        )
    return f"{_name(element)} is {_shown(value)}; {advice}."


def _advice(element: tuple[str, ...], form: Form) -> str:
    """By the innermost name that has one; positions in a list and a person's own names have none."""
    if element and (element[0], len(element)) in form.named:
        return form.named[element[0], len(element)]
    for name in reversed(element):
        if name in form.write:
            return form.write[name]
    return f"see {form.page} for what may stand here"


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there may be {', '.join(sorted(known))}."


def _fields_at(kind: type[Struct], path: tuple[str, ...], raw: Any) -> tuple[str, ...]:
    """Field names of the struct that stands at `path` below `kind`; where several may, of the one that is named."""
    among = [kind]
    for name in path:
        if not name.isdigit():  # an entry of a list is of what the list is of
            among = _structs({f.encode_name: f.type for f in msgspec.structs.fields(kind)}.get(name)) or [kind]
        raw = _entry(raw, name)
        kind = next((k for k in among if _is_named(k, raw)), among[0])
    return tuple(f.encode_name for f in msgspec.structs.fields(kind))


def _structs(kind: Any) -> list[type[Struct]]:
    """All structs that a type is made of."""
    if _is_struct(kind):
        return [kind]
    return [one for inner in getattr(kind, "__args__", ()) for one in _structs(inner)]


def _entry(raw: Any, name: str) -> Any:
    if isinstance(raw, list):
        return raw[int(name)] if name.isdigit() and int(name) < len(raw) else None
    return raw.get(name) if isinstance(raw, dict) else None


def _is_named(kind: type[Struct], raw: Any) -> bool:
    """Whether `raw` has the tag of this struct."""
    config = kind.__struct_config__
    return isinstance(raw, dict) and config.tag is not None and raw.get(config.tag_field) == config.tag


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _at(raw: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if isinstance(raw, dict) and name in raw:
            raw = raw[name]
        elif isinstance(raw, list) and name.isdigit() and int(name) < len(raw):
            raw = raw[int(name)]
        else:
            return raw
    return raw


def _name(element: tuple[str, ...]) -> str:
    """How people call it: `budget.epsilon`, `entry 2 of hubs`, `The file`."""
    if not element:
        return "The file"
    if element[-1].isdigit():
        return f"entry {int(element[-1]) + 1} of {_name(element[:-1])}"
    return ".".join(element)


def _shown(value: Any) -> str:
    """A value as it may have been written, shortened."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a block of 'name: value'"
    if isinstance(value, list):
        return f"the list {_cut(str(value))}" if value else "an empty list"
    if isinstance(value, str):
        return f"the text {_cut(value)!r}"
    if isinstance(value, date):
        return f"the day {_cut(str(value))}"
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
