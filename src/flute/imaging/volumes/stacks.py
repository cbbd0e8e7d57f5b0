"""Whether the images of one series make whole stacks: every place once per b-value and phase, evenly spaced,
parallel.

Scanners repeat places (b-values, directions, phases). So images are first parted by b-value and direction, and every
place must then hold the same number of images: fewer is a missing slice, more is a duplicate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from flute.defaults.records import SLICE_TOLERANCE
from flute.imaging.headers import Header
from flute.imaging.volumes.geometry import Vector, along, normal_of
from flute.imaging.volumes.series import Recognised

Severity = Literal["error", "warning"]


class Fault(Struct, frozen=True):
    """`rule`: stable word. `series`: its UID, or empty for the study. `found`, `mend`: sentences for the data
    manager."""

    severity: Severity
    rule: str
    series: str
    found: str
    mend: str


def stack_faults(series: Recognised, headers: Sequence[Header]) -> list[Fault]:
    """Everything that is wrong with the stacks of one series."""
    faults = _twice(series, headers)
    once = list({(h.instance, h.frame): h for h in headers}.values())
    placed = [h for h in once if h.position is not None and h.orientation is not None and h.spacing is not None]
    if len(placed) < len(once):
        faults.append(
            _fault(
                "geometry-missing",
                series,
                f"{len(once) - len(placed)} of {len(once)} images of the "
                f"{series.kind} series say not where they lie.",
                "Ask for the original images: exports and screenshots lose their geometry.",
            )
        )
    if not placed:
        return faults
    if series.plane == "mixed":
        faults.append(
            _fault(
                "orientation-mixed",
                series,
                f"The {series.kind} series holds slices that are not parallel.",
                "Send the original series; slices of another one were filed under it.",
            )
        )
        return faults
    if len({(h.rows, h.columns, h.spacing) for h in placed}) > 1:
        faults.append(
            _fault(
                "matrix-mixed",
                series,
                f"The {series.kind} series holds images of different size or spacing.",
                "Send the original series; images of another one were filed under it.",
            )
        )
    return faults + _place_faults(series, placed)


def _fault(rule: str, series: Recognised, found: str, mend: str, severity: Severity = "error") -> Fault:
    return Fault(severity, rule, series.series, found, mend)


def _twice(series: Recognised, headers: Sequence[Header]) -> list[Fault]:
    again = sum(n - 1 for n in Counter((h.instance, h.frame) for h in headers).values())
    if not again:
        return []
    return [
        _fault(
            "instance-twice",
            series,
            f"{again} images of the {series.kind} series came twice.",
            "Nothing is lost: each is taken once. Look why they were sent twice.",
            "warning",
        )
    ]


def _place_faults(series: Recognised, placed: Sequence[Header]) -> list[Fault]:
    assert placed[0].orientation is not None
    normal = normal_of(placed[0].orientation)
    if normal is None:
        return [
            _fault(
                "geometry-missing",
                series,
                f"The {series.kind} series' direction cosines are not at right angles.",
                "Ask for the original images.",
            )
        ]
    parts: dict[tuple[float | None, str], list[float]] = defaultdict(list)
    for header in placed:
        assert header.position is not None
        part = (header.b, header.direction) if series.kind == "DWI" else (None, "")
        parts[part].append(round(along(normal, header.position), 2))
    everywhere = sorted({place for places in parts.values() for place in places})
    if len(everywhere) < 2:
        return [
            _fault(
                "one-slice",
                series,
                f"The {series.kind} series has slices at one place only.",
                "Send the whole series.",
            )
        ]
    return [
        *_spacing_faults(series, everywhere),
        *_count_faults(series, list(parts.values()), len(everywhere)),
        *_shear_faults(series, placed, normal),
        *_announced_faults(series, placed),
    ]


def _spacing_faults(series: Recognised, places: Sequence[float]) -> list[Fault]:
    """Steps that are a multiple of the usual one are missing slices; other steps are uneven spacing."""
    steps = np.diff(np.array(places))
    usual = float(np.median(steps))
    multiples = np.rint(steps / usual)
    off = np.abs(steps - multiples * usual) > np.maximum(SLICE_TOLERANCE * usual, 0.02)
    missing = int((multiples[~off] - 1).sum())
    faults = []
    if missing > 0:
        at = ", ".join(f"{places[i]:g} and {places[i + 1]:g} mm" for i in np.flatnonzero((multiples > 1) & ~off)[:3])
        faults.append(
            _fault(
                "slice-missing",
                series,
                f"The {series.kind} series lacks {missing} of its slices: between "
                f"{at}, where slices lie {usual:.2f} mm apart.",
                "Send the series again from the PACS; if it is so there too, the study is left out.",
            )
        )
    if off.any():
        faults.append(
            _fault(
                "spacing-uneven",
                series,
                f"Slices of the {series.kind} series lie {steps.min():.2f} to {steps.max():.2f} mm apart.",
                "No volume can be made of it: send the original, not reformatted series.",
            )
        )
    return faults


def _count_faults(series: Recognised, parts: Sequence[Sequence[float]], places: int) -> list[Fault]:
    """Every place must hold as many images per b-value as most of its places do. For phases the same holds."""
    fewer = more = 0
    for part in parts:
        counts = Counter(part)
        usual = Counter(counts.values()).most_common(1)[0][0]
        absent = places - len(counts)
        fewer += absent * usual + sum(usual - n for n in counts.values() if n < usual)
        more += sum(n - usual for n in counts.values() if n > usual)
    faults = []
    if fewer:
        what = "b-value" if series.kind == "DWI" else "phase"
        faults.append(
            _fault(
                "slice-missing",
                series,
                f"{fewer} images of the {series.kind} series are missing: some places lack an image of some {what}.",
                "Send the series again from the PACS; if it is so there too, the study is left out.",
            )
        )
    if more:
        faults.append(
            _fault(
                "position-twice",
                series,
                f"{more} images of the {series.kind} series lie where another one of the same kind lies.",
                "Two acquisitions were filed under one series: send the one that was read.",
            )
        )
    return faults


def _shear_faults(series: Recognised, placed: Sequence[Header], normal: Vector) -> list[Fault]:
    """First voxels must lie on one line along the normal; otherwise the stack is a sheared box, which no volume
    is."""
    positions = np.array([h.position for h in placed])
    in_plane = positions - np.outer(positions @ normal, normal)
    drift = float(np.linalg.norm(in_plane - in_plane[0], axis=1).max())
    assert placed[0].spacing is not None
    if drift <= max(0.5 * min(placed[0].spacing), 0.1):
        return []
    return [
        _fault(
            "stack-sheared",
            series,
            f"Slices of the {series.kind} series are shifted against each other by up to {drift:.1f} mm.",
            "Send the original series; it may be made of two stacks.",
        )
    ]


def _announced_faults(series: Recognised, placed: Sequence[Header]) -> list[Fault]:
    """(0020,1002) says how many images the acquisition made; fewer came when slices at an end are missing."""
    announced = max((h.expected or 0 for h in placed), default=0)
    if announced <= len(placed):
        return []
    return [
        _fault(
            "images-fewer-than-announced",
            series,
            f"The {series.kind} series announces {announced} images and {len(placed)} are there.",
            "Send the series again from the PACS.",
        )
    ]
