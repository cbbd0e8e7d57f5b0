"""The hub's side of the pipes to one sandbox: starts it, feeds it, reads what comes back, ends it in time.

Everything that comes back may be hostile: sizes are fixed before, every field is checked, and the first thing that
does not fit ends the conversation and discards all of it. No row is sent before the sandbox is ready.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from flute.defaults.sandbox import (
    KILL_GRACE_S,
    MAX_LOG_BYTES,
    MAX_UNIT_LOG_BYTES,
    START_TIMEOUT_S,
    STOP_POLL_S,
)
from flute.errors import ProtocolAbortedError, SandboxRefusal
from flute.sandbox import runner
from flute.sandbox.filters import Architecture, inner_filter, outer_filter, packed
from flute.sandbox.launch import Descriptors, command
from flute.sandbox.limits import Grant
from flute.sandbox.machine import Capability

Unit = memoryview
"""The rows of one unit, bytes of float64 in C order."""
_KINDS = {"source": runner.SOURCE, "model": runner.MODEL}
_TEARDOWN_S = 5.0
STOPPED = "The run was stopped on request; what it had computed is gone."
_READ_BYTES = 2**16
_SAID_BYTES = 400
_MAX_LINE = 2**20


@dataclass(frozen=True, slots=True)
class Job:
    """One run, checked and granted. slot_s: from the start of a unit to the start of the next, where paced. work_s,
    cpu_s: of one unit."""

    kind: Literal["source", "model"]
    code: bytes
    outputs: int
    columns: int
    parameters: Mapping[str, NDArray[Any]]
    imports: tuple[str, ...]
    packages: tuple[str, ...]
    grant: Grant
    slot_s: float
    work_s: float
    cpu_s: float
    paced: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one unit: float64 [outputs], as the step's process said; `reason` is empty where it did not fail."""

    values: NDArray[np.float64]
    reason: str
    error_class: str
    line: int


@dataclass(slots=True)
class Reply:
    """`ready_at`: monotonic seconds. `answers`: in the units' order, perhaps not all. `stopped_by`: why not all."""

    ready_at: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    stopped_by: str = ""
    log: str = ""


class _NotAsAgreed(Exception):
    """What came back does not have the fixed form."""


def serve(
    can: Capability, job: Job, units: list[Unit], wall_s: float, enter: Path | None,
    stop: threading.Event | None = None,
) -> Reply:  # fmt: skip
    """Guarantees: returns within 2 s after `wall_s` from when the sandbox was ready, or after `stop` was set; nothing
    of it is left running.

    Raises: SandboxRefusal: it did not start; no row was sent. ProtocolAbortedError: `stop` was set.
    """
    with _started(can, job, enter) as process:
        talk = _Talk(process, job, units, stop)
        try:
            talk.until_ready(can.architecture)
            talk.until_answered(wall_s + KILL_GRACE_S)
        except _NotAsAgreed:
            talk.reply.answers.clear()
            talk.reply.stopped_by = "crashed"
        finally:
            talk.close()
    talk.reply.log = _printable(bytes(talk.log))
    return talk.reply


@contextlib.contextmanager
def _started(can: Capability, job: Job, enter: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """At the end its first process is killed, and with that process the kernel ends all that runs in its namespace;
    bubblewrap ends when that is over, and is waited for. Whatever happened, nothing runs on."""
    filter_fd = os.memfd_create("filter")
    info, told = os.pipe()
    try:
        os.write(filter_fd, packed(outer_filter(can.architecture)))
        os.lseek(filter_fd, 0, os.SEEK_SET)
        process = subprocess.Popen(
            command(can, job.packages, Descriptors(filter_fd, told), enter), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(filter_fd, told), env={}, cwd="/",
            start_new_session=True, bufsize=0,
        )  # fmt: skip
    except BaseException:
        os.close(info)
        raise
    finally:
        os.close(filter_fd)
        os.close(told)
    try:
        yield process
    finally:
        _end(process, info)
        os.close(info)


def _end(process: subprocess.Popen[bytes], info: int) -> None:
    os.set_blocking(info, False)
    with contextlib.suppress(BlockingIOError):
        first = re.search(rb'"child-pid": (\d+)', os.read(info, _READ_BYTES))
        if first and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(first[1]), signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TEARDOWN_S)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_TEARDOWN_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class _Talk:
    def __init__(
        self, process: subprocess.Popen[bytes], job: Job, units: list[Unit], stop: threading.Event | None
    ) -> None:
        self._stop = stop
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._into: IO[bytes] = process.stdin
        self._answers, self._errors = process.stdout.fileno(), process.stderr.fileno()
        self._job, self._units = job, units
        self._waiting: deque[memoryview] = deque()
        self._came = bytearray()
        self._selector = selectors.DefaultSelector()
        for fd in (self._answers, self._errors):
            os.set_blocking(fd, False)
            self._selector.register(fd, selectors.EVENT_READ)
        os.set_blocking(self._into.fileno(), False)
        self._open = 2
        self.reply = Reply()
        self.log = bytearray()

    def until_ready(self, machine: Architecture) -> None:
        """Raises: SandboxRefusal: the sandbox did not become ready in START_TIMEOUT_S."""
        self._offer(_beginning(self._job, self._units, machine))
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(self._came) < runner.READY.size and self._open and (left := deadline - time.monotonic()) > 0:
            self._exchange(left)
        if self._came[:4] != runner.MAGIC or len(self._came) != runner.READY.size:
            said = _printable(bytes(self.log[-_SAID_BYTES:])).strip()
            raise SandboxRefusal(f"The sandbox did not start. It said: {said or 'nothing'}", reason="not-started")
        self._came.clear()
        self.reply.ready_at = time.monotonic()

    def until_answered(self, within_s: float) -> None:
        """Raises: _NotAsAgreed. ProtocolAbortedError: it was told to stop."""
        self._offer([piece for unit in self._units for piece in (self._size(unit), unit)])
        deadline = self.reply.ready_at + within_s
        while len(self.reply.answers) < len(self._units) and self._open:
            left = deadline - time.monotonic()
            if left <= 0:
                self.reply.stopped_by = "wall"
                return
            if self._stop is not None and self._stop.is_set():
                raise ProtocolAbortedError(STOPPED)
            self._exchange(left if self._stop is None else min(left, STOP_POLL_S))
            while self._take_answer():
                pass
        if len(self.reply.answers) == len(self._units) and self._came:
            raise _NotAsAgreed

    def close(self) -> None:
        self._selector.close()

    def _size(self, unit: Unit) -> memoryview:
        return memoryview(runner.UNIT.pack(unit.nbytes // (8 * self._job.columns)))

    def _offer(self, pieces: list[memoryview]) -> None:
        self._waiting.extend(piece for piece in pieces if piece.nbytes)
        if self._waiting and self._into not in self._selector.get_map():
            self._selector.register(self._into, selectors.EVENT_WRITE)

    def _exchange(self, within_s: float) -> None:
        for key, _ in self._selector.select(within_s):
            if key.fileobj is self._into:
                self._feed()
            else:
                self._read(key.fd)

    def _feed(self) -> None:
        try:
            piece = self._waiting.popleft()
            sent = os.write(self._into.fileno(), piece)
            if sent < piece.nbytes:
                self._waiting.appendleft(piece[sent:])
        except BrokenPipeError:
            self._waiting.clear()
        if not self._waiting:
            self._selector.unregister(self._into)

    def _read(self, fd: int) -> None:
        data = os.read(fd, _READ_BYTES)
        if not data:
            self._selector.unregister(fd)
            self._open -= 1
        elif fd == self._answers:
            self._came += data
        else:
            self._write_down(data)

    def _write_down(self, data: bytes) -> None:
        self.log += data[: max(MAX_LOG_BYTES - len(self.log), 0)]

    def _take_answer(self) -> bool:
        """One frame, if it is there whole. Raises: _NotAsAgreed."""
        numbers = 8 * self._job.outputs
        size = runner.FRAME.size + runner.RESULT.size + numbers
        if len(self._came) < size:
            return False
        unit, log_bytes = runner.FRAME.unpack_from(self._came)
        reason, error, line = runner.RESULT.unpack_from(self._came, runner.FRAME.size)
        if unit != len(self.reply.answers) or unit >= len(self._units) or log_bytes > MAX_UNIT_LOG_BYTES:
            raise _NotAsAgreed
        if len(self._came) < size + log_bytes:
            return False
        if reason >= len(runner.REASONS) or error >= len(runner.ERRORS) or line > _MAX_LINE:
            reason, error, line = runner.REASONS.index("output"), 0, 0
        values = np.frombuffer(bytes(self._came[size - numbers : size]), "<f8")
        self.reply.answers.append(Answer(values, runner.REASONS[reason], runner.ERRORS[error], line))
        self._write_down(bytes(self._came[size : size + log_bytes]))
        del self._came[: size + log_bytes]
        return True


def _printable(log: bytes) -> str:
    """A hostile step may print what steers a terminal; a steward's shows a mark instead."""
    text = log.decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _beginning(job: Job, units: list[Unit], machine: Architecture) -> list[memoryview]:
    """All that does not depend on rows but for their number."""
    imports = " ".join(job.imports).encode()
    program = packed(inner_filter(machine))
    header = runner.HEADER.pack(
        runner.MAGIC, _KINDS[job.kind], job.paced, job.grant.threads, len(units), job.columns,
        job.outputs, MAX_UNIT_LOG_BYTES,
        len(job.parameters), len(imports), len(program), len(job.code),
        int(job.slot_s * 1e9), int(job.work_s * 1e9), int(job.cpu_s * 1e9), job.grant.memory_bytes,
    )  # fmt: skip
    pieces = [header, imports, program, job.code]
    for name, values in job.parameters.items():
        pieces += _parameter(name, np.asarray(values, order="C"))
    return [memoryview(piece).cast("B") for piece in pieces]


def _parameter(name: str, values: NDArray[Any]) -> list[bytes]:
    encoded = name.encode()
    kind = runner.DTYPES.index(values.dtype.newbyteorder("<").str)
    sizes = b"".join(runner.SIZE.pack(size) for size in values.shape)
    described = runner.PARAMETER.pack(len(encoded), kind, values.ndim)
    return [described, sizes, encoded, values.astype(runner.DTYPES[kind], copy=False).tobytes()]
