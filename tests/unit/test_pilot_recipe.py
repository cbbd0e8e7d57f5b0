"""The recipe on hand-written charts: borders of the cohort, what is chosen, what is refused and why."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.cohort.contradictions import Contradictions
from flute.errors import MisuseError
from flute.intake.build import build
from flute.intake.rows import ImportReport
from flute.pilot.recipe import EXCLUSIONS, FLAGS, PILOT_RECIPE, PILOT_VARIABLES, Declared, pilot_recipe
from flute.pilot.resources import Man, resources_of
from flute.pilot.tables import LOINC, SCT
from support.recipe_tables import decisions, result_of

KEY = b"k" * 32
BIOPSY = date(2023, 5, 20)
Resource = dict[str, Any]


def man(**changes: Any) -> Man:
    plain = Man(
        patient="p1", planted="", gender="male", birth=date(1956, 5, 20), age=67, age_only=False, biopsy=BIOPSY,
        repeated=0, isup=2, psa=6.8, psa_day=date(2023, 2, 1), psa_unit="ng/mL", dre=1, dre_volume_class=2,
        volume=45.5, volume_unit="cm3", mri=date(2023, 3, 1), pirads=4, family_history=1,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def chart(**changes: Any) -> list[Resource]:
    return [msgspec.json.decode(msgspec.json.encode(r)) for r in resources_of(man(**changes))]


def of(resources: list[Resource], key: str) -> Resource:
    return next(r for r in resources if r["id"] == key)


def imported(folder: Path, resources: list[Resource], declared: Declared | None = None) -> tuple[dict, ImportReport]:
    """The only row (empty where the man is out) and the report."""
    (folder / "all.ndjson").write_bytes(b"\n".join(msgspec.json.encode(r) for r in resources))
    rows, report = build(folder, pilot_recipe(declared) if declared else PILOT_RECIPE, key=KEY)
    result = rows.connection.execute("SELECT * EXCLUDE patient FROM rows").fetchall()
    return (dict(zip([v.name for v in PILOT_VARIABLES], result[0], strict=True)) if result else {}), report


def why_out(resources: list[Resource], declared: Declared | None = None) -> str:
    """By the recipe's views and SQL alone; that an import decides so too is shown below."""
    recipe = pilot_recipe(declared) if declared else PILOT_RECIPE
    ((reason, _),) = decisions(result_of(resources, recipe)).values()
    return reason or "in"


@pytest.mark.requirement("F-PIL-9")
@pytest.mark.requirement("F-PIL-27")
@pytest.mark.requirement("F-PIL-28")
@pytest.mark.requirement("F-PIL-29")
@pytest.mark.requirement("F-PIL-30")
@pytest.mark.requirement("F-PIL-31")
@pytest.mark.requirement("F-PIL-32")
def test_a_chart_becomes_one_row_with_the_values_of_its_resources(tmp_path: Path) -> None:
    row, report = imported(tmp_path, chart())
    assert row == {
        "age": 67.0, "psa": 6.8, "dre": "1", "biopsy_type": "0", "volume": 45.5, "pirads": "4",
        "family_history": "1", "cspca": "1", "isup": "2", "dre_volume_class": "2",
    }  # fmt: skip
    assert (report.rows, report.patients, report.refused, report.flags) == (1, 1, {}, {})


@pytest.mark.parametrize(
    "changes", [{}, {"psa": 3.0, "dre": 0}, {"mri": None, "volume": None}, {"psa": 2.9, "dre": 1}]
)
def test_an_import_decides_as_the_recipe_alone_does(tmp_path: Path, changes: dict[str, Any]) -> None:
    row, report = imported(tmp_path, chart(**changes))
    assert why_out(chart(**changes)) == (",".join(report.excluded) or "in")
    assert bool(row) == (not report.excluded)


# --- the cohort's borders ------------------------------------------------------------------------


@pytest.mark.requirement("F-PIL-2")
@pytest.mark.parametrize(
    ("psa", "dre", "expected"),
    [
        (3.0, 0, "no-suspicion"),
        (3.0, None, "no-suspicion"),
        (3.0, 1, "in"),
        (3.04, 0, "in"),
        (3.1, 0, "in"),
        (2.9, 1, "in"),
        (0.5, 0, "no-suspicion"),
        (None, 0, "in"),
    ],
)
def test_psa_must_be_above_three_unless_the_examination_is_suspicious(
    psa: float | None, dre: int | None, expected: str
) -> None:
    assert why_out(chart(psa=psa, dre=dre)) == expected


@pytest.mark.requirement("F-PIL-1")
@pytest.mark.parametrize(
    ("mri", "expected"),
    [
        (date(2022, 5, 20), "in"),
        (date(2022, 5, 19), "mri-older-than-1y"),
        (BIOPSY, "in"),
        (BIOPSY + timedelta(1), "mri-after-biopsy"),
        (None, "no-mri"),
    ],
)
def test_the_mri_lies_within_the_year_before_the_biopsy_both_ends_included(mri: date | None, expected: str) -> None:
    assert why_out(chart(mri=mri, volume=None)) == expected


def test_the_year_before_a_leap_day_begins_on_the_last_of_february() -> None:
    leap = date(2024, 2, 29)
    assert why_out(chart(biopsy=leap, mri=date(2023, 2, 28))) == "in"
    assert why_out(chart(biopsy=leap, mri=date(2023, 2, 27))) == "mri-older-than-1y"


@pytest.mark.requirement("F-PIL-3")
@pytest.mark.parametrize(
    ("version", "expected"), [("2.0", "in"), ("2.1", "in"), ("1.0", "pirads-version"), ("unknown", "pirads-version")]
)
def test_pirads_before_version_two_is_left_out_by_the_dataset_s_declaration(version: str, expected: str) -> None:
    assert why_out(chart(), Declared(pirads_version=version)) == expected


@pytest.mark.requirement("F-PIL-4")
@pytest.mark.parametrize(
    ("scheme", "pirads", "expected"),
    [
        ("systematic-and-targeted", 4, "in"),
        ("systematic", 2, "in"),
        ("systematic", 3, "biopsy-scheme"),
        ("other", 2, "biopsy-scheme"),
    ],
)
def test_the_declared_biopsy_scheme_must_fit_the_score(scheme: Any, pirads: int, expected: str) -> None:
    assert why_out(chart(pirads=pirads), Declared(scheme=scheme)) == expected


def test_a_version_that_is_no_version_is_said_at_once() -> None:
    with pytest.raises(MisuseError, match="PI-RADS version"):
        pilot_recipe(Declared(pirads_version="two"))


def test_only_the_first_reason_in_the_agreed_order_is_given() -> None:
    resources = chart(gender="female", biopsy=None, isup=None, psa=1.0, dre=0, mri=None, volume=None)
    assert why_out(resources) == "not-male"
    resources[0]["gender"] = "male"
    assert why_out(resources) == "no-biopsy"


def test_a_man_without_a_recorded_gender_is_not_shown_to_be_a_man() -> None:
    resources = chart()
    del resources[0]["gender"]
    assert why_out(resources) == "not-male"


# --- what is chosen ------------------------------------------------------------------------------


def test_the_last_psa_on_or_before_the_biopsy_counts(tmp_path: Path) -> None:
    others = {"earlier_psa": (date(2022, 1, 1), 4.4), "later_psa": (BIOPSY + timedelta(1), 0.1)}
    assert imported(tmp_path, chart(**others))[0]["psa"] == 6.8
    on_the_day = {"later_psa": (BIOPSY, 9.9)}
    assert imported(tmp_path, chart(**on_the_day))[0]["psa"] == 9.9


def test_the_index_biopsy_is_the_last_with_a_grade(tmp_path: Path) -> None:
    first = {"earlier_biopsy": (date(2023, 4, 1), 1), "repeated": 1}
    row, _ = imported(tmp_path, chart(**first))
    assert (row["isup"], row["biopsy_type"], row["age"]) == ("2", "1", 67.0)
    # The later biopsy has no grade: the earlier one is the index, and its outcome the label.
    row, _ = imported(tmp_path, chart(isup=None, **first))
    assert (row["isup"], row["biopsy_type"], row["age"]) == ("1", "0", 66.0)


def test_an_outcome_from_before_every_biopsy_is_nobody_s_label(tmp_path: Path) -> None:
    resources = chart()
    of(resources, "p1-isup")["effectiveDateTime"] = "2023-05-19"
    row, report = imported(tmp_path, resources)
    assert (row["cspca"], row["isup"]) == (None, None)
    assert report.flags == {"label-missing": 1}


def test_no_outcome_is_a_missing_label_and_never_no_cancer(tmp_path: Path) -> None:
    row, report = imported(tmp_path, chart(isup=None))
    assert row["cspca"] is None
    assert report.flags == {"label-missing": 1}
    assert report.missing["cspca"] == 1


@pytest.mark.parametrize(("isup", "cspca"), [(0, "0"), (1, "0"), (2, "1"), (3, "1"), (4, "1"), (5, "1")])
def test_cancer_is_significant_from_grade_group_two(tmp_path: Path, isup: int, cspca: str) -> None:
    row, _ = imported(tmp_path, chart(isup=isup))
    assert (row["cspca"], row["isup"]) == (cspca, str(isup))


@pytest.mark.parametrize(("code", "isup"), [("1279715000", "1"), ("1279718003", "4"), ("1279722008", "5")])
def test_snomed_grades_are_read_as_well(tmp_path: Path, code: str, isup: str) -> None:
    resources = chart()
    outcome = of(resources, "p1-isup")
    outcome["valueCodeableConcept"] = {"coding": [{"system": SCT, "code": code}]}
    outcome["code"] = {"coding": [{"system": LOINC, "code": "94734-1"}]}
    assert imported(tmp_path, resources)[0]["isup"] == isup


def test_pirads_is_the_highest_of_the_index_mri(tmp_path: Path) -> None:
    earlier = {"earlier_mri": (date(2022, 6, 1), 5)}
    assert imported(tmp_path, chart(pirads=3, second_lesion=4, **earlier))[0]["pirads"] == "4"


def test_a_score_reported_later_belongs_to_the_study_that_links_it(tmp_path: Path) -> None:
    resources = chart(mri=BIOPSY, report_days=3)
    assert imported(tmp_path, resources)[0]["pirads"] == "4"
    del of(resources, "p1-mri")["extension"]
    assert imported(tmp_path, resources)[0]["pirads"] is None


def test_the_links_address_of_the_guide_s_examples_is_read_too(tmp_path: Path) -> None:
    resources = chart(mri=BIOPSY, report_days=3)
    for link in of(resources, "p1-mri")["extension"]:
        link["url"] = "https://flute.com/StructureDefinition/resource-supportingInfo"
    assert imported(tmp_path, resources)[0]["pirads"] == "4"


def test_without_an_imaging_study_the_score_s_own_date_is_the_mri_s() -> None:
    resources = [r for r in chart() if r["resourceType"] != "ImagingStudy"]
    assert why_out(resources) == "in"
    of(resources, "p1-pirads")["effectiveDateTime"] = "2022-05-19"
    assert why_out(resources) == "mri-older-than-1y"


def test_a_study_of_another_modality_is_no_mri() -> None:
    resources = [r for r in chart() if r["id"] != "p1-pirads"]
    of(resources, "p1-mri")["modality"] = [{"code": "CT"}]
    assert why_out(resources) == "no-mri"


def test_a_stated_age_wins_over_the_birth_date_and_timing_stays_unverified(tmp_path: Path) -> None:
    resources = chart(age=54, age_only=True)
    row, report = imported(tmp_path, resources)
    assert row["age"] == 54.0
    assert report.flags == {"mri-timing-unverified": 1}
    assert why_out(resources, Declared(keep_unverified_timing=False)) == "mri-timing-unverified"


@pytest.mark.parametrize(("birth", "age"), [("1956-05-20", 67.0), ("1956-05-21", 66.0), ("1956", None)])
def test_age_is_in_whole_years_at_the_biopsy(tmp_path: Path, birth: str, age: float | None) -> None:
    resources = chart()
    resources[0]["birthDate"] = birth
    assert imported(tmp_path, resources)[0]["age"] == age


def test_family_history_looks_at_every_condition(tmp_path: Path) -> None:
    assert imported(tmp_path, chart(second_condition=True))[0]["family_history"] == "1"
    assert imported(tmp_path, chart(family_history=0))[0]["family_history"] == "0"
    assert imported(tmp_path, chart(family_history=0, second_condition=True))[0]["family_history"] == "0"


def test_no_record_of_the_family_is_missing_unless_declared_to_mean_no(tmp_path: Path) -> None:
    resources = chart(family_history=None)
    assert imported(tmp_path, resources)[0]["family_history"] is None
    declared = Declared(no_record_means_no_family_history=True)
    assert imported(tmp_path, resources, declared)[0]["family_history"] == "0"


def test_a_family_history_that_was_not_completed_says_nothing(tmp_path: Path) -> None:
    resources = chart()
    of(resources, "p1-family")["status"] = "partial"
    row, report = imported(tmp_path, resources)
    assert row["family_history"] is None
    assert report.refused == {"status-not-final": 1}


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.requirement("NF-PIL-1")
@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [(6.8, "ng/mL", 6.8), (6.8, "ug/L", 6.8), (0.0068, "mg/L", 6.8), (0.00307, "mg/L", 3.07), (12, "ng/mL", 12.0)],
)
def test_psa_in_any_convertible_unit_is_the_same_number(
    tmp_path: Path, value: float, code: str, expected: float
) -> None:
    resources = chart()
    of(resources, "p1-psa")["valueQuantity"] |= {"value": value, "code": code, "unit": code}
    assert imported(tmp_path, resources)[0]["psa"] == expected


@pytest.mark.requirement("NF-PIL-1")
@pytest.mark.parametrize("code", ["cm3", "mL", "cc"])
def test_volume_in_any_convertible_unit_is_the_same_number(tmp_path: Path, code: str) -> None:
    resources = chart()
    of(resources, "p1-volume")["valueQuantity"] |= {"code": code}
    assert imported(tmp_path, resources)[0]["volume"] == 45.5


def test_a_unit_in_words_alone_is_taken_and_flagged(tmp_path: Path) -> None:
    resources = chart()
    quantity = of(resources, "p1-psa")["valueQuantity"]
    del quantity["code"], quantity["system"]
    quantity["unit"] = "µg/L"
    row, report = imported(tmp_path, resources)
    assert row["psa"] == 6.8
    assert report.flags == {"unit-without-code": 1}


# --- what is refused -----------------------------------------------------------------------------


def _set(key: str, **changes: Any) -> Any:
    def change(resources: list[Resource]) -> None:
        of(resources, key).update(changes)

    return change


def _drop(key: str, *elements: str) -> Any:
    def change(resources: list[Resource]) -> None:
        for element in elements:
            del of(resources, key)[element]

    return change


def _quantity(key: str, **changes: Any) -> Any:
    def change(resources: list[Resource]) -> None:
        of(resources, key)["valueQuantity"].update(changes)

    return change


BROKEN = {
    "psa in mmol/L": (_quantity("p1-psa", code="mmol/L"), "unit-not-convertible", "psa"),
    "psa in a unit of another code system": (_quantity("p1-psa", system="urn:x"), "unit-not-convertible", "psa"),
    "psa without any unit": (_set("p1-psa", valueQuantity={"value": 5}), "unit-not-convertible", "psa"),
    "psa below a limit": (_quantity("p1-psa", comparator="<"), "wrong-type", "psa"),
    "psa in quotes": (_quantity("p1-psa", value="6.8"), "wrong-type", "psa"),
    "psa as text": (lambda r: (_drop("p1-psa", "valueQuantity")(r), _set("p1-psa", valueString="6.8")(r)),
                    "wrong-type", "psa"),
    "psa without value": (_drop("p1-psa", "valueQuantity"), "required-element-missing", "psa"),
    "psa negative": (_quantity("p1-psa", value=-1), "value-out-of-range", "psa"),
    "psa beyond anything measured": (_quantity("p1-psa", value=1e12), "value-out-of-range", "psa"),
    "psa preliminary": (_set("p1-psa", status="preliminary"), "status-not-final", "psa"),
    "psa without status": (_drop("p1-psa", "status"), "required-element-missing", "psa"),
    "psa of nobody": (_drop("p1-psa", "subject"), "required-element-missing", "psa"),
    "psa of a stranger": (_set("p1-psa", subject={"reference": "Patient/p9"}), "reference-not-resolved", "psa"),
    "psa of a group": (_set("p1-psa", subject={"reference": "Group/p1"}), "reference-not-resolved", "psa"),
    "volume in litres": (_quantity("p1-volume", code="L"), "unit-not-convertible", "volume"),
    "volume of no organ": (_drop("p1-volume", "bodySite"), "required-element-missing", "volume"),
    "pirads 0": (_set("p1-pirads", valueInteger=0), "pirads-out-of-range", "pirads"),
    "pirads 6": (_set("p1-pirads", valueInteger=6), "pirads-out-of-range", "pirads"),
    "pirads 3.5": (_set("p1-pirads", valueInteger=3.5), "wrong-type", "pirads"),
    "pirads as a code": (lambda r: (_drop("p1-pirads", "valueInteger")(r),
                                    _set("p1-pirads", valueCodeableConcept={"text": "4"})(r)),
                         "wrong-type", "pirads"),
    "outcome without code": (_set("p1-isup", valueCodeableConcept={"text": "3+4"}), "code-not-in-value-set", "cspca"),
    "outcome of two grades": (
        _set("p1-isup", valueCodeableConcept={"coding": [{"system": LOINC, "code": "LA30794-4"},
                                                         {"system": SCT, "code": "1279714001"}]}),
        "code-not-in-value-set", "cspca"),
    "examination without outcome": (_drop("p1-dre", "outcome"), "required-element-missing", "dre"),
    "examination of unknown outcome": (
        _set("p1-dre", outcome={"coding": [{"system": SCT, "code": "1"}]}), "code-not-in-value-set", "dre"),
    "examination of no organ": (_drop("p1-dre", "bodySite"), "required-element-missing", "dre"),
    "examination not done": (_set("p1-dre", status="not-done"), "status-not-final", "dre"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_resource_that_does_not_conform_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    change, reason, variable = BROKEN[name]
    resources = chart()
    change(resources)
    row, report = imported(tmp_path, resources)
    assert report.refused == {reason: 1}
    assert row[variable] is None


BROKEN_BIOPSIES = {
    "without category": (_drop("p1-biopsy", "category"), "required-element-missing"),
    "of unknown category": (_set("p1-biopsy", category={"text": "second"}), "code-not-in-value-set"),
    "without site": (_drop("p1-biopsy", "bodySite"), "required-element-missing"),
    "without time": (_drop("p1-biopsy", "performedDateTime"), "required-element-missing"),
    "at an age in months": (
        lambda r: (_drop("p1-biopsy", "performedDateTime")(r),
                   _set("p1-biopsy", performedAge={"value": 804, "code": "mo"})(r)), "unit-not-convertible"),
    "at a time in words": (
        lambda r: (_drop("p1-biopsy", "performedDateTime")(r), _set("p1-biopsy", performedString="May")(r)),
        "wrong-type"),
    "at an age of 200": (
        lambda r: (_drop("p1-biopsy", "performedDateTime")(r),
                   _set("p1-biopsy", performedAge={"value": 200, "code": "a"})(r)), "value-out-of-range"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_BIOPSIES)
def test_a_biopsy_that_does_not_conform_is_no_biopsy(tmp_path: Path, name: str) -> None:
    change, reason = BROKEN_BIOPSIES[name]
    resources = chart()
    change(resources)
    row, report = imported(tmp_path, resources)
    assert report.refused == {reason: 1}
    assert report.excluded == {"no-biopsy": 1}
    assert row == {}


def test_a_biopsy_of_another_organ_is_nobody_s_business_here(tmp_path: Path) -> None:
    resources = chart()
    of(resources, "p1-biopsy")["bodySite"] = [{"coding": [{"system": SCT, "code": "39607008"}]}]
    _, report = imported(tmp_path, resources)
    assert (report.excluded, report.refused) == ({"no-biopsy": 1}, {})


def test_a_biopsy_whose_code_names_the_prostate_needs_no_site() -> None:
    resources = chart()
    biopsy = of(resources, "p1-biopsy")
    del biopsy["bodySite"]
    biopsy["code"] = {"coding": [{"system": SCT, "code": "65575008"}]}
    assert why_out(resources) == "in"


def as_transaction(resources: list[Resource]) -> Resource:
    """The guide's example form: a transaction whose references are uuids."""
    names = [f"{r['resourceType']}/{r['id']}" for r in resources]
    urns = {name: f"urn:uuid:00000000-0000-4000-8000-{i:012d}" for i, name in enumerate(names)}
    text = msgspec.json.encode(resources).decode()
    for name, urn in urns.items():
        text = text.replace(f'"{name}"', f'"{urn}"')
    entries = [
        {"fullUrl": urn, "resource": r, "request": {"method": "POST", "url": r["resourceType"]}}
        for urn, r in zip(urns.values(), msgspec.json.decode(text), strict=True)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@pytest.mark.parametrize(
    ("unit", "rows", "refused"),
    [("ng/mL", 1, {}), ("mmol/L", 0, {"transaction-refused": 9, "unit-not-convertible": 1})],
)
def test_a_transaction_bundle_is_imported_whole_or_not_at_all(
    tmp_path: Path, unit: str, rows: int, refused: dict[str, int]
) -> None:
    resources = chart()
    of(resources, "p1-psa")["valueQuantity"]["code"] = unit
    (tmp_path / "bundle.json").write_bytes(msgspec.json.encode(as_transaction(resources)))
    _, report = build(tmp_path, PILOT_RECIPE, key=KEY)
    assert (report.rows, report.refused, report.patients) == (rows, refused, rows)


def test_every_word_of_the_report_is_declared() -> None:
    strict = Declared(keep_unverified_timing=False, contradictions=Contradictions("refuse-person"))
    sql = pilot_recipe(strict).sql
    assert [word for word in (*FLAGS, *EXCLUSIONS) if f"'{word}'" not in sql] == []
    assert PILOT_RECIPE.cohort is not None
    assert set(FLAGS) == {flag.word for flag in PILOT_RECIPE.cohort.flags}
    assert {rule.word for rule in PILOT_RECIPE.cohort.rules} < set(EXCLUSIONS)
