"""Damaged and hostile DICOM bytes: released clean, or withheld with a reason; nothing else."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from typing import Any

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from flute.deidentify.dicom import DicomRules
from flute.deidentify.release import Images
from flute.deidentify.residual import Look, search_dicom
from flute.deidentify.withheld import Withheld
from support.planted_leaks import KEY, STUDY, as_file, image, known

KNOWN = known()
ORIGINAL = as_file(image())
HEADER = len(ORIGINAL) - 192 * 192 * 2


class NoText:
    def read(self, picture: Any) -> list[Any]:
        return []


CLEAN = Images(DicomRules(KEY), NoText(), None)


def released(raw: bytes) -> bytes | None:
    """What leaves, or None where it is withheld. Any other exception fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = pydicom.dcmread(BytesIO(raw), force=True)
        except Exception:
            return None
        try:
            return as_file(CLEAN(ds, patient="pat-471122"))
        except Withheld:
            return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(132, HEADER - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_bytes_that_fall_over_let_no_name_out(flips: list[tuple[int, int]]) -> None:
    """Lengths, tags and types go wrong: text turns up under other tags. What is known of her does not leave."""
    raw = bytearray(ORIGINAL)
    for at, value in flips:
        raw[at] = value
    result = released(bytes(raw))
    if result is not None:
        kinds = {leak.kind for leak in search_dicom(result, Look(KNOWN, frozenset({STUDY})))}
        assert not kinds & {"name", "number", "place", "birth-date", "uid"}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(ORIGINAL)))
def test_a_file_that_ends_early_is_withheld_or_clean(length: int) -> None:
    released(ORIGINAL[:length])


def nested(depth: int, vr_and_length: Any) -> bytes:
    """An image whose name stands in a sequence in a sequence …, as bytes: pydicom cannot write it that deep."""
    name = struct.pack("<HH2sH", 0x0010, 0x4000, b"LT", 10) + b"Anneliese "
    for _ in range(depth):
        name = vr_and_length(name)
    ends = pydicom.dcmread(BytesIO(ORIGINAL))
    before, after = Dataset(), Dataset()
    before.SOPClassUID, before.SOPInstanceUID = ends.SOPClassUID, "1.2.3"
    after.PatientID = "471122-9"
    meta = ORIGINAL[: 144 + struct.unpack("<I", ORIGINAL[140:144])[0]]
    return meta + plain(before) + name + plain(after)


def plain(ds: Dataset) -> bytes:
    raw = BytesIO()
    ds.save_as(raw, implicit_vr=False, little_endian=True)
    return raw.getvalue()


def counted(inner: bytes) -> bytes:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(item)) + item


def delimited(inner: bytes) -> bytes:
    head = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return head + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def structured(inner: bytes) -> bytes:
    """Content Sequence, which is cleaned: a level that is looked at twice would take 2^depth."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    return struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(item)) + item


@pytest.mark.parametrize("depth", [8, 60, 400, 3000])
@pytest.mark.parametrize("how", [counted, delimited, structured])
def test_sequences_in_sequences_end(depth: int, how: Any) -> None:
    result = released(nested(depth, how))
    assert result is None or b"Anneliese" not in result
    assert result is not None or depth > 60
