"""De-identified FHIR: what is listed stays, what is not goes whatever it is called."""

from __future__ import annotations

import copy
import json
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.deidentify.classes import declared, fhir_elements, is_unit
from flute.deidentify.fhir import AGE_EXTENSION, FhirRules, Person, deidentified, person_of, subject_of
from flute.deidentify.pseudonyms import object_uid, pseudonym, resource_name
from flute.deidentify.release import persons_of, release_resource
from flute.deidentify.withheld import Withheld
from flute.errors import MisuseError
from support.planted_leaks import KEY, OBSERVATION, PATIENT

pytestmark = pytest.mark.requirement("F-PIL-6")
TODAY = date(2026, 1, 1)
RULES = FhirRules(KEY, TODAY)
AGES = FhirRules(KEY, TODAY, dates="ages")
SENTINEL = "Zyzzyva"
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=20)
LEAVES = st.just(SENTINEL) | st.just({"text": SENTINEL}) | st.just([{"div": SENTINEL}])
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3) | st.lists(inner, max_size=2)
)


def observation(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(OBSERVATION) | changes


def done(resource: dict[str, Any], rules: FhirRules = RULES) -> dict[str, Any]:
    return deidentified(resource, rules, person_of(PATIENT))[0]


@given(st.sampled_from(sorted(fhir_elements())), st.dictionaries(NAMES, TREES, max_size=6))
def test_an_element_that_is_not_listed_does_not_survive(kind: str, tree: dict[str, Any]) -> None:
    subject = "patient" if "patient" in fhir_elements()[kind] else "subject"
    tree = {name: value for name, value in tree.items() if name not in ("id", "resourceType")}
    resource = tree | {"resourceType": kind, "id": "x1", subject: {"reference": "Patient/p1"}}
    result, _ = deidentified(resource, RULES)
    assert SENTINEL not in json.dumps(result)
    assert set(result) <= set(fhir_elements()[kind]) | {"resourceType", "extension"}


@given(st.sampled_from(sorted(fhir_elements())), st.data())
def test_text_inside_any_listed_element_does_not_survive(kind: str, data: st.DataObject) -> None:
    """Every listed element with text of somebody's making in it: of the wrong type, or beside what belongs there."""
    listed = fhir_elements()[kind]
    resource: dict[str, Any] = {name: data.draw(TREES) for name in listed if name not in ("subject", "patient", "id")}
    resource |= {"resourceType": kind, "id": "x1"}
    resource["patient" if "patient" in listed else "subject"] = {"reference": "Patient/p1", "display": SENTINEL}
    assert SENTINEL not in json.dumps(deidentified(resource, RULES)[0])


def test_values_codes_and_links_stay() -> None:
    result = done(observation())
    assert result["valueQuantity"] == OBSERVATION["valueQuantity"]
    assert result["code"] == OBSERVATION["code"]
    assert result["status"] == "final"
    assert result["subject"] == {"reference": f"Patient/{pseudonym(KEY, 'pat-471122')}"}
    assert result["id"] == resource_name(KEY, "Observation", "obs-99120031")
    assert result["meta"]["tag"] == [{"system": "urn:x-flute:code-system:data-origin", "code": "SIMULATED"}]
    assert result["meta"]["security"][0]["code"] == "PSEUDED"


@pytest.mark.parametrize("reference", ["Patient/p1", "https://h.example/fhir/Patient/p1", "Patient/p1/_history/3"])
def test_every_form_of_a_reference_leads_to_the_same_name(reference: str) -> None:
    result = done(observation(subject={"reference": reference, "type": "Patient", "identifier": {"value": "1"}}))
    assert result["subject"] == {"reference": f"Patient/{pseudonym(KEY, 'p1')}"}


def test_dates_keep_their_intervals_and_the_birth_date_moves_along() -> None:
    patient = done(copy.deepcopy(PATIENT))
    result = done(observation())
    age = date.fromisoformat(result["effectiveDateTime"][:10]) - date.fromisoformat(patient["birthDate"])
    assert age == date(2019, 11, 27) - date(1957, 3, 1)


def test_the_birth_date_of_the_very_old_is_masked() -> None:
    old = copy.deepcopy(PATIENT) | {"birthDate": "1930-05-01"}
    result = done(old)
    assert "birthDate" not in result
    assert result["_birthDate"]["extension"][0]["valueCode"] == "masked"
    dead = done(old | {"deceasedDateTime": "1999-01-01"})
    assert "birthDate" in dead


def test_dates_turn_to_ages() -> None:
    result = done(observation(), AGES)
    assert "effectiveDateTime" not in result
    extension = result["_effectiveDateTime"]["extension"][0]
    assert extension["url"] == AGE_EXTENSION
    assert extension["valueAge"]["value"] == 62
    procedure = {"resourceType": "Procedure", "id": "1", "subject": {"reference": "Patient/pat-471122"}}
    aged = done(procedure | {"performedDateTime": "2020-03-01"}, AGES)
    assert aged["performedAge"] == {"value": 63, "unit": "a", "system": "http://unitsofmeasure.org", "code": "a"}
    patient = done(copy.deepcopy(PATIENT) | {"deceasedDateTime": "2021-01-01"}, AGES)
    assert patient["deceasedBoolean"] is True
    assert "2021" not in json.dumps(patient)
    assert "birthDate" not in patient
    nobody = deidentified(observation(), AGES, Person())[0]
    assert "effective" not in json.dumps(nobody)


def test_ages_above_the_cap_are_the_cap() -> None:
    age = {"value": 97, "unit": "a", "system": "http://unitsofmeasure.org", "code": "a"}
    procedure = {"resourceType": "Procedure", "id": "1", "subject": {"reference": "Patient/p"}, "performedAge": age}
    assert done(procedure)["performedAge"]["value"] == 90
    assert done(observation(valueQuantity={"value": 97, "unit": "years"}))["valueQuantity"]["value"] == 90
    assert done(observation(valueQuantity={"value": 97, "unit": "ng/mL"}))["valueQuantity"]["value"] == 97


def test_codes_of_public_terminologies_stay_and_local_ones_go() -> None:
    codings = [
        {"system": "http://klinikum.example/lab", "code": "KREA"},
        {"system": "http://loinc.org", "code": "1-8"},
    ]
    assert done(observation(code={"coding": codings}))["code"] == {"coding": codings[1:]}
    assert "code" not in done(observation(code={"coding": codings[:1], "text": "Kreatinin"}))
    named = [
        {"system": "http://loinc.org", "code": "Anneliese"},
        {"system": "http://loinc.org/anneliese", "code": "1"},
    ]
    assert "code" not in done(observation(code={"coding": named}))


def test_a_number_that_is_the_patients_own_goes() -> None:
    assert "valueInteger" not in done(observation(valueInteger=4711229))
    assert done(observation(valueInteger=4))["valueInteger"] == 4


def test_studies_are_linked_to_their_images() -> None:
    study = {
        "resourceType": "ImagingStudy", "id": "s", "status": "available", "subject": {"reference": "Patient/p"},
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}, {"system": "acc", "value": "A1"}],
        "series": [{"uid": "1.2.3.4", "description": "Anneliese", "instance": [{"uid": "1.2.3.4.5", "title": "x"}]}],
        "extension": [{"url": "urn:link", "valueReference": {"reference": "Observation/o", "display": "x"}}],
    }  # fmt: skip
    result = done(study, FhirRules(KEY, TODAY, extensions={"urn:link": "reference"}))
    assert result["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{object_uid(KEY, '1.2.3')}"}]
    assert result["series"] == [
        {"uid": object_uid(KEY, "1.2.3.4"), "instance": [{"uid": object_uid(KEY, "1.2.3.4.5")}]}
    ]
    link = {"reference": f"Observation/{resource_name(KEY, 'Observation', 'o')}"}
    assert result["extension"] == [{"url": "urn:link", "valueReference": link}]


@pytest.mark.parametrize(
    ("reason", "resource"),
    [
        ("type-not-listed", {"resourceType": "DocumentReference", "id": "1", "subject": {"reference": "Patient/p"}}),
        ("type-not-listed", {"resourceType": "Practitioner", "id": "1"}),
        ("type-not-listed", {"resourceType": "Binary", "id": "1", "data": "eA=="}),
        ("no-patient", {"resourceType": "Observation", "id": "1"}),
        ("no-patient", {"resourceType": "Observation", "id": "1", "subject": {"reference": "Group/1"}}),
        ("no-patient", {"resourceType": "Observation", "id": "1", "subject": {"reference": "#contained"}}),
    ],
)
def test_what_is_of_nobody_or_of_no_listed_type_is_not_released(reason: str, resource: dict[str, Any]) -> None:
    with pytest.raises(Withheld) as caught:
        deidentified(resource, RULES)
    assert caught.value.reason == reason


def test_numbers_leave_as_they_were_written() -> None:
    line, _ = release_resource(observation(valueQuantity={"value": Decimal("3.10")}), RULES, persons_of([PATIENT]))
    assert b'"value":3.10' in line
    assert msgspec.json.decode(line)["resourceType"] == "Observation"


def test_the_subject_is_found_in_both_places() -> None:
    assert subject_of({"resourceType": "FamilyMemberHistory", "patient": {"reference": "Patient/7"}}) == "7"
    assert subject_of(PATIENT) == "pat-471122"
    assert subject_of({"resourceType": "Observation", "subject": "Patient/7"}) is None


def test_a_number_of_two_patients_names_neither() -> None:
    other = {"resourceType": "Patient", "id": "p2", "identifier": [{"value": "471122-9"}, {"value": "only-hers"}]}
    found = persons_of([PATIENT, other])
    assert "471122-9" not in found.ids
    assert found.ids["only-hers"] == "p2"
    assert found.ids["pat-471122"] == "pat-471122"


@pytest.mark.parametrize(("unit", "known"), [("ng/mL", True), ("10*9/L", True), ("cm³", True), ("Mueller", False),
                                            ("mg Anna", False), ("", False), ("µg/l", True)])  # fmt: skip
def test_units_are_of_known_spellings(unit: str, known: bool) -> None:
    assert is_unit(unit) is known


def test_every_element_has_a_class_and_ids_are_identifiers() -> None:
    for elements in fhir_elements().values():
        assert elements["id"].field_class == "identifier"
    assert fhir_elements()["Patient"]["birthDate"].field_class == "quasi-identifier"
    assert fhir_elements()["Observation"]["valueQuantity"].field_class == "sensitive"
    assert "code" in fhir_elements()["Observation"]["component"].inner


def test_classes_of_a_dataset_are_whole_or_refused() -> None:
    classes = declared(["age", "sex"], {"age": "quasi-identifier", "sex": "quasi-identifier"})
    assert classes.named("quasi-identifier") == ("age", "sex")
    for wrong in (
        {"age": "other"},
        {"age": "other", "sex": "secret"},
        {"age": "other", "sex": "other", "x": "other"},
    ):
        with pytest.raises(MisuseError):
            declared(["age", "sex"], wrong)
