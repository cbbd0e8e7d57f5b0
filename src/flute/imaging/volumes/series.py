"""What a series is: T2W, DWI with its b-values, ADC, DCE, localizer, or other; with the evidence for it.

Each sign in the headers speaks for a kind with a weight. A description alone never decides: technicians type it, copy
protocols and rename them. The kind with the most weight wins if at least one sign of the header speaks for it, and is
`certain` if headers alone carry weight 3 and no other kind comes within 2.

| sign | for | weight |
| image type LOCALIZER; slices of several directions, few of each | localizer | 4; 2 |
| image type ADC…; mapping to quantity 113041 (apparent diffusion coefficient) | ADC | 4 |
| image type EADC or of a projection, subtraction or other map | other | 5 |
| derived from an echo-planar acquisition, no b-value, not calculated | ADC | 1 |
| a b-value above 0; sequence name or technique of diffusion; echo planar | DWI | 3; 2; 1 |
| spin echo, TE of 60 ms or more, TR of 1,500 ms or more, no inversion, not echo planar | T2W | 3 |
| gradient echo, TR under 100 ms, TE under 10 ms, 3 phases or more | DCE | 3 |
| contrast agent beside it | DCE | 1 |
| word of the description for a kind; for a projection, subtraction or exponential map | | 1; other 3 |
Source: DICOM PS3.3 C.8.3.1, C.8.13; the makers' conformance statements for image types.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from flute.defaults.records import DCE_MIN_PHASES, LOCALIZER_MAX_SLICES
from flute.imaging.headers import Header, Maker
from flute.imaging.volumes.geometry import Plane, plane_of

Kind = Literal["T2W", "DWI", "ADC", "DCE", "localizer", "other"]
Confidence = Literal["certain", "likely", "unsure"]

T2_MIN_TE: Final = 60.0
T2_MIN_TR: Final = 1_500.0
"""ms. Below these a spin echo is weighted by T1 or proton density; 3-D turbo spin echo goes down to a TR of 1,500."""
DYNAMIC_MAX_TR: Final = 100.0
DYNAMIC_MAX_TE: Final = 10.0
APPARENT_DIFFUSION: Final = "113041"
_ADC_TYPE: Final = re.compile(r"ADC(?![A-Z])")
_CALCULATED_TYPE: Final = re.compile(r"CALC|COMPUTED|SYNTH")
_MAP_TYPES: Final = frozenset({
    "EADC", "EXP_ADC", "MIP", "MNIP", "MINIP", "SUB", "SUBTRACTION", "MPR", "FA", "RA", "TENSOR", "T2_MAP",
    "T1_MAP",
})  # fmt: skip
_CALCULATED_WORDS: Final = frozenset(["calc", "synb", "cdwi", "calculated", "computed"])
_WORDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("dwi", "ddwi", "cdwi", "diff", "diffusion", "trace", "synb"), "DWI"),
    **dict.fromkeys(("adc", "dadc", "apparent"), "ADC"),
    **dict.fromkeys(("t2", "t2w"), "T2W"),
    **dict.fromkeys(("dce", "dyn", "dynamic", "perf", "twist", "vibe", "lava", "thrive", "disco"), "DCE"),
    **dict.fromkeys(("loc", "localizer", "localiser", "survey", "scout"), "localizer"),
    **dict.fromkeys(("eadc", "exponential", "sub", "mip", "mpr"), "other"),
}


class Sign(NamedTuple):
    """Something that speaks for a kind. `header`: not taken from what somebody typed."""

    kind: Kind
    weight: int
    text: str
    header: bool = True


class Recognised(Struct, frozen=True):
    """A series and why it is taken for what it is. `b_values`: s/mm2, ascending. `phases`: repetitions at one place.

    `calculated`: diffusion images that were computed for a b-value, not acquired. `tilt`: degrees off the plane.
    """

    series: str
    kind: Kind
    confidence: Confidence
    maker: Maker
    plane: Plane
    tilt: float
    images: int
    b_values: tuple[float, ...]
    calculated: bool
    phases: int
    evidence: tuple[str, ...]


def recognise(headers: Iterable[Header]) -> tuple[Recognised, ...]:
    """Every series of one study, in the order of their first image."""
    groups: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        groups[header.series].append(header)
    spread = _phases_as_series(groups)
    return tuple(_series(images, spread.get(uid, 1)) for uid, images in groups.items())


def _series(headers: Sequence[Header], spread: int) -> Recognised:
    phases = max(phases_of(headers), spread)
    calculated = _is_calculated(headers)
    signs = [
        *_type_signs(headers[0]),
        *_diffusion_signs(headers, calculated),
        *_timing_signs(headers, phases, spread),
    ]
    signs += _typed_signs(headers[0])
    plane, tilt = plane_of(headers)
    if plane == "mixed" and len(headers) <= LOCALIZER_MAX_SLICES:
        signs.append(Sign("localizer", 2, f"{len(headers)} images of several directions"))
    kind, confidence = _decide(signs)
    b_values = sorted({h.b for h in headers if h.b is not None}) if kind == "DWI" else ()
    evidence = [f"for {s.kind}: {s.text}" for s in sorted(signs, key=lambda s: -s.weight)]
    if any(h.b_conflict for h in headers):
        evidence.append("two places of the header give different b-values; the standard's element was believed")
    return Recognised(
        headers[0].series,
        kind,
        confidence,
        headers[0].maker,
        plane,
        tilt,
        len(headers),
        tuple(b_values),
        calculated and kind == "DWI",
        phases if kind == "DCE" else 1,
        tuple(evidence) or ("no sign of any kind",),
    )


def _decide(signs: Sequence[Sign]) -> tuple[Kind, Confidence]:
    total: dict[Kind, int] = defaultdict(int)
    by_header: dict[Kind, int] = defaultdict(int)
    for sign in signs:
        total[sign.kind] += sign.weight
        by_header[sign.kind] += sign.weight if sign.header else 0
    if not total:
        return "other", "unsure"
    best = max(total, key=lambda kind: (total[kind], by_header[kind]))
    second = max((weight for kind, weight in total.items() if kind != best), default=0)
    if by_header[best] == 0 or total[best] < 2 or total[best] == second:
        return "other", "unsure"
    return best, "certain" if by_header[best] >= 3 and total[best] - second >= 2 else "likely"


# --- signs ---------------------------------------------------------------------------------------


def _type_signs(header: Header) -> list[Sign]:
    """What the image type and the meaning of stored values say."""
    signs: list[Sign] = []
    for value in header.image_type[2:] if len(header.image_type) > 2 else header.image_type:
        if value == "LOCALIZER":
            signs.append(Sign("localizer", 4, "image type LOCALIZER"))
        elif _ADC_TYPE.match(value):
            signs.append(Sign("ADC", 4, f"image type {value}"))
        elif value in _MAP_TYPES and header.derived:
            signs.append(Sign("other", 5, f"image type {value}: made from other images"))
    if header.quantity == APPARENT_DIFFUSION:
        signs.append(Sign("ADC", 4, "stored values are mapped to apparent diffusion coefficients (DCM 113041)"))
    return signs


def _diffusion_signs(headers: Sequence[Header], calculated: bool) -> list[Sign]:
    first = headers[0]
    signs: list[Sign] = []
    if any(sign.weight >= 4 for sign in _type_signs(first)):
        return []  # a map or projection made from diffusion images keeps their sequence, and often a b-value
    positive = sorted({h.b for h in headers if h.b})
    if positive:
        where = ", ".join(sorted({h.b_source for h in headers if h.b}))
        signs.append(Sign("DWI", 3, f"b-values {' '.join(f'{b:g}' for b in positive)} in {where}"))
    if "DIFFUSION" in first.image_type or first.technique.startswith("dwi") or "_b" in first.sequence_name:
        signs.append(Sign("DWI", 2, "image type, technique or sequence name of diffusion"))
    if first.echo_planar and first.derived and not positive and not calculated:
        signs.append(Sign("ADC", 1, "derived from an echo-planar acquisition, without a b-value"))
    elif first.echo_planar:
        signs.append(Sign("DWI", 1, "echo-planar acquisition"))
    return signs


def _timing_signs(headers: Sequence[Header], phases: int, spread: int) -> list[Sign]:
    """What echo and repetition time say about the contrast, and repetitions about a dynamic acquisition."""
    first = headers[0]
    signs: list[Sign] = []
    te, tr = first.te, first.tr
    if te is None or tr is None or first.echo_planar or any(h.b for h in headers):
        return signs
    if "SE" in first.scanning and "IR" not in first.scanning and te >= T2_MIN_TE and tr >= T2_MIN_TR:
        signs.append(Sign("T2W", 3, f"spin echo with TE {te:g} ms and TR {tr:g} ms"))
    if is_fast_gradient_echo(first) and phases >= DCE_MIN_PHASES:
        how = f"in {spread} series" if spread > 1 else "at every place"
        signs.append(Sign("DCE", 3, f"gradient echo with TE {te:g} ms and TR {tr:g} ms, {phases} phases {how}"))
        if first.contrast:
            signs.append(Sign("DCE", 1, "contrast agent given"))
    return signs


def _typed_signs(header: Header) -> list[Sign]:
    spoken: dict[Kind, list[str]] = defaultdict(list)
    for word in sorted(header.words):
        if word in _WORDS:
            spoken[_WORDS[word]].append(word)
    return [
        Sign(kind, 3 if kind == "other" else 1, f"description says {', '.join(words)}", header=False)
        for kind, words in spoken.items()
    ]


def _is_calculated(headers: Sequence[Header]) -> bool:
    first = headers[0]
    typed = any(_CALCULATED_TYPE.match(value) for value in first.image_type[1:])
    return typed or (first.derived and bool(first.words & _CALCULATED_WORDS))


# --- phases --------------------------------------------------------------------------------------


def is_fast_gradient_echo(header: Header) -> bool:
    return (
        "GR" in header.scanning
        and header.te is not None
        and header.te < DYNAMIC_MAX_TE
        and header.tr is not None
        and header.tr < DYNAMIC_MAX_TR
        and not header.derived
    )


def phase_key(header: Header) -> str:
    """What tells repetitions at one place apart: a phase's number, else the time of its acquisition."""
    return header.phase or ("" if header.moment is None else f"time {header.moment:g}")


def phases_of(headers: Sequence[Header]) -> int:
    """How often every place was imaged; repetitions are told apart by phase and time.

    The smallest count of any place, so that one repeated slice does not make a series dynamic.
    """
    places: dict[tuple[float, ...], set[str]] = defaultdict(set)
    for header in headers:
        if header.position is not None:
            places[tuple(round(v, 2) for v in header.position)].add(f"{header.phase}|{header.moment}")
    return max(1, min((len(times) for times in places.values()), default=1))


def _phases_as_series(groups: dict[str, list[Header]]) -> dict[str, int]:
    """Fast gradient echoes that some makers export as one series per phase: same place and timing, another moment."""
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for uid, headers in groups.items():
        first = headers[0]
        if is_fast_gradient_echo(first) and phases_of(headers) == 1:
            shape = (first.orientation, first.spacing, first.rows, first.columns, first.te, first.tr, len(headers))
            alike[(*shape, frozenset(h.position for h in headers))].append(uid)
    spread = {}
    for uids in alike.values():
        moments = {min((h.moment for h in groups[uid] if h.moment is not None), default=None) for uid in uids}
        if len(moments) == len(uids) >= DCE_MIN_PHASES:
            spread.update(dict.fromkeys(uids, len(uids)))
    return spread
