"""A hub's steward's door and its FHIR face as they run in a hospital: a Unix socket, and a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from flute.errors import FluteError
from flute.homes import private_socket
from flute.hub.doors.catalogue import catalogue_routes
from flute.hub.home import HubConfig, HubHome
from flute.hub.parts import Parts
from flute.hub.records.catalogue import Catalogue
from flute.local.processes import free_port

PATIENCE_S = 30.0


@contextmanager
def served_door(parts: Parts, folder: Path) -> Iterator[Catalogue]:
    """The catalogue's and the face's routes on the hub's own socket, with errors as `hub.doors.door` answers them."""
    home = HubHome(folder)
    home.write_config(HubConfig(parts.me, "test", bytes(32)))
    catalogue = Catalogue(parts, threading.RLock(), folder)
    app = FastAPI()

    @app.exception_handler(FluteError)
    def say_no(_request: Request, error: FluteError) -> JSONResponse:
        return JSONResponse({"code": error.code, "text": error.text}, status_code=409)

    app.include_router(catalogue_routes(parts, catalogue))
    listening = private_socket(home.socket)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield catalogue
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listening.close()
        home.socket.unlink(missing_ok=True)


@contextmanager
def served_face(folder: Path) -> Iterator[str]:
    """The face as its own process, by the pilot's model; gives its address."""
    port = free_port()
    program = (
        "import sys; from pathlib import Path; from flute.cli.hub.face import face; "
        "face(Path(sys.argv[1]), port=int(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                httpx.get(f"{base}/", timeout=1)
                break
            except httpx.TransportError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise AssertionError(process.communicate()[1].decode()) from None
                time.sleep(0.1)
        yield base
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
