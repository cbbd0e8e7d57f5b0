"""Where slices lie: plane, tilt, order along the normal. Patient coordinates (LPS), mm.

Source: DICOM PS3.3 C.7.6.2 (Image Plane).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.imaging.headers import Header

Plane = Literal["axial", "sagittal", "coronal", "mixed", "unknown"]
Vector = NDArray[np.float64]
SAME_DIRECTION: Final = 0.9995
"""Cosine (1.8 degrees) above which two slices count as parallel: scanners write six digits, planners tilt by more."""
_AXES: Final[tuple[Plane, ...]] = ("sagittal", "coronal", "axial")
"""The plane whose normal is x, y, z."""


def normal_of(orientation: tuple[float, ...]) -> Vector | None:
    """Unit normal of a slice, or None where the cosines are no pair of unit vectors at right angles."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([row @ row, column @ column])
    if np.abs(lengths - 1).max() > 0.01 or abs(row @ column) > 0.01:
        return None
    normal: Vector = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def plane_of(headers: Iterable[Header]) -> tuple[Plane, float]:
    """(plane, largest tilt in degrees against that plane's axis). "mixed": slices that are not parallel."""
    normals = [normal_of(o) for o in {h.orientation for h in headers} if o is not None]
    known = [n for n in normals if n is not None]
    if not known:
        return "unknown", 0.0
    if any(abs(n @ known[0]) < SAME_DIRECTION for n in known):
        return "mixed", 0.0
    axis = int(np.argmax(np.abs(known[0])))
    tilt = max(float(np.degrees(np.arccos(min(1.0, abs(n[axis]))))) for n in known)
    return _AXES[axis], round(tilt, 1)


def along(normal: Vector, position: tuple[float, float, float]) -> float:
    """Distance of a slice from the origin along the normal."""
    return float(normal @ np.array(position))
