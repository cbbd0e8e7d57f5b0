"""Volumes: the images of one stack as a SimpleITK image that lies where the patient lay, and as NIfTI.

SimpleITK and DICOM share patient coordinates (LPS, mm), so origin and direction are those of the headers; NIfTI uses
RAS, and SimpleITK turns the signs when it writes. Values are the scanner's (rescale slope and intercept applied).
Source: DICOM PS3.3 C.7.6.2.1.1; ADC: Stejskal and Tanner 1965, S = S0 exp(-b ADC), by least squares on ln S.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from flute.defaults.records import MAX_IMAGE_SIDE, SLICE_TOLERANCE
from flute.errors import MisuseError, Unmappable
from flute.imaging.elements import number, text
from flute.imaging.headers import ENHANCED_MR, Header, flat_frames, header_of
from flute.imaging.volumes.geometry import along, normal_of
from flute.imaging.volumes.series import phase_key

Array = NDArray[np.float64]
ADC_UNIT: Final = 1e-6
"""mm2/s: the unit in which maps are stored, so that tissue has 500 to 2,500."""
_FLOOR: Final = 1e-6
"""Of the stack's maximum: signals below are no signal, and their logarithm says nothing."""


def volumes_of(images: Sequence[Dataset]) -> dict[tuple[float | None, str, int], Any]:
    """Every stack of one series as a SimpleITK image, float32.

    Keys: (b-value or None, direction of the diffusion gradient, phase counted from 0).
    Raises: Unmappable: no pixels, no geometry, slices that make no regular box (see `quality` for the reasons).
    """
    slices = [one for ds in images for one in _slices(ds)]
    if not slices:
        raise Unmappable("The series holds no image with pixels and a place; nothing can be made a volume of.")
    parts: dict[tuple[float | None, str], list[tuple[Header, Array]]] = defaultdict(list)
    for header, pixels in slices:
        parts[header.b, header.direction].append((header, pixels))
    return {
        (b, direction, phase): _volume(stack)
        for (b, direction), members in parts.items()
        for phase, stack in enumerate(_phases(members))
    }


def volume_of(images: Sequence[Dataset]) -> Any:
    """The one volume of a series that holds a single stack. Raises: Unmappable: there are several, or none."""
    found = volumes_of(images)
    if len(found) != 1:
        raise Unmappable(f"The series holds {len(found)} stacks; say which by b-value and phase.")
    return next(iter(found.values()))


def write_nifti(image: Any, path: Path) -> None:
    """As `.nii` or `.nii.gz`, in RAS as the format wants it. Raises: MisuseError: another ending."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise MisuseError("A NIfTI file ends in .nii or .nii.gz.")
    sitk.WriteImage(image, str(path))


def _slices(ds: Dataset) -> list[tuple[Header, Array]]:
    if not all(0 < (number(ds, side) or 0) <= MAX_IMAGE_SIDE for side in ("Rows", "Columns")):
        raise Unmappable(f"An image is empty or has a side of more than {MAX_IMAGE_SIDE} voxels.")
    frames = list(flat_frames(ds)) if text(ds, "SOPClassUID") in ENHANCED_MR else [ds]
    try:
        stored = ds.pixel_array
    except (AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise Unmappable("An image's pixels cannot be decoded; ask for uncompressed images.") from error
    planes = stored if stored.ndim == 3 else stored[None]
    if len(planes) != len(frames):
        raise Unmappable("An image has more or fewer frames than its header describes.")
    return [(header_of(frame, i), _rescaled(frame, planes[i])) for i, frame in enumerate(frames)]


def _rescaled(ds: Dataset, plane: NDArray[Any]) -> Array:
    """The scanner's values. Raises: Unmappable: a slope or intercept that is no number."""
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    if (slope is None and text(ds, "RescaleSlope")) or (intercept is None and text(ds, "RescaleIntercept")):
        raise Unmappable("An image's rescale slope or intercept is no number; ask for the original images.")
    values: Array = plane.astype(np.float64) * (1.0 if slope is None else slope)
    return values + (intercept or 0.0)


def _phases(members: list[tuple[Header, Array]]) -> list[list[tuple[Header, Array]]]:
    """Images at one place, in the order of their phases, make the first, second, … stack."""
    places: dict[tuple[float, ...], list[tuple[Header, Array]]] = defaultdict(list)
    for header, pixels in members:
        if header.position is None or header.orientation is None or header.spacing is None:
            raise Unmappable("An image does not say where it lies; no volume can be made of the series.")
        places[tuple(round(v, 2) for v in header.position)].append((header, pixels))
    counts = {len(found) for found in places.values()}
    if len(counts) > 1:
        raise Unmappable("Some places of the series have more images than others: slices are missing or doubled.")
    for found in places.values():
        found.sort(key=lambda one: (one[0].moment or 0.0, _ordinal(one[0])))
    return [[found[i] for found in places.values()] for i in range(counts.pop())]


def _ordinal(header: Header) -> float:
    """The number at the end of a phase's name: "2" comes before "10"."""
    return float(phase_key(header).rpartition(" ")[2] or 0)


def _volume(stack: list[tuple[Header, Array]]) -> Any:
    first = stack[0][0]
    assert first.orientation is not None
    assert first.spacing is not None
    normal = normal_of(first.orientation)
    if normal is None or (len({h.orientation for h, _ in stack}) > 1 and not _parallel(stack, normal)):
        raise Unmappable("The slices of the series are not parallel; no volume can be made of it.")
    if len({(pixels.shape, h.spacing) for h, pixels in stack}) > 1:
        raise Unmappable("The slices of the series differ in size or spacing; no volume can be made of it.")
    placed = sorted(((along(normal, h.position), h, p) for h, p in stack if h.position), key=lambda one: one[0])
    step = _even_step([place for place, _, _ in placed], first)
    image: Any = sitk.GetImageFromArray(np.stack([pixels for _, _, pixels in placed]).astype(np.float32))
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    image.SetOrigin(placed[0][1].position)
    image.SetSpacing((first.spacing[1], first.spacing[0], step))
    image.SetDirection(np.stack([row, column, normal], axis=1).ravel().tolist())
    return image


def _parallel(stack: list[tuple[Header, Array]], normal: Array) -> bool:
    others = [normal_of(h.orientation) for h, _ in stack if h.orientation is not None]
    return all(other is not None and other @ normal > 0.9999 for other in others)


def _even_step(places: Sequence[float], first: Header) -> float:
    if len(places) == 1:
        return first.slice_step or first.thickness or 1.0
    steps = np.diff(np.array(places))
    mean = float(steps.mean())
    if mean <= 0 or np.abs(steps - mean).max() > max(SLICE_TOLERANCE * mean, 0.02):
        raise Unmappable("The slices of the series are not evenly spaced; no volume can be made of it.")
    return mean


# --- ADC -----------------------------------------------------------------------------------------


def fit_adc(b_values: Array, stacks: Array) -> Array:
    """ADC in 1e-6 mm2/s by a straight line through ln S, unweighted. Voxels without signal at some b get 0.

    Args: b_values: float64 [k], k >= 2 different, s/mm2. stacks: float64 [k, ...]. Returns: float64 [...], >= 0.
    Raises: MisuseError: fewer than two different b-values.
    """
    if len(set(b_values.tolist())) < 2 or len(b_values) != len(stacks):
        raise MisuseError("An ADC map needs stacks of at least two different b-values.")
    usable = (stacks > _FLOOR * stacks.max()).all(axis=0)
    centred = b_values - b_values.mean()
    logs = np.log(np.where(usable, stacks, 1.0))
    slope = np.tensordot(centred, logs, axes=1) / (centred @ centred)
    adc: Array = np.where(usable, np.maximum(-slope / ADC_UNIT, 0.0), 0.0)
    return adc


def adc_of(stacks: dict[float, Any], *, largest_b: float = 1_000.0) -> Any:
    """An ADC map of acquired diffusion volumes, one per b-value (mean over directions where there are several).

    Larger b-values are left out: the decay is no longer one exponential there.
    Raises: Unmappable: fewer than two b-values up to `largest_b`, or volumes that do not share one grid.
    """
    usable = {b: image for b, image in sorted(stacks.items()) if b <= largest_b}
    if len(usable) < 2:
        raise Unmappable(f"An ADC map needs two b-values up to {largest_b:g} s/mm2.")
    images = list(usable.values())
    for image in images[1:]:
        require_same_grid(images[0], image)
    arrays = np.stack([sitk.GetArrayFromImage(image).astype(np.float64) for image in images])
    out: Any = sitk.GetImageFromArray(fit_adc(np.array(list(usable)), arrays).astype(np.float32))
    out.CopyInformation(images[0])
    return out


def require_same_grid(one: Any, other: Any, tolerance_mm: float = 0.1) -> None:
    """Raises: Unmappable: the grids differ in size, or some corner lies more than `tolerance_mm` elsewhere."""
    if one.GetSize() != other.GetSize():
        raise Unmappable(f"Two volumes differ in size: {one.GetSize()} and {other.GetSize()} voxels.")
    corners = [[i * (n - 1) for i, n in zip(pick, one.GetSize(), strict=True)] for pick in np.ndindex(2, 2, 2)]
    apart = max(
        float(
            np.linalg.norm(
                np.subtract(
                    one.TransformIndexToPhysicalPoint([int(i) for i in corner]),
                    other.TransformIndexToPhysicalPoint([int(i) for i in corner]),
                )
            )
        )
        for corner in corners
    )
    if apart > tolerance_mm:
        raise Unmappable(f"Two volumes lie up to {apart:.1f} mm apart; resample or register them first.")
