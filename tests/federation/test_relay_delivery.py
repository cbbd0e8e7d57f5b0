"""Delivery over real relays: both ways, hub to hub, whoever starts first, and nothing left running afterwards."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from tests.federation.relay_parties import (
    HUBS,
    PATIENCE_S,
    Federation,
    Identities,
    federation,
    free_port,
    identities,
    log_of,
    make_identities,
    standing,
    taken,
    until,
)

from flute.errors import ChannelError, MisuseError, PeerUnreachable
from flute.primitives.keys import AgreementKey, seal
from flute.transport import identity
from flute.transport.relay import RelayChannel

__all__ = ["federation", "identities", "standing"]  # fixtures


def test_messages_travel_both_ways_and_from_hub_to_hub(standing: Federation) -> None:
    coordinator, hub_a, hub_b = (standing[name] for name in ("coordinator", "hub-a", "hub-b"))
    coordinator.send("hub-a", b"question")
    hub_a.send("coordinator", b"answer")
    hub_a.send("hub-b", b"sealed share")
    assert [(d.peer, d.body) for d in taken(hub_a, 1)] == [("coordinator", b"question")]
    assert [(d.peer, d.body) for d in taken(hub_b, 1)] == [("hub-a", b"sealed share")]
    assert [(d.peer, d.body) for d in taken(coordinator, 1)] == [("hub-a", b"answer")]
    for channel in (coordinator, hub_a, hub_b):
        channel.wait_delivered(PATIENCE_S)
    assert coordinator.receive(0.2) is None  # what it passed on never was in its own inbox


def test_either_end_may_start_long_before_the_other(federation: Federation) -> None:
    hub_a = federation.hub("hub-a")
    hub_a.send("coordinator", b"early")
    hub_a.send("hub-b", b"earlier")
    hub_a.wait_ready()
    assert hub_a.connected() == set()
    with pytest.raises(PeerUnreachable):
        hub_a.wait_delivered(0.1)
    coordinator = federation.coordinator()
    assert taken(coordinator, 1)[0].body == b"early"
    hub_a.wait_delivered(PATIENCE_S)  # the coordinator keeps the other for hub-b
    hub_a.close()
    assert taken(federation.hub("hub-b"), 1)[0].body == b"earlier"


def test_a_dead_hub_and_one_that_hangs_hold_up_no_other(federation: Federation) -> None:
    coordinator, hub_a, hub_b = federation.connected("hub-a", "hub-b")
    assert hub_a.relay_pid is not None
    hanging = psutil.Process(hub_a.relay_pid)
    hanging.suspend()
    try:
        for number in range(100):
            coordinator.send("hub-a", bytes(1000))
            coordinator.send("hub-c", bytes(1000))  # never started
            coordinator.send("hub-b", number.to_bytes(2, "big"))
        start = time.monotonic()
        assert sorted(d.body for d in taken(hub_b, 100)) == [n.to_bytes(2, "big") for n in range(100)]
        assert time.monotonic() - start < 5.0
    finally:
        hanging.resume()
    assert len(taken(hub_a, 100)) == 100
    until(lambda: coordinator.undelivered() == 100)


def test_large_and_small_messages_arrive_as_they_were_sent(standing: Federation) -> None:
    coordinator, hub_a = standing["coordinator"], standing["hub-a"]
    bodies = [b"", b"x", os.urandom(16 * 2**20), os.urandom(100_000), os.urandom(64 * 1024)]
    for body in bodies:
        coordinator.send("hub-a", body)
        hub_a.send("coordinator", body)
    assert sorted(d.body for d in taken(hub_a, len(bodies), 60.0)) == sorted(bodies)
    assert sorted(d.body for d in taken(coordinator, len(bodies), 60.0)) == sorted(bodies)


def test_removed_hub_is_neither_heard_nor_sent_to_until_it_is_admitted_again(federation: Federation) -> None:
    coordinator, hub_a, hub_b = federation.connected("hub-a", "hub-b")
    coordinator.admit({"hub-b"})
    assert coordinator.connected() == {"hub-b"}
    time.sleep(0.2)  # the relay has the new roster
    hub_a.send("coordinator", b"still there?")
    hub_a.send("hub-b", b"pass this on")
    coordinator.send("hub-a", b"not for you now")
    hub_b.send("coordinator", b"others are served")
    assert taken(coordinator, 1)[0].peer == "hub-b"
    assert hub_a.receive(1.0) is None
    assert coordinator.receive(0.1) is None
    assert hub_b.receive(0.1) is None
    until(lambda: "hub-a: it is not in the roster" in log_of(federation, "coordinator"))
    coordinator.admit({"hub-a", "hub-b"})
    start = time.monotonic()
    assert taken(hub_a, 1)[0].body == b"not for you now"
    assert taken(coordinator, 1)[0].body == b"still there?"
    assert taken(hub_b, 1)[0].body == b"pass this on"
    assert time.monotonic() - start < 5.0  # not only after the time-out


def test_message_to_nobody_known_is_kept_by_its_sender(standing: Federation) -> None:
    coordinator, hub_c = standing["coordinator"], standing["hub-c"]
    hub_c.send("hub-zzz", b"x")
    hub_c.send("coordinator", b"y")
    assert taken(coordinator, 1)[0].body == b"y"
    until(lambda: hub_c.undelivered() == 1)
    assert coordinator.undelivered() == 0


def test_nothing_leaves_but_what_the_service_sealed(federation: Federation, tmp_path: Path) -> None:
    """Canary: the capture hook sees every outgoing body before TLS."""
    record = b"patient 4711, potassium 5.9"
    captures = {name: tmp_path / f"{name}.capture" for name in ("coordinator", "hub-a")}
    coordinator = federation.coordinator(capture=captures["coordinator"])
    hub_a = federation.hub("hub-a", capture=captures["hub-a"])
    key = AgreementKey(bytes(range(32)))
    sealed = seal(record, key.public, info=b"")
    hub_a.send("coordinator", sealed)
    assert key.open(taken(coordinator, 1)[0].body, info=b"") == record
    left = captures["hub-a"].read_bytes()
    assert sealed in left
    assert record not in left
    until(lambda: captures["coordinator"].exists() and len(captures["coordinator"].read_bytes()) == 16)  # a receipt


def test_no_log_line_holds_a_body(federation: Federation) -> None:
    canary = b"CANARY-4711"
    coordinator, hub_a = federation.connected("hub-a")
    for _ in range(20):
        hub_a.send("coordinator", canary * 10)
        coordinator.send("hub-a", canary * 10)
        hub_a.send("hub-zzz", canary * 10)  # refused at the coordinator
    taken(coordinator, 20)
    taken(hub_a, 20)
    assert hub_a.relay_pid is not None
    psutil.Process(hub_a.relay_pid).kill()
    coordinator.admit([])
    time.sleep(0.5)
    for party in ("coordinator", "hub-a"):
        for name in ("relay.log", "relay.err", "relay.json"):
            assert canary not in (federation.folder / party / name).read_bytes()


def test_hub_listens_nowhere_and_the_coordinator_on_loopback_only(standing: Federation) -> None:
    coordinator, hub_a = standing["coordinator"], standing["hub-a"]
    port = standing.identities.port
    assert coordinator.relay_pid is not None
    assert hub_a.relay_pid is not None
    listening = [c for c in psutil.Process(coordinator.relay_pid).net_connections("inet") if c.status == "LISTEN"]
    assert [(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in listening] == [("127.0.0.1", port)]
    of_hub = psutil.Process(hub_a.relay_pid).net_connections("inet")
    assert [(c.raddr.port, c.status) for c in of_hub] == [(port, "ESTABLISHED")]  # one way out, no telemetry
    here = psutil.Process()
    assert [c for c in here.net_connections("inet") if c.status == "LISTEN" and c.laddr.port == port] == []


def test_close_leaves_no_process_no_port_and_no_socket(identities: Identities, tmp_path: Path) -> None:
    here = psutil.Process()
    before = here.num_fds(), here.num_threads()
    parties = Federation(identities, tmp_path)
    channels = parties.connected(*HUBS)
    relays = [psutil.Process(c.relay_pid) for c in channels if c.relay_pid is not None]
    assert len(relays) == 4
    for channel in channels:
        channel.close()
        channel.close()
    assert not any(relay.is_running() for relay in relays)
    assert {c.laddr.port for c in psutil.net_connections("tcp") if c.status == "LISTEN"}.isdisjoint({identities.port})
    assert (here.num_fds(), here.num_threads()) == before


def test_closed_channel_refuses_and_its_mailbox_can_be_opened_again(federation: Federation) -> None:
    coordinator, hub_a = federation.connected("hub-a")
    hub_a.close()
    with pytest.raises(ChannelError):
        hub_a.send("coordinator", b"")
    with pytest.raises(ChannelError):
        hub_a.receive(0.0)
    coordinator.send("hub-a", b"waits")
    assert taken(federation.hub("hub-a"), 1)[0].body == b"waits"


def test_second_channel_of_the_same_party_is_refused(standing: Federation) -> None:
    with pytest.raises(MisuseError, match="another process"):
        standing.hub("hub-a")


def test_taken_port_is_told_in_words(federation: Federation, identities: Identities, tmp_path: Path) -> None:
    running = federation.coordinator()
    running.wait_ready()
    with closing(RelayChannel(tmp_path / "second", "coordinator", identities.authority.kit)) as late:
        with pytest.raises(ChannelError, match="port is taken"):
            late.wait_ready()
        running.close()
        until(lambda: _is_ready(late))  # and it takes over by itself


def test_any_other_scheme_than_grpc_is_refused(identities: Identities, tmp_path: Path) -> None:
    kit = dataclasses.replace(identities.kits["hub-a"], url=f"tcp://localhost:{identities.port}")
    channel = RelayChannel(tmp_path / "h", "hub-a", kit)
    with pytest.raises(ChannelError, match="grpc only, not over 'tcp'"):
        channel.wait_ready()
    channel.close()


def test_unusable_certificate_is_told_and_not_a_stack_trace(identities: Identities, tmp_path: Path) -> None:
    kit = dataclasses.replace(identities.kits["hub-a"], cert=tmp_path / "missing.crt")
    channel = RelayChannel(tmp_path / "h", "hub-a", kit)
    channel.send("coordinator", b"accepted all the same")
    with pytest.raises(ChannelError, match="install its kit anew"):
        channel.wait_ready()
    assert channel.undelivered() == 1
    channel.close()


def test_coordinator_s_roster_is_set_at_the_coordinator_only(standing: Federation) -> None:
    hub_a = standing["hub-a"]
    with pytest.raises(MisuseError):
        hub_a.admit(["hub-b"])
    with pytest.raises(MisuseError):
        hub_a.send("hub-a", b"")
    for nobody in ("", "Hub", "../x", "x" * 33):
        with pytest.raises(MisuseError):
            hub_a.send(nobody, b"")


def test_name_that_no_hub_can_have_is_not_admitted(standing: Federation) -> None:
    coordinator = standing["coordinator"]
    with pytest.raises(MisuseError, match="not a hub's name"):
        coordinator.admit([*HUBS, "Hub A"])
    assert coordinator.connected() == set(HUBS)


def test_hub_added_later_joins_a_running_coordinator(identities: Identities, tmp_path: Path) -> None:
    grown = make_identities(tmp_path / "i", ["hub-a"], free_port())
    parties = Federation(grown, tmp_path / "w")
    coordinator, _ = parties.connected("hub-a")
    asked = identity.request(tmp_path / "i/hub-b", "hub-b", "trial")
    signed = identity.approve(grown.authority, "hub-b", asked)
    grown.kits["hub-b"] = identity.install(tmp_path / "i/hub-b", signed, grown.authority.fingerprint)
    hub_b = parties.hub("hub-b")
    hub_b.send("coordinator", b"hello")
    coordinator.admit(["hub-a", "hub-b"])
    assert taken(coordinator, 1, 30.0)[0].peer == "hub-b"
    for channel in parties.running:
        channel.close()


def _is_ready(channel: RelayChannel) -> bool:
    try:
        channel.wait_ready(0.1)
    except ChannelError:  # the last attempt's failure is told until one succeeds
        return False
    return True
