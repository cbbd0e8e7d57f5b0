"""Who may read the hub's FHIR face, and where it may listen.

Tokens: 32 random bytes each, made for one tool or person, shown once. The file keeps their digests, readable by
the hub's user only; comparing takes the same time whether a token is nearly right or not.
Addresses: loopback by default. A private address only where it was asked for, and only with TLS, since tokens and
records would otherwise cross the hospital's network in the clear. Never a public or wildcard address.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from flute.defaults.records import FACE_MAX_TOKENS, FACE_TOKEN_BYTES
from flute.errors import KeyFileError, MisuseError
from flute.homes import read_config, write_config
from flute.messages.limits import PartyId
from flute.primitives.keys import digest

FILE: Final = "face.json"
_TOKEN: Final = b"flute/face-token/v1"
_Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_OTHERS: Final = 0o077


class Tokens(Struct, frozen=True, forbid_unknown_fields=True):
    """Holder to the digest of his token."""

    digests: Annotated[Mapping[PartyId, _Hex], Meta(max_length=FACE_MAX_TOKENS)] = {}

    def holder(self, token: str) -> str | None:
        """Whose token it is. All of them are compared, every time."""
        presented = _digest(token)
        found = None
        for name, known in self.digests.items():
            if hmac.compare_digest(known, presented):
                found = name
        return found


def read_tokens(folder: Path) -> Tokens:
    """Raises: KeyFileError: others can read the file. MisuseError: it is damaged."""
    path = folder / FILE
    if not path.exists():
        return Tokens()
    if path.stat().st_mode & _OTHERS:
        raise KeyFileError(f"{path} can be read by others than the hub's user; run 'chmod 600 {path}' first.")
    return read_config(path, Tokens, made_by="flute hub face-token")


def make_token(folder: Path, holder: str, rand: bytes) -> str:
    """A new token for a tool or person; an older one of his is void. `rand`: FACE_TOKEN_BYTES fresh bytes.

    Raises: MisuseError: too many holders, or a name that is none."""
    if len(rand) != FACE_TOKEN_BYTES:
        raise MisuseError(f"A token is made of {FACE_TOKEN_BYTES} fresh bytes.")
    token = f"flute-{rand.hex()}"
    _write(folder, {**read_tokens(folder).digests, holder: _digest(token)})
    return token


def void_token(folder: Path, holder: str) -> None:
    """Raises: MisuseError: nobody of that name has one."""
    held = dict(read_tokens(folder).digests)
    if holder not in held:
        raise MisuseError(f"{holder} has no token here; there are {', '.join(sorted(held)) or 'none'}.")
    del held[holder]
    _write(folder, held)


def _write(folder: Path, digests: Mapping[str, str]) -> None:
    if len(digests) > FACE_MAX_TOKENS:
        raise MisuseError(f"There are {FACE_MAX_TOKENS} tokens; take one away first.")
    write_config(folder / FILE, Tokens(digests))


def _digest(token: str) -> str:
    return digest(_TOKEN, token.encode()).hex()


def require_address(host: str, *, private_network: bool, tls: bool) -> None:
    """Raises: MisuseError: the face may not listen there."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise MisuseError(
            f"{host!r} is no IP address; the face listens on 127.0.0.1, or on the address of this machine in the "
            "hospital's own network."
        ) from None
    if address.is_loopback:
        return
    if address.is_unspecified or address.is_multicast or address.is_reserved or not address.is_private:
        raise MisuseError(
            f"The face shows records of patients and never listens on {host}, which can be reached from outside. Use "
            "127.0.0.1, or the address of this machine in the hospital's own network."
        )
    if not private_network:
        raise MisuseError(
            f"{host} is an address of the local network: whoever reaches it can try to read. If that is meant, say "
            "so with --private-network."
        )
    if not tls:
        raise MisuseError(
            f"On {host} tokens and records would cross the network in the clear; give --tls-cert and --tls-key, or "
            "listen on 127.0.0.1 behind the hospital's own reverse proxy."
        )
