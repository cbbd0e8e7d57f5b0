"""The import contracts of pyproject.toml hold, and each of them can fail: planted imports are caught."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = "Imports go down only: five floors"
CIRCLES = "No circles among the parts of any room"
PARTS = "Clip, noise and masks are put together in two modules"
ANSWERS = "Answers are made by the hub and read by the coordinator"
ACCOUNTS = "Accounts are told by hubs, carried by the coordinator, read by researchers"
PILOT = "Only the command line and the demo know the pilot"
WIRE = "The wire knows no records, studies, budgets or people"
RECORDS = "What reads records writes no messages"
FILTERS = "No filter knows a composition by loss distributions"
ENGINE = "One module knows the engine"
GROUND = "Promises and ground: bytes, time and chance are arguments"
TRUST = "Trust and studies: bytes, time and chance are arguments"


@dataclass(frozen=True)
class Planted:
    """A forbidden import, the module that gets it, and the contract that has to notice."""

    module: str
    line: str
    contract: str

    @property
    def said(self) -> str:
        """What the tool says: the module's name; of a circle, the room that has one."""
        name = f"flute.{self.module.removesuffix('.py').replace('/', '.')}"
        return f"No cycles are allowed in {'.'.join(name.split('.')[:2])}." if self.contract == CIRCLES else name


PLANTED = [
    Planted("hub/rounds/gate.py", "from flute.coordinator import store as planted", FLOORS),
    Planted("coordinator/desk.py", "import flute.hub.store", FLOORS),
    Planted("transport/mailbox.py", "import flute.intake.rows", FLOORS),
    Planted("dp/odds.py", "import flute.aggregation.plan", FLOORS),
    Planted("messages/limits.py", "import flute.trust.roster", FLOORS),
    Planted("hub/rounds/round.py", "import flute.pilot.recipe", FLOORS),
    Planted("report/numbers.py", "import flute.pilot.comparators", PILOT),
    Planted("report/charts/svg.py", "import flute.report.page", CIRCLES),
    Planted("hub/rounds/round.py", "import flute.dp.noise", PARTS),
    Planted("coordinator/runs.py", "import flute.aggregation.collector", PARTS),
    Planted("study/release.py", "import flute.dp.calibrate", PARTS),
    Planted("study/plans/sides.py", "from flute.messages import answer as planted", ANSWERS),
    Planted("study/plans/sides.py", "from flute.messages import accounts as planted", ACCOUNTS),
    Planted("intake/snapshot.py", "import flute.messages.answer", RECORDS),
    Planted("transport/mailbox.py", "import flute.data", WIRE),
    Planted("transport/relay.py", "import flute.trust.roster", WIRE),
    Planted("dp/filters.py", "import flute.dp.composition", FILTERS),
    Planted("ledger/budgets/ceilings.py", "import dp_accounting", FILTERS),
    Planted("hub/process.py", "import nvflare", ENGINE),
    Planted("transport/relay.py", "from nvflare.fuel import f3", ENGINE),
    Planted("dp/noise.py", "import random", GROUND),
    Planted("primitives/prg.py", "import secrets", GROUND),
    Planted("aggregation/member.py", "import time", GROUND),
    Planted("messages/envelope.py", "import socket", GROUND),
    Planted("algorithms/linear.py", "from datetime import datetime as planted", GROUND),
    Planted("trust/roster.py", "import time", TRUST),
    Planted("trust/signing.py", "import os", TRUST),
    Planted("study/plans/sides.py", "import secrets", TRUST),
]


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(tool), "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def broken(said: str) -> set[str]:
    return {line.split(" BROKEN")[0] for line in said.splitlines() if " BROKEN" in line}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its contracts, elsewhere, to plant things in."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src" / "flute", root / "src" / "flute", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def test_every_contract_is_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert broken(done.stdout) == set()


def test_every_contract_has_a_planted_import() -> None:
    kept = {line.split(" KEPT")[0] for line in lint(ROOT).stdout.splitlines() if " KEPT" in line}
    assert kept == {planted.contract for planted in PLANTED}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: f"{p.line.split()[1]} in {p.module}")
def test_a_planted_import_is_caught(copy: Path, planted: Planted) -> None:
    module = copy / "src" / "flute" / planted.module
    before = module.read_text(encoding="utf-8")
    try:
        module.write_text(f"{before}\n\n{planted.line}\n", encoding="utf-8")
        done = lint(copy)
    finally:
        module.write_text(before, encoding="utf-8")
    assert done.returncode != 0
    assert planted.contract in broken(done.stdout), done.stdout
    assert planted.said in done.stdout


def test_the_copy_is_clean_when_nothing_is_planted(copy: Path) -> None:
    assert lint(copy).returncode == 0
