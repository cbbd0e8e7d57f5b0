"""`flute data check`: any source, the same answer; nothing is left behind; its words for people and for programs."""

from __future__ import annotations

import json
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flute.cli.records import data
from flute.pilot.exports import write_csv
from flute.pilot.resources import resources_of
from support.mutants import man

MEN = [
    man("m1"),
    man("m2", psa=3.0, dre=0, isup=1),
    man("m3", psa_unit="ug/L", volume_unit="mL", repeated=1, isup=0, family_history=None),
    man("m4", mri=date(2022, 5, 19)),
]


def check(place: object, *options: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(data.APP, ["check", str(place), "--format", "json", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    resources = [resource for one in MEN for resource in resources_of(one)]
    text = "".join(json.dumps(resource) + "\n" for resource in resources)
    (folder / "all.ndjson").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.requirement("F-PIL-5")
def test_values_and_decisions_are_the_same_from_fhir_and_from_tables(export: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    write_csv(MEN, tmp_path / "tables")
    code, fhir = check(export)
    assert (code, fhir["refused"]) == (0, [])
    code, tables = check(tmp_path / "tables", "--mapping", "csv")
    assert (code, tables["refused"]) == (0, [])
    assert [p["values"] for p in tables["patients"]] == [p["values"] for p in fhir["patients"]]
    decided = {p["patient"]: p["excluded"] for p in fhir["patients"]}
    assert decided == {"m1": "", "m2": "no-suspicion", "m3": "", "m4": "mri-older-than-1y"}
    assert [p["excluded"] for p in tables["patients"]] == list(decided.values())


def test_what_a_steward_declares_counts(export: Path) -> None:
    assert check(export, "--declare", "pirads-version=1.0")[1]["report"]["rows"] == 0
    code, said = check(export, "--declare", "pirads-version")
    assert code == 2
    assert "NAME=VALUE" in said["error"]["text"]


def test_a_mapping_that_is_wrong_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    write_csv(MEN, tmp_path / "tables")
    mapping = tmp_path / "clinic.yaml"
    mapping.write_text("flute: mapping/1\nname: x\ntables:\n  lab:\n    file: lab_results.csv\n", encoding="utf-8")
    code, said = check(tmp_path / "tables", "--mapping", str(mapping))
    assert code == 2
    assert said["error"]["where"].startswith(str(mapping))


def test_warnings_are_said_and_keep_nothing_out(export: Path) -> None:
    resource = next(r for r in resources_of(man("m9")) if r["id"] == "m9-psa")
    quantity = {name: value for name, value in resource["valueQuantity"].items() if name not in ("code", "system")}
    patient = next(iter(resources_of(man("m9"))))
    text = "".join(json.dumps(r) + "\n" for r in (patient, resource | {"valueQuantity": quantity}))
    (export / "more.ndjson").write_text(text, encoding="utf-8")
    code, said = check(export)
    assert code == 0
    assert [(w["resource"], w["rule"]) for w in said["warnings"]] == [("Observation/m9-psa", "psa-value-unit")]


def test_nothing_is_left_behind(export: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = tmp_path / "tmp"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    assert check(export)[0] == 0
    assert list(room.iterdir()) == []
