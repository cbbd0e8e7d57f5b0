"""The demo as a user runs it: the command, its files, and that it leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psutil
import pytest
import statsmodels.api as sm

COMMAND = [sys.executable, "-m", "flute"]


def processes_about(folder: Path) -> list[str]:
    """Command lines of running processes that name this folder."""
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line and " flute" in line]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [*COMMAND, "demo", "--out", str(out), "--format", "json"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def pooled_rows(out: Path) -> dict[str, np.ndarray]:
    """The three hubs' frozen records as one table: possible here, where everything is simulated and ours."""
    files = sorted(str(p) for p in (out / "work/federation/hubs").glob("*/records/*.parquet"))
    assert len(files) == 3
    names = ["age", "psa", "volume", "dre", "family_history", "biopsy_type", "pirads", "cspca"]
    rows = duckdb.connect().execute(
        f"SELECT {', '.join(names)} FROM read_parquet(?) ORDER BY patient", [files]
    ).fetchall()  # fmt: skip
    ranges = {"age": (40, 90), "psa": (0.2, 200), "volume": (10, 300)}
    complete = [
        r for r in rows
        if None not in r and all(lo <= float(r[names.index(n)]) <= hi for n, (lo, hi) in ranges.items())
    ]  # fmt: skip
    return {n: np.array([float(r[i]) for r in complete]) for i, n in enumerate(names)}


def pooled_fit(columns: dict[str, np.ndarray], predictors: list[str]) -> tuple[np.ndarray, np.ndarray]:
    design = [np.ones(len(columns["cspca"]))]
    for name in predictors:
        if name == "pirads":
            design += [(columns["pirads"] == level).astype(float) for level in (1, 2, 4, 5)]
        elif name in ("age", "psa", "volume"):
            x = columns[name] if name == "age" else np.log(columns[name])
            design.append((x - x.mean()) / x.std(ddof=1))
        else:
            design.append(columns[name])
    fit = sm.Logit(columns["cspca"], np.column_stack(design)).fit(disp=0, tol=1e-14, maxiter=200)
    return fit.params, fit.bse


@pytest.mark.requirement("F-HUF-3")
@pytest.mark.requirement("F-SRS-4")
def test_the_pilots_exact_model_equals_the_pooled_fit(demo: tuple[Path, dict[str, Any]]) -> None:
    out, shown = demo
    report = json.loads(Path(shown["results"]).read_text())
    exact = next(s for s in report["studies"] if s["mode"] == "exact")
    result = exact["results"]["model"]
    predictors = ["age", "psa", "volume", "dre", "family_history", "biopsy_type", "pirads"]
    params, errors = pooled_fit(pooled_rows(out), predictors)
    assert result["ending"] == "converged"
    assert np.abs(np.array(result["coefficients"]) - params).max() < 1e-6
    assert np.abs(np.array(result["standard_errors"]) - errors).max() < 1e-6


def test_the_report_is_one_file_that_says_simulated(demo: tuple[Path, dict[str, Any]]) -> None:
    _, shown = demo
    page = Path(shown["report"]).read_text(encoding="utf-8")
    assert "SIMULATED" in page
    assert "UNAUDITED" in page
    assert not re.search(r"""(src|href)\s*=\s*["']https?:""", page)
    assert "<script" not in page
    model = json.loads(Path(shown["model"]).read_text())
    assert model["SIMULATED"] is True
    assert len(model["model"]["columns"]) == len(model["model"]["raw_coefficients"])


@pytest.mark.requirement("F-SRS-8")
def test_each_hub_was_charged_what_was_agreed_and_its_journal_holds(demo: tuple[Path, dict[str, Any]]) -> None:
    out, shown = demo
    report = json.loads(Path(shown["results"]).read_text())
    for hub in report["hubs"]:
        assert hub["budget_before"]["epsilon"] == 0
        assert 2.5 < hub["budget_after"]["epsilon"] <= 3.0
        assert hub["budget_after"]["unbounded"], "exact results were opened, so epsilon bounds nothing"
        folder = out / "work/federation/hubs" / hub["hub"]
        done = subprocess.run([*COMMAND, "audit", "verify", str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "lines hold" in done.stdout


def test_no_process_is_left(demo: tuple[Path, dict[str, Any]]) -> None:
    assert processes_about(demo[0]) == []


def test_ctrl_c_in_the_middle_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [*COMMAND, "demo", "--out", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        # A shell's background jobs ignore Ctrl-C, and what they start inherits that; a person's terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(processes_about(tmp_path)) < 6 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(processes_about(tmp_path)) >= 6, "the demo, coordinator, hubs and relays were not seen"
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 130
    assert processes_about(tmp_path) == []
    config = json.loads((tmp_path / "work/federation/coordinator/coordinator.json").read_text())
    taken = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert not taken & {config["api_port"], config["engine_port"]}


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").write_text("mine")
    done = subprocess.run([*COMMAND, "demo", "--out", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "left alone" in done.stderr
    assert (tmp_path / "work" / "mine.txt").read_text() == "mine"
