"""The simulated pilot as tables: what each form carries, how it is labelled, and that its mapping turns it back."""

from __future__ import annotations

import csv
import sqlite3
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from flute.data.reader import Reader
from flute.errors import MisuseError
from flute.pilot.exports import Form, write_tables
from flute.pilot.hospital import hospital_tables
from flute.pilot.mappings import MAPPINGS, mapping_text
from flute.pilot.omop import FIRST_CONCEPT, NO_DATE, omop_tables
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.resources import Man, resources_of
from flute.pilot.simulate import simulate
from flute.tabular.mapping_file import read_mapping
from flute.tabular.sheets import SheetsReader
from flute.tabular.sql import SqlReader

Fact = tuple[str, ...]
FACTORS = {"mg/L": Decimal(1000)}
SAME_UNIT = {"ug/L": "ng/mL", "mg/L": "ng/mL", "mL": "cm3"}


@pytest.fixture(scope="module")
def men() -> tuple[Man, ...]:
    return tuple(man for hub in simulate(5, {"huvh": 30, "chu": 30, "irst": 60}).values() for man in hub.men)


def fact(resource: dict[str, Any]) -> Fact:
    """What a resource says about whom and when, without its id and without how it is spelt."""
    if resource["resourceType"] == "Patient":
        return ("Patient", resource["id"], resource["gender"], resource["birthDate"])
    subject = (resource.get("subject") or resource["patient"])["reference"]
    code = resource.get("code", {}).get("coding", [{}])[0].get("code", "")
    when = resource.get("effectiveDateTime") or resource.get("performedDateTime") or resource.get("started") or ""
    age = str(resource.get("performedAge", {}).get("value", ""))
    links = str(len(resource.get("extension", [])))
    return (resource["resourceType"], subject, code, _value(resource), when[:10], age, links)


def _value(resource: dict[str, Any]) -> str:
    if "valueQuantity" in resource:
        quantity = resource["valueQuantity"]
        number = Decimal(str(quantity["value"])) * FACTORS.get(quantity["code"], Decimal(1))
        return f"{number.normalize():f} {SAME_UNIT.get(quantity['code'], quantity['code'])}"
    concept = resource.get("valueCodeableConcept") or resource.get("outcome") or resource.get("category")
    if concept is not None:
        return str(concept["coding"][0]["code"])
    conditions = [c["code"].get("coding", [{}])[0].get("code") for c in resource.get("condition", [])]
    return str(resource.get("valueInteger", "399068003" in conditions))


def reader(place: Path, mapping: str) -> Reader:
    found = read_mapping(mapping, PILOT_MODEL)
    if place.is_dir():
        return SheetsReader(place, found, PILOT_MODEL)
    return SqlReader(f"sqlite:///{place}", found, PILOT_MODEL)


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize("varied", [False, True], ids=["plain", "varied"])
@pytest.mark.parametrize("form", ["csv", "sql", "omop"])
def test_every_form_says_of_every_man_what_his_chart_says(
    form: Form, varied: bool, men: tuple[Man, ...], tmp_path: Path
) -> None:
    place = write_tables(men, tmp_path / "out", form, varied=varied)
    mapping = (tmp_path / "out" / "mapping.yaml").read_text(encoding="utf-8")
    pages = list(reader(place, mapping).pages(None))
    assert [refused for page in pages for refused in page.refused] == []
    made = Counter(fact(record.resource) for page in pages for record in page.records)
    assert made == Counter(fact(resource) for man in men for resource in resources_of(man))


@pytest.mark.parametrize("form", ["csv", "sql", "omop"])
def test_everything_is_labelled_simulated(form: Form, men: tuple[Man, ...], tmp_path: Path) -> None:
    place = write_tables(men[:5], tmp_path / "out", form)
    mapping = (tmp_path / "out" / "mapping.yaml").read_text(encoding="utf-8")
    assert "SIMULATED" in (tmp_path / "out" / "SIMULATED.txt").read_text(encoding="utf-8")
    assert mapping.startswith("# SIMULATED")
    for page in reader(place, mapping).pages(None):
        for record in page.records:
            assert {"SIMULATED", "HTEST"} == {tag["code"] for tag in record.resource["meta"]["tag"]}
    if place.suffix == ".db":
        with sqlite3.connect(place) as database:
            assert "SIMULATED" in database.execute("SELECT notice FROM simulated").fetchone()[0]


def test_the_varied_form_is_another_hospitals(men: tuple[Man, ...], tmp_path: Path) -> None:
    """Not one header, word, day or decimal sign is as in the plain form."""
    write_tables(men, tmp_path / "plain", "csv")
    write_tables(men, tmp_path / "varied", "csv", varied=True)
    plain = list(csv.reader((tmp_path / "plain" / "lab_results.csv").open(encoding="utf-8")))
    varied = list(csv.reader((tmp_path / "varied" / "lab_results.csv").open(encoding="cp1252"), delimiter=";"))
    assert plain[0] != varied[0]
    assert sorted(plain[0]) == sorted(varied[0])
    units = {row[varied[0].index("unit")] for row in varied[1:] if "PSA" in row}
    assert units == {"ng/ml", "µg/L", "mg/L"}
    results = [row[varied[0].index("result")] for row in varied[1:]]
    assert any("," in result for result in results)
    assert not any("." in result for result in results)
    with pytest.raises(UnicodeDecodeError):
        (tmp_path / "varied" / "patients.csv").read_text(encoding="utf-8")


def test_a_plain_mapping_does_not_read_the_varied_form(men: tuple[Man, ...], tmp_path: Path) -> None:
    write_tables(men, tmp_path, "sql", varied=True)
    pages = list(reader(tmp_path / "hospital.db", mapping_text("sql")).pages(None))
    refused = Counter(r.finding.reason for page in pages for r in page.refused)
    assert set(refused) >= {"code-not-in-value-set", "date-invalid", "wrong-type"}


def test_omop_has_what_the_cdm_demands(men: tuple[Man, ...]) -> None:
    """Fields that CDM v5.4 does not let be empty, among the columns that are written; ids of sites begin at 2e9."""
    needed = {
        "person": ("person_id", "gender_concept_id", "year_of_birth", "race_concept_id", "ethnicity_concept_id"),
        "measurement": ("measurement_id", "person_id", "measurement_concept_id", "measurement_date",
                        "measurement_type_concept_id"),
        "observation": ("observation_id", "person_id", "observation_concept_id", "observation_date",
                        "observation_type_concept_id"),
        "procedure_occurrence": ("procedure_occurrence_id", "person_id", "procedure_concept_id", "procedure_date",
                                 "procedure_type_concept_id"),
        "condition_occurrence": ("condition_occurrence_id", "person_id", "condition_concept_id",
                                 "condition_start_date", "condition_type_concept_id"),
        "concept": ("concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "concept_code"),
    }  # fmt: skip
    tables = {sheet.name: sheet for sheet in omop_tables(men)}
    assert set(tables) == set(needed)
    for name, columns in needed.items():
        sheet = tables[name]
        places = [list(sheet.columns).index(column) for column in columns]
        assert sheet.rows
        assert all(row[place] is not None for row in sheet.rows for place in places)
        keys = [row[0] for row in sheet.rows]
        assert len(set(keys)) == len(keys)
    assert min(row[0] for row in tables["concept"].rows) == FIRST_CONCEPT  # type: ignore[type-var]
    days = list(tables["procedure_occurrence"].columns).index("procedure_date")
    unknown = sum(row[days] == NO_DATE for row in tables["procedure_occurrence"].rows)
    assert unknown == sum(man.age_only for man in men) > 0


def test_tables_have_rows_that_nobody_asked_for(men: tuple[Man, ...]) -> None:
    lab = next(sheet for sheet in hospital_tables(men) if sheet.name == "lab_results")
    assert {row[2] for row in lab.rows} == {"PSA", "HB"}


def test_mappings_are_found_by_name_or_file(tmp_path: Path) -> None:
    for name in MAPPINGS:
        assert read_mapping(mapping_text(name), PILOT_MODEL).name.startswith("simulated-")
    own = tmp_path / "own.yaml"
    own.write_text("\ufeffflute: mapping/1\n", encoding="utf-8")
    assert mapping_text(str(own)) == "flute: mapping/1\n"
    own.write_bytes(b"\xff\xfe")
    for wrong in (str(own), str(tmp_path / "none.yaml"), "cvs"):
        with pytest.raises(MisuseError, match="none of that name ships"):
            mapping_text(wrong)
