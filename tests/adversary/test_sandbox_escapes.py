"""Hostile steps: every way out that is tried is refused by name, and the harmless ones win where no sandbox is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from flute.sandbox.run import Inputs, Output, Step, run
from support.sandbox_escapes import ESCAPES, Escape, all_in_one
from support.sandbox_steps import OFFER, SECRET, limits, plainly, require_sandbox, tried

CONTROLS = [escape for escape in ESCAPES if escape.control]


def filled(folder: Path) -> Path:
    """Of the hub: other studies' rows, its key, a library and a module that a step would like to load."""
    (folder / "patients.csv").write_text("pseudonym,psa\np1,4.2\n")
    (folder / "hub.key").write_text("key")
    (folder / "planted.py").write_text("")
    shutil.copy(next(Path("/usr/lib").glob("*/libz.so.1"), __file__), folder / "evil.so")
    return folder


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """All ways out, one unit each, tried in one sandbox of one hub; nothing may come of any."""
    require_sandbox()
    folder = filled(tmp_path_factory.mktemp("hub"))
    before = sorted(folder.iterdir())
    step = Step("source", all_in_one(ESCAPES, folder).encode(), 1)
    numbered = np.arange(float(len(ESCAPES)))[:, np.newaxis]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUB_SECRET", SECRET)
        output = run(step, Inputs(numbered), limits(wall_s=60, cpu_s=60, units=len(ESCAPES)), offer=OFFER)
    assert sorted(folder.iterdir()) == before
    assert SECRET not in output.log
    return output


@pytest.mark.requirement("F-PIL-23")
def test_at_least_forty_ways_out_are_tried_and_a_dozen_have_a_control() -> None:
    assert len({escape.name for escape in ESCAPES}) == len(ESCAPES) >= 40
    assert len(CONTROLS) >= 12


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("number", range(len(ESCAPES)), ids=[e.name.replace(" ", "-") for e in ESCAPES])
def test_a_way_out_is_refused_by_name(number: int, held: Output) -> None:
    escape = ESCAPES[number]
    assert not held.values[number].any()
    assert [(f.reason, f.error_class) for f in held.failures if f.unit == number] == [(escape.reason, escape.error)]


@pytest.mark.parametrize("escape", CONTROLS, ids=lambda e: e.name.replace(" ", "-"))
def test_the_same_text_wins_in_a_plain_interpreter(escape: Escape, tmp_path: Path) -> None:
    """What is harmless to try gets out where nothing holds it."""
    environment = {"HUB_SECRET": SECRET, "PATH": "/usr/bin:/bin"}
    assert plainly(escape.source(filled(tmp_path)), tmp_path, environment) == 0


AS_ANOTHER = """
import sys
sys.path[:0] = {path!r}
import pathlib
from support.sandbox_escapes import ESCAPES, all_in_one
from support.sandbox_steps import Inputs, OFFER, Step, limits, np, run
step = Step("source", all_in_one(ESCAPES, pathlib.Path("/nowhere")).encode(), 1)
within = limits(wall_s=60, cpu_s=60, units=len(ESCAPES))
output = run(step, Inputs(np.arange(float(len(ESCAPES)))[:, None]), within, offer=OFFER)
assert not output.values.any()
told = [(f.reason, f.error_class) for f in output.failures]
assert told == [(e.reason, e.error) for e in ESCAPES], told
"""
SYSTEM_PYTHON = Path("/usr/bin/python3")


def test_a_hub_that_is_not_root_holds_them_as_well() -> None:
    """Under a user that owns nothing. Root's interpreter may lie where that user cannot look; so, the system's."""
    require_sandbox()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if os.geteuid() or SYSTEM_PYTHON.resolve().name != version:
        pytest.skip(f"needs root, to become somebody else, and the system's interpreter as {version}")
    path = [str(Path(__file__).resolve().parents[1]), *(p for p in sys.path if p.endswith(("src", "site-packages")))]
    command = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", str(SYSTEM_PYTHON), "-B", "-c"]
    done = subprocess.run([*command, AS_ANOTHER.format(path=path)], env={"PATH": "/usr/bin:/bin"}, cwd="/",
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_nothing_of_a_sandbox_is_left_running_or_open() -> None:
    require_sandbox()
    before = psutil.Process().num_fds()
    tried("def step(rows, parameters):\n    return [1.0]\n")
    assert not psutil.Process().children(recursive=True)
    assert psutil.Process().num_fds() == before
