"""Starting a relay as a child process, and ending it. Restarts are decided by the channel that owns it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from flute.defaults import RELAY_STOP_TIMEOUT_S
from flute.transport.link import Link
from flute.transport.process import RelaySettings

_PASSED_ON: Final = (
    "PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy",
    "grpc_proxy", "NO_PROXY", "no_proxy", "no_grpc_proxy",
)  # fmt: skip
"""All that a relay inherits: no secret of the service, and none of the variables that reconfigure the engine."""


class RunningRelay:
    """A relay process and our end of its link. The link is a socket pair: it has no name anyone else could open."""

    def __init__(self, settings: RelaySettings, folder: Path) -> None:
        """Start it, from a thread that stays: Linux ends the child with the *thread* that made it."""
        config = folder / "relay.json"
        empty = folder / "relay"  # the engine searches its working directory and all below it for settings: none
        empty.mkdir(mode=0o700, exist_ok=True)
        config.write_bytes(msgspec.json.encode(settings))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, (folder / "relay.err").open("wb") as complaints:  # a crash's last words; emptied by each start
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flute.transport.relay",
                 str(config), str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                cwd=empty,
                env={k: os.environ[k] for k in _PASSED_ON if k in os.environ} | {"GRPC_VERBOSITY": "NONE"},
                start_new_session=True,  # Ctrl-C at the terminal is for the service, which then ends its relay
            )  # fmt: skip
        self.link = Link(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """Close the link, at which the relay leaves by itself; kill it if it does not. No process is left."""
        self.link.close()
        try:
            self._process.wait(RELAY_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
