"""Declared rules become SQL: one reason per person, all reasons kept, nothing that is more than a condition."""

from __future__ import annotations

import duckdb
import pytest

from flute.cohort.facts import Fact, read_facts, version
from flute.cohort.rules import KEPT, Cohort, Flag, Rule
from flute.errors import MisuseError

COHORT = Cohort(
    rules=(
        Rule("too-young", "age < 18", "Under 18 years", "R-1"),
        Rule("no-test", "value IS NULL", "No test", "R-2", by_hand=True),
        Rule("too-low", "value <= 3", "The value is 3 or less", "R-3", by_hand=True),
    ),
    flags=(Flag("old-test", "year < 2020", "the test is older than 2020"), Flag("no-age", "age IS NULL", "no age")),
)


def told(*people: tuple[object, ...]) -> list[tuple[str | None, list[str], list[str]]]:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE person(age INTEGER, value DOUBLE, year INTEGER)")
    connection.executemany("INSERT INTO person VALUES (?, ?, ?)", people)
    return connection.execute(
        f"SELECT {COHORT.excluded()}, {COHORT.reasons()}, {COHORT.flagged()} FROM person"
    ).fetchall()


def test_a_person_is_out_for_the_first_rule_that_applies_and_every_rule_is_kept() -> None:
    assert told((17, None, 2021)) == [("too-young", ["too-young", "no-test"], [])]
    assert told((17, 3, 2021)) == [("too-young", ["too-young", "too-low"], [])]
    assert told((40, 3.0, 2021)) == [("too-low", ["too-low"], [])]
    assert told((40, 3.1, 2021)) == [(None, [], [])]


def test_a_condition_that_cannot_be_told_is_not_met() -> None:
    assert told((None, 5, None)) == [(None, [], ["no-age"])]


def test_a_cohort_without_rules_leaves_nobody_out() -> None:
    empty = Cohort(())
    assert duckdb.sql(f"SELECT {empty.excluded()}, {empty.reasons()}, {empty.flagged()}").fetchall() == [
        (None, [], [])
    ]


@pytest.mark.parametrize(
    ("rules", "about"),
    [
        ((Rule("a", "x", "A"), Rule("a", "y", "B")), "twice"),
        ((Rule(KEPT, "x", "A"),), "twice"),
        ((Rule("Too Low", "x", "A"),), "no word"),
        ((Rule("it's", "x", "A"),), "no word"),
        ((Rule("a", "x; DROP TABLE y", "A"),), "one SQL expression"),
        ((Rule("a", "x -- more", "A"),), "one SQL expression"),
        ((Rule("a", " ", "A"),), "one SQL expression"),
    ],
)
def test_a_declaration_that_is_none_is_refused(rules: tuple[Rule, ...], about: str) -> None:
    with pytest.raises(MisuseError, match=about):
        Cohort(rules)


def test_a_rule_that_is_not_there_is_named_with_those_that_are() -> None:
    assert COHORT.rule("no-test").by_hand
    with pytest.raises(MisuseError, match="no rule absent; it has too-young, no-test, too-low"):
        COHORT.rule("absent")


# --- facts that are declared for a dataset ----------------------------------------------------------

FACTS = (
    Fact("scanner-version", (), "2.1", "By which version?", "R-4"),
    Fact("scheme", ("both", "one"), "both", "How?"),
)


def test_what_was_not_declared_has_its_initial_value() -> None:
    assert read_facts(FACTS, {}) == {"scanner-version": "2.1", "scheme": "both"}
    assert read_facts(FACTS, {"scheme": "one", "scanner-version": "unknown"}) == {
        "scanner-version": "unknown", "scheme": "one",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "about"),
    [
        ({"schema": "one"}, "no fact schema"),
        ({"scheme": "neither"}, "one of both, one"),
        ({"scanner-version": "two"}, "no version"),
        ({"scanner-version": "NaN"}, "no version"),
        ({"scanner-version": "-1"}, "no version"),
    ],
)
def test_a_slip_of_the_pen_is_said_at_once(declared: dict[str, str], about: str) -> None:
    with pytest.raises(MisuseError, match=about):
        read_facts(FACTS, declared)


def test_versions_are_compared_as_numbers_and_unknown_is_none() -> None:
    two, one = version("2.0"), version("1.0")
    assert two is not None
    assert one is not None
    assert two > one
    assert version("unknown") is None
