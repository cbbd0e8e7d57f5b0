"""What runs inside the sandbox: one process per unit, which is given that unit's rows and nothing of any other.

A unit is what one patient may influence: a row, or a group of rows. A step that saw all rows at once could make
every row of its result depend on one patient, and no clipping of rows would bound what that patient changes. So
there are three kinds of process:

- the first loads libraries and compiles the text; it never runs a line of it and never holds a row;
- for each unit it forks a keeper, which reads that unit's rows, forks the step, watches its time, passes on what
  came back in a frame of fixed size, and ends. Its memory ends with it: nothing is left for a later unit to find;
- the step's process closes all but two pipes that nobody has used before, takes its limits, installs the inner
  filter, and only then runs the step from its beginning. No variable, file, pipe, signal or shared memory leads
  from one unit to a later one. Paced, units begin at fixed times, whatever the one before took.

This file is run on its own (`python -I -S runner.py`), without flute: it imports the standard library and numpy.
Its text is trusted; what the step's process sends is not. Format: little-endian, fixed sizes; see the structs.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from types import CodeType
from typing import Any, Final, NamedTuple, NoReturn

MAGIC: Final = b"FSBX"
HEADER: Final = struct.Struct("<4sBB9I4Q")
PARAMETER: Final = struct.Struct("<HBB")
SIZE: Final = struct.Struct("<Q")
UNIT: Final = struct.Struct("<I")
READY: Final = struct.Struct("<4sQ")
FRAME: Final = struct.Struct("<II")
RESULT: Final = struct.Struct("<BBI")

SOURCE, MODEL = 0, 1
DTYPES: Final = ("<f8", "<f4", "<i8")
REASONS: Final = ("", "raised", "memory", "cpu", "wall", "processes", "output", "forbidden-call", "crashed")
_OK, _RAISED, _MEMORY, _CPU, _WALL, _PROCESSES, _OUTPUT, _FORBIDDEN, _CRASHED = range(9)
ERRORS: Final = (
    "",
    *sorted(
        n for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, Exception) and n == v.__name__
    ),
)
"""Names that an error may have towards the outside: the language's own, no free text."""
FILE_NAME: Final = "<step>"

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 4, 22, 2
_PROT_READ, _MAP_PRIVATE_ANONYMOUS = 1, 0x22
_CPU_CLOCK_OF_PROCESS = 2
_PAGE = 4096
_FROM_THE_HUB, _TO_THE_HUB = 0, 1
_OTHER_PROCESSES = 2
_POLL_S = 0.001


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


class _Program(ctypes.Structure):
    """The kernel's sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class Header(NamedTuple):
    magic: bytes
    kind: int
    paced: int
    threads: int
    units: int
    columns: int
    outputs: int
    log_bytes: int
    parameters: int
    imports_bytes: int
    filter_bytes: int
    code_bytes: int
    slot_ns: int
    work_ns: int
    cpu_ns: int
    memory: int


class Job(NamedTuple):
    """What every unit has in common. `program`: the inner filter. `run`: rows and parameters to numbers."""

    header: Header
    program: bytes
    parameters: dict[str, Any]
    load: Callable[[], Callable[[Any, dict[str, Any]], Any]]
    address_space: int


# --- the process that serves units -----------------------------------------------------------


def main() -> None:
    """Serves the units of one run; ends when the last is answered or nobody listens."""
    # bubblewrap asks for this too, but the kernel forgets it when a user namespace is made afterwards.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    header = Header(*HEADER.unpack(_exactly(HEADER.size)))
    imports, program, code = (_exactly(n) for n in (header.imports_bytes, header.filter_bytes, header.code_bytes))
    for name in ("numpy", "numpy.linalg", *imports.decode().split()):
        importlib.import_module(name)
    parameters = dict(_parameter() for _ in range(header.parameters))
    load = _model_loader(bytes(code)) if header.kind == MODEL else _source_loader(code.decode())
    job = Job(header, bytes(program), parameters, load, _address_space())
    _send(READY.pack(MAGIC, job.address_space))
    gc.disable()
    gc.freeze()
    began = time.monotonic_ns()
    for unit in range(header.units):
        if header.paced:
            _sleep_until(began + unit * header.slot_ns)
        keeper = os.fork()
        if not keeper:
            _be_keeper(job, unit)
        if os.waitpid(keeper, 0)[1]:
            sys.exit("A unit could not be served.")


def _be_keeper(job: Job, unit: int) -> NoReturn:
    code = 1
    try:
        rows = bytearray(8 * job.header.columns * UNIT.unpack(_exactly(UNIT.size))[0])
        _fill(memoryview(rows))
        answer, log = _one_unit(job, rows)
        _send(FRAME.pack(unit, len(log)) + answer + log)
        code = 0
    finally:
        os._exit(code)


def _exactly(size: int) -> bytearray:
    """Raises: EOFError: the other side ended before."""
    buffer = bytearray(size)
    _fill(memoryview(buffer))
    return buffer


def _fill(view: memoryview) -> None:
    """Read straight into the buffer: no copy of rows is left behind in freed memory."""
    while len(view):
        count = os.readv(_FROM_THE_HUB, [view])
        if not count:
            raise EOFError("The input ended early.")
        view = view[count:]


def _send(data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(_TO_THE_HUB, view) :]


def _parameter() -> tuple[str, Any]:
    import numpy

    name_bytes, dtype, dimensions = PARAMETER.unpack(_exactly(PARAMETER.size))
    shape = [SIZE.unpack(_exactly(SIZE.size))[0] for _ in range(dimensions)]
    name = _exactly(name_bytes).decode()
    values = numpy.empty(shape, DTYPES[dtype])
    _fill(values.reshape(-1).view("u1").data)
    return name, values


def _sleep_until(moment_ns: int) -> None:
    while (left := moment_ns - time.monotonic_ns()) > 0:
        time.sleep(left / 1e9)


def _address_space() -> int:
    """Bytes mapped now, to the page: the smallest limit under which the kernel still gives one page more."""
    low, high = 0, 2**46 // _PAGE
    while high - low > 1:
        middle = (low + high) // 2
        resource.setrlimit(resource.RLIMIT_AS, (middle * _PAGE, resource.RLIM_INFINITY))
        found = _LIBC.mmap(None, _PAGE, _PROT_READ, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        if found == ctypes.c_void_p(-1).value:
            low = middle
        else:
            _LIBC.munmap(ctypes.c_void_p(found), ctypes.c_size_t(_PAGE))
            high = middle
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return high * _PAGE


def _one_unit(job: Job, rows: bytearray) -> tuple[bytes, bytes]:
    """The unit's result, always of the same size, and what it printed."""
    result_read, result_write = os.pipe()
    log_read, log_write = os.pipe()
    began = time.monotonic_ns()
    child = os.fork()
    if not child:
        _be_child(job, rows, result_write, log_write)
    os.close(result_write)
    os.close(log_write)
    watch = _Watch(job, child, result_read, log_read, began + job.header.work_ns)
    try:
        return watch.until_it_ends()
    finally:
        os.close(result_read)
        os.close(log_read)


class _Watch:
    """One child from its start to its end, within its share of time."""

    def __init__(self, job: Job, child: int, result: int, log: int, deadline_ns: int) -> None:
        self._job, self._child, self._deadline_ns = job, child, deadline_ns
        self._fds = {result: bytearray(), log: bytearray()}
        self._most = {result: RESULT.size + 8 * job.header.outputs, log: job.header.log_bytes}
        self._result, self._log = result, log
        self._clock = (~child << 3) | _CPU_CLOCK_OF_PROCESS

    def until_it_ends(self) -> tuple[bytes, bytes]:
        ended, poll = os.pidfd_open(self._child), select.poll()
        for fd in (*self._fds, ended):
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        poll.register(_TO_THE_HUB, 0)  # tells when nobody reads there any more: then the hub is gone
        stopped = _OK
        while True:
            ready = {fd for fd, _ in poll.poll(self._longest_wait_ms())}
            for fd in ready & set(self._fds):
                if not self._take(fd):
                    poll.unregister(fd)
            if ended in ready:
                break
            stopped = _WALL if _TO_THE_HUB in ready else self._over()
            if stopped:
                os.kill(self._child, signal.SIGKILL)
                break
        os.close(ended)
        status = os.waitpid(self._child, 0)[1]
        for fd in self._fds:
            while self._take(fd):
                pass
        return self._answer(stopped, status), bytes(self._fds[self._log])

    def _take(self, fd: int) -> bool:
        """More of what a pipe holds; what is beyond its limit is dropped. False: it has ended, or is empty."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        room = self._most[fd] + (fd == self._result) - len(self._fds[fd])
        self._fds[fd] += data[: max(room, 0)]
        return bool(data)

    def _cpu_left_ns(self) -> int:
        try:
            return self._job.header.cpu_ns - time.clock_gettime_ns(self._clock)
        except OSError:  # it has ended
            return self._job.header.cpu_ns

    def _longest_wait_ms(self) -> float:
        """Until the first moment at which the child could be over a limit."""
        left = min(self._deadline_ns - time.monotonic_ns(), self._cpu_left_ns() // max(self._job.header.threads, 1))
        return max(left / 1e6, 1e3 * _POLL_S)

    def _over(self) -> int:
        if len(self._fds[self._result]) > self._most[self._result]:
            return _OUTPUT
        if time.monotonic_ns() >= self._deadline_ns:
            return _WALL
        return _CPU if self._cpu_left_ns() <= 0 else _OK

    def _answer(self, stopped: int, status: int) -> bytes:
        sent, size = self._fds[self._result], self._most[self._result]
        reason = stopped or _reason_of(status)
        if not reason and len(sent) == size:
            return bytes(sent)
        if not reason:
            reason = _OUTPUT if len(sent) > size else _CRASHED
        return RESULT.pack(reason, 0, 0).ljust(size, b"\0")


def _reason_of(status: int) -> int:
    if not os.WIFSIGNALED(status):
        return _OK if os.WEXITSTATUS(status) == 0 else _CRASHED
    by = os.WTERMSIG(status)
    return _FORBIDDEN if by == signal.SIGSYS else _CPU if by == signal.SIGXCPU else _CRASHED


# --- the process of one unit -----------------------------------------------------------------


def _be_child(job: Job, rows: bytearray, result: int, log: int) -> NoReturn:
    """Everything from here on is in the step's hands as soon as its first line has run; nothing here is relied on
    then but the filter, the limits and the two pipes."""
    code = 1
    try:
        _close_all_but(result, log)
        gc.enable()
        _confine(job)
        _send_result(job, *_computed(job, rows))
        code = 0
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def _close_all_but(result: int, log: int) -> None:
    kept = [os.dup2(fd, 100 + place) for place, fd in enumerate((log, result))]
    os.dup2(kept[0], 1)
    os.dup2(kept[0], 2)
    os.dup2(kept[1], 3)
    os.close(0)
    os.closerange(4, 256)


def _confine(job: Job) -> None:
    """Limits, then the inner filter. Raises: OSError: the kernel did not take it; nothing of the step has run."""
    seconds = -(-job.header.cpu_ns // 10**9) + 1
    for limit, value in (
        (resource.RLIMIT_AS, job.address_space + job.header.memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, job.header.threads + _OTHER_PROCESSES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 8),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    program = _Program(len(job.program) // 8, ctypes.cast(ctypes.c_char_p(job.program), ctypes.c_void_p))
    if _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel did not take the filter")


def _computed(job: Job, rows: bytearray) -> tuple[int, int, int, bytes]:
    """Reason, error, line, numbers."""
    import numpy

    try:
        table = numpy.frombuffer(rows, "<f8").reshape(-1, job.header.columns).copy()
        found = numpy.asarray(job.load()(table, job.parameters), dtype="<f8")
    except BaseException as error:  # noqa: BLE001 - whatever a step raises is its own answer
        return (*_told(error), b"")
    wanted = (job.header.outputs,)
    if found.shape not in (wanted, (1, *wanted)) or not numpy.isfinite(found).all():
        return _OUTPUT, 0, 0, b""
    return _OK, 0, 0, found.tobytes()


def _told(error: BaseException) -> tuple[int, int, int]:
    """Of an error of the step: why, its class among the language's own, the last of the step's lines."""
    name = next((c.__name__ for c in type(error).__mro__ if c.__name__ in ERRORS), "")
    line, at = 0, error.__traceback__
    while at:
        if at.tb_frame.f_code.co_filename == FILE_NAME:
            line = at.tb_lineno
        at = at.tb_next
    if isinstance(error, SyntaxError) and error.filename == FILE_NAME:
        line = error.lineno or 0
    reason = _MEMORY if isinstance(error, MemoryError) else _RAISED
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        reason = _PROCESSES
    return reason, ERRORS.index(name), line


def _send_result(job: Job, reason: int, error: int, line: int, numbers: bytes) -> None:
    view = memoryview(RESULT.pack(reason, error, line) + (numbers or bytes(8 * job.header.outputs)))
    while len(view):
        view = view[os.write(3, view) :]


# --- what a step may be ----------------------------------------------------------------------


def _source_loader(code: str) -> Callable[[], Callable[[Any, dict[str, Any]], Any]]:
    """The text is compiled once, here, and run anew in every child. An error of its form is every child's error."""
    compiled: CodeType | None = None
    failed: Exception | None = None
    try:
        compiled = compile(code, FILE_NAME, "exec", dont_inherit=True)
    except Exception as error:  # noqa: BLE001 - whatever a text does to the compiler is the step's own error
        failed = error

    def load() -> Callable[[Any, dict[str, Any]], Any]:
        if failed is not None:
            raise failed
        assert compiled is not None
        names: dict[str, Any] = {"__name__": "step", "__builtins__": builtins}
        exec(compiled, names)  # noqa: S102 - what this process is for
        step: Callable[[Any, dict[str, Any]], Any] = names["step"]
        return step

    return load


def _model_loader(model: bytes) -> Callable[[], Callable[[Any, dict[str, Any]], Any]]:
    """An ONNX graph of one input [rows, columns] and, as its first output, numbers for each row; they are averaged
    over a unit's rows. It is parsed in the child: a graph that breaks the parser breaks only itself."""
    import numpy

    onnxruntime = importlib.import_module("onnxruntime")

    def load() -> Callable[[Any, dict[str, Any]], Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        first = session.get_inputs()[0]
        kind = {"tensor(float)": "f4", "tensor(double)": "f8"}[first.type]

        def step(rows: Any, parameters: dict[str, Any]) -> Any:
            given = {first.name: rows.astype(kind), **parameters}
            return numpy.asarray(session.run(None, given)[0], "f8").reshape(len(rows), -1).mean(axis=0)

        return step

    return load


if __name__ == "__main__":
    sys.path.append("/runtime/packages")
    main()
