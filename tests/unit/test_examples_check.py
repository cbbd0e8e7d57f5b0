"""Every example and every study of the pilot can be carried out as it is written, and stays small."""

from __future__ import annotations

import csv
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from flute.cli.app import run
from flute.cli.hub.data import _variables_file
from flute.errors import MisuseError

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted([*(ROOT / "examples").rglob("*.yaml"), *(ROOT / "src/flute/pilot/studies").glob("*.yaml")])
TABLES = sorted((ROOT / "examples").rglob("*.csv"))
READMES = sorted((ROOT / "examples").rglob("README.md"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_records", ROOT / "examples/heart/make_records.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_examples() -> None:
    assert len(STUDIES) >= 4
    assert {path.parent.name for path in STUDIES} == {"heart", "studies"}


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_an_example_passes_the_check(path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["flute", "study", "check", str(path)])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 0
    assert "can be carried out" in capsys.readouterr().out


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_an_example_is_marked_simulated_and_names_its_hubs(path: Path) -> None:
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert study["simulated"] is True
    if path.parent.name == "heart":
        assert {f"{hub}.csv" for hub in study["hubs"]} == {table.name for table in TABLES}


@pytest.mark.parametrize("path", TABLES, ids=named)
def test_a_table_has_the_variables_and_some_missing_values(path: Path) -> None:
    assert path.stat().st_size < 60_000
    study = yaml.safe_load((path.parent / "private.yaml").read_text(encoding="utf-8"))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(study["variables"]) <= set(rows[0])
    assert any(cell == "" for row in rows for cell in row.values())
    assert len({row["patient"] for row in rows}) == len(rows)


@pytest.mark.parametrize("hospital", ["north", "south", "east", "west"])
def test_the_committed_tables_are_what_the_script_writes(hospital: str) -> None:
    assert generator().records(hospital) == (ROOT / f"examples/heart/{hospital}.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [ROOT / "README.md", *READMES], ids=named)
def test_files_that_a_command_of_a_readme_names_are_there(path: Path) -> None:
    """Paths under examples/ and src/ in the shell blocks of a README exist."""
    blocks = re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    words = [word for block in blocks for word in shlex.split(block.replace("\\\n", " "), comments=True)]
    wanted = [word.partition("=")[2] or word for word in words if re.search(r"(^|=)(examples|src)/", word)]
    assert wanted
    assert [word for word in wanted if not (ROOT / word).exists()] == []


def test_a_study_file_says_what_to_import_as_well_as_a_list_does(tmp_path: Path) -> None:
    listed = """\
- {name: smoker, kind: binary, label: Smokes}
- {name: sex, kind: category, levels: [f, m], label: Sex}
- {name: age, kind: number, low: 18, high: 110, unit: a, label: Age}
"""
    (tmp_path / "variables.yaml").write_text(listed, encoding="utf-8")
    of_the_study = _variables_file(ROOT / "examples/heart/private.yaml")
    of_the_list = _variables_file(tmp_path / "variables.yaml")
    assert len(of_the_study) == 8
    assert len(of_the_list) == 3
    assert all(variable in of_the_study for variable in of_the_list)


@pytest.mark.parametrize(
    "text", ["just text", "[1, 2]", "- {name: age}", "{a: [}", "- {name: age, kind: number, low: 3, high: 1}"]
)
def test_a_file_that_lists_no_variables_is_told_what_to_write(text: str, tmp_path: Path) -> None:
    path = tmp_path / "variables.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MisuseError, match="name: age, kind: number, low: 0, high: 120"):
        _variables_file(path)
