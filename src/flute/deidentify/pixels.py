"""Pixels of a DICOM object: decoded, cut to what the header says, and read for text that is burnt in.

What cannot be decoded here cannot be checked, so it is not released. Pixels go out uncompressed: comments inside
compressed streams, bytes after the last pixel, and bits above those stored (where older scanners kept overlays) have
nowhere to stay.
Reading: RapidOCR (Apache-2.0, its models are inside the package, nothing is fetched). A region counts as text with
at least TEXT_MIN_CHARS letters or digits read at TEXT_SCORE. Measured in docs/how-to/deidentify.md; it does not see
text in a contrast that a person would not see either, handwriting, or single letters.
Source: DICOM PS3.3 section C.7.6.3 (image pixel), PS3.5 section 8; PS3.15 annex E.3.1 (Clean Pixel Data Option).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from flute.defaults.records import TEXT_MIN_CHARS, TEXT_SCORE
from flute.deidentify.withheld import Withheld
from flute.errors import MisuseError

Frame = NDArray[Any]
"""[rows, columns], the stored values."""
PIXELS: Final = (0x7FE00010, 0x7FE00008, 0x7FE00009)
"""Pixel Data, Float Pixel Data, Double Float Pixel Data."""
_ENGINE: Final = {
    "Global.log_level": "error",
    "Det.limit_side_len": 320,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
}
"""Smaller pictures are enlarged to this side. At 320 letters of 8 to 14 pixels are found as surely as at 736, in a
quarter of the time (0.2 s of one core for a frame)."""
_BLANK_MARGIN: Final = 2
"""Pixels blanked around a region: letters are wider than the line that the reader draws round them."""


@dataclass(frozen=True, slots=True)
class Region:
    """Text found in a frame: rows `top` to `bottom`, columns `left` to `right`, the last ones not included."""

    top: int
    bottom: int
    left: int
    right: int
    text: str


class TextReader(Protocol):
    def read(self, picture: NDArray[np.uint8]) -> list[Region]:
        """Text in a picture [rows, columns], 0 to 255."""
        ...


@dataclass(frozen=True, slots=True)
class RapidReader:
    """RapidOCR, in this process. Raises on first use: MisuseError: it is not installed."""

    def read(self, picture: NDArray[np.uint8]) -> list[Region]:
        found = _engine()(np.repeat(picture[:, :, None], 3, axis=2), use_det=True, use_cls=False, use_rec=True)
        if found.boxes is None or found.txts is None:
            return []
        regions = []
        for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
            if score >= TEXT_SCORE and sum(letter.isalnum() for letter in text) >= TEXT_MIN_CHARS:
                corner, other = np.floor(box.min(axis=0)), np.ceil(box.max(axis=0))
                regions.append(Region(int(corner[1]), int(other[1]), int(corner[0]), int(other[0]), str(text)))
        return regions


@cache
def _engine() -> Any:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its engine would note on disk, for its maker, that it was started
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise MisuseError(
            "Text in pixels is looked for with RapidOCR, which is not installed: pip install 'flute[imaging]'."
        ) from error
    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(params=_ENGINE)


def decoded(source: Any) -> NDArray[Any]:
    """Stored values [frames, rows, columns] of an object with one sample per pixel; bits above the stored ones are 0.

    Raises: Withheld: colour, or pixels that cannot be decoded here.
    """
    if int(source.get("SamplesPerPixel", 1)) != 1:
        raise Withheld(
            "colour-pixels", "An image in colour is a picture of a screen or a report; it is not released."
        )
    try:
        values = np.asarray(source.pixel_array)
    except Exception as error:  # decoders of several packages raise what they like
        raise Withheld(
            "pixels-unreadable", "Its pixels cannot be decoded here, so nobody can say what is written in them."
        ) from error
    values = values.reshape(-1, values.shape[-2], values.shape[-1])
    return _stored_bits(source, values)


def _stored_bits(source: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Values without the bits above Bits Stored."""
    if values.dtype.kind not in "iu" or int(source.BitsAllocated) == 1:
        return values
    unused = values.dtype.itemsize * 8 - int(source.BitsStored)
    if unused <= 0:
        return values
    # Left, then right again: an arithmetic shift restores the sign of signed values.
    return (values << unused) >> unused


def pictures(frame: Frame) -> Iterator[NDArray[np.uint8]]:
    """A frame as a reader sees it, 0 to 255: once with its whole range, and again with the brightest half per cent
    cut where that changes much. Text in the brightest values shows in one, text in middling ones in the other."""
    values = np.nan_to_num(frame.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return
    bright = float(np.quantile(values, 0.995))
    yield _scaled(values, low, high)
    if low < bright < low + (high - low) / 2:
        yield _scaled(values, low, bright)


def _scaled(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    return (np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)


def text_in(frame: Frame, reader: TextReader) -> list[Region]:
    """Every region of a frame in which the reader finds text."""
    return [region for picture in pictures(frame) for region in reader.read(picture)]


def blanked(frame: Frame, reader: TextReader) -> tuple[Frame, int]:
    """A frame whose regions with text hold its lowest value, and how many those were.

    Raises: Withheld: text is read even then.
    """
    regions = text_in(frame, reader)
    if not regions:
        return frame, 0
    result = frame.copy()
    for region in regions:
        top, left = max(0, region.top - _BLANK_MARGIN), max(0, region.left - _BLANK_MARGIN)
        result[top : region.bottom + _BLANK_MARGIN, left : region.right + _BLANK_MARGIN] = frame.min()
    if text_in(result, reader):
        raise Withheld("burnt-in-text", "Text is burnt into its pixels, and some of it is left after blanking.")
    return result, len(regions)
