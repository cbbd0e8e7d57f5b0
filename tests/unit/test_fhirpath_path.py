"""Written paths give what fhirpathpy gives, on resources that fit and on resources that do not."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flute.errors import Unmappable
from flute.fhirpath.path import Focus, Path, PathFailed
from flute.fhirpath.references import reference_key
from flute.pilot.views import PILOT_VIEWS

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "s", "code": "a"}, {"system": "t", "code": "b"}], "text": "words"},
    "subject": {"reference": "Patient/p1"},
    "effectiveDateTime": "2023-01-02",
    "valueQuantity": {"value": 6.8, "code": "ng/mL", "unit": "ng/mL"},
    "extension": [
        {"url": "u", "valueReference": {"reference": "Observation/x"}},
        {"url": "u", "valueReference": {"reference": "Observation/y"}},
        {"url": "v", "valueString": "z"},
    ],
    "component": [{"code": {"coding": [{"code": "c"}]}, "valueInteger": 3}],
}
PLAIN = [
    "id",
    "status = 'final'",
    "status != 'final'",
    "code.coding.code",
    "code.coding[1].code",
    "code.coding[7].code",
    "code.coding.first().code",
    "code.coding.where(system = 's').code",
    "code.coding.where(system = 's' and code = 'a').exists()",
    "code.coding.where(system = 's' and (code = 'a' or code = 'z')).exists()",
    "code.coding.where(system = %sys).code.first()",
    "code.coding.exists(code = 'b')",
    "code.coding.code = 'a'",
    "code.text = 'words' and status = 'final'",
    "code.missing = 'x' and status = 'final'",
    "code.missing = 'x' and status = 'draft'",
    "code.missing = 'x' or status = 'final'",
    "code.missing = 'x' or status = 'draft'",
    "value.exists()",
    "value.ofType(Quantity).value",
    "value.ofType(Quantity).code",
    "value.ofType(integer)",
    "value.ofType(CodeableConcept).exists()",
    "effective.ofType(dateTime)",
    "effective.ofType(Period).start",
    "extension.where(url = 'u').value.ofType(Reference)",
    "extension.where(url = 'u' or url = 'v').value.ofType(string)",
    "subject.getReferenceKey(Patient)",
    "subject.getReferenceKey(Group)",
    "subject.getReferenceKey()",
    "getResourceKey()",
    "component.value.ofType(integer) = 3",
    "component.code.coding.code",
    "bodySite.empty()",
    "$this.status",
    "Observation.code.text",
    "Observation.status = 'final'",
    "code.coding.where(system = 's').exists().not()",
    "(status = 'final').not()",
    "code.missing.exists().not()",
    "(code.missing = 'x').not()",
    "code.coding.code.join(', ')",
    "code.coding.code.join()",
    "code.missing.join(',')",
    "extension('u').value.ofType(Reference).reference",
    "extension('v').value.ofType(string)",
    "component[0].code.coding.first().code",
    "component.where(code.coding.exists(code = 'c')).value.ofType(integer)",
    "code.coding.where($this.code = 'a').system",
    "code.coding.where(true).code",
    "code.coding.where(false).code",
    "%rowIndex",
    "'words'",
    "7",
    "true",
    "%sys",
    "value.ofType(Quantity).value.exists() and value.ofType(Quantity).comparator.empty()",
]
CONSTANTS = {"sys": "s"}
FALLBACK = [
    "code.coding.count()",
    "code.coding.code | status",
    "iif(status = 'final', 'f', 'g')",
    "status.upper()",
    "value.ofType(Quantity).value = 6.8",
    "value.ofType(Quantity).value > 6.5",
    "code.coding[0].code & 'x'",
]


def at(node: Any, base: str | None, index: int = 0) -> Focus:
    return Focus(node, base, node, index)


OBSERVED = at(OBSERVATION, "Observation")


@pytest.mark.parametrize("expression", PLAIN)
def test_a_plain_path_is_written_out_with_fhirpathpy_s_result(expression: str) -> None:
    path = Path(expression, CONSTANTS)
    assert path.plain("Observation") is not None
    assert path.values(OBSERVED) == as_plain(path.by_fhirpathpy(OBSERVED))


@pytest.mark.parametrize("expression", FALLBACK)
def test_any_other_path_goes_to_fhirpathpy(expression: str) -> None:
    path = Path(expression, CONSTANTS)
    assert path.plain("Observation") is None
    assert as_plain(path.values(OBSERVED)) == as_plain(path.by_fhirpathpy(OBSERVED))


def as_plain(values: list[Any]) -> list[Any]:
    """Decimals of the reference as the doubles that JSON was read to, at every depth."""
    if isinstance(values, list):
        return [as_plain(v) for v in values]
    if isinstance(values, dict):
        return {name: as_plain(v) for name, v in values.items()}
    return float(values) if type(values).__name__ == "Decimal" else values


def all_paths(declaration: Any) -> set[str]:
    if isinstance(declaration, dict):
        own = {v for k, v in declaration.items() if k in {"path", "forEach", "forEachOrNull"}}
        return own.union(*(all_paths(v) for v in declaration.values()))
    return set().union(*(all_paths(v) for v in declaration)) if isinstance(declaration, list | tuple) else set()


def test_the_pilot_s_views_are_plain_throughout() -> None:
    for name, view in PILOT_VIEWS.items():
        for part in (view.get("where", []), *view["select"]):
            base = view["resource"]
            if isinstance(part, dict) and ("forEach" in part or "forEachOrNull" in part):
                base = "Coding" if "forEachOrNull" in part else "Reference"
            for expression in all_paths(list(part["column"]) if isinstance(part, dict) else part):
                assert Path(expression, {}).plain(base) is not None, (name, expression)


BITS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["s", "a", "final", "Patient/p1", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["coding", "system", "code", "reference", "value", "text", "url", "extension", "_code"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    element=st.sampled_from(["code", "subject", "status", "valueQuantity", "_valueQuantity", "_status", "extension"]),
    bit=BITS,
)
def test_on_any_malformed_resource_both_agree_or_the_closure_steps_aside(element: str, bit: Any) -> None:
    resource = copy.deepcopy(OBSERVATION) | {element: bit}
    for expression in PLAIN:
        path = Path(expression, CONSTANTS)
        try:
            expected = as_plain(path.by_fhirpathpy(at(resource, "Observation")))
        except PathFailed:
            continue  # fhirpathpy stumbles over data that is no FHIR; a closure may well find nothing in it
        assert as_plain(path.values(at(resource, "Observation"))) == expected, expression


def test_an_element_that_only_has_an_extension_still_exists() -> None:
    absent = OBSERVATION | {"_status": {"extension": [{"url": "why", "valueCode": "masked"}]}}
    del absent["status"]
    assert Path("status.exists()", {}).values(at(absent, "Observation")) == [True]
    assert Path("status", {}).values(at(absent, "Observation")) == []


@pytest.mark.parametrize("expression", ["status.", "code.coding.where(", "a b", "status..code", "'open"])
def test_what_is_no_fhirpath_is_refused_when_it_is_compiled(expression: str) -> None:
    with pytest.raises(Unmappable, match="FHIRPath"):
        Path(expression, {})


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("noSuchFunction()", "noSuchFunction"), ("status.trace('x')", "trace"),
        ("code.where(resolve().exists())", "resolve"), ("value.ofType(Quantiti)", "Quantiti"),
        ("value is Foo", "Foo"), ("subject.getReferenceKey(Patiend)", "Patiend"),
        ("iif(status)", "iif"), ("status.empty(1)", "empty"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_by_name(expression: str, named: str) -> None:
    with pytest.raises(Unmappable, match=named):
        Path(expression, {})


def test_the_answer_of_of_type_does_not_depend_on_what_ran_before() -> None:
    """fhirpathpy keeps its model in a global that `is` sets."""
    extension = {"resourceType": "Patient", "extension": [{"url": "u", "valueCode": "c"}]}
    path = Path("extension.value.ofType(string) | {}", {})
    assert path.plain("Patient") is None
    before = path.values(at(extension, "Patient"))
    Path("extension.first() is Extension", {}).values(at(extension, "Patient"))
    assert path.values(at(extension, "Patient")) == before == ["c"]


def test_two_types_of_one_choice_are_left_to_the_reference() -> None:
    both = OBSERVATION | {"valueString": "x"}
    path = Path("value.ofType(Quantity).code", {})
    assert path.values(at(both, "Observation")) == path.by_fhirpathpy(at(both, "Observation"))


@pytest.mark.parametrize(
    ("reference", "kind", "key"),
    [
        ("Patient/p1", "Patient", "p1"),
        ("Patient/p1", None, "p1"),
        ("https://ehr.example/fhir/Patient/p1", "Patient", "p1"),
        ("Patient/p1/_history/3", "Patient", "p1"),
        ("Group/p1", "Patient", None),
        ("#p1", None, None),
        ("urn:uuid:8a80b7e2-1879-418e-92eb-36418846b599", None, None),
        ("Patient/p1\n", "Patient", None),
        ("Patient/" + "x" * 65, "Patient", None),
        (None, None, None),
        (7, None, None),
    ],
)
def test_a_reference_s_key(reference: object, kind: str | None, key: str | None) -> None:
    assert reference_key(reference, kind) == key


def test_written_paths_are_worth_having() -> None:
    """A ratio of two measurements on the same machine; ten times was seen to hold with a wide margin."""
    path = Path("code.coding.where(system = 's' and code = 'a').exists()", {})

    def seconds(run: Any, times: int) -> float:
        start = time.process_time()
        for _ in range(times):
            run(OBSERVED)
        return (time.process_time() - start) / times

    assert seconds(path.by_fhirpathpy, 300) > 5 * seconds(path.values, 3000)


def test_an_object_is_handed_on_as_it_stands_in_the_resource() -> None:
    """Also by the reference, which works on a copy: numbers are no decimals, and nothing is left out."""
    name = {"given": ["A", None], "_given": [None, {"extension": [{"url": "u"}]}], "period": {"extension": []}}
    patient = at(
        {"resourceType": "Patient", "name": [name], "extension": [{"url": "w", "valueDecimal": 1.5}]}, "Patient"
    )
    for expression in ("name", "name.skip(0)", "name.where(true)"):
        path = Path(expression, {})
        assert path.values(patient)[0] is path.by_fhirpathpy(patient)[0] is name
    assert type(Path("extension.skip(0)", {}).values(patient)[0]["valueDecimal"]) is float


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("component.value.ofType(integer).sum()", [3]),
        ("effective.ofType(dateTime).toDate()", ["2023-01-02"]),
        ("'2023-01-02T10:00:00+01:00'.toDate()", ["2023-01-02"]),
        ("code.coding.where(code = 'a').system.combine(status)", ["s", "final"]),
        ("code.coding.exists(code.exists() and $this.system = 't')", [True]),
        ("(1 | 2 | 2).count()", [2]),
        ("value.ofType(Quantity).value + 0.2", [7.0]),
        ("value.ofType(Quantity).value = 6.80", [True]),
        ("status in ('final' | 'amended')", [True]),
    ],
)
def test_what_fhirpathpy_is_helped_with(expression: str, expected: list[Any]) -> None:
    assert as_plain(Path(expression, {}).values(OBSERVED)) == expected


@pytest.mark.parametrize("expression", ["effective.ofType(dateTime) + 1 day", "@2020-01-01 - 2 months"])
def test_nothing_is_added_to_dates(expression: str) -> None:
    """fhirpathpy loses time zones at it; better no answer than a wrong one."""
    with pytest.raises(Unmappable, match="adds a quantity"):
        Path(expression, {})


def test_nor_by_a_quantity_of_the_resource() -> None:
    path = Path("effective.ofType(dateTime) + value.ofType(Quantity)", {})
    with pytest.raises(PathFailed):
        path.values(OBSERVED)
