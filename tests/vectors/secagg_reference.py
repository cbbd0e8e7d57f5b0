"""A second, slow way to the same bytes: plain Python from the standards, sharing no code with `flute`.

X25519: RFC 7748 section 5. HKDF: RFC 5869 over `hmac`. Keystream: AES-256 in counter mode from 2. AES-256-GCM: NIST
SP 800-38D, written out over counter mode. Shamir and Lagrange: the polynomial written out. Labels, digests and the
layout of words are written down again here, from the protocol's text.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

P = 2**255 - 19
SHARE_PRIME = 2**256 + 297
SENTINELS = 4
WORD_BYTES = {16: 2, 21: 8, 32: 4, 64: 8}
_ROOT = "flute/secagg/v1/"

# --- the standards ------------------------------------------------------------------------------------


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


def public(scalar: bytes) -> bytes:
    return x25519(scalar, (9).to_bytes(32, "little"))


def hkdf(secret: bytes, salt: bytes, label: str) -> bytes:
    """32 bytes: one block of expansion."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, (_ROOT + label).encode() + b"\x01", "sha256")


def counter_mode(key: bytes, first: int, size: int) -> bytes:
    return Cipher(AES(key), CTR(first.to_bytes(16, "big"))).encryptor().update(bytes(size))


def keystream(key: bytes, size: int) -> bytes:
    return counter_mode(key, 2, size)


def gcm(key: bytes, text: bytes, extra: bytes) -> bytes:
    """AES-256-GCM with a nonce of 12 zero bytes, as SP 800-38D writes it: ciphertext and tag."""
    sealed = xor(text, keystream(key, len(text)))
    h = int.from_bytes(counter_mode(key, 0, 16), "big")
    lengths = (8 * len(extra)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
    hashed = 0
    for part in (extra, sealed, lengths):
        for at in range(0, len(part), 16):
            hashed = _times(hashed ^ int.from_bytes(part[at : at + 16].ljust(16, b"\0"), "big"), h)
    return sealed + xor(hashed.to_bytes(16, "big"), counter_mode(key, 1, 16))


def _times(x: int, y: int) -> int:
    """SP 800-38D algorithm 1: the product in GF(2^128), bit 0 the most significant."""
    z = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def prefixed(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(p).to_bytes(8, "big") + p for p in parts)).digest()


def labelled(label: str, *parts: bytes) -> bytes:
    return prefixed((_ROOT + label).encode(), *parts)


def eight(number: int) -> bytes:
    return number.to_bytes(8, "big")


# --- shares ---------------------------------------------------------------------------------------------


def shares(secret: bytes, coefficients: Sequence[bytes], holders: int) -> list[bytes]:
    """secret + a1 x + a2 x^2 + ... at x = 1..holders, every power written out."""
    terms = [int.from_bytes(secret, "big"), *(int.from_bytes(c, "big") for c in coefficients)]
    at = [sum(a * x**k for k, a in enumerate(terms)) % SHARE_PRIME for x in range(1, holders + 1)]
    return [value.to_bytes(33, "big") for value in at]


def secret_of(given: Mapping[int, bytes]) -> bytes:
    """Lagrange at 0, from x to share."""
    total = 0
    for x, share in given.items():
        weight = int.from_bytes(share, "big")
        for other in given:
            if other != x:
                weight = weight * -other * pow(x - other, -1, SHARE_PRIME) % SHARE_PRIME
        total += weight
    return (total % SHARE_PRIME).to_bytes(32, "big")


def commitment(study: str, dealer: str, serial: int, holders: int, index: int, share: bytes) -> bytes:
    common = labelled("share-commitment", study.encode(), dealer.encode(), eight(serial), eight(holders))
    return hashlib.sha256(common + eight(index) + share).digest()[:16]


def chunks(commitments: Sequence[bytes]) -> list[bytes]:
    """Both commitments of eight holders in a row; the last chunk holds what is left."""
    return [b"".join(commitments[i : i + 16]) for i in range(0, len(commitments), 16)]


def tree(commitments: Sequence[bytes]) -> list[list[bytes]]:
    """Levels from the leaves, one a chunk, to the root; empty leaves fill up to 2^k."""
    leaf, node = labelled("share-chunk"), labelled("share-node")
    level = [hashlib.sha256(leaf + chunk).digest() for chunk in chunks(commitments)]
    while len(level) & (len(level) - 1):
        level.append(labelled("share-none"))
    levels = [level]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = zip(below[::2], below[1::2], strict=True)
        levels.append([hashlib.sha256(node + left + right).digest() for left, right in pairs])
    return levels


def path(commitments: Sequence[bytes], holder: int) -> list[bytes]:
    """Siblings from the chunk of `holder` (from 0) to the root."""
    return [level[(holder // 8 >> depth) ^ 1] for depth, level in enumerate(tree(commitments)[:-1])]


# --- tickets --------------------------------------------------------------------------------------------


def chain(
    secret: bytes, publics: Mapping[str, bytes], *, study: str, agreement: bytes, me: str, dealer: str, holder: str,
    tickets: int = 0,
) -> bytes:  # fmt: skip
    """The key by which `dealer` seals to `holder`, after so many tickets. secret: `me`'s study secret."""
    low, high = sorted((dealer, holder))
    other = holder if me == dealer else dealer
    salt = prefixed(agreement, publics[low], publics[high])
    key = hkdf(x25519(secret, publics[other]), salt, f"channel|{study}|{low}|{high}")
    key = hkdf(key, b"", f"dealing|{study}|{dealer}|{holder}")
    for _ in range(tickets):
        key = hkdf(key, b"", "ratchet")
    return key


def pub_digest(pub: Mapping[str, object]) -> bytes:
    fields = [pub["study"].encode(), pub["hub"].encode(), eight(pub["serial"])]
    return labelled("ticket-pub", *fields, *(pub[k] for k in ("terms", "point", "seed_commitment", "shares_root")))


@dataclass(frozen=True)
class Ticket:
    seed: bytes
    point: bytes
    pub: dict[str, object]
    seed_shares: list[bytes]
    point_shares: list[bytes]
    commitments: list[bytes]
    boxes: list[bytes]


def ticket(
    terms: bytes, study: str, me: str, serial: int, *, hubs: Sequence[str], threshold: int, rand: bytes,
    chains: Mapping[str, bytes],
) -> Ticket:  # fmt: skip
    """terms: the group terms' MessagePack bytes. chains: other hub to the chain key of this ticket."""
    fields, more = labelled("terms", terms), 48 * (threshold - 1)
    raw = keystream(hkdf(rand, fields, f"dealt|{study}|{me}|{serial}"), 64 + 2 * more)
    seed, point, rest = raw[:32], raw[32:64], raw[64:]
    dealt = [
        shares(secret, [own[i : i + 48] for i in range(0, more, 48)], len(hubs))
        for secret, own in ((seed, rest[:more]), (point, rest[more:]))
    ]
    both = [share for pair in zip(*dealt, strict=True) for share in pair]
    made = [commitment(study, me, serial, len(hubs), index, share) for index, share in enumerate(both)]
    pub: dict[str, object] = {
        "study": study, "hub": me, "serial": serial, "terms": fields, "point": public(point),
        "seed_commitment": labelled(f"seed|{study}|{me}|{serial}", seed), "shares_root": tree(made)[-1][0],
    }  # fmt: skip
    name = pub_digest(pub)
    keys = {hub: hkdf(key, b"", f"ticket|{study}|{serial}|{me}|{name.hex()}") for hub, key in chains.items()}
    boxes = [gcm(keys[h], a + b, name) for h, a, b in zip(hubs, *dealt, strict=True) if h != me]
    return Ticket(seed, point, pub, *dealt, made, boxes)


def context(
    terms: bytes, round_number: int, question: bytes, size: int, width: int, pubs: Sequence[Mapping[str, object]]
) -> bytes:
    """pubs: the fields of each ticket's public part, sorted by hub."""
    parts = [labelled("terms", terms), eight(round_number), question, eight(size), eight(width)]
    for pub in pubs:
        parts += [pub["hub"].encode(), pub_digest(pub)]
    return labelled("ctx", *parts)


# --- vectors --------------------------------------------------------------------------------------------


def pack(values: Sequence[int], width: int) -> list[int]:
    """Words of the values and their sentinels. Three lanes: word i holds coordinates i, W + i and 2 W + i."""
    numbers = [*values, *[1] * SENTINELS]
    if width != 21:
        return [number % 2**width for number in numbers]
    words = -(-len(numbers) // 3)
    lanes = [*numbers, *[0] * (3 * words - len(numbers))]
    return [(lanes[i] + 2**21 * lanes[words + i] + 2**42 * lanes[2 * words + i]) % 2**64 for i in range(words)]


def unpack(words: Sequence[int], width: int, size: int) -> list[int]:
    """Signed numbers, sentinels cut off."""
    if width != 21:
        return [word - 2**width if word >= 2 ** (width - 1) else word for word in words][:size]
    lanes: list[list[int]] = [[], [], []]
    for word in words:
        for lane in lanes:
            number = (word + 2**20) % 2**21 - 2**20
            lane.append(number)
            word = (word - number) // 2**21
    return [number for lane in lanes for number in lane][:size]


def mask_keys(me: str, seed: bytes, point: bytes, peers: Mapping[str, bytes], ctx: bytes) -> list[tuple[bytes, int]]:
    """Every mask of `me` with its sign. peers: the other hubs' public points."""
    keys = [(hkdf(seed, ctx, f"self|{me}"), 1)]
    for peer, theirs in peers.items():
        low, high = sorted((me, peer))
        keys.append((hkdf(x25519(point, theirs), ctx, f"mask|{low}|{high}"), 1 if me < peer else -1))
    return keys


def add_masks(words: Sequence[int], keys: Sequence[tuple[bytes, int]], word_bytes: int) -> list[int]:
    out = list(words)
    for key, sign in keys:
        raw = keystream(key, word_bytes * len(out))
        masks = [int.from_bytes(raw[i : i + word_bytes], "little") for i in range(0, len(raw), word_bytes)]
        out = [(w + sign * m) % 2 ** (8 * word_bytes) for w, m in zip(out, masks, strict=True)]
    return out


def to_bytes(words: Sequence[int], word_bytes: int) -> bytes:
    return b"".join(word.to_bytes(word_bytes, "little") for word in words)


def masked(
    me: str, values: Sequence[int], width: int, seed: bytes, point: bytes, peers: Mapping[str, bytes], ctx: bytes
) -> bytes:
    """y_i as it travels."""
    size = WORD_BYTES[width]
    return to_bytes(add_masks(pack(values, width), mask_keys(me, seed, point, peers, ctx), size), size)


def total(
    vectors: Mapping[str, bytes], opened: Mapping[str, bytes], points: Mapping[str, bytes], ctx: bytes, *, width: int,
    size: int,
) -> list[int]:  # fmt: skip
    """The sum of the survivors' vectors. opened: survivors' seeds, and the private keys of the others."""
    word = WORD_BYTES[width]
    words = [0] * (len(next(iter(vectors.values()))) // word)
    for raw in vectors.values():
        own = [int.from_bytes(raw[i : i + word], "little") for i in range(0, len(raw), word)]
        words = [(a + b) % 2 ** (8 * word) for a, b in zip(words, own, strict=True)]
    for hub, secret in opened.items():
        if hub in vectors:
            left = mask_keys(hub, secret, bytes(32), {}, ctx)
        else:
            survivors = {other: points[other] for other in vectors}
            left = [(key, -sign) for key, sign in mask_keys(hub, bytes(32), secret, survivors, ctx)[1:]]
        words = add_masks(words, [(key, -sign) for key, sign in left], word)
    return unpack(words, width, size)
