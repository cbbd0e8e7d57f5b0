"""CSV files: what is read, and what is said about files that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flute.data.variables import Variable
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, SourceError, Unmappable, Unreachable
from flute.intake import flat as tables
from flute.intake.flat import ROW_NUMBER, read_csv
from flute.intake.snapshot import write_snapshot

KEY = b"k" * 32
AGE = Variable("age", "number", 0, 120, unit="a")
GROUP = Variable("group", "category", levels=("a", "b"))
BOTH = (AGE, GROUP)


def rows(folder: Path, text: str | bytes, variables: tuple[Variable, ...] = BOTH, **options: Any) -> dict[str, Any]:
    path = folder / "data.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found, _ = read_csv(path, variables, key=KEY, **options)
    return {r[0]: r[1:] for r in found.connection.execute("SELECT * FROM rows").fetchall()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_declared_columns_are_read_and_others_left(tmp_path: Path, delimiter: str) -> None:
    text = "id,town,group,age\np1,x,a,61\np2,y,b,62.5\n".replace(",", delimiter)
    assert rows(tmp_path, text) == {pseudonym(KEY, "p1"): (61.0, "a"), pseudonym(KEY, "p2"): (62.5, "b")}


def test_a_byte_order_mark_quotes_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    text = '\ufeff"id","age","group"\r\n"p,1","61","a"\r\n'
    assert rows(tmp_path, text) == {pseudonym(KEY, "p,1"): (61.0, "a")}


def test_an_empty_cell_is_missing_and_an_unreadable_one_counted(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("id,age,group\n1,,a\n2,old,\n3,200,c\n4,nan,b\n5, 70 ,b\n", encoding="utf-8")
    found, report = read_csv(path, BOTH, key=KEY)
    assert report.missing == {"age": 1, "group": 1}
    assert report.unusable == {"age": 3, "group": 1}
    assert (report.rows, report.patients) == (5, 5)
    ages = found.connection.execute("SELECT age FROM rows WHERE age IS NOT NULL ORDER BY 1").fetchall()
    assert ages == [(70.0,), (200.0,)]


def test_ids_come_from_a_named_column_the_first_or_the_row(tmp_path: Path) -> None:
    text = "town,age,group,nr\nx,61,a,n1\ny,62,b,n2\n"
    assert set(rows(tmp_path, text)) == {pseudonym(KEY, "x"), pseudonym(KEY, "y")}
    assert set(rows(tmp_path, text, id_column="nr")) == {pseudonym(KEY, "n1"), pseudonym(KEY, "n2")}
    assert set(rows(tmp_path, text, id_column=ROW_NUMBER)) == {pseudonym(KEY, "1"), pseudonym(KEY, "2")}
    assert set(rows(tmp_path, "age,group\n61,a\n62,b\n")) == {pseudonym(KEY, "1"), pseudonym(KEY, "2")}


def test_pseudonyms_need_the_hub_s_key_and_keep_the_id_to_themselves(tmp_path: Path) -> None:
    assert pseudonym(KEY, "p1") != pseudonym(b"j" * 32, "p1")
    assert len(pseudonym(KEY, "p1")) == 32
    path = tmp_path / "data.csv"
    path.write_text("id,age,group\np1,61,a\n", encoding="utf-8")
    with pytest.raises(MisuseError, match="32 bytes"):
        read_csv(path, BOTH, key=b"short")


BAD = {
    "is empty": "",
    "header line": "\n\n",
    "no header": "1,2,3\n4,5,6\n",
    "no header: some": "id,,age\n",
    "two columns called age": "id,age,age,group\n",
    "no column group": "id,age\np1,61\n",
    "no column age, group": "x;y\n1;2\n",
    "1 rows repeat a patient": "id,age,group\np1,61,a\np1,62,a\n",
    "1 rows have no patient id": "id,age,group\n ,61,a\np1,62,a\n",
    "no patient": "id,age,group\n",
    "do not fit its header": "id,age,group\np1,61\n",
    "lines that do not fit": "id,age,group\np1,61,a,b\n",
    "an open quote": 'id,age,group\np1,61,"a\n',
    "not UTF-8": b"id,age,\xff\n",
    "letters that are not UTF-8": b"id,age,group\np1,61,\xff\n",
}


@pytest.mark.parametrize("words", BAD)
def test_a_bad_file_is_refused_in_clear_words(tmp_path: Path, words: str) -> None:
    with pytest.raises(Unmappable, match=words):
        rows(tmp_path, BAD[words])


def test_an_error_quotes_no_patient(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        rows(tmp_path, "id,age,group\nsecret-8154,61,a,b,c\n")
    assert "8154" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(Unreachable):
            read_csv(path, BOTH, key=KEY)


def test_an_id_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unmappable, match="nr"):
        rows(tmp_path, "id,age,group\np1,61,a\n", id_column="nr")


def test_too_many_columns_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_CSV_COLUMNS", 2)
    with pytest.raises(Unmappable, match="more than 2 columns"):
        rows(tmp_path, "id,age,group\np1,61,a\n")


def test_a_name_with_pattern_letters_is_that_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "ab.csv").write_text("id,age,group\nwrong,1,a\n", encoding="utf-8")
    path = tmp_path / "a*[x].csv"
    path.write_text("id,age,group\nright,61,a\n", encoding="utf-8")
    found, _ = read_csv(path, BOTH, key=KEY)
    assert found.connection.execute("SELECT patient FROM rows").fetchall() == [(pseudonym(KEY, "right"),)]


def test_a_column_called_like_sql_is_only_a_column(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('id,"x""; DROP TABLE rows; --",select\np1,7,8\n', encoding="utf-8")
    found, _ = read_csv(path, (Variable("select", "number", 0, 9),), key=KEY)
    assert found.connection.execute('SELECT "select" FROM rows').fetchall() == [(8.0,)]


def test_the_same_table_from_csv_in_another_order_is_the_same_snapshot(tmp_path: Path) -> None:
    digests = set()
    for lines in (["p1,61,a", "p2,62,b"], ["p2,62,b", "p1,61.0,a"]):
        path = tmp_path / "d.csv"
        path.write_text("\n".join(["id,age,group", *lines]), encoding="utf-8")
        digests.add(write_snapshot(read_csv(path, BOTH, key=KEY)[0], tmp_path))
    assert len(digests) == 1
