"""The flow of persons adds up, says what it must, and is a picture that screen readers and dark screens can show."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import duckdb
import pytest

from flute.cohort.drawing import WIDTH, flow_svg
from flute.cohort.flow import FOR_OWN_EYES, SIMULATED, Flow, broken, flow_from, flow_of, flow_table, flow_text
from flute.cohort.rules import KEPT, LEFT_OUT, Cohort, Flag, Rule
from flute.errors import Unmappable

COHORT = Cohort(
    rules=(
        Rule("no-test", "true", "No test of this person is recorded", "R-1"),
        Rule("too-low", "true", "The value is 3.0 or less & the test was <not> repeated", "R-2", by_hand=True),
        Rule("never", "false", "A rule that leaves nobody out", "R-3"),
    ),
    flags=(Flag("label-missing", "true", "no outcome, so no label"),),
    persons="women",
    purpose="Women with a test",
)
NS = "{http://www.w3.org/2000/svg}"


def flow(**changes: object) -> Flow:
    plain = {"found": 1200, "excluded": {"no-test": 100, "too-low": 50}, "flags": {"label-missing": 30}}
    return flow_from(COHORT, **(plain | changes))  # type: ignore[arg-type]


def test_everybody_who_was_found_is_in_the_cohort_or_left_out_at_one_step() -> None:
    told = flow()
    assert [(s.word, s.left, s.remain) for s in told.steps] == [
        ("no-test", 100, 1100), ("too-low", 50, 1050), ("never", 0, 1050),
    ]  # fmt: skip
    assert told.included == 1050
    assert told.found == told.included + sum(step.left for step in told.steps)


def test_a_flow_is_read_off_the_rows() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE result(patient VARCHAR, excluded VARCHAR, reasons VARCHAR[], flags VARCHAR[])")
    rows = [
        ("a", None, [], ["label-missing"]), ("b", "no-test", ["no-test"], ["label-missing"]), ("c", None, [], []),
        ("d", "too-low", ["too-low"], []), ("e", None, ["too-low"], [KEPT]), ("f", LEFT_OUT, [], []),
    ]  # fmt: skip
    connection.executemany("INSERT INTO result VALUES (?, ?, ?, ?)", rows)
    told = flow_of(connection, COHORT, joined=1)
    assert [(s.word, s.left, s.remain, s.kept) for s in told.steps] == [
        ("no-test", 1, 5, 0), ("too-low", 1, 4, 1), ("never", 0, 4, 0), (LEFT_OUT, 1, 3, 0),
    ]  # fmt: skip
    assert (told.found, told.included, told.kept, told.joined) == (6, 3, 1, 1)
    # The flag of somebody who is out is not counted.
    assert [(n.word, n.persons) for n in told.notes] == [("label-missing", 1)]


@pytest.mark.parametrize("words", [{"excluded": {"unheard-of": 3}}, {"flags": {"unheard-of": 3}}])
def test_a_word_that_the_cohort_does_not_declare_is_not_passed_over(words: dict[str, dict[str, int]]) -> None:
    with pytest.raises(Unmappable, match="unheard-of"):
        flow(**words)


@pytest.mark.parametrize(
    ("changes", "small"),
    [
        ({}, False),
        ({"excluded": {"no-test": 9}}, True),
        ({"excluded": {"no-test": 10}}, False),
        ({"flags": {"label-missing": 1}}, True),
        ({"excluded": {LEFT_OUT: 1}}, True),
        ({"kept": {"too-low": 2}}, True),
        ({"excluded": {"no-test": 1195}, "flags": {}}, True),
    ],
)
def test_small_counts_are_said_to_be_for_the_steward_alone(changes: dict[str, object], small: bool) -> None:
    told = flow(**changes)
    assert told.small is small
    assert (FOR_OWN_EYES in flow_text(told)) is small
    assert (FOR_OWN_EYES in texts(flow_svg(told))) is small


def test_the_table_has_one_row_per_step_as_strobe_asks() -> None:
    head, *rows = flow_table(flow(kept={"too-low": 2}))
    assert head == ("Step", "Reason", "Requirement", "Left out", "Remain")
    assert rows[0] == ("found", "All women found", "", "", "1,200")
    assert rows[2][1].endswith("repeated (2 kept by hand)")
    assert rows[2][2:] == ("R-2", "50", "1,050")
    assert rows[-1] == ("cohort", "Women in the cohort", "", "", "1,050")


def test_the_text_fits_a_terminal_and_says_simulated() -> None:
    told = flow_text(flow(simulated=True, flags={"label-missing": 30, KEPT: 12}, joined=11))
    assert max(map(len, told.splitlines())) <= 118
    assert SIMULATED in told
    assert "1 id was declared" in flow_text(flow(joined=1))
    for part in (
        "11 ids were declared",
        "Women with a test",
        "too-low",
        "R-2",
        "1,050",
        "30: no outcome, so no label",
        "12: kept by",
    ):
        assert part in told


def test_a_long_word_stands_alone_on_its_line() -> None:
    assert broken("a bb cccccccc d", 4) == ["a bb", "cccccccc", "d"]


# --- the picture ---------------------------------------------------------------------------------


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{NS}text")]


def test_the_picture_has_a_name_a_description_and_its_words_as_text() -> None:
    svg = flow_svg(flow(), identity="mine")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "mine-t mine-d"
    assert root.findtext(f"{NS}title") == "From 1,200 women to a cohort of 1,050"
    said = root.findtext(f"{NS}desc") or ""
    assert "100 left out, 1,100 remain: No test of this person is recorded." in said
    assert "These rules left nobody out: never." in said
    assert {"1,200", "−100", "−50", "0", "1,100", "1,050"} <= set(texts(svg))


def test_the_picture_escapes_what_a_rule_says() -> None:
    svg = flow_svg(flow())
    assert "<not>" not in svg
    assert any("<not>" in text for text in texts(svg))


def test_the_picture_knows_dark_screens_and_says_simulated() -> None:
    svg = flow_svg(flow(simulated=True))
    assert "@media (prefers-color-scheme:dark)" in svg
    assert SIMULATED in texts(svg)
    assert SIMULATED not in texts(flow_svg(flow()))


def test_nothing_of_the_picture_lies_outside_it() -> None:
    """Coordinates of texts and boxes; a text's end by a generous mean width of its letters."""
    svg = flow_svg(flow(excluded={"no-test": 1_000_000, LEFT_OUT: 3}, found=9_999_999, kept={"too-low": 7}, joined=3))
    root = ET.fromstring(svg)
    height = float(root.get("height") or 0)
    for box in root.iter(f"{NS}rect"):
        assert float(box.get("x") or 0) + float(box.get("width") or 0) <= WIDTH
    for element in root.iter(f"{NS}text"):
        x, y = float(element.get("x") or 0), float(element.get("y") or 0)
        length = len(element.text or "") * 7.2
        left = {"end": x - length, "middle": x - length / 2}.get(element.get("text-anchor") or "", x)
        assert left >= 0
        assert left + length <= WIDTH
        assert 0 < y < height
