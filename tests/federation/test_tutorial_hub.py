"""The hub tutorial, carried out as it stands: every command of the page, with the installed `flute`, in its order.

What the page says is printed is compared with what is printed; only times, ids and fingerprints may differ. A line
that is `…` stands for lines that the page leaves out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flute.cli.app import APP
from flute.errors import FluteError
from flute.hub.home import HubHome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial-hub.md"
PORT = "8095"
"""Of the page; here a free one is taken."""
NAMES = ("pilot", "tables")
MARK = "@@ end of block"
SAME = (
    (re.compile(r"([A-Z2-7]{4} ){7}[A-Z2-7]{4}"), "FINGERPRINT"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?Z?)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "ID"),
)
"""What is another one each time it is carried out."""


@dataclass(frozen=True)
class Block:
    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    return [
        Block(kind, text) for kind, text in re.findall(r"^```(sh|text)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    ]


def plain(text: str) -> list[str]:
    for pattern, word in SAME:
        text = pattern.sub(word, text)
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def says(shown: list[str], printed: list[str]) -> bool:
    """Whether `printed` is what `shown` tells; `…` stands for any lines."""
    if not shown:
        return not printed
    if shown[0] == "…":
        return any(says(shown[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and shown[0] == printed[0] and says(shown[1:], printed[1:])


class Shell:
    """One bash that a reader types into. `failed`: commands that ended with another exit code than 0."""

    def __init__(self, folder: Path) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        self._bash = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=environment, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.failed: list[str] = []
        self.type("trap 'echo \"@@ failed $BASH_COMMAND\"' ERR\n")

    def type(self, commands: str) -> str:
        """What is printed until the commands have ended."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{commands}\necho; echo '{MARK}'\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(MARK):
                break
            if line.startswith("@@ failed"):
                self.failed.append(line.removeprefix("@@ failed ").strip())
            else:
                lines.append(line)
        return "".join(lines)

    def close(self) -> None:
        """Ends what the page left running, too."""
        self.type("trap - ERR; jobs -p | xargs -r kill 2>/dev/null; wait")
        self._bash.communicate(timeout=60)


@dataclass
class Walked:
    """`shown`: what the page says is printed, and what was. `folder`: where the reader stood."""

    folder: Path
    shown: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    """The page up to its last block, which ends the services: that one is carried out after the tests."""
    folder = tmp_path_factory.mktemp("reader")
    page = PAGE.read_text(encoding="utf-8").replace(PORT, free_port())
    shell, done, printed = Shell(folder), Walked(folder / "first-hub"), ""
    *steps, last = blocks(page)
    try:
        for block in steps:
            if block.kind == "text":
                done.shown.append((block.text, printed))
                continue
            printed = shell.type(block.text)
            if "flute hub serve" in block.text:  # a reader takes longer to read on than a hub to start
                wait_for(HubHome(done.folder / "hub").socket)
        done.failed = shell.failed
        yield done
        shell.type(last.text + "\nwait")
        assert shell.failed == done.failed, "the services did not end as the page says"
    finally:
        shell.close()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.1)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.requirement("URS-12")
def test_every_command_of_the_page_works(walked: Walked) -> None:
    assert walked.failed == []


@pytest.mark.requirement("URS-12")
def test_what_the_page_shows_is_what_is_printed(walked: Walked) -> None:
    assert len(walked.shown) >= 8
    for shown, printed in walked.shown:
        assert says(plain(shown), plain(printed)), f"the page says:\n{shown}\nprinted is:\n{printed}"


def test_a_stale_page_would_be_found() -> None:
    printed = plain("200 patients in the dataset.\nMissing: 6 dre.\nReport: import.html\n")
    assert says(["200 patients in the dataset.", "…", "Report: import.html"], printed)
    assert not says(["200 patients in the dataset.", "…", "Report: other.html"], printed)
    assert not says(["201 patients in the dataset.", "…"], printed)
    assert not says(["200 patients in the dataset."], printed)


def test_the_tables_gave_the_same_snapshot_as_the_fhir_files(walked: Walked) -> None:
    said = [line["text"] for line in typed(walked, "flute audit show hub --format json")]
    found = {name: re.findall(rf"dataset {name} .*? snapshot (\w+)", " ".join(said)) for name in NAMES}
    assert len(found["tables"]) == 1
    assert found["tables"] * 2 == [found["pilot"][0], found["pilot"][2]]  # before the mistake, and when it was mended
    assert found["pilot"][1] != found["pilot"][0]


@pytest.mark.requirement("F-PIL-5")
def test_programs_get_everything_that_people_are_shown(walked: Walked) -> None:
    cohort = typed(walked, "flute hub cohort hub --dataset pilot --format json")
    assert set(cohort) == {"dataset", "snapshot", "report", "flow", "decisions", "withdrawn"}
    assert [step["word"] for step in cohort["flow"]["steps"]] == rules(walked)
    assert len(cohort["decisions"]) == cohort["withdrawn"] == 1
    assert typed(walked, "flute hub cohort hub --dataset pilot --format json") == cohort
    once, again = (typed(walked, "flute hub import hub --dataset pilot --person eva --format json") for _ in range(2))
    assert once["read"] > again["read"] == 0, "the first of them reads anew after the withdrawal, the second nothing"
    assert once | {"read": 0} == again
    assert once["simulated"] is True
    assert (once["state"], once["refused"], once["alarms"]) == ("done", [], [])
    assert once["flow"]["included"] == once["report"]["rows"] == 200
    profiles = typed(walked, "flute hub quality hub --dataset pilot --format json")
    assert [p["profile"]["rows"] for p in profiles] == [200, 200, 200, 201, 200, 200]
    assert typed(walked, "flute hub catalogue hub --dataset pilot --format json")["budget"]["epsilon_spent"] == 0


def test_what_the_page_says_of_slips_is_said(walked: Walked) -> None:
    rows = re.findall(r"^\| `(flute [^`]+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 8
    for command, told in rows:
        code, said = answered(walked, command)
        assert code != 0
        assert told in " ".join(said.split()), f"{command} says: {said}"


def test_a_page_made_by_importing_again_is_labelled_too(walked: Walked) -> None:
    for name in ("import.html", "broken.html"):
        assert "<strong>SIMULATED</strong>" in (walked.folder / name).read_text(encoding="utf-8")
    assert "unit-not-convertible" in (walked.folder / "broken.html").read_text(encoding="utf-8")
    assert (walked.folder / "flow.svg").read_text(encoding="utf-8").startswith("<svg")


def answered(walked: Walked, command: str) -> tuple[int, str]:
    """Exit code and what is said, of a command that is typed where the reader stood."""
    before = Path.cwd()
    os.chdir(walked.folder)
    try:
        result = CliRunner().invoke(APP, shlex.split(command)[1:])
    finally:
        os.chdir(before)
    if isinstance(result.exception, FluteError):
        return 1, result.exception.text
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def rules(walked: Walked) -> list[str]:
    """The words of the cohort's rules, as the page shows them."""
    shown = next(shown for shown, _ in walked.shown if "\nnot-male " in shown and "…" not in shown)
    return re.findall(r"^([a-z0-9-]+) +\d+ +\d+  ", shown, re.MULTILINE)


def typed(walked: Walked, command: str) -> Any:
    code, said = answered(walked, command)
    assert code == 0, said
    return json.loads(said)
