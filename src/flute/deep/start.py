"""Initial weights, from the public seed: the same at every party, on every machine, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from flute.data.variables import Array
from flute.deep.parameter import Parameter
from flute.primitives.keys import digest
from flute.primitives.prg import keystream

_LABEL: Final = b"flute/network/start/v1"


def start_weights(parameters: Sequence[Parameter], seed: int) -> Array:
    """float64 [total], each a number of 32 bits, as weights are kept.

    Every parameter has a stream of its own, so one layer more does not change where the others start. Public: nothing
    is hidden behind it.
    Source: He et al. 2015 (uniform, by the number of inputs), in the form that torch uses for its own layers."""
    return np.concatenate([_one(parameter, seed) for parameter in parameters])


def _one(parameter: Parameter, seed: int) -> Array:
    if not parameter.bound:
        return np.full(parameter.size, np.float32(parameter.centre), dtype=np.float64)
    key = digest(_LABEL, seed.to_bytes(8, "little"), parameter.name.encode())
    words = np.frombuffer(keystream(key, 4 * parameter.size), dtype="<u4")
    part = (words.astype(np.float64) + 0.5) / 2.0**31 - 1.0
    return (parameter.centre + parameter.bound * part).astype(np.float32).astype(np.float64)
