"""Frames between a service and its relay, and the parcels in them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.defaults import MAX_ENVELOPE_BYTES
from flute.errors import ChannelError, Malformed, TooLarge
from flute.transport import link as links
from flute.transport.link import Arrived, Link, Parcel, Peers, Ready, Receipt, Ship, parcel_bytes, parcel_of

TRANSFER = bytes(16)


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    pair = (Link(one), Link(other))
    yield pair
    for end in pair:
        end.close()


def test_frames_arrive_whole_and_in_order(ends: tuple[Link, Link]) -> None:
    frames = [Ready(), Peers(("hub-a", "hub-b")), Receipt("hub-a", TRANSFER), Arrived("hub-a", memoryview(b"xy"))]
    for frame in frames:
        ends[0].send(frame)
    assert [ends[1].receive() for _ in frames] == frames


@pytest.mark.parametrize("size", [0, 1, 200, 65_536, 65_537, 100_000, 3_000_000])
def test_parcels_of_any_size_arrive_as_they_are_encoded_whether_or_not_they_were_copied(
    ends: tuple[Link, Link], size: int
) -> None:
    parcel = Parcel("hub-a", "coordinator", TRANSFER, bytes(range(256)) * (size // 256) + bytes(size % 256))
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.extend(ends[1].receive() for _ in range(2)))
    reader.start()
    ends[0].ship("hub-b", parcel)
    ends[0].send(Arrived("hub-b", memoryview(parcel_bytes(parcel))))
    reader.join()
    shipped, arrived = got
    assert isinstance(shipped, Ship)
    assert isinstance(arrived, Arrived)
    assert shipped.parcel == arrived.parcel == parcel_bytes(parcel)
    assert (shipped.peer, arrived.peer, parcel_of(shipped.parcel)) == ("hub-b", "hub-b", parcel)


def test_a_frame_beyond_the_limit_is_not_sent(ends: tuple[Link, Link]) -> None:
    with pytest.raises(TooLarge):
        ends[0].send(Arrived("hub-a", memoryview(bytes(links.MAX_FRAME_BYTES))))
    with pytest.raises(TooLarge):
        ends[0].ship("hub-a", Parcel("hub-a", "coordinator", TRANSFER, bytes(links.MAX_FRAME_BYTES)))


def test_end_of_the_other_process_is_told_and_not_guessed(ends: tuple[Link, Link]) -> None:
    ends[0].close()
    assert ends[1].receive() is None
    with pytest.raises(ChannelError):
        ends[1].send(Ready())


def test_a_frame_cut_off_in_the_middle_is_no_frame() -> None:
    one, other = socket.socketpair()
    one.sendall((100).to_bytes(4, "big") + b"only this")
    one.close()
    assert Link(other).receive() is None
    other.close()


def test_announced_size_is_refused_before_anything_is_read() -> None:
    one, other = socket.socketpair()
    one.sendall((links.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(TooLarge):
        Link(other).receive()
    one.close()
    other.close()


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x92\xa4nope\x01", b"\x93\xa4ship\xa5hub-a", b"\xc1" * 40])
def test_bytes_that_are_no_frame_are_malformed(raw: bytes) -> None:
    one, other = socket.socketpair()
    one.sendall(len(raw).to_bytes(4, "big") + raw)
    with pytest.raises(Malformed):
        Link(other).receive()
    one.close()
    other.close()


@pytest.mark.parametrize("peer", ["Hub A", "../x", "", "h", "hub.a", "x" * 33])
def test_a_peer_that_is_no_party_id_is_malformed(peer: str) -> None:
    one, other = socket.socketpair()
    Link(one).send(Receipt(peer, TRANSFER))
    with pytest.raises(Malformed):
        Link(other).receive()
    one.close()
    other.close()


def test_largest_envelope_fits_a_parcel_and_a_frame() -> None:
    parcel = Parcel("h" * 32, "c" * 32, TRANSFER, bytes(MAX_ENVELOPE_BYTES))
    raw = parcel_bytes(parcel)
    assert len(raw) <= links.MAX_PARCEL_BYTES
    assert len(msgspec.msgpack.encode(Ship("h" * 32, memoryview(raw)))) <= links.MAX_FRAME_BYTES
    assert parcel_of(raw) == parcel


def test_oversized_parcel_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(TooLarge):
        parcel_of(bytes(links.MAX_PARCEL_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_parcel_or_malformed(raw: bytes) -> None:
    try:
        parcel = parcel_of(raw)
    except Malformed:
        return
    assert len(parcel.transfer) == links.TRANSFER_SIZE


@given(st.data())
def test_damaged_parcels_never_raise_anything_else(data: st.DataObject) -> None:
    raw = bytearray(parcel_bytes(Parcel("hub-a", "coordinator", TRANSFER, b"body")))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        parcel_of(bytes(raw))
    except Malformed:
        return
