"""The residual check's own rules: spellings it knows, and what it must not take for a person."""

from __future__ import annotations

import ast
from datetime import date
from pathlib import Path

import pytest

import flute.deidentify.residual as module
from flute.deidentify.needles import Known, known_of_dicom, known_of_fhir, plain
from flute.deidentify.residual import Look, search_fhir, search_name
from support.planted_leaks import OBSERVATION, PATIENT, image

BIRTH = Known(births=frozenset({date(1957, 3, 1)}))
NAME = Known(names=frozenset({"Müller-Roth^Anneliese"}))


def found(text: str, known: Known) -> list[str]:
    return [leak.kind for leak in search_name(text, known)]


@pytest.mark.parametrize(
    "text",
    ["19570301", "1957-03-01", "1957/3/1", "1.3.1957", "01.03.57", "01-03-1957", "3/1/1957", "03/01/57", "01031957",
     "1 March 1957", "1. März 1957", "01-Mar-1957", "1 de marzo de 1957", "March 1, 1957", "1 mars 1957", "570301",
     "010357", "geb.1.3.57;"],
)  # fmt: skip
def test_a_birth_date_is_found_as_people_and_machines_write_it(text: str) -> None:
    assert found(f"x {text} y", BIRTH) == ["birth-date"]


@pytest.mark.parametrize(
    "text", ["19570302", "1957-03-10", "1.3.1958", "11.3.1957", "1957030123", "0.570301", "5703011"]
)
def test_other_numbers_are_no_birth_date(text: str) -> None:
    assert found(f"x {text} y", BIRTH) == []


@pytest.mark.parametrize(
    "text",
    [
        "Anneliese",
        "ANNELIESE",
        "muller",
        "MÜLLER",
        "Mueller-Roth",
        "roth, a.",
        "annelieseX",
        "mullerroth",
        "Roth_1957",
    ],
)
def test_a_name_is_found_in_its_spellings(text: str) -> None:
    assert "name" in found(text, NAME | Known(names=frozenset({"Mueller Roth"})))


@pytest.mark.parametrize("text", ["rothe", "grotho", "annelie", "fra"])
def test_parts_of_other_words_are_no_name(text: str) -> None:
    assert found(text, NAME) == []


def test_short_names_count_as_whole_words_only() -> None:
    short = Known(names=frozenset({"Li^Bo"}))
    assert found("frau li", short) == ["name"]
    assert found("relic", short) == []


def test_what_an_image_says_of_its_patient_is_collected_without_tables() -> None:
    known = known_of_dicom(image())
    assert {"Müller-Roth^Anneliese^Ida", "Oberländer^Fritz", "Szymanska^Zofia"} <= known.names
    assert {"471122-9", "ACC20191127", "SE-88412", "26380"} <= known.numbers
    assert {"Klinikum Blautal", "Lindenallee 1, Blaubeuren", "MRBLAUTAL2"} <= known.places
    assert known.births == {date(1957, 3, 1)}
    assert date(2019, 11, 27) in known.days
    assert "1" not in known.numbers


def test_what_resources_say_is_collected() -> None:
    known = known_of_fhir(PATIENT) | known_of_fhir(OBSERVATION)
    assert {"Müller-Roth", "Anneliese", "Ida", "山田 太郎"} <= known.names
    assert {"471122-9", "pat-471122", "obs-99120031", "+49 731 500 12345"} <= known.numbers
    assert known.births == {date(1957, 3, 1)}
    assert known.days == {date(2019, 11, 27)}


def test_a_code_of_eight_digits_is_no_date() -> None:
    """SNOMED CT 17621005 reads like 5 October 1762."""
    resource = {"outcome": {"coding": [{"code": "17621005"}]}}
    assert known_of_fhir(resource).days == frozenset()


def test_a_moved_date_that_is_another_of_the_patients_is_no_finding() -> None:
    known = Known(days=frozenset({date(2019, 1, 1), date(2018, 1, 1)}))
    line = b'{"effectiveDateTime":"2018-01-01T10:00:00Z"}'
    assert search_fhir(line, Look(known, frozenset({date(2019, 1, 1)}))) == []
    kept = search_fhir(b'{"effectiveDateTime":"2019-01-01"}', Look(known, frozenset({date(2019, 1, 1)})))
    assert [leak.kind for leak in kept] == ["date"]


def test_plain_text_keeps_other_scripts() -> None:
    assert plain("Müller ß É 山田") == "muller ss e 山田"


def test_knowledge_does_not_show_itself() -> None:
    assert "Anneliese" not in repr(known_of_fhir(PATIENT))


@pytest.mark.parametrize("name", ["residual", "needles", "eyes"])
def test_the_check_shares_nothing_with_the_deidentifier(name: str) -> None:
    own = {"flute.errors", "flute.deidentify.needles", "flute.deidentify.residual"}
    tree = ast.parse(Path(module.__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {found for found in imported if found.startswith("flute") and not found.startswith("flute.defaults")}
    assert ours <= own
