"""Resources from rows of tables: they say what the simulator's say, conform, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from flute.conformance.build import build, says_nothing
from flute.conformance.cells import Measured, Unfit, is_blank
from flute.conformance.check import Checker
from flute.errors import MisuseError
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.resources import resources_of
from flute.pilot.views import PILOT_VIEWS
from flute.views.view import compile_view
from support.mutants import man

CHECKER = Checker(PILOT_MODEL)
VIEWS = [compile_view(name, declaration) for name, declaration in PILOT_VIEWS.items()]


def made(element: str, key: str = "k", /, **values: object) -> dict[str, Any]:
    return build(PILOT_MODEL.element(element), key, "m", values)


def why(element: str, /, **values: object) -> tuple[str, str, str]:
    with pytest.raises(Unfit) as caught:
        made(element, **values)
    finding = caught.value.finding
    assert finding.mend.endswith(".")
    return finding.reason, finding.rule, finding.found


# --- the same rows as the simulator's resources -------------------------------------------------------------

ROWS: list[tuple[dict[str, Any], str, str, dict[str, object]]] = [
    ({}, "m-psa", "psa", {"value": Measured("6.7", "ng/ml"), "when": "2023-03-01"}),
    ({"psa_unit": "ug/L"}, "m-psa", "psa", {"value": Measured(6.7, "µg/L"), "when": date(2023, 3, 1)}),
    ({}, "m-volume", "volume", {"value": Measured(Decimal("44.50"), "cc"), "when": "2023-04-11"}),
    ({"volume_unit": "mL"}, "m-volume", "volume", {"value": Measured(44.5, "ml"), "when": "2023-04-11 00:00:00"}),
    ({}, "m-pirads", "pirads", {"value": 4.0, "when": datetime(2023, 4, 11, 8, 30)}),
    ({}, "m-dre", "dre", {"value": True, "when": "2023-03-01"}),
    ({"dre": 0}, "m-dre", "dre", {"value": "0.0", "when": "2023-03-01"}),
    ({}, "m-dre-volume", "dre_volume_class", {"value": "2", "when": "2023-03-01"}),
    ({}, "m-biopsy", "biopsy", {"category": "initial", "when": "2023-05-20"}),
    ({"repeated": 1, "age_only": True}, "m-biopsy", "biopsy", {"category": "repeated", "age": "67"}),
    ({}, "m-isup", "outcome", {"value": 3, "when": "2023-05-27"}),
    ({"isup": 0}, "m-isup", "outcome", {"value": "0", "when": "2023-05-27"}),
    ({}, "m-family", "family_history", {"value": 1}),
    ({"family_history": 0}, "m-family", "family_history", {"value": False}),
    ({"pirads": None, "second_lesion": None, "volume": None}, "m-mri", "mri", {"when": "2023-04-11T09:30:00+01:00"}),
    ({"second_lesion": None}, "m-mri", "mri",
     {"when": "2023-04-11T09:30+01:00", "links": ["Observation/m-pirads", "Observation/m-volume"]}),
    ({}, "m", "patient", {"gender": "male", "birth": "1955-03-01"}),
]  # fmt: skip


@pytest.mark.parametrize(("chart", "key", "element", "values"), ROWS, ids=[f"{r[2]}-{i}" for i, r in enumerate(ROWS)])
def test_a_row_of_a_table_gives_the_same_rows_as_the_simulator(
    chart: Mapping[str, Any], key: str, element: str, values: dict[str, object]
) -> None:
    simulated = next(r for r in resources_of(man("m", **chart)) if r["id"] == key)
    built = msgspec.json.decode(msgspec.json.encode(made(element, key, **values)))
    for view in VIEWS:
        if view.resource == built["resourceType"]:
            assert view.rows(built) == view.rows(simulated), view.name
    assert CHECKER.check(built) == []
    assert built.get("meta", {}).get("profile") == simulated["meta"].get("profile")


def test_a_profile_of_others_is_claimed_only_where_it_is_met() -> None:
    assert "meta" in made("psa", value="6.7")
    assert "meta" not in made("psa", value="6.75")
    assert "meta" not in made("psa", value=Measured("6.7", "ug/L"))
    assert "meta" not in made("outcome", value="0")
    assert "meta" not in made("biopsy", category="initial", when="2023-05-20")


def test_digits_and_unit_stay_as_the_source_has_them() -> None:
    quantity = made("psa", value=Measured("0.00312", "mg/l"))["valueQuantity"]
    assert quantity == {"value": 0.00312, "unit": "mg/L", "system": "http://unitsofmeasure.org", "code": "mg/L"}
    assert made("volume", value="40")["valueQuantity"] == {
        "value": 40, "unit": "cc", "system": "http://unitsofmeasure.org", "code": "cm3",
    }  # fmt: skip


def test_where_two_parts_exclude_each_other_the_first_is_taken() -> None:
    both = made("biopsy", category="initial", when="2023-05-20", age=67)
    assert both["performedDateTime"] == "2023-05-20"
    assert "performedAge" not in both


# --- what does not fit ------------------------------------------------------------------------------------------


@pytest.mark.requirement("NF-PIL-4")
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("3,4", "wrong-type"), ("1.234,5", "wrong-type"), ("<0.1", "wrong-type"), ("6.7 ng/mL", "wrong-type"),
        ("six", "wrong-type"), (float("inf"), "wrong-type"), (True, "wrong-type"), ("1e999", "wrong-type"),
        (-0.1, "value-out-of-range"), ("100000.1", "value-out-of-range"), ("٣", "wrong-type"),
        (Measured(3, "mmol/L"), "unit-not-convertible"), (Measured(3, "NG/ML"), "unit-not-convertible"),
        (Measured("101", "mg/L"), "value-out-of-range"), ("", "required-element-missing"),
        (None, "required-element-missing"), (float("nan"), "required-element-missing"),
    ],
)  # fmt: skip
def test_a_number_that_does_not_fit_is_refused(value: object, reason: str) -> None:
    assert why("psa", value=value)[0] == reason


def test_a_bound_a_comma_and_a_unit_in_the_number_are_told_apart() -> None:
    for value, mend in (("<0.1", "A bound"), ("3,4", "decimal point and without"), ("6.7 ng/mL", "its own column")):
        with pytest.raises(Unfit) as caught:
            made("psa", value=value)
        assert mend in caught.value.finding.mend
        assert value not in caught.value.text, "the text crosses rooms; only the finding quotes"


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        ("01.02.23", "four digits"), ("1/2/23", "four digits"), ("23-02-01", "four digits"),
        ("01.02.2023", "which number is the month"), ("2023-02-30", "no such day"), ("2023-13-01", "no such day"),
        ("20230201", "year-month-day"), ("0000-01-01", "no such day"), ("2023-02-01T25:00:00Z", "no such day"),
        ("2023-2-1", "year-month-day"), (44958, "year-month-day"), ("2023-02-01T10:00:00+99:00", "no such day"),
    ],
)  # fmt: skip
def test_a_date_is_written_in_one_way_or_refused(value: object, mend: str) -> None:
    with pytest.raises(Unfit) as caught:
        made("psa", value=3, when=value)
    assert (caught.value.finding.reason, caught.value.finding.rule) == ("date-invalid", "psa-when")
    assert mend in caught.value.finding.mend


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("2023-02-01", "2023-02-01"), ("2023", "2023"), ("2023-02", "2023-02"), (date(2023, 2, 1), "2023-02-01"),
        (datetime(2023, 2, 1, 23, 30), "2023-02-01"), ("2023-02-01 23:30:00", "2023-02-01"),
        (datetime(2023, 2, 1, 9, 30, tzinfo=UTC), "2023-02-01T09:30:00+00:00"),
        ("2023-02-01T09:30Z", "2023-02-01T09:30:00Z"),
    ],
)  # fmt: skip
def test_dates_keep_what_they_say(value: object, written: str) -> None:
    resource = made("psa", value=3, when=value)
    assert resource["effectiveDateTime"] == written
    assert not [f for f in CHECKER.check(resource) if not f.warning]


@pytest.mark.parametrize(
    ("element", "values", "expected"),
    [
        ("pirads", {"value": 6}, ("pirads-out-of-range", "pirads-value", "6")),
        ("pirads", {"value": "4a"}, ("wrong-type", "pirads-value", "4a")),
        ("pirads", {"value": 3.5}, ("wrong-type", "pirads-value", "3.5")),
        ("dre", {"value": "suspicious"}, ("code-not-in-value-set", "dre-value", "suspicious")),
        ("outcome", {"value": 6}, ("code-not-in-value-set", "outcome-value", "6")),
        ("biopsy", {"category": "initial"}, ("required-element-missing", "biopsy-when", "")),
        ("biopsy", {"when": "2023-05-20"}, ("required-element-missing", "biopsy-category", "")),
        ("biopsy", {"category": "initial", "age": 131}, ("value-out-of-range", "biopsy-age", "131")),
        ("family_history", {"value": "maybe"}, ("code-not-in-value-set", "family-history-value", "maybe")),
        ("patient", {"gender": "m"}, ("code-not-in-value-set", "patient-gender", "m")),
        ("mri", {"when": "2023-04-11", "links": ["7"]}, ("wrong-type", "mri-links", "['7']")),
    ],
)
def test_each_kind_refuses_what_it_cannot_be(
    element: str, values: dict[str, object], expected: tuple[str, str, str]
) -> None:
    assert why(element, **values) == expected


@pytest.mark.parametrize(("key", "subject"), [("a b", "m"), ("k", "ü"), ("", "m"), ("x" * 65, "m"), ("k", "m\n")])
def test_an_id_that_fhir_does_not_allow_is_refused(key: str, subject: str) -> None:
    with pytest.raises(Unfit) as caught:
        build(PILOT_MODEL.element("psa"), key, subject, {"value": 3})
    assert caught.value.finding.reason == "id-invalid"


def test_a_part_that_the_element_lacks_is_our_own_mistake() -> None:
    with pytest.raises(MisuseError, match="no part weight"):
        made("psa", weight=80)


# --- rows that say nothing -------------------------------------------------------------------


def test_a_row_that_says_nothing_is_told_from_one_that_says_half() -> None:
    psa, biopsy, mri = (PILOT_MODEL.element(name) for name in ("psa", "biopsy", "mri"))
    assert says_nothing(psa, {"value": Measured(None, "ng/mL"), "when": "2023-01-01"})
    assert not says_nothing(psa, {"value": "x"})
    assert says_nothing(biopsy, {"category": " ", "when": None})
    assert not says_nothing(biopsy, {"when": "2023-05-20"})
    assert says_nothing(mri, {})
    assert not says_nothing(mri, {"when": "2023-04-11"})


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), Measured(""), (), []])
def test_cells_in_which_nothing_stands(value: object) -> None:
    assert is_blank(value)
    assert not is_blank(0)
    assert not is_blank(False)
