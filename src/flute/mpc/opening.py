"""Opening values: outputs, and values under masks.

A mask is a sum of one bounded integer per group of hubs. It fills the ring as far as no sum can wrap around, so that
a smaller value is hidden better; the smallest hiding that is allowed is 2^-HIDING_BITS.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from flute.defaults.joint import HIDING_BITS
from flute.errors import MisuseError
from flute.mpc.field import NARROW, WIDE, Elements, Integers, Ring, join, modulus, to_signed
from flute.mpc.setup import Circle
from flute.mpc.shares import Shares
from flute.mpc.steps import Place, Step

if TYPE_CHECKING:
    from flute.mpc.party import Party


@dataclass(frozen=True, slots=True)
class Room:
    """How large masks are, and values under them, for this many hubs. All in bits."""

    circle: Circle

    @property
    def groups(self) -> int:
        """C: summands of a mask."""
        return comb(self.circle.hubs, self.circle.corrupt)

    def mask_bits(self, ring: Ring) -> int:
        """Each group draws from [0, 2^this): C · 2^this + any value stays below the modulus."""
        spare = modulus(ring) - modulus(ring) // 2**8
        return (spare // self.groups).bit_length() - 1

    @property
    def wide_bits(self) -> int:
        """|x| < 2^this is hidden to 2^-HIDING_BITS: x takes one bit more for its sign."""
        return self.mask_bits(WIDE) - HIDING_BITS - 1

    @property
    def narrow_bits(self) -> int:
        """0 <= x < 2^this."""
        return self.mask_bits(NARROW) - HIDING_BITS

    def require(self, bound: int) -> int:
        if not 1 <= bound <= self.wide_bits:
            raise MisuseError(f"A value of {bound} bits cannot be hidden here; at most {self.wide_bits} are.")
        return bound


def open_output(party: Party, x: Shares, to: Place | None) -> Step[Integers | None]:
    """Steps: 1 verify all products; 2 every hub confirms; 3 shares are shown, and have to fit.

    An output for one hub is shown to all under a mask that this hub alone knows, so that all check the shares.
    """
    yield from party.products.verify()  # 1
    yield from party.wire.exchange()  # 2
    values, masks = x.values, None
    if to is not None:
        drawn = [party.chance.owned(prime, to, x.shape) for prime in x.ring]
        values = tuple(prime.add(v, share) for prime, v, (share, _) in zip(x.ring, x.values, drawn, strict=True))
        masks = [mask for _, mask in drawn]
    opened = yield from party.wire.exchange(shares=list(zip(x.ring, values, strict=True)))  # 3
    shown = opened.shares
    if masks is not None:
        if to != party.me:
            return None
        shown = [prime.sub(v, m) for prime, v, m in zip(x.ring, shown, masks, strict=True) if m is not None]
    signed = to_signed(x.ring, shown)
    small = all(-(2**63) <= int(v) < 2**63 for v in (signed.min(), signed.max())) if signed.size else True
    return signed.astype(np.int64) if small else signed


def join_in_range(party: Party, residues: list[Elements], ring: Ring) -> tuple[Elements, Elements]:
    """An opened masked number as high · 2^61 + low. Raises: Cheating: above every honest sum of masks."""
    high, low = join(residues) if len(ring) == 2 else (np.zeros_like(residues[0]), residues[0])
    limit = party.room.groups * 2 ** party.room.mask_bits(ring) + modulus(ring) // 2**9
    over = high > np.uint64(limit >> 61) if len(ring) == 2 else low > np.uint64(min(limit, 2**61 - 1))
    if bool(over.any()):
        raise party.wire.stop(
            "A masked number opened out of range: a hub falsified it, or the program let a value grow."
        )
    return high, low
