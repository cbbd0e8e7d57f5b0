"""kill -9 in the middle of an import: it goes on where it stopped, nothing is missing and nothing stands twice."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flute.pilot.simulate import write_pilot

TESTS = Path(__file__).resolve().parents[1]
MEN = 60
PAGE = 25


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export")
    write_pilot(out, 7, {"huvh": MEN})
    return out / "huvh"


def begin(export: Path, work: Path) -> subprocess.Popen[str]:
    places = [str(export), str(work / "s" / "pilot.duckdb"), str(work)]
    command = [sys.executable, "-m", "support.import_process", *places, str(PAGE)]
    return subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """(pages read, what came of it)."""
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    _, pages, *found = out.splitlines()[-1].split()
    return int(pages), found


def kill_after(process: subprocess.Popen[str], pages: int, wait_s: float) -> None:
    """kill -9 a moment after that many pages are on disk: in the middle of the next one."""
    assert process.stdout is not None
    for _ in range(pages):
        assert process.stdout.readline().startswith("page")
    time.sleep(wait_s)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.requirement("F-PIL-5")
def test_an_import_that_is_killed_again_and_again_ends_as_one_that_was_not(export: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    all_pages, expected = ended(begin(export, tmp_path / "whole"))
    work, kills = tmp_path / "killed", 4
    assert all_pages > 3 * kills
    for _ in range(kills):
        kill_after(begin(export, work), chance.choice((1, 2)), chance.uniform(0.0, 0.05))
    read, found = ended(begin(export, work))
    assert found == expected
    assert read <= all_pages - kills, "the last run read everything again, so nothing was resumed"


def test_the_same_export_again_is_not_read_and_changes_nothing(export: Path, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(export, folder)
    _, first = ended(begin(folder, tmp_path / "w"))
    pages, again = ended(begin(folder, tmp_path / "w"))
    assert (pages, again) == (0, first)
    lines = (folder / "Observation.ndjson").read_text().splitlines(keepends=True)
    (folder / "Observation.ndjson").write_text("".join(lines[1:]))
    pages, changed = ended(begin(folder, tmp_path / "w"))
    assert int(changed[0]) == int(first[0]) - 1
    assert pages > 0
    (folder / "Observation.ndjson").write_text("".join(lines))
    assert ended(begin(folder, tmp_path / "w"))[1] == first
