"""A vendor's imaging biomarkers as columns: from a DICOM structured report (TID 1500) or a CSV file.

A biomarker is declared: its column, the code or heading under which it comes, its unit, its possible range. Anything
that is not declared is counted and left; a value in another unit is converted exactly or refused.
Source: DICOM PS3.16 TID 1500 (Measurement Report), TID 300 (Measurement); UCUM.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import highdicom as hd
from msgspec import Struct
from pydicom.dataset import Dataset

from flute.conformance.units import factor
from flute.defaults.records import MAX_BIOMARKER_ROWS
from flute.errors import MisuseError, Unmappable, Unreachable

_COMPREHENSIVE: Final = "1.2.840.10008.5.1.4.1.1.88.33"
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,18})?([eE][+-]?[0-9]{1,3})?\Z")


class Biomarker(Struct, frozen=True, forbid_unknown_fields=True):
    """One declared column. `scheme`, `code`: of the measurement's name in a report, as the vendor codes it.
    `heading`: its column in a CSV file, in `csv_unit` (UCUM; the column's own unit where empty). `unit`: UCUM, of the
    column made. `low`, `high`: what is possible, inclusive. `several`: what to take where a report has more than one
    (one per lesion)."""

    column: str
    unit: str
    scheme: str = ""
    code: str = ""
    heading: str = ""
    csv_unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    several: Literal["refuse", "largest", "smallest", "mean"] = "refuse"


@dataclass(frozen=True, slots=True)
class Values:
    """One patient's or study's values. `refused`: reason to count; `undeclared`: measurements nobody asked for."""

    patient_id: str
    study: str
    columns: Mapping[str, float]
    refused: Mapping[str, int] = field(default_factory=dict)
    undeclared: int = 0


def values_of_report(report: Dataset, wanted: Sequence[Biomarker]) -> Values:
    """Raises: Unmappable: no measurement report by TID 1500 (or one that cannot be read)."""
    try:
        kind = hd.sr.ComprehensiveSR if report.SOPClassUID == _COMPREHENSIVE else hd.sr.Comprehensive3DSR
        content = kind.from_dataset(report).content
        if not isinstance(content, hd.sr.MeasurementReport):
            raise Unmappable("The structured report is no measurement report (TID 1500); its values are not read.")
        found = list(_measurements(content))
    except (AttributeError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Unmappable("The structured report cannot be read as a measurement report (TID 1500).") from error
    by_code = {(b.scheme, b.code): b for b in wanted if b.code}
    values: dict[str, list[float]] = defaultdict(list)
    refused: Counter[str] = Counter()
    undeclared = 0
    for code, value, unit in found:
        biomarker = by_code.get(code)
        if biomarker is None:
            undeclared += 1
            continue
        number = _in_unit(value, unit, biomarker, refused)
        if number is not None:
            values[biomarker.column].append(number)
    columns = {b.column: v for b in wanted if (v := _one(values[b.column], b, refused)) is not None}
    return Values(
        str(report.get("PatientID", "")).strip(),
        str(report.get("StudyInstanceUID", "")),
        columns,
        dict(refused),
        undeclared,
    )


def _measurements(content: hd.sr.MeasurementReport) -> Iterator[tuple[tuple[str, str], float, str]]:
    """((scheme, code), value, UCUM unit) of every numeric measurement of every group."""
    groups = [
        *content.get_image_measurement_groups(),
        *content.get_planar_roi_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
    ]
    for group in groups:
        for measurement in group.get_measurements():
            name = measurement.name
            unit = measurement.unit
            if measurement.value is not None:
                shown = unit.value if unit.scheme_designator == "UCUM" else ""
                yield (name.scheme_designator, name.value), float(measurement.value), shown


def _in_unit(value: float, unit: str, biomarker: Biomarker, refused: Counter[str]) -> float | None:
    try:
        number = value if unit == biomarker.unit else float(value * factor(unit, biomarker.unit))
    except MisuseError:
        refused["unit-not-convertible"] += 1
        return None
    if not math.isfinite(number) or not biomarker.low <= number <= biomarker.high:
        refused["value-out-of-range"] += 1
        return None
    return number


def _one(values: Sequence[float], biomarker: Biomarker, refused: Counter[str]) -> float | None:
    if len(values) <= 1:
        return values[0] if values else None
    if biomarker.several == "refuse":
        refused["several-values"] += 1
        return None
    return {"largest": max(values), "smallest": min(values), "mean": sum(values) / len(values)}[biomarker.several]


# --- CSV -----------------------------------------------------------------------------------------


def values_of_csv(path: Path, wanted: Sequence[Biomarker], *, patient: str, study: str = "") -> list[Values]:
    """One entry per row. `patient`, `study`: headings of the columns that hold the patient's id and the study's UID.

    A cell that is no number with a decimal point is refused alone; a row without a patient, and one whose patient
    (and study) stood before, is refused whole. Empty cells are missing values.
    Raises: Unreachable: no such file. Unmappable: no UTF-8, a declared heading is missing or stands twice, too many
    rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(file, path.name, wanted, patient, study))
    except OSError as error:
        raise Unreachable(f"The file {path.name} cannot be read.") from error
    except UnicodeDecodeError as error:
        raise Unmappable(f"The file {path.name} is not UTF-8; save it as such.") from error
    except csv.Error as error:
        raise Unmappable(f"The file {path.name} is no CSV file.") from error


def _rows(lines: Iterator[str], name: str, wanted: Sequence[Biomarker], patient: str, study: str) -> Iterator[Values]:
    first = next(lines, "")
    reader = csv.reader([first], delimiter=(delimiter := max(",;\t|", key=first.count)))
    headings = [h.strip() for h in next(reader, [])]
    declared = [b for b in wanted if b.heading]
    for heading in [patient, *([study] if study else []), *(b.heading for b in declared)]:
        if headings.count(heading) != 1:
            raise Unmappable(
                f"The file {name} must have one column called {heading!r}; it has {headings.count(heading)}."
            )
    seen: set[tuple[str, str]] = set()
    for number, cells in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
        if number > MAX_BIOMARKER_ROWS:
            raise Unmappable(f"The file {name} has more than {MAX_BIOMARKER_ROWS} rows.")
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(headings, (c.strip() for c in cells), strict=False))
        key = (row.get(patient, ""), row.get(study, "") if study else "")
        if len(cells) != len(headings) or not key[0] or key in seen:
            reason = (
                "row-too-short-or-long"
                if len(cells) != len(headings)
                else "patient-twice"
                if key[0]
                else "patient-missing"
            )
            yield Values(*key, {}, {reason: 1})
            continue
        seen.add(key)
        yield _row(key, row, declared, len(headings) - len(declared) - 1 - bool(study))


def _row(key: tuple[str, str], row: Mapping[str, str], declared: Sequence[Biomarker], undeclared: int) -> Values:
    columns, refused = {}, Counter[str]()
    for biomarker in declared:
        cell = row[biomarker.heading]
        if not cell:
            continue
        if not _NUMBER.match(cell):
            refused["value-no-number"] += 1
            continue
        number = _in_unit(float(cell), biomarker.csv_unit or biomarker.unit, biomarker, refused)
        if number is not None:
            columns[biomarker.column] = number
    return Values(*key, columns, dict(refused), undeclared)
