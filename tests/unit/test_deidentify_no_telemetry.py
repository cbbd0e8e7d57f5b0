"""What reads text in pixels tells its maker nothing: no identity of this machine is made, no diary kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rapidocr")


@pytest.mark.parametrize("engine", ["flute.deidentify.pixels:_engine", "flute.deidentify.eyes:_rapid"])
def test_no_reader_of_text_leaves_a_trace_for_its_maker(engine: str, tmp_path: Path) -> None:
    assert _files(f"from {engine.replace(':', ' import ')} as engine; engine()", tmp_path) == []


def test_without_our_word_it_would(tmp_path: Path) -> None:
    """The control: the reader's engine, imported plainly."""
    assert _files("import onnxruntime", tmp_path) != []


def _files(program: str, home: Path) -> list[Path]:
    kept = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    env = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    subprocess.run([sys.executable, "-c", program], env=env, cwd=home, check=True, timeout=120, capture_output=True)
    return [path for path in home.rglob("*") if path.is_file()]
