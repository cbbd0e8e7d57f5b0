"""Every broken input has its own reason, place and sentence, an exit code, and takes nothing else with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broken import inputs
from flute.cli.records import data
from flute.cli.records.data import NOT_READABLE, SOMETHING_REFUSED

TESTS = Path(__file__).resolve().parents[1]

INPUTS = [*inputs.ALONE, *inputs.TOGETHER]


def good_export(folder: Path) -> Path:
    folder.mkdir()
    text = "".join(json.dumps(resource) + "\n" for resource in inputs.GOOD)
    (folder / "a-good.ndjson").write_text(text, encoding="utf-8")
    return folder


def check(place: object, *options: str) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(data.APP, ["check", str(place), "--format", "json", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout) if result.exit_code != NOT_READABLE else {}


def test_there_are_forty_of_them() -> None:
    assert len(INPUTS) >= 40
    assert len({broken.name for broken in INPUTS}) == len(INPUTS)


def findings(said: dict[str, Any], word: str = "") -> list[tuple[str, str, str, str]]:
    """Of one input, by the word that stands for it: where, reason, path, rule."""
    ours = [r for r in said["refused"] if not word or r["origin"].startswith(f"{word}.")]
    where = [r["origin"].replace(word, "bad") if word else r["origin"] for r in ours]
    return [(at, r["reason"], r["path"], r["rule"]) for at, r in zip(where, ours, strict=True)]


def decided(said: dict[str, Any]) -> dict[str, str]:
    return {p["patient"]: p["excluded"] for p in said["patients"]}


def assert_the_good_man_is_whole(said: dict[str, Any]) -> None:
    (good,) = [p for p in said["patients"] if p["patient"] == "good"]
    assert good["excluded"] == ""
    assert good["values"]["psa"] == 6.7
    assert good["values"]["isup"] == 3


@pytest.mark.requirement("NF-PIL-4")
@pytest.mark.parametrize("broken", inputs.ALONE, ids=lambda b: b.name)
def test_a_broken_file_is_refused_with_its_reason_and_nothing_else(broken: Any, tmp_path: Path) -> None:
    folder = good_export(tmp_path / "export")
    broken.write(folder)
    code, said = check(folder)
    assert findings(said) == list(broken.refused)
    assert code == (SOMETHING_REFUSED if broken.refused else 0)
    assert all(r["mend"].endswith(".") for r in said["refused"])
    assert said["accepted"] == len(inputs.GOOD) + broken.accepted, "nothing is half taken"
    assert decided(said) == {"good": "", **broken.decisions}
    assert_the_good_man_is_whole(said)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, Any]]:
    """One check of a folder with all of them: each by its word, and what was said."""
    folder = good_export(tmp_path_factory.mktemp("together") / "export")
    words = inputs.written_together(folder, tmp_path_factory.mktemp("alone"))
    code, said = check(folder)
    assert code == SOMETHING_REFUSED
    return words, said


@pytest.mark.requirement("F-STD-4")
@pytest.mark.requirement("NF-PIL-4")
@pytest.mark.parametrize("broken", inputs.TOGETHER, ids=lambda b: b.name)
def test_a_broken_record_is_refused_with_its_reason_and_nothing_else(
    broken: Any, together: tuple[dict[str, str], dict[str, Any]]
) -> None:
    words, said = together
    word = words[broken.name]
    assert findings(said, word) == list(broken.refused)
    assert decided(said).get(word, "is not there") == broken.decisions.get("bad", "is not there")


def test_many_broken_records_take_nothing_else_with_them(together: tuple[dict[str, str], dict[str, Any]]) -> None:
    _, said = together
    assert said["accepted"] == len(inputs.GOOD) + sum(broken.accepted for broken in inputs.TOGETHER)
    assert_the_good_man_is_whole(said)


def test_reasons_are_told_apart() -> None:
    """A reason that fitted everything would say nothing."""
    reasons = {(reason, rule) for broken in INPUTS for _, reason, _, rule in broken.refused}
    assert len(reasons) >= 30


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: its /proc tells a process's peak")
def test_a_line_of_two_gigabytes_takes_neither_memory_nor_the_next_line(tmp_path: Path) -> None:
    folder = good_export(tmp_path / "export")
    inputs.endless_line(folder)
    peak = tmp_path / "peak"
    command = [sys.executable, "-m", "support.peak_memory", str(peak), "check", str(folder), "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=TESTS, check=False)
    said = json.loads(done.stdout)
    assert done.returncode == SOMETHING_REFUSED
    assert [(r["origin"], r["reason"]) for r in said["refused"]] == [("bad.ndjson, line 1", "too-long")]
    assert said["accepted"] == len(inputs.GOOD) + 1
    assert int(peak.read_text()) < 500 * 1024, f"{peak.read_text()} KiB"


@pytest.mark.parametrize("place", ["nowhere", "empty", "foreign", "postgresql://db/clinic", "http://127.0.0.1:9"])
def test_a_source_that_cannot_be_read_at_all_ends_with_2(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("x", encoding="utf-8")
    assert check(place if "://" in place else tmp_path / place)[0] == NOT_READABLE


def test_the_text_says_the_same_for_people(tmp_path: Path) -> None:
    folder = good_export(tmp_path / "export")
    inputs.lines(inputs.chart()["patient"], inputs.measured(code="mmol/L"))(folder)
    result = CliRunner().invoke(data.APP, ["check", str(folder)])
    assert result.exit_code == SOMETHING_REFUSED
    for words in (
        "bad.ndjson, line 2: Observation.valueQuantity.code: unit-not-convertible (mmol/L).",
        "Write the unit as UCUM ng/mL, or ug/L or mg/L, which are converted.",
        "good: in the cohort",
        "bad: left out: no-biopsy",
        "SIMULATED",
    ):
        assert words in result.stdout
