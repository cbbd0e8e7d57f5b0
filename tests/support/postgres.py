"""A real PostgreSQL for tests: Debian's, initialised in a folder of its own, on a free port of 127.0.0.1.

Debian's package starts a cluster of its own at installation; this one has nothing to do with it. The server refuses
to run as root, so under root it runs as Debian's user postgres.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.folders import quick_folder

START_S = 30.0
OWNER, PASSWORD = "owner", "Pg-secret-7f3a91"
"""The password is looked for in everything that FLUTE prints."""


@dataclass(frozen=True)
class Postgres:
    """`url`: without the password, as FLUTE takes it; `full_url`: with it, for what fills the database."""

    port: int
    database: str = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{self.database}"

    @property
    def full_url(self) -> str:
        return f"postgresql+psycopg://{OWNER}:{PASSWORD}@127.0.0.1:{self.port}/{self.database}"

    def connect(self) -> psycopg.Connection[Any]:
        place = f"host=127.0.0.1 port={self.port} dbname={self.database} user={OWNER} password={PASSWORD}"
        return psycopg.connect(place, autocommit=True)

    def fresh(self, name: str) -> Postgres:
        """An empty database of that name; one that is there already goes."""
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
        return Postgres(self.port, name)


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Skips visibly where PostgreSQL is absent; fails in CI, where it must be there."""
    where = binaries()
    if where is None:
        absent = "needs Debian's PostgreSQL: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)
        pytest.skip(absent)
    with quick_folder() as folder:
        account = _account(folder)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        data = folder / "data"
        subprocess.run(
            [where / "initdb", "-D", data, "-U", OWNER, "--pwfile", folder / "password", "--auth=scram-sha-256",
             "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"],
            check=True, capture_output=True, cwd=folder, **account,
        )  # fmt: skip
        port = _free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        command = [where / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, **account)
            try:
                server = Postgres(port)
                _wait_until_up(server, process, folder / "log")
                yield server
            finally:
                process.send_signal(signal.SIGINT)  # fast shutdown: open connections are ended
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(15)


def _account(folder: Path) -> dict[str, Any]:
    """Under root: settings of `subprocess` for another account, to which the folder is given."""
    if os.getuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    shutil.chown(folder, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')[-2000:]}")
