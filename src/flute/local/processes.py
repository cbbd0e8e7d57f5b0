"""Child processes that end when they should: on close, on Ctrl-C, and when their parent dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from flute.errors import FluteError, MisuseError

STOP_TIMEOUT_S: Final = 10.0


class ServiceDied(FluteError):
    code = "service-died"


class Service:
    """One service process with its log. `arguments`: of the `flute` command."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flute", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its children in order
                env={**os.environ, "FLUTE_PARENT": str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """As a power cut would: no clean end."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self._process = self._start()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Raises: ServiceDied: it ended, or is not ready in time; the text ends with its last log line."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self._process.poll() is not None:
                raise ServiceDied(f"{self.name} ended while it started: {self.last_words()}")
            if time.monotonic() > deadline:
                raise ServiceDied(f"{self.name} is not ready after {timeout_s:.0f} s: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:500] if lines else f"nothing in {self.log}"

    def memory_bytes(self) -> int:
        """Resident memory of the service and its children, shared pages counted once each."""
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += each.memory_info().rss
        return total

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait_ended(self) -> None:
        """After `terminate`; what does not end in time is killed, children included."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def free_port() -> int:
    """A port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def follow_parent() -> None:
    """End with the process that started this one, if it said so (FLUTE_PARENT). Called by the services."""
    named = os.environ.get("FLUTE_PARENT")
    if named is None:
        return
    import threading

    parent = int(named)
    if parent <= 0:
        raise MisuseError("FLUTE_PARENT is not a process id.")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
