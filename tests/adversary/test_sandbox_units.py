"""Row by row: whatever a hostile step does with one patient's row, no other row of the result changes.

Were it otherwise, one patient could change every row, and clipping each would bound nothing. The control runs the
same texts over all rows in one interpreter, where every one of them carries the planted patient to the others.
"""

from __future__ import annotations

import numpy as np
import pytest

from flute.sandbox.run import Inputs, Step, run
from support.sandbox_steps import OFFER, limits, require_sandbox, tried

PLANTED = 99.0
ROWS = np.array([[1.0], [PLANTED], [3.0], [4.0], [5.0]])
WITHOUT = np.where(ROWS == PLANTED, 2.0, ROWS)
HEAD = "import numpy as np\nimport ctypes, os, sys, time, gc\nseen = []\n"
CARRIERS = {
    "a global variable": """
def step(rows, parameters):
    if rows[0, 0] == 99.0:
        seen.append(1)
    return [float(len(seen))]
""",
    "an attribute of a library": """
def step(rows, parameters):
    if rows[0, 0] == 99.0:
        np.linalg.planted = 1
    return [float(hasattr(np.linalg, 'planted'))]
""",
    "the environment": """
def step(rows, parameters):
    if rows[0, 0] == 99.0:
        os.environ['PLANTED'] = '1'
    return [float('PLANTED' in os.environ)]
""",
    "a module that others import": """
def step(rows, parameters):
    if rows[0, 0] == 99.0:
        sys.modules['planted'] = os
    return [float('planted' in sys.modules)]
""",
    "a limit of the process": """
libc = ctypes.CDLL(None, use_errno=True)
def step(rows, parameters):
    held = (ctypes.c_ulong * 2)()
    libc.getrlimit(7, held)
    if rows[0, 0] == 99.0:
        libc.setrlimit(7, (ctypes.c_ulong * 2)(held[0] - 1, held[1]))
    libc.getrlimit(7, held)
    return [float(held[0])]
""",
    "what memory still holds": """
def step(rows, parameters):
    block = np.full(2_000_000, 7.25) if rows[0, 0] == 99.0 else np.empty(2_000_000)
    found = float((block == 7.25).any())
    if rows[0, 0] == 99.0:
        seen.append(block)
    return [found or float(len(seen))]
""",
    "objects of the interpreter": """
class Planted:
    pass
def step(rows, parameters):
    if rows[0, 0] == 99.0:
        seen.append(Planted())
    return [float(sum(type(one).__name__ == 'Planted' for one in gc.get_objects()))]
""",
    "a pipe that stays full": """
def step(rows, parameters):
    reading, writing = seen if seen else (1, 1)
    if rows[0, 0] == 99.0:
        try:
            seen[:] = os.pipe()
        except OSError:
            os.write(1, bytes(100_000))
    return [float(len(seen))]
""",
}
ENDINGS = {
    "an error": "    if rows[0, 0] == 99.0: raise ValueError\n",
    "an exit": "    if rows[0, 0] == 99.0: os._exit(3)\n",
    "a hostile call": "    if rows[0, 0] == 99.0: os.fork()\n",
    "all its memory": "    if rows[0, 0] == 99.0: seen.append(bytearray(10**12))\n",
    "no end": "    while rows[0, 0] == 99.0: pass\n",
    "sleep": "    if rows[0, 0] == 99.0: time.sleep(60)\n",
    "output without end": "    while rows[0, 0] == 99.0: os.write(1, bytes(65536))\n",
}


def others(rows: np.ndarray, source: str) -> np.ndarray:
    """The result but for the row that is planted."""
    step = Step("source", (HEAD + source).encode(), 1)
    values = run(step, Inputs(rows), limits(wall_s=5, units=5), offer=OFFER).values[:, 0]
    return np.delete(values, 1)


def in_one_interpreter(rows: np.ndarray, source: str) -> np.ndarray:
    names: dict[str, object] = {"__name__": "step"}
    exec(compile(HEAD + source, "<step>", "exec"), names)
    return np.delete(np.array([names["step"](row[np.newaxis], {})[0] for row in rows]), 1)  # type: ignore[operator]


@pytest.mark.requirement("F-PIL-23")
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_patient_changes_no_row_but_her_own(carrier: str) -> None:
    require_sandbox()
    assert np.array_equal(others(ROWS, CARRIERS[carrier]), others(WITHOUT, CARRIERS[carrier]))


CARRIES = [c for c in CARRIERS if c not in ("a limit of the process", "an attribute of a library", "the environment",
                                            "a module that others import")]  # fmt: skip


@pytest.mark.parametrize("carrier", CARRIES)
def test_in_one_interpreter_she_changes_the_others(carrier: str) -> None:
    """The control, for carriers that leave nothing behind in the tests' own process."""
    assert not np.array_equal(
        in_one_interpreter(ROWS, CARRIERS[carrier]), in_one_interpreter(WITHOUT, CARRIERS[carrier])
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_unit_that_ends_badly_takes_no_other_with_it(ending: str) -> None:
    require_sandbox()
    source = HEAD + "def step(rows, parameters):\n" + ENDINGS[ending] + "    return rows[0]\n"
    output = run(Step("source", source.encode(), 1), Inputs(ROWS), limits(wall_s=3, units=5), offer=OFFER)
    assert output.values[:, 0].tolist() == [1.0, 0.0, 3.0, 4.0, 5.0]
    assert [f.unit for f in output.failures] == [1]


def test_a_unit_may_be_a_group_of_rows_and_then_sees_those() -> None:
    require_sandbox()
    inputs = Inputs(np.arange(6.0)[:, np.newaxis], groups=np.array([1, 0, 1, 0, 1, 1]))
    step = Step("source", b"def step(rows, parameters):\n    return [len(rows), rows.sum()]\n", 2)
    assert run(step, inputs, limits(units=2), offer=OFFER).values.tolist() == [[2.0, 4.0], [4.0, 11.0]]


def test_units_begin_at_times_that_do_not_depend_on_the_one_before() -> None:
    """False alarm: a pause of this machine of more than 0.1 s between two units. Unpaced, the difference is 0.2 s."""
    require_sandbox()
    source = "import time\ndef step(rows, parameters):\n    began = time.monotonic()\n"
    slow = source + "    if rows[0, 0] == 0: time.sleep(0.2)\n    return [began]\n"
    within = limits(wall_s=1.2, memory_mib=64, constant_time=True)
    for text in (source + "    return [began]\n", slow):
        began = tried(text, rows=3, within=within).values[:, 0]
        assert np.allclose(np.diff(began), 0.4, atol=0.1)
    free = tried(slow, rows=3, within=limits(wall_s=1.2, memory_mib=64)).values[:, 0]
    assert free[1] - free[0] > 0.2 > free[2] - free[1]
