"""A second, slow way to the same masked vectors: plain Python from the standards, sharing no code with `flute`.

X25519: RFC 7748 section 5. HKDF: RFC 5869 over `hmac`. Keystream: AES-256 in counter mode from 2. Shamir: the
polynomial written out. Labels and the context's layout are written down again here, from the protocol's text.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

P = 2**255 - 19
SHARE_PRIME = 2**256 + 297


def x25519(scalar: bytes, u: bytes) -> bytes:
    """RFC 7748 section 5, the Montgomery ladder as written there."""
    k = bytearray(scalar)
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    n, x1 = int.from_bytes(k, "little"), int.from_bytes(u, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = n >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % P, c * b % P, a * a % P, b * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def hkdf(secret: bytes, salt: bytes, label: str) -> bytes:
    """32 bytes: one block of expansion."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, label.encode() + b"\x01", "sha256")


def prefixed(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()


def stream(key: bytes, words: int) -> list[int]:
    raw = Cipher(AES(key), CTR((2).to_bytes(16, "big"))).encryptor().update(bytes(8 * words))
    return [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]


def shares(secret: bytes, coefficients: list[bytes], holders: int) -> list[bytes]:
    """secret + a1 x + a2 x^2 + ... at x = 1..holders, every power written out."""
    terms = [int.from_bytes(secret, "big"), *(int.from_bytes(c, "big") for c in coefficients)]
    at = [sum(a * x**k for k, a in enumerate(terms)) % SHARE_PRIME for x in range(1, holders + 1)]
    return [value.to_bytes(33, "big") for value in at]


def masked(
    me: str, values: list[int], seed: bytes, point: bytes, peers: dict[str, bytes], ctx: bytes, sentinels: int = 4
) -> bytes:
    """y_i: peers maps the other hubs to their public points."""
    words = [v % 2**64 for v in values] + [1] * sentinels
    keys = [(hkdf(seed, ctx, f"flute/secagg/v1/self|{me}"), 1)]
    for peer, public in peers.items():
        low, high = sorted((me, peer))
        key = hkdf(x25519(point, public), ctx, f"flute/secagg/v1/mask|{low}|{high}")
        keys.append((key, 1 if me < peer else -1))
    for key, sign in keys:
        words = [(w + sign * m) % 2**64 for w, m in zip(words, stream(key, len(words)), strict=True)]
    return b"".join(w.to_bytes(8, "little") for w in words)


def context(terms: bytes, round_number: int, question: bytes, size: int, pubs: list[dict[str, object]]) -> bytes:
    """terms: the group terms' MessagePack bytes. pubs: the fields of each ticket's public part, sorted by hub."""
    parts = [
        b"flute/secagg/v1/ctx", prefixed(b"flute/secagg/v1/terms", terms), round_number.to_bytes(8, "big"), question,
        size.to_bytes(8, "big"),
    ]  # fmt: skip
    for pub in pubs:
        fields = [pub["study"].encode(), pub["hub"].encode(), pub["serial"].to_bytes(8, "big")]
        fields += [pub[name] for name in ("terms", "point", "seed_commitment", "shares_root")]
        parts += [pub["hub"].encode(), prefixed(b"flute/secagg/v1/ticket-pub", *fields)]
    return prefixed(*parts)
