"""How the coordinator reaches the aggregators of plan `enclave`, and which policies hubs appraise them by.

Neither is trusted: a hub checks evidence itself, under a policy whose digest the roster approves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import httpx
import msgspec
from msgspec import Meta, Struct

from flute.defaults.enclaves import MAX_CALL_BYTES
from flute.errors import MisuseError, PeerUnreachable, ProtocolAbortedError
from flute.messages.enclave import AggregatorAnswer, AggregatorCall, EnclaveRefused

CALL_TIMEOUT_S: Final = 60.0
"""One call: the largest box takes a second or two over a slow line; evidence of a TPM half a second."""
A = TypeVar("A", bound=Struct)
Say = Callable[[bytes], bytes]
"""One call's bytes to the answer's."""


class AggregatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """at: path of a Unix socket, or http://127.0.0.1:PORT of a forwarded one. policy: file, canonical JSON."""

    at: Annotated[str, Meta(min_length=1, max_length=1024)]
    policy: Annotated[str, Meta(min_length=1, max_length=1024)]


@dataclass(frozen=True, slots=True)
class Door:
    say: Say
    policy: bytes


class Aggregators:
    """Those that this coordinator knows, by the names that agreements use."""

    def __init__(self, doors: Mapping[str, Door] | None = None) -> None:
        self._doors = dict(doors or {})

    def policy(self, name: str) -> bytes:
        return self._door(name).policy

    def ask(self, name: str, call: AggregatorCall, kind: type[A]) -> A:
        """Raises: ProtocolAbortedError: it said no, in its own words, or something else than was asked for.
        PeerUnreachable: it does not answer. MisuseError: no such aggregator."""
        raw = self._door(name).say(msgspec.msgpack.encode(call))
        try:
            answer: Struct = msgspec.msgpack.decode(raw, type=AggregatorAnswer)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolAbortedError(f"aggregator {name} answered with bytes that are no message") from error
        if isinstance(answer, EnclaveRefused):
            raise ProtocolAbortedError(f"aggregator {name} refused ({answer.code}): {answer.text}")
        if not isinstance(answer, kind):
            raise ProtocolAbortedError(f"aggregator {name} answered something else than it was asked")
        return answer

    def _door(self, name: str) -> Door:
        try:
            return self._doors[name]
        except KeyError:
            raise MisuseError(
                f"This coordinator knows no aggregator {name!r}; 'flute coordinator aggregator' makes one known."
            ) from None


def doors_of(configured: Mapping[str, AggregatorConfig]) -> Aggregators:
    """Raises: MisuseError: a policy file that cannot be read."""
    doors = {}
    for name, config in configured.items():
        try:
            policy = Path(config.policy).read_bytes()
        except OSError as error:
            raise MisuseError(f"The policy of aggregator {name}, {config.policy}, cannot be read.") from error
        doors[name] = Door(_http(name, config.at), policy)
    return Aggregators(doors)


def _http(name: str, at: str) -> Say:
    url, transport = ("http://aggregator", httpx.HTTPTransport(uds=at)) if at.startswith("/") else (at, None)
    client = httpx.Client(base_url=url, transport=transport, timeout=CALL_TIMEOUT_S)

    def say(raw: bytes) -> bytes:
        try:
            with client.stream("POST", "/say", content=raw) as answer:
                answer.raise_for_status()
                return _bounded(answer)
        except httpx.HTTPError as error:
            raise PeerUnreachable(f"aggregator {name} does not answer at {at}") from error

    return say


def _bounded(answer: httpx.Response) -> bytes:
    found = bytearray()
    for piece in answer.iter_bytes():
        found += piece
        if len(found) > MAX_CALL_BYTES:
            raise PeerUnreachable("an aggregator's answer is over the limit")
    return bytes(found)
