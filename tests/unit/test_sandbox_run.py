"""A step that means no harm gives what it would give outside; what is no step, or no input, is refused before."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from flute.errors import MisuseError, SandboxRefusal
from flute.sandbox import runner, talk
from flute.sandbox.limits import Offer
from flute.sandbox.run import Failure, Inputs, Step, run
from support.sandbox_files import linear_model
from support.sandbox_steps import OFFER, limits, require_sandbox, tried

GRADIENT = b"""
import numpy as np

def step(rows, parameters):
    outcome, x = rows[0, 0], rows[0, 1:]
    return x * (1 / (1 + np.exp(-x @ parameters["w"])) - outcome)
"""


def test_a_step_gives_what_it_gives_outside() -> None:
    require_sandbox()
    rows = np.random.default_rng(1).normal(size=(20, 4))
    rows[:, 0] = rows[:, 0] > 0
    w = np.array([0.5, -1.0, 2.0])
    output = run(Step("source", GRADIENT, 3), Inputs(rows, {"w": w}), limits(units=20), offer=OFFER)
    assert output.failures == ()
    wanted = rows[:, 1:] * (1 / (1 + np.exp(-rows[:, 1:] @ w)) - rows[:, 0])[:, np.newaxis]
    assert np.allclose(output.values, wanted, rtol=1e-14)


BROAD = """
import functools, math, statistics
from collections import Counter
import numpy as np
from scipy import special

def step(rows, parameters):
    x = np.outer(np.arange(1.0, 9.0), rows[0]) + np.eye(8, 3)
    square = x.T @ x
    return [
        np.median(x), np.quantile(x, 0.3), x.std(), np.einsum("ij,ij->", x, x), np.linalg.inv(square)[0, 0],
        np.linalg.svd(x)[1][0], np.linalg.eigh(square)[0][-1], np.linalg.lstsq(x, x[:, 0], rcond=None)[0][0],
        np.polyfit(x[:, 1], x[:, 2], 1)[0], abs(np.fft.rfft(x[:, 0])[1]), np.histogram(x, 4)[0][0], np.cov(x.T)[0, 1],
        np.random.default_rng(3).normal(), np.unique(x).size, np.ma.masked_less(x, 2).mean(),
        np.interp(1.5, [1, 2], [3, 4]),
        np.convolve(x[:, 0], [1, 2])[1], np.corrcoef(x.T)[0, 1], special.expit(x[0, 0]), statistics.fmean(x[:, 0]),
        functools.reduce(math.hypot, x[:, 0]), Counter("aab")["a"], np.sort(x, axis=None)[3], np.percentile(x, 90),
    ]
"""


def test_what_libraries_offer_works_inside_as_outside() -> None:
    require_sandbox()
    names: dict[str, object] = {}
    exec(BROAD, names)
    wanted = np.asarray(names["step"](np.array([[0.0, 1.0, 2.0]]), {}))  # type: ignore[operator]
    output = tried(BROAD, outputs=len(wanted))
    assert output.failures == ()
    assert np.allclose(output.values[0], wanted, rtol=1e-9)


def test_parameters_come_as_they_were() -> None:
    require_sandbox()
    given = {
        "matrix": np.arange(6.0).reshape(2, 3)[:, ::-1],
        "weights": np.ones((2, 1, 2), "f4"),
        "count": np.array(7, "i8"),
        "none": np.zeros((0, 3)),
    }
    source = b"""
def step(rows, parameters):
    assert list(parameters) == ["matrix", "weights", "count", "none"]
    assert [p.dtype.str for p in parameters.values()] == ["<f8", "<f4", "<i8", "<f8"]
    assert parameters["weights"].shape == (2, 1, 2) and parameters["none"].shape == (0, 3)
    return [*parameters["matrix"].ravel(), parameters["weights"].sum(), int(parameters["count"])]
"""
    output = run(Step("source", source, 8), Inputs(np.ones((1, 1)), given), limits(), offer=OFFER)
    assert output.values.tolist() == [[2.0, 1.0, 0.0, 5.0, 4.0, 3.0, 4.0, 7.0]]


def test_a_hub_without_rows_gives_none() -> None:
    require_sandbox()
    output = run(Step("source", GRADIENT, 3), Inputs(np.zeros((0, 4))), limits(), offer=OFFER)
    assert output.values.shape == (0, 3)


def test_a_result_larger_than_a_pipe_comes_back_whole() -> None:
    require_sandbox()
    source = "import numpy as np\ndef step(rows, parameters):\n    return np.arange(50_000.0)\n"
    assert tried(source, outputs=50_000).values[0, -1] == 49_999.0


def test_a_graph_is_run_without_a_line_of_its_authors() -> None:
    require_sandbox()
    pytest.importorskip("onnxruntime")
    weights = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    inputs = Inputs(np.arange(12.0).reshape(4, 3), groups=np.array([0, 0, 1, 2]))
    output = run(Step("model", linear_model(weights), 2), inputs, limits(units=3), offer=OFFER)
    rows = np.array([inputs.rows[:2].mean(axis=0), inputs.rows[2], inputs.rows[3]])
    assert output.failures == ()
    assert np.allclose(output.values, rows @ weights, rtol=1e-14)


def test_a_graph_that_points_to_a_file_finds_none() -> None:
    require_sandbox()
    pytest.importorskip("onnxruntime")
    model = linear_model(np.ones((3, 1)), external="../../../../etc/passwd")
    output = run(Step("model", model, 1), Inputs(np.ones((1, 3))), limits(), offer=OFFER)
    assert not output.values.any()
    assert [f.reason for f in output.failures] == ["raised"]


def test_torch_runs_where_the_hub_has_it() -> None:
    require_sandbox()
    pytest.importorskip("torch")
    source = b"""
import torch
import torch.nn.functional

def step(rows, parameters):
    w = torch.tensor(parameters["w"], requires_grad=True)
    x = torch.tensor(rows)
    torch.nn.functional.binary_cross_entropy_with_logits(x[:, 1:] @ w, x[:, 0]).backward()
    return w.grad.numpy()
"""
    rows, w = np.array([[1.0, 2.0, 3.0]]), np.array([0.1, 0.2])
    output = run(Step("source", source, 2), Inputs(rows, {"w": w}), limits(memory_mib=512), offer=OFFER)
    wanted = rows[:, 1:] * (1 / (1 + np.exp(-rows[:, 1:] @ w)) - rows[:, 0])[:, np.newaxis]
    assert np.allclose(output.values, wanted, rtol=1e-12)


def test_an_error_is_named_by_class_and_own_line_and_nothing_else() -> None:
    require_sandbox()
    source = "def inner(x):\n    return {}[x]\n\n\ndef step(rows, parameters):\n    return inner(str(rows))\n"
    assert tried(source).failures == (Failure(0, "raised", "KeyError", 2),)
    assert tried("x = 1\n").failures == (Failure(0, "raised", "KeyError", 0),)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(b"def step(:\n", "not-python"), (b"\x80\x04N.", "not-text"), (b"import scipy.nowhere\n", "not-started")],
)
def test_what_is_no_step_is_refused_before_a_row_is_read(code: bytes, reason: str) -> None:
    require_sandbox()
    with pytest.raises(SandboxRefusal) as refused:
        run(Step("source", code, 1), Inputs(np.ones((1, 1))), limits(), offer=OFFER)
    assert refused.value.reason == reason


def test_a_pickle_is_no_model() -> None:
    require_sandbox()
    with pytest.raises(SandboxRefusal) as refused:
        run(Step("model", b"\x80\x04N.", 1), Inputs(np.ones((1, 1))), limits(), offer=OFFER)
    assert refused.value.reason == "pickle"


def test_too_little_time_for_the_agreed_units_is_refused_whatever_rows_there_are() -> None:
    require_sandbox()
    with pytest.raises(SandboxRefusal) as refused:
        run(Step("source", GRADIENT, 1), Inputs(np.ones((1, 1))), limits(wall_s=2, units=1000), offer=OFFER)
    assert refused.value.reason == "wall"
    with pytest.raises(SandboxRefusal) as refused:
        run(Step("source", GRADIENT, 1), Inputs(np.ones((1, 1))), limits(), offer=Offer(0, threads=0))
    assert refused.value.reason == "processes"


@pytest.mark.parametrize(
    "inputs",
    [
        Inputs(np.ones(3)),
        Inputs(np.ones((3, 0))),
        Inputs(np.ones((3, 1), dtype="f4")),  # type: ignore[arg-type]
        Inputs(np.ones((3, 1)), groups=np.array([0, 2, 2])),
        Inputs(np.ones((3, 1)), groups=np.array([-1, 0, 1])),
        Inputs(np.ones((3, 1)), groups=np.array([0, 1])),
        Inputs(np.ones((3, 1)), {"x": np.array(["a"])}),  # type: ignore[dict-item]
        Inputs(np.ones((3, 1)), {"": np.ones(1)}),
        Inputs(np.ones((3, 1)), {"a\nb": np.ones(1)}),
        Inputs(np.ones((3, 1)), {"x": np.ones((1,) * 9)}),
    ],
)
def test_inputs_of_a_wrong_form_are_misuse(inputs: Inputs) -> None:
    require_sandbox()
    with pytest.raises(MisuseError):
        run(Step("source", GRADIENT, 1), inputs, limits(units=3), offer=OFFER)


def test_a_sandbox_enters_its_control_group_before_anything_else(tmp_path: Path) -> None:
    """The group is a folder of plain files: what is seen is that a process wrote its id there, and the step ran."""
    require_sandbox()
    (tmp_path / "cgroup.subtree_control").write_text("memory pids")
    step = Step("source", b"def step(rows, parameters):\n    return [1.0]\n", 1)
    output = run(step, Inputs(np.ones((1, 1))), limits(), offer=OFFER, cgroup=tmp_path)
    assert output.values.tolist() == [[1.0]]
    assert next(tmp_path.glob("flute-step-*/cgroup.procs")).read_text().strip().isdigit()


def test_more_units_than_agreed_are_refused_without_saying_how_many() -> None:
    require_sandbox()
    with pytest.raises(SandboxRefusal) as refused:
        run(Step("source", GRADIENT, 1), Inputs(np.ones((1234, 1))), limits(units=7), offer=OFFER)
    assert refused.value.reason == "units"
    assert not any(c.isdigit() for c in refused.value.text)


def test_a_step_of_no_numbers_is_misuse() -> None:
    for outputs in (0, 2**40):
        with pytest.raises(MisuseError):
            Step("source", GRADIENT, outputs)


READY = """
import os, struct, sys, time
out = sys.stdout.buffer
out.write(struct.pack('<4sQ', b'FSBX', 1))
out.flush()
time.sleep(0.3)
"""
ANSWER = "struct.pack('<IIBBI', {unit}, {log}, 0, 0, 0) + struct.pack('<d', 7.0)"
FRAME = f"out.write({ANSWER})\nout.flush()\n"
LIARS = {
    "answers out of order": FRAME.format(unit=1, log=0),
    "answers twice": FRAME.format(unit=0, log=0) * 2,
    # At once, in fewer bytes than a pipe takes whole: what comes after the last answer was read is read by nobody.
    "more answers than units": f"out.write({' + '.join(ANSWER.format(unit=u, log=0) for u in range(3))})\n",
    "a log without end": FRAME.format(unit=0, log=2**31),
    "bytes without end": "while True:\n    out.write(b'\\xff' * 65536)\n",
    "half an answer": "out.write(b'\\0' * 9)\n",
}


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A sandbox whose first process itself has been taken over: it says what the list's only text writes."""
    text: list[str] = []

    def command(can: object, packages: object, fds: object, enter: Path | None) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", text[0]]

    monkeypatch.setattr(talk, "command", command)
    return text


@pytest.mark.parametrize("liar", LIARS)
def test_what_does_not_have_the_fixed_form_is_discarded_as_a_whole(liar: str, taken_over: list[str]) -> None:
    require_sandbox()
    taken_over.append(READY + LIARS[liar])
    output = run(Step("source", GRADIENT, 1), Inputs(np.ones((2, 1))), limits(wall_s=2, units=2), offer=OFFER)
    assert not output.values.any()
    assert [f.reason for f in output.failures] == ["crashed", "crashed"]


def test_an_honest_answer_of_the_same_form_is_taken(taken_over: list[str]) -> None:
    """The control of the test above."""
    require_sandbox()
    taken_over.append(READY + "".join(FRAME.format(unit=u, log=0) for u in range(2)))
    output = run(Step("source", GRADIENT, 1), Inputs(np.ones((2, 1))), limits(wall_s=2, units=2), offer=OFFER)
    assert output.values.tolist() == [[7.0], [7.0]]


@pytest.mark.parametrize("said", ["", "print('FSBY' + 'x' * 8)", "import sys\nsys.exit('no library')"])
def test_a_sandbox_that_does_not_start_is_refused_with_what_it_said(said: str, taken_over: list[str]) -> None:
    require_sandbox()
    taken_over.append(said)
    with pytest.raises(SandboxRefusal) as refused:
        run(Step("source", GRADIENT, 1), Inputs(np.ones((1, 1))), limits(), offer=OFFER)
    assert refused.value.reason == "not-started"
    assert "no library" not in said or "no library" in refused.value.text


def test_both_sides_agree_on_the_form() -> None:
    assert runner.REASONS[0] == ""
    assert len(runner.REASONS) == len(set(runner.REASONS))
    assert len(runner.ERRORS) < 256
    assert "KeyError" in runner.ERRORS
