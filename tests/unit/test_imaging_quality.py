"""Planted defects are found with their reasons, whole studies are not blamed, technical minimums are compared."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from flute.imaging.headers import headers_of
from flute.imaging.phantoms.defects import APPLIED, DEFECTS, PLANNED
from flute.imaging.phantoms.phantom import FULL, phantom
from flute.imaging.quality import BPMRI, MPMRI, BRange, Limits, Need, Protocol, StudyQuality, judge
from support.phantoms import MAKERS, headers, series, study, told

FOUND_WHEN_TAKEN_IN = {"burnt-in-name", "other-patient"}
"""Not by headers of one study: see the tests of `collect`."""


OF_DIFFUSION = ("missing-b-slice", "no-adc", "one-b-value")
_OTHERS = sorted(set(DEFECTS) - FOUND_WHEN_TAKEN_IN - set(OF_DIFFUSION))
PLANTED = [
    *((maker, defect) for defect in OF_DIFFUSION for maker in MAKERS),
    *((MAKERS[number % 3], defect) for number, defect in enumerate(_OTHERS)),
]
"""Geometry is the same for every maker; what depends on b-values is tried with each."""


def judged(images, protocol: Protocol = BPMRI) -> StudyQuality:  # type: ignore[no-untyped-def]
    return judge(headers(images), protocol)


def rules(quality: StudyQuality, severity: str = "error") -> set[str]:
    return {fault.rule for fault in quality.faults if fault.severity == severity}


@pytest.mark.requirement("F-PIL-8")
@pytest.mark.parametrize("maker", MAKERS)
def test_a_whole_study_is_complete_and_nothing_is_wrong_with_it(maker: str) -> None:
    quality = judge(told(maker), BPMRI)
    assert quality.complete
    assert rules(quality) == set()
    assert quality.adc == "stored"


def test_a_study_at_a_clinical_matrix_meets_every_technical_minimum() -> None:
    quality = judge([h for ds in phantom("ge", size=FULL, dce=True) for h in headers_of(ds)], MPMRI)
    assert quality.complete
    assert quality.faults == ()


def test_every_defect_is_either_planned_or_applied() -> None:
    assert set(DEFECTS) == set(PLANNED) | set(APPLIED)


@pytest.mark.requirement("F-PIL-8")
@pytest.mark.parametrize(("maker", "defect"), PLANTED)
def test_a_planted_defect_is_found_with_its_reason(maker: str, defect: str) -> None:
    quality = judge(told(maker, defect), BPMRI)
    named = [fault for fault in quality.faults if fault.rule == DEFECTS[defect]]
    assert named
    assert all(fault.found.endswith(".") and fault.mend.endswith(".") for fault in named)
    # Without an ADC map the study is still usable: one can be computed. Everything else makes it incomplete.
    assert quality.complete == (defect == "no-adc")


@pytest.mark.parametrize("defect", sorted(FOUND_WHEN_TAKEN_IN))
def test_what_is_found_elsewhere_is_not_claimed_here(defect: str) -> None:
    assert judge(told("siemens", defect), BPMRI).complete


def test_a_missing_slice_names_the_place_where_it_is_missing() -> None:
    fault = next(f for f in judge(told("ge", "missing-slice"), BPMRI).faults if f.rule == "slice-missing")
    assert "lacks 1 of its slices: between" in fault.found
    assert "4.50 mm apart" in fault.found


def test_two_missing_slices_side_by_side_are_two() -> None:
    images = study()
    t2 = series(images, 2)
    left = [ds for ds in images if ds not in (t2[3], t2[4])]
    fault = next(f for f in judged(left).faults if f.rule == "slice-missing")
    assert "lacks 2 of its slices" in fault.found


def test_slices_missing_at_an_end_are_found_where_the_header_announces_a_number() -> None:
    images = study("ge")
    for ds in series(images, 2):
        ds.ImagesInAcquisition = 9
    last = series(images, 2)[-1]
    assert judged(images).complete
    assert rules(judged([ds for ds in images if ds is not last])) == {"images-fewer-than-announced"}


def test_an_image_that_came_twice_is_a_warning_and_nothing_is_missing() -> None:
    images = study()
    quality = judged([*images, series(images, 2)[0]])
    assert quality.complete
    assert "instance-twice" in rules(quality, "warning")


def test_a_missing_phase_at_one_place_is_a_missing_slice() -> None:
    images = study("philips", dce=True)
    gone = series(images, 7)[30]
    assert rules(judged([ds for ds in images if ds is not gone], MPMRI)) == {"slice-missing"}


def test_a_shifted_slice_makes_a_sheared_stack() -> None:
    images = study()
    ds = series(images, 2)[4]
    row = np.array([float(v) for v in ds.ImageOrientationPatient[:3]])
    ds.ImagePositionPatient = [f"{v:.4f}" for v in np.array([float(v) for v in ds.ImagePositionPatient]) + 3 * row]
    assert rules(judged(images)) == {"stack-sheared"}


def test_repetitions_and_directions_of_one_b_value_are_no_duplicates() -> None:
    images, extra = study("siemens"), []
    for number, ds in enumerate(study("siemens")):
        if ds.SeriesNumber == 4 and ds.SequenceName == "*ep_b800t":
            ds.SOPInstanceUID = f"2.25.{number + 1}"
            extra.append(ds)
    assert len(extra) == 9
    assert judged([*images, *extra]).complete  # every place twice: averages
    assert rules(judged([*images, *extra[:3]])) == {"position-twice"}
    for ds in extra:
        ds.DiffusionGradientOrientation = [1.0, 0.0, 0.0]
    assert judged([*images, *extra]).complete
    assert rules(judged([*images, *extra[1:]])) == {"slice-missing"}


def test_differing_frames_of_reference_are_told() -> None:
    images = study()
    for ds in series(images, 2):
        ds.FrameOfReferenceUID = "2.25.77"
    assert "frame-of-reference-differs" in rules(judged(images), "warning")


# --- protocols -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
def test_a_multiparametric_study_needs_the_dynamic_series(maker: str) -> None:
    assert rules(judge(told(maker), MPMRI)) == {"dce-missing"}
    assert judge(told(maker, dce=True), MPMRI).complete


def test_adc_is_stored_computable_or_impossible() -> None:
    assert judge(told("siemens"), BPMRI).adc == "stored"
    assert judge(told("siemens", "no-adc"), BPMRI).adc == "computable"
    assert judge(told("siemens", "one-b-value"), BPMRI).adc == "impossible"


def test_calculated_images_serve_as_high_b_and_not_for_an_adc_map() -> None:
    images = [ds for ds in study("siemens") if ds.SeriesNumber not in (6,)]
    only = [ds for ds in images if ds.SeriesNumber != 4 or ds.SequenceName == "*ep_b50t"]
    for ds in series(only, 5):
        ds.private_block(0x0019, "SIEMENS MR HEADER")[0x0C].value = 800
        ds.SequenceName = "*ep_b800t"
    quality = judged(only)
    assert quality.adc == "impossible"
    assert "b-value-high-missing" in rules(quality, "warning")


def test_a_declared_protocol_decides_what_is_needed_and_how_bad_its_absence_is() -> None:
    wish = Protocol(
        "own", (Need("DCE", if_missing="warning"), Need("DWI", b_values=(BRange("mid", 350, 450, "error"),)))
    )
    quality = judged(study(), wish)
    assert quality.complete
    assert rules(quality, "warning") == {"dce-missing"}
    strict = replace(wish, needs=(Need("DWI", b_values=(BRange("other", 500, 600, "error"),)),))
    assert rules(judged(study(), strict)) == {"b-value-other-missing"}


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(thickness=4.0), "slices of 4.5 mm, at most 4"),
        (Limits(fine=0.5, coarse=0.5), "voxels of 0.7 x 0.7 mm, at most 0.5 x 0.5"),
        (Limits(fov=(120.0, 200.0)), "field of view of 67 mm, 120 to 200"),
        (Limits(te_below=90.0), "TE of 101 ms, at most 90"),
        (Limits(tr_above=5_000.0), "TR of 4500 ms, at least 5000"),
        (Limits(tr_below=100.0), "TR of 4500 ms, at most 100"),
    ],
)
def test_a_technical_minimum_that_is_not_met_is_a_warning_with_both_figures(limits: Limits, says: str) -> None:
    quality = judge(told(), Protocol("own", (Need("T2W", "axial", limits=limits),)))
    assert quality.complete
    assert [says in f.found for f in quality.faults] == [True]


@pytest.mark.parametrize(
    "limits",
    [Limits(thickness=4.5), Limits(gap=0.0), Limits(fine=0.7, coarse=0.7), Limits(fov=(60.0, 200.0)), Limits()],
)
def test_a_technical_minimum_that_is_just_met_is_not_blamed(limits: Limits) -> None:
    assert judge(told(), Protocol("own", (Need("T2W", "axial", limits=limits),))).faults == ()


def test_gaps_between_slices_are_seen_from_thickness_and_distance() -> None:
    images = study()
    for ds in images:
        ds.SliceThickness = 4.0
    quality = judged(images, Protocol("own", (Need("T2W", "axial", limits=Limits(gap=0.0)),)))
    assert "gaps of 0.5 mm between slices" in quality.faults[0].found


def test_slow_phases_and_a_short_observation_are_told() -> None:
    quality = judged(
        study("ge", dce=True), Protocol("own", (Need("DCE", limits=Limits(phase_s=9.0, total_s=150.0)),))
    )
    assert "10 s per phase, at most 9; 120 s in all, at least 150" in quality.faults[0].found


def test_no_image_at_all_is_every_need_missing() -> None:
    assert rules(judge([], BPMRI)) == {"t2w-missing", "dwi-missing", "adc-missing"}
