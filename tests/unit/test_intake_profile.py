"""Profiles and drift: an unchanged system raises no alarm but at the stated rate, and what changes is seen."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pytest
from scipy.stats import ks_2samp

from flute.data.variables import Variable
from flute.defaults.records import (
    DRIFT_BEYOND,
    DRIFT_FALSE_ALARM,
    DRIFT_ROWS_FELL,
    DRIFT_ROWS_ROSE,
    DRIFT_SHARE,
    DRIFT_SHIFT,
    PROFILE_BINS,
)
from flute.intake import profile as drift
from flute.intake.profile import Alarm, Profile, alarms, days_of, profile_of
from flute.intake.rows import ImportReport, Rows, count_cells, make_rows, text_column
from flute.intake.spread import Spread, chance_beyond, chance_of_distance, distance, spread_of

VARIABLES = (
    Variable("marker", "number", 0.2, 200, unit="ng/mL"),
    Variable("age", "number", 40, 90),
    Variable("size", "number", 10, 300),
    Variable("score", "category", levels=("1", "2", "3", "4", "5")),
    Variable("seen", "binary"),
    Variable("family", "binary"),
)


@dataclass
class Draw:
    """One import's men, before anything goes wrong with them."""

    chance: np.random.Generator
    n: int
    marker: Any = field(init=False)
    age: Any = field(init=False)
    size: Any = field(init=False)
    score: Any = field(init=False)
    seen: Any = field(init=False)
    family: Any = field(init=False)
    days: Any = field(init=False)
    excluded: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, chance = self.n, self.chance
        self.marker = np.round(np.exp(1.9 + 0.55 * chance.standard_normal(n)), 1).clip(0.3, 150)
        self.age = np.rint(66 + 7 * chance.standard_normal(n)).clip(45, 85)
        self.size = np.round(np.exp(4 + 0.45 * chance.standard_normal(n)), 1).clip(15, 250)
        self.score = text_column(list(chance.choice(list("12345"), n, p=[0.16, 0.08, 0.24, 0.36, 0.16])))
        self.seen = text_column(list(chance.choice(["0", "1"], n, p=[0.78, 0.22])))
        self.family = text_column([None if u < 0.12 else str(int(u > 0.9)) for u in chance.random(n)])
        self.days = chance.integers(17_532, 19_722, n).astype(np.float64)
        out = chance.multinomial(max(n // 12, 1), [0.5, 0.3, 0.2])
        self.excluded = dict(zip(("no-suspicion", "no-mri", "not-male"), map(int, out), strict=True))
        self.refused = {"unit-not-convertible": int(chance.poisson(0.002 * 8 * n))}

    def profile(self) -> Profile:
        cells = {v.name: getattr(self, v.name) for v in VARIABLES}
        missing = {name: int(np.sum(_absent(column))) for name, column in cells.items()}
        unusable = {v.name: int(np.sum(_strange(v, cells[v.name]) & ~_absent(cells[v.name]))) for v in VARIABLES}
        report = ImportReport(
            source="test", files=1, resources=8 * self.n, set_aside=0, refused=self.refused,
            patients=self.n + sum(self.excluded.values()), excluded=self.excluded, flags={}, rows=self.n,
            missing=missing, unusable=unusable,
        )  # fmt: skip
        return profile_of(_rows(cells), report, spread_of(self.days))


def _absent(column: Any) -> Any:
    return np.isnan(column) if column.dtype.kind == "f" else np.equal(column, None)


def _strange(variable: Variable, column: Any) -> Any:
    if variable.kind == "number":
        return ~((column >= variable.low) & (column <= variable.high))
    return ~np.isin(column.astype(str), variable.levels or ("0", "1"))


_TYPES = {"number": "DOUBLE", "binary": "VARCHAR", "category": "VARCHAR"}
_CONNECTION = duckdb.connect(config={"threads": "1"})
_CONNECTION.execute("CREATE TABLE rows (" + ", ".join(f"{v.name} {_TYPES[v.kind]}" for v in VARIABLES) + ")")


def _rows(cells: dict[str, Any]) -> Rows:
    _CONNECTION.execute("DELETE FROM rows")
    _CONNECTION.register("source", cells)
    told = ", ".join(
        f"CASE WHEN isfinite({v.name}) THEN {v.name} END" if v.kind == "number" else v.name for v in VARIABLES
    )
    _CONNECTION.execute(f"INSERT INTO rows SELECT {told} FROM source")
    return Rows(_CONNECTION, VARIABLES)


def draw(seed: int, n: int = 500) -> Draw:
    return Draw(np.random.default_rng([41, seed]), n)


@pytest.fixture(scope="module")
def before() -> Profile:
    return draw(0).profile()


@pytest.fixture(scope="module")
def unchanged() -> list[tuple[Draw, Profile]]:
    """Two hundred imports from the same system, everybody drawn anew."""
    drawn = [draw(seed) for seed in range(1, 201)]
    return [(one, one.profile()) for one in drawn]


# --- no alarm where nothing changed --------------------------------------------------------------


def test_two_hundred_imports_of_an_unchanged_system_raise_no_alarm_but_at_the_stated_rate(
    before: Profile, unchanged: list[tuple[Draw, Profile]]
) -> None:
    """Each import draws everybody anew, which is harder than a real one, where most patients stay the same.

    At the stated rate of 0.001 the expected number is 0.2; three or more would happen once in 900 runs."""
    assert sum(bool(alarms(before, now)) for _, now in unchanged) <= 2
    assert DRIFT_FALSE_ALARM == 0.001


def test_the_chances_alone_keep_their_level_and_are_not_blind(
    unchanged: list[tuple[Draw, Profile]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the question whether a change is large, and at a rate of one in two: of 100 pairs at most half alarm
    (more than 68 would happen once in 10,000 runs), and some do."""
    for name in ("DRIFT_SHARE", "DRIFT_SHIFT", "DRIFT_BEYOND", "DRIFT_ROWS_FELL", "DRIFT_ROWS_ROSE"):
        monkeypatch.setattr(drift, name, 0.0)
    monkeypatch.setattr(drift, "DRIFT_FALSE_ALARM", 0.5)
    profiles = [profile for _, profile in unchanged]
    raised = sum(bool(alarms(one, other)) for one, other in zip(profiles[::2], profiles[1::2], strict=True))
    assert 3 <= raised <= 68


def test_the_very_same_import_raises_nothing(before: Profile) -> None:
    assert alarms(before, before) == ()


def test_a_year_of_new_patients_raises_nothing(before: Profile) -> None:
    """A fifth more patients, all with later days: growth is no drift."""
    grown = draw(0, 500)
    new = draw(7, 100)
    for name in ("marker", "age", "size", "score", "seen", "family"):
        setattr(grown, name, np.concatenate([getattr(grown, name), getattr(new, name)]))
    grown.days = np.concatenate([grown.days, 19_722 + new.days % 365])
    grown.n = 600
    grown.refused = {}
    assert alarms(before, grown.profile()) == ()


# --- what is seen --------------------------------------------------------------------------------

Change = Callable[[Draw], None]


def _set(name: str, change: Callable[[Any, Draw], Any]) -> Change:
    def apply(drawn: Draw) -> None:
        setattr(drawn, name, change(getattr(drawn, name), drawn))

    return apply


def _some(share: float, other: Callable[[Any], Any]) -> Callable[[Any, Draw], Any]:
    def change(values: Any, drawn: Draw) -> Any:
        hit = drawn.chance.random(len(values)) < share
        found = values.copy()
        found[hit] = [other(v) for v in values[hit]]
        return found

    return change


def _halved(drawn: Draw) -> None:
    half = Draw(drawn.chance, drawn.n // 2)
    drawn.__dict__.update(half.__dict__)


CHANGES: dict[str, tuple[Change, str, str]] = {
    "marker a thousandfold": (_set("marker", lambda v, _: v * 1000), "values-shifted", "marker"),
    "marker in a fifth of the men a thousandfold": (
        _set("marker", _some(0.2, lambda v: v * 1000)), "values-beyond", "marker"),
    "marker in a fifth of the men a hundredth": (
        _set("marker", _some(0.2, lambda v: v / 100)), "values-beyond", "marker"),
    "size in litres": (_set("size", lambda v, _: v / 1000), "values-shifted", "size"),
    "age cut off at 70": (_set("age", lambda v, _: np.minimum(v, 70)), "values-beyond", "age"),
    "marker missing for a third": (_set("marker", _some(0.33, lambda _: math.nan)), "missing-changed", "marker"),
    "family never missing any more": (
        _set("family", lambda v, _: text_column([x or "0" for x in v])), "missing-changed", "family"),
    "scores with a word of their own": (
        _set("score", _some(0.1, lambda v: f"PI-RADS {v}")), "category-new", "score"),
    "scores all at most 4": (
        _set("score", lambda v, _: text_column([min(x, "4") for x in v])), "category-share", "score"),
    "half of the patients": (_halved, "rows-fell", ""),
    "days 200 earlier": (_set("days", lambda v, _: v - 200), "days-beyond", "index-days"),
    "days 400 later": (_set("days", lambda v, _: v + 400), "days-shifted", "index-days"),
    "a tenth of the resources refused": (
        lambda d: d.refused.update({"unit-not-convertible": d.n}), "refused-share", "unit-not-convertible"),
    "everybody suspected to be out": (
        lambda d: d.excluded.update({"no-suspicion": d.n}), "excluded-share", "no-suspicion"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_system_is_seen(name: str, before: Profile) -> None:
    change, kind, about = CHANGES[name]
    for seed in (11, 12, 13):
        now = draw(seed)
        change(now)
        raised = alarms(before, now.profile())
        assert (kind, about) in {(alarm.code, alarm.about) for alarm in raised}


def test_a_fifth_in_another_unit_is_caught_every_time_of_two_hundred(
    before: Profile, unchanged: list[tuple[Draw, Profile]]
) -> None:
    caught = 0
    for drawn, profile in unchanged:
        mixed = spread_of(_some(0.2, lambda v: v * 1000)(drawn.marker, drawn))
        marker = msgspec.structs.replace(profile.columns["marker"], spread=mixed)
        now = msgspec.structs.replace(profile, columns=profile.columns | {"marker": marker})
        caught += any(alarm.about == "marker" for alarm in alarms(before, now))
    assert caught == 200


def test_the_sentence_says_which_factor(before: Profile) -> None:
    now = draw(21)
    now.marker = _some(0.2, lambda v: v * 1000)(now.marker, now)
    said = " ".join(a.says for a in alarms(before, now.profile()) if a.about == "marker")
    assert "times 1000: are two units mixed up?" in said
    now.marker = draw(21).marker / 10
    said = " ".join(a.says for a in alarms(before, now.profile()) if a.about == "marker")
    assert "times 0.1: has the unit changed?" in said


def test_a_source_that_gives_nobody_is_said_however_few_there_were() -> None:
    few, none = draw(1, 4).profile(), draw(1, 1).profile()
    none = msgspec.structs.replace(none, rows=0)
    assert [a.code for a in alarms(few, none)][:1] == ["rows-gone"]


def test_a_variable_that_comes_or_goes_is_said(before: Profile) -> None:
    now = msgspec.structs.replace(before, columns={k: v for k, v in before.columns.items() if k != "size"})
    assert [(a.code, a.about) for a in alarms(before, now)] == [("variable-changed", "size")]


def test_a_rare_undeclared_word_may_be_a_name_and_is_not_kept() -> None:
    drawn = draw(3)
    drawn.score = drawn.score.copy()
    drawn.score[:2] = "Smith"
    assert b"Smith" not in msgspec.json.encode(drawn.profile())
    drawn.score[:3] = "Smith"
    assert b"Smith" in msgspec.json.encode(drawn.profile())


# --- what a profile keeps ------------------------------------------------------------------------


def test_a_profile_counts_what_the_report_counts(before: Profile) -> None:
    assert (before.rows, before.resources) == (500, 4000)
    family = before.columns["family"]
    assert family.missing + sum(family.levels.values()) == 500
    assert before.columns["score"].levels.keys() == {"1", "2", "3", "4", "5"}
    assert before.columns["marker"].spread.n == 500
    assert msgspec.json.decode(msgspec.json.encode(before), type=Profile) == before


def test_a_profile_is_of_rows_as_an_import_makes_them() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE chosen AS SELECT 'a' AS patient, 5.5 AS marker UNION ALL SELECT 'b', NULL")
    variable = VARIABLES[:1]
    missing, unusable = count_cells(connection, variable)
    report = ImportReport("t", 1, 2, 0, {}, 2, {}, {}, 2, missing, unusable)
    found = profile_of(make_rows(connection, variable, b"k" * 32), report)
    assert found.columns["marker"] == drift.Column("number", 1, 0, Spread((5.5,), (1,)))


def test_days_are_those_of_the_persons_who_are_in() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE result(index_day DATE, excluded VARCHAR)")
    connection.executemany(
        "INSERT INTO result VALUES (?, ?)", [(date(1970, 1, 3), None), (date(1980, 1, 1), "no-mri"), (None, None)]
    )
    assert days_of(connection) == Spread((2.0,), (1,))
    connection.execute("ALTER TABLE result DROP COLUMN index_day")
    assert days_of(connection) == Spread()


# --- distributions in steps ------------------------------------------------------------------------


def test_a_spread_knows_its_ends_and_its_quantiles_to_a_step() -> None:
    values = np.random.default_rng(1).standard_normal(10_000)
    spread = spread_of(values)
    assert len(spread.edges) <= PROFILE_BINS + 1
    assert (spread.edges[0], spread.edges[-1], spread.n) == (values.min(), values.max(), 10_000)
    for share in (0.05, 0.5, 0.95):
        assert abs((values <= spread.quantile(share)).mean() - share) <= 1.01 / PROFILE_BINS


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_the_distance_never_exceeds_the_true_one_and_misses_at_most_two_steps(shift: float, digits: int) -> None:
    chance = np.random.default_rng(2)
    one, other = chance.standard_normal(3_000).round(digits), (shift + chance.standard_normal(2_000)).round(digits)
    found, true = distance(spread_of(one), spread_of(other)), float(ks_2samp(one, other).statistic)
    assert true - 2.2 / PROFILE_BINS <= found <= true + 1e-12


def test_the_chance_of_a_distance_is_the_one_of_the_textbook() -> None:
    chance = np.random.default_rng(3)
    one, other = chance.standard_normal(400), 0.2 + chance.standard_normal(300)
    exact = ks_2samp(one, other, method="asymp")
    assert chance_of_distance(exact.statistic, 400, 300) == pytest.approx(exact.pvalue, rel=0.5)


def test_the_chance_of_values_beyond_an_end_is_counted_right() -> None:
    """Two new among three old: both are the largest with probability 1/10, at least one with 2/5."""
    assert chance_beyond(2, 2, 3) == pytest.approx(1 / 10)
    assert chance_beyond(1, 2, 3) == pytest.approx(2 / 5)
    assert chance_beyond(0, 2, 3) == 1.0


def test_an_alarm_says_no_more_than_a_sentence(before: Profile) -> None:
    now = draw(31)
    now.marker = now.marker * 1000
    for alarm in alarms(before, now.profile()):
        assert isinstance(alarm, Alarm)
        assert len(alarm.says) <= 500
        assert alarm.says.endswith((".", "?"))


def test_the_page_tells_every_alarm_and_every_threshold() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "data-quality.md").read_text(encoding="utf-8")
    source = Path(drift.__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'"((?:values|days|category|missing|unusable|variable|rows)-[a-z]+)"', source)) - {
        drift.DAYS
    }
    codes |= {f"{what}-changed" for what in ("missing", "unusable")}
    codes |= {f"{what}-{way}" for what in ("resources", "patients", "rows") for way in ("fell", "rose")}
    codes |= {f"{what}-share" for what in ("refused", "warned", "excluded", "flagged")}
    assert {code for _, code, _ in CHANGES.values()} <= codes
    assert sorted(code for code in codes if f"`{code}`" not in page) == []
    assert len(codes) >= 17
    assert (DRIFT_FALSE_ALARM, DRIFT_ROWS_FELL, DRIFT_ROWS_ROSE) == (1 / 1000, 1 / 5, 1)
    assert (DRIFT_SHARE, DRIFT_SHIFT, DRIFT_BEYOND) == (0.05, 0.1, 0.01)
