"""Discrete Gaussian noise, drawn from a table with an AES-256 keystream.

A draw looks up 16 uniform bits; where these leave it open (one in eleven at most) 16 fresh ones in the next level's
table, and so on, and at the end inverts what is left at 256 bits. Levels split the probabilities exactly, so that is
exact to 256 bits, not an approximation at 16. Above MAX_TABLE_SIGMA a value is COARSE times one such draw plus
another.

Not constant-time: how many bits a draw needs depends on its value. Sources: tables.py; coarse plus fine, Peikert
2010, "An efficient and parallel Gaussian sampler for lattices", and Micciancio and Walter 2017, "Gaussian sampling
over the integers". Proof: docs/proofs/noise.md.
"""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from flute.defaults import MAX_VECTOR
from flute.dp.tables import LAST_BYTES, MAX_TABLE_SIGMA, OPEN, Table, table_for
from flute.errors import MisuseError

SEED_SIZE: Final = 32
MIN_SIGMA: Final = 0.5
COARSE: Final = 64
"""k: a large value is k times a coarse draw plus a fine one. Fine noise spans four coarse steps, see FINE_SIGMA."""
FINE_SIGMA: Final = 4 * COARSE
"""Deviation of the fine draw, the same for every sigma, so that one table serves all of them."""
MAX_SIGMA: Final = COARSE * MAX_TABLE_SIGMA
"""124,800: the coarse draw's deviation is then still within a table's."""

_BLOCK: Final = 2**17
"""Draws at a time: few enough for the second-level cache, enough that a call's own cost does not count."""
_ZEROS: Final = memoryview(bytes(2 * _BLOCK))
SPARE: Final = 15
"""`update_into` wants a block less one byte of room."""
_LABEL: Final = 1
"""Keystream of noise; rounding has another (clip.py)."""


class Keystream:
    """AES-256 in counter mode under a 32-byte seed. `label` 0..255: streams of one seed never overlap.

    The label is the counter block's first byte; the 2^120 blocks below it are never used up.
    Source: NIST SP 800-38A section 6.5.
    """

    def __init__(self, seed: bytes, label: int) -> None:
        if len(seed) != SEED_SIZE:
            raise MisuseError(f"A seed must be {SEED_SIZE} fresh bytes; this one has {len(seed)}.")
        self._stream = Cipher(AES256(seed), CTR(bytes([label]) + bytes(15))).encryptor()

    def take(self, size: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The next `size` bytes, uint8 [size]: the start of `into` (size + SPARE bytes or more) where given."""
        zeros = _ZEROS[:size] if size <= len(_ZEROS) else bytes(size)
        buffer = np.empty(size + SPARE, dtype=np.uint8) if into is None else into
        self._stream.update_into(zeros, buffer.data)
        return buffer[:size]


def discrete_gaussian(sigma: float, size: int, rand: bytes) -> NDArray[np.int64]:
    """`size` independent draws of the discrete Gaussian N_Z(0, sigma^2), int64 [size].

    Guarantees, given uniform bits: a draw's distribution is within 2^-180 (total variation) of the exact one,
    so any vector of ours is within 2^-158.
    Up to MAX_TABLE_SIGMA it is looked up in one table (`table_for`: within 2^-183).
    Above, X = k Y + Z with k = 64, Z of deviation s2 = 256 and Y of variance s1^2 = (sigma^2 - s2^2)/k^2, all
    exact fractions: k^2 s1^2 + s2^2 = sigma^2. Summing over y and completing the square,
        P(X = x) = const exp(-x^2/2sigma^2) sum_y exp(-(y - c)^2/2t^2),  t = s1 s2/sigma,  c = k s1^2 x/sigma^2,
    and by Poisson summation the sum over y is the same for all x up to a factor 1 +- e, e = 2 sum_j>0
    exp(-2 pi^2 t^2 j^2). So P(X = x) is N_Z(0, sigma^2)'s times a factor within e^(+-tau), tau = ln (1+e)/(1-e),
    which is below 2^-445 since t >= 3.96 from sigma 1,950 on. With the two tables' errors: within 2^-182.
    The keystream adds a computational assumption: AES-256 in counter mode is a pseudorandom generator.

    Args: sigma: from 0.5 to MAX_SIGMA. The sampler is exact down to 0.5, but noise that several hubs add
        up is close to a discrete Gaussian only from MIN_HUB_SIGMA on; `calibrate.Mechanism` sees to that.
        rand: SEED_SIZE bytes, **fresh operating-system entropy for every release**. A seed used twice gives
        the same noise twice, and the difference of two answers is then exact. Never store or derive it.
    Raises: MisuseError: sigma outside that range, size negative or above MAX_VECTOR, a seed of another length.
    """
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise MisuseError(f"Noise can be drawn for sigma from {MIN_SIGMA} to {MAX_SIGMA:g}, not {sigma}.")
    if not 0 <= size <= MAX_VECTOR:
        raise MisuseError(f"Noise can be drawn for up to {MAX_VECTOR} coordinates, not {size}.")
    first, *finer = [table_for(variance) for variance in layers_of(sigma)]
    stream = Keystream(rand, _LABEL)
    total = np.empty(size, dtype=np.int64)
    for start in range(0, size, _BLOCK):
        block = total[start : start + _BLOCK]
        block[:] = _draw(first, stream, len(block))
        for table in finer:
            block *= COARSE
            block += _draw(table, stream, len(block))
    return total


def layers_of(sigma: float) -> list[Fraction]:
    """The exact variances of what a draw at `sigma` is made of, coarsest first: sigma^2 alone, or (coarse, fine)
    with COARSE^2 coarse + fine = sigma^2."""
    variance = Fraction(sigma) ** 2
    if sigma <= MAX_TABLE_SIGMA:
        return [variance]
    fine = Fraction(FINE_SIGMA) ** 2
    return [(variance - fine) / COARSE**2, fine]


def _draw(table: Table, stream: Keystream, size: int, level: int = 0) -> NDArray[np.int16]:
    """`size` draws of what the levels before `level` leave open; all of the table's law at level 0."""
    if level == len(table.levels):
        return _invert(table, stream, size)
    values: NDArray[np.int16] = table.levels[level].take(stream.take(2 * size).view("<u2"))
    left = _open_places(values)
    if len(left):
        values[left] = _draw(table, stream, len(left), level + 1)
    return values


def _open_places(values: NDArray[np.int16]) -> NDArray[np.intp]:
    """Where `values` are OPEN, ascending.

    numpy looks for few True entries one by one and passes over many without branching, by which side of a tenth
    they are on; one by one is slower from one in 25 on. There, True entries are appended and taken off again.
    """
    size, spare = len(values), len(values) // 8
    mask = np.ones(size + spare, dtype=np.bool_)
    np.equal(values, OPEN, out=mask[:size])
    if 25 * np.count_nonzero(mask[:size]) < size:
        return np.flatnonzero(mask[:size])
    places = np.flatnonzero(mask)
    return places[: len(places) - spare]


def _invert(table: Table, stream: Keystream, size: int) -> NDArray[np.int16]:
    """`size` draws of what all levels leave open, each from a uniform number of 256 bits."""
    numbers = (int.from_bytes(stream.take(LAST_BYTES).tobytes(), "big") for _ in range(size))
    return np.array([bisect_right(table.last, number) - table.reach for number in numbers], dtype=np.int16)
