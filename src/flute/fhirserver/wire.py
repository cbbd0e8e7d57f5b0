"""One HTTP request after another, within limits: attempts, pauses, sizes, times. Nothing here knows FHIR.

Built on httpx's transport rather than its client: there are no proxies or passwords taken from the environment, no
cookies, no redirects followed behind our back, and no log of addresses (which may name patients).

Guarantees: TLS certificates are checked, always. What arrives is bounded after decompression, so that a bomb costs
no more than the limit. A server that drips is given up by the clock. Texts of errors name the host and what to do.
Source: RFC 9110 (Retry-After, redirects), RFC 1952 (gzip); "full jitter" as in AWS's article on backoff.
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx

from flute.defaults.records import (
    FHIR_ATTEMPTS,
    FHIR_CONNECT_S,
    FHIR_FIRST_ATTEMPTS,
    FHIR_IMPORT_S,
    FHIR_PAUSE_MAX_S,
    FHIR_PAUSE_S,
    FHIR_REQUEST_S,
    FHIR_RETRY_AFTER_MAX_S,
    FHIR_SILENCE_S,
    FHIR_SLOWEST_BYTES_S,
    MAX_FHIR_ANSWER_BYTES,
)
from flute.errors import MisuseError, SourceError, Unmappable, Unreachable

T = TypeVar("T")
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PIECE: Final = 2**16
_GZIP: Final = b"\x1f\x8b"


def _now() -> datetime:
    return datetime.now(UTC)


def _jitter() -> float:
    """From 0 to 1. It only spreads retries over time; the nanoseconds of a clock do."""
    return time.monotonic_ns() % 1_000_003 / 1_000_003


@dataclass(frozen=True, slots=True)
class Around:
    """What tests replace: waiting, the clock (seconds, never set back), the time of day, chance from 0 to 1."""

    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = _now
    chance: Callable[[], float] = _jitter


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts. `whole_s`: of all requests of one import together."""

    attempts: int = FHIR_ATTEMPTS
    first_attempts: int = FHIR_FIRST_ATTEMPTS
    connect_s: float = FHIR_CONNECT_S
    silence_s: float = FHIR_SILENCE_S
    request_s: float = FHIR_REQUEST_S
    whole_s: float = FHIR_IMPORT_S
    answer_bytes: int = MAX_FHIR_ANSWER_BYTES


class Again(Exception):
    """An attempt that failed in a way that the next one may not. `text`: what to say when none is left."""

    def __init__(self, text: str, *, after_s: float | None = None, kind: type[SourceError] = Unreachable) -> None:
        super().__init__(text)
        self.text, self.after_s, self.kind = text, after_s, kind


class Secret:
    """A text that no repr, error or log shows. It is compared with nothing and put into no collection by content."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> str:
        raise MisuseError("A secret is not written anywhere.")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `secret`: the value of Authorization."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    secret: Secret | None = None

    def request(self, timeouts: Mapping[str, float | None]) -> httpx.Request:
        """As httpx takes it; its repr shows no Authorization."""
        return httpx.Request(
            self.method,
            self.url,
            headers={"accept-encoding": "gzip", "user-agent": "FLUTE", **self.headers}
            | ({"authorization": self.secret.reveal()} if self.secret is not None else {}),
            content=self.body or None,
            extensions={"timeout": dict(timeouts)},
        )


@dataclass(slots=True)
class Arriving:
    """An answer whose body is still on its way; `pieces` gives it decompressed, `limit` bytes at most."""

    status: int
    headers: httpx.Headers
    pieces: Callable[[int], Iterator[bytes]]

    def read(self, limit: int) -> bytes:
        return b"".join(self.pieces(limit))


class Wire:
    """Requests to one server. `transport`: httpx's, or another for tests. Not for two threads."""

    def __init__(self, host: str, transport: httpx.BaseTransport, limits: Limits, around: Around) -> None:
        self.host, self.limits, self.around = host, limits, around
        self._transport = transport
        self._ends = around.clock() + limits.whole_s
        self.heard = False
        """Whether the server has ever answered as it should."""

    def close(self) -> None:
        self._transport.close()

    def persist(self, attempt: Callable[[], T]) -> T:
        """Try until it succeeds or attempts, or the time altogether, are used up.

        Raises: Unreachable, Unmappable: the last attempt's reason.
        """
        failed = 0
        while True:
            try:
                return attempt()
            except Again as again:
                failed += 1
                self.pause(again, failed)

    def pause(self, again: Again, failed: int) -> None:
        """Wait after the attempt number `failed`, from 1. Raises: the reason, where no attempt is left."""
        allowed = self.limits.attempts if self.heard else self.limits.first_attempts
        if failed >= allowed:
            raise again.kind(f"{again.text} FLUTE tried {failed} times.") from again
        longest = min(FHIR_PAUSE_MAX_S, FHIR_PAUSE_S * 2 ** (failed - 1))
        pause = self.around.chance() * longest
        if again.after_s is not None:
            pause = min(again.after_s, FHIR_RETRY_AFTER_MAX_S) + pause
        self.wait(pause)

    def wait(self, seconds: float) -> None:
        """Raises: Unreachable: the import's time altogether would be over by then."""
        if self.around.clock() + seconds > self._ends:
            raise self._over()
        self.around.sleep(seconds)

    def _over(self) -> Unreachable:
        return Unreachable(
            f"The import from {self.host} took longer than {self.limits.whole_s / 3600:.3g} hours. What was read "
            "stays. Start it again and it goes on; or allow more time with whole_s in the server's options."
        )

    @contextmanager
    def open(self, call: Call, *, time_s: float | None = None) -> Iterator[Arriving]:
        """One attempt. `time_s`: for the whole answer, by default the limits' `request_s`.

        Raises: Again: the network failed, or the status says that later may be better. Unmappable: TLS.
        """
        begun = self.around.clock()
        if begun > self._ends:
            raise self._over()
        ends = min(begun + (self.limits.request_s if time_s is None else time_s), self._ends)
        with self._network():
            response = self._transport.handle_request(call.request(self._timeouts()))
        try:
            if response.status_code in _RETRIED:
                raise self._not_now(response)
            yield Arriving(
                response.status_code, response.headers, lambda limit: self._pieces(response, limit, begun, ends)
            )
        finally:
            with self._network():
                response.close()

    def _timeouts(self) -> dict[str, float | None]:
        limits = self.limits
        return {"connect": limits.connect_s, "read": limits.silence_s, "write": limits.silence_s, "pool": 1.0}

    @contextmanager
    def _network(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Again(f"The server {self.host} does not answer in time. Ask its operator.") from error
        except httpx.TransportError as error:
            if _is_certificate(error):
                raise Unmappable(
                    f"The certificate of {self.host} is not trusted on this machine. If the hospital has a "
                    "certification authority of its own, give its certificate with ca_file in the server's options."
                ) from error
            raise Again(
                f"The server {self.host} cannot be reached, or breaks off. See that it runs, and that this machine "
                "may call it."
            ) from error

    def _not_now(self, response: httpx.Response) -> Again:
        status, after = response.status_code, _retry_after(response.headers.get("retry-after"), self.around.now())
        if status == 429:
            text = (
                f"The server {self.host} says that FLUTE asks too often (429). Agree with its operator, or try later."
            )
        else:
            text = f"The server {self.host} fails with status {status}. Its operator finds the reason in its log."
        return Again(text, after_s=after)

    def _pieces(self, response: httpx.Response, limit: int, begun: float, ends: float) -> Iterator[bytes]:
        """The body, decompressed. Raises: Again, Unmappable: larger than `limit`."""
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise Unmappable(f"The server {self.host} compresses in a way that FLUTE did not ask for.")
        raw = self._raw(response, begun, ends)
        size = 0
        for piece in self.unzipped(raw) if "gzip" in encoding else raw:
            size += len(piece)
            if size > limit:
                raise self.too_large(limit)
            yield piece

    def too_large(self, limit: int) -> Unmappable:
        return Unmappable(
            f"The server {self.host} gives an answer of more than {limit / 2**20:.3g} MiB. Ask for fewer resources "
            "at once (page_size), or allow more (max_response_mb) in the server's options."
        )

    def _raw(self, response: httpx.Response, begun: float, ends: float) -> Iterator[bytes]:
        size = 0
        with self._network():
            for piece in response.iter_raw():
                now, size = self.around.clock(), size + len(piece)
                drips = now - begun > self.limits.request_s and size < FHIR_SLOWEST_BYTES_S * (now - begun)
                if now > ends or drips:
                    raise Again(f"The server {self.host} answers too slowly. Ask its operator, or at a quieter hour.")
                yield piece

    def unzipped(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Gzip members one after the other, in pieces of bounded size. Raises: Again: no gzip, or not whole."""
        member = zlib.decompressobj(wbits=31)
        fed = False
        try:
            for piece in raw:
                rest, more = piece, bool(piece)
                while more:
                    if member.eof:
                        member = zlib.decompressobj(wbits=31)
                    fed = True
                    out = member.decompress(rest, _PIECE)
                    yield out
                    rest = member.unused_data if member.eof else member.unconsumed_tail
                    more = bool(rest) or (len(out) == _PIECE and not member.eof)
        except zlib.error as error:
            raise Again(f"The server {self.host} gives compressed data that is damaged.") from error
        if fed and not member.eof:
            raise Again(f"The server {self.host} broke off in the middle of compressed data.")

    def plain(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pieces of a file that may itself be gzip, decompressed."""
        first = next(pieces, b"")
        if len(first) < len(_GZIP):
            first += next(pieces, b"")
        joined = _chained(first, pieces)
        return self.unzipped(joined) if first.startswith(_GZIP) else joined


def _chained(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def trusted(ca_file: str) -> ssl.SSLContext:
    """Whose certificates are believed: this machine's authorities, or only those in `ca_file` where it is given.

    Raises: MisuseError: `ca_file` is no file of certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise MisuseError("The ca_file of the server's options is no file of certificates in PEM form.") from error


def make_transport(context: ssl.SSLContext) -> httpx.BaseTransport:
    return httpx.HTTPTransport(verify=context, trust_env=False, limits=httpx.Limits(max_connections=2))


def _is_certificate(error: BaseException) -> bool:
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if isinstance(seen, ssl.SSLCertVerificationError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds; the header holds seconds or a date. None where it says nothing that can be read."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, (when - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def retry_after(headers: httpx.Headers, now: datetime) -> float | None:
    """What an answer's Retry-After says, in seconds."""
    return _retry_after(headers.get("retry-after"), now)
