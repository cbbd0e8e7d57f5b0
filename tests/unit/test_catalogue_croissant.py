"""Croissant's own validator reads the entry, and the sample through it; the sample is nobody's."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import mlcroissant
import msgspec
import numpy as np
import pytest

from flute.catalogue.croissant import croissant
from flute.catalogue.entry import Entry
from flute.catalogue.sample import MODEL, SAMPLE_ROWS, sample_csv, sample_name, sample_ndjson, sample_rows, sidecar
from flute.catalogue.statistics import Statistics
from flute.conformance.build import Measured, build
from flute.conformance.model import Coding, Element, Part, Quantity
from flute.errors import MisuseError
from flute.intake.flat import read_csv
from support.catalogue_entries import STATISTICS, VARIABLES, entry


def written(folder: Path, made: Entry, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    sample = sample_csv(made)
    (folder / f"{sample_name(made)}.csv").write_bytes(sample)
    document = json.loads(croissant(made, sample))
    change(document)
    (folder / "croissant.json").write_text(json.dumps(document))
    return folder / "croissant.json"


@pytest.mark.requirement("F-PIL-16")
@pytest.mark.parametrize("statistics", [STATISTICS, None])
def test_croissant_passes_its_validator_without_a_word(tmp_path: Path, statistics: Statistics | None) -> None:
    dataset = mlcroissant.Dataset(str(written(tmp_path, entry(statistics=statistics))))
    assert not dataset.metadata.issues.errors
    assert not dataset.metadata.issues.warnings
    assert dataset.metadata.name == "SIMULATED: Heart failure clinic"


def test_the_validator_reads_the_sample_through_the_entry(tmp_path: Path) -> None:
    dataset = mlcroissant.Dataset(str(written(tmp_path, entry())))
    records = list(dataset.records("sample"))
    assert len(records) == SAMPLE_ROWS
    assert records[0]["sample/patient"] == b"SYNTHETIC-0001"
    ages = np.array([r["sample/age"] for r in records], dtype=float)
    assert np.nanmin(ages) >= 18
    assert np.nanmax(ages) <= 110
    dictionary = {r["variables/name"]: r for r in dataset.records("variables")}
    assert dictionary["pressure"]["variables/unit"] == "mm[Hg]"
    assert dictionary["pressure"]["variables/codes"] == "http://loinc.org|8480-6"


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a source that is not there": lambda d: d["recordSet"][0]["field"][1]["source"]["fileObject"].update(
        {"@id": "another.csv"}
    ),
    "a file without a digest": lambda d: d["distribution"][0].pop("sha256"),
    "a file without an address": lambda d: d["distribution"][0].pop("contentUrl"),
    "a file of no kind": lambda d: d["distribution"][0].pop("encodingFormat"),
    "a field without a type": lambda d: d["recordSet"][0]["field"][1].pop("dataType"),
    "a form that nobody knows": lambda d: d.update(conformsTo="http://mlcommons.org/croissant/9.9"),
    "nothing to cite": lambda d: d.pop("citeAs"),
    "inline data under other names": lambda d: d["recordSet"][1]["data"][0].update({"variables/nobody": "x"}),
    "another kind of thing": lambda d: d.update({"@type": "sc:Book"}),
    "a version that is none": lambda d: d.update(version="newest"),
    "no licence": lambda d: d.pop("license"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_the_validator_catches_what_is_broken(tmp_path: Path, damage: Callable[[dict[str, Any]], Any]) -> None:
    """By an error, or by a warning, which ours has none of."""
    path = written(tmp_path, entry(), damage)
    try:
        issues = mlcroissant.Dataset(str(path)).metadata.issues
    except (mlcroissant.ValidationError, ValueError, KeyError):
        return
    assert issues.errors or issues.warnings


def test_the_digest_is_the_samples_own(tmp_path: Path) -> None:
    stated = mlcroissant.Dataset(str(written(tmp_path, entry()))).metadata.distribution[0].sha256
    sample = (tmp_path / "heart-SYNTHETIC.csv").read_bytes()
    assert hashlib.sha256(sample).hexdigest() == stated
    assert hashlib.sha256(sample + b"\n").hexdigest() != stated


# --- the sample ----------------------------------------------------------------------------------


def table(made: Entry, rows: int = SAMPLE_ROWS) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sample_csv(made, rows).decode())))


def test_a_sample_is_made_of_what_is_published_and_nothing_else() -> None:
    """The same entry gives the same bytes; another released number gives others."""
    other = msgspec.structs.replace(STATISTICS, epsilon=0.6)
    assert sample_csv(entry()) == sample_csv(entry())
    assert sample_csv(entry()) != sample_csv(entry(statistics=other))


def test_every_row_says_that_it_is_nobodys() -> None:
    rows = table(entry())
    assert len(rows) == SAMPLE_ROWS
    assert all(row["patient"].startswith("SYNTHETIC-") for row in rows)
    assert len({row["patient"] for row in rows}) == SAMPLE_ROWS
    assert "SYNTHETIC" in sample_name(entry())
    assert MODEL in sidecar(entry()).decode()
    assert "SIMULATED" in sidecar(entry()).decode()


def test_a_sample_follows_the_released_numbers() -> None:
    """20,000 rows: shares within 5 deviations (.015 for a share of a quarter)."""
    rows = table(entry(), 20_000)
    smokers = np.array([float(r["smoker"]) for r in rows if r["smoker"]])
    assert abs(smokers.mean() - 0.25) < 0.016
    levels = [r["grade"] for r in rows if r["grade"]]
    assert abs(levels.count("low") / len(levels) - 1200 / 2005) < 0.018
    assert "high" not in levels
    ages = np.array([float(r["age"]) for r in rows if r["age"]])
    assert abs(np.mean(ages < 64) - 750 / 1900) < 0.018
    assert abs(1 - len(ages) / 20_000 - 100 / 2000) < 0.008


def test_columns_of_a_sample_are_independent() -> None:
    """20,000 rows: a correlation of more than .036 (5 deviations) would be seen."""
    rows = [r for r in table(entry(), 20_000) if all(r.values())]
    columns = np.array([[float(r["age"]), float(r["pressure"]), float(r["smoker"])] for r in rows]).T
    off = np.corrcoef(columns)[np.triu_indices(3, 1)]
    assert np.abs(off).max() < 0.036


def test_without_released_numbers_only_declared_ranges_show() -> None:
    rows = table(entry(statistics=None), 20_000)
    assert all(all(r.values()) for r in rows)
    ages = np.array([float(r["age"]) for r in rows])
    assert abs(ages.mean() - 64) < 1
    assert {r["grade"] for r in rows} == {"low", "middle", "high"}


@pytest.mark.requirement("F-PIL-10")
def test_a_sample_can_be_imported_like_a_hospitals_own_file(tmp_path: Path) -> None:
    path = tmp_path / "heart-SYNTHETIC.csv"
    path.write_bytes(sample_csv(entry()))
    rows, report = read_csv(path, VARIABLES, key=bytes(32), id_column=None)
    assert len(rows) == SAMPLE_ROWS
    assert sum(report.unusable.values()) == 0


def test_the_number_of_rows_does_not_show_how_many_persons_there_are() -> None:
    few = msgspec.structs.replace(STATISTICS, persons=msgspec.structs.replace(STATISTICS.persons, value=12.0))
    assert len(table(entry(statistics=few))) == SAMPLE_ROWS
    with pytest.raises(MisuseError):
        sample_rows(entry(), 0)


PRESSURE = Element(
    "pressure", "Pressure", "Observation",
    (Part("value", "value", Quantity("mm[Hg]", ("mm[Hg]",), {}, 0, 400, 1), required=True),),  # type: ignore[arg-type]
    status=("final",), code=(Coding("http://loinc.org", "8480-6"),),
)  # fmt: skip


def resources(person: str, row: Mapping[str, str]) -> Iterable[Mapping[str, Any]]:
    yield {"resourceType": "Patient", "id": person}
    if "pressure" in row:
        yield build(PRESSURE, f"{person}-pressure", person, {"value": Measured(row["pressure"])})


def test_the_same_persons_as_fhir_say_that_they_are_test_data() -> None:
    lines = [json.loads(line) for line in sample_ndjson(entry(), resources).splitlines()]
    assert {r["resourceType"] for r in lines} == {"Patient", "Observation"}
    for resource in lines:
        assert {tag["code"] for tag in resource["meta"]["tag"]} == {"HTEST", "SYNTHETIC"}
    by_id = {r["id"]: r for r in lines}
    first = table(entry())[0]
    assert by_id["SYNTHETIC-0001-pressure"]["valueQuantity"]["value"] == float(first["pressure"])
