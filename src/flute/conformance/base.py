"""Is it FHIR R4 at all: known elements, their types and cardinalities, dates, text; before any rule of a model.

`fhirkit` (a compiled validator) judges the structure. What it leaves open is judged here: text that JSON or FHIR does
not allow, days that no calendar has, contained resources. Bindings to value sets are for the model, which knows them.
Source: FHIR R4, json (JSON representation), datatypes (primitive types), resource (contained resources).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, Final

import msgspec

from flute.data.findings import Finding, shown
from flute.defaults.records import MAX_FINDINGS
from flute.errors import MisuseError

RULE: Final = "r4"
Resource = Mapping[str, Any]
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_TIMED: Final = ("dateTime", "date", "instant", "time")
_FULL_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class BaseCheck:
    """Raises: MisuseError: `fhirkit` is not installed."""

    def __init__(self) -> None:
        try:
            from fhirkit import ParseError, validate
        except ImportError as error:
            raise MisuseError(
                "Resources are validated with the package fhirkit-rs: pip install 'flute[data]'."
            ) from error
        self._validate: Callable[[bytes], list[Any]] = validate
        self._broken: type[Exception] = ParseError
        self._encode = msgspec.json.Encoder().encode

    def findings(self, resource: Resource, raw: bytes | None = None) -> list[Finding]:
        """What of FHIR R4 the resource does not keep; empty where it is one. `raw`: its JSON, if at hand.

        A key that stands twice shows in `raw` only; readers of files refuse it.
        """
        try:
            text = self._encode(resource) if raw is None else raw
            issues = self._validate(text)
        except (self._broken, ValueError, TypeError, OverflowError, RecursionError) as error:
            return [_whole(resource, error)]
        found = [_finding(resource, issue.path, issue.message) for issue in issues if issue.severity == "error"]
        # JSON writes control characters as \u00XX: a look at the bytes spares most resources the walk.
        if b"\\u00" in text:
            found += [_control(path, value) for path, value in texts(resource) if _CONTROL.search(value)]
        if "contained" in resource and not found:
            found += self._contained(resource)
        return _one_per_path(found)

    def _contained(self, resource: Resource) -> Iterator[Finding]:
        kind = resource["resourceType"]
        for index, inner in enumerate(resource["contained"]):
            where = f"{kind}.contained[{index}]"
            if not isinstance(inner, dict) or "contained" in inner:
                mend = (
                    "A contained resource is an object and contains no further one: take it out, as FHIR R4 demands."
                )
                yield Finding("wrong-type", where, RULE, shown(inner), mend)
                continue
            for finding in self.findings(inner):
                path = finding.path.partition(".")[2]
                yield Finding(finding.reason, f"{where}.{path}"[:300], RULE, finding.found, finding.mend)


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a resource with its path."""
    path = path or str(value.get("resourceType", ""))
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from texts(inner, f"{path}[{index}]")


def no_such_day(moment: str) -> bool:
    """A date, or the date of a dateTime, that reads like one and is in no calendar (30 February)."""
    full = _FULL_DAY.match(moment)
    if full is None:
        return False
    try:
        date.fromisoformat(full[0])
    except ValueError:
        return True
    return False


# --- from the validator's words to ours ---------------------------------------------------------------


def _whole(resource: Resource, error: Exception) -> Finding:
    """The resource as a whole cannot be read as R4."""
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    mend = "Export it anew: it is no JSON that FHIR can hold (text that is no Unicode, nested too deeply, NaN)."
    return Finding("malformed-json", str(kind or "")[:64], RULE, "", mend)


def _finding(resource: Resource, path: str, message: str) -> Finding:
    if "is not a FHIR R4 resource type" in message:
        mend = "Write the name of an R4 resource type; types of other FHIR versions are not read."
        return Finding("wrong-type", "resourceType", RULE, shown(path), mend)
    reason, mend = _judged(path, message)
    return Finding(reason, path[:300], RULE, shown(_at(resource, path)), mend[:500])


def _judged(path: str, message: str) -> tuple[str, str]:
    """Reason and mend, from the validator's message (fhirkit 0.1: its texts are fixed, tests hold them)."""
    name = path.rpartition(".")[2]
    if message == "required element missing":
        return "required-element-missing", f"Give {name}: FHIR R4 demands it here."
    if message == "unknown element":
        return "unknown-element", f"Remove {name}, or write its name right: FHIR R4 has no such element here."
    if message.startswith("the key appears more than once"):
        return "malformed-json", f"Write {name} once: which of two values counts cannot be told."
    if any(message.endswith(f"is not a valid {kind}") for kind in _TIMED):
        return (
            "date-invalid",
            "Write year-month-day (2023-02-01), and a time only with seconds and zone (2023-02-01T09:30:00+01:00).",
        )
    if message.endswith("is not a valid id"):
        return "id-invalid", "Use at most 64 letters, digits, hyphens and dots."
    if "outside the" in message:
        return "value-out-of-range", "Look the number up in the record: FHIR R4 cannot hold it."
    return "wrong-type", f"FHIR R4 says: {message}."


def _at(resource: Any, path: str) -> Any:
    """What stands at a path of the validator; empty where nothing does."""
    value = resource
    for name, index in _STEP.findall(path.partition(".")[2]):
        try:
            value = value[int(index)] if index else value[name]
        except (KeyError, IndexError, TypeError):
            return ""
    return value


def _control(path: str, value: str) -> Finding:
    mend = "Remove the control characters; FHIR R4 text has none but tab and line breaks."
    return Finding("wrong-type", path[:300], RULE, shown(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)), mend)


def _one_per_path(found: list[Finding]) -> list[Finding]:
    """Without what the validator says twice: two types of a choice are one fault, and none of them is unknown."""
    twice = tuple(finding.path[:-3] for finding in found if finding.path.endswith("[x]"))
    first = {finding.path: finding for finding in reversed(found)}
    kept = [f for f in found if first[f.path] is f]
    return [f for f in kept if f.reason != "unknown-element" or not twice or not f.path.startswith(twice)][
        :MAX_FINDINGS
    ]
