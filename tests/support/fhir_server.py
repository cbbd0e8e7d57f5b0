"""`sekmet serve` (package sekmet-fhir) as a process of its own: free port of 127.0.0.1, temporary folder."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.folders import quick_folder

START_S = 60.0
LOAD_AT_ONCE = 200


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Sekmet:
    """`url`: its FHIR base address. Tests write to it with `token` where it asks for one."""

    url: str
    folder: Path
    port: int
    token: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Also after `kill`: what it stored is in its folder."""
        serve = ["serve", "--host", "127.0.0.1", "--port", str(self.port)]
        command = [sys.executable, "-c", "from sekmet.cli import app; app()", *serve]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        self._wait_until_up()

    def kill(self) -> None:
        """As by kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def _wait_until_up(self) -> None:
        ends = time.monotonic() + START_S
        while time.monotonic() < ends and self.process is not None and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/metadata", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        log = (self.folder / "log").read_text(errors="replace")
        raise RuntimeError(f"sekmet did not start:\n{log[-2000:]}")

    def _client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.Client(headers=headers, timeout=60)

    def put(self, resources: Iterable[dict[str, Any]]) -> None:
        """Store under their own ids, in batches (one transaction each, so one instant or a few)."""
        found = list(resources)
        with self._client() as client:
            for start in range(0, len(found), LOAD_AT_ONCE):
                entries = [
                    {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}}
                    for r in found[start : start + LOAD_AT_ONCE]
                ]
                bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
                client.post(self.url, json=bundle).raise_for_status()

    def delete(self, key: str) -> None:
        with self._client() as client:
            client.delete(f"{self.url}/{key}").raise_for_status()


@contextmanager
def sekmet_server(*, port: int = 0, public: str = "", **settings: Any) -> Iterator[Sekmet]:
    """`public`: the base address that its links show, where it stands behind a proxy. `settings`: of sekmet."""
    if importlib.util.find_spec("sekmet") is None:
        absent = "needs the FHIR server sekmet: pip install 'flute[dev]'"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)
        pytest.skip(absent)
    port = port or free_port()
    url = f"http://127.0.0.1:{port}/fhir"
    with quick_folder() as folder:
        document = {
            "base_url": public or url,
            "validation": {"inbound": "off"},
            "simulator": {"enabled": False, "delay_seconds": 0.05},
            "log_inbound": False,
            **settings,
        }
        (folder / "settings.yaml").write_text(yaml.safe_dump(document))
        server = Sekmet(url, folder, port)
        try:
            server.start()
            yield server
        finally:
            server.kill()
