"""The engine's certificate commands, run in a child process: neither its imports nor its habits enter a service.

The child (`python -m flute.transport.certificates`) reads one JSON line per command and answers with one:

    {"folder": "/…", "arguments": ["cert", "init", …]}   ->   {"status": 0, "output": "…"}
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from flute.defaults import MAX_TEXT_CHARS
from flute.errors import ChannelError

_STEP_TIMEOUT_S: Final = 60.0


class CertificateTool:
    """A child process that runs `nvflare cert` and `nvflare package`, one command after another."""

    def __init__(self) -> None:
        passed_on = ("PATH", "PYTHONPATH", "LANG", "TMPDIR")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flute.transport.certificates"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in passed_on if name in os.environ},
        )
        self._one_at_a_time = threading.Lock()

    def run(self, folder: Path, *arguments: str) -> None:
        """One command with `folder` as working and home directory.

        Raises: ChannelError: it failed; in the tool's own words.
        """
        order = {"folder": str(folder.resolve()), "arguments": arguments}
        with self._one_at_a_time:
            done = self._ask(json.dumps(order).encode() + b"\n")
        if done.get("status") != 0:
            said = str(done.get("output", ""))[-MAX_TEXT_CHARS // 2 :].strip()
            raise ChannelError(f"The engine's tool refused `{' '.join(arguments[:2])}`: {said}")

    def end(self) -> None:
        assert self._process.stdin is not None  # made with PIPE
        self._process.stdin.close()
        try:
            self._process.wait(_STEP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, line: bytes) -> dict[str, object]:
        assert self._process.stdin is not None  # made with PIPE
        assert self._process.stdout is not None
        overdue = threading.Timer(_STEP_TIMEOUT_S, self._process.kill)
        overdue.start()
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer: dict[str, object] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise ChannelError("The engine's certificate tool ended before it answered.") from error
        finally:
            overdue.cancel()
        return answer


_shared: CertificateTool | None = None
_sharing: Final = threading.Lock()


@contextlib.contextmanager
def certificate_tool() -> Iterator[CertificateTool]:
    """A running tool. Within an outer `with certificate_tool():` the calls of this process share one."""
    global _shared
    with _sharing:
        outer, tool = _shared, _shared or CertificateTool()
        _shared = tool
    try:
        yield tool
    finally:
        if outer is None:
            with _sharing:
                _shared = None
            tool.end()


def serve(orders: TextIO, answers: TextIO) -> None:
    """The child: until `orders` ends. The tool's own output (it names files, never a key) goes into the answer."""
    from flute.transport.engine import run_certificate_command  # half a second of imports: only the child pays

    for line in orders:
        order = json.loads(line)
        os.chdir(order["folder"])
        os.environ["HOME"] = order["folder"]  # the tool notes what it did under ~/.nvflare
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = run_certificate_command(order["arguments"])
        answers.write(json.dumps({"status": status, "output": said.getvalue()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    os.umask(0o077)
    serve(sys.stdin, sys.stdout)
