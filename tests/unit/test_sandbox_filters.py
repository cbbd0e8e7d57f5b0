"""The two filters as programs: run here by a small machine, for both architectures, call by call."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from flute.errors import MisuseError
from flute.sandbox.filters import (
    ALLOW,
    ARCHITECTURES,
    KILL,
    NO_ACCESS,
    NO_SUCH_CALL,
    NOT_PERMITTED,
    Architecture,
    Program,
    architecture,
    inner_filter,
    outer_filter,
    packed,
)
from flute.sandbox.syscalls import HARMLESS, HOSTILE, JUDGED

X86, ARM = ARCHITECTURES
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def verdict(program: Program, call: int, *arguments: int, audit: int) -> int:
    """The classic packet filter's machine, as far as these programs use it; anything else fails."""
    data = struct.pack("<IIQ6Q", call, audit, 0, *(*arguments, *[0] * (6 - len(arguments))))
    held = at = 0
    for _ in range(len(program)):
        one = program[at]
        at += 1
        if one.code == RETURN:
            return one.value
        if one.code == LOAD:
            (held,) = struct.unpack_from("<I", data, one.value)
            continue
        met = {EQUAL: held == one.value, AT_LEAST: held >= one.value, ANY_BIT: bool(held & one.value)}[one.code]
        at += one.if_true if met else one.if_false
    raise AssertionError("The program does not end.")


def asked(program: Program, machine: Architecture, name: str, *arguments: int) -> int:
    number = {**HARMLESS, **HOSTILE, **JUDGED}[name][machine.column]
    assert number is not None
    return verdict(program, number, *arguments, audit=machine.audit)


both = pytest.mark.parametrize("machine", ARCHITECTURES, ids=lambda m: m.name)


@both
def test_a_step_may_do_what_is_harmless_and_dies_of_what_is_hostile(machine: Architecture) -> None:
    program = inner_filter(machine)
    for table, answer in ((HARMLESS, ALLOW), (HOSTILE, KILL)):
        for name, numbers in table.items():
            if numbers[machine.column] is not None:
                assert asked(program, machine, name) == answer, name


@both
def test_every_other_call_is_not_permitted(machine: Architecture) -> None:
    known = {numbers[machine.column] for table in (HARMLESS, HOSTILE, JUDGED) for numbers in table.values()}
    program = inner_filter(machine)
    others = set(range(600)) - known
    assert {verdict(program, call, audit=machine.audit) for call in others} == {NOT_PERMITTED}
    assert NOT_PERMITTED & 0xFFFF == errno.EPERM


@both
@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("mmap", (0, 4096, 3, 0x22), ALLOW),
        ("mmap", (0, 4096, 7, 0x22), KILL),
        ("mprotect", (0, 4096, 1), ALLOW),
        ("mprotect", (0, 4096, 5), KILL),
        ("clone", (0x3D0F00,), ALLOW),
        ("clone", (17,), KILL),
        ("clone", (0x10000000,), KILL),
        ("clone3", (), NO_SUCH_CALL),
        ("prlimit64", (0, 9), ALLOW),
        ("prlimit64", (1, 9), KILL),
        ("newfstatat", (1, 0, 0, 0x1000), ALLOW),
        ("newfstatat", (1, 0, 0, 0), NO_ACCESS),
        ("ioctl", (1, 0x5412), KILL),
        ("ioctl", (1, 0x541C), KILL),
        ("ioctl", (1, 0x5401), NOT_PERMITTED),
        ("openat", (0, 0, 0), NO_ACCESS),
        ("openat2", (0, 0, 0), NO_ACCESS),
    ],
)
def test_what_is_judged_is_judged_by_its_arguments(
    machine: Architecture, name: str, arguments: tuple[int, ...], answer: int
) -> None:
    assert asked(inner_filter(machine), machine, name, *arguments) == answer


@both
def test_the_outer_filter_lets_an_interpreter_start_and_refuses_the_rest(machine: Architecture) -> None:
    program = outer_filter(machine)
    for needed in ("execve", "openat", "mmap", "clone", "read", "pidfd_open", "kill"):
        assert asked(program, machine, needed) == ALLOW, needed
    for refused in (
        "socket",
        "ptrace",
        "mount",
        "unshare",
        "bpf",
        "keyctl",
        "io_uring_setup",
        "setns",
        "init_module",
    ):
        assert asked(program, machine, refused) == NOT_PERMITTED, refused


@both
@pytest.mark.parametrize("make", [inner_filter, outer_filter])
def test_calls_by_another_architectures_table_end_the_process(machine: Architecture, make: object) -> None:
    program = make(machine)  # type: ignore[operator]
    for audit in (0x4000_0003, 0x4000_0028, *(m.audit for m in ARCHITECTURES if m != machine)):
        assert verdict(program, 20, audit=audit) == KILL
    if machine == X86:
        assert verdict(program, 0x4000_0000 + 39, audit=X86.audit) == KILL


@both
def test_a_program_is_packed_in_eight_bytes_each_and_short_enough_for_the_kernel(machine: Architecture) -> None:
    for program in (inner_filter(machine), outer_filter(machine)):
        assert len(packed(program)) == 8 * len(program)
        assert len(program) <= 4096
        for place, one in enumerate(program):
            assert place + 1 + max(one.if_true, one.if_false) < len(program) or one.code == RETURN


def test_no_call_is_listed_twice() -> None:
    for column in range(2):
        numbers = [n[column] for t in (HARMLESS, HOSTILE, JUDGED) for n in t.values() if n[column] is not None]
        assert len(numbers) == len(set(numbers))


def test_a_machine_without_a_table_is_refused() -> None:
    with pytest.raises(MisuseError, match="riscv64"):
        architecture("riscv64")
    assert architecture("aarch64") == ARM
    assert platform.machine() in {m.name for m in ARCHITECTURES}
