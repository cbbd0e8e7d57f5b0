"""Radiomics features as columns: numbers that describe a volume inside a mask, the same at every hub.

A feature depends on how it was computed as much as on the image, so the settings are declared, and their digest goes
with the columns: two hubs may only be put together where it is equal. It covers the package's version too.
Source: IBSI reference manual (Zwanenburg et al. 2020), as PyRadiomics computes it (van Griethuysen et al. 2017).
"""

from __future__ import annotations

import hashlib
import logging
import math
from typing import Any, Final, Literal

import msgspec
import numpy as np
import SimpleITK as sitk
from msgspec import Struct

from flute.defaults import MAX_ID_CHARS
from flute.errors import MisuseError, Unmappable
from flute.imaging.volumes.volume import require_same_grid

FeatureClass = Literal["shape", "firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm"]


class FeatureSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How features are computed.

    bin_width: of grey levels, in the image's own unit. bin_count: fixed number of bins instead, for images without a
    unit (T2W). voxel_mm: side to which image and mask are resampled first, or None. normalise: to mean 0 and
    deviation 100 inside the image, for images without a unit. smallest_mask: voxels below which nothing is computed.
    """

    classes: tuple[FeatureClass, ...] = ("shape", "firstorder", "glcm")
    bin_width: float = 25.0
    bin_count: int | None = None
    voxel_mm: float | None = None
    normalise: bool = False
    smallest_mask: int = 20


def digest(settings: FeatureSettings) -> str:
    """64 hexadecimal characters that name settings and package: equal digests, comparable columns."""
    version = _radiomics().__version__
    return hashlib.sha256(version.encode() + b"\0" + msgspec.json.encode(settings)).hexdigest()


def features_of(image: Any, mask: Any, settings: FeatureSettings, *, prefix: str) -> dict[str, float]:
    """Column name ("t2w_lesion_glcm_Contrast") to value; NaN never: a feature that is none is left out.

    Raises: Unmappable: image and mask do not share a grid, or the mask has fewer voxels than `smallest_mask`.
        MisuseError: the prefix makes a name that no column may have, or the extra `radiomics` is not installed.
    """
    require_same_grid(image, mask)
    voxels = int((sitk.GetArrayViewFromImage(mask) > 0).sum())
    if voxels < settings.smallest_mask:
        raise Unmappable(f"The mask has {voxels} voxels; features need {settings.smallest_mask} at least.")
    found = _extractor(settings).execute(image, mask > 0)
    columns: dict[str, float] = {}
    for name, value in found.items():
        if not name.startswith("original_"):
            continue  # versions and settings of the package, in words
        column = f"{prefix}_{name.removeprefix('original_')}"
        if len(column) > MAX_ID_CHARS or not prefix[:1].isalpha():
            raise MisuseError(f"The prefix {prefix!r} makes a column name that begins with no letter or is too long.")
        number = float(np.asarray(value))
        if math.isfinite(number):
            columns[column] = number
    return columns


def _extractor(settings: FeatureSettings) -> Any:
    _radiomics()
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    options: dict[str, Any] = {
        "label": 1,
        "normalize": settings.normalise,
        "normalizeScale": 100,
        "resampledPixelSpacing": None if settings.voxel_mm is None else [settings.voxel_mm] * 3,
        "interpolator": "sitkBSpline",
        "geometryTolerance": 1e-3,
    }
    options |= {"binWidth": settings.bin_width} if settings.bin_count is None else {"binCount": settings.bin_count}
    return RadiomicsFeatureExtractor(
        {"setting": options, "imageType": {"Original": {}}, "featureClass": {name: [] for name in settings.classes}}
    )


_INSTALL: Final = "Radiomics features need one more package, built from source: pip install 'flute[radiomics]'."


def _radiomics() -> Any:
    try:
        import radiomics
    except ImportError as error:
        raise MisuseError(_INSTALL) from error
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    return radiomics
