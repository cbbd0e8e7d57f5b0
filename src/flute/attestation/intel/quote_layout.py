"""Where the parts of an Intel quote lie, and that there is nothing else in it.

`dcap-qvl` reads a quote and ignores what is left over: bytes behind it, bytes behind its inner parts, the copies of
the root certificate in chains, who issued the revocation list. All of that is refused here, so that two quotes that
both pass are the same quote.

Source: Intel, TDX DCAP Quoting Library API 0.9, appendix 3, tables "quote signature data" and "QE certification
data"; SGX ECDSA QuoteGenReference API, appendix A.4.
"""

from __future__ import annotations

import hashlib
import re
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Final

from flute.errors import MalformedEvidence, UntrustedEvidence

HEADER: Final = 48
SGX_BODY: Final = 384
_TD_BODY: Final = 584
_KEY_AND_SIGNATURE: Final = 128
_QE_REPORT_AND_SIGNATURE: Final = SGX_BODY + 64
_CHAIN_IN_PEM, _QE_REPORT = 5, 6
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)\n-----END CERTIFICATE-----\n?")
_LINE: Final = 64
_SGX_QUOTE, _TDX_QUOTE, _TDX_QUOTE_WITH_TYPE = 3, 4, 5


def without_padding(raw: bytes) -> bytes:
    """The quote up to its last part. Quotes are padded with zeros up to the size that the platform announced.

    Raises: MalformedEvidence: parts that are longer or shorter than they say, or something in the padding.
    """
    try:
        start, end = _signature_data(raw)
        _chain_at(raw, start, end)
    except (struct.error, ValueError):
        raise MalformedEvidence(
            "The parts of this quote do not fit into one another. Send the quote as the platform gave it.",
            reason="quote-malformed",
        ) from None
    if any(raw[end:]):
        raise MalformedEvidence("Something stands behind this quote. Send the quote alone.", reason="quote-trailing")
    return raw[:end]


def chain(quote: bytes) -> str:
    """The certificates that a quote without padding carries: platform key first, in PEM."""
    return _chain_at(quote, *_signature_data(quote)).decode("ascii", "replace")


def above_the_platform(quote: bytes) -> str:
    """The same chain without the platform's own certificate: who certified it, and the root."""
    found = chain(quote)
    return found[max(0, found.find(_BEGIN, len(_BEGIN))) :]


def certificates_of(pem: str, root: str, what: str) -> list[bytes]:
    """The certificates of a chain in DER: the last is the pinned root, and the chain is written in the one way.

    Args: root: SHA-256 of the root certificate (DER), hexadecimal.
    Raises: UntrustedEvidence: it is not.
    """
    bodies = [match.group(1) for match in _PEM.finditer(pem)]
    try:
        certificates = [b64decode(body) for body in bodies]
    except Base64Error:
        certificates = []
    written = "".join(_as_pem(body) for body in bodies)
    if not certificates or pem.rstrip("\n") != written.rstrip("\n") or not _canonical(bodies):
        raise UntrustedEvidence(
            f"The certificates of {what} are not in PEM as Intel writes it. Fetch them anew.",
            reason="chain-malformed",
        )
    if hashlib.sha256(certificates[-1]).hexdigest() != root:
        raise UntrustedEvidence(
            f"The chain of {what} does not end at Intel's root. Fetch it anew from Intel.", reason="root-unknown"
        )
    return certificates


def _as_pem(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def _canonical(bodies: list[str]) -> bool:
    """Base 64 in lines of 64 letters whose spare bits are zero: one writing for one certificate."""
    for body in bodies:
        letters = body.replace("\n", "")
        if "\n".join(letters[i : i + _LINE] for i in range(0, len(letters), _LINE)) != body:
            return False
        if not _spare_bits_are_zero(letters):
            return False
    return True


def _spare_bits_are_zero(letters: str) -> bool:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    padding = len(letters) - len(letters.rstrip("="))
    return padding == 0 or alphabet.index(letters.rstrip("=")[-1]) % (4**padding) == 0


# --- parts -----------------------------------------------------------------------------------


def body_at(quote: bytes) -> int:
    """Where the report starts."""
    return HEADER + 6 if _version(quote) == _TDX_QUOTE_WITH_TYPE else HEADER


def _version(quote: bytes) -> int:
    return int(struct.unpack_from("<H", quote)[0])


def _signature_data(quote: bytes) -> tuple[int, int]:
    version = _version(quote)
    if version == _SGX_QUOTE:
        at = HEADER + SGX_BODY
    elif version == _TDX_QUOTE:
        at = HEADER + _TD_BODY
    elif version == _TDX_QUOTE_WITH_TYPE:
        at = HEADER + 6 + int(struct.unpack_from("<HI", quote, HEADER)[1])
    else:
        raise ValueError
    start = at + 4
    end = start + int(struct.unpack_from("<I", quote, at)[0])
    if end > len(quote):
        raise ValueError
    return start, end


def _chain_at(quote: bytes, start: int, end: int) -> bytes:
    at = start + _KEY_AND_SIGNATURE
    if _version(quote) != _SGX_QUOTE:
        kind, size = struct.unpack_from("<HI", quote, at)
        at += 6
        if kind != _QE_REPORT or at + size != end:
            raise ValueError
    at += _QE_REPORT_AND_SIGNATURE
    at += 2 + int(struct.unpack_from("<H", quote, at)[0])  # what the quoting enclave adds to its report
    kind, size = struct.unpack_from("<HI", quote, at)
    at += 6
    if kind != _CHAIN_IN_PEM or at + size != end:
        raise ValueError
    pem = quote[at:end]
    return pem.removesuffix(b"\0")
