"""The link between a service and its relay: frames over a Unix socket pair that no third process can open.

A frame is a 4-byte big-endian length and one MessagePack struct of the closed set below. Parcels are opaque
bytes to the link and to the relay; only the services read them (`parcel_of`). They may be megabytes: a large one is
not copied to be put into its frame, and what is read of a frame is a view into it.

    service -> relay   Ship  Receipt  Admit
    relay -> service   Ready  Failed  Peers  Again  Arrived  Receipt
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from flute.defaults import MAX_ENVELOPE_BYTES, MAX_ROSTER_HUBS, MAX_TEXT_CHARS
from flute.errors import ChannelError, Malformed, TooLarge
from flute.messages.limits import PartyId

PARTY: Final = re.compile(r"[a-z][a-z0-9-]{1,31}")
"""`messages.limits.PartyId` for a `fullmatch`."""
TRANSFER_SIZE: Final = 16
PARCEL_OVERHEAD: Final = 256
"""Two names, the transfer id and MessagePack's own bytes around a body."""
MAX_PARCEL_BYTES: Final = MAX_ENVELOPE_BYTES + PARCEL_OVERHEAD
MAX_FRAME_BYTES: Final = MAX_PARCEL_BYTES + PARCEL_OVERHEAD
_LENGTH: Final = 4
_SMALL: Final = 64 * 1024
"""Frames up to here are copied behind their length and written in one call; larger ones are not copied."""
_NONE: Final = memoryview(b"")
_BIN32: Final = b"\xc6"
"""MessagePack's mark of bytes with a length of four bytes, as longer ones than 65,535 have it."""

TransferId = Annotated[bytes, Meta(min_length=TRANSFER_SIZE, max_length=TRANSFER_SIZE)]
ParcelBytes = Annotated[memoryview, Meta(max_length=MAX_PARCEL_BYTES)]
Names = Annotated[tuple[PartyId, ...], Meta(max_length=MAX_ROSTER_HUBS + 1)]


class Parcel(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What travels from service to service. `sender` is a claim; the envelope inside is what is signed."""

    recipient: PartyId
    sender: PartyId
    transfer: TransferId
    body: Annotated[bytes, Meta(max_length=MAX_ENVELOPE_BYTES)]


class Ship(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="ship"):
    """Send this parcel to the cell of `peer` (the next hop, not always the recipient)."""

    peer: PartyId
    parcel: ParcelBytes


class Receipt(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="receipt"):
    """The service at `peer` has this transfer on disk; or, towards the relay: tell `peer` that we have it."""

    peer: PartyId
    transfer: TransferId


class Admit(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="admit"):
    """The roster as of now: the only peers whose frames pass."""

    names: Names


class Ready(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="ready"):
    """The cell runs; at the coordinator its port is bound."""


class Failed(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="failed"):
    """The relay cannot start; `text` is for the operator."""

    text: Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]


class Peers(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="peers"):
    """The admitted peers that are connected now."""

    names: Names


class Again(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="again"):
    """`peer` asks for what is under way to it: it dropped or lost it."""

    peer: PartyId


class Arrived(Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="arrived"):
    """A parcel from the wire. `peer` is the cell that the guard verified."""

    peer: PartyId
    parcel: ParcelBytes


Frame = Ship | Receipt | Admit | Ready | Failed | Peers | Again | Arrived

_encoder: Final = msgspec.msgpack.Encoder()
_frames: Final = msgspec.msgpack.Decoder(Frame)
_parcels: Final = msgspec.msgpack.Decoder(Parcel)


def parcel_bytes(parcel: Parcel) -> bytes:
    return _encoder.encode(parcel)


def parcel_of(raw: bytes | memoryview) -> Parcel:
    """Raises: TooLarge, Malformed. The size is looked at before anything is decoded."""
    if len(raw) > MAX_PARCEL_BYTES:
        raise TooLarge(f"A parcel of {len(raw)} bytes is over the limit of {MAX_PARCEL_BYTES}.")
    try:
        return _parcels.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Malformed("These bytes are not a parcel of ours.") from error


def _before(empty: Struct, size: int) -> bytes:
    """All of a struct's encoding but the bytes it ends with, more than 65,535. empty: the struct without them."""
    return _encoder.encode(empty)[:-2] + _BIN32 + size.to_bytes(_LENGTH, "big")


class Link:
    """One end of the socket pair. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._reader = end.makefile("rb", buffering=_SMALL)
        self._sending = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Raises: ChannelError: the other end is gone. TooLarge: the frame is over MAX_FRAME_BYTES."""
        if isinstance(frame, Ship | Arrived) and len(frame.parcel) > _SMALL:
            self._send(_before(replace(frame, parcel=_NONE), len(frame.parcel)), frame.parcel)
        else:
            self._send(_encoder.encode(frame))

    def ship(self, peer: str, parcel: Parcel) -> None:
        """`Ship` with the bytes of this parcel. Raises: as `send`."""
        if len(parcel.body) <= _SMALL:
            self.send(Ship(peer, memoryview(parcel_bytes(parcel))))
            return
        inner = _before(replace(parcel, body=b""), len(parcel.body))
        self._send(_before(Ship(peer, _NONE), len(inner) + len(parcel.body)) + inner, parcel.body)

    def _send(self, head: bytes, body: bytes | memoryview = b"") -> None:
        size = len(head) + len(body)
        if size > MAX_FRAME_BYTES:
            raise TooLarge(f"A frame of {size} bytes is over the limit of {MAX_FRAME_BYTES}.")
        try:
            with self._sending:
                self._socket.sendall(size.to_bytes(_LENGTH, "big") + head)
                if body:
                    self._socket.sendall(body)
        except (OSError, ValueError) as error:
            raise ChannelError("The link between a service and its relay is closed.") from error

    def receive(self) -> Frame | None:
        """The next frame, or None once the other end is gone.

        Raises: TooLarge, Malformed: the other end is not a relay or service of ours; close the link.
        """
        raw = self._read()
        if raw is None:
            return None
        try:
            frame: Frame = _frames.decode(raw)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise Malformed("The link between a service and its relay carried an unknown frame.") from error
        return frame

    def close(self) -> None:
        """Wake the thread that receives, at both ends. Harmless when repeated."""
        with contextlib.suppress(OSError):  # not connected any more: that is what we want
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> bytes | None:
        try:
            head = self._reader.read(_LENGTH)
            if len(head) < _LENGTH:
                return None
            size = int.from_bytes(head, "big")
            if size > MAX_FRAME_BYTES:
                raise TooLarge(f"A frame of {size} bytes is over the limit of {MAX_FRAME_BYTES}.")
            raw = self._reader.read(size)
        except (OSError, ValueError):  # closed by us, or reset by the end of the other process
            return None
        return raw if len(raw) == size else None
