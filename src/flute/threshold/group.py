"""The group ristretto255: a thin, typed skin over libsodium's, through `rbcl`.

`Element` says that the bytes are the one valid encoding of a group element: `read_element` made it, or an operation
of this module did. That matters, since the library's addition answers an encoding that is none with the identity,
without a word. Scalars are `int` below ORDER.

Processor time of one operation, on a core by itself and on one with busy neighbours: multiplication of the base 18 to
35 us, of any element 51 to 105, addition 17 to 25, check of an encoding 6 to 9; a product of scalars in Python's
integers .6 us, SHA-512 of 96 kB .2 ms. So only multiplications and additions of elements count. Buckets (Pippenger)
do not pay here: an addition decodes and encodes, and costs a third of a multiplication; nor do short scalars.
Not constant-time: Python's integers. Multiplications of elements by secrets are libsodium's and are.
Source: RFC 9496 (ristretto255); hash to scalar as in RFC 9496 section 4.4: 64 bytes reduced, within 2^-259 of
uniform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NewType

import rbcl
from rbcl._sodium import lib_path

from flute.errors import Malformed, MisuseError
from flute.primitives.keys import digest

Path(lib_path).unlink(missing_ok=True)
"""The package unpacks libsodium into the folder for temporary files each time it is imported, and leaves it there:
2.7 MB a process. Once loaded, the file is not needed any more."""

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
SIZE: Final = 32
"""Bytes of an element, and of a scalar."""
WIDE: Final = 64
"""Random bytes behind one scalar."""
Element = NewType("Element", bytes)
IDENTITY: Final = Element(bytes(SIZE))
_NO_ELEMENT: Final = "A message holds what is not an element of the group that keys and sums are made in."


def read_element(raw: bytes) -> Element:
    """Raises: Malformed: not the one encoding of an element, or the identity, which no honest party ever sends.

    The highest bit is looked at here: the bundled libsodium ignores it, and every element would have two encodings.
    """
    if len(raw) != SIZE or raw[-1] >> 7 or raw == IDENTITY:
        raise Malformed(_NO_ELEMENT)
    if not rbcl.crypto_core_ristretto255_is_valid_point(raw):
        raise Malformed(_NO_ELEMENT)
    return Element(raw)


def read_elements(column: bytes, count: int) -> tuple[Element, ...]:
    """Elements one after the other. Raises: Malformed: as `read_element`, or not `count` of them."""
    if len(column) != SIZE * count:
        raise Malformed(f"A message should hold {count} elements of the group; it holds another number.")
    return tuple(map(read_element, slices(column, SIZE)))


def slices(column: bytes, size: int) -> list[bytes]:
    return [column[i : i + size] for i in range(0, len(column), size)]


def read_scalar(raw: bytes) -> int:
    """Raises: Malformed: not below the order, so not the one encoding of a scalar."""
    number = int.from_bytes(raw, "little")
    if len(raw) != SIZE or number >= ORDER:
        raise Malformed("A message holds a number outside the range that proofs and shares are made in.")
    return number


def write_scalar(scalar: int) -> bytes:
    return scalar.to_bytes(SIZE, "little")


def scalar_from(rand: bytes) -> int:
    """A uniform scalar from WIDE random bytes. Raises: MisuseError: another size."""
    if len(rand) != WIDE:
        raise MisuseError("A scalar is made from 64 random bytes; another number was given.")
    return int.from_bytes(rand, "little") % ORDER


def scalars_from(rand: bytes, count: int) -> list[int]:
    """Raises: MisuseError: not WIDE bytes for each."""
    if len(rand) != WIDE * count:
        raise MisuseError(f"{count} scalars are made from {WIDE * count} random bytes; another number was given.")
    return [scalar_from(piece) for piece in slices(rand, WIDE)]


def hash_to_scalar(label: bytes, *parts: bytes) -> int:
    """A challenge (Fiat and Shamir 1986). label: what for, so that no two purposes share an oracle; parts: everything
    that the challenge has to depend on, each length-prefixed."""
    prefix = digest(label) + len(parts).to_bytes(8, "big")
    state = hashlib.sha512(prefix)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return int.from_bytes(state.digest(), "little") % ORDER


def add(one: Element, other: Element) -> Element:
    return Element(rbcl.crypto_core_ristretto255_add(one, other))


def subtract(one: Element, other: Element) -> Element:
    return Element(rbcl.crypto_core_ristretto255_sub(one, other))


def multiply(scalar: int, element: Element) -> Element:
    scalar %= ORDER
    if scalar == 0 or element == IDENTITY:
        return IDENTITY
    return Element(rbcl.crypto_scalarmult_ristretto255(write_scalar(scalar), element))


def multiply_base(scalar: int) -> Element:
    """scalar·G, G the group's generator."""
    scalar %= ORDER
    return Element(rbcl.crypto_scalarmult_ristretto255_base(write_scalar(scalar))) if scalar else IDENTITY


def total(elements: Iterable[Element]) -> Element:
    result = IDENTITY
    for element in elements:
        result = add(result, element)
    return result


def powers(scalar: int, count: int) -> list[int]:
    """scalar, scalar^2, ..., scalar^count modulo ORDER: weights of a random linear combination. If two columns differ
    anywhere, their combinations agree for at most `count` of all scalars."""
    result, weight = [], 1
    for _ in range(count):
        weight = weight * scalar % ORDER
        result.append(weight)
    return result


def weighted(weights: Sequence[int], elements: Sequence[Element]) -> Element:
    """The sum of weight·element. Raises: MisuseError: not as many of one as of the other."""
    if len(weights) != len(elements):
        raise MisuseError("As many weights as elements are needed.")
    return total(map(multiply, weights, elements))


def evaluate(coefficients: Sequence[Element], x: int) -> Element:
    """A polynomial given in the exponent, constant first, at x."""
    result = IDENTITY
    for coefficient in reversed(coefficients):
        result = add(multiply(x, result), coefficient)
    return result
