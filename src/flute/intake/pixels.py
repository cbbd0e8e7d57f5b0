"""Images beside a snapshot: `records/pixels/<digest>`, one file per image, named by the SHA-256 of what it holds.

A snapshot's image column holds those digests, so its own digest changes with one number of one image. A file is
private to its owner and checked against its name each time it is read. The layout of a file:
    b"flute/image/v1", the number of sides (1 byte), each side (uint16, little-endian), float32 little-endian numbers
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.data.dataset import Images
from flute.data.variables import Variable
from flute.defaults.images import MAX_IMAGE_NUMBERS
from flute.errors import Unmappable, Unreachable

FOLDER: Final = Path("records") / "pixels"
_MARK: Final = b"flute/image/v1"
Unusable = Literal["no-array", "another-shape", "out-of-range"]
"""Why an image is none: no numbers at all, not of the declared shape, or a number that is not finite or in range."""
Picture = tuple[str, NDArray[Any] | None]
"""A pseudonym and what is said to be this patient's image, if anything."""
_INCOMING: Final = "incoming-"
_LONGEST: Final = len(_MARK) + 1 + 2 * 4 + 4 * MAX_IMAGE_NUMBERS
_AT_WORK: Final[set[Path]] = set()
_LOCK: Final = threading.Lock()
"""Guards `_AT_WORK` and the moment at which new images take their places, against a sweep."""


def usable_image(variable: Variable, image: NDArray[Any]) -> Images | Unusable:
    """float32 of the declared shape, or why it is not what `variable` declares."""
    if image.dtype.kind not in "fiub":
        return "no-array"
    if image.shape != (variable.shape or ()):
        return "another-shape"
    # A double beyond what a float32 holds becomes infinite, and is out of range then.
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(image, dtype="<f4") + np.float32(0.0)  # -0.0 and 0.0 are one value
    inside = (numbers >= np.float32(variable.low)) & (numbers <= np.float32(variable.high))
    return numbers if inside.all() else "out-of-range"


def _written(image: Images) -> bytes:
    sides = np.array(image.shape, dtype="<u2").tobytes()
    return b"".join((_MARK, bytes([image.ndim]), sides, image.tobytes()))


def _read(raw: bytes) -> Images:
    dimensions = raw[len(_MARK)]
    begin = len(_MARK) + 1 + 2 * dimensions
    shape = np.frombuffer(raw[len(_MARK) + 1 : begin], dtype="<u2")
    return np.frombuffer(raw, dtype="<f4", offset=begin).reshape(shape.tolist())


class Incoming:
    """Images that are being taken in: in a folder of their own until all are there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: set[bytes] = set()

    def put(self, image: Images) -> bytes:
        """Gives the image's digest. Raises: OSError."""
        raw = _written(image)
        digest = hashlib.sha256(raw).digest()
        if digest not in self._digests:
            path = self._folder / digest.hex()
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            self._digests.add(digest)
        return digest

    def settle(self) -> None:
        """Move them to their places. The caller holds the place (`incoming`) until a snapshot names them."""
        for digest in self._digests:
            (self._folder / digest.hex()).replace(self._folder.parent / digest.hex())


@contextmanager
def incoming(root: Path) -> Iterator[Incoming]:
    """What was not settled is deleted at the end, and after a crash by the next sweep.

    Raises: Unreachable: the hub's folder cannot be written."""
    try:
        (root / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
        with _LOCK:
            folder = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=root / FOLDER))
            _AT_WORK.add(folder)
        try:
            yield Incoming(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with _LOCK:
                _AT_WORK.discard(folder)
    except OSError as error:
        raise Unreachable("Images cannot be written into the hub's folder; is the disk full?") from error


@contextmanager
def settled() -> Iterator[None]:
    """No sweep happens meanwhile: between images that take their places and the snapshot that names them."""
    with _LOCK:
        yield


def read_image(root: Path, digest: bytes) -> Images:
    """float32, as it was taken in.

    Raises: Unreachable: there is no such file. Unmappable: it holds another image than its name says."""
    try:
        with (root / FOLDER / digest.hex()).open("rb") as file:
            raw = file.read(_LONGEST + 1)
    except OSError as error:
        raise Unreachable("An image of the snapshot is not in the hub's folder; attach the images again.") from error
    if hashlib.sha256(raw).digest() != digest:
        raise Unmappable("An image of the snapshot is another than its name says; attach the images again.")
    return _read(raw)


def stack_images(root: Path, variable: Variable, digests: NDArray[Any]) -> tuple[NDArray[np.float64], Images]:
    """Who has an image that `variable` allows, float64 [n] of 1.0 and NaN, and the images, float32 [n, *shape].

    digests: bytes, or None where there is no image. Raises: as `read_image`."""
    stack = np.zeros((len(digests), *(variable.shape or ())), dtype=np.float32)
    there = np.full(len(digests), np.nan)
    for at, digest in enumerate(digests):
        if digest is None:
            continue
        image = usable_image(variable, read_image(root, bytes(digest)))
        if not isinstance(image, str):
            stack[at], there[at] = image, 1.0
    return there, stack


def sweep(root: Path, named: Collection[bytes]) -> None:
    """Delete every image that is not `named`, and what an attempt that crashed left behind. Call within `settled`.

    Raises: OSError."""
    kept = {digest.hex() for digest in named}
    with contextlib.suppress(FileNotFoundError):
        for path in (root / FOLDER).iterdir():
            if path.name.startswith(_INCOMING):
                if path not in _AT_WORK:
                    shutil.rmtree(path)
            elif path.name not in kept:
                path.unlink(missing_ok=True)
