"""The notebooks run from top to bottom and are kept without outputs; `flute lab` copies them to where one works."""

from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib as mpl
import pytest
from typer.testing import CliRunner

from flute.cli import lab
from flute.cli.app import commands
from flute.errors import MisuseError, SandboxRefusal
from flute.sandbox.machine import available

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
IN_KERNEL = "2-first-model.ipynb"
LIMIT_S = 300


@pytest.mark.requirement("F-HUF-1")
@pytest.mark.requirement("F-PIL-17")
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.name != IN_KERNEL], ids=lambda p: p.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its cells, by IPython in this process; one notebook in a kernel of its own, below."""
    needed(path)
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    mpl.use("Agg")
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    for cell in code_of(path):
        shell.run_cell(cell, silent=True).raise_error()


def needed(path: Path) -> None:
    """Skips a notebook that this machine lacks a part of. Networks are as small here as one thread likes them."""
    text = "".join(code_of(path))
    if "import torch" in text:
        pytest.importorskip("torch", reason="needs PyTorch: make deep").set_num_threads(1)
    if "OwnStep" in text and not os.environ.get("CI"):
        try:
            available().require()
        except SandboxRefusal as refusal:
            pytest.skip(refusal.text)


def code_of(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.requirement("F-HUF-1")
def test_a_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(FOLDER / IN_KERNEL, as_version=4)
    NotebookClient(
        book, timeout=LIMIT_S, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in book.cells for output in cell.get("outputs", [])]
    pages = [output["data"]["text/html"] for output in shown if "text/html" in output.get("data", {})]
    assert any("AUC" in page or "auc" in page for page in pages)
    assert any("image/png" in output.get("data", {}) for output in shown)


def test_notebooks_are_kept_without_outputs_and_say_simulated() -> None:
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        book = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells), path.name
        assert "SIMULATED" in path.read_text(encoding="utf-8"), path.name


@pytest.mark.requirement("F-HUF-1")
def test_lab_copies_the_notebooks_and_leaves_changed_ones_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    ran = CliRunner().invoke(commands("lab"), ["lab", str(folder), "--no-start"])
    assert ran.exit_code == 0, ran.output
    assert sorted(p.name for p in folder.glob("*.ipynb")) == [p.name for p in NOTEBOOKS]
    changed = folder / NOTEBOOKS[0].name
    changed.write_text("mine", encoding="utf-8")
    assert lab.put_notebooks(folder) == []
    assert changed.read_text(encoding="utf-8") == "mine"


def test_lab_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "find_spec", lambda name: None if name == "jupyterlab" else object())
    with pytest.raises(MisuseError, match=r"JupyterLab needs jupyterlab, .*pip install 'flute\[lab\]'"):
        lab.require_jupyter()


def test_lab_is_reachable_from_this_machine_alone(tmp_path: Path) -> None:
    command = lab.command(tmp_path, 8888, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in command
    assert "--no-browser" in command
