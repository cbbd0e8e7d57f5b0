"""The wire against peers that are not who they say, or say what they may not. Real engine, real certificates.

Every rogue has a control: the same program with honest papers does get through, so a refusal means something.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.adversary import rogue_wire
from tests.federation.relay_parties import (
    HUBS,
    PATIENCE_S,
    Federation,
    Identities,
    federation,
    free_port,
    identities,
    make_identities,
    taken,
    until,
)

from flute.transport.identity import Kit
from flute.transport.link import MAX_PARCEL_BYTES, Parcel, parcel_bytes
from flute.transport.relay import RelayChannel

__all__ = ["federation", "identities"]  # fixtures

OURS = 0x464C
CELL_NETWORK = 1


@contextmanager
def rogue(mode: str, name: str, url: str, kit: Kit, *, security: str = "mtls", **more: Any) -> Iterator[list[str]]:
    """Starts it; the list fills with what it prints."""
    plan = {"mode": mode, "name": name, "url": url, "ca": str(kit.ca), "cert": str(kit.cert), "key": str(kit.key)}
    said: list[str] = []
    command = [sys.executable, rogue_wire.__file__, json.dumps(plan | {"security": security} | more)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield said
    finally:
        process.kill()
        process.wait()
        thread.join()


def parcel(recipient: str, sender: str, number: int, body: bytes = b"rogue") -> bytes:
    return b"P" + parcel_bytes(Parcel(recipient, sender, number.to_bytes(16, "big"), body))


def framed(*payloads: bytes, application: int = OURS, headers: dict[str, str] | None = None) -> list[Any]:
    return [[application, headers, payload.hex()] for payload in payloads]


def nothing_came(*channels: RelayChannel) -> None:
    for channel in channels:
        assert channel.receive(0.2) is None


# --- who may connect ------------------------------------------------------------------------------


def test_only_an_own_certificate_of_the_federation_gets_a_connection(
    federation: Federation, identities: Identities, tmp_path: Path
) -> None:
    coordinator = federation.coordinator()
    coordinator.wait_ready()
    own, others = identities.kits["hub-a"], identities.kits["hub-b"]
    foreign = make_identities(tmp_path / "foreign", ["hub-a"]).kits["hub-a"]
    mixed = dataclasses.replace(foreign, ca=own.ca)  # it trusts us, but was signed elsewhere
    probe = framed(parcel("coordinator", "hub-a", 1))
    url = own.url
    with ExitStack() as stack:
        attempts = {
            "plaintext": rogue("frames", "hub-a", url, own, security="clear", frames=probe),
            "no certificate": rogue("frames", "hub-a", url, own, security="tls", frames=probe),
            "foreign authority": rogue("frames", "hub-a", url, mixed, frames=probe),
            "another hub's name": rogue("frames", "hub-a", url, others, frames=probe),
            "the coordinator's name": rogue("frames", "server", url, own, frames=probe),
            "a child of the coordinator": rogue("frames", "server.x", url, own, frames=probe),
        }
        said = {kind: stack.enter_context(attempt) for kind, attempt in attempts.items()}
        until(lambda: all("refused" in words or "sent" in words for words in said.values()), len(said) * PATIENCE_S)
        outcome = {kind: words[0] for kind, words in said.items()}
    # A name that differs from the certificate's is found out at the engine's greeting, after its answer to it
    # ("connected"): what counts is that nothing of it was taken.
    nothing_came(coordinator)
    assert coordinator.connected() == set()
    for kind in ("plaintext", "no certificate", "foreign authority"):
        assert outcome[kind] == "refused", kind
    with rogue("frames", "hub-a", url, own, frames=probe) as words:
        assert taken(coordinator, 1)[0].body == b"rogue"  # the control
        until(lambda: "sent" in words)


def test_hub_talks_to_nobody_but_the_coordinator_s_host(identities: Identities, tmp_path: Path) -> None:
    """Certificates of hubs are good for listening too; the host name is what gives a rogue listener away."""
    port = free_port()
    victim = dataclasses.replace(identities.kits["hub-a"], url=f"grpc://localhost:{port}")
    address = f"grpc://127.0.0.1:{port}"
    foreign = make_identities(tmp_path / "foreign", [], port).authority.kit
    for papers in (identities.kits["hub-b"], foreign):
        folder = tmp_path / papers.cert.parent.parent.name
        with rogue("listen", "server", address, papers) as said:
            until(lambda said=said: "connected" in said)  # type: ignore[misc]
            hub = RelayChannel(folder, "hub-a", victim)
            hub.send("coordinator", b"my secret")
            hub.wait_ready()
            time.sleep(1.0)
            assert hub.connected() == set()
            hub.close()
        assert said == ["connected"]
    with rogue("listen", "server", address, identities.authority.kit) as said:  # the control: the true papers
        hub = RelayChannel(tmp_path / "control", "hub-a", victim)
        hub.send("coordinator", b"my secret")
        until(lambda: any(b"my secret".hex() in line for line in said))
        hub.close()


def test_idle_connections_do_not_keep_newcomers_out(federation: Federation, identities: Identities) -> None:
    """With the engine's tcp scheme one is enough to block all."""
    coordinator = federation.coordinator()
    coordinator.wait_ready()
    idle = [socket.create_connection(("127.0.0.1", identities.port)) for _ in range(5)]
    hub = federation.hub("hub-a")
    coordinator.wait_connected(["hub-a"], 5.0)
    hub.close()
    for connection in idle:
        connection.close()


def test_the_port_speaks_tls_1_2_or_later_only(federation: Federation, identities: Identities) -> None:
    federation.coordinator().wait_ready()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(identities.authority.kit.ca)
    context.load_cert_chain(identities.kits["hub-a"].cert, identities.kits["hub-a"].key)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", identities.port)) as plain:
        secured = context.wrap_socket(plain, server_hostname="localhost")
        assert secured.version() in ("TLSv1.2", "TLSv1.3")
    with socket.create_connection(("127.0.0.1", identities.port)) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # plaintext http/2
        plain.settimeout(5.0)
        assert b"grpc" not in plain.recv(1000)


# --- what an admitted hub may say ---------------------------------------------------------------------


@pytest.mark.parametrize("guarded", [False, True], ids=["bare engine", "ours"])
def test_forged_order_of_the_coordinator_and_hub_to_hub_bypass(
    federation: Federation, identities: Identities, tmp_path: Path, guarded: bool
) -> None:
    """With the engine's own cells the victim obeys; with ours in the middle nothing reaches it."""
    kits, authority = identities.kits, identities.authority
    with ExitStack() as stack:
        if guarded:
            coordinator, hub_c = federation.connected("hub-c")
            at_server: list[str] = []
        else:
            address = f"grpc://127.0.0.1:{identities.port}"
            at_server = stack.enter_context(rogue("bare", "server", address, authority.kit))
            until(lambda: "connected" in at_server)
        heard = stack.enter_context(rogue("bare", "hub-b", kits["hub-b"].url, kits["hub-b"]))
        until(lambda: "connected" in heard)
        time.sleep(1.5)
        with rogue("forge", "hub-a", kits["hub-a"].url, kits["hub-a"], victim="hub-b") as words:
            until(lambda: "sent" in words)
            time.sleep(0.3)
        order = f"heard server {b'do as I say'.hex()}"
        if not guarded:
            assert order in heard  # the attack works
            return
        assert heard == ["connected"]
        nothing_came(coordinator, hub_c)


def test_admitted_hub_cannot_speak_for_another_or_in_another_form(
    federation: Federation, identities: Identities
) -> None:
    coordinator, hub_b = federation.connected("hub-b")
    bad = [
        *framed(parcel("hub-b", "coordinator", 1), parcel("hub-b", "hub-c", 2), parcel("coordinator", "hub-b", 3)),
        *framed(parcel("hub-a", "hub-a", 4), parcel("nobody", "hub-a", 5)),
        *framed(parcel("coordinator", "hub-a", 6), headers={"cn__origin": "server"}),
        *framed(parcel("coordinator", "hub-a", 7), application=CELL_NETWORK),
        *framed(b"", b"X", b"P", b"Pgarbage", b"R", b"R" + bytes(17), b"A" + b"x", b"R" + bytes(16)),
        *framed(b"\x00" * 1000, parcel("coordinator", "hub-a", 8)[:-1], parcel("coordinator", "hub-a", 9) + b"\x00"),
    ]
    good = framed(parcel("coordinator", "hub-a", 100, b"honest"), parcel("hub-b", "hub-a", 101, b"honest"))
    twice = framed(parcel("coordinator", "hub-a", 100, b"honest"))
    with rogue("frames", "hub-a", identities.kits["hub-a"].url, identities.kits["hub-a"], frames=bad + good + twice):
        assert [(d.peer, d.body) for d in taken(coordinator, 1)] == [("hub-a", b"honest")]
        assert [(d.peer, d.body) for d in taken(hub_b, 1)] == [("hub-a", b"honest")]
        nothing_came(coordinator, hub_b)
    assert coordinator.connected() >= {"hub-b"}  # and the relay still runs


def test_oversized_frame_ends_the_rogue_s_connection_and_nothing_else(
    federation: Federation, identities: Identities, tmp_path: Path
) -> None:
    coordinator, hub_b = federation.connected("hub-b")
    relay = coordinator.relay_pid
    kit = identities.kits["hub-a"]
    with rogue("flood", "hub-a", kit.url, kit, size=MAX_PARCEL_BYTES + 100_000) as words:
        until(lambda: "sent" in words)
        nothing_came(coordinator)
    hub_b.send("coordinator", b"still here")
    assert taken(coordinator, 1)[0].body == b"still here"
    assert coordinator.relay_pid == relay


def test_valid_certificate_outside_the_roster_is_not_heard(federation: Federation, identities: Identities) -> None:
    coordinator = federation.coordinator(admitted=["hub-b"])
    coordinator.wait_ready()
    kit = identities.kits["hub-a"]
    probe = framed(parcel("coordinator", "hub-a", 1), b"A", b"R" + bytes(16))
    with rogue("frames", "hub-a", kit.url, kit, frames=probe) as words:
        until(lambda: "sent" in words)
        nothing_came(coordinator)
        assert coordinator.connected() == set()
    coordinator.admit(HUBS)
    with rogue("frames", "hub-a", kit.url, kit, frames=probe) as words:
        assert taken(coordinator, 1)[0].peer == "hub-a"  # the control


def test_hub_cannot_make_the_coordinator_forget_messages_to_others(
    federation: Federation, identities: Identities
) -> None:
    coordinator = federation.coordinator()
    coordinator.wait_ready()
    coordinator.send("hub-b", b"for b alone")
    (stored,) = coordinator._mailbox.outgoing()
    waiting = coordinator._mailbox.load(stored.row)
    assert waiting is not None
    kit = identities.kits["hub-a"]
    with rogue("frames", "hub-a", kit.url, kit, frames=framed(b"R" + waiting.transfer)) as words:
        until(lambda: "sent" in words)
    assert coordinator.undelivered() == 1
    assert taken(federation.hub("hub-b"), 1)[0].body == b"for b alone"
    coordinator.wait_delivered(PATIENCE_S)
