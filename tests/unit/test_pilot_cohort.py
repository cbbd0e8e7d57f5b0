"""The pilot's cohort: its rules in PILOT.md's order, every planted man found out, every border decided as it says."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flute.cohort.contradictions import Contradictions
from flute.cohort.flow import flow_of
from flute.cohort.overrides import KeepIn, LeaveOut, SamePerson, apply_by_hand, check_override, settle
from flute.cohort.persons import join_persons
from flute.cohort.rules import KEPT
from flute.conformance.units import factors
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError
from flute.intake.build import build
from flute.pilot.borders import BorderMan, border_men, planted_borders
from flute.pilot.cohort import EXCLUSIONS, FACTS, FLAGS, Declared, declared_of, pilot_cohort
from flute.pilot.recipe import PILOT_RECIPE, pilot_recipe
from flute.pilot.resources import resources_of
from flute.pilot.simulate import TRUTH, SimulatedHub, simulate, write_pilot
from flute.pilot.tables import PLANTED_REASONS
from flute.pilot.usable import UNIT_FACTORS
from support.recipe_tables import decisions, plain, result_of, tables_of

KEY = bytes(range(32))
PILOT_MD_ORDER = (
    "not-male", "no-biopsy", "no-suspicion", "no-mri", "mri-after-biopsy", "mri-older-than-1y", "pirads-version",
    "biopsy-scheme",
)  # fmt: skip
"""PILOT.md, section 2."""


def known_as(patient: str) -> str:
    return pseudonym(KEY, patient)


# --- the declaration -------------------------------------------------------------------------------


def test_the_rules_stand_in_the_order_of_the_pilot_s_text() -> None:
    words = tuple(rule.word for rule in pilot_cohort().rules)
    assert words[: len(PILOT_MD_ORDER)] == PILOT_MD_ORDER
    assert words[len(PILOT_MD_ORDER) :] == ("contradictory-identity",)
    assert tuple(e for e in EXCLUSIONS if e in PILOT_MD_ORDER) == PILOT_MD_ORDER


@pytest.mark.requirement("F-PIL-1")
@pytest.mark.requirement("F-PIL-2")
@pytest.mark.requirement("F-PIL-3")
@pytest.mark.requirement("F-PIL-4")
def test_every_rule_of_the_pilot_names_its_requirement() -> None:
    cohort = pilot_cohort()
    assert {word: cohort.rule(word).requirement for word in PILOT_MD_ORDER} == {
        "not-male": "F-PIL-2", "no-biopsy": "F-PIL-4", "no-suspicion": "F-PIL-2", "no-mri": "F-PIL-1",
        "mri-after-biopsy": "F-PIL-1", "mri-older-than-1y": "F-PIL-1", "pirads-version": "F-PIL-3",
        "biopsy-scheme": "F-PIL-4",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["not-male", "no-biopsy", "no-mri", "mri-after-biopsy", "contradictory-identity"])
def test_nobody_is_kept_in_against_what_makes_no_sense(word: str) -> None:
    with pytest.raises(MisuseError, match="protected"):
        check_override(KeepIn("eva", "please", known_as("p"), (word,)), pilot_cohort())


def test_declared_facts_become_the_declaration() -> None:
    assert declared_of({}) == Declared()
    assert declared_of({fact.name: fact.initial for fact in FACTS}) == Declared()
    told = declared_of({
        "pirads-version": "unknown", "biopsy-scheme": "systematic", "no-record-means-no-family-history": "yes",
        "keep-unverified-timing": "no", "same-day": "highest", "same-biopsy": "last", "two-identities": "missing",
    })  # fmt: skip
    assert told == Declared("unknown", "systematic", True, False, Contradictions("highest", "last", "missing"))


@pytest.mark.requirement("NF-PIL-1")
def test_the_recipe_s_factors_are_ucum_s() -> None:
    from flute.pilot.profiles import PSA, VOLUME

    for element in (PSA, VOLUME):
        quantity: Any = element.part("value").kind
        assert {unit: UNIT_FACTORS[unit] for unit in quantity.accepted} == {
            unit: int(factors(quantity)[unit]) for unit in quantity.accepted
        }


# --- row 5: the report equals the simulator's ground truth ------------------------------------------


@pytest.fixture(scope="module")
def hubs() -> dict[str, SimulatedHub]:
    return simulate(7, {"huvh": 150, "chu": 120, "irst": 120}, borders=True)


@pytest.fixture(scope="module", params=["huvh", "chu", "irst"])
def hub(request: pytest.FixtureRequest, hubs: dict[str, SimulatedHub]) -> tuple[SimulatedHub, Any]:
    drawn = hubs[request.param]
    return drawn, result_of(plain(r for man in drawn.men for r in resources_of(man)), PILOT_RECIPE)


@pytest.mark.requirement("F-PIL-1")
@pytest.mark.requirement("F-PIL-2")
def test_every_man_is_decided_as_the_simulator_planted_him(hub: tuple[SimulatedHub, Any]) -> None:
    drawn, connection = hub
    decided = {patient: reason for patient, (reason, _) in decisions(connection).items()}
    assert decided == {man.patient: man.planted for man in drawn.men}
    assert set(PLANTED_REASONS) <= set(decided.values())


def test_the_flow_equals_the_ground_truth(hub: tuple[SimulatedHub, Any]) -> None:
    drawn, connection = hub
    flow = flow_of(connection, pilot_cohort(), simulated=True)
    planted = list(drawn.planted.values())
    assert {step.word: step.left for step in flow.steps if step.left} == {w: planted.count(w) for w in set(planted)}
    assert (flow.found, flow.included) == (len(drawn.men), len(drawn.eligible))


def test_all_reasons_are_kept_and_the_first_is_the_one_that_is_counted(hub: tuple[SimulatedHub, Any]) -> None:
    _, connection = hub
    assert connection.execute(
        "SELECT count(*) FROM result WHERE excluded IS DISTINCT FROM reasons[1]"
    ).fetchone() == (0,)


def test_values_of_border_men_are_the_planted_ones(hub: tuple[SimulatedHub, Any]) -> None:
    drawn, connection = hub
    names = ", ".join(TRUTH)
    found = {row[0]: row[1:] for row in connection.execute(f"SELECT patient, {names} FROM result").fetchall()}
    for place, patient in enumerate(drawn.eligible):
        read = [np.nan if value is None else float(value) for value in found[patient]]
        np.testing.assert_array_equal(read, [drawn.truth[name][place] for name in TRUTH])


def test_an_import_s_report_equals_the_ground_truth_too(tmp_path: Path) -> None:
    drawn = write_pilot(tmp_path, 9, {"irst": 60}, borders=True)["irst"]
    rows, report = build(tmp_path / "irst", PILOT_RECIPE, key=KEY)
    planted = list(drawn.planted.values())
    assert report.excluded == {word: planted.count(word) for word in set(planted)}
    kept = {row[0] for row in rows.connection.execute("SELECT patient FROM rows").fetchall()}
    assert kept == {known_as(patient) for patient in drawn.eligible}


def grouped() -> dict[tuple[tuple[str, str], ...], list[BorderMan]]:
    groups: dict[tuple[tuple[str, str], ...], list[BorderMan]] = defaultdict(list)
    for border in border_men():
        groups[tuple(sorted(border.facts.items()))].append(border)
    return groups


@pytest.mark.requirement("F-PIL-1")
@pytest.mark.requirement("F-PIL-2")
@pytest.mark.requirement("F-PIL-3")
@pytest.mark.requirement("F-PIL-4")
@pytest.mark.parametrize("facts", grouped(), ids=str)
def test_every_border_man_is_decided_as_the_pilot_s_text_says(facts: tuple[tuple[str, str], ...]) -> None:
    men = grouped()[facts]
    recipe = pilot_recipe(declared_of(dict(facts)))
    found = decisions(result_of(plain(r for b in men for r in resources_of(b.man)), recipe))
    got = {b.name: found[b.man.patient] for b in men}
    assert {name: reason for name, (reason, _) in got.items()} == {b.name: b.expected for b in men}
    inside = [b for b in men if not b.expected]
    assert {b.name: got[b.name][1] for b in inside} == {b.name: b.flags for b in inside}


def test_the_borders_that_the_issue_names_are_there() -> None:
    expected = {border.name: border.expected for border in border_men()}
    named = {
        "psa-exactly-3.0": "no-suspicion", "mri-one-year": "", "mri-one-year-and-a-day": "mri-older-than-1y",
        "biopsy-on-leap-day": "", "mri-on-leap-day": "", "mri-on-leap-day-late": "mri-older-than-1y",
        "pirads-v1": "pirads-version", "pirads-unknown": "pirads-version", "dre-only": "", "mri-on-the-day": "",
        "mri-the-day-after": "mri-after-biopsy", "female": "not-male", "age-only": "",
    }  # fmt: skip
    assert named.items() <= expected.items()
    assert len(expected) == len(border_men()) >= 30


def test_planting_borders_changes_nothing_of_the_men_who_were_drawn() -> None:
    plainly, planted = simulate(5, {"chu": 30})["chu"], simulate(5, {"chu": 30}, borders=True)["chu"]
    assert planted.men[: len(plainly.men)] == plainly.men
    assert len(planted.men) - len(plainly.men) == len(planted_borders("x", "ng/mL", "cm3"))
    assert {man.psa_unit for man in planted.men} == {"ug/L"}


# --- contradictions ---------------------------------------------------------------------------------


def one(name: str) -> list[dict[str, Any]]:
    border = next(b for b in border_men("b") if b.name == name)
    return plain(resources_of(border.man))


def again(resources: list[dict[str, Any]], key: str, **changes: Any) -> dict[str, Any]:
    """A second resource like the one whose id ends so."""
    found = next(r for r in resources if r["id"].endswith(key))
    return found | {"id": f"{found['id']}-again"} | changes


def row_of(resources: list[dict[str, Any]], **rules: Any) -> dict[str, Any]:
    recipe = pilot_recipe(Declared(contradictions=Contradictions(**rules)))
    connection = result_of(resources, recipe)
    found = connection.execute("SELECT * FROM result ORDER BY patient").fetchall()
    return dict(zip([column[0] for column in connection.description], found[0], strict=True))


OTHERS: dict[str, tuple[str, dict[str, Any], str, tuple[Any, Any], str]] = {
    "psa": ("-psa", {"valueQuantity": {"value": 4.1, "unit": "ng/mL", "system": "http://unitsofmeasure.org",
                                       "code": "ng/mL"}}, "psa", (4.1, 6.8), "psa-contradicts"),
    "volume": ("plain-volume", {"valueQuantity": {"value": 61, "unit": "mL", "system": "http://unitsofmeasure.org",
                                             "code": "mL"}}, "volume", (61.0, 61.0), "volume-contradicts"),
    "examination": ("-dre", {"outcome": {"coding": [{"system": "http://snomed.info/sct", "code": "131196009"}]}},
                    "dre", (1, 1), "examination-contradicts"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_of_two_values_of_one_day_the_declared_one_counts_and_the_man_is_flagged(kind: str) -> None:
    key, changes, variable, (last, highest), flag = OTHERS[kind]
    resources = one("plain")
    resources.append(again(resources, key, **changes))
    row = row_of(resources)
    assert (row[variable], row["flags"], row["excluded"]) == (last, [flag], None)
    row = row_of(resources, same_day="highest")
    assert (row[variable], row["flags"]) == (highest, [flag])
    row = row_of(resources, same_day="refuse-person")
    assert (row["excluded"], row["flags"]) == ("contradictory-values", [flag])


def test_the_later_hour_of_a_day_counts_before_the_later_id() -> None:
    resources = one("plain")
    first = next(r for r in resources if r["id"].endswith("-psa"))
    day = first["effectiveDateTime"]
    resources.append(again(resources, "-psa", **OTHERS["psa"][1]) | {"effectiveDateTime": f"{day}T08:00:00+01:00"})
    first["effectiveDateTime"] = f"{day}T15:00:00+01:00"
    assert row_of(resources)["psa"] == 6.8


def test_the_same_value_twice_is_no_contradiction() -> None:
    resources = one("plain")
    resources.append(again(resources, "-psa"))
    assert row_of(resources, same_day="refuse-person")["flags"] == []


def test_of_two_outcomes_of_one_biopsy_the_highest_grade_counts_unless_declared_otherwise() -> None:
    resources = one("plain")
    lower = {"valueCodeableConcept": {"coding": [{"system": "http://loinc.org", "code": "LA30794-4"}]}}
    resources.append(again(resources, "-isup", **lower, effectiveDateTime="2023-06-02"))
    row = row_of(resources)
    assert (row["isup"], row["cspca"], row["flags"]) == (2, 1, ["outcome-contradicts"])
    row = row_of(resources, same_event="last")
    assert (row["isup"], row["cspca"], row["flags"]) == (1, 0, ["outcome-contradicts"])
    assert row_of(resources, same_event="refuse-person")["excluded"] == "contradictory-values"


def test_biopsies_of_one_day_that_are_initial_and_repeated_are_flagged() -> None:
    resources = one("plain")
    category = {"coding": [{"system": "http://snomed.info/sct", "code": "27582007"}]}
    resources.append(again(resources, "-biopsy", category=category))
    assert row_of(resources)["flags"] == ["biopsy-contradicts"]


def two_births(**changes: Any) -> list[dict[str, Any]]:
    resources = one("plain")
    return [*resources, next(r for r in resources if r["resourceType"] == "Patient") | changes]


@pytest.mark.parametrize("changes", [{"birthDate": "1955-03-03"}, {"gender": "female"}])
def test_two_births_or_genders_of_one_man_leave_him_out(changes: dict[str, str]) -> None:
    row = row_of(two_births(**changes))
    assert (row["excluded"], "identity-contradicts" in row["flags"]) == ("contradictory-identity", True)


def test_what_is_contradicted_counts_as_missing_where_that_is_declared() -> None:
    row = row_of(two_births(birthDate="1955-03-03"), identity="missing")
    assert (row["excluded"], row["age"], row["flags"]) == (None, None, ["identity-contradicts"])
    assert row_of(two_births(gender="female"), identity="missing")["excluded"] == "not-male"


def test_a_year_of_birth_does_not_contradict_a_date_in_it() -> None:
    row = row_of(two_births(birthDate="1956"))
    assert (row["excluded"], row["flags"], row["age"]) == (None, [], 67)


@pytest.mark.parametrize("rules", [{"same_day": "first"}, {"same_event": "missing"}, {"identity": "last"}])
def test_a_rule_that_is_none_is_refused(rules: dict[str, str]) -> None:
    with pytest.raises(MisuseError, match="choose"):
        Contradictions(**rules)  # type: ignore[arg-type]


# --- the same man twice, and decisions by hand, through the recipe -----------------------------------


def test_two_ids_that_may_be_one_man_are_listed_for_the_steward() -> None:
    men = [b for b in border_men("b") if b.name.startswith("twice-there") or b.name == "plain"]
    connection = tables_of(plain(r for b in men for r in resources_of(b.man)), PILOT_RECIPE)
    pairs = connection.execute(f"SELECT * FROM ({PILOT_RECIPE.suspects}) ORDER BY patient").fetchall()
    assert pairs == [
        ("b-twice-there-1", "b-twice-there-2", "same-birth-and-events"),
        ("b-twice-there-2", "b-twice-there-1", "same-birth-and-events"),
    ]


def test_an_identifier_that_two_men_share_is_seen() -> None:
    resources = one("plain") + one("dre-only")
    for patient in (r for r in resources if r["resourceType"] == "Patient"):
        patient["identifier"] = [{"system": "urn:card", "value": "17"}]
    found = decisions(result_of(resources, PILOT_RECIPE))
    assert all("suspected-duplicate" in flags for _, flags in found.values())


def test_men_who_are_declared_to_be_one_are_one_row_with_all_records() -> None:
    men = [b for b in border_men("b") if b.name.startswith("twice-there")]
    resources = plain(r for b in men for r in resources_of(b.man))
    later = next(r for r in resources if r["id"] == "b-twice-there-2-psa")
    later["effectiveDateTime"], later["valueQuantity"]["value"] = "2023-04-30", 9.9
    connection = tables_of(resources, PILOT_RECIPE)
    ids = tuple(known_as(b.man.patient) for b in men)
    told = settle([SamePerson("eva", "same card, checked", ids)])
    assert join_persons(connection, PILOT_RECIPE.views, told.groups, known_as) == 1
    connection.execute(f"CREATE TEMP TABLE result AS SELECT * FROM ({PILOT_RECIPE.sql})")
    assert connection.execute("SELECT patient, psa, excluded, flags FROM result").fetchall() == [
        ("b-twice-there-1", 9.9, None, [])
    ]


def test_a_man_is_kept_in_or_left_out_by_hand_and_the_flow_says_so() -> None:
    men = {b.name: b.man for b in border_men("b") if not b.facts}
    connection = result_of(plain(r for man in men.values() for r in resources_of(man)), PILOT_RECIPE)
    before = flow_of(connection, pilot_cohort())
    told = settle([
        KeepIn("eva", "thirteen months, agreed", known_as("b-mri-one-year-and-a-day"), ("mri-older-than-1y",)),
        LeaveOut("eva", "takes part in another trial", known_as("b-plain")),
        KeepIn("eva", "by mistake", known_as("b-female"), ("no-suspicion",)),
    ])  # fmt: skip
    done = apply_by_hand(connection, pilot_cohort(), told, known_as)
    assert (done.kept, done.left_out, done.idle) == (1, 1, 1)
    after = flow_of(connection, pilot_cohort())
    assert (after.found, after.included) == (before.found, before.included)
    assert [(s.word, s.kept) for s in after.steps if s.kept] == [("mri-older-than-1y", 1)]
    assert after.steps[-1].left == 1
    assert KEPT in decisions(connection)["b-mri-one-year-and-a-day"][1]
    assert decisions(connection)["b-female"][0] == "not-male"


def test_every_flag_can_be_given() -> None:
    assert len(set(FLAGS)) == len(FLAGS)
    given = {flag for border in border_men() for flag in border.flags}
    assert {"label-missing", "mri-timing-unverified", "suspicion-unverified", "psa-contradicts"} <= given


# --- what the page says -----------------------------------------------------------------------------

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "cohort.md").read_text(encoding="utf-8")


def test_the_page_tells_every_rule_flag_and_fact_as_declared() -> None:
    strict = Declared(keep_unverified_timing=False, contradictions=Contradictions("refuse-person"))
    rules = {rule.word: rule for rule in pilot_cohort(strict).rules}
    told = dict(re.findall(r"^\| `([a-z0-9-]+)` \| .* \| ([^|]+ \| (?:yes|no)) \|$", PAGE, re.MULTILINE))
    assert told == {
        word: f"{rules[word].requirement or 'ours'} | {'yes' if rules[word].by_hand else 'no'}" for word in EXCLUSIONS
    }
    assert list(told) == list(EXCLUSIONS)
    assert [word for word in (*FLAGS, KEPT) if f"`{word}`" not in PAGE] == []
    for fact in FACTS:
        line = [line for line in PAGE.splitlines() if line.startswith(f"| `{fact.name}` |")][-1]
        choices = re.findall(r"`([^`]+)`", line)[1:]
        assert choices[0] == fact.initial
        assert not fact.choices or sorted(choices) == sorted(fact.choices)
