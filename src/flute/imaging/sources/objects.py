"""One DICOM object out of bytes or a file, with its size bounded before anything is inflated, or a reason why not.

Source: DICOM PS3.10 (files), PS3.5 Annex A (transfer syntaxes; A.5 deflated).
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from flute.defaults.records import MAX_IMAGE_SIDE, MAX_INSTANCE_BYTES
from flute.errors import Unmappable
from flute.imaging.sources.source import UID, NotRead

_BROKEN: Final = (
    InvalidDicomError,
    AttributeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    NotImplementedError,
    IndexError,
    EOFError,
    RecursionError,
    struct.error,
    zlib.error,
    UnicodeError,
    BytesLengthException,
)
"""What pydicom raises on bytes that are no DICOM, or a damaged one; it has no common class for it."""
logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings name files, and what matters is checked here
_META_BEGINS: Final = re.compile(rb"\x02\0[\0-\x02]\0(UL|OB|UI)")
"""An element (0002,0000), …1 or …2 with its type: one of them is the first of every file's meta information."""
DEFLATED: Final = str(DeflatedExplicitVRLittleEndian).encode()


def read_file(path: Path, origin: str, *, pixels: bool = True) -> Dataset | NotRead:
    """A file of a folder. `pixels`: False reads only up to the pixels, for a listing."""
    try:
        size = path.stat().st_size
        if size > MAX_INSTANCE_BYTES:
            return NotRead(
                origin, "too-large", f"The file has {size} bytes; one object may have {MAX_INSTANCE_BYTES}."
            )
        if size == 0:
            return NotRead(origin, "empty", "The file is empty; copy it again.")
        with path.open("rb") as file:
            head = file.read(132)
            if len(head) < 132 or head[128:] != b"DICM":
                return NotRead(origin, "not-dicom", "The file is no DICOM file (no DICM mark); it is passed over.")
            if not pixels and DEFLATED not in file.read(1024):
                file.seek(0)
                return _parsed(file, origin, pixels=False)
        return read_bytes(path.read_bytes(), origin)
    except OSError as error:
        return NotRead(origin, "unreadable", f"The file cannot be read: {error.strerror or 'input/output error'}.")


def read_bytes(raw: bytes, origin: str) -> Dataset | NotRead:
    """An object as it came over the wire. Some archives give it without preamble and mark: both are put before it."""
    if _META_BEGINS.match(raw):
        raw = bytes(128) + b"DICM" + raw
    if len(raw) > MAX_INSTANCE_BYTES:
        return NotRead(origin, "too-large", f"The object has {len(raw)} bytes; one may have {MAX_INSTANCE_BYTES}.")
    if DEFLATED in raw[:1024] and not _inflates(raw):
        return NotRead(
            origin,
            "too-large",
            f"The object is compressed and inflates to more than {MAX_INSTANCE_BYTES} bytes, or not at all.",
        )
    return _parsed(io.BytesIO(raw), origin, pixels=True)


def _inflates(raw: bytes) -> bool:
    """Whether a deflated object inflates within MAX_INSTANCE_BYTES. Only so much memory is used."""
    try:
        start = _after_meta(raw)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left, got = raw[start:], 0
        while left and got <= MAX_INSTANCE_BYTES:
            got += len(inflater.decompress(left, 2**20))
            left = inflater.unconsumed_tail
    except _BROKEN:
        return False
    return got <= MAX_INSTANCE_BYTES


def _after_meta(raw: bytes) -> int:
    """Where the data set begins. The group's length stands first, always in explicit little-endian (PS3.10 7.1)."""
    tag, kind, _, length = struct.unpack_from("<4s2sHI", raw, 132)
    if (tag, kind) != (b"\x02\0\0\0", b"UL"):
        raise ValueError("no group length")
    return 132 + 12 + int(length)


def _parsed(stream: io.BufferedIOBase, origin: str, *, pixels: bool) -> Dataset | NotRead:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of values out of range; what matters is checked below
            ds = pydicom.dcmread(stream, stop_before_pixels=not pixels)
            # pydicom decodes an element when it is first looked at: here, so that nobody meets a broken one later.
            for _ in ds.iterall():
                pass
    except _BROKEN:
        return NotRead(origin, "damaged", "The file begins like DICOM and cannot be read to its end; copy it again.")
    return checked(ds, origin, pixels=pixels)


def checked(ds: Dataset, origin: str, *, pixels: bool = True) -> Dataset | NotRead:
    """The object itself if it can be identified and, with pixels, if all of them are there."""
    if "DirectoryRecordSequence" in ds:
        return NotRead(origin, "directory", "It is a table of contents (DICOMDIR), no object; it is passed over.")
    if "SOPClassUID" not in ds:
        return NotRead(origin, "damaged", "The object does not say what it is; copy it again.")
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        value = str(ds.get(name, ""))
        if not value or len(value) > 64 or not UID.match(value):
            return NotRead(origin, "uid-missing", f"The object has no valid {name}; it cannot be filed.")
    if pixels and "Rows" in ds and (fault := _pixel_fault(ds)):
        return NotRead(origin, "truncated", fault)
    return ds


def _pixel_fault(ds: Dataset) -> str:
    """Why the pixels are not all there, or empty. Nothing is decoded for it."""
    try:
        rows, columns = int(ds.Rows), int(ds.Columns)
        if not 0 < rows <= MAX_IMAGE_SIDE or not 0 < columns <= MAX_IMAGE_SIDE:
            return f"The image is empty or has a side of more than {MAX_IMAGE_SIDE} voxels."
        if "PixelData" not in ds:
            return "" if "FloatPixelData" in ds else "The image has no pixels; copy it again."
        frames = int(ds.get("NumberOfFrames", 1) or 1)
        if ds.file_meta.TransferSyntaxUID.is_encapsulated:
            whole = sum(1 for _ in generate_frames(ds.PixelData, number_of_frames=frames)) >= frames
        else:
            whole = 8 * len(ds.PixelData) >= rows * columns * frames * int(ds.BitsAllocated) * int(ds.SamplesPerPixel)
    except _BROKEN:
        return "The image's pixels and its header do not fit together; copy it again."
    return "" if whole else "The image has fewer pixels than its header says; copy it again."


def require(found: Dataset | NotRead) -> Dataset:
    """Raises: Unmappable: it could not be read."""
    if isinstance(found, NotRead):
        raise Unmappable(found.text)
    return found
