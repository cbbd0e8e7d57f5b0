"""Whether a study is what a protocol asks for, and whether its series are whole: findings with reasons.

A protocol is a declaration: which kinds of series, in which plane, with which b-values, and technical minimums. What
makes a study unusable is an `error`; what lowers its worth is a `warning`. Nothing is repaired here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from flute.imaging.headers import Header
from flute.imaging.volumes.series import Kind, Recognised, recognise
from flute.imaging.volumes.stacks import Fault, Severity, stack_faults

__all__ = ["BPMRI", "MPMRI", "BRange", "Fault", "Limits", "Need", "Protocol", "Severity", "StudyQuality", "judge"]


class BRange(Struct, frozen=True, forbid_unknown_fields=True):
    """At least one b-value in [low, high], s/mm2. `calculated`: images computed for such a b-value will do."""

    name: str
    low: float
    high: float
    severity: Severity
    calculated: bool = False


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Technical minimums; None is not checked. Lengths in mm, times in ms, `phase_s` and `total_s` in s.

    fine, coarse: largest voxel side in the plane, the smaller and the larger of the two. fov: smallest and largest
    field of view, the shorter side.
    """

    thickness: float | None = None
    gap: float | None = None
    fine: float | None = None
    coarse: float | None = None
    fov: tuple[float, float] | None = None
    te_below: float | None = None
    tr_above: float | None = None
    tr_below: float | None = None
    phase_s: float | None = None
    total_s: float | None = None


class Need(Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of series. `plane`: in which it must exist, or any. `if_missing`: how bad its absence is."""

    kind: Kind
    plane: Literal["axial", "sagittal", "coronal", "any"] = "any"
    if_missing: Severity = "error"
    b_values: tuple[BRange, ...] = ()
    limits: Limits = Limits()


class Protocol(Struct, frozen=True, forbid_unknown_fields=True):
    """What a study must hold. `source`: where the technical minimums come from, for the report."""

    name: str
    needs: tuple[Need, ...]
    source: str = ""
    largest_b_for_adc: float = 1_000.0


# PI-RADS v2.1 (ACR, ESUR, AdMeTech 2019), technical specifications: T2W 3 mm without gap, FOV 12-20 cm, at most
# 0.7 x 0.4 mm; DWI at most 4 mm without gap, FOV 16-22 cm, at most 2.5 mm, TE at most 90 ms, TR at least 3 s, b 0-100
# and 800-1000 and, acquired or calculated, at least 1400; DCE 3 mm without gap, at most 2 mm, TR < 100 ms, TE < 5 ms,
# at most 15 s per phase, at least 2 min. All of it warns, none of it refuses.
_T2W = Need("T2W", "axial", limits=Limits(thickness=3.0, gap=0.0, fine=0.4, coarse=0.7, fov=(120.0, 200.0)))
_DWI = Need(
    "DWI",
    "axial",
    b_values=(
        BRange("low", 0, 100, "error"),
        BRange("intermediate", 800, 1_000, "warning"),
        BRange("high", 1_400, 10_000, "warning", calculated=True),
    ),
    limits=Limits(4.0, gap=0.0, fine=2.5, coarse=2.5, fov=(160.0, 220.0), te_below=90.0, tr_above=3_000.0),
)
_ADC = Need("ADC", "axial")
_DCE = Need(
    "DCE",
    "axial",
    limits=Limits(3.0, gap=0.0, fine=2.0, coarse=2.0, te_below=5.0, tr_below=100.0, phase_s=15.0, total_s=120.0),
)
_SOURCE = "ACR, ESUR and AdMeTech, version 2.1 (2019), technical specifications"
BPMRI = Protocol("bpMRI", (_T2W, _DWI, _ADC), _SOURCE)
MPMRI = Protocol("mpMRI", (_T2W, _DWI, _ADC, _DCE), _SOURCE)


class StudyQuality(Struct, frozen=True):
    """`complete`: everything the protocol needs is there and whole. `adc`: "stored", "computable" from the DWI, or
    "impossible"."""

    protocol: str
    complete: bool
    adc: Literal["stored", "computable", "impossible"]
    series: tuple[Recognised, ...]
    faults: tuple[Fault, ...]


def judge(headers: Iterable[Header], protocol: Protocol) -> StudyQuality:
    """Recognise and judge one study. `headers`: of all its images, in any order."""
    found = list(headers)
    series = recognise(found)
    images: dict[str, list[Header]] = defaultdict(list)
    for header in found:
        images[header.series].append(header)
    faults: list[Fault] = []
    for one in series:
        if one.kind not in ("localizer", "other"):
            faults += stack_faults(one, images[one.series])
    adc = _adc_state(series, protocol)
    for need in protocol.needs:
        faults += _need_faults(need, series, adc)
        for one in _meeting(need, series):
            faults += _limit_faults(need.limits, one, images)
    faults += _frame_faults(series, images)
    ordered = tuple(sorted(faults, key=lambda f: (f.severity != "error", f.rule, f.series)))
    return StudyQuality(protocol.name, not any(f.severity == "error" for f in ordered), adc, series, ordered)


# --- what is there -------------------------------------------------------------------------------


def _meeting(need: Need, series: Sequence[Recognised]) -> list[Recognised]:
    return [s for s in series if s.kind == need.kind and need.plane in ("any", s.plane)]


def _adc_state(series: Sequence[Recognised], protocol: Protocol) -> Literal["stored", "computable", "impossible"]:
    """An ADC map can be computed from one series with two acquired b-values up to the protocol's largest, or from
    several series that hold one each."""
    if any(s.kind == "ADC" for s in series):
        return "stored"
    acquired = {b for s in series if s.kind == "DWI" and not s.calculated for b in s.b_values}
    return "computable" if len({b for b in acquired if b <= protocol.largest_b_for_adc}) >= 2 else "impossible"


def _need_faults(need: Need, series: Sequence[Recognised], adc: str) -> list[Fault]:
    name = need.kind.lower()
    same_kind = [s for s in series if s.kind == need.kind]
    if not same_kind:
        if need.kind == "ADC" and adc == "computable":
            return [
                Fault(
                    "warning",
                    "adc-missing",
                    "",
                    "No ADC map; FLUTE can compute one from the diffusion images.",
                    "Export the scanner's own ADC map if there is one, or let FLUTE compute it.",
                )
            ]
        unsure = sum(s.kind == "other" and s.confidence == "unsure" for s in series)
        hint = f" {unsure} series could not be told; see their evidence." if unsure else ""
        return [
            Fault(
                need.if_missing,
                f"{name}-missing",
                "",
                f"No series was recognised as {need.kind}.{hint}",
                "Look in the PACS whether it was sent; a study without it is left out.",
            )
        ]
    meeting = _meeting(need, series)
    if not meeting:
        planes = ", ".join(sorted({s.plane for s in same_kind}))
        return [
            Fault(
                need.if_missing,
                f"{name}-not-{need.plane}",
                same_kind[0].series,
                f"{need.kind} exists only in these planes: {planes}.",
                f"Send the {need.plane} series, if it was acquired.",
            )
        ]
    return [fault for b in need.b_values if (fault := _b_fault(b, meeting)) is not None]


def _b_fault(wanted: BRange, series: Sequence[Recognised]) -> Fault | None:
    acquired = {b for s in series if wanted.calculated or not s.calculated for b in s.b_values}
    if any(wanted.low <= b <= wanted.high for b in acquired):
        return None
    shown = ", ".join(f"{b:g}" for b in sorted(acquired)) or "none"
    return Fault(
        wanted.severity,
        f"b-value-{wanted.name}-missing",
        series[0].series,
        f"No b-value between {wanted.low:g} and {wanted.high:g} s/mm2; there are: {shown}.",
        "Send all b-values of the diffusion acquisition, not only the one that is read from.",
    )


# --- technical minimums ---------------------------------------------------------------------------


def _limit_faults(limits: Limits, series: Recognised, images: dict[str, list[Header]]) -> list[Fault]:
    """One warning per series that lists everything beyond a minimum; what the header does not say is not judged."""
    headers = images[series.series]
    first = headers[0]
    beyond = [*_size_limits(limits, first), *_time_limits(limits, first), *_phase_limits(limits, series, headers)]
    if not beyond:
        return []
    return [
        Fault(
            "warning",
            "technical-minimum",
            series.series,
            f"{series.kind}: " + "; ".join(beyond) + ".",
            "Nothing to mend in a study that is done; tell the radiologists who set the protocol.",
        )
    ]


def _size_limits(limits: Limits, first: Header) -> list[str]:
    out = []
    slack = 1.005  # headers round
    if limits.thickness is not None and first.thickness is not None and first.thickness > limits.thickness * slack:
        out.append(f"slices of {first.thickness:g} mm, at most {limits.thickness:g}")
    if limits.gap is not None and first.slice_step is not None and first.thickness is not None:
        gap = first.slice_step - first.thickness
        if gap > limits.gap + 0.05:
            out.append(f"gaps of {gap:.2g} mm between slices, at most {limits.gap:g}")
    if first.spacing is not None:
        fine, coarse = min(first.spacing), max(first.spacing)
        largest = (limits.fine or math.inf, limits.coarse or math.inf)
        if fine > largest[0] * slack or coarse > largest[1] * slack:
            out.append(f"voxels of {fine:.2g} x {coarse:.2g} mm, at most {largest[0]:g} x {largest[1]:g}")
        side = min(first.rows * first.spacing[0], first.columns * first.spacing[1])
        if limits.fov is not None and not limits.fov[0] / slack <= side <= limits.fov[1] * slack:
            out.append(f"field of view of {side:.0f} mm, {limits.fov[0]:g} to {limits.fov[1]:g}")
    return out


def _time_limits(limits: Limits, first: Header) -> list[str]:
    out = []
    if limits.te_below is not None and first.te is not None and first.te > limits.te_below:
        out.append(f"TE of {first.te:g} ms, at most {limits.te_below:g}")
    if limits.tr_above is not None and first.tr is not None and first.tr < limits.tr_above:
        out.append(f"TR of {first.tr:g} ms, at least {limits.tr_above:g}")
    if limits.tr_below is not None and first.tr is not None and first.tr > limits.tr_below:
        out.append(f"TR of {first.tr:g} ms, at most {limits.tr_below:g}")
    return out


def _phase_limits(limits: Limits, series: Recognised, headers: Sequence[Header]) -> list[str]:
    """Time per phase and in all, where the phases of one series carry their times."""
    moments = sorted({h.moment for h in headers if h.moment is not None})
    if limits.phase_s is None or limits.total_s is None or not 2 <= len(moments) <= series.phases:
        return []
    out = []
    total = moments[-1] - moments[0]
    each = total / (len(moments) - 1)
    if each > limits.phase_s:
        out.append(f"{each:.0f} s per phase, at most {limits.phase_s:g}")
    if total + each < limits.total_s:
        out.append(f"{total + each:.0f} s in all, at least {limits.total_s:g}")
    return out


def _frame_faults(series: Sequence[Recognised], images: dict[str, list[Header]]) -> list[Fault]:
    """Series that do not share one frame of reference cannot be laid over each other by their headers."""
    frames = {
        images[s.series][0].frame_of_reference
        for s in series
        if s.kind in ("T2W", "DWI", "ADC", "DCE") and images[s.series][0].frame_of_reference
    }
    if len(frames) <= 1:
        return []
    return [
        Fault(
            "warning",
            "frame-of-reference-differs",
            "",
            f"The series lie in {len(frames)} frames of reference.",
            "The patient was moved or the scanner was restarted in between: register the series first.",
        )
    ]
