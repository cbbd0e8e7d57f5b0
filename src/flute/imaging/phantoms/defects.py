"""Faults that can be planted into a simulated study, each with the rule that has to find it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import UID

Images = list[Dataset]
BURNT_IN: Final = "SIMULATED^NAME 12.03.1950"


def _t2(images: Images) -> Images:
    return [ds for ds in images if ds.SeriesNumber == 2]


def _missing_slice(images: Images) -> Images:
    gone = _t2(images)[len(_t2(images)) // 2]
    return [ds for ds in images if ds is not gone]


def _missing_b_slice(images: Images) -> Images:
    """One place lacks one of its b-values."""
    dwi = [ds for ds in images if ds.SeriesNumber == 4]
    return [ds for ds in images if ds is not dwi[1]]


def _duplicate_slice(images: Images) -> Images:
    again = deepcopy(_t2(images)[3])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = UID(f"{again.SOPInstanceUID[:60]}.1")
    return [*images, again]


def _uneven_spacing(images: Images) -> Images:
    for ds in _t2(images)[4:]:
        normal = np.cross(ds.ImageOrientationPatient[:3], ds.ImageOrientationPatient[3:])
        moved = np.array([float(v) for v in ds.ImagePositionPatient]) + 1.3 * normal
        ds.ImagePositionPatient = [f"{v:.6f}" for v in moved]
    return images


def _tilted_slice(images: Images) -> Images:
    _t2(images)[2].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return images


def _no_geometry(images: Images) -> Images:
    for ds in _t2(images):
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
    return images


def _burnt_in_name(images: Images) -> Images:
    """A name and a date of birth drawn into every T2W image, as viewers and workstations do."""
    for ds in _t2(images):
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns).copy()
        picture = Image.new("L", (ds.Columns, ds.Rows))
        # The size at which the text fills the width: small images need small letters to hold it at all.
        font = ImageFont.load_default(max(8.0, ds.Columns / 13))
        ImageDraw.Draw(picture).text((2, 2), BURNT_IN.replace(" ", "\n"), fill=255, font=font)
        pixels[np.asarray(picture) > 127] = 4000
        ds.PixelData = pixels.tobytes()
    return images


def _other_patient(images: Images) -> Images:
    """One image carries another patient's id: filed under the wrong study."""
    _t2(images)[0].PatientID = "SIM-OTHER"
    return images


APPLIED: Final[dict[str, Callable[[Images], Images]]] = {
    "missing-slice": _missing_slice,
    "missing-b-slice": _missing_b_slice,
    "duplicate-slice": _duplicate_slice,
    "uneven-spacing": _uneven_spacing,
    "tilted-slice": _tilted_slice,
    "no-geometry": _no_geometry,
    "burnt-in-name": _burnt_in_name,
    "other-patient": _other_patient,
}
PLANNED: Final = ("wrong-orientation", "no-adc", "one-b-value")
"""Defects of the acquisition: the study is planned with them."""
DEFECTS: Final[dict[str, str]] = {
    "missing-slice": "slice-missing",
    "missing-b-slice": "slice-missing",
    "duplicate-slice": "position-twice",
    "uneven-spacing": "spacing-uneven",
    "tilted-slice": "orientation-mixed",
    "no-geometry": "geometry-missing",
    "wrong-orientation": "t2w-not-axial",
    "no-adc": "adc-missing",
    "one-b-value": "b-value-low-missing",
    "burnt-in-name": "burnt-in-text",
    "other-patient": "patient-differs",
}
"""Defect to the rule or refusal that finds it; the last two are found when images are taken in."""
