"""ristretto255 and our proofs in plain integers, written from RFC 9496 and the docs: no libsodium, no code of ours.

Slow (a multiplication takes some 3 ms) and not constant-time: an oracle for vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T of the Edwards curve -x^2 + y^2 = 1 + D x^2 y^2."""
ZERO: Point = (0, 1, 1, 0)


def even(x: int) -> int:
    """RFC 9496 section 4.1: an element of the field is negative if it is odd; CT_ABS."""
    return P - x if x % 2 else x


def sqrt_ratio(u: int, v: int) -> tuple[bool, int]:
    """Section 4.2: (is u/v a square, its non-negative root or that of sqrt(-1)·u/v)."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    right, flipped = check == u % P, check == -u % P
    flipped_i = check == -u * SQRT_M1 % P
    if flipped or flipped_i:
        r = r * SQRT_M1 % P
    return right or flipped, even(r)


INVSQRT_A_MINUS_D = sqrt_ratio(1, (-1 - D) % P)[1]


def decode(raw: bytes) -> Point | None:
    """Section 4.3.1; None: no encoding."""
    s = int.from_bytes(raw, "little")
    if len(raw) != 32 or s >= P or s % 2:
        return None
    u1, u2 = (1 - s * s) % P, (1 + s * s) % P
    v = (-(D * u1 * u1) - u2 * u2) % P
    square, inverse = sqrt_ratio(1, v * u2 * u2 % P)
    dx, dy = inverse * u2 % P, inverse * inverse * u2 * v % P
    x, y = even(2 * s * dx % P), u1 * dy % P
    t = x * y % P
    return None if not square or t % 2 or y == 0 else (x, y, 1, t)


def encode(point: Point) -> bytes:
    """Section 4.3.2."""
    x0, y0, z0, t0 = point
    u1, u2 = (z0 + y0) * (z0 - y0) % P, x0 * y0 % P
    _, inverse = sqrt_ratio(1, u1 * u2 * u2 % P)
    d1, d2 = inverse * u1 % P, inverse * u2 % P
    z = d1 * d2 * t0 % P
    x, y, d = x0, y0, d2
    if t0 * z % P % 2:
        x, y, d = y0 * SQRT_M1 % P, x0 * SQRT_M1 % P, d1 * INVSQRT_A_MINUS_D % P
    if x * z % P % 2:
        y = -y % P
    return even(d * (z0 - y) % P).to_bytes(32, "little")


def add(p: Point, q: Point) -> Point:
    """Hisil et al. 2008, unified addition for a = -1."""
    x1, y1, z1, t1 = p
    x2, y2, z2, t2 = q
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * D * t1 * t2 % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def negate(p: Point) -> Point:
    return -p[0] % P, p[1], p[2], -p[3] % P


def multiply(scalar: int, p: Point) -> Point:
    result = ZERO
    for bit in bin(scalar % ORDER)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, p)
    return result


BASE = decode(bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76")) or ZERO
"""RFC 9496 appendix A.1, the first multiple."""


def known(raw: bytes) -> Point:
    point = decode(raw)
    if point is None:
        raise ValueError("no element")
    return point


def columns(raw: bytes) -> list[Point]:
    return [known(raw[i : i + 32]) for i in range(0, len(raw), 32)]


def challenge(label: str, *parts: bytes) -> int:
    """docs/proofs/threshold.md, "Challenges"."""
    full = b"flute/threshold/v1/" + label.encode()
    body = hashlib.sha256(len(full).to_bytes(8, "big") + full).digest() + len(parts).to_bytes(8, "big")
    body += b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    return int.from_bytes(hashlib.sha512(body).digest(), "little") % ORDER


def combined(weight: int, points: Sequence[Point]) -> Point:
    result, power = ZERO, 1
    for point in points:
        power = power * weight % ORDER
        result = add(result, multiply(power, point))
    return result


def pads_proof_holds(ctx: bytes, hub: str, pads: bytes, boxes: bytes, proof: tuple[bytes, bytes]) -> bool:
    c, z = (int.from_bytes(part, "little") for part in proof)
    first = add(multiply(z, BASE), negate(combined(c, columns(pads))))
    return c == challenge("pads", ctx, hub.encode(), pads, boxes, encode(first))


def parts_proof_holds(
    ctx: bytes, hub: str, public: bytes, summed: bytes, pads: bytes, parts: bytes, proof: tuple[bytes, bytes]
) -> bool:
    c, z = (int.from_bytes(part, "little") for part in proof)
    words = (ctx, hub.encode(), public, summed, pads, parts)
    weight = challenge("parts-weights", *words)
    pad, part = combined(weight, columns(pads)), combined(weight, columns(parts))
    first = add(multiply(z, BASE), negate(multiply(c, known(public))))
    second = add(multiply(z, pad), negate(multiply(c, part)))
    return c == challenge("parts", *words, *map(encode, (pad, part, first, second)))


def possession_holds(ctx: bytes, hub: str, elements: Sequence[bytes], proof: tuple[bytes, Sequence[bytes]]) -> bool:
    c, *responses = (int.from_bytes(part, "little") for part in (proof[0], *proof[1]))
    pairs = zip(responses, elements, strict=True)
    first = [encode(add(multiply(z, BASE), negate(multiply(c, known(e))))) for z, e in pairs]
    return c == challenge("possession", ctx, hub.encode(), b"".join(elements), b"".join(first))


def sums(all_columns: Sequence[bytes]) -> bytes:
    """Cell by cell."""
    totals = columns(all_columns[0])
    for column in all_columns[1:]:
        totals = [add(one, other) for one, other in zip(totals, columns(column), strict=True)]
    return b"".join(map(encode, totals))


def opened(boxes: bytes, parts: Sequence[tuple[int, bytes]], bound: int) -> list[int]:
    """Totals from the parts of hubs at these places, by trying every number within the bound."""
    found = []
    for i, box in enumerate(columns(boxes)):
        at = box
        for x, column in parts:
            weight = 1
            for other, _ in parts:
                if other != x:
                    weight = weight * other * pow(other - x, -1, ORDER) % ORDER
            at = add(at, negate(multiply(weight, columns(column)[i])))
        names = {encode(multiply(m, BASE)): m for m in range(-bound, bound + 1)}
        found.append(names[encode(at)])
    return found
