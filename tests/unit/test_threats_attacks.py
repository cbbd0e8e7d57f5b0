"""Behind every cell of the threat table stands an attack that was tried, and its control: read off the tests' marks.

A cell that holds needs, in the file that it names, a test marked `defence` (the attack loses against the plan) and
one marked `control` (it wins, with the defence taken away); one that does not hold, a `control`: there it wins
against the plan as it is. A mark names its cells: mode and row, and a column where it is for that column alone.
Such a test runs wherever tests run, and asserts: read from its source, for marks alone show neither.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from flute.aggregation.plan import PLANS
from flute.study.agreement import PlanChoice
from flute.study.threats import ENCLAVES, PARTIES, verdict

ROOT = Path(__file__).resolve().parents[2]
CELLS = re.compile(r"(private|exact) [HPD][NSA]?")
MARKS = ("control", "defence")
NOT_ALWAYS_RUN = {"skip", "skipif", "xfail", "soak"}


@dataclass(frozen=True)
class Tried:
    """One marked test. asserts: its own body says what has to be; runs: always."""

    name: str
    mark: str
    cells: tuple[str, ...]
    asserts: bool
    runs: bool


def tried(source: str) -> tuple[Tried, ...]:
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = dict(marks_of(node))
            found += [
                Tried(node.name, mark, marks[mark], states(node, mark), not marks.keys() & NOT_ALWAYS_RUN)
                for mark in marks.keys() & set(MARKS)
            ]
    return tuple(found)


def marks_of(node: ast.FunctionDef) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name and texts of each `pytest.mark`."""
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
        if ast.unparse(call.func).startswith("pytest.mark."):
            texts = (part.value for part in call.args if isinstance(part, ast.Constant))
            yield ast.unparse(call.func).removeprefix("pytest.mark."), tuple(map(str, texts))


def states(node: ast.FunctionDef, mark: str) -> bool:
    """An assertion about something; of a defence, an error that has to come will do. A control has to show a win."""
    asserted = any(isinstance(n, ast.Assert) and not isinstance(n.test, ast.Constant) for n in ast.walk(node))
    refused = any(
        "pytest.raises(" in ast.unparse(i) for n in ast.walk(node) if isinstance(n, ast.With) for i in n.items
    )
    return asserted or (mark == "defence" and refused)


def missing(source: str, cell: str, *, holds: bool) -> list[str]:
    """Which marks no test of this source has for this cell, such as "private PN"."""
    good = [test for test in tried(source) if test.asserts and test.runs]
    there = {test.mark for test in good for named in test.cells if cell.startswith(named)}
    return [mark for mark in (MARKS if holds else MARKS[:1]) if mark not in there]


@cache
def source_of(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


CHOICES = [*(PlanChoice(name) for name in PLANS), PlanChoice("secagg", echo=False)]


@pytest.mark.requirement("URS-14")
@pytest.mark.parametrize("plan", CHOICES, ids=lambda plan: f"{plan.name}, {'echo' if plan.echo else 'no echo'}")
@pytest.mark.parametrize("mode", ["private", "exact"])
def test_every_cell_names_a_file_with_its_attack_and_the_control(mode: str, plan: PlanChoice) -> None:
    for parties in PARTIES:
        for enclaves in ENCLAVES:
            told, cell = verdict(plan, mode, parties, enclaves), f"{mode} {parties}{enclaves}"  # type: ignore[arg-type]
            lacks = missing(source_of(told.test), cell, holds=told.holds)
            assert not lacks, f"{plan.name}, {cell}: {told.test} has no test marked {' nor '.join(lacks)}"


@pytest.mark.requirement("NF-SRS-5")
def test_where_false_hubs_are_outvoted_the_file_has_the_attack_and_the_control() -> None:
    for enclaves in ENCLAVES:
        told = verdict(PlanChoice("mpc"), "exact", "D", enclaves, outvoting=True)
        assert told.holds
        assert missing(source_of(told.test), f"exact D{enclaves}", holds=True) == []


def test_marks_name_cells_that_there_are_and_tests_that_assert() -> None:
    """In all files that have such marks, those that the table does not name among them."""
    marked = {
        path.name: tried(text)
        for path in sorted(ROOT.glob("tests/**/test_*.py"))
        if path != Path(__file__) and "pytest.mark.control" in (text := path.read_text(encoding="utf-8"))
    }
    assert len(marked) >= 6
    for name, tests in marked.items():
        for test in tests:
            assert test.cells, (name, test)
            assert all(map(CELLS.fullmatch, test.cells)), (name, test)
            assert test.asserts, (name, test)
            assert test.runs, (name, test)


GOOD = """
@pytest.mark.control("private P")
def test_it_wins():
    assert opened == secret

@pytest.mark.defence("private P")
@pytest.mark.parametrize("hub", HUBS)
def test_it_loses(hub):
    with pytest.raises(Cheating):
        attack(hub)
"""


@pytest.mark.parametrize(
    ("changed", "by", "lacks"),
    [
        ("control", "requirement", ["control"]),
        ("defence", "requirement", ["defence"]),
        ("private P", "private H", ["control", "defence"]),
        ("private P", "private PS", ["control", "defence"]),
        ("assert opened == secret", "opened == secret", ["control"]),
        ("assert opened == secret", "assert True", ["control"]),
        ("assert opened == secret", "with pytest.raises(Cheating): attack()", ["control"]),
        ("with pytest.raises(Cheating)", "with suppress(Cheating)", ["defence"]),
        ('@pytest.mark.control("private P")', '@pytest.mark.soak\n@pytest.mark.control("private P")', ["control"]),
        ('@pytest.mark.parametrize("hub", HUBS)', "@pytest.mark.xfail", ["defence"]),
        ("def test_it_wins", "def it_wins", ["control"]),
    ],
)
def test_a_mark_that_shows_nothing_is_found_missing(changed: str, by: str, lacks: list[str]) -> None:
    assert missing(GOOD, "private PN", holds=True) == []
    assert changed in GOOD
    assert missing(GOOD.replace(changed, by), "private PN", holds=True) == lacks


def test_a_cell_that_does_not_hold_needs_an_attack_that_wins_and_no_defence() -> None:
    assert missing(GOOD.replace("defence", "requirement"), "private PN", holds=False) == []
    assert missing(GOOD.replace("control", "requirement"), "private PN", holds=False) == ["control"]
