"""The b-value of a diffusion image, wherever its maker put it.

(0018,9087) by the standard; Siemens (0019,xx0C) of "SIEMENS MR HEADER", or in its CSA header, or in the sequence name
"ep_b50t"; GE the first of (0043,xx39) of "GEMS_PARM_01", often with 1,000,000,000 added; Philips (2001,xx03) of
"Philips Imaging DD 001". A private element counts only beside its creator's name: xx differs from file to file, and
another creator's element means something else.

A CSA header is a list of named fields inside one element. Version SV10: "SV10", 4 bytes, uint32 number of fields,
uint32 77; per field: 64 bytes name, int32 multiplicity, 4 bytes type, int32, int32 number of items, int32; per item
4 int32, the second of which is its length, then the text, padded to 4 bytes. All little-endian. Every length is
checked against the bytes that are there. The older version without the mark is not read.
Source: DICOM PS3.3 C.8.13.5.9, PS3.5 section 7.8; NA-MIC "DICOM for DWI and DTI"; NiBabel's page on CSA headers.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any, Final

from pydicom.dataset import Dataset

from flute.imaging.elements import as_number, number, private, text

_SEQUENCE_B: Final = re.compile(r"ep_b(\d{1,5})(?![\d_])")
_GE_OFFSET: Final = 100_000
"""No b-value is this large: what is above it is GE's marker, added in steps of a million."""
_FIELD: Final = struct.Struct("<64si4siii")
_ITEM: Final = struct.Struct("<iiii")
_MAX_FIELDS: Final = 1_000
_MAX_ITEMS: Final = 10_000


def b_value(ds: Dataset) -> tuple[float | None, str, bool]:
    """(b in s/mm2, where it stood, whether another place says otherwise). The standard's element comes first."""
    places: list[tuple[str, float | None]] = [
        ("(0018,9087)", number(ds, "DiffusionBValue")),
        ("Siemens (0019,xx0C)", as_number(private(ds, 0x0019, "SIEMENS MR HEADER", 0x0C))),
        ("Siemens CSA header", csa_number(private(ds, 0x0029, "SIEMENS CSA HEADER", 0x10), "B_value")),
        ("GE (0043,xx39)", _ge_b(private(ds, 0x0043, "GEMS_PARM_01", 0x39))),
        ("Philips (2001,xx03)", as_number(private(ds, 0x2001, "Philips Imaging DD 001", 0x03))),
        ("sequence name", _named_b(ds)),
    ]
    found = [(where, b) for where, b in places if b is not None and 0 <= b < _GE_OFFSET]
    if not found:
        return None, "", False
    where, b = found[0]
    # Philips counts repetitions at b = 0 as 0.001, 0.002, …; sequence names are rounded.
    return float(round(b)), where, any(abs(other - b) > 5 for _, other in found)


def _ge_b(value: Any) -> float | None:
    b = as_number(value)
    return b if b is None or b < _GE_OFFSET else b % _GE_OFFSET


def _named_b(ds: Dataset) -> float | None:
    found = _SEQUENCE_B.search(text(ds, "SequenceName").lower())
    return float(found[1]) if found else None


# --- Siemens CSA header -----------------------------------------------------------------------


def csa_number(raw: Any, name: str) -> float | None:
    """The first value of field `name`, or None: no such field, no number in it, or not a header of version SV10."""
    if not isinstance(raw, bytes) or not raw.startswith(b"SV10") or len(raw) < 16:
        return None
    try:
        return _find(raw, name.encode())
    except (struct.error, ValueError):
        return None


def _find(raw: bytes, name: bytes) -> float | None:
    (fields,) = struct.unpack_from("<I", raw, 8)
    at = 16
    for _ in range(min(fields, _MAX_FIELDS)):
        label, _, _, _, items, _ = _FIELD.unpack_from(raw, at)
        at += _FIELD.size
        wanted = label.split(b"\0")[0] == name
        for _ in range(min(max(items, 0), _MAX_ITEMS)):
            length = _ITEM.unpack_from(raw, at)[1]
            at += _ITEM.size
            if length < 0 or at + length > len(raw):
                raise ValueError("an item is longer than the header")
            said = raw[at : at + length].strip(b"\0 ")
            if wanted and said:
                value = float(said)
                return value if math.isfinite(value) else None
            at += -(-length // 4) * 4
        if wanted:
            return None
    return None


def csa_header(fields: dict[str, str]) -> bytes:
    """A header of version SV10 with these fields, as the simulator writes it."""
    out = b"SV10" + b"\4\3\2\1" + struct.pack("<II", len(fields), 77)
    for name, said in fields.items():
        item = said.encode() + b"\0"
        out += _FIELD.pack(name.encode(), 1, b"IS\0\0", 6, 1, 77)
        out += _ITEM.pack(len(item), len(item), 77, len(item)) + item.ljust(-(-len(item) // 4) * 4, b"\0")
    return out
