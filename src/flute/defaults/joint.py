"""Constants of multiparty computation, with unit and reason."""

from __future__ import annotations

from typing import Final

MIN_HUBS: Final = 3
"""With two hubs one corrupt hub is no minority."""
MAX_GROUPS: Final = 1_000
"""Groups that share a key: n hubs, t of them corrupt, make C(n, t); 12 hubs with 5 corrupt make 792. Beyond, a random
value costs more than a product."""
HIDING_BITS: Final = 40
"""Statistical hiding of a masked opening: two secrets give views that differ by at most 2^-40 each."""
CHECKS: Final = 2
"""Independent random combinations per prime in a verification. Whoever cheats may try as many transcripts as it can
hash; one combination alone would let 2^58 tries pass, two 2^116."""
DIGEST_BYTES: Final = 32
"""Of the transcript, ahead of every message."""
MAX_ROUND_BYTES: Final = 256 * 2**20
"""What a hub may be asked to send to another in one round. A program that needs more has to work in pieces."""
MAX_INPUT_BITS: Final = 60
"""Magnitude of an input: |v| < 2^60 fits int64 with room for its offset."""
KEY_BYTES: Final = 32
"""Group keys, and the fresh randomness that each dealer expands."""
