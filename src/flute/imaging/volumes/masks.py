"""Masks on the grid of a volume, from DICOM SEG and RTSTRUCT. A mask that does not fit its image is refused.

SEG: every voxel of the segment must fall on a voxel of the image, whatever the order of its frames, rows and columns.
RTSTRUCT: a voxel belongs to a structure if its centre lies inside its contours; contours in one slice are combined by
exclusive or, so that an inner contour is a hole. A centre on a contour counts on the left and top side only.
Source: DICOM PS3.3 C.8.20 (Segmentation), C.8.8.5 and C.8.8.6 (Structure Set, ROI Contour).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from flute.defaults.records import MASK_TOLERANCE_MM, MAX_CONTOUR_POINTS
from flute.errors import Unmappable
from flute.imaging.elements import items, number_list, text, value_of

Array = NDArray[np.float64]
Bits = NDArray[np.bool_]
_MAX_SLICE_OFFSET: Final = 0.2
"""Of the slice distance, by which a contour may lie off its slice."""


def segments_of(seg: Dataset, image: Any, *, frame_of_reference: str = "") -> dict[str, Any]:
    """Segment label to a mask (uint8, 0 or 1) on `image`'s grid.

    Args: frame_of_reference: the image's; compared where given.
    Raises: Unmappable: another frame of reference, a grid that does not fall on the image's, voxels outside of it,
        two segments of one label, or no segmentation that can be read.
    """
    _same_frame(text(seg, "FrameOfReferenceUID"), frame_of_reference)
    try:
        parsed = hd.seg.Segmentation.from_dataset(seg)
        labels = {int(s.SegmentNumber): str(s.SegmentLabel) for s in parsed.SegmentSequence}
        volumes = {n: parsed.get_volume(segment_numbers=[n], combine_segments=True) for n in labels}
    except (AttributeError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise Unmappable("The segmentation cannot be read as a regular stack; draw or export it again.") from error
    if len(set(labels.values())) < len(labels):
        raise Unmappable("Two segments of the segmentation have the same label; name them apart.")
    return {
        labels[n]: _image_like(image, _placed(np.asarray(v.array) > 0, np.asarray(v.affine, np.float64), image))
        for n, v in volumes.items()
    }


def structures_of(structures: Dataset, image: Any, *, frame_of_reference: str = "") -> dict[str, Any]:
    """Structure name to a mask (uint8, 0 or 1) on `image`'s grid.

    Raises: Unmappable: another frame of reference; a contour that is no closed plane one, lies between slices or
        outside of the image; two structures of one name; more than MAX_CONTOUR_POINTS points.
    """
    names: dict[str, str] = {}
    for roi in items(structures, "StructureSetROISequence"):
        _same_frame(text(roi, "ReferencedFrameOfReferenceUID"), frame_of_reference)
        names[text(roi, "ROINumber")] = text(roi, "ROIName") or f"structure {text(roi, 'ROINumber')}"
    if len(set(names.values())) < len(names):
        raise Unmappable("Two structures of the structure set have the same name; name them apart.")
    masks, left = {}, MAX_CONTOUR_POINTS
    for roi in items(structures, "ROIContourSequence"):
        contours = [_points(c) for c in items(roi, "ContourSequence")]
        left -= sum(len(points) for points in contours)
        if left < 0:
            raise Unmappable(f"The structure set has more than {MAX_CONTOUR_POINTS} points.")
        name = names.get(text(roi, "ReferencedROINumber"))
        if name is not None and contours:
            masks[name] = _image_like(image, _filled(contours, image))
    return masks


def _same_frame(one: str, other: str) -> None:
    if one and other and one != other:
        raise Unmappable(
            "The mask lies in another frame of reference than the image: it was drawn on another series."
        )


def _image_like(image: Any, voxels: Bits) -> Any:
    out: Any = sitk.GetImageFromArray(voxels.astype(np.uint8))
    out.CopyInformation(image)
    return out


def index_affine(image: Any) -> Array:
    """4 x 4: voxel index (x, y, z) to patient coordinates in mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


# --- segmentations ---------------------------------------------------------------------------------


def _placed(mask: Bits, affine: Array, image: Any) -> Bits:
    """The mask's voxels on the image's grid. `affine`: the mask's array index to mm."""
    across = np.linalg.inv(index_affine(image)) @ affine
    turned = np.rint(across[:3, :3])
    if not np.array_equal(np.abs(turned).sum(axis=0), np.ones(3)) or not np.array_equal(
        np.abs(turned).sum(axis=1), np.ones(3)
    ):
        raise Unmappable("The mask's voxels have another size or direction than the image's: draw it on this series.")
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(mask.shape) - 1)
    exact = corners @ across[:3, :3].T + across[:3, 3]
    offset = np.rint(across[:3, 3])
    apart = np.abs(exact - (corners @ turned.T + offset)) * np.array(image.GetSpacing())
    if apart.max() > MASK_TOLERANCE_MM:
        raise Unmappable(f"The mask lies up to {apart.max():.1f} mm off the image's voxels: draw it on this series.")
    found = np.argwhere(mask) @ turned.T.astype(np.int64) + offset.astype(np.int64)
    size = np.array(image.GetSize())
    if ((found < 0) | (found >= size)).any():
        raise Unmappable("The mask reaches beyond the image: it was drawn on another series.")
    out = np.zeros(size[::-1], dtype=bool)
    out[found[:, 2], found[:, 1], found[:, 0]] = True
    return out


# --- structure sets ----------------------------------------------------------------------------------


def _points(contour: Dataset) -> Array:
    if text(contour, "ContourGeometricType") != "CLOSED_PLANAR":
        raise Unmappable("The structure set holds a contour that is no closed one in a plane; masks need those.")
    values = np.array(number_list(value_of(contour, "ContourData")) or ())
    if len(values) % 3 or len(values) < 9:
        raise Unmappable("The structure set holds a contour with fewer than three points, or broken ones.")
    return values.reshape(-1, 3)


def _filled(contours: Sequence[Array], image: Any) -> Bits:
    inverse = np.linalg.inv(index_affine(image))
    columns, rows, slices = image.GetSize()
    by_slice: dict[int, list[Array]] = defaultdict(list)
    for points in contours:
        index = points @ inverse[:3, :3].T + inverse[:3, 3]
        at = int(np.rint(index[:, 2].mean()))
        if np.abs(index[:, 2] - at).max() > _MAX_SLICE_OFFSET:
            raise Unmappable("A contour lies between the image's slices: it was drawn on another series.")
        low, high = index[:, :2].min(), (index[:, :2] - np.array([columns, rows])).max()
        if not 0 <= at < slices or low < -0.5 or high > -0.5:
            raise Unmappable("A contour reaches beyond the image: it was drawn on another series.")
        by_slice[at].append(index[:, :2])
    out = np.zeros((slices, rows, columns), dtype=bool)
    for at, polygons in by_slice.items():
        for polygon in polygons:
            out[at] ^= inside(polygon, rows, columns)
    return out


def inside(polygon: Array, rows: int, columns: int) -> Bits:
    """Which voxel centres lie inside. polygon: float64 [points, 2] as (x, y) in voxels; returns bool [rows, columns].

    Even-odd rule, line by line: between the first and second crossing of a row, the third and fourth, and so on. An
    edge counts for a row from its upper end up to but without its lower one, so that a corner is met once.
    """
    x, y = polygon[:, 0], polygon[:, 1]
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    out = np.zeros((rows, columns), dtype=bool)
    centres = np.arange(columns)
    first, last = max(0, int(np.ceil(y.min()))), min(rows - 1, int(np.floor(y.max())))
    for row in range(first, last + 1):
        met = (y <= row) != (y_next <= row)
        crossings = np.sort(x[met] + (row - y[met]) * (x_next[met] - x[met]) / (y_next[met] - y[met]))
        for left, right in zip(crossings[::2], crossings[1::2], strict=True):
            out[row] |= (centres >= left) & (centres < right)
    return out
