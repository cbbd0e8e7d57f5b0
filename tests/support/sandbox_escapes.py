"""Ways out of a sandbox that have been tried elsewhere. Each returns [1.0] where it got out.

A `control` is harmless and wins in a plain interpreter: what stops it is the sandbox. FOLDER stands for a folder of
the hub with `patients.csv`, `hub.key` and `evil.so`; NR(name) for the number of a system call.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from flute.sandbox.filters import architecture
from flute.sandbox.syscalls import HOSTILE

PRELUDE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def done(found):
    if found < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return [1.0]
"""


@dataclass(frozen=True, slots=True)
class Escape:
    """`reason`, `error`: the refusal's name. `body`: of the step."""

    name: str
    reason: str
    error: str
    control: bool
    body: str

    def source(self, folder: Path) -> str:
        """A whole step."""
        return PRELUDE + self.function("step", folder)

    def function(self, name: str, folder: Path) -> str:
        column = architecture(platform.machine()).column
        body = re.sub(r"NR\((\w+)\)", lambda m: str(HOSTILE[m[1]][column]), self.body)
        lines = body.strip().replace("FOLDER", str(folder)).splitlines()
        return f"def {name}(rows, parameters):\n" + "".join(f"    {line}\n" for line in lines)


def all_in_one(escapes: tuple[Escape, ...], folder: Path) -> str:
    """One step that tries with each unit the way out whose number its row begins with."""
    functions = "".join(escape.function(f"way{number}", folder) for number, escape in enumerate(escapes))
    ways = ", ".join(f"way{number}" for number in range(len(escapes)))
    chosen = f"def step(rows, parameters):\n    return ({ways})[int(rows[0, 0])](rows, parameters)\n"
    return PRELUDE + functions + chosen


FORBIDDEN = "forbidden-call"


def _call(name: str, call: str, *, control: bool = False) -> Escape:
    """One call of the C library that ends the process."""
    return Escape(name, FORBIDDEN, "", control, f"return done({call})")


def _read(name: str, path: str, *, control: bool = True) -> Escape:
    return Escape(name, "raised", "PermissionError", control, f"open({path!r}, 'rb').read(16)\nreturn [1.0]")


NETWORK = (
    _call("tcp socket", "libc.socket(2, 1, 0)", control=True),
    _call("udp socket", "libc.socket(2, 2, 0)", control=True),
    _call("unix socket", "libc.socket(1, 1, 0)", control=True),
    _call("unix socket pair", "libc.socketpair(1, 1, 0, (ctypes.c_int * 2)())", control=True),
    _call("netlink socket", "libc.socket(16, 3, 0)", control=True),
    _call("raw socket", "libc.socket(2, 3, 1)"),
    Escape(
        "abstract unix socket", FORBIDDEN, "", True,
        "fd = libc.socket(1, 1, 0)\n"
        "return done(libc.bind(fd, b'\\x01\\x00\\x00flute-test-' + str(os.getpid()).encode(), 20))",
    ),
    _call("connection to the hub", "libc.connect(3, b'\\x02\\x00\\x1f\\x90\\x7f\\x00\\x00\\x01' + bytes(8), 16)"),
    _call("datagram without a socket of its own", "libc.sendto(3, b'x', 1, 0, None, 0)"),
    Escape(
        "name lookup", FORBIDDEN, "", True,
        "found = ctypes.c_void_p()\n"
        "return done(-libc.getaddrinfo(b'localhost', b'80', None, ctypes.byref(found)) or 0)",
    ),
    Escape(
        "the language's sockets", "raised", "ModuleNotFoundError", True,
        "import socket\nsocket.socket()\nreturn [1.0]",
    ),
)  # fmt: skip

PROCESSES = (
    _read("another process's command line", "/proc/1/cmdline"),
    _read("its own memory file", "/proc/self/maps"),
    _call("ptrace", "libc.ptrace(16, os.getppid(), 0, 0)"),
    Escape(
        "process_vm_readv", FORBIDDEN, "", True,
        "class Part(ctypes.Structure):\n    _fields_ = [('base', ctypes.c_void_p), ('size', ctypes.c_size_t)]\n"
        "theirs, ours = ctypes.create_string_buffer(b'x'), ctypes.create_string_buffer(1)\n"
        "a, b = Part(ctypes.addressof(ours), 1), Part(ctypes.addressof(theirs), 1)\n"
        "return done(libc.process_vm_readv(os.getpid(), ctypes.byref(a), 1, ctypes.byref(b), 1, 0))",
    ),
    Escape(
        "fork", FORBIDDEN, "", True,
        "child = os.fork()\nif not child:\n    os._exit(0)\nos.waitpid(child, 0)\nreturn [1.0]",
    ),
    Escape(
        "fork bomb", FORBIDDEN, "", True,
        "made = []\nfor _ in range(40):\n    child = os.fork()\n"
        "    if not child:\n        time.sleep(2)\n        os._exit(0)\n"
        "    made.append(child)\nfor child in made:\n    os.waitpid(child, 0)\nreturn [1.0]",
    ),
    Escape(
        "thread bomb", "processes", "RuntimeError", True,
        "import _thread\nfor _ in range(100):\n    _thread.start_new_thread(time.sleep, (5,))\nreturn [1.0]",
    ),
    Escape(
        "spawned program", FORBIDDEN, "", True,
        "child = os.posix_spawn('/bin/true', ['true'], {})\nos.waitpid(child, 0)\nreturn [1.0]",
    ),
    _call("exec of the interpreter", "os.execv('/runtime/python/bin/python', ['python', '-c', 'print(1)']) or 0"),
    Escape(
        "LD_PRELOAD into a new program", FORBIDDEN, "", False,
        "os.environ['LD_PRELOAD'] = 'FOLDER/evil.so'\nos.execv('/runtime/python/bin/python', ['python'])",
    ),
    _call("signal to its parent", "os.kill(os.getppid(), 0) or 0", control=True),
    _call("signal to all", "os.kill(-1, 0) or 0", control=True),
    _call("signal to a thread of another", "libc.syscall(NR(tgkill), os.getppid(), os.getppid(), 0)", control=True),
    _call("handle of another process", "os.pidfd_open(os.getppid())", control=True),
    _call("limits of another process", "libc.prlimit(os.getppid(), 7, None, (ctypes.c_ulong * 2)())", control=True),
)  # fmt: skip

NATIVE = (
    Escape(
        "machine code in memory", FORBIDDEN, "", True,
        "libc.mmap.restype = ctypes.c_void_p\n"
        "at = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))\n"
        "return done(0 if at != 2**64 - 1 else -1)",
    ),
    Escape(
        "memory made executable", FORBIDDEN, "", True,
        "libc.mmap.restype = ctypes.c_void_p\n"
        "at = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))\n"
        "return done(libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(4096), 5))",
    ),
    Escape("library of the hub's", "raised", "OSError", True, "ctypes.CDLL('FOLDER/evil.so')\nreturn [1.0]"),
    Escape(
        "program written to disk", "raised", "PermissionError", True,
        "open('FOLDER/program', 'wb').write(b'\\x7fELF')\nreturn [1.0]",
    ),
    _call("program in memory only", "os.memfd_create('x')", control=True),
    Escape("taking the filter off", "raised", "PermissionError", False, "return done(libc.prctl(22, 2, None, 0, 0))"),
    _call("32-bit personality", "libc.personality(8)"),
)  # fmt: skip

FILES = (
    _read("another study's patients", "FOLDER/patients.csv"),
    _read("the hub's key", "FOLDER/hub.key"),
    _read("a path upwards", "../../../../../../../../etc/passwd"),
    _read("a device of the machine", "/dev/zero"),
    _read("the runner's own text", "/runtime/runner.py", control=False),
    Escape("folders of the machine", "raised", "PermissionError", True, "os.listdir('/')\nreturn [1.0]"),
    Escape(
        "disk fill", "raised", "PermissionError", True,
        "open('FOLDER/fill', 'wb').write(bytes(2**20))\nreturn [1.0]",
    ),
    Escape("fill of its own file system", "raised", "PermissionError", False, "open('/fill', 'wb')\nreturn [1.0]"),
    Escape("fill of /tmp", "raised", "PermissionError", False, "open('/tmp/fill', 'wb')\nreturn [1.0]"),
    Escape(
        "shared memory kept for a later run", "raised", "PermissionError", True,
        "path = f'/dev/shm/flute-test-{os.getpid()}'\nopen(path, 'w').write('x')\nos.remove(path)\nreturn [1.0]",
    ),
    _call("symbolic link", "os.symlink('/etc/passwd', 'FOLDER/link') or 0", control=True),
    _call("hard link", "os.link('FOLDER/hub.key', 'FOLDER/hard') or 0", control=True),
    _call("renaming", "os.rename('FOLDER/evil.so', 'FOLDER/good.so') or 0"),
    _call("device node", "os.mknod('FOLDER/mem', 0o20666, 0x101) or 0"),
    _call("file by handle", "libc.open_by_handle_at(3, bytes(128), 0)"),
    Escape(
        "descriptors left open", "raised", "OSError", False,
        "for fd in range(4, 2000):\n    try:\n        os.fstat(fd)\n        return [1.0]\n"
        "    except OSError as error:\n"
        "        last = error\nraise last",
    ),
    Escape("rows of the others, from the input", "raised", "OSError", False, "os.read(0, 64)\nreturn [1.0]"),
)  # fmt: skip

KERNEL = (
    _call("mount", "libc.mount(b'none', b'/', b'tmpfs', 0, None)"),
    _call("unmount", "libc.umount2(b'/usr/lib', 2)"),
    _call("user namespace", "libc.unshare(0x10000000)"),
    _call("network namespace of another", "libc.setns(3, 0x40000000)"),
    _call("chroot", "libc.chroot(b'/usr')"),
    _call("setuid", "libc.setuid(0)"),
    _call("capabilities", "libc.capset(bytes(8), bytes(24))"),
    _call("key ring", "libc.syscall(NR(add_key), b'user', b'flute-test', b'x', 1, -2)"),
    _call("bpf", "libc.syscall(NR(bpf), 0, bytes(64), 64)"),
    _call("perf_event_open", "libc.syscall(NR(perf_event_open), bytes(128), 0, -1, -1, 0)"),
    _call("io_uring", "libc.syscall(NR(io_uring_setup), 1, bytes(128))"),
    _call("userfaultfd", "libc.syscall(NR(userfaultfd), 0)"),
    _call("kernel's log", "libc.klogctl(10, None, 0)"),
    _call("shared memory of System V", "libc.shmget(0, 4096, 0o1600)", control=True),
    _call("message queue", "libc.msgget(0, 0o1600)"),
    _call("clock", "time.clock_settime(time.CLOCK_REALTIME, 0) or 0"),
    _call("host name", "libc.sethostname(b'mine', 4)"),
    _call("typing into a terminal", "libc.ioctl(1, 0x5412, b'x')"),
    _call("kernel module", "libc.syscall(NR(init_module), b'', 0, b'')"),
)  # fmt: skip

SECRETS = (
    Escape("secret in the environment", "raised", "KeyError", True, "os.environ['HUB_SECRET']\nreturn [1.0]"),
    Escape(
        "environment of its own process", "raised", "PermissionError", True,
        "found = b'HUB_SECRET' in open('/proc/self/environ', 'rb').read()\nreturn [float(found)]",
    ),
    Escape("a module that looks like numpy", "raised", "ModuleNotFoundError", False, "import nunpy\nreturn [1.0]"),
    Escape(
        "a module from the input", "raised", "ModuleNotFoundError", True,
        "sys.path.insert(0, 'FOLDER')\nimport planted\nreturn [1.0]",
    ),
    Escape("a module of the hub's", "raised", "ModuleNotFoundError", True, "import flute.hub\nreturn [1.0]"),
)  # fmt: skip

OUTPUT = (
    Escape("not a number", "output", "", False, "return [float('nan')]"),
    Escape("infinite", "output", "", False, "return [float('-inf')]"),
    Escape("more numbers than agreed", "output", "", False, "return [1.0] * 1000"),
    Escape("huge declared shape", "output", "", False, "import numpy\nreturn numpy.broadcast_to(1.0, (2**40,))"),
    Escape("text", "raised", "ValueError", False, "return ['record']"),
    Escape("more bytes than agreed", "output", "", False, "os.write(3, bytes(100_000))\ntime.sleep(60)"),
    Escape("code of the exit", "crashed", "", False, "os._exit(42)"),
    Escape("an exit with a text", "raised", "", False, "raise SystemExit('record')"),
    Escape(
        "an error of its own", "raised", "ValueError", False,
        "class Told(ValueError): pass\nraise Told(str(rows))",
    ),
    Escape(
        "an answer for another unit", "crashed", "", False,
        "os.write(3, b'\\xff' * 3)\nos._exit(0)",
    ),
    Escape("broken stack", "crashed", "", False, "ctypes.string_at(0)"),
)  # fmt: skip

MEMORY = (
    Escape("memory", "memory", "MemoryError", True, "held = bytearray(700 * 2**20)\nreturn [1.0]"),
    Escape("memory by numpy", "memory", "MemoryError", True, "import numpy\nnumpy.zeros(90_000_000)\nreturn [1.0]"),
    Escape(
        "shared memory without a file", "raised", "OSError", True,
        "libc.mmap.restype = ctypes.c_void_p\n"
        "at = libc.mmap(None, ctypes.c_size_t(2**30), 3, 0x21, -1, ctypes.c_long(0))\n"
        "return done(0 if at != 2**64 - 1 else -1)",
    ),
)  # fmt: skip

ESCAPES = (*NETWORK, *PROCESSES, *NATIVE, *FILES, *KERNEL, *SECRETS, *OUTPUT, *MEMORY)
