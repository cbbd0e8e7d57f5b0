"""Masks and enclaves together: hubs mask their vectors as in plan `secagg`, then split the masked ones.

Aggregators in enclaves add up shares of masked vectors; what comes out of them is the sum of these vectors, still
under every hub's self mask, and opens with a threshold of hubs' shares, as in `secagg`. An answer stays closed as
long as either holds: one honest enclave, or masks (no more hubs colluding than agreed). All enclaves malicious: they
see masked vectors, which is what plan `secagg` shows its coordinator. More hubs colluding than agreed: masks may open
a single vector, and no vector is there to open, only a sum over all hubs.

The order: message 1 of `secagg` is made by `aggregation.member`, but does not leave; `split_words` takes its vector.
Nor does its signed hash leave: whoever knew the masks could try out answers by it, which an honest enclave is there
to prevent. What a hub put in is signed all the same, as its list of boxes, and the round among enclaves is bound to
message 0 of the masks (`study.plans.enclaved.split_digest`). Then survivors (all hubs), echo, shares;
`collector.total_words` gives `words` here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds, Layout, read_total
from flute.aggregation.masks import MaskKey, MaskStreams, opposite
from flute.enclaves.hub import Admitted, split_words
from flute.messages.enclave import EnclaveBoxes
from flute.primitives.keys import SigningKey
from flute.primitives.ring import Ring, from_bytes


def split_masked(admitted: Admitted, masked: bytes, *, me: str, key: SigningKey, rand: bytes) -> EnclaveBoxes:
    """Shares of a vector under masks (`Masked.vector`) instead of the vector. Raises: Malformed: another length.
    MisuseError."""
    layout = admitted.layout
    words = from_bytes(masked, layout.block_words(0), layout.word_bytes)
    return split_words(admitted, words, me=me, key=key, rand=rand)


def open_masked(
    words: Ring, masks: Iterable[MaskKey], layout: Layout, *, hubs: int, bounds: Bounds
) -> NDArray[np.int64]:
    """The total int64 [size] of what the enclaves gave, once hubs have shown their shares of the masks' keys.

    words: of `collector.total_words`. masks: what is left in the sum over all hubs (`aggregation`'s `Unmasking`).
    Raises: BadTotal: sentinels or bounds do not hold.
    """
    opened = words.copy()
    MaskStreams(opposite(masks)).add_to(opened)
    return read_total(opened, layout, survivors=hubs, bounds=bounds).astype(np.int64)
