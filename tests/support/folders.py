"""Folders in memory where there is one: durable writes cost nothing there, and no test of ours cuts the power."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    where = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="flute-", dir=where, ignore_cleanup_errors=True) as name:
        yield Path(name)
