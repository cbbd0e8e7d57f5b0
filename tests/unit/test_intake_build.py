"""Recipes at work: views, SQL, refusals, pseudonyms. The recipe here is about weights, not about the pilot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flute.connectors import files
from flute.data.variables import Variable
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, Unmappable
from flute.intake.build import build
from flute.intake.recipe import Recipe
from flute.intake.rows import ImportReport

KEY = b"k" * 32
VIEWS = {
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
    "patient_view": {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]},
}
SQL = """
SELECT p.id AS patient, max(w.kg) AS weight, CASE WHEN max(w.kg) > 100 THEN 'heavy' ELSE 'light' END AS build,
  CASE WHEN p.id = 'p3' THEN 'third' END AS excluded, [CASE WHEN p.id = 'p2' THEN 'second' END] AS flags
FROM patient_view p LEFT JOIN weight_view w ON w.who = p.id AND w.kg >= 0 GROUP BY p.id"""
RECIPE = Recipe(
    name="weights",
    views=VIEWS,
    sql=SQL,
    variables=(
        Variable("weight", "number", 20, 200, unit="kg"),
        Variable("build", "category", levels=("light", "heavy")),
    ),
    refusals={"value-out-of-range": "SELECT 'Observation/' || id AS key FROM weight_view WHERE kg < 0"},
)  # fmt: skip


def patient(key: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key}


def weight(key: str, who: str, kg: object) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": key, "subject": {"reference": f"Patient/{who}"},
        "valueQuantity": {"value": kg},
    }  # fmt: skip


def write(folder: Path, *resources: dict[str, Any], name: str = "a.ndjson") -> None:
    (folder / name).write_text("\n".join(json.dumps(r) for r in resources), encoding="utf-8")


def content(folder: Path, recipe: Recipe = RECIPE) -> tuple[dict[str, tuple[Any, ...]], ImportReport]:
    rows, report = build(folder, recipe, key=KEY)
    names = {pseudonym(KEY, f"p{i}"): f"p{i}" for i in range(10)}
    return {names[r[0]]: r[1:] for r in rows.connection.execute("SELECT * FROM rows").fetchall()}, report


def test_views_and_sql_make_one_row_per_patient_and_a_report(tmp_path: Path) -> None:
    write(
        tmp_path, *map(patient, ("p1", "p2", "p3")), weight("o1", "p1", 110.5), weight("o2", "p1", -1),
        weight("o3", "p2", "heavy"), weight("o4", "p3", 70), {"resourceType": "Device", "id": "d"},
    )  # fmt: skip
    rows, report = content(tmp_path)
    assert rows == {"p1": (110.5, "heavy"), "p2": (None, "light")}
    assert report == ImportReport(
        source="weights", files=1, resources=8, set_aside=1, refused={"value-out-of-range": 1, "wrong-type": 1},
        patients=3, excluded={"third": 1}, flags={"second": 1}, rows=2, missing={"weight": 1, "build": 0},
        unusable={"weight": 0, "build": 0},
    )  # fmt: skip


def test_no_database_of_the_rows_knows_a_patient_s_id(tmp_path: Path) -> None:
    write(tmp_path, patient("p1"), weight("o1", "p1", 70))
    rows, _ = build(tmp_path, RECIPE, key=KEY)
    tables = rows.connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
    assert tables == [("rows",)]
    assert rows.connection.execute("SELECT patient FROM rows").fetchall() == [(pseudonym(KEY, "p1"),)]


def test_values_outside_the_declared_range_are_counted_as_unusable(tmp_path: Path) -> None:
    write(tmp_path, patient("p1"), weight("o1", "p1", 500))
    assert content(tmp_path)[1].unusable == {"weight": 1, "build": 0}


def test_a_refused_resource_takes_its_transaction_with_it(tmp_path: Path) -> None:
    write(tmp_path, patient("p1"), weight("o1", "p1", 70))
    for number, kg in (("2", -1), ("4", 80), ("5", "x")):
        entries = [
            {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}}
            for r in (patient(f"p{number}"), weight(f"o{number}", f"p{number}", kg))
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        (tmp_path / f"b{number}.json").write_text(json.dumps(bundle), encoding="utf-8")
    rows, report = content(tmp_path)
    assert rows == {"p1": (70.0, "light"), "p4": (80.0, "light")}
    assert report.refused == {"transaction-refused": 2, "value-out-of-range": 1, "wrong-type": 1}
    assert report.resources == 8


def test_batches_do_not_change_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *map(patient, ("p1", "p2")), *(weight(f"o{i}", f"p{1 + i % 2}", 50 + i) for i in range(20)))
    whole = content(tmp_path)
    monkeypatch.setattr(files, "PAGE_RESOURCES", 3)
    assert content(tmp_path) == whole


def test_text_of_any_letters_survives(tmp_path: Path) -> None:
    views = {"patient_view": {"resource": "Patient", "select": [{"column": [
        {"name": "id", "path": "id"}, {"name": "word", "path": "language"}]}]}}  # fmt: skip
    recipe = Recipe("words", views, "SELECT id AS patient, word FROM patient_view",
                    (Variable("word", "category", levels=("a", "b")),))  # fmt: skip
    words = ["π", "𝄞", "a'b\"c", "x\u0000y", None, "NaN", "1"]
    write(tmp_path, *(patient(f"p{i}") | ({"language": w} if w else {}) for i, w in enumerate(words)))
    assert content(tmp_path, recipe)[0] == {f"p{i}": (w,) for i, w in enumerate(words)}


BROKEN = {
    "no column": (SQL.replace("AS weight", "AS height"), Unmappable, "no column weight"),
    "no table": ("SELECT * FROM nothing", Unmappable, "does not fit its views"),
    "no sql": ("SELEKT", Unmappable, "SQL"),
    "two statements": ("SELECT 1; SELECT 2", MisuseError, "one statement"),
    "a patient twice": (
        "SELECT 'p1' AS patient, 1 AS weight, 'light' AS build FROM range(2)", Unmappable, "1 rows repeat a patient"),
    "a row of nobody": ("SELECT NULL AS patient, 1 AS weight, '' AS build", Unmappable, "no patient id"),
    "a value as reason": (
        "SELECT id AS patient, 1 AS weight, '' AS build, id AS excluded FROM patient_view",
        Unmappable, "not written out"),
    "a value as flag": (
        "SELECT id AS patient, 1 AS weight, '' AS build, [id] AS flags FROM patient_view",
        Unmappable, "not written out"),
    "a file": ("SELECT * FROM read_csv('/etc/hostname')", Unmappable, "SQL"),
    "an attached file": ("SELECT * FROM '/etc/hostname'", Unmappable, "SQL"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_sql_that_does_not_do_its_work_is_refused(tmp_path: Path, name: str) -> None:
    sql, error, words = BROKEN[name]
    write(tmp_path, patient("p1"))
    with pytest.raises(error, match=words):
        build(tmp_path, dataclasses.replace(RECIPE, sql=sql), key=KEY)


def test_an_error_of_the_sql_quotes_no_value(tmp_path: Path) -> None:
    write(tmp_path, patient("secret-8154"))
    recipe = dataclasses.replace(
        RECIPE, sql="SELECT id AS patient, CAST(id AS INTEGER) AS weight, '' AS build FROM patient_view"
    )
    with pytest.raises(Unmappable) as caught:
        build(tmp_path, recipe, key=KEY)
    assert "8154" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_refusal_must_be_one_statement(tmp_path: Path) -> None:
    write(tmp_path, patient("p1"))
    with pytest.raises(MisuseError, match="one statement"):
        build(tmp_path, dataclasses.replace(RECIPE, refusals={"x": "SELECT 'a'; SELECT 'b'"}), key=KEY)


def test_the_report_is_closed() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "x", "records": []}, ImportReport)
    kinds = {f.name: f.type for f in msgspec.structs.fields(ImportReport)}
    assert "row" not in kinds
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(dict.fromkeys(kinds, 0) | {"source": "x"}, ImportReport)


def test_rows_cannot_be_pickled(tmp_path: Path) -> None:
    import pickle

    write(tmp_path, patient("p1"))
    rows, _ = build(tmp_path, RECIPE, key=KEY)
    with pytest.raises(MisuseError, match="serialised"):
        pickle.dumps(rows)
