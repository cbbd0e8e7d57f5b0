"""What FLUTE wants to know of one image, read from its header as three makers write them.

A `Header` holds physics and geometry. It holds no name, number or date of a person, and of free text only words of
`VOCABULARY`. One classic object gives one header, an enhanced (multi-frame) object one per frame.
Source: DICOM PS3.3 C.8.3.1 (MR Image), C.8.13 (Enhanced MR).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct
from pydicom.dataset import Dataset

from flute.defaults.records import MAX_FRAMES
from flute.imaging.bvalues import b_value
from flute.imaging.elements import items, number, number_list, numbers, private, text, text_of, texts

Maker = Literal["siemens", "ge", "philips", "other"]
MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR: Final = frozenset({"1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"})
"""Enhanced MR Image Storage, Legacy Converted Enhanced MR Image Storage."""

VOCABULARY: Final = frozenset({
    "t1", "t1w", "t2", "t2w", "tse", "fse", "trufi", "haste", "blade", "propeller", "space", "cube", "vista",
    "dwi", "cdwi", "ddwi", "diff", "diffusion", "trace", "calc", "synb", "calculated", "computed",
    "adc", "dadc", "eadc", "apparent", "coefficient", "exponential",
    "dce", "dyn", "dynamic", "perf", "twist", "vibe", "lava", "thrive", "disco", "sub", "mip", "mpr",
    "loc", "localizer", "localiser", "survey", "scout",
})  # fmt: skip
"""Words of a description that may count; all others are not even kept, since technicians type names there too."""


class Header(Struct, frozen=True):
    """One image. Lengths in mm, times in ms, b in s/mm2; None or empty where the header does not say.

    position, orientation: centre of the first voxel and direction cosines of rows and columns, patient coordinates
    (LPS). spacing: between rows, between columns. moment: s since midnight. phase: what tells repetitions at one
    place apart. direction: of the diffusion gradient, as text. b_conflict: two places of the header give different
    b-values."""

    series: str
    instance: str
    frame: int
    maker: Maker
    modality: str
    sop_class: str
    frame_of_reference: str
    image_type: tuple[str, ...]
    scanning: tuple[str, ...]
    sequence_name: str
    technique: str
    words: frozenset[str]
    tr: float | None
    te: float | None
    echo_train: float | None
    b: float | None
    b_source: str
    b_conflict: bool
    direction: str
    quantity: str
    contrast: bool
    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slice_step: float | None
    rows: int
    columns: int
    moment: float | None
    phase: str
    expected: int | None

    @property
    def derived(self) -> bool:
        return bool(self.image_type) and self.image_type[0] == "DERIVED"

    @property
    def echo_planar(self) -> bool:
        return (
            "EP" in self.scanning or self.sequence_name.startswith(("ep", "epi")) or self.technique.startswith("dwi")
        )


def headers_of(ds: Dataset) -> Iterator[Header]:
    """The header of a classic image, or one per frame of an enhanced one. Other objects give none."""
    sop_class = text(ds, "SOPClassUID")
    if sop_class in ENHANCED_MR:
        for at, frame in enumerate(flat_frames(ds)):
            yield header_of(frame, at)
    elif text(ds, "Modality") == "MR" and "Rows" in ds:
        yield header_of(ds)


def header_of(ds: Dataset, frame: int = 0) -> Header:
    b, b_source, b_conflict = b_value(ds)
    return Header(
        series=text(ds, "SeriesInstanceUID"),
        instance=text(ds, "SOPInstanceUID"),
        frame=frame,
        maker=maker_of(ds),
        modality=text(ds, "Modality"),
        sop_class=text(ds, "SOPClassUID"),
        frame_of_reference=text(ds, "FrameOfReferenceUID"),
        image_type=tuple(v.upper() for v in texts(ds, "ImageType")),
        scanning=_scanning(ds),
        sequence_name=text(ds, "SequenceName").lstrip("*").lower(),
        technique=text_of(private(ds, 0x2001, "Philips Imaging DD 001", 0x20)).lower(),
        words=_words(ds),
        tr=number(ds, "RepetitionTime"),
        te=_first(number(ds, "EchoTime"), number(ds, "EffectiveEchoTime")),
        echo_train=number(ds, "EchoTrainLength"),
        b=b,
        b_source=b_source,
        b_conflict=b_conflict,
        direction=_direction(ds),
        quantity=_quantity(ds),
        contrast=bool(text(ds, "ContrastBolusAgent")) or "ContrastBolusAgentSequence" in ds,
        position=_three(numbers(ds, "ImagePositionPatient")),
        orientation=_six(numbers(ds, "ImageOrientationPatient")),
        spacing=_two(numbers(ds, "PixelSpacing")),
        thickness=number(ds, "SliceThickness"),
        slice_step=number(ds, "SpacingBetweenSlices"),
        rows=int(number(ds, "Rows") or 0),
        columns=int(number(ds, "Columns") or 0),
        moment=seconds_of(text(ds, "AcquisitionTime") or text(ds, "FrameAcquisitionDateTime")[8:]),
        phase=_phase(ds),
        expected=_whole(number(ds, "ImagesInAcquisition")),
    )


# --- maker and b-value ---------------------------------------------------------------------------


def maker_of(ds: Dataset) -> Maker:
    name = text(ds, "Manufacturer").upper()
    if name.startswith("SIEMENS"):
        return "siemens"
    if name.startswith("GE ") or name == "GE" or "GENERAL ELECTRIC" in name:
        return "ge"
    return "philips" if name.startswith("PHILIPS") else "other"


def _direction(ds: Dataset) -> str:
    gradient = numbers(ds, "DiffusionGradientOrientation")
    if gradient is None:
        gradient = number_list(private(ds, 0x0019, "SIEMENS MR HEADER", 0x0E))
    if gradient is not None:
        return " ".join(f"{v:.3f}" for v in gradient)
    return text_of(private(ds, 0x2001, "Philips Imaging DD 001", 0x04))


# --- enhanced objects ----------------------------------------------------------------------------


def flat_frames(ds: Dataset) -> Iterator[Dataset]:
    """Each frame of an enhanced object as a flat data set: what is said once for all frames, then its own.

    Pixel data are left out. At most MAX_FRAMES frames are read. Source: PS3.3 C.7.6.16.
    """
    common = Dataset()
    for element in ds:
        if element.VR not in ("SQ", "OB", "OW", "UN", "OF", "OD") or element.keyword.startswith("ContrastBolus"):
            common.add(element)
    for item in items(ds, "SharedFunctionalGroupsSequence")[:1]:
        _lift(item, common)
    for item in items(ds, "PerFrameFunctionalGroupsSequence")[:MAX_FRAMES]:
        frame = Dataset()
        frame.update(common)
        _lift(item, frame)
        if "FrameType" in frame:
            frame.ImageType = frame.FrameType
        yield frame


def _lift(group: Dataset, into: Dataset) -> None:
    """Elements of every macro of a functional group, one level up; deeper sequences too, where they hold no list."""
    for element in group:
        if element.VR != "SQ":
            into.add(element)
            continue
        inner = list(element.value)
        if element.keyword == "RealWorldValueMappingSequence":
            into.add(element)
        elif len(inner) == 1:
            _lift(inner[0], into)


# --- elements ------------------------------------------------------------------------------------


def _scanning(ds: Dataset) -> tuple[str, ...]:
    """Values of Scanning Sequence; of an enhanced object, what its own elements say in their place."""
    classic = tuple(v.upper() for v in texts(ds, "ScanningSequence"))
    if classic:
        return classic
    pulse = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}.get(text(ds, "EchoPulseSequence"), [])
    planar = ["EP"] if text(ds, "EchoPlanarPulseSequence") == "YES" else []
    inverted = ["IR"] if text(ds, "InversionRecovery") == "YES" else []
    return tuple(pulse + planar + inverted)


def _words(ds: Dataset) -> frozenset[str]:
    typed = " ".join(text(ds, name) for name in ("SeriesDescription", "ProtocolName", "DerivationDescription"))
    return frozenset(re.findall(r"[a-z]+[0-9]?[a-z]?", re.sub(r"[_\W]+", " ", typed.lower()))) & VOCABULARY


def _quantity(ds: Dataset) -> str:
    """Code of what stored values mean, of a real-world value mapping (DCM 113041: apparent diffusion coefficient)."""
    for mapping in items(ds, "RealWorldValueMappingSequence"):
        for quantity in items(mapping, "QuantityDefinitionSequence"):
            for code in items(quantity, "ConceptCodeSequence"):
                if text(code, "CodeValue"):
                    return text(code, "CodeValue")
    return ""


def _phase(ds: Dataset) -> str:
    """What tells repetitions at one place apart, the most telling element first."""
    for name in ("TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "AcquisitionNumber"):
        value = number(ds, name)
        if value is not None:
            return f"{name} {value:g}"
    return ""


def seconds_of(clock: str) -> float | None:
    """A DICOM time of day as seconds since midnight."""
    found = re.match(r"(\d\d)(\d\d)(\d\d(?:\.\d{1,6})?)", clock.replace(":", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and value >= 1 else None


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)


def _two(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values is not None and len(values) == 2 else None


def _three(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if values is not None and len(values) == 3 else None


def _six(values: tuple[float, ...] | None) -> tuple[float, float, float, float, float, float] | None:
    if values is None or len(values) != 6:
        return None
    return (values[0], values[1], values[2], values[3], values[4], values[5])
