"""Resources with one thing changed: thousands of them, from the simulated pilot, always the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from flute.pilot.resources import Man, Resource, resources_of

UCUM = "http://unitsofmeasure.org"
SCT = "http://snomed.info/sct"


def man(key: str = "m", **changes: Any) -> Man:
    """A man of whom everything was recorded."""
    values: dict[str, Any] = {
        "patient": key, "planted": "", "gender": "male", "birth": date(1955, 3, 1), "age": 67, "age_only": False,
        "biopsy": date(2023, 5, 20), "repeated": 0, "isup": 3, "psa": 6.7, "psa_day": date(2023, 3, 1),
        "psa_unit": "ng/mL", "dre": 1, "dre_volume_class": 2, "volume": 44.5, "volume_unit": "cm3",
        "mri": date(2023, 4, 11), "pirads": 4, "second_lesion": 2, "family_history": 1,
    }  # fmt: skip
    return Man(**(values | changes))


def charts() -> list[Resource]:
    """Resources of a few men, so that every form that the simulator writes is among them."""
    men = [
        man("m1"),
        man("m2", psa_unit="ug/L", volume_unit="mL", isup=0, repeated=1, dre=0, family_history=0),
        man("m3", age_only=True, second_condition=True, isup=5, report_days=3),
    ]
    return [copy.deepcopy(resource) for one in men for resource in resources_of(one)]


OTHER_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 3, 6, 7.5, 1e12, "", "3,4", "x", "final", "amended", "corrected", "preliminary", "completed",
    "entered-in-error", "available", "cancelled", "ng/mL", "ug/l", "µg/L", "mg/L", "mg/l", "cc", "cm³", "mL",
    "mmol/L", "a", "mo", "MR", "CT", UCUM, SCT, "http://loinc.org", "2857-1", "719178004", "41216001", "884001",
    "27582007", "131196009", "17621005", "65575008", "86273004", "110396000", "LA30795-1", "1279716004", "2023",
    "2023-04", "2023-02-30", "2023-04-05T10:00:00+02:00", "2023-04-05T10:00:00", "01.02.23", "Patient/m1",
    "Patient/nobody", "Group/m1", [], {}, [1], {"coding": []}, {"text": "prostate"}, {"value": 3},
    {"reference": "Patient/m2"}, {"display": "Mr X"},
)  # fmt: skip
ADDED: tuple[tuple[str, Any], ...] = (
    ("foo", 1), ("comparator", "<"), ("valueInteger", 3), ("valueString", "4"), ("valueQuantity", {"value": 5}),
    ("effectivePeriod", {"start": "2023-04-01"}), ("performedPeriod", {"start": "2023-04-01"}),
    ("performedPeriod", {"end": "2023-04-01"}), ("performedAge", {"value": 70, "unit": "a"}),
    ("performedAge", {"value": 131, "code": "a"}), ("performedAge", {"value": 70, "comparator": "<", "code": "a"}),
    ("performedAge", {"code": "a"}), ("performedString", "last year"), ("effectiveInstant", "2023-04-05T10:00:00Z"),
    ("effectiveTiming", {"code": {"text": "daily"}}), ("_status", {"id": "x"}), ("system", "urn:x"),
    ("contained", [{"resourceType": "Patient", "id": "p"}]), ("implicitRules", "urn:x"), ("language", "en"),
)  # fmt: skip


def mutants() -> Iterator[Resource]:
    """Each with an id of its own: one place removed, replaced, or one element added; and two at a time where an
    element was replaced by another type."""
    number = 0
    for resource in charts():
        for change in _changes(resource):
            changed = copy.deepcopy(resource)
            change(changed)
            number += 1
            if resource["resourceType"] != "Patient":
                changed["id"] = f"x{number}"
            yield changed


Change = Callable[[Resource], None]


def _changes(resource: Resource) -> Iterator[Change]:
    for path in _paths(resource):
        if path[0] in ("resourceType", "id", "meta"):
            continue
        yield lambda r, path=path: _remove(r, path)  # type: ignore[misc]
        for value in OTHER_VALUES:
            yield lambda r, path=path, value=value: _replace(r, path, value)  # type: ignore[misc]
    for path in [(), *(p for p in _paths(resource) if isinstance(_get(resource, p), dict))]:
        for name, value in ADDED:
            yield lambda r, path=path, name=name, value=value: _get(r, path).update({name: value})  # type: ignore[misc]
    yield from _swaps(resource)


def _swaps(resource: Resource) -> Iterator[Change]:
    """One choice of type in place of another."""
    for at in ("value", "effective", "performed"):
        for name in [n for n in resource if n.startswith(at)]:
            for other, value in ADDED:
                if other.startswith(at):
                    yield lambda r, name=name, other=other, value=value: (r.pop(name), r.update({other: value}))[1]  # type: ignore[misc]


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from _paths(inner, (*path, name))


def _get(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _remove(value: Any, path: tuple[Any, ...]) -> None:
    del _get(value, path[:-1])[path[-1]]


def _replace(value: Any, path: tuple[Any, ...], new: Any) -> None:
    _get(value, path[:-1])[path[-1]] = copy.deepcopy(new)
