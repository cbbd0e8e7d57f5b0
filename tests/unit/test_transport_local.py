"""The channel within one process keeps the port's promises."""

from __future__ import annotations

import threading
import time

import pytest

from flute.defaults import MAX_ENVELOPE_BYTES, MAX_MAILBOX_MESSAGES
from flute.errors import ChannelError, TooLarge
from flute.messages.channel import Channel
from flute.transport.local import LocalExchange


def test_message_waits_for_a_party_that_is_not_there_yet() -> None:
    exchange = LocalExchange()
    exchange.channel("coordinator").send("hub-a", b"question")
    hub = exchange.channel("hub-a")
    delivery = hub.receive(0.0)
    assert delivery is not None
    assert (delivery.peer, delivery.body) == ("coordinator", b"question")


def test_either_end_may_start_and_hubs_reach_each_other() -> None:
    exchange = LocalExchange()
    parties: dict[str, Channel] = {name: exchange.channel(name) for name in ("coordinator", "hub-a", "hub-b")}
    parties["hub-a"].send("coordinator", b"1")
    parties["hub-a"].send("hub-b", b"2")
    at_coordinator, at_hub = parties["coordinator"].receive(1.0), parties["hub-b"].receive(1.0)
    assert at_coordinator is not None
    assert at_hub is not None
    assert (at_coordinator.body, at_hub.body, at_hub.peer) == (b"1", b"2", "hub-a")


def test_a_message_is_given_out_once_and_again_after_a_restart_until_it_is_done() -> None:
    exchange = LocalExchange()
    exchange.channel("coordinator").send("hub-a", b"x")
    first = exchange.channel("hub-a")
    assert first.receive(0.0) is not None
    assert first.receive(0.0) is None
    second = exchange.channel("hub-a")
    again = second.receive(0.0)
    assert again is not None
    second.done(again)
    second.done(again)
    assert exchange.channel("hub-a").receive(0.0) is None


def test_waiting_receiver_is_woken_by_a_message_and_by_close() -> None:
    exchange = LocalExchange()
    hub, coordinator = exchange.channel("hub-a"), exchange.channel("coordinator")
    threading.Timer(0.05, coordinator.send, ("hub-a", b"x")).start()
    start = time.monotonic()
    assert hub.receive(10.0) is not None
    threading.Timer(0.05, hub.close).start()
    with pytest.raises(ChannelError):
        hub.receive(10.0)
    assert time.monotonic() - start < 5.0


def test_full_mailbox_and_oversized_message_are_refused() -> None:
    coordinator = LocalExchange().channel("coordinator")
    with pytest.raises(TooLarge):
        coordinator.send("hub-a", bytes(MAX_ENVELOPE_BYTES + 1))
    for _ in range(MAX_MAILBOX_MESSAGES):
        coordinator.send("hub-a", b"")
    with pytest.raises(ChannelError, match="full"):
        coordinator.send("hub-a", b"")
    coordinator.send("hub-b", b"another recipient has room")


def test_closed_channel_sends_nothing() -> None:
    channel = LocalExchange().channel("hub-a")
    channel.close()
    with pytest.raises(ChannelError):
        channel.send("coordinator", b"")
