"""The digest of the code that answers questions: what hubs approve and compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from flute.errors import MisuseError
from flute.primitives.keys import digest
from flute.questions.registry import ENTRY_POINTS

_ROOMS: Final = (
    "aggregation", "algorithms", "attestation", "dp", "enclaves", "joint", "models", "mpc", "questions", "summaries",
    "threshold",
)  # fmt: skip
"""What decides on privacy when a question runs."""


@lru_cache(maxsize=1)
def code_digest() -> bytes:
    """32 bytes over path and source of every module in _ROOMS and in packages that register algorithms, as installed.

    Line ends count: an installation that rewrote them runs other bytes than the ones approved.
    """
    parts = [b"flute/code/v1"]
    for room in _ROOMS:
        parts += _modules(room, files("flute").joinpath(room))
    for package in sorted({point.module.partition(".")[0] for point in entry_points(group=ENTRY_POINTS)}):
        parts += _installed(package)
    return digest(*parts)


def _installed(package: str) -> Iterator[bytes]:
    """Of a package, or of a module that stands alone. Raises: MisuseError: neither is there as source."""
    found = find_spec(package)
    if found is not None and found.submodule_search_locations:
        yield from _modules(package, files(package))
    elif found is not None and found.origin and found.origin.endswith(".py"):
        yield package.encode()
        yield hashlib.sha256(Path(found.origin).read_bytes()).digest()
    else:
        raise MisuseError(f"The source of {package}, which registers algorithms, is not to be found.")


def _modules(path: str, folder: Traversable) -> Iterator[bytes]:
    """Path and digest of every module in and below a folder, in order."""
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _modules(f"{path}/{entry.name}", entry)
        elif entry.name.endswith(".py"):
            yield f"{path}/{entry.name}".encode()
            yield hashlib.sha256(entry.read_bytes()).digest()
