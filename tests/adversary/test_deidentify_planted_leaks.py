"""The residual check against leaks planted one by one: it finds each with the de-identifier off, none with it on."""

from __future__ import annotations

import copy
from datetime import date
from io import BytesIO
from typing import Any

import msgspec
import pydicom
import pytest

from flute.deidentify import dicom, fhir
from flute.deidentify.dicom import DicomRules
from flute.deidentify.eyes import Rapid
from flute.deidentify.fhir import FhirRules, person_of
from flute.deidentify.pixels import RapidReader
from flute.deidentify.residual import Leak, Look, search_dicom, search_fhir, search_name
from flute.deidentify.withheld import Withheld
from support.planted_leaks import (
    DICOM,
    FHIR,
    FILES,
    KEY,
    OBSERVATION,
    PATIENT,
    PICTURES,
    STUDY,
    as_file,
    image,
    known,
)

pytestmark = pytest.mark.requirement("F-PIL-6")
KNOWN = known()
LOOK = Look(KNOWN, frozenset({STUDY}))
RULES = DicomRules(KEY)
FHIR_RULES = FhirRules(KEY, date(2026, 1, 1))


class NoText:
    """A reader that finds nothing, for leaks that are not in the picture: reading takes a fifth of a second."""

    def read(self, picture: Any) -> list[Any]:
        return []


@pytest.fixture(scope="module")
def clean() -> bytes:
    """The image after de-identification, as a file."""
    return as_file(dicom.deidentified(image(), RULES, NoText()).dataset)


def planted(clean: bytes, name: str) -> bytes:
    """The clean file with one leak."""
    if name in FILES:
        return FILES[name](clean)
    ds = pydicom.dcmread(BytesIO(clean))
    (DICOM | PICTURES)[name](ds)
    return as_file(ds)


def again(raw: bytes) -> list[Leak]:
    """What is left after the file went through the de-identifier. Its patient is called as he is in the record."""
    ds = pydicom.dcmread(BytesIO(raw), force=True)
    forbidden = person_of(PATIENT).forbidden
    result = dicom.deidentified(ds, RULES, NoText(), patient="pat-471122", forbidden=forbidden)
    return search_dicom(as_file(result.dataset), LOOK)


def test_there_are_at_least_thirty() -> None:
    assert len(DICOM) + len(PICTURES) + len(FILES) + len(FHIR) >= 60


def test_nothing_is_found_where_nothing_is_planted(clean: bytes) -> None:
    assert search_dicom(clean, LOOK, Rapid()) == []
    assert search_fhir(msgspec.json.encode(clean_observation()), LOOK) == []


def test_the_original_is_full_of_findings() -> None:
    kinds = {leak.kind for leak in search_dicom(as_file(image()), LOOK)}
    assert {"name", "number", "place", "birth-date", "date", "uid", "person-name", "foreign-uid"} <= kinds


@pytest.mark.parametrize("name", [*DICOM, *FILES])
def test_a_leak_is_found_with_the_deidentifier_off_and_gone_with_it_on(name: str, clean: bytes) -> None:
    raw = planted(clean, name)
    assert search_dicom(raw, LOOK) != []
    assert again(raw) == []


@pytest.mark.parametrize("name", PICTURES)
def test_text_in_the_picture_is_found_and_the_object_withheld(name: str, clean: bytes) -> None:
    raw = planted(clean, name)
    assert search_dicom(raw, LOOK) == []  # the picture was not looked at
    found = search_dicom(raw, LOOK, Rapid())
    assert found != []
    assert all(leak.where.startswith("picture of frame") for leak in found)
    with pytest.raises(Withheld) as caught:
        dicom.deidentified(pydicom.dcmread(BytesIO(raw)), RULES, RapidReader(), patient="pat-471122")
    assert caught.value.reason == "burnt-in-text"


def test_all_leaks_at_once_do_not_survive() -> None:
    ds = image()
    skipped = {"name_as_base64", "name_as_hexadecimal_digits"}  # they set the same attribute as another one
    for name, plant in DICOM.items():
        if name not in skipped:
            plant(ds)
    result = dicom.deidentified(ds, RULES, NoText(), patient="pat-471122", forbidden=person_of(PATIENT).forbidden)
    assert search_dicom(as_file(result.dataset), LOOK) == []
    assert result.dropped["private"] >= 5


# --- FHIR -------------------------------------------------------------------------------------------------


def clean_observation() -> dict[str, Any]:
    return fhir.deidentified(copy.deepcopy(OBSERVATION), FHIR_RULES, person_of(PATIENT))[0]


@pytest.mark.parametrize("name", FHIR)
def test_a_leak_in_a_resource_is_found_with_the_deidentifier_off_and_gone_with_it_on(name: str) -> None:
    dirty = clean_observation()
    FHIR[name](dirty)
    assert search_fhir(msgspec.json.encode(dirty), LOOK) != []
    original = copy.deepcopy(OBSERVATION)
    FHIR[name](original)
    result, _ = fhir.deidentified(original, FHIR_RULES, person_of(PATIENT))
    assert search_fhir(msgspec.json.encode(result), LOOK) == []


def test_the_patient_herself_leaves_sex_and_a_moved_birth_date() -> None:
    result, _ = fhir.deidentified(copy.deepcopy(PATIENT), FHIR_RULES, person_of(PATIENT))
    assert search_fhir(msgspec.json.encode(result), Look(KNOWN)) == []
    assert set(result) == {"resourceType", "id", "meta", "gender", "birthDate"}


@pytest.mark.parametrize(
    "path", ["dicom/Mueller_Anneliese/1.dcm", "out/19570301/2.dcm", "out/471122-9.dcm", "out/2019-11-27/x.dcm"]
)
def test_a_file_name_that_names_her_is_found(path: str) -> None:
    assert search_name(path, KNOWN) != []
    assert search_name("dicom/0f3c/2.25.1234/2.25.77.dcm", KNOWN) == []


def test_a_finding_holds_no_value(clean: bytes) -> None:
    text = str([search_dicom(planted(clean, name), LOOK) for name in [*DICOM, *FILES]])
    assert "nneliese" not in text
    assert "1957" not in text
