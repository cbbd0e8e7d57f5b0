"""What an aggregator is made of, as one number, and as one file that comes out the same on every machine.

The measurement is SHA-256 over the recipe, every file of the package, and the hashes of every wheel that the lock
file allows. A hub that has the source at the same commit works it out for itself (`flute aggregator measure`).

The image is an uncompressed tar archive of the same, with the wheels: names sorted, no times, no owners, no links.
Its digest follows from its content. What a processor measures at start (firmware, kernel, this archive) is worked out
from it with the maker's tool; docs/how-to/aggregator-image.md says how.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flute.defaults.enclaves import MAX_SOURCE_FILE_BYTES
from flute.errors import MisuseError
from flute.primitives.keys import digest

PACKAGE: Final = "src/flute"
RECIPE: Final = "deploy/aggregator"
LOCK: Final = f"{RECIPE}/constraints.txt"
"""Of what an aggregator needs alone, with the versions of the project's own lock file."""
_LABEL: Final = b"flute/aggregator-image/v1"
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")
_PIN: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*==\S+)", re.MULTILINE)
_SKIPPED: Final = ("__pycache__",)
_RUNNABLE: Final = f"{RECIPE}/start"


@dataclass(frozen=True, slots=True)
class Measured:
    """value: the measurement, 32 bytes. files: how many files it is over. wheels: how many the lock file allows."""

    value: bytes
    files: int
    wheels: int

    @property
    def register(self) -> bytes:
        """What a TPM register holds that was reset and then extended by it (SHA-256 bank)."""
        return hashlib.sha256(bytes(32) + self.value).digest()


def measure(checkout: Path) -> Measured:
    """The measurement of the aggregator in a checkout of the source.

    Raises: MisuseError: no checkout, a link in it, a lock file without hashes.
    """
    files = source_files(checkout)
    hashes, pins = _locked(files[LOCK])
    parts = [_LABEL, *sorted(pins), *sorted(hashes)]
    for name, content in sorted(files.items()):
        if name != LOCK:  # its order and its comments say nothing; its hashes and versions are in
            parts += [name.encode(), hashlib.sha256(content).digest()]
    return Measured(digest(*parts), len(files), len(hashes))


def write_image(checkout: Path, wheels: Path, into: Path) -> bytes:
    """Write the image and return its SHA-256. wheels: a folder of what `pip download` fetched by the lock file.

    Raises: MisuseError: as `measure`, or a wheel that the lock file does not allow.
    """
    files = source_files(checkout)
    allowed, _ = _locked(files[LOCK])
    for path in sorted(wheels.glob("*.whl")):
        content = path.read_bytes()
        if hashlib.sha256(content).digest() not in allowed:
            raise MisuseError(f"{path.name} is not among the wheels that {LOCK} allows; fetch it by that file.")
        files[f"wheels/{path.name}"] = content
    image = _archive(files)
    into.write_bytes(image)
    return hashlib.sha256(image).digest()


def source_files(checkout: Path) -> dict[str, bytes]:
    """Every file of the aggregator by its path in the checkout. Raises: MisuseError."""
    if not (checkout / LOCK).is_file() or not (checkout / PACKAGE / "__init__.py").is_file():
        raise MisuseError(f"{checkout} is no checkout of the source: {LOCK} and {PACKAGE} have to be in it.")
    files: dict[str, bytes] = {}
    for part in (PACKAGE, RECIPE):
        for path in sorted((checkout / part).rglob("*")):
            name = path.relative_to(checkout).as_posix()
            if any(word in Path(name).parts for word in _SKIPPED) or (path.is_dir() and not path.is_symlink()):
                continue
            files[name] = _content(path, name)
    return files


def _content(path: Path, name: str) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise MisuseError(f"{name} is a link or no ordinary file; measure a clean checkout.")
    if path.stat().st_size > MAX_SOURCE_FILE_BYTES:
        raise MisuseError(f"{name} is larger than any file of the source; measure a clean checkout.")
    return path.read_bytes()


def _locked(lock: bytes) -> tuple[set[bytes], set[bytes]]:
    """Hashes of wheels, and versions."""
    text = lock.decode()
    hashes = {bytes.fromhex(value) for value in _HASH.findall(text)}
    pins = {pin.encode() for pin in _PIN.findall(text)}
    if not hashes or not pins:
        raise MisuseError(f"{LOCK} names no wheel by its hash; docs/how-to/aggregator-image.md says how it is made.")
    return hashes, pins


def _archive(files: Mapping[str, bytes]) -> bytes:
    room = io.BytesIO()
    with tarfile.open(fileobj=room, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in (*_folders(files), *sorted(files)):
            entry = tarfile.TarInfo(name)
            content = files.get(name)
            if content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
                continue
            entry.size, entry.mode = len(content), 0o755 if name == _RUNNABLE else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return room.getvalue()


def _folders(names: Iterable[str]) -> list[str]:
    return sorted({parent.as_posix() for name in names for parent in Path(name).parents} - {"."})
