"""Where networks are computed, and how exactly. Import this module where torch is needed, not above.

On a GPU two things would otherwise depend on the machine: convolutions in 19 bits (TensorFloat-32, PyTorch's default
there), by which a patient's part would be off by some 0.1 %, and algorithms that are picked by trying which is faster
for this many patients, so that her part would depend on how many others there are. Both are switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def device() -> Any:
    """A GPU if this machine has one that torch can use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def full_precision() -> Iterator[None]:
    """32 bits throughout, and the same algorithm for the same shapes; what was set before comes back afterwards."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = before
