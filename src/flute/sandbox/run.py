"""Runs a researcher's step on a hub's rows, without trust in it.

What holds, whatever the step does: it sees one unit's rows at a time and leaves nothing to a later unit; it reaches
no network, file, process or device; it ends within its limits; what comes back is `values`, of a shape fixed before,
finite, zero for each unit that failed. So one patient changes one row of `values`, and clipping each row and adding
noise to their sum (outside, by the hub) bounds what anybody learns of her. Hostile code costs its author accuracy.

What depends on the rows beside `values`, and must not leave the hub uncharged: `failures`, `log`, and, without
`Limits.constant_time`, how long it took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flute.defaults.sandbox import (
    HANDOVER_S,
    MAX_DIMENSIONS,
    MAX_MODEL_BYTES,
    MAX_NAME_BYTES,
    MAX_OUTPUTS,
    MAX_PARAMETERS,
    MAX_VALUES,
    MIN_SLOT_S,
    TEARDOWN_S,
    TEARDOWN_S_PER_GIB,
)
from flute.errors import MisuseError, ProtocolAbortedError, SandboxRefusal
from flute.sandbox.formats import require_model
from flute.sandbox.limits import Grant, Limits, Offer, admit, offer_of_machine
from flute.sandbox.machine import available, control_group
from flute.sandbox.review import LIBRARIES, imported, readable
from flute.sandbox.talk import STOPPED, Job, Reply, Unit, serve

Array = NDArray[np.float64]
Parameters = Mapping[str, NDArray[np.float64] | NDArray[np.float32] | NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Step:
    """What is run: the text of one module with `step(rows, parameters)`, or an ONNX graph.

    `step` is given one unit's rows, float64 [rows, columns], and the named arrays; it gives `outputs` numbers. It is
    run from the module's first line for every unit. A graph is given the rows; its first output is averaged over
    them. `outputs`: as agreed; 1 or more.
    """

    kind: Literal["source", "model"]
    code: bytes
    outputs: int

    def __post_init__(self) -> None:
        if not 1 <= self.outputs <= MAX_OUTPUTS:
            raise MisuseError(f"A step gives 1 to {MAX_OUTPUTS:,} numbers for a unit.")


@dataclass(frozen=True, slots=True)
class Inputs:
    """rows: float64 [n, columns]. parameters: what the asker sent, of float64, float32 or int64. groups: int64 [n],
    the unit of each row, numbered from 0, every number up to the largest in use; None: each row is a unit."""

    rows: Array
    parameters: Parameters = field(default_factory=dict)
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a unit's row of the result is zero. DEPENDS ON THE UNIT'S RECORDS, by the step's own choice: whoever lets
    it out must charge for it. `reason`: raised, memory, cpu, wall, processes, output, forbidden-call or crashed.
    `error_class`: one of the language's own names, or empty. `line`: of the step's text, 0 where none is known."""

    unit: int
    reason: str
    error_class: str
    line: int


@dataclass(frozen=True, slots=True)
class Output:
    """values: float64 [units, outputs], finite; zero for each unit that failed. failures and log are for the hub's
    steward: they depend on records without any noise. log: what the step printed, shortened."""

    values: Array
    failures: tuple[Failure, ...]
    log: str


def run(
    step: Step, inputs: Inputs, limits: Limits, *, offer: Offer | None = None, cgroup: Path | None = None,
    stop: threading.Event | None = None,
) -> Output:  # fmt: skip
    """Runs `step` on every unit of `inputs`, each by itself.

    Guarantees: see the module. With `constant_time`, returns `wall_s` + HANDOVER_S after the sandbox was ready (to
    the clock's and the scheduler's accuracy), whatever the step does; in any case within 2 s after `wall_s`.
    Args: offer: what the hub gives, None: what the machine has. cgroup: a group of version 2 that the hub may divide.
        stop: set from another thread, it ends the run.
    Raises: SandboxRefusal: before any row was read: no sandbox here, too little of something, refused kind of file.
        MisuseError: inputs of wrong type or shape. ProtocolAbortedError: `stop` was set.
    """
    can = available()
    can.require()
    units = _units(inputs)
    if len(units) > limits.units:
        raise SandboxRefusal("This hub has more units than the limits are made for.", reason="units")
    grant = admit(limits, offer_of_machine() if offer is None else offer)
    job = _job(step, inputs, limits, grant)
    with ExitStack() as stack:
        enter = stack.enter_context(control_group(cgroup, grant)) if cgroup else None
        reply = serve(can, job, units, grant.wall_s, enter, stop)
    output = _output(reply, len(units), step.outputs)
    if limits.constant_time:
        _wait_until(reply.ready_at + grant.wall_s + HANDOVER_S, stop or threading.Event())
    return output


def _wait_until(moment: float, stop: threading.Event) -> None:
    """Monotonic seconds. Raises: ProtocolAbortedError: `stop` was set."""
    if stop.wait(max(moment - time.monotonic(), 0.0)):
        raise ProtocolAbortedError(STOPPED)


def _units(inputs: Inputs) -> list[Unit]:
    rows, groups = inputs.rows, inputs.groups
    if rows.dtype != np.float64 or rows.ndim != 2 or rows.size > MAX_VALUES or not rows.shape[1]:
        raise MisuseError(f"Rows are float64 [n, columns], at most {MAX_VALUES:,} numbers.")
    rows = np.ascontiguousarray(rows)
    if groups is None:
        found = [rows[i : i + 1] for i in range(len(rows))]
    else:
        if groups.shape != rows.shape[:1] or groups.dtype != np.int64:
            raise MisuseError("Groups are int64 [n], one for each row.")
        numbers, first = np.unique(groups, return_index=True)
        if not np.array_equal(numbers, np.arange(len(numbers))):
            raise MisuseError("Groups are numbered from 0 without gaps.")
        order = np.argsort(groups, kind="stable")
        found = np.split(rows[order], np.searchsorted(groups[order], numbers[1:])) if len(first) else []
    return [np.ascontiguousarray(unit).reshape(-1).view(np.uint8).data for unit in found]


def _job(step: Step, inputs: Inputs, limits: Limits, grant: Grant) -> Job:
    _require_parameters(inputs.parameters)
    units, paced = limits.units, limits.constant_time
    if units * step.outputs > MAX_VALUES:
        raise MisuseError(f"The result could have more than {MAX_VALUES:,} numbers.")
    slot = grant.wall_s / units
    teardown = TEARDOWN_S + TEARDOWN_S_PER_GIB * grant.memory_bytes / 2**30 if paced else 0.0
    if slot - teardown < MIN_SLOT_S:
        needed = units * (MIN_SLOT_S + teardown)
        raise SandboxRefusal(
            f"{grant.wall_s:g} s are too short for {units:,} units of this much memory: {needed:,.1f} s at least.",
            reason="wall",
        )
    imports: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("numpy", "onnxruntime")
    if step.kind == "model":
        require_model(step.code, MAX_MODEL_BYTES)
    else:
        imports = imported(readable(step.code))
        roots = {"numpy"} | {name.partition(".")[0] for name in imports}
        packages = tuple(sorted(roots & LIBRARIES))
    return Job(
        step.kind, step.code, step.outputs, inputs.rows.shape[1], inputs.parameters, imports, packages, grant,
        slot_s=slot, work_s=slot - teardown, cpu_s=grant.cpu_s / units, paced=paced,
    )  # fmt: skip


def _require_parameters(parameters: Parameters) -> None:
    if len(parameters) > MAX_PARAMETERS:
        raise MisuseError(f"At most {MAX_PARAMETERS:,} named arrays.")
    for name, values in parameters.items():
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES or not name.isprintable():
            raise MisuseError(f"A parameter's name has 1 to {MAX_NAME_BYTES} printable characters.")
        if values.dtype not in (np.float64, np.float32, np.int64) or values.ndim > MAX_DIMENSIONS:
            raise MisuseError(
                f"Parameter {name} is float64, float32 or int64, of at most {MAX_DIMENSIONS} dimensions."
            )
    if sum(values.size for values in parameters.values()) > MAX_VALUES:
        raise MisuseError(f"At most {MAX_VALUES:,} numbers as parameters.")


def _output(reply: Reply, units: int, outputs: int) -> Output:
    values = np.zeros((units, outputs))
    failures = []
    for unit in range(units):
        answer = reply.answers[unit] if unit < len(reply.answers) else None
        if answer is None:
            failures.append(Failure(unit, reply.stopped_by or "crashed", "", 0))
        elif answer.reason or not np.isfinite(answer.values).all():
            failures.append(Failure(unit, answer.reason or "output", answer.error_class, answer.line))
        else:
            values[unit] = answer.values
    return Output(values, tuple(failures), reply.log)
