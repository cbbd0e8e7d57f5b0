"""What a simulated man's chart looks like in a hospital's own tables, plain or as another hospital would write it.

Tables: patients; lab_results (long: other tests too); examinations (wide: two findings in one row); volumes; studies,
lesions and what links them; biopsies; pathology; family. Nothing of the truth is lost: a man without a PSA has no
such row, a biopsy that states an age has no date, earlier and later examinations stand beside the index ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from flute.pilot.resources import Man

Cell = str | int | float | date | None
UNIT_SPELLINGS: Final = (("ng/ml", Decimal(1)), ("µg/L", Decimal(1)), ("mg/L", Decimal("0.001")))
"""Mass concentrations as laboratories write them, and what one ng/mL is in them."""
SEX: Final = {"male": "M", "female": "F"}
WORDS: Final[dict[tuple[str, Cell], str]] = {
    ("sex", "M"): "männlich", ("sex", "F"): "weiblich",
    ("finding", 0): "unauffällig", ("finding", 1): "Suspekt",
    ("kind", "first"): "Erstbiopsie", ("kind", "repeat"): "Re-Biopsie",
    ("prostate_cancer", "no"): "nein", ("prostate_cancer", "yes"): "ja",
    ("grade_group", 0): "benigne", ("grade_group", 1): "GG 1", ("grade_group", 2): "GG 2",
    ("grade_group", 3): "GG 3", ("grade_group", 4): "GG 4", ("grade_group", 5): "GG 5",
}  # fmt: skip
"""The words of another hospital, by column and plain word."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table: its columns with their types, the first being its key, and its rows."""

    name: str
    columns: dict[str, type]
    rows: tuple[tuple[Cell, ...], ...]


_COLUMNS: Final[dict[str, dict[str, type]]] = {
    "patients": {"patient_id": str, "sex": str, "birth_date": date},
    "lab_results": {
        "sample_id": str, "patient_id": str, "test_code": str, "result": float, "unit": str, "taken_on": date,
        "changed_at": datetime,
    },
    "examinations": {
        "exam_id": str, "patient_id": str, "examined_on": date, "finding": int, "volume_class": int,
    },
    "volumes": {
        "volume_id": str, "patient_id": str, "study_id": str, "measured_on": date, "volume": float, "unit": str,
    },
    "studies": {"study_id": str, "patient_id": str, "study_date": date, "lesions": str, "volume_id": str},
    "lesions": {"lesion_id": str, "patient_id": str, "study_id": str, "score": int, "reported_on": date},
    "biopsies": {"biopsy_id": str, "patient_id": str, "kind": str, "taken_on": date, "age_at_biopsy": int},
    "pathology": {"report_id": str, "patient_id": str, "grade_group": int, "reported_on": date},
    "family": {"record_id": str, "patient_id": str, "prostate_cancer": str},
}  # fmt: skip


def hospital_tables(men: Sequence[Man], *, varied: bool = False) -> list[Sheet]:
    """All tables of the men. `varied`: everything is text, in other units and words, days as DD.MM.YYYY, with decimal
    commas and the columns in another order."""
    rows: dict[str, list[dict[str, Cell]]] = {name: [] for name in _COLUMNS}
    for man in men:
        for table, row in _rows_of(man):
            rows[table].append(row)
    if not varied:
        return [
            Sheet(name, columns, tuple(tuple(row.get(c) for c in columns) for row in rows[name]))
            for name, columns in _COLUMNS.items()
        ]
    return [_as_another_would(name, columns, rows[name]) for name, columns in _COLUMNS.items()]


def _rows_of(man: Man) -> Iterator[tuple[str, dict[str, Cell]]]:
    yield "patients", {"patient_id": man.patient, "sex": SEX[man.gender], "birth_date": man.birth}
    yield from _laboratory(man)
    if man.dre is not None or man.dre_volume_class is not None:
        yield "examinations", _own(man, "exam_id", "dre") | {
            "examined_on": man.psa_day, "finding": man.dre, "volume_class": man.dre_volume_class,
        }  # fmt: skip
    yield from _imaging(man)
    yield from _biopsies(man)
    if man.family_history is not None:
        said = "yes" if man.family_history else "no"
        yield "family", _own(man, "record_id", "family") | {"prostate_cancer": said}


def _own(man: Man, key: str, what: str) -> dict[str, Cell]:
    return {key: f"{man.patient}-{what}", "patient_id": man.patient}


def _laboratory(man: Man) -> Iterator[tuple[str, dict[str, Cell]]]:
    tests = [("psa", (man.psa_day, man.psa)), ("psa-earlier", man.earlier_psa), ("psa-later", man.later_psa)]
    for what, test in tests:
        if test is not None and test[1] is not None:
            yield "lab_results", _own(man, "sample_id", what) | _test("PSA", test[1], man.psa_unit, test[0])
    # Another test of the same day, which no one asked for.
    yield "lab_results", _own(man, "sample_id", "hb") | _test("HB", 14.2, "g/dL", man.psa_day)


def _test(code: str, result: float, unit: str, day: date) -> dict[str, Cell]:
    changed = datetime.combine(day, time(12))
    return {"test_code": code, "result": result, "unit": unit, "taken_on": day, "changed_at": changed}


def _imaging(man: Man) -> Iterator[tuple[str, dict[str, Cell]]]:
    study = f"{man.patient}-mri" if man.mri is not None else None
    volume = f"{man.patient}-volume" if man.volume is not None else None
    if man.volume is not None:
        yield "volumes", _own(man, "volume_id", "volume") | {
            "study_id": study, "measured_on": man.mri or man.psa_day, "volume": man.volume, "unit": man.volume_unit,
        }  # fmt: skip
    if man.mri is not None:
        scores = {"lesion-1": man.pirads, "lesion-2": man.second_lesion}
        yield from _study(man, "mri", man.mri, scores, man.report_days, volume)
    if man.earlier_mri is not None:
        day, score = man.earlier_mri
        yield from _study(man, "mri-earlier", day, {"lesion-earlier": score}, 0, None)


def _study(
    man: Man, what: str, day: date, scores: dict[str, int | None], report_days: int, volume: str | None
) -> Iterator[tuple[str, dict[str, Cell]]]:
    study, read = f"{man.patient}-{what}", {name: score for name, score in scores.items() if score is not None}
    for name, score in read.items():
        reported = day + timedelta(report_days)
        yield "lesions", _own(man, "lesion_id", name) | {"study_id": study, "score": score, "reported_on": reported}
    yield "studies", {
        "study_id": study, "patient_id": man.patient, "study_date": day, "volume_id": volume,
        "lesions": " ".join(f"{man.patient}-{name}" for name in read) or None,
    }  # fmt: skip


def _biopsies(man: Man) -> Iterator[tuple[str, dict[str, Cell]]]:
    if man.earlier_biopsy is not None:
        day, grade = man.earlier_biopsy
        yield "biopsies", _own(man, "biopsy_id", "biopsy-earlier") | {"kind": "first", "taken_on": day}
        yield "pathology", _own(man, "report_id", "report-earlier") | _report(grade, day)
    if man.biopsy is None:
        return
    when: dict[str, Cell] = {"age_at_biopsy": man.age} if man.age_only else {"taken_on": man.biopsy}
    kind = "repeat" if man.repeated else "first"
    yield "biopsies", _own(man, "biopsy_id", "biopsy") | {"kind": kind} | when
    if man.isup is not None:
        yield "pathology", _own(man, "report_id", "report") | _report(man.isup, man.biopsy)


def _report(grade: int, biopsy: date) -> dict[str, Cell]:
    """Pathology reports a week after the biopsy."""
    return {"grade_group": grade, "reported_on": biopsy + timedelta(7)}


# --- as another hospital writes it --------------------------------------------------------------------


def _as_another_would(name: str, columns: dict[str, type], rows: Sequence[dict[str, Cell]]) -> Sheet:
    key, *others = columns
    ordered = [key, *reversed(others)]
    written = []
    for number, row in enumerate(rows):
        changed = _in_other_units(row, number)
        written.append(tuple(_written(column, changed.get(column)) for column in ordered))
    return Sheet(name, {column: datetime if column == "changed_at" else str for column in ordered}, tuple(written))


def _in_other_units(row: dict[str, Cell], number: int) -> dict[str, Cell]:
    if row.get("test_code") == "PSA":
        unit, factor = UNIT_SPELLINGS[number % len(UNIT_SPELLINGS)]
        return row | {"result": str(Decimal(str(row["result"])) * factor), "unit": unit}
    if "volume" in row:
        return row | {"unit": ("ml", "cc", "cm³")[number % 3]}
    return row


def _written(column: str, cell: Cell) -> Cell:
    if cell is None or column == "changed_at":
        return cell
    if (column, cell) in WORDS:
        return WORDS[column, cell]
    if isinstance(cell, date):
        return cell.strftime("%d.%m.%Y")
    if column in ("result", "volume"):
        return str(cell).replace(".", ",")
    return str(cell)
