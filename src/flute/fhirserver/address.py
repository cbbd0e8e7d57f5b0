"""Where a FHIR server may send FLUTE: to its own origin and, for most things, below its own base address.

A hub stands inside a hospital's network. A server that could name any address could make it call systems that the
server itself cannot reach (server-side request forgery), or show its credentials to somebody else. So every address
that a server names (next links, export files, token endpoints) passes here before it is called.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from flute.errors import MisuseError, Unmappable

_PORTS: Final = {"https": 443, "http": 80}
_HOST: Final = re.compile(r"[a-z0-9._\-]{1,253}\Z")
_HIDDEN: Final = re.compile(r"%(2e|2f|5c|00)|\\|[\x00-\x20\x7f]", re.IGNORECASE)
"""What lets two programs read one path in two ways."""
_SHOWN_CHARS: Final = 80


@dataclass(frozen=True, slots=True)
class Origin:
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{port}"


@dataclass(frozen=True, slots=True)
class Base:
    """A FHIR server's base address. `path` begins with "/" and does not end with one; it may be empty."""

    origin: Origin
    path: str

    @property
    def url(self) -> str:
        return f"{self.origin}{self.path}"

    @property
    def host(self) -> str:
        return self.origin.host

    @property
    def name(self) -> str:
        """For reports: the host and the last part of the path."""
        last = self.path.rpartition("/")[2]
        return f"{self.host}/{last}" if last else self.host

    def below(self, url: str, what: str) -> str:
        """The absolute address that `url` means, at or below this base. `what`: for people, "a next link".

        Raises: Unmappable: it leads elsewhere.
        """
        parts = _joined_to(self.url, url)
        if parts is not None and _origin(parts) == self.origin and self._holds(parts.path):
            return _joined(parts)
        raise Unmappable(
            f"The server {self.host} gives {what} that leads to {_shown(parts)}, outside {self.url}. FLUTE does not "
            "follow it. If the server stands behind a proxy, its operator sets its public address to the one that "
            "FLUTE was given."
        )

    def _holds(self, path: str) -> bool:
        return path == self.path or path.startswith(self.path + "/")

    def at_origins(self, url: str, others: tuple[Origin, ...], what: str, option: str) -> tuple[str, Origin]:
        """The absolute address of `url` on this server's origin or one of `others`, and that origin.

        `option`: by which an operator allows another, or empty. Raises: Unmappable: it leads elsewhere.
        """
        parts = _joined_to(self.url, url)
        origin = _origin(parts) if parts is not None else None
        if parts is not None and origin is not None and (origin == self.origin or origin in others):
            return _joined(parts), origin
        mend = f"If that belongs to the hospital, add it, such as https://files.hospital.example, to {option}."
        raise Unmappable(
            f"The server {self.host} gives {what} on another host, {_shown(parts)}. FLUTE does not go there unasked. "
            f"{mend if option else 'Its operator sets its public address to the one that FLUTE was given.'}"
        )


def read_base(url: str, *, allow_http: bool) -> Base:
    """The address that an operator gave. Raises: MisuseError: no address that FLUTE would call."""
    parts = _split(url.strip())
    origin = _origin(parts) if parts is not None else None
    if parts is None or origin is None:
        raise MisuseError(
            "This is no address of a FHIR server. Write it like https://fhir.hospital.example/fhir, without '..' and "
            "without user name or password (the server's options name credentials)."
        )
    if parts.query or parts.fragment:
        raise MisuseError(
            "A FHIR server's address ends before '?' and '#'. What is to be read stands in its options under queries."
        )
    check_encrypted(origin, allow_http=allow_http)
    return Base(origin, parts.path.rstrip("/"))


def read_origin(url: str, *, allow_http: bool) -> Origin:
    """An origin that an operator allowed. Raises: MisuseError: no origin, or not encrypted."""
    parts = _split(url.strip())
    origin = _origin(parts) if parts is not None else None
    if origin is None:
        raise MisuseError("An allowed host is written like https://files.hospital.example or with its port.")
    check_encrypted(origin, allow_http=allow_http)
    return origin


def check_encrypted(origin: Origin, *, allow_http: bool) -> None:
    """Raises: MisuseError: http to another machine, where nobody said that it may be."""
    if origin.scheme == "https" or allow_http or is_loopback(origin.host):
        return
    raise MisuseError(
        f"Records from {origin.host} would travel unencrypted. Write https:// in its address; if this network may "
        "carry them in the clear, say so with allow_http: true in the server's options."
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _joined_to(base: str, url: str) -> SplitResult | None:
    try:
        return _split(urljoin(base + "/", url))
    except ValueError:
        return None


def _split(url: str) -> SplitResult | None:
    """The parts of an http(s) address, or None where it hides something."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    hides = _HIDDEN.search(parts.path) or ".." in parts.path.split("/") or "." in parts.path.split("/")
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or hides:
        return None
    return parts


def _origin(parts: SplitResult) -> Origin | None:
    host = (parts.hostname or "").lower()
    if not (_HOST.match(host) or (":" in host and _is_address(host))):
        return None
    return Origin(parts.scheme, host, parts.port or _PORTS[parts.scheme])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _joined(parts: SplitResult) -> str:
    return f"{_origin(parts)}{parts.path}{'?' + parts.query if parts.query else ''}"


def _shown(parts: SplitResult | None) -> str:
    """Where something leads, as a sentence may say it: never a path or a query, which may name a patient."""
    origin = _origin(parts) if parts is not None else None
    return "something that is no plain web address" if origin is None else str(origin)[:_SHOWN_CHARS]
