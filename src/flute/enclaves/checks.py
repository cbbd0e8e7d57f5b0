"""Check numbers: how a total that an aggregator changed is noticed.

A key that hubs and the coordinator know, and aggregators do not, picks CHECKS random subsets of a vector's words.
Every hub puts the sum of each subset behind its words, before it splits all of them; these sums add up like the words
do. A change of the total that does not change a check number rightly is noticed. For a change d of the words, not all
zero, and e of a check number: whether a word that d changes is in the subset is a fair coin independent of the rest,
and the two ways it falls ask for different e, so at most one of them passes. All CHECKS: chance 2^-CHECKS at most,
whatever the width and the change, and however it depends on what all aggregators but one see together.

The check numbers of a total follow from the total and the key, so nobody learns more from them.
"""

from __future__ import annotations

import numpy as np

from flute.defaults.enclaves import CHECK_PART, CHECKS
from flute.enclaves.context import info
from flute.errors import BadTotal, MisuseError
from flute.primitives.keys import derive
from flute.primitives.prg import Stream
from flute.primitives.ring import Ring, check_ring

_BYTES_PER_WORD = CHECKS // 8


def check_numbers(words: Ring, check_key: bytes) -> Ring:
    """The CHECKS subset sums of `words`, of their width."""
    check_ring(words)
    coins = Stream(derive(check_key, info=info("checks")))
    sums = np.zeros(CHECKS, dtype=words.dtype)
    for start in range(0, words.size, CHECK_PART):
        part = words[start : start + CHECK_PART]
        (block,) = coins.blocks(_BYTES_PER_WORD * part.size)
        bits = np.unpackbits(np.frombuffer(block, dtype=np.uint8).reshape(part.size, _BYTES_PER_WORD), axis=1)
        sums += part @ bits.astype(words.dtype)
    return sums


def with_checks(words: Ring, check_key: bytes) -> Ring:
    """`words` [n] followed by their check numbers: [n + CHECKS]."""
    return np.concatenate([words, check_numbers(words, check_key)])


def without_checks(total: Ring, check_key: bytes) -> Ring:
    """The words of a total whose check numbers are right; a view of `total`.

    Raises: BadTotal: they are not. MisuseError: a vector that has none.
    """
    if total.size <= CHECKS:
        raise MisuseError("A vector with check numbers is longer than they are.")
    words, checks = total[:-CHECKS], total[-CHECKS:]
    if not np.array_equal(check_numbers(words, check_key), checks):
        raise BadTotal(
            "What the aggregators gave is not the sum of what the hubs sealed: its check numbers are wrong. An "
            "aggregator changed its part, or a hub sealed other numbers than it should. The total is not used; the "
            "round stays charged."
        )
    return words
