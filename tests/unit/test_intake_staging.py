"""Pages into staging: nothing twice, nothing lost, whatever breaks off, changes or goes away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flute.data.findings import Finding
from flute.data.reader import Page, Record, Refused
from flute.data.variables import Variable
from flute.errors import Unreachable
from flute.intake.freeze import Freezing, freeze
from flute.intake.recipe import Recipe
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from support.pages import PagesReader, patient, record, weight

KEY = b"k" * 32
RECIPE = Recipe(
    name="weights",
    views={
        "patient_view": {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]},
        "weight_view": {
            "resource": "Observation",
            "select": [
                {
                    "column": [
                        {"name": "id", "path": "id"},
                        {"name": "who", "path": "subject.getReferenceKey(Patient)"},
                        {"name": "kg", "path": "value.ofType(Quantity).value", "type": "decimal"},
                    ]
                }
            ],
        },
    },
    sql="SELECT p.id AS patient, sum(w.kg) AS kg FROM patient_view p "
    "LEFT JOIN weight_view w ON w.who = p.id GROUP BY 1",
    variables=(Variable("kg", "number", 0, 1_000),),
    refusals={
        "reference-not-resolved": "SELECT 'Observation/' || w.id FROM weight_view w "
        "LEFT JOIN patient_view p ON p.id = w.who WHERE p.id IS NULL"
    },
)
DESIGN = Design(RECIPE)
JUDGE = DESIGN.judge(KEY)


def staging(path: Path | None = None) -> Staging:
    return Staging(path, DESIGN.views, DESIGN.digest)


def page(mark: str, *records: Record, scope: str = "a", begins: bool = False, ends: Any = "", **more: Any) -> Page:
    return Page(scope, mark.encode(), tuple(records), begins=begins, ends=ends, **more)


def whole(mark: str, *records: Record, scope: str = "a") -> Page:
    return page(mark, *records, scope=scope, begins=True, ends="complete")


def table(held: Staging) -> dict[str, float | None]:
    """Sum of weights by patient, as the recipe makes it."""
    held.offer_views([])
    return dict(held.database.execute(RECIPE.sql).fetchall())


def after(*imports: Sequence[Page], path: Path | None = None) -> Staging:
    """Staging after these imports, each with pages of its own."""
    held = staging(path)
    for pages in imports:
        for one in pages:
            known = held.known(one.scope, [r.key for r in one.records], begins=one.begins)
            held.write(JUDGE.batch(one, known), "")
    return held


P1, P2 = patient("p1"), patient("p2")


def test_an_import_that_breaks_off_goes_on_at_the_next_page(tmp_path: Path) -> None:
    pages = [
        page("1", P1, P2, begins=True),
        page("2", weight("o1", "p1", 10)),
        page("3", weight("o2", "p1", 1), ends="complete"),
    ]
    held = staging(tmp_path / "x" / "s.duckdb")
    with pytest.raises(Unreachable):
        take(PagesReader(pages, cut=2), held, JUDGE)
    assert table(held) == {"p1": 10, "p2": None}
    held.close()
    held = staging(tmp_path / "x" / "s.duckdb")
    reader = PagesReader(pages)
    progress = take(reader, held, JUDGE)
    assert reader.asked == [b"2"]
    assert (progress.pages, progress.taken) == (1, 1)
    assert table(held) == {"p1": 11, "p2": None}


def test_a_second_import_of_the_same_changes_nothing_and_judges_nothing_again() -> None:
    pages = [whole("1", P1, weight("o1", "p1", 10))]
    held = after(pages)
    batch = JUDGE.batch(whole("2", *pages[0].records), held.known("a", ["Patient/p1", "Observation/o1"], begins=True))
    assert (len(batch.taken), sorted(batch.unchanged)) == (0, ["Observation/o1", "Patient/p1"])
    held.write(batch, "")
    assert table(held) == {"p1": 10}
    assert held.resources() == 2


def test_what_a_scope_no_longer_holds_is_gone() -> None:
    held = after([whole("1", P1, P2, weight("o1", "p1", 10))], [whole("2", P1)])
    assert table(held) == {"p1": None}


def test_a_changed_resource_replaces_the_old_one() -> None:
    held = after([whole("1", P1, weight("o1", "p1", 10))], [whole("2", P1, weight("o1", "p1", 12))])
    assert table(held) == {"p1": 12}
    assert held.refused() == []


def test_changes_alone_leave_the_rest_and_drop_what_is_gone() -> None:
    held = after(
        [whole("1", P1, P2, weight("o1", "p1", 10), weight("o2", "p2", 5))],
        [page("2", weight("o1", "p1", 20), begins=True, ends="changes", gone=("Observation/o2",))],
    )
    assert table(held) == {"p1": 20, "p2": None}


def test_the_same_resource_in_two_files_is_one_and_stays_while_one_file_holds_it() -> None:
    both = [whole("1", P1, weight("o1", "p1", 10)), whole("2", weight("o1", "p1", 10), scope="b")]
    held = after(both)
    assert table(held) == {"p1": 10}
    assert held.refused() == []
    held = after(both, [whole("3", scope="b")])
    assert table(held) == {"p1": 10}
    held = after(both, [whole("3", P1)], [whole("4", scope="b")])
    assert table(held) == {"p1": None}


def test_two_contents_under_one_id_are_told_and_the_first_is_kept() -> None:
    for pages in (
        [whole("1", P1, weight("o1", "p1", 10), weight("o1", "p1", 11))],
        [page("1", P1, weight("o1", "p1", 10), begins=True), page("2", weight("o1", "p1", 11), ends="complete")],
        [whole("1", P1, weight("o1", "p1", 10)), whole("2", weight("o1", "p1", 11), scope="b")],
    ):
        held = after(pages)
        assert table(held) == {"p1": 10}
        assert [(r.key, r.finding.reason) for r in held.refused()] == [("Observation/o1", "duplicate-id")]


def test_of_two_contents_the_one_that_was_updated_later_counts() -> None:
    early, late = (weight("o1", "p1", kg, meta={"lastUpdated": f"2026-01-0{day}"}) for day, kg in ((1, 10), (2, 11)))
    for order in ((early, late), (late, early)):
        held = after([whole("1", P1, *order)])
        assert table(held) == {"p1": 11}
        held = after([page("1", P1, order[0], begins=True), page("2", order[1], ends="complete")])
        assert table(held) == {"p1": 11}


def test_a_scope_that_is_read_anew_after_a_crash_keeps_nothing_of_its_first_half() -> None:
    held = after([page("1", P1, weight("o1", "p1", 10), begins=True)], [whole("2", P1, weight("o9", "p1", 3))])
    assert table(held) == {"p1": 3}


def test_a_transaction_stands_or_falls_as_a_whole() -> None:
    bundle = [record("Patient", "p3", "b1"), weight("o3", "p3", 3, "b1"), weight("o4", "p3", "heavy", "b1")]
    held = after([whole("1", P1, *bundle)])
    assert table(held) == {"p1": None}
    reasons = sorted((r.key, r.finding.reason) for r in held.refused())
    assert reasons == [
        ("Observation/o3", "transaction-refused"),
        ("Observation/o4", "wrong-type"),
        ("Patient/p3", "transaction-refused"),
    ]


def test_a_transaction_that_turns_bad_takes_its_old_version_out() -> None:
    good = [record("Patient", "p3", "b1"), weight("o3", "p3", 3, "b1")]
    bad = [good[0], weight("o3", "p3", "heavy", "b1")]
    held = after([whole("1", P1, *good)], [whole("2", P1, *bad)])
    assert table(held) == {"p1": None}
    assert len(held.refused()) == 2
    held = after([whole("1", P1, *good)], [whole("2", P1, *bad)], [whole("3", P1, *good)])
    assert table(held) == {"p1": None, "p3": 3}
    assert held.refused() == []


def test_a_reader_s_refusal_is_kept_until_its_scope_is_read_again() -> None:
    finding = Finding("malformed-json", "", "json", "{", "Write JSON.")
    refused = Page("a", b"1", (P1,), (Refused("a, line 2", "", finding),), begins=True, ends="complete")
    held = after([refused])
    assert [r.origin for r in held.refused()] == ["a, line 2"]
    held = after([refused], [whole("2", P1)])
    assert held.refused() == []


def test_other_views_begin_the_staging_anew(tmp_path: Path) -> None:
    path = tmp_path / "x" / "s.duckdb"
    after([whole("1", P1)], path=path).close()
    held = Staging(path, DESIGN.views, b"another design")
    assert held.mark("") is None
    assert held.resources() == 0


def test_staging_is_its_owner_s_and_one_import_s(tmp_path: Path) -> None:
    path = tmp_path / "x" / "s.duckdb"
    held = after([whole("1", P1)], path=path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    held.close()


def test_no_statement_of_a_recipe_reaches_a_file(tmp_path: Path) -> None:
    held = after([whole("1", P1)], path=tmp_path / "x" / "s.duckdb")
    for sql in (
        "SELECT * FROM read_csv('/etc/passwd')",
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        "ATTACH '/tmp/x.db'",
    ):
        with pytest.raises(Exception, match=r"(?i)disabled"):
            held.database.execute(sql)


def test_a_refused_reference_takes_its_transaction_out_of_the_rows_only() -> None:
    bundle = [record("Patient", "p3", "b1"), weight("o3", "p4", 3, "b1")]
    held = after([whole("1", P1, weight("o1", "p1", 10), weight("o7", "p7", 1), *bundle)])
    frozen = freeze(held, RECIPE, Freezing(KEY))
    assert frozen.report.refused == {"reference-not-resolved": 2, "transaction-refused": 1}
    assert frozen.report.rows == 1
    later = after([whole("1", P1, weight("o1", "p1", 10), *bundle)], [whole("2", patient("p4"), scope="b")])
    assert freeze(later, RECIPE, Freezing(KEY)).report.rows == 3


def test_two_sources_make_one_dataset_and_each_goes_on_by_its_own_mark() -> None:
    held = staging()
    take(PagesReader([whole("9", P1)]), held, JUDGE, source="people")
    take(PagesReader([whole("1", weight("o1", "p1", 4))]), held, JUDGE, source="lab")
    assert table(held) == {"p1": 4}
    assert (held.mark("people"), held.mark("lab"), held.mark("other")) == (b"9", b"1", None)
    held.keep_sources({"people"})
    assert table(held) == {"p1": None}
    assert held.mark("lab") is None


def test_records_of_somebody_withdrawn_are_not_kept_at_all() -> None:
    held = staging()
    judge = DESIGN.judge(KEY, lambda resource: "p2" in str(resource))
    take(PagesReader([whole("1", P1, P2, weight("o1", "p2", 4))]), held, judge)
    assert table(held) == {"p1": None}
    assert (held.resources(), held.refused()) == (1, [])
