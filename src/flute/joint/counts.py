"""Tables of counts: every hub puts in its own, the sum stays shared."""

from __future__ import annotations

from typing import Final

from flute.errors import MisuseError, ProtocolAbortedError
from flute.joint.arithmetic import MAX_COUNT_BITS, reveal
from flute.mpc.field import Integers
from flute.mpc.party import Party
from flute.mpc.shares import Shares
from flute.mpc.steps import Step

TOTAL_BITS: Final = 50
"""Magnitude of the sum of all cells of all hubs, whatever they put in."""


def pooled(party: Party, mine: Integers, *, bits: int) -> Step[Shares]:
    """The sum of all hubs' tables of one shape, cell by cell.

    mine: this hub's counts. bits: public, all cells of all hubs together add up to less than 2^bits. That no cell
    is negative and that the total is in its bound is checked, for all sizes in what follows rest on it.
    Opens: that the total is in its bound.
    Costs: rounds: inputs, one comparison, one opening; products: about 2 bits narrow ones for each cell and hub.
    Raises: MisuseError: a negative count, or one too large, here. ProtocolAbortedError: the total is too large.
    """
    if not 2 <= bits <= MAX_COUNT_BITS:
        raise MisuseError(f"Counts take 2 to {MAX_COUNT_BITS} bits, not {bits}.")
    if mine.size and not 0 <= int(mine.min()) <= int(mine.sum()) < 2**bits - 1:
        raise MisuseError(f"Counts of a table lie from 0 to below 2^{bits} - 1 together. Nothing was sent.")
    if mine.size * party.hubs >= 2 ** (TOTAL_BITS - bits):
        raise MisuseError("The table has too many cells.")
    top = (1 << (bits - 1)) - 1
    shapes = dict.fromkeys(range(1, party.hubs + 1), mine.shape)
    tables = yield from party.inputs(top - mine, shapes, bound=bits - 1)
    parts = [top - tables[place] for place in sorted(tables)]  # what passes for an input becomes 0 to 2^bits - 1
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    fits = yield from party.less_than_zero(total.sum().reshape(1) - (1 << bits), TOTAL_BITS)
    if int((yield from reveal(party, fits))[0]) != 1:
        raise ProtocolAbortedError(
            f"All hubs' counts together reach 2^{bits}: agree on larger counts, or a hub put in what is no table. "
            "Nothing was opened."
        )
    return total
