"""A DICOM object without what says whose it is: a new object into which only what passes is written.

The order is the safety:
 1 class      only images, segmentations, structure sets and measurements; no screenshots, reports, documents, doses
 2 evidence   nothing whose header says that words are burnt in, or that a face can be seen
 3 patient    whose it is, or it is not released: without an id there is no pseudonym and no shift of dates
 4 header     each attribute by PS3.15 table E.1-1; what the table does not list, by its type (`_unlisted`): numbers
              and codes stay, other text goes unless it is a scanner's word, private attributes and binaries go
 5 scanner    a b-value that only a private attribute holds is written into the standard one
 6 pixels     decoded, cut to what the header says, read for text
 7 marks      what was done, as the standard says it, and fresh file meta information

Profile: Basic Application Level Confidentiality with Clean Pixel Data, Clean Descriptors, Clean Structured Content,
Retain Patient Characteristics, and (where dates are shifted) Retain Longitudinal Temporal Information with
Modified Dates. Source: DICOM PS3.15 annex E, PS3.16 CID 7050, PS3.3 section C.12.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import numpy as np

from flute.deidentify import attributes
from flute.deidentify.attributes import Header
from flute.deidentify.dates import age_at, day_of, shift_of
from flute.deidentify.pixels import PIXELS, TextReader, blanked, decoded, text_in
from flute.deidentify.pseudonyms import pseudonym
from flute.deidentify.withheld import Withheld
from flute.deidentify.words import WORDS, tokens
from flute.errors import MisuseError

Dates = Literal["shift", "ages"]
BurntIn = Literal["refuse", "blank"]
_IMAGES: Final = (
    "MRImageStorage", "EnhancedMRImageStorage", "LegacyConvertedEnhancedMRImageStorage", "CTImageStorage",
    "EnhancedCTImageStorage", "LegacyConvertedEnhancedCTImageStorage", "PositronEmissionTomographyImageStorage",
    "EnhancedPETImageStorage", "LegacyConvertedEnhancedPETImageStorage", "SegmentationStorage",
    "ParametricMapStorage",
)  # fmt: skip
_WITHOUT_PIXELS: Final = (
    "RTStructureSetStorage",
    "EnhancedSRStorage",
    "ComprehensiveSRStorage",
    "Comprehensive3DSRStorage",
)
_SCREEN: Final = frozenset({"SCREEN SAVE", "SECONDARY CAPTURE", "DOSE_INFO", "REPORT"})
"""Values of Image Type with which scanners mark pictures of a screen among their images."""
_METHODS: Final = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113101", "Clean Pixel Data Option"),
    ("113104", "Clean Structured Content Option"),
    ("113105", "Clean Descriptors Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
_MODIFIED_DATES: Final = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
_METHOD: Final = "FLUTE: PS3.15 annex E as coded; ages from 90 on are 90"
_MAX_B_VALUE: Final = 10_000.0
"""s/mm2."""
_IMPLEMENTATION: Final = "2.25.145502693557603001566357642366422019217"
"""This program, as the writer of a file: the same at every hub."""
_NEVER_FORBIDDEN: Final = frozenset({"simulated", "phantom", "test"})
"""A label that says whose data these are not must survive, also where it stands in a name."""
_NOT_NAMES: Final = frozenset({"EthnicGroup", "PatientSpeciesDescription", "PatientBreedDescription"})


@dataclass(frozen=True, slots=True)
class DicomRules:
    """How objects are de-identified. `key`: 32 bytes. `words`: what may stay in descriptions (lower case).
    `burnt_in`: whether an image with text in its pixels is refused, or the text blanked and the rest released.
    `b_value`: reads a source's b-value in s/mm2 wherever its maker put it."""

    key: bytes = field(repr=False)
    dates: Dates = "shift"
    words: frozenset[str] = WORDS
    burnt_in: BurntIn = "refuse"
    b_value: Callable[[Any], float | None] = lambda source: None


@dataclass(frozen=True, slots=True)
class Released:
    """A de-identified object: a pydicom FileDataset that can be saved as it is, and how many frames were read,
    regions blanked, and attributes dropped, by why."""

    dataset: Any = field(repr=False)
    frames: int
    blanked: int
    dropped: Counter[str]


def deidentified(
    source: Any, rules: DicomRules, reader: TextReader, *, patient: str = "", forbidden: Iterable[str] = ()
) -> Released:
    """De-identify one object (a pydicom Dataset as `dcmread` gives it); the source is not changed.

    Args: patient: whose it is, as the rest of the hub's records call him; the object's own Patient ID where empty.
    forbidden: names and numbers of his that are known from elsewhere, besides those in the object.
    Raises: Withheld: it is not released; the reason is in it. MisuseError: pydicom or the reader is not installed.
    """
    _require_class(source)
    _require_no_evidence(source)
    patient = patient or str(source.get("PatientID") or "").strip()
    if not patient:
        raise Withheld("no-patient-id", "It does not say whose it is (Patient ID is empty), so no pseudonym fits.")
    known = tokens([*_people_and_numbers(source), *forbidden, patient]) - _NEVER_FORBIDDEN
    header = Header(rules.key, rules.words, known, shift_of(rules.key, patient), rules.dates == "shift")
    result = header.written(source)
    _write_b_value(source, result, rules)
    name = pseudonym(rules.key, patient)
    result.PatientID, result.PatientName = name, name
    _write_age(source, result)
    frames, blank = _write_pixels(source, result, rules, reader)
    _mark(result, rules.dates)
    return Released(_file(source, result), frames, blank, header.dropped)


# --- before anything is read of it ------------------------------------------------------------------


@cache
def _classes() -> dict[str, bool]:
    """Accepted SOP classes: whether they have pixels. Raises: MisuseError: pydicom is not installed."""
    try:
        from pydicom import uid
    except ImportError as error:
        raise MisuseError("DICOM needs pydicom, which is not installed: pip install 'flute[imaging]'.") from error
    return {str(getattr(uid, name)): name in _IMAGES for name in (*_IMAGES, *_WITHOUT_PIXELS)}


def _require_class(source: Any) -> None:
    """Raises: Withheld: not an image, segmentation, structure set or measurement."""
    if str(source.get("SOPClassUID", "")) not in _classes():
        raise Withheld(
            "class-not-accepted",
            "Only MR, CT and PET images, segmentations, parametric maps, structure sets and measurement reports are "
            "released; captures of screens, documents, ultrasound and dose reports carry names as pictures or text.",
        )


def _require_no_evidence(source: Any) -> None:
    """Raises: Withheld: the header itself says that the pixels identify."""
    kinds = {str(kind).strip().upper() for kind in _values(source.get("ImageType"))}
    if kinds & _SCREEN:
        raise Withheld("screen-capture", "Its image type says that it is a picture of a screen.")
    if str(source.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise Withheld("burnt-in-declared", "Its header says that annotations are burnt into the pixels.")
    if str(source.get("RecognizableVisualFeatures", "")).strip().upper() == "YES":
        raise Withheld("recognisable-features", "Its header says that a person can be recognised in the pixels.")


def _people_and_numbers(source: Any) -> Iterator[str]:
    """Names of persons anywhere in the object, and the patient's names and numbers."""
    for element in source.iterall():
        texts = (str(value) for value in _values(element.value))
        his = element.tag.group == 0x0010 and element.VR in ("LO", "SH") and element.keyword not in _NOT_NAMES
        if his or element.VR == "PN" or element.keyword == "AccessionNumber":
            yield from texts


# --- age, pixels, marks -------------------------------------------------------------------------------


def _write_b_value(source: Any, result: Any, rules: DicomRules) -> None:
    """One number, checked, so that nothing else of a private attribute can come along."""
    b = None if "DiffusionBValue" in result else rules.b_value(source)
    if b is not None and 0 <= float(b) <= _MAX_B_VALUE:
        result.DiffusionBValue = float(b)


def _write_age(source: Any, result: Any) -> None:
    """Patient's Age from birth and study date where the object does not state it (a stated age is already there)."""
    if "PatientAge" in result:
        return
    birth, day = (day_of(str(source.get(name) or "")) for name in ("PatientBirthDate", "StudyDate"))
    years = age_at(birth, day) if birth and day else None
    if years is not None:
        result.PatientAge = f"{years:03}Y"


def _write_pixels(source: Any, result: Any, rules: DicomRules, reader: TextReader) -> tuple[int, int]:
    """Gives frames read and regions blanked. Raises: Withheld: text in them, or they cannot be read."""
    present = [tag for tag in PIXELS if tag in source]
    if not _classes()[str(source.SOPClassUID)]:
        if present:
            raise Withheld("pixels-unexpected", "It has pixels where its class has none.")
        return 0, 0
    if not present:
        return 0, 0
    values = decoded(source)
    blank = 0
    for number, frame in enumerate(values):
        if rules.burnt_in == "blank":
            cleaned, regions = blanked(frame, reader)
            if regions:
                values = values if blank else values.copy()
                values[number] = cleaned
                blank += regions
        elif text_in(frame, reader):
            raise Withheld("burnt-in-text", "Text is burnt into its pixels.")
    _set_pixels(source, result, values, present[0])
    result.BurnedInAnnotation = "NO"
    return len(values), blank


def _set_pixels(source: Any, result: Any, values: Any, tag: int) -> None:
    if tag == PIXELS[0] and int(source.BitsAllocated) == 1:
        from pydicom.pixels.utils import pack_bits

        raw = bytes(pack_bits(values.reshape(-1), pad=True))
    else:
        raw = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()
        raw += b"\0" * (len(raw) % 2)
    vr = {0x7FE00008: "OF", 0x7FE00009: "OD"}.get(tag, "OB" if int(source.get("BitsAllocated", 16)) <= 8 else "OW")
    result.add_new(tag, vr, raw)


def _mark(result: Any, dates: Dates) -> None:
    """Say in the object what was done to it (PS3.15 section E.1.1, steps 7 to 9)."""
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = _METHOD
    codes = [*_METHODS, _MODIFIED_DATES] if dates == "shift" else list(_METHODS)
    result.DeidentificationMethodCodeSequence = [
        attributes.code_item(value, "DCM", meaning) for value, meaning in sorted(codes)
    ]
    result.LongitudinalTemporalInformationModified = "MODIFIED" if dates == "shift" else "REMOVED"


def _file(source: Any, result: Any) -> Any:
    """The object as a file: fresh meta information, an empty preamble, explicit little endian."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = source.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION)
    meta.ImplementationVersionName = "FLUTE"
    return FileDataset("", result, preamble=bytes(128), file_meta=meta)


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
