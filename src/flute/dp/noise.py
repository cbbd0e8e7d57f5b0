"""Discrete Gaussian noise by inversion of a table, drawn from an AES-256 keystream.

A draw inverts the distribution function at one uniform number of 256 bits, of which only as many are looked
at as are needed to decide: 16, then 8 more, 40 more, and 192 more only where the earlier ones leave it open.
That is exact inversion at 256 bits, not an approximation at 16.

Not constant-time: how many bits a draw needs depends on its value. Sources: N_Z(0, sigma^2) is that of
Canonne, Kamath and Steinke 2020 (Definition 1); lazy inversion, Knuth and Yao 1976.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from flute.defaults import MAX_HUB_SIGMA, MAX_VECTOR
from flute.errors import MisuseError

SEED_SIZE: Final = 32
MIN_SIGMA: Final = 0.5
MAX_TABLE_SIGMA: Final = 1_950.0
"""Table values are int16 and reach 16 sigma, 31,200 here; above, four draws of half the sigma are added."""

_TAIL: Final = 16
_PRECISION: Final = 384
_BITS: Final = 256
_OPEN: Final = np.int16(-(2**15))
_BLOCK: Final = 2**16
_SHORT, _BYTES, _WORDS, _LAST = 1, 2, 3, 4


class Keystream:
    """AES-256 in counter mode under a 32-byte seed. `label` 0..255: streams of one seed never overlap.

    The label is the counter block's first byte; the 2^120 blocks below it are never used up.
    Source: NIST SP 800-38A section 6.5.
    """

    def __init__(self, seed: bytes, label: int) -> None:
        if len(seed) != SEED_SIZE:
            raise MisuseError(f"A seed must be {SEED_SIZE} fresh bytes; this one has {len(seed)}.")
        self._stream = Cipher(AES256(seed), CTR(bytes([label]) + bytes(15))).encryptor()

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        return self._stream.update(bytes(size))


@dataclass(frozen=True, slots=True)
class Table:
    """Everything a draw at one sigma looks up.

    thresholds: floor(2^256 F(x)) for x = -reach .. reach-1; a uniform 256-bit U means -reach + #{t <= U}.
    first: int16 [65536], the value decided by the first 16 bits, or _OPEN. rows: int32 [65536], for open
    ones the row of `second`: int16 [open, 256], decided by 8 more bits, or _OPEN. top: uint64, the
    thresholds' first 64 bits.
    """

    reach: int
    thresholds: list[int]
    top: NDArray[np.uint64]
    first: NDArray[np.int16]
    rows: NDArray[np.int32]
    second: NDArray[np.int16]


def discrete_gaussian(sigma: float, size: int, rand: bytes) -> NDArray[np.int64]:
    """`size` independent draws of the discrete Gaussian N_Z(0, sigma^2), int64 [size].

    Guarantees, given uniform bits: a draw's distribution is within 2^-180 (total variation) of the exact one,
    so any vector of ours is within 2^-128. For sigma up to MAX_TABLE_SIGMA:
      1 tail: values beyond T = ceil(16 sigma) are left out; P(|X| > T) <= 2 exp(-128) < 2^-183
        (Chernoff with E exp(tX) <= exp(t^2 sigma^2/2), since a shifted lattice sum of a Gaussian is never
        larger than the unshifted one: Poisson summation);
      2 weights exp(-x^2/2sigma^2) come from integer arithmetic with 384 fraction bits. r, q are off by under
        2^-383 and each truncated product by 2^-384, so r q^x is off by under (x+1) 2^-382, a weight by under
        T^2 2^-382, all together by under (2T+1) T^2 2^-382 < 2^-336 for T <= 31,200; their sum is at least 1;
      3 each of 2 T thresholds is rounded down to 256 bits: under 2 T 2^-256 < 2^-240 together.
    Above MAX_TABLE_SIGMA a value is the sum of 4 (16, 64, ...) draws at sigma/2 (sigma/4, ...). The
    variances add up to sigma^2. A sum of discrete Gaussians is not one, but pointwise within a factor of
    e^(+-tau), tau = 10 sum_k exp(-2 pi^2 s^2 k/(k+1)) <= 10 (j-1) exp(-pi^2 s^2) for j draws at s (Kairouz,
    Liu, Steinke 2021, "The distributed discrete Gaussian mechanism", on sums); s >= 975 makes that less than
    10^-4,000,000.
    The keystream adds a computational assumption: AES-256 in counter mode is a pseudorandom generator.

    Args: sigma: from 0.5 to MAX_HUB_SIGMA. The sampler is exact down to 0.5, but noise that several hubs add
        up is close to a discrete Gaussian only from MIN_HUB_SIGMA on; `calibrate.Mechanism` sees to that.
        rand: SEED_SIZE bytes, **fresh operating-system entropy for every release**. A seed used twice gives
        the same noise twice, and the difference of two answers is then exact. Never store or derive it.
    Raises: MisuseError: sigma outside that range, size negative or above MAX_VECTOR, a seed of another length.
    """
    if not MIN_SIGMA <= sigma <= MAX_HUB_SIGMA:
        raise MisuseError(f"Noise can be drawn for sigma from {MIN_SIGMA} to {MAX_HUB_SIGMA:g}, not {sigma}.")
    if not 0 <= size <= MAX_VECTOR:
        raise MisuseError(f"Noise can be drawn for up to {MAX_VECTOR} coordinates, not {size}.")
    pieces = 1
    while sigma > MAX_TABLE_SIGMA:
        sigma, pieces = sigma / 2, pieces * 4
    table = table_for(float(sigma))
    streams = _Streams(rand)
    total = np.zeros(size, dtype=np.int64)
    for start in range(0, size, _BLOCK):
        block = total[start : start + _BLOCK]
        for _ in range(pieces):
            block += _draw(table, streams, len(block))
    return total


class _Streams:
    """One keystream per level of a draw, so that each level reads its own bits and none is read twice."""

    def __init__(self, seed: bytes) -> None:
        self.short, self.bytes, self.words, self.last = (
            Keystream(seed, label) for label in (_SHORT, _BYTES, _WORDS, _LAST)
        )


def _draw(table: Table, streams: _Streams, size: int) -> NDArray[np.int16]:
    """`size` draws at the table's sigma: 16 bits for all, 8 more where open, the rest where still open."""
    short = np.frombuffer(streams.short.take(2 * size), dtype="<u2")
    values: NDArray[np.int16] = table.first[short]
    left = np.flatnonzero(values == _OPEN)
    if not len(left):
        return values
    more = np.frombuffer(streams.bytes.take(len(left)), dtype=np.uint8)
    prefix = short[left]
    decided = table.second[table.rows[prefix], more]
    values[left] = decided
    still = np.flatnonzero(decided == _OPEN)
    if len(still):
        words = np.frombuffer(streams.words.take(8 * len(still)), dtype="<u8") >> np.uint64(24)
        bits24 = (prefix[still].astype(np.uint64) << np.uint64(8)) | more[still]
        values[left[still]] = _by_64_bits(table, (bits24 << np.uint64(40)) | words, streams.last)
    return values


def _by_64_bits(table: Table, keys: NDArray[np.uint64], last: Keystream) -> NDArray[np.int64]:
    """Values for uniform numbers whose first 64 bits are `keys`; 192 more are drawn where a key is a tie."""
    low = np.searchsorted(table.top, keys, side="left")
    high = np.searchsorted(table.top, keys, side="right")
    for i in np.flatnonzero(low != high):
        uniform = (int(keys[i]) << 192) | int.from_bytes(last.take(24), "big")
        low[i] = bisect_right(table.thresholds, uniform)
    return low.astype(np.int64) - table.reach


@lru_cache(maxsize=8)
def table_for(sigma: float) -> Table:
    """The inversion table at `sigma` (MIN_SIGMA..MAX_TABLE_SIGMA); a few MB, kept for the next call."""
    reach = math.ceil(_TAIL * sigma)
    thresholds = _thresholds(sigma, reach)
    top = np.array([t >> (_BITS - 64) for t in thresholds], dtype=np.uint64)
    first = _decide(top >> np.uint64(48), np.arange(2**16, dtype=np.uint64), reach)
    open16 = np.flatnonzero(first == _OPEN).astype(np.uint64)
    rows = np.zeros(2**16, dtype=np.int32)
    rows[open16] = np.arange(len(open16), dtype=np.int32)
    keys = (open16[:, None] << np.uint64(8)) | np.arange(256, dtype=np.uint64)
    second = _decide(top >> np.uint64(40), keys.ravel(), reach).reshape(len(open16), 256)
    for array in (top, first, rows, second):
        array.setflags(write=False)
    return Table(reach, thresholds, top, first, rows, second)


def _decide(tops: NDArray[np.uint64], keys: NDArray[np.uint64], reach: int) -> NDArray[np.int16]:
    """The value that a uniform number beginning with each key has, or _OPEN where a threshold shares the key."""
    low = np.searchsorted(tops, keys, side="left")
    high = np.searchsorted(tops, keys, side="right")
    values: NDArray[np.int16] = np.where(low == high, low - reach, _OPEN).astype(np.int16)
    return values


def _thresholds(sigma: float, reach: int) -> list[int]:
    """floor(2^256 F(x)), x = -reach .. reach-1, F the distribution function of N_Z cut at +-reach.

    weight(x+1) = weight(x) r q^x with r = exp(-1/2sigma^2), q = r^2: two integer products per value.
    """
    exponent = 1 / (2 * Fraction(sigma) ** 2)
    ratio, step = _exp_minus(exponent), _exp_minus(2 * exponent)
    half = [1 << _PRECISION]
    for _ in range(reach):
        half.append((half[-1] * ratio) >> _PRECISION)
        ratio = (ratio * step) >> _PRECISION
    weights = half[:0:-1] + half[:-1]
    total = sum(weights) + half[-1]
    thresholds, below = [], 0
    for weight in weights:
        below += weight
        thresholds.append((below << _BITS) // total)
    return thresholds


def _exp_minus(y: Fraction) -> int:
    """exp(-y) with 384 fraction bits for 0 < y <= 4, off by under 2^-383: Taylor's series in integers."""
    scaled = (y.numerator << (_PRECISION + 32)) // y.denominator
    term = total = 1 << (_PRECISION + 32)
    k = 0
    while term:
        k += 1
        term = ((term * scaled) >> (_PRECISION + 32)) // k
        total += -term if k % 2 else term
    return total >> 32
