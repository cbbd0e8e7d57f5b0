"""Our own look at what the de-identifier made: is anything left of what the hospital knows about the patient?

It shares nothing with the de-identifier but the file format's parser. What is looked for comes from `needles`, and
it is looked for everywhere: in every byte, in every encoding, in what is packed as base64 or hexadecimal digits (from
six letters on), in the text of every element at any depth, in names of files, and in the picture. Beside what is
known of the patient it looks for signs that need no knowledge: private attributes, UIDs of an organisation's root,
overlays, bits above those stored, a preamble that is not empty, names of persons, addresses of mail, text that a
reader of pixels is sure of.
It finds what it looks for; it is no proof that nothing else is there. A finding says where and what kind, never what.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from flute.deidentify.needles import LONG, SHORT, Known, Spelling, plain

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{12,}")
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2}){6,}")
_ESCAPED: Final = re.compile(rb"\\u|&#|&\w+;|%[0-9A-Fa-f]{2}|=[0-9A-F]{2}")
_JSON_ESCAPE: Final = re.compile(r"\\u([0-9A-Fa-f]{4})")
_QUOTED: Final = re.compile(r"=([0-9A-F]{2})")
_MAIL: Final = re.compile(r"[\w.+-]{2,}@[\w-]{2,}\.\w{2,}|\+\d{2}[\d /()-]{7,}")
_UID: Final = re.compile(r"\b\d+(?:\.\d+){4,}")
_FREE_ROOTS: Final = re.compile(r"\b(?:2\.25\.|1\.2\.840\.10008\.|2\.16\.840\.1\.113883\.)")
"""Roots that belong to no hospital: UUIDs, the DICOM standard, HL7."""
_OURS: Final = re.compile(r"[0-9a-f]{32}|removed|")
"""What stands where a person's name stood."""
_PIXELS: Final = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_NUMERIC: Final = frozenset({"DS", "IS", "TM", "AS", "FD", "FL", "US", "SS", "UL", "SL", "US or SS", "UV", "SV"})
_DIGITS: Final = 6
"""A number that names somebody counts among numbers of measurement from this many digits on."""


class Leak(Struct, frozen=True):
    """Where something is left, and of what kind; never what. `where`: an attribute, element, or part of the file."""

    kind: str
    where: str


class PictureReader(Protocol):
    def words(self, picture: Any) -> Iterator[tuple[str, bool]]:
        """Text in a frame [rows, columns] of any numbers: what was read, and whether the reader is sure of it."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """What one patient's results are searched for. `own_days`: dates of the original of this very object; only these
    (and birth dates) count where a date belongs, since a moved date may fall on another one of the patient's."""

    known: Known
    own_days: frozenset[date] = frozenset()


def search_dicom(raw: bytes, look: Look, reader: PictureReader | None = None) -> list[Leak]:
    """What is left in a DICOM file. Without a reader the picture itself is not looked at."""
    import pydicom

    dataset = pydicom.dcmread(BytesIO(raw), force=True)
    pixels = b"".join(
        dataset[tag].value for tag in _PIXELS if tag in dataset and isinstance(dataset[tag].value, bytes)
    )
    at = raw.rfind(pixels) if pixels else -1
    rest = raw if at < 0 else raw[:at] + b"\0" + raw[at + len(pixels) :]
    leaks = {
        *(Leak(kind, "bytes of the file") for kind in _in_bytes(rest, look.known, SHORT)),
        *(Leak(kind, "bytes of the pixels") for kind in _in_bytes(pixels, look.known, LONG)),
        *_in_dataset("", dataset, look),
        *_in_dataset("file meta: ", dataset.file_meta, look),
        *_signs_of_file(raw, dataset),
        *_signs_of_pixels(dataset),
    }
    if reader is not None and pixels:
        leaks.update(_in_picture(dataset, look, reader))
    return sorted(leaks, key=lambda leak: (leak.where, leak.kind))


def search_fhir(line: bytes, look: Look) -> list[Leak]:
    """What is left in one resource (a line of NDJSON)."""
    leaks = {Leak(kind, "bytes of the resource") for kind in _in_bytes(line, look.known, SHORT)}
    for path, value in _leaves("", msgspec.json.decode(line)):
        text = value if isinstance(value, str) else str(value)
        numeric = not isinstance(value, str)
        leaks.update(Leak(kind, path) for kind in _in_text(plain(text), look.known, numeric))
        leaks.update(Leak(kind, path) for kind in _dates(plain(text), look, dated=_is_day(text)))
        if _MAIL.search(text):
            leaks.add(Leak("contact", path))
        if re.search(r"\b\d+(?:\.\d+){4,}", text) and not re.search(
            r"2\.25\.\d|1\.2\.840\.10008\.|2\.16\.840\.1\.113883", text
        ):
            leaks.add(Leak("foreign-uid", path))
        if path.endswith((".div", ".display", ".text")) or ".note" in path or ".contained" in path:
            leaks.add(Leak("free-text", path))
    return sorted(leaks, key=lambda leak: (leak.where, leak.kind))


def search_name(path: str, known: Known) -> list[Leak]:
    """What is left in the name of a file or of a folder above it."""
    text = plain(path)
    kinds = {*_in_text(text, known, False), *(kind for kind, pattern in known.secret_dates if pattern.search(text))}
    return [Leak(kind, "name of the file") for kind in sorted(kinds)]


# --- text and bytes -----------------------------------------------------------------------------------


def _in_text(text: str, known: Known, numeric: bool) -> Iterator[str]:
    """Kinds of what stands in a plain text. `numeric`: a measurement, in which only long numbers mean something."""
    for spelling in known.spellings:
        if numeric and not (spelling.kind == "number" and len(spelling.text) >= _DIGITS):
            continue
        if _stands(text, spelling):
            yield spelling.kind


def _stands(text: str, spelling: Spelling) -> bool:
    start = text.find(spelling.text)
    while start >= 0:
        end = start + len(spelling.text)
        if not spelling.alone or not (
            _same_sort(text[start - 1 : start], spelling.text[0])
            or _same_sort(text[end : end + 1], spelling.text[-1])
        ):
            return True
        start = text.find(spelling.text, start + 1)
    return False


def _same_sort(neighbour: str, letter: str) -> bool:
    return neighbour.isdigit() if letter.isdigit() else neighbour.isalpha()


def _in_bytes(raw: bytes, known: Known, least: int) -> Iterator[str]:
    """Kinds of what stands in bytes, in any encoding, also where they are packed or escaped."""
    for part, shortest in _unpacked(raw, least):
        small = part.lower()
        for kind, needle, alone in known.in_bytes:
            if len(needle) < shortest or (needle.isdigit() and len(needle) < _DIGITS):
                continue
            start = small.find(needle)
            while start >= 0:
                end = start + len(needle)
                if not alone or not (_letter(small, start - 1, needle[0]) or _letter(small, end, needle[-1])):
                    yield kind
                    break
                start = small.find(needle, start + 1)


def _letter(raw: bytes, at: int, beside: int) -> bool:
    if not 0 <= at < len(raw):
        return False
    here = raw[at : at + 1]
    return here.isdigit() if bytes([beside]).isdigit() else here.isalpha()


def _unpacked(raw: bytes, least: int) -> Iterator[tuple[bytes, int]]:
    """The bytes; what is base64 or hexadecimal digits in them; their text without JSON, HTML and URL escapes. Each
    with the length from which a find in it means something: unpacked digits are as good as noise."""
    yield raw, least
    packed = [
        *(_unbase64(found[0][offset:]) for found in _BASE64.finditer(raw) for offset in range(4)),
        *(binascii.unhexlify(found[0]) for found in _HEX.finditer(raw)),
    ]
    if packed:
        yield b"\n".join(packed), LONG
    if _ESCAPED.search(raw):
        text = _JSON_ESCAPE.sub(lambda found: chr(int(found[1], 16)), raw.decode("latin-1"))
        yield html.unescape(unquote(_QUOTED.sub(r"%\1", text))).encode("utf-8", "replace"), least


def _unbase64(raw: bytes) -> bytes:
    body = raw.translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(body[: len(body) // 4 * 4])


def _dates(text: str, look: Look, *, dated: bool) -> Iterator[str]:
    """`dated`: the text is a date where one belongs."""
    if dated:
        day = _day(text)
        if day in look.known.births:
            yield "birth-date"
        elif day in look.own_days:
            yield "date"
        return
    for kind, pattern in look.known.secret_dates:
        if pattern.search(text):
            yield kind


def _day(text: str) -> date | None:
    digits = re.sub(r"\D", "", text)
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def _is_day(text: str) -> bool:
    return re.match(r"\d{4}-?\d\d-?\d\d(?:T|\Z|\d)", text) is not None


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield f"{path}.{name} (its name)", name
            yield from _leaves(f"{path}.{name}".lstrip("."), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(path, inner)
    elif value is not None and not isinstance(value, bool):
        yield path, value


# --- DICOM --------------------------------------------------------------------------------------------


def _in_dataset(above: str, dataset: Any, look: Look) -> Iterator[Leak]:
    for tag in sorted(dataset.keys()):
        where = f"{above}{tag}"
        if tag.is_private:
            yield Leak("private-attribute", where)
        if tag.group & 0xFF00 in (0x5000, 0x6000):
            yield Leak("overlay-or-curve", where)
        try:
            element = dataset[tag]
        except Exception:  # noqa: BLE001 what cannot be read as its type is left to the search of bytes
            yield Leak("unreadable", where)
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _in_dataset(f"{where} > ", item, look)
        elif int(tag) not in _PIXELS:
            for value in element.value if type(element.value).__name__ == "MultiValue" else [element.value]:
                yield from _in_value(where, element.VR, value, look)


def _in_value(where: str, vr: str, value: Any, look: Look) -> Iterator[Leak]:
    for written in _readings(value):
        text = plain(written)
        if vr != "CS" or len(text) > SHORT:  # MR, CT, LA: codes that look like short names
            yield from (Leak(kind, where) for kind in _in_text(text, look.known, vr in _NUMERIC))
        if vr not in _NUMERIC:
            yield from (Leak(kind, where) for kind in _dates(text, look, dated=vr in ("DA", "DT")))
        if vr == "UI" and text and not text.startswith(("1.2.840.10008.", "2.25.")):
            yield Leak("foreign-uid", where)
        if vr == "PN" and not _OURS.fullmatch(text):
            yield Leak("person-name", where)
        if vr not in _NUMERIC and vr != "UI" and _MAIL.search(written):
            yield Leak("contact", where)


def _readings(value: Any) -> Iterator[str]:
    """A value as text; bytes as each of the encodings in which a maker might have written text."""
    if isinstance(value, bytes):
        for encoding in ("latin-1", "utf-8", "utf-16-le", "utf-16-be"):
            yield value.decode(encoding, errors="ignore")
    elif value is not None:
        yield str(value)


def _signs_of_file(raw: bytes, dataset: Any) -> Iterator[Leak]:
    if raw[128:132] == b"DICM" and raw[:128].strip(b"\0"):
        yield Leak("preamble", "the first 128 bytes")
    if (0xFFFC, 0xFFFC) in dataset:
        yield Leak("trailing-bytes", "after the last attribute")


def _signs_of_pixels(dataset: Any) -> Iterator[Leak]:
    if "PixelData" not in dataset or "Rows" not in dataset:
        return
    if str(dataset.file_meta.get("TransferSyntaxUID", "")).startswith("1.2.840.10008.1.2.4"):
        return  # compressed: what is in the stream only its decoder knows
    try:
        allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
        pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.SamplesPerPixel)
        bits = int(dataset.get("NumberOfFrames", 1) or 1) * pixels * allocated
    except (AttributeError, TypeError, ValueError):
        yield Leak("unreadable", "description of the pixels")
        return
    if len(dataset.PixelData) - (bits + 7) // 8 > 1:
        yield Leak("trailing-bytes", "after the last pixel")
    if allocated == 16 and stored < 16 and _uses_bits_above(dataset, stored):
        yield Leak("unused-bits", "bits above those stored")


def _uses_bits_above(dataset: Any, stored: int) -> bool:
    import numpy as np

    words = np.frombuffer(dataset.PixelData[: len(dataset.PixelData) // 2 * 2], dtype="<u2")
    above = words >> stored
    if int(dataset.PixelRepresentation) == 1:  # a negative value has ones there
        above = above[(words >> (stored - 1)) & 1 == 0]
    return bool(above.any())


def _in_picture(dataset: Any, look: Look, reader: PictureReader) -> Iterator[Leak]:
    try:
        values = dataset.pixel_array
    except Exception:  # noqa: BLE001 decoders raise what they like
        yield Leak("unreadable", "pixels")
        return
    for number, frame in enumerate(values.reshape(-1, *values.shape[-2:]), start=1):
        where = f"picture of frame {number}"
        for word, sure in reader.words(frame):
            text = plain(word)
            if sure:
                yield Leak("text-in-pixels", where)
            yield from (Leak(kind, where) for kind in _in_text(text, look.known, False))
            yield from (Leak(kind, where) for kind in _dates(text, look, dated=False))
