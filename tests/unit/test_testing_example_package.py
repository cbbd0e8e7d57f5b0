"""The package of docs/how-to/write-an-algorithm.md, as it stands there: installed, registered, asked, tried."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-an-algorithm.md"
ASKED = """
from flute.questions.registry import REGISTRY
from flute.questions.code import code_digest
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file
from support.studies import study_text
import flute_share
assert flute_share.Share in REGISTRY, "the entry point registers it"
assert REGISTRY[flute_share.Share].algorithm is flute_share.REGISTRATION.algorithm, "so plans are tried, too"
questions = "  ones: {algorithm: share-of-patients, variable: sex, share: 0.5}\\n"
agreement, _ = read_study_file(study_text("budget: {epsilon: 1}", questions), path="study.yaml", code=code_digest())
check_study(agreement)
from test_share import test_it_keeps_the_contract
test_it_keeps_the_contract()
print("kept")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def installed(folder: Path) -> Path:
    """The package, its test, and what an installer writes beside it."""
    module, test = blocks("python")
    (folder / "flute_share").mkdir()
    (folder / "flute_share" / "__init__.py").write_text(module, encoding="utf-8")
    (folder / "test_share.py").write_text(test, encoding="utf-8")
    info = folder / "flute_share-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flute-share\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[flute.algorithms]\nshare = flute_share:REGISTRATION\n", encoding="utf-8")
    return folder


@pytest.mark.requirement("NF-HUF-2")
def test_the_example_package_registers_is_asked_in_a_study_and_keeps_the_contract(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join([str(installed(tmp_path)), str(tests)])
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "kept\n"


def test_the_example_is_short_and_the_page_names_every_check() -> None:
    from flute.testing import CHECKS

    assert len(blocks("python")[0].splitlines()) <= 70
    page = PAGE.read_text(encoding="utf-8")
    assert {check for check in CHECKS if f"`{check}`" not in page} == set()
