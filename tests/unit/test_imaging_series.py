"""What a series is taken for: from headers of three makers, never from what somebody typed alone."""

from __future__ import annotations

import warnings

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from flute.imaging.headers import headers_of
from flute.imaging.volumes.series import Recognised, recognise
from support.phantoms import MAKERS, headers, series, study

TRUTH = {
    1: ("localizer", ()),
    2: ("T2W", ()),
    3: ("T2W", ()),
    4: ("DWI", (50.0, 400.0, 800.0)),
    5: ("DWI", (1400.0,)),
    6: ("ADC", ()),
    7: ("DCE", ()),
}


def recognised(images: list[Dataset]) -> dict[int, Recognised]:
    number = {ds.SeriesInstanceUID: int(ds.SeriesNumber) for ds in images}
    return {number[found.series]: found for found in recognise(headers(images))}


def kinds(images: list[Dataset]) -> dict[int, tuple[str, tuple[float, ...]]]:
    return {n: (found.kind, found.b_values) for n, found in recognised(images).items()}


@pytest.mark.requirement("F-PIL-8")
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("place", ["private", "standard"])
def test_every_series_of_every_maker_is_recognised_with_its_b_values(maker: str, place: str) -> None:
    assert kinds(study(maker, dce=True, b_in=place)) == TRUTH  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["csa", "sequence-name"])
def test_siemens_other_places_for_b_values_serve_as_well(place: str) -> None:
    assert kinds(study("siemens", dce=True, b_in=place)) == TRUTH  # type: ignore[arg-type]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_decision_comes_with_its_evidence(maker: str) -> None:
    for found in recognised(study(maker, dce=True)).values():
        assert found.evidence
        assert any(line.startswith(f"for {found.kind}: ") for line in found.evidence)


@pytest.mark.parametrize("maker", MAKERS)
def test_planes_and_tilt_are_those_of_the_plan(maker: str) -> None:
    found = recognised(study(maker))
    assert [found[n].plane for n in (2, 3, 4)] == ["axial", "sagittal", "axial"]
    assert found[2].tilt == 8.0


# --- descriptions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("text", ["", "Serie 5", "MUELLER"])
def test_without_a_telling_description_nothing_changes_but_ges_adc(maker: str, text: str) -> None:
    """GE marks its ADC maps by nothing but their name: without it they are `other`, and ADC is said to be missing."""
    images = study(maker, dce=True)
    for ds in images:
        ds.SeriesDescription = ds.ProtocolName = text
    expected = {**TRUTH, 6: ("other", ())} if maker == "ge" else TRUTH
    assert kinds(images) == expected


@pytest.mark.parametrize("maker", MAKERS)
def test_a_wrong_description_does_not_win_over_the_header(maker: str) -> None:
    images = study(maker)
    for ds in images:
        if ds.SeriesNumber in (2, 4):
            ds.SeriesDescription = ds.ProtocolName = "ADC" if ds.SeriesNumber == 2 else "T2 tse tra"
    found = kinds(images)
    assert found[2] == TRUTH[2]
    assert found[4] == TRUTH[4]


@pytest.mark.parametrize("text", ["T2 tse tra", "DWI b800", "ADC", "DCE dyn vibe", "localizer"])
def test_a_description_alone_decides_nothing(text: str) -> None:
    images = series(study(), 2)
    for ds in images:
        ds.SeriesDescription = ds.ProtocolName = text
        del ds.ScanningSequence, ds.SequenceVariant, ds.SequenceName, ds.EchoTime, ds.RepetitionTime
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
    found = recognised(images)[2]
    assert (found.kind, found.confidence) == ("other", "unsure")
    assert any("description says" in line for line in found.evidence)


# --- traps -----------------------------------------------------------------------------------------------


def test_a_philips_dwi_is_a_spin_echo_with_the_timing_of_t2w_and_no_t2w() -> None:
    images = series(study("philips"), 4)
    assert (images[0].ScanningSequence, images[0].EchoTime, images[0].RepetitionTime) == ("SE", 72, 4300)
    assert recognised(images)[4].kind == "DWI"


def test_a_philips_dwi_of_b_0_alone_is_no_t2w_either() -> None:
    images = series(study("philips"), 4)
    for ds in images:
        ds.private_block(0x2001, "Philips Imaging DD 001")[0x03].value = 0.0
    found = recognised(images)[4]
    assert found.kind == "DWI"
    assert found.b_values == (0.0,)


@pytest.mark.parametrize("text", ["Exponential Apparent Diffusion Coefficient", "eADC", "EADC map"])
def test_an_exponential_map_is_no_adc_map(text: str) -> None:
    images = series(study("ge"), 6)
    for ds in images:
        ds.SeriesDescription = ds.ProtocolName = text
    assert recognised(images)[6].kind == "other"


def test_an_exponential_map_by_its_image_type_is_no_adc_map() -> None:
    images = series(study("siemens"), 6)
    for ds in images:
        ds.ImageType = ["DERIVED", "PRIMARY", "DIFFUSION", "EADC"]
    assert recognised(images)[6].kind == "other"


def test_a_map_to_apparent_diffusion_coefficients_says_so_whatever_its_name() -> None:
    images = series(study("ge"), 6)
    for ds in images:
        ds.SeriesDescription = ds.ProtocolName = "Processed"
        code, quantity, mapping = Dataset(), Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
            "113041",
            "DCM",
            "Apparent Diffusion Coefficient",
        )
        quantity.ConceptCodeSequence = [code]
        mapping.QuantityDefinitionSequence = [quantity]
        ds.RealWorldValueMappingSequence = [mapping]
    found = recognised(images)[6]
    assert (found.kind, found.confidence) == ("ADC", "certain")


def test_calculated_high_b_images_are_told_from_acquired_ones() -> None:
    for maker in ("siemens", "philips"):
        found = recognised(study(maker))
        assert found[5].calculated
        assert not found[4].calculated
    assert not recognised(study("ge"))[5].calculated  # GE's phantom acquires it


def test_an_inversion_recovery_and_a_short_echo_are_no_t2w() -> None:
    for keyword, value in (("ScanningSequence", ["SE", "IR"]), ("EchoTime", 12), ("RepetitionTime", 600)):
        images = series(study(), 2)
        for ds in images:
            setattr(ds, keyword, value)
            ds.SequenceName = ""
        assert recognised(images)[2].kind == "other"


def test_one_gradient_echo_before_contrast_is_not_dynamic() -> None:
    images = [ds for ds in series(study("siemens", dce=True), 7) if ds.AcquisitionNumber == 1]
    assert recognised(images)[7].kind == "other"


def test_phases_that_come_as_one_series_each_are_one_dynamic_acquisition() -> None:
    images = series(study("siemens", dce=True), 7)
    for ds in images:
        ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID[:50]}.{ds.AcquisitionNumber}"
        ds.AcquisitionNumber = 1
    found = recognise(headers(images))
    assert len(found) == 12
    assert {one.kind for one in found} == {"DCE"}
    assert {one.phases for one in found} == {12}


def test_the_same_gradient_echo_sent_twice_is_not_dynamic() -> None:
    once = [ds for ds in series(study("siemens", dce=True), 7) if ds.AcquisitionNumber == 1]
    again = [ds for ds in series(study("siemens", dce=True), 7) if ds.AcquisitionNumber == 1]
    for ds in again:
        ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID[:50]}.2"
    assert {one.kind for one in recognise(headers([*once, *again]))} == {"other"}


# --- real files -----------------------------------------------------------------------------------------


def real(name: str) -> Recognised:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = recognise(headers_of(pydicom.dcmread(get_testdata_file(name))))
    return found


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm"]
)
def test_a_real_image_without_description_or_known_maker_is_recognised_by_its_physics(name: str) -> None:
    """A Toshiba image that comes with pydicom: spin echo, TE 240 ms, TR 4000 ms, in four transfer syntaxes."""
    found = real(name)
    assert (found.kind, found.confidence, found.maker, found.images) == ("T2W", "certain", "other", 1)


def test_a_real_reformatted_image_whose_protocol_says_dyn_is_no_dynamic_series() -> None:
    """A Siemens image that comes with pydicom: derived, image type MPR, protocol `t1_vibe_fs_tra_bh_dyn`."""
    assert real("examples_overlay.dcm").kind == "other"
