"""The anchor of `benchmarks/channel.py`: the engine between two Unix sockets, and nothing of ours.

    bare_engine.py cell|core KIT URL coordinator|HUB FD...     (one socket per hub at the coordinator, one at a hub)

A frame is a 4-byte length and the body. The coordinator's side makes an engine call of each frame; the hub's side
hands it to its socket, waits for the answer and returns it. No guard, no disk, no signature, no seal. `cell` is
the call that the engine offers to applications; `core` is the same without its streaming layer (one frame each way).
"""

from __future__ import annotations

import os
import socket
import sys
import threading

CHANNEL, TOPIC = "bare", "call"


def write(end: socket.socket, body: bytes) -> None:
    end.sendall(len(body).to_bytes(4, "big") + body)


def read(end: socket.socket) -> bytes:
    head = end.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        raise EOFError
    return end.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


def main() -> None:
    kind, kit, url, me, *numbers = sys.argv[1:]
    from nvflare.fuel.f3.cellnet.cell import Cell
    from nvflare.fuel.f3.cellnet.core_cell import CoreCell
    from nvflare.fuel.f3.cellnet.utils import make_reply
    from nvflare.fuel.f3.message import Message

    ends = [socket.socket(fileno=int(n)) for n in numbers]
    side = "server" if me == "coordinator" else "client"
    credentials = {
        "ca_cert": f"{kit}/rootCA.pem", f"{side}_cert": f"{kit}/{side}.crt", f"{side}_key": f"{kit}/{side}.key",
        "connection_security": "mtls",
    }  # fmt: skip
    cell = (CoreCell if kind == "core" else Cell)(
        fqcn="server" if side == "server" else me, root_url=url, secure=True, credentials=credentials,
        create_internal_listener=False, auth_identity_map={"server": "localhost"},
    )  # fmt: skip

    def serve(message: Message) -> Message:
        write(ends[0], bytes(message.payload))
        return make_reply("ok", body=read(ends[0]))

    def call(end: socket.socket) -> None:
        hub = read(end).decode()
        try:
            while True:
                request = Message({}, read(end))
                reply = cell.send_request(channel=CHANNEL, topic=TOPIC, target=hub, request=request, timeout=10.0)
                write(end, bytes(reply.payload or b""))
        except EOFError:
            os._exit(0)

    if side == "client":
        cell.register_request_cb(channel=CHANNEL, topic=TOPIC, cb=serve)
    cell.start()
    if side == "server":
        for end in ends:
            threading.Thread(target=call, args=(end,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
