"""Decisions by hand: what they do, what they cannot do, and that they can be taken back."""

from __future__ import annotations

import hashlib

import duckdb
import msgspec
import pytest

from flute.cohort.facts import Fact
from flute.cohort.flow import flow_of
from flute.cohort.overrides import (
    Applied,
    Declare,
    KeepIn,
    LeaveOut,
    Override,
    SamePerson,
    TakeBack,
    apply_by_hand,
    check_override,
    settle,
)
from flute.cohort.rules import KEPT, LEFT_OUT, Cohort, Flag, Rule
from flute.defaults.records import MAX_OVERRIDES
from flute.errors import MisuseError

COHORT = Cohort(
    rules=(
        Rule("too-old", "true", "Too old", by_hand=True),
        Rule("no-test", "true", "No test", by_hand=True),
        Rule("wrong-sex", "true", "Another sex"),
    ),
    flags=(Flag("label-missing", "true", "no label"),),
)
FACTS = (Fact("scheme", ("both", "one"), "both", "How?"),)


def known_as(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()[:32]


A, B, C, D, STRANGER = map(known_as, ("a", "b", "c", "d", "stranger"))


def keep(patient: str, *despite: str) -> KeepIn:
    return KeepIn("eva", "agreed with the principal investigator", patient, despite)


def leave(patient: str) -> LeaveOut:
    return LeaveOut("eva", "takes part in another trial", patient)


def applied(*overrides: Override) -> tuple[dict[str, tuple[str | None, list[str]]], Applied]:
    """a: in; b: too old; c: too old and without test; d: too old and of another sex. Patient to (excluded, flags)."""
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE result(patient VARCHAR, value DOUBLE, excluded VARCHAR, reasons VARCHAR[], flags VARCHAR[])"
    )
    rows = [
        ("a", 1.5, None, [], ["label-missing"]), ("b", 2.5, "too-old", ["too-old"], []),
        ("c", 3.5, "too-old", ["too-old", "no-test"], []), ("d", 4.5, "too-old", ["too-old", "wrong-sex"], []),
    ]  # fmt: skip
    connection.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?)", rows)
    done = apply_by_hand(connection, COHORT, settle(overrides), known_as)
    found = connection.execute("SELECT patient, value, excluded, flags FROM result ORDER BY patient").fetchall()
    assert [(row[0], row[1]) for row in found] == [(row[0], row[1]) for row in rows], "no value of a record changes"
    flow = flow_of(connection, COHORT)
    assert flow.found == 4
    assert flow.kept == done.kept
    return {row[0]: (row[2], row[3]) for row in found}, done


def test_somebody_is_kept_in_against_the_rule_that_is_named() -> None:
    rows, done = applied(keep(B, "too-old"))
    assert rows["b"] == (None, [KEPT])
    assert rows["a"] == (None, ["label-missing"])
    assert done == Applied(kept=1)


def test_another_rule_leaves_him_out_all_the_same() -> None:
    rows, done = applied(keep(C, "too-old"))
    assert rows["c"] == ("no-test", [])
    assert done == Applied(idle=1)
    rows, done = applied(keep(C, "too-old", "no-test"))
    assert rows["c"] == (None, [KEPT])


def test_somebody_is_left_out_although_no_rule_applies() -> None:
    rows, done = applied(leave(A), leave(B))
    assert rows["a"] == (LEFT_OUT, ["label-missing"])
    assert rows["b"] == ("too-old", []), "the rule's own reason stays"
    assert done == Applied(left_out=1, idle=1)


def test_a_protected_rule_cannot_be_set_aside() -> None:
    with pytest.raises(MisuseError, match="wrong-sex is protected"):
        check_override(keep(D, "wrong-sex"), COHORT)
    # Nor by a decision that was journaled before the rule became protected.
    rows, done = applied(keep(D, "too-old", "wrong-sex"))
    assert rows["d"] == ("wrong-sex", [])
    assert done == Applied(idle=1)


def test_a_rule_that_is_gone_does_not_stop_an_import() -> None:
    rows, _ = applied(keep(B, "too-old", "a-rule-of-last-year"))
    assert rows["b"] == (None, [KEPT])
    with pytest.raises(MisuseError, match="no rule a-rule-of-last-year"):
        check_override(keep(B, "a-rule-of-last-year"), COHORT)


def test_a_decision_about_nobody_here_is_counted() -> None:
    assert applied(keep(STRANGER, "too-old"), leave(A))[1] == Applied(left_out=1, absent=1)
    assert applied()[1] == Applied()


def test_the_later_decision_counts_and_any_can_be_taken_back() -> None:
    assert applied(keep(B, "too-old"), leave(B))[1] == Applied(idle=1)
    assert applied(leave(B), keep(B, "too-old"))[0]["b"] == (None, [KEPT])
    assert applied(leave(A), TakeBack("eva", "it was the wrong patient", A))[0]["a"] == (None, ["label-missing"])
    assert settle([SamePerson("eva", "twins are not", (A, B)), TakeBack("eva", "they are twins", B)]).groups == ()


# --- one person under several ids, facts -----------------------------------------------------------


def test_pairs_that_share_an_id_are_one_person_and_go_by_the_first() -> None:
    told = settle([SamePerson("eva", "same card", (A, B)), SamePerson("eva", "same card", (B, C))])
    assert told.groups == ((A, B, C),)


def test_what_was_decided_about_another_id_follows_the_person() -> None:
    same = SamePerson("eva", "same card", (A, B))
    assert settle([keep(B, "too-old"), same]).kept == {A: frozenset({"too-old"})}
    told = settle([leave(B), keep(A, "too-old"), same])
    assert (told.left_out, told.kept) == (frozenset({A}), {}), "left out weighs more"


def test_facts_are_checked_and_the_last_one_counts() -> None:
    check_override(Declare("eva", "asked the clinic", "scheme", "one"), COHORT, FACTS)
    with pytest.raises(MisuseError, match="one of both, one"):
        check_override(Declare("eva", "asked the clinic", "scheme", "neither"), COHORT, FACTS)
    with pytest.raises(MisuseError, match="no fact colour"):
        check_override(Declare("eva", "asked the clinic", "colour", "red"), COHORT, FACTS)
    told = settle([Declare("eva", "first idea", "scheme", "one"), Declare("eva", "asked", "scheme", "both")])
    assert told.facts == {"scheme": "both"}


def test_one_id_is_not_two_of_a_person() -> None:
    with pytest.raises(MisuseError, match="stands twice"):
        check_override(SamePerson("eva", "same card", (A, A)), COHORT)


# --- as they are kept ------------------------------------------------------------------------------

EVERY: tuple[Override, ...] = (
    keep(A, "too-old"), leave(A), SamePerson("eva", "same card", (A, B)),
    Declare("eva", "asked the clinic", "scheme", "one"), TakeBack("eva", "was a slip", A),
)  # fmt: skip


@pytest.mark.parametrize("override", EVERY, ids=lambda o: type(o).__name__)
def test_a_decision_says_who_and_why_and_survives_being_kept(override: Override) -> None:
    assert msgspec.json.decode(msgspec.json.encode(override), type=Override) == override
    assert override.person in override.says()
    assert override.why in override.says()


@pytest.mark.parametrize(
    "raw",
    [
        {"decision": "keep-in", "person": "eva", "why": "", "patient": A, "despite": ["too-old"]},
        {"decision": "keep-in", "person": "eva", "why": "agreed", "patient": "MRN-1", "despite": ["too-old"]},
        {"decision": "keep-in", "person": "eva", "why": "agreed", "patient": A, "despite": []},
        {"decision": "keep-in", "why": "agreed", "patient": A, "despite": ["too-old"]},
        {"decision": "set-value", "person": "eva", "why": "agreed", "patient": A, "value": 3},
        {"decision": "leave-out", "person": "eva", "why": "agreed", "patient": A, "value": 3},
    ],
)
def test_what_is_no_decision_is_not_taken_for_one(raw: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(raw, type=Override)


def test_a_cohort_made_of_decisions_is_refused() -> None:
    with pytest.raises(MisuseError, match="change the cohort's rules"):
        settle(leave(A) for _ in range(MAX_OVERRIDES + 1))
