"""Columns from another file: beside the dataset's own, for its own patients only."""

from __future__ import annotations

from pathlib import Path

import pytest

from flute.data.variables import Variable
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, Unmappable
from flute.intake.columns import with_columns
from flute.intake.flat import read_csv

KEY = b"k" * 32
AGE = Variable("age", "number", 0, 120)
TEXTURE = Variable("texture", "number", 0, 1)
SIDE = Variable("side", "category", levels=("left", "right"))


def dataset(folder: Path):  # type: ignore[no-untyped-def]
    (folder / "base.csv").write_text("id,age\na,60\nb,70\nc,80\n")
    return read_csv(folder / "base.csv", (AGE,), key=KEY, id_column="id")


def added(folder: Path, text: str, variables: tuple[Variable, ...] = (TEXTURE, SIDE), key: bytes | None = KEY):  # type: ignore[no-untyped-def]
    (folder / "more.csv").write_text(text)
    return with_columns(*dataset(folder), folder / "more.csv", variables, key=key, id_column="id")


@pytest.mark.requirement("F-IMSD-7")
def test_added_columns_stand_beside_the_patients_and_add_nobody(tmp_path: Path) -> None:
    rows, report = added(tmp_path, "id,texture,side\nb,0.5,left\na,7,\nstranger,0.1,right\n")
    found = {r[0]: r[1:] for r in rows.connection.execute("SELECT patient, age, texture, side FROM rows").fetchall()}
    assert found == {
        pseudonym(KEY, "a"): (60, 7, None),
        pseudonym(KEY, "b"): (70, 0.5, "left"),
        pseudonym(KEY, "c"): (80, None, None),
    }
    assert [v.name for v in rows.variables] == ["age", "texture", "side"]
    assert (report.rows, report.unmatched) == (3, 1)
    assert report.missing == {"age": 0, "texture": 1, "side": 2}
    assert report.unusable == {"age": 0, "texture": 1, "side": 0}


def test_ids_may_be_the_hub_s_own_pseudonyms(tmp_path: Path) -> None:
    _, report = added(tmp_path, f"id,texture\n{pseudonym(KEY, 'c')},0.5\na,0.5\n", (TEXTURE,), key=None)
    assert (report.unmatched, report.missing["texture"]) == (1, 2)


def test_a_column_that_is_there_already_and_a_patient_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="has age already"):
        added(tmp_path, "id,age\na,1\n", (AGE,))
    with pytest.raises(Unmappable, match="repeat a patient"):
        added(tmp_path, "id,texture\na,0.5\na,0.6\n", (TEXTURE,))
