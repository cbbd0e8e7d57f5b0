"""Images on a hub's shelf as arrays that a network takes: T2W, ADC and high-b DWI of each patient on one grid.

The grid lies in patient space (its axes are left, posterior, superior; its first slice is the lowest), centred on the
prostate where a mask shows it, else on the T2W volume. Everything that turns voxels into values is public or of the
patient's own images: no statistic is taken over patients. Of a patient's studies the last on the shelf counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from flute.defaults.images import ADC_RANGE, GRID_SIZE, GRID_SPACING_MM, HIGH_B_LEAST, SIGNAL_PERCENTS
from flute.errors import Unmappable
from flute.imaging.headers import headers_of
from flute.imaging.sources.source import SEGMENTATION, STRUCTURE_SET
from flute.imaging.volumes.masks import segments_of, structures_of
from flute.imaging.volumes.series import Recognised, recognise
from flute.imaging.volumes.volume import volume_of, volumes_of

Images = NDArray[np.float32]
CHANNELS: Final = ("T2W", "ADC", "DWI")
_GLAND: Final = re.compile(r"pr[oó]stat", re.IGNORECASE)
_UPRIGHT: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """size, spacing: slices, rows, columns, and mm between them."""

    size: tuple[int, int, int] = GRID_SIZE
    spacing: tuple[float, float, float] = GRID_SPACING_MM

    def origin(self, centre: NDArray[np.float64]) -> list[float]:
        """Patient coordinates of the first voxel, x first. centre: float64 [3], x first."""
        reach = (np.array(self.size[::-1]) - 1) / 2 * np.array(self.spacing[::-1])
        found: list[float] = (centre - reach).tolist()
        return found


@dataclass(slots=True)
class Shelved:
    """`left_out`: patients without an image, by reason; filled while `images` goes on."""

    shelf: Path
    grid: Grid = Grid()
    left_out: Counter[str] = field(default_factory=Counter)

    def images(self, said: Callable[[int], None] = lambda done: None) -> Iterator[tuple[str, Images | None]]:
        """(pseudonym, float32 [3, slices, rows, columns] in [-1, 1] or None) of every patient on the shelf."""
        for done, patient in enumerate(sorted(p for p in self.shelf.iterdir() if p.is_dir()), start=1):
            studies = sorted((p for p in patient.iterdir() if p.is_dir()), key=lambda p: (p.stat().st_mtime, p.name))
            if studies:
                yield patient.name, self._image(studies[-1])
            said(done)

    def _image(self, study: Path) -> Images | None:
        try:
            return tensor_of([pydicom.dcmread(path) for path in sorted(study.rglob("*.dcm"))], self.grid)
        except _LeftOutError as why:
            self.left_out[why.reason] += 1
        except Unmappable:
            self.left_out["no-volume"] += 1
        return None


class _LeftOutError(Exception):
    """Why a patient gets no image, by a fixed word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def tensor_of(objects: Sequence[Dataset], grid: Grid = Grid()) -> Images:
    """One study's image, float32 [3, slices, rows, columns] in [-1, 1]; -1 where a series did not reach.

    Raises: Unmappable: a series that makes no volume. _LeftOutError: what is lacking."""
    masks = [ds for ds in objects if ds.SOPClassUID in (SEGMENTATION, STRUCTURE_SET)]
    images = [ds for ds in objects if ds.SOPClassUID not in (SEGMENTATION, STRUCTURE_SET)]
    series = recognise(header for ds in images for header in headers_of(ds))
    t2w = _axial(series, images, "T2W")
    volumes = (volume_of(t2w), volume_of(_axial(series, images, "ADC")), _high_b(series, images, _frame(t2w)))
    _require_frame(t2w, _axial(series, images, "ADC"))
    origin = grid.origin(_centre(volumes[0], masks, _frame(t2w)))
    return np.stack([
        _signal(volumes[0], grid, origin),
        _scaled(_resampled(volumes[1], grid, origin, ADC_RANGE[0]), *ADC_RANGE),
        _signal(volumes[2], grid, origin),
    ])  # fmt: skip


# --- which series --------------------------------------------------------------------------------------


def _axial(series: Sequence[Recognised], images: Sequence[Dataset], kind: str) -> list[Dataset]:
    """The images of the one series of this kind: the axial one with most of them, an acquired one before others."""
    found = [one for one in series if one.kind == kind and one.plane == "axial"]
    if not found:
        raise _LeftOutError(f"no-{kind.lower()}")
    best = max(found, key=lambda one: (not one.calculated, one.images))
    return [ds for ds in images if str(ds.SeriesInstanceUID) == best.series]


def _high_b(series: Sequence[Recognised], images: Sequence[Dataset], frame: str) -> Any:
    """The volume of the largest b-value; the mean over directions of the gradient where there are several."""
    able = [one for one in series if one.kind == "DWI" and one.plane == "axial" and one.b_values]
    if not able or max(one.b_values[-1] for one in able) < HIGH_B_LEAST:
        raise _LeftOutError("no-high-b-dwi")
    best = max(able, key=lambda one: (one.b_values[-1], not one.calculated, one.images))
    own = [ds for ds in images if str(ds.SeriesInstanceUID) == best.series]
    if _frame(own) != frame:
        raise _LeftOutError("other-frame-of-reference")
    stacks = [volume for (b, _, _), volume in volumes_of(own).items() if b == best.b_values[-1]]
    mean: Any = sum(stacks[1:], stacks[0]) / len(stacks)
    return mean


def _frame(images: Sequence[Dataset]) -> str:
    return str(images[0].get("FrameOfReferenceUID", ""))


def _require_frame(one: Sequence[Dataset], other: Sequence[Dataset]) -> None:
    """Coordinates of two frames of reference do not mean the same places."""
    if _frame(one) != _frame(other):
        raise _LeftOutError("other-frame-of-reference")


# --- where and what ------------------------------------------------------------------------------------


def _centre(volume: Any, masks: Sequence[Dataset], frame: str) -> NDArray[np.float64]:
    """Patient coordinates [3], x first: of the gland where a mask shows it, else of the volume."""
    for ds in masks:
        read = segments_of if ds.SOPClassUID == SEGMENTATION else structures_of
        try:
            drawn = read(ds, volume, frame_of_reference=frame)
        except Unmappable:
            continue  # drawn on another series
        for label, mask in drawn.items():
            inside = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)
            if _GLAND.search(label) and len(inside):
                return _place(volume, inside.mean(axis=0)[::-1])
    return _place(volume, (np.array(volume.GetSize()) - 1) / 2)


def _place(volume: Any, index: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array(volume.TransformContinuousIndexToPhysicalPoint([float(i) for i in index]))


def _resampled(volume: Any, grid: Grid, origin: Sequence[float], outside: float) -> Images:
    """Linear between voxels. float32 [slices, rows, columns]. Raises: _LeftOutError: a value that is not finite."""
    resample: Any = sitk.ResampleImageFilter()  # type: ignore[no-untyped-call]
    resample.SetInterpolator(sitk.sitkLinear)
    resample.SetSize(grid.size[::-1])
    resample.SetOutputSpacing(grid.spacing[::-1])
    resample.SetOutputOrigin(origin)
    resample.SetOutputDirection(_UPRIGHT)
    resample.SetDefaultPixelValue(outside)
    resample.SetOutputPixelType(sitk.sitkFloat32)
    found: Images = sitk.GetArrayFromImage(resample.Execute(volume))
    if not np.isfinite(found).all():
        raise _LeftOutError("not-finite")
    return found


def _signal(volume: Any, grid: Grid, origin: Sequence[float]) -> Images:
    """Between two percentiles of the whole volume."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(volume), SIGNAL_PERCENTS)
    if not high > low:
        raise _LeftOutError("no-contrast")
    return _scaled(_resampled(volume, grid, origin, float(low)), float(low), float(high))


def _scaled(values: Images, low: float, high: float) -> Images:
    """[low, high] to [-1, 1]; what lies beyond is cut off, as a display window does."""
    parts = (values - np.float32(low)) / np.float32(high - low)
    scaled: Images = np.clip(2 * parts - 1, -1, 1, dtype=np.float32)
    return scaled
