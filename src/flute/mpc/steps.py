"""The form of every protocol here: a generator that yields what to send and is sent what arrived.

    Step[T] = Generator[Outgoing, Incoming, T]

One `yield` is one round: exactly one message to every other hub, then one from each. Programs compose by `yield
from`. Whoever drives a generator carries the messages over sealed, authenticated channels, closes it on its first
error and gives up the others when a hub falls silent. Nothing here knows a socket, a clock or chance.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TypeVar

T = TypeVar("T")
Place = int
"""A hub's number in this computation, 1 to n: also where its share lies on the polynomials."""
Outgoing = Mapping[Place, bytes]
Incoming = Mapping[Place, bytes]
Step = Generator[Outgoing, Incoming, T]
