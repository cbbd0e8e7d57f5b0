"""Simulated studies that many tests look at, made once per process."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from flute.imaging.headers import Header, headers_of
from flute.imaging.phantoms.makers import BPlace
from flute.imaging.phantoms.phantom import phantom

MAKERS = ("siemens", "ge", "philips")


@cache
def _made(maker: str, defects: tuple[str, ...], dce: bool, b_in: BPlace) -> list[bytes]:
    return [as_file(ds) for ds in phantom(maker, defects=defects, dce=dce, b_in=b_in)]


def as_file(ds: Dataset) -> bytes:
    raw = BytesIO()
    ds.save_as(raw, enforce_file_format=True)
    return raw.getvalue()


def study(maker: str = "siemens", *defects: str, dce: bool = False, b_in: BPlace = "private") -> list[Dataset]:
    """A small study as read from files; the test may change it. (A deep copy would share private blocks.)"""
    return [pydicom.dcmread(BytesIO(raw)) for raw in _made(maker, defects, dce, b_in)]


def headers(images: list[Dataset]) -> list[Header]:
    return [header for ds in images for header in headers_of(ds)]


@cache
def told(maker: str = "siemens", *defects: str, dce: bool = False, b_in: BPlace = "private") -> tuple[Header, ...]:
    """Headers of such a study, read once, from memory."""
    return tuple(headers(phantom(maker, defects=defects, dce=dce, b_in=b_in)))


def series(images: list[Dataset], number: int) -> list[Dataset]:
    """2: T2W, 4: DWI, 5: high b, 6: ADC, 7: DCE."""
    return [ds for ds in images if ds.SeriesNumber == number]


def segmentation(images: list[Dataset], masks: dict[str, np.ndarray], order: slice = slice(None)) -> Any:  # type: ignore[type-arg]
    """A DICOM SEG as highdicom writes it. masks: bool [slices, rows, columns], in the order of `images`."""
    described = [
        hd.seg.SegmentDescription(
            n, label, codes.SCT.Tissue, codes.SCT.Tissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for n, label in enumerate(masks, start=1)
    ]
    pixels = np.stack([m[order] for m in masks.values()], axis=-1).astype(np.uint8)
    return hd.seg.Segmentation(
        images[order], pixels, hd.seg.SegmentationTypeValues.BINARY, described, "2.25.11", 20, "2.25.12", 1,
        "SIMULATED", "SIMULATED", "1", "1",
    )  # fmt: skip
