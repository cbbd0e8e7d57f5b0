"""What this machine can do to hold a stranger's code, in sentences; and its control groups, where it has them.

A machine that lacks something required runs no step at all: nothing here ever runs weaker than it says.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from flute.defaults.sandbox import INTERPRETER_BYTES, RUNNER_USER
from flute.errors import MisuseError, SandboxRefusal
from flute.sandbox.filters import ARCHITECTURES, Architecture, architecture
from flute.sandbox.limits import Grant

_OLDEST_BUBBLEWRAP: Final = (0, 8)
"""The first with --disable-userns."""
_OLDEST_KERNEL: Final = (5, 14)
"""The first that counts processes per user namespace; before, all sandboxes and the hub's own shared one count."""
_PROBE_S: Final = 10.0
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Capability:
    """`missing`: sentences, each with what to do; empty where steps can run. `notes`: what would hold better."""

    missing: tuple[str, ...]
    notes: tuple[str, ...]
    bubblewrap: str
    setpriv: str
    as_root: bool
    architecture: Architecture

    def require(self) -> None:
        """Raises: SandboxRefusal: this machine cannot hold a step; the text says what to install."""
        if self.missing:
            raise SandboxRefusal("No step is run on this machine. " + " ".join(self.missing), reason="unavailable")


@cache
def available() -> Capability:
    """Looked at once per process. Starts bubblewrap for a moment, to see whether it may make its namespaces."""
    bubblewrap, setpriv = shutil.which("bwrap") or "", shutil.which("setpriv") or ""
    as_root = os.geteuid() == 0
    missing = [
        *_lacking_bubblewrap(bubblewrap),
        *_lacking_kernel(),
    ]
    if as_root and not setpriv:
        missing.append("Install setpriv (Debian: util-linux); a hub that runs as root needs it.")
    try:
        machine = architecture(platform.machine())
    except MisuseError as error:
        machine = ARCHITECTURES[0]
        missing.append(str(error))
    if not missing:
        missing += _lacking_namespaces(bubblewrap, setpriv, as_root)
    return Capability(tuple(missing), _notes(as_root), bubblewrap, setpriv, as_root, machine)


def dropped(setpriv: str) -> list[str]:
    """The beginning of a command that goes on as `nobody`, without any capability of root's."""
    user = str(RUNNER_USER)
    return [
        setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", "--bounding-set=-all",
        "--inh-caps=-all", "--",
    ]  # fmt: skip


def _lacking_bubblewrap(found: str) -> list[str]:
    if not found:
        return ["Install bubblewrap (Debian: apt-get install bubblewrap)."]
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=_PROBE_S, check=False).stdout
    version = tuple(map(int, re.findall(r"\d+", said)[:2]))
    return [] if version >= _OLDEST_BUBBLEWRAP else ["Install bubblewrap 0.8 or later."]


def _lacking_kernel() -> list[str]:
    lacking = []
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < _OLDEST_KERNEL:
        lacking.append("Use Linux 5.14 or later: before, processes of a sandbox cannot be counted by themselves.")
    if not Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        lacking.append("Use a Linux kernel with seccomp filters (CONFIG_SECCOMP_FILTER).")
    return lacking


def _lacking_namespaces(bubblewrap: str, setpriv: str, as_root: bool) -> list[str]:
    command = [
        *(dropped(setpriv) if as_root else []), bubblewrap, "--unshare-all", "--unshare-user", "--disable-userns",
        "--ro-bind", "/", "/", "--", "/bin/true",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False, env={})
    if done.returncode == 0:
        return []
    return ["Allow unprivileged user namespaces (user.max_user_namespaces above 0; on Ubuntu, an AppArmor profile)."]


def _notes(as_root: bool) -> tuple[str, ...]:
    notes = []
    if as_root:
        notes.append("The hub runs as root; steps run as nobody. A user of its own for the hub is better.")
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        notes.append("No control groups of version 2: memory is limited per process, of which a step has one.")
    return tuple(notes)


@contextlib.contextmanager
def control_group(parent: Path, grant: Grant) -> Iterator[Path]:
    """A group for one run below `parent`, which the steward's system has given to the hub (systemd: Delegate=yes).

    Guarantees: memory and processes of everything in it together are limited, swap is off; it is gone afterwards.
    Yields: the file that a process writes its id to in order to enter.
    Raises: SandboxRefusal: `parent` is no such group, or does not control memory and pids.
    """
    try:
        controlled = (parent / "cgroup.subtree_control").read_text().split()
    except OSError:
        controlled = []
    if not {"memory", "pids"} <= set(controlled):
        raise SandboxRefusal(f"{parent} is no control group that controls memory and pids.", reason="unavailable")
    group = parent / f"flute-step-{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    try:
        (group / "memory.max").write_text(str(grant.memory_bytes + INTERPRETER_BYTES))
        (group / "memory.swap.max").write_text("0")
        (group / "pids.max").write_text(str(grant.threads + 8))
        yield group / "cgroup.procs"
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
