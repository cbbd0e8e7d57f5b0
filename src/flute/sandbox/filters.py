"""Which system calls a step may make: two seccomp filters, made here as programs of the kernel's packet filter.

Outer: installed by bubblewrap before the interpreter starts. It refuses what neither interpreter nor libraries need
and lets the rest pass; it holds while libraries are loaded and the step's text is compiled.
Inner: installed in every process that runs a step's code, before the first line of it. Only what is listed passes;
no file can be opened, no program or process started, no memory made executable. What no computation needs ends the
process (`forbidden-call`); everything else that is not listed answers "not permitted".

A filter is given a call's number, architecture and arguments as registers; what pointers lead to it never sees.
So no rule here depends on memory. Calls through another architecture's table (32-bit, x32) end the process.
Source: Linux, Documentation/userspace-api/seccomp_filter.rst; McCanne and Jacobson 1993 (the machine).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from flute.errors import MisuseError
from flute.sandbox.syscalls import HARMLESS, HOSTILE, JUDGED

KILL: Final = 0x8000_0000
ALLOW: Final = 0x7FFF_0000
_ERRNO: Final = 0x0005_0000
NOT_PERMITTED: Final = _ERRNO | errno.EPERM
NO_SUCH_CALL: Final = _ERRNO | errno.ENOSYS
NO_ACCESS: Final = _ERRNO | errno.EACCES

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32_CALLS: Final = 0x4000_0000
_PROT_EXEC: Final = 4
_CLONE_THREAD: Final = 0x0001_0000
_AT_EMPTY_PATH: Final = 0x1000
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_INSTRUCTION: Final = struct.Struct("<HBBI")
_INTERPRETER_NEEDS: Final = frozenset(
    ("fork", "vfork", "execve", "kill", "pidfd_open", "unlink", "unlinkat", "rename", "mkdir")
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """`column`: of the table of numbers. `audit`: the kernel's name for it in a filter's data."""

    name: str
    audit: int
    column: int


ARCHITECTURES: Final = (Architecture("x86_64", 0xC000_003E, 0), Architecture("aarch64", 0xC000_00B7, 1))


@dataclass(frozen=True, slots=True)
class Instruction:
    code: int
    if_true: int
    if_false: int
    value: int


Program = tuple[Instruction, ...]


def architecture(machine: str) -> Architecture:
    """Raises: MisuseError: no table of system calls for this kind of machine."""
    for known in ARCHITECTURES:
        if known.name == machine:
            return known
    raise MisuseError(f"The sandbox has no table of system calls for {machine}; it knows x86_64 and aarch64.")


def outer_filter(machine: Architecture) -> Program:
    """What starting an interpreter never needs is not permitted (libraries may try, and go on); the rest passes."""
    refused = (name for name in HOSTILE if name not in _INTERPRETER_NEEDS)
    return (*_guard(machine), *_answer(machine, refused, HOSTILE, NOT_PERMITTED), _returned(ALLOW))


def inner_filter(machine: Architecture) -> Program:
    """What is listed passes, hostile calls end the process, all others are not permitted."""
    return (
        *_guard(machine),
        *_answer(machine, HARMLESS, HARMLESS, ALLOW),
        *_answer(machine, HOSTILE, HOSTILE, KILL),
        *_judged(machine),
        _returned(NOT_PERMITTED),
    )


def packed(program: Program) -> bytes:
    """As the kernel takes it: an array of sock_filter, 8 bytes each."""
    return b"".join(_INSTRUCTION.pack(i.code, i.if_true, i.if_false, i.value) for i in program)


def _guard(machine: Architecture) -> Program:
    """Another table of calls ends the process; then the number is loaded."""
    checks = (_load(_ARCHITECTURE_AT), Instruction(_EQUAL, 1, 0, machine.audit), _returned(KILL), _load(_NUMBER_AT))
    if machine.name != "x86_64":
        return checks
    return (*checks, Instruction(_AT_LEAST, 0, 1, _X32_CALLS), _returned(KILL))


def _answer(
    machine: Architecture, names: Iterable[str], table: dict[str, tuple[int | None, int | None]], answer: int
) -> Iterator[Instruction]:
    for name in names:
        number = table[name][machine.column]
        if number is not None:
            yield from (Instruction(_EQUAL, 0, 1, number), _returned(answer))


def _judged(machine: Architecture) -> Iterator[Instruction]:
    executable = (Instruction(_ANY_BIT, 0, 1, _PROT_EXEC), _returned(KILL), _returned(ALLOW))
    rules: dict[str, tuple[Instruction, ...]] = {
        "mmap": (_argument(2), *executable),
        "mprotect": (_argument(2), *executable),
        # Threads pass (their number is limited), processes do not.
        "clone": (_argument(0), Instruction(_ANY_BIT, 0, 1, _CLONE_THREAD), _returned(ALLOW), _returned(KILL)),
        # Its flags lie in memory; the C library falls back to clone.
        "clone3": (_returned(NO_SUCH_CALL),),
        # Of itself only: another process's limits could be lowered from here.
        "prlimit64": (_argument(0), Instruction(_EQUAL, 0, 1, 0), _returned(ALLOW), _returned(KILL)),
        # The C library's fstat.
        "newfstatat": (
            _argument(3), Instruction(_ANY_BIT, 0, 1, _AT_EMPTY_PATH), _returned(ALLOW), _returned(NO_ACCESS)
        ),
        # Typing into somebody's terminal.
        "ioctl": (
            _argument(1), Instruction(_EQUAL, 1, 0, _TIOCSTI), Instruction(_EQUAL, 0, 1, _TIOCLINUX),
            _returned(KILL), _returned(NOT_PERMITTED),
        ),
        "open": (_returned(NO_ACCESS),),
        "openat": (_returned(NO_ACCESS),),
        "openat2": (_returned(NO_ACCESS),),
    }  # fmt: skip
    for name, rule in rules.items():
        number = JUDGED[name][machine.column]
        if number is not None:
            yield from (Instruction(_EQUAL, 0, len(rule), number), *rule)


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _argument(position: int) -> Instruction:
    """The lower half, in which all flags that are judged here lie; the kernel itself reads no more of them."""
    return _load(_ARGUMENTS_AT + 8 * position)


def _returned(answer: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, answer)
