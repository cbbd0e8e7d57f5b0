"""A SIMULATED study of a gland with two zones and a lesion, as DICOM objects that a scanner might have written.

Signals follow from tissue: T2W = PD exp(-TE/T2), DWI = PD exp(-TE/T2) exp(-b ADC), the ADC map is fitted to the noisy
DWI, DCE = a baseline times an uptake; noise is Rician. No patient stands behind it, and every object says so: in the
patient's name, the image comments, the study's description and the scanner's model. Same arguments, same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.random import PCG64, Generator  # noqa: TID251 seeded on purpose: a simulated study, no secret
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from flute.errors import MisuseError
from flute.imaging.headers import MR_IMAGE
from flute.imaging.phantoms.defects import APPLIED, DEFECTS, PLANNED
from flute.imaging.phantoms.makers import LOOKS, BPlace, dress, put_b_value
from flute.imaging.volumes.volume import fit_adc

Array = NDArray[np.float64]
TILT_DEGREES: Final = 8.0
"""Axial slices are planned perpendicular to the gland, not to the table."""
DCE_PHASES: Final = 12
PHASE_S: Final = 10.0
NOISE: Final = 0.01
"""Of the brightest signal."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who the study says it is of. All of it is simulated, and the name says so."""

    patient_id: str = "SIM-0001"
    name: str = "SIMULATED^PHANTOM"
    birth_date: str = "19500312"
    study_date: str = "20200110"
    accession: str = "SIM-A1"


@dataclass(frozen=True, slots=True)
class Size:
    """Matrix and voxel side (mm) of T2W and DCE, and of DWI; slices and their distance (mm)."""

    matrix: int
    side: float
    dwi_matrix: int
    dwi_side: float
    slices: int
    step: float


FULL: Final = Size(384, 0.4, 100, 2.0, 24, 3.0)
"""Fulfils the technical minimums of a clinical protocol; some 20 MB without DCE."""
SMALL: Final = Size(96, 0.7, 40, 1.7, 9, 4.5)
"""For tests: a third of a second."""


# --- anatomy: millimetres, patient coordinates, the gland's centre at the origin -------------------

BODY, OUTER, INNER, LESION = 1, 2, 3, 4
_SHAPES: Final = (
    (BODY, (0.0, 0.0, 0.0), (150.0, 90.0, 400.0)),
    (OUTER, (0.0, 0.0, 0.0), (26.0, 20.0, 19.0)),
    (INNER, (0.0, -4.0, 2.0), (17.0, 11.0, 14.0)),
    (LESION, (12.0, 11.0, -2.0), (6.0, 5.0, 6.0)),
)
"""(label, centre, half-axes) of ellipsoids, later ones over earlier ones."""
TISSUE: Final = np.array(
    # proton density, T2 in ms, ADC in 1e-6 mm2/s, uptake of contrast agent
    [[0.0, 1.0, 0.0, 0.0], [0.7, 45.0, 1100.0, 0.2], [1.0, 145.0, 1650.0, 0.5], [0.9, 95.0, 1300.0, 0.8],
     [0.9, 75.0, 720.0, 1.6]]
)  # fmt: skip


def labels_at(points: Array) -> NDArray[np.int64]:
    """Label of each point. Shapes: points [..., 3] in mm to int64 [...]."""
    labels = np.zeros(points.shape[:-1], dtype=np.int64)
    for label, centre, axes in _SHAPES:
        labels[(((points - np.array(centre)) / np.array(axes)) ** 2).sum(axis=-1) <= 1] = label
    return labels


@dataclass(frozen=True, slots=True)
class Plan:
    """One series to make. `b`: of each of its stacks, or () where there is no diffusion. rows, columns:
    directions."""

    sort: str
    number: int
    matrix: int
    side: float
    slices: int
    step: float
    rows: tuple[float, float, float]
    columns: tuple[float, float, float]
    b: tuple[int, ...] = ()
    phases: int = 1

    def positions(self) -> Array:
        """Centre of each slice's first voxel: float64 [slices, 3]."""
        row, column = np.array(self.rows), np.array(self.columns)
        across = (self.matrix - 1) / 2 * self.side
        steps = (np.arange(self.slices) - (self.slices - 1) / 2) * self.step
        start: Array = -across * (row + column) + steps[:, None] * np.cross(row, column)
        return start

    def points(self, start: Array) -> Array:
        """Every voxel's centre in one slice: float64 [matrix, matrix, 3]."""
        offsets = np.arange(self.matrix) * self.side
        down = offsets[:, None, None] * np.array(self.columns)
        right = offsets[None, :, None] * np.array(self.rows)
        grid: Array = start + down + right
        return grid


_TILT: Final = np.radians(TILT_DEGREES)
_AXIAL: Final = ((1.0, 0.0, 0.0), (0.0, float(np.cos(_TILT)), float(np.sin(_TILT))))
_SAGITTAL: Final = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
_CORONAL: Final = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))


def plans(size: Size, *, dce: bool = False, defects: Sequence[str] = ()) -> list[Plan]:
    fine = (size.matrix, size.side, size.slices, size.step)
    coarse = (size.dwi_matrix, size.dwi_side, size.slices, size.step)
    t2_directions = _CORONAL if "wrong-orientation" in defects else _AXIAL
    b_values = (800,) if "one-b-value" in defects else (50, 400, 800)
    made = [
        *(
            Plan("localizer", 1, size.dwi_matrix, 2 * size.dwi_side, 1, 10.0, *d)
            for d in (_AXIAL, _SAGITTAL, _CORONAL)
        ),
        Plan("t2", 2, *fine, *t2_directions),
        Plan("t2-second", 3, *fine, *_SAGITTAL),
        Plan("dwi", 4, *coarse, *_AXIAL, b=b_values),
        Plan("high", 5, *coarse, *_AXIAL, b=(1400,)),
        Plan("adc", 6, *coarse, *_AXIAL),
    ]
    if dce:
        made.append(Plan("dce", 7, *coarse, *_AXIAL, phases=DCE_PHASES))
    without = {"adc"} if {"no-adc", "one-b-value"} & set(defects) else set()
    return [plan for plan in made if plan.sort not in without]


# --- pixels --------------------------------------------------------------------------------------


def _signal(plan: Plan, labels: NDArray[np.int64], te: float, b: float, phase: int) -> Array:
    """What a scanner would measure without noise, 0 to about 1."""
    density, t2, adc, uptake = TISSUE[labels].transpose(-1, *range(labels.ndim))
    if plan.sort == "dce":
        # Uptake from the third phase on, with a slow wash-out: rough, and enough to look dynamic.
        curve = max(0.0, 1 - np.exp(-(phase - 2) / 1.5)) * np.exp(-max(0, phase - 2) / 40)
        dynamic: Array = 0.3 * density * (1 + uptake * curve)
        return dynamic
    signal: Array = density * np.exp(-te / t2) * np.exp(-b * adc * 1e-6)
    return signal


def _noisy(signal: Array, chance: Generator) -> Array:
    """Rician: the magnitude of a complex signal with noise in both parts."""
    real = signal + chance.normal(scale=NOISE, size=signal.shape)
    magnitude: Array = np.hypot(real, chance.normal(scale=NOISE, size=signal.shape))
    return magnitude


def _stacks(plan: Plan, maker: str, chance: Generator) -> Iterator[tuple[int | None, int, Array]]:
    """(b-value or None, phase, float64 [slices, matrix, matrix] as stored numbers) per stack."""
    labels = np.stack([labels_at(plan.points(start)) for start in plan.positions()])
    te = LOOKS[maker][plan.sort].te
    if plan.sort == "adc":
        b_values = np.array([50.0, 400.0, 800.0])
        stacks = np.stack([_noisy(_signal(plan, labels, te, b, 0), chance) for b in b_values])
        yield None, 0, fit_adc(b_values, stacks)
    for b in plan.b:
        yield b, 0, 2000 * _noisy(_signal(plan, labels, te, b, 0), chance)
    if not plan.b and plan.sort != "adc":
        for phase in range(plan.phases):
            yield None, phase, 2000 * _noisy(_signal(plan, labels, te, 0, phase), chance)


# --- objects -------------------------------------------------------------------------------------


def phantom(
    maker: str, *, seed: int = 1, subject: Subject = Subject(), size: Size = SMALL, dce: bool = False,
    defects: Sequence[str] = (), b_in: BPlace = "private",
) -> list[Dataset]:  # fmt: skip
    """One simulated study, with file meta information, ready for `dcmwrite(..., enforce_file_format=True)`.

    Raises: MisuseError: an unknown maker or defect, or a place for b-values that this maker does not have.
    """
    unknown = sorted(set(defects) - set(DEFECTS))
    if maker not in LOOKS or unknown:
        raise MisuseError(f"Makers are {', '.join(LOOKS)}; defects are {', '.join(DEFECTS)}.")
    if b_in in ("csa", "sequence-name") and maker != "siemens":
        raise MisuseError(f"Only Siemens writes b-values like this: {b_in}.")
    chance = Generator(PCG64([seed, list(LOOKS).index(maker)]))
    base = f"{maker}/{seed}/{subject}/{size}"
    made: list[Dataset] = []
    for plan in plans(size, dce=dce, defects=defects):
        made += _series(plan, maker, subject, base, b_in, chance)
    for name in defects:
        if name not in PLANNED:
            made = APPLIED[name](made)
    return made


def write_phantom(out: Path, maker: str, **options: Any) -> list[Path]:
    """Write `phantom(maker, **options)` as files, one folder per series. Gives the files."""
    written = []
    for number, ds in enumerate(phantom(maker, **options), start=1):
        folder = out / f"series{int(ds.SeriesNumber):02d}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"image{number:05d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def _uid(*parts: object) -> str:
    """A UID derived from a UUID-sized digest (PS3.5 B.2), the same for the same parts."""
    return f"2.25.{int.from_bytes(hashlib.sha256('/'.join(map(str, parts)).encode()).digest()[:16], 'big')}"


def _series(
    plan: Plan, maker: str, subject: Subject, base: str, b_in: BPlace, chance: Generator
) -> Iterator[Dataset]:
    count = 0
    for b, phase, stack in _stacks(plan, maker, chance):
        for start, pixels in zip(plan.positions(), stack, strict=True):
            count += 1
            # The three planes of a localizer are three plans of one series.
            ds = _image(
                plan, maker, subject, base, start, count + 10 * (plan.rows[1] > 0) + 20 * (plan.columns[2] < 0)
            )
            if b is not None:
                put_b_value(ds, maker, plan.sort, b, b_in)
            if plan.phases > 1:
                _put_phase(ds, maker, phase)
            _put_pixels(ds, maker, plan, pixels)
            yield ds


def _image(plan: Plan, maker: str, subject: Subject, base: str, start: Array, number: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = MR_IMAGE
    ds.SOPInstanceUID = _uid(base, plan.number, number)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    _put_person_and_study(ds, subject, base)
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "MR", plan.number, number
    ds.SeriesInstanceUID = _uid(base, plan.number)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(base, "frame"), ""
    ds.Laterality, ds.PatientPosition, ds.AcquisitionNumber = "", "HFS", 1
    ds.AcquisitionDate = ds.SeriesDate = ds.ContentDate = subject.study_date
    ds.AcquisitionTime = ds.SeriesTime = ds.ContentTime = (
        f"{9 + plan.number // 6:02d}{plan.number % 6 * 10:02d}00.000000"
    )
    dress(ds, maker, plan.sort)
    ds.ImagePositionPatient = [f"{v:.6f}" for v in start]
    ds.ImageOrientationPatient = [f"{v:.8f}" for v in (*plan.rows, *plan.columns)]
    ds.PixelSpacing = [plan.side, plan.side]
    ds.SliceThickness = ds.SpacingBetweenSlices = plan.step
    ds.ImageComments = "SIMULATED: no patient stands behind this image"
    return ds


def _put_person_and_study(ds: Dataset, subject: Subject, base: str) -> None:
    ds.PatientName, ds.PatientID = subject.name, subject.patient_id
    ds.PatientBirthDate, ds.PatientSex = subject.birth_date, "M"
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = _uid(base), "1", subject.accession
    ds.StudyDate, ds.StudyTime, ds.StudyDescription = subject.study_date, "090000", "SIMULATED MR"
    ds.ReferringPhysicianName = "SIMULATED^REFERRER"
    ds.InstitutionName, ds.StationName, ds.DeviceSerialNumber = "SIMULATED HOSPITAL", "SIMSTATION", "SIM-00001"


def _put_phase(ds: Dataset, maker: str, phase: int) -> None:
    """Siemens tells phases by time and acquisition number, GE by trigger time too, Philips by temporal position."""
    seconds = phase * PHASE_S
    ds.AcquisitionTime = ds.ContentTime = f"10{10 + int(seconds // 60):02d}{seconds % 60:09.6f}"
    ds.ContrastBolusAgent = "SIMULATED contrast agent"
    if maker == "siemens":
        ds.AcquisitionNumber = phase + 1
    if maker == "ge":
        ds.TriggerTime = seconds * 1000
    if maker != "siemens":
        ds.TemporalPositionIdentifier, ds.NumberOfTemporalPositions = phase + 1, DCE_PHASES


def _put_pixels(ds: Dataset, maker: str, plan: Plan, values: Array) -> None:
    """Stored as 12 bits in 16; Philips stores half of the value and says so in its slope."""
    slope = 2.0 if maker == "philips" else 1.0
    if slope != 1.0:
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = slope, 0, "US"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = plan.matrix
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = 500, 1000
    ds.PixelData = np.clip(np.rint(values / slope), 0, 4095).astype("<u2").tobytes()
