"""The aggregator as a process: its desk behind a Unix socket or a port of this machine. It holds nothing on disk.

Who calls need not be trusted, so nobody logs in: the socket is private to its user so that no stranger fills its
memory. On a confidential machine the coordinator reaches it through the host (a forwarded port, vsock): all that is
secret on that way is sealed.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

import flute
from flute.aggregator.desk import Desk
from flute.defaults import DOOR_STOP_S, LOOPBACK
from flute.defaults.enclaves import MAX_CALL_BYTES, MAX_DUTY_BYTES
from flute.errors import TooLarge
from flute.homes import private_socket
from flute.http import read_stream

MEDIA_TYPE: Final = "application/msgpack"
SAY: Final = "/say"
_MAX_CALLS: Final = 8
"""Calls at a time; each may hold a box of 32 MB."""


def make_app(desk: Desk) -> FastAPI:
    """POST /say: one `AggregatorCall` in, one `AggregatorAnswer` out, both in msgpack."""
    app = FastAPI(
        title="FLUTE aggregator", version=flute.__version__, docs_url=None, redoc_url=None, openapi_url=None
    )

    @app.post(SAY)
    async def say(request: Request) -> Response:
        try:
            raw = await read_stream(request, MAX_CALL_BYTES + MAX_DUTY_BYTES)
        except TooLarge:
            return Response(status_code=413)
        return Response(await run_in_threadpool(desk.answer, raw), media_type=MEDIA_TYPE)

    return app


def serve(desk: Desk, *, socket: Path | None = None, port: int = 0) -> None:
    """Run until SIGTERM or SIGINT. socket: a Unix socket to make; else `port` of this machine alone."""
    config = uvicorn.Config(
        make_app(desk),
        host=LOOPBACK,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=_MAX_CALLS,
        timeout_graceful_shutdown=DOOR_STOP_S,
    )
    signal.signal(signal.SIGTERM, _end)
    if socket is None:
        uvicorn.Server(config).run()
        return
    door = private_socket(socket)
    try:
        uvicorn.Server(config).run(sockets=[door])
    finally:
        door.close()
        socket.unlink(missing_ok=True)


def _end(*_: object) -> None:
    """uvicorn raises the signal anew once it has ended; that would leave socket and folder behind."""
    sys.exit(0)
