"""The command that starts the interpreter in its sandbox.

Inside: an empty file system that cannot be written, with the system's libraries, this interpreter's standard
library, the packages that the step names, the runner, and two harmless devices. No /proc, no /tmp, no network, no
environment, no capability, no terminal; a user of its own, ids of its own for processes and IPC, no namespaces below.

A hub that runs as root starts it as nobody. Nobody may not look into every place in which an interpreter can lie,
so there the same places are first put under a neutral name, in a mount namespace of this command's own.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flute.errors import SandboxRefusal
from flute.sandbox import runner
from flute.sandbox.machine import Capability, dropped

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "numpy": ("numpy", "numpy.libs"),
    "scipy": ("scipy", "scipy.libs"),
    "torch": (
        "torch", "torchgen", "functorch", "typing_extensions.py", "sympy", "mpmath", "networkx", "jinja2",
        "markupsafe", "fsspec", "filelock",
    ),
    "onnxruntime": ("onnxruntime",),
}  # fmt: skip
"""What of the hub's installed packages a sandbox shows: a package and what it loads, nothing else."""
_RUNTIME: Final = "/runtime"
_PYTHON: Final = f"{_RUNTIME}/python"
_NEUTRAL: Final = "/mnt"
_DEVICES: Final = ("/dev/null", "/dev/urandom")
"""What libraries open while they are loaded; a step can open nothing."""
_ENTER_GROUP: Final = 'echo $$ > "$0" && exec "$@"'
_ONE_THREAD_EACH: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Open files that bubblewrap is given. filter: it reads the outer filter there. info: it says there, as JSON,
    which process the sandbox's first is."""

    filter: int
    info: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A file or folder of the host, read-only, and where the sandbox has it."""

    source: Path
    inside: str


def command(can: Capability, packages: tuple[str, ...], fds: Descriptors, enter: Path | None) -> list[str]:
    """`packages`: of PACKAGES. `enter`: see `control_group`.

    Raises: SandboxRefusal: a package is not installed.
    """
    shown = [*_interpreter(), *_packages(packages), Shown(Path(runner.__file__), f"{_RUNTIME}/runner.py")]
    entering = ["/bin/sh", "-c", _ENTER_GROUP, str(enter)] if enter else []
    if not can.as_root:
        return [*entering, *_inner(can, shown, fds)]
    neutral = [Shown(Path(_NEUTRAL, str(place)), one.inside) for place, one in enumerate(shown)]
    outer = [can.bubblewrap, "--die-with-parent", "--dev-bind", "/", "/", "--tmpfs", _NEUTRAL]
    for one, named in zip(shown, neutral, strict=True):
        outer += ["--ro-bind", str(one.source), str(named.source)]
    return [*entering, *outer, "--", *dropped(can.setpriv), *_inner(can, neutral, fds)]


def _inner(can: Capability, shown: list[Shown], fds: Descriptors) -> list[str]:
    options = [
        "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session", "--as-pid-1",
        "--cap-drop", "ALL", "--clearenv", "--uid", "65534", "--gid", "65534", "--hostname", "step",
        "--seccomp", str(fds.filter), "--info-fd", str(fds.info), "--setenv", "LD_LIBRARY_PATH", f"{_PYTHON}/lib",
    ]  # fmt: skip
    for name in _ONE_THREAD_EACH:
        options += ["--setenv", name, "1"]
    options += _system_libraries()
    for one in shown:
        options += ["--ro-bind", str(one.source), one.inside]
    for folder in ("site-packages", "dist-packages"):
        if Path(_standard_library(), folder).is_dir():
            options += ["--tmpfs", f"{_PYTHON}/lib/{_standard_library().name}/{folder}"]
            options += ["--remount-ro", f"{_PYTHON}/lib/{_standard_library().name}/{folder}"]
    for device in _DEVICES:
        options += ["--dev-bind", device, device]
    options += ["--chdir", "/", "--remount-ro", "/"]
    return [
        can.bubblewrap, *options, "--", f"{_PYTHON}/bin/python", "-I", "-S", "-B",
        f"{_RUNTIME}/runner.py",
    ]  # fmt: skip


def _system_libraries() -> list[str]:
    options = ["--ro-bind", "/usr/lib", "/usr/lib", "--ro-bind-try", "/usr/lib64", "/usr/lib64"]
    for folder in ("/lib", "/lib64"):
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        else:
            options += ["--ro-bind-try", folder, folder]
    return options


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _interpreter() -> list[Shown]:
    library = _standard_library()
    shown = [
        Shown(Path(sys.executable).resolve(), f"{_PYTHON}/bin/python"),
        Shown(library, f"{_PYTHON}/lib/{library.name}"),
    ]
    shared = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "none")
    if shared.suffix != ".a" and shared.is_file():
        shown.append(Shown(shared, f"{_PYTHON}/lib/{shared.name}"))
    return shown


def _packages(names: tuple[str, ...]) -> list[Shown]:
    shown = []
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise SandboxRefusal(f"This hub has no {name}, which the step names.", reason="not-installed")
        folder = Path(found.origin).parent.parent
        shown += [
            Shown(folder / entry, f"{_RUNTIME}/packages/{entry}")
            for entry in PACKAGES[name]
            if (folder / entry).exists()
        ]
    return shown
