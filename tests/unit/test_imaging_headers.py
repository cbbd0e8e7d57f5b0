"""b-values in every place where makers put them; broken elements; enhanced objects; nothing of a person."""

from __future__ import annotations

import struct

import msgspec
import pytest
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from flute.imaging.bvalues import b_value, csa_header, csa_number
from flute.imaging.headers import VOCABULARY, header_of, headers_of, maker_of
from support.phantoms import MAKERS, headers, series, study


def image() -> Dataset:
    ds = Dataset()
    ds.Modality, ds.Rows, ds.Columns = "MR", 4, 4
    return ds


@pytest.mark.parametrize(
    ("maker", "place", "where"),
    [
        ("siemens", "private", "Siemens (0019,xx0C)"),
        ("siemens", "csa", "Siemens CSA header"),
        ("siemens", "sequence-name", "sequence name"),
        ("ge", "private", "GE (0043,xx39)"),
        ("philips", "private", "Philips (2001,xx03)"),
        ("siemens", "standard", "(0018,9087)"),
        ("ge", "standard", "(0018,9087)"),
        ("philips", "standard", "(0018,9087)"),
    ],
)
def test_a_b_value_is_read_from_where_the_maker_put_it(maker: str, place: str, where: str) -> None:
    found = headers(series(study(maker, b_in=place), 4))  # type: ignore[arg-type]
    assert sorted({(h.b, h.b_source) for h in found}) == [(50.0, where), (400.0, where), (800.0, where)]


@pytest.mark.parametrize(("stored", "meant"), [(1_000_000_050, 50), (800, 800), (1_000_001_400, 1400), (0, 0)])
def test_ges_marker_is_taken_off(stored: int, meant: int) -> None:
    ds = image()
    ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [stored, 8, 0, 0])
    assert b_value(ds)[0] == meant


def test_a_private_element_of_another_creator_means_nothing() -> None:
    ds = image()
    ds.private_block(0x0019, "SOMEBODY ELSE", create=True).add_new(0x0C, "IS", 700)
    assert b_value(ds) == (None, "", False)


def test_the_block_of_a_private_element_is_found_where_its_creator_says() -> None:
    """xx is 10 by habit only: a second creator in the group shifts it."""
    ds = image()
    ds.private_block(0x2001, "SOMEBODY ELSE", create=True).add_new(0x03, "FL", 5.0)
    ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", 1000.0)
    assert (0x2001, 0x1103) in ds
    assert b_value(ds)[0] == 1000


@pytest.mark.parametrize(
    ("group", "creator", "element", "raw", "meant"),
    [
        (0x0019, "SIEMENS MR HEADER", 0x0C, b"800 ", 800),
        (0x2001, "Philips Imaging DD 001", 0x03, struct.pack("<f", 1000.0), 1000),
        (0x0043, "GEMS_PARM_01", 0x39, b"1000000600\\8\\0\\0", 600),
    ],
)
def test_elements_that_lost_their_type_on_the_way_are_still_read(
    group: int, creator: str, element: int, raw: bytes, meant: float
) -> None:
    ds = image()
    block = ds.private_block(group, creator, create=True)
    ds[block.get_tag(element)] = DataElement(block.get_tag(element), "UN", raw)
    assert b_value(ds)[0] == meant


def test_two_places_that_disagree_are_told_and_the_standards_element_believed() -> None:
    ds = image()
    ds.DiffusionBValue = 50.0
    ds.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", 800)
    assert b_value(ds) == (50.0, "(0018,9087)", True)


def test_philips_repetitions_at_almost_no_weighting_are_b_0() -> None:
    ds = image()
    ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", 0.003)
    assert b_value(ds)[0] == 0


def test_the_name_of_an_adc_sequence_is_no_b_value() -> None:
    ds = image()
    ds.SequenceName = "*ep_b50_800"
    assert b_value(ds)[0] is None
    ds.SequenceName = "*ep_b50#3"
    assert b_value(ds)[0] == 50


# --- CSA -------------------------------------------------------------------------------------------


def test_a_field_of_a_csa_header_is_found_between_others() -> None:
    raw = csa_header({"A": "x", "B_value": "1400", "Z": "9"})
    assert csa_number(raw, "B_value") == 1400
    assert csa_number(raw, "Z") == 9
    assert csa_number(raw, "A") is None
    assert csa_number(raw, "absent") is None


@given(cut=st.integers(0, 400), at=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_csa_header_gives_a_number_or_nothing(cut: int, at: int, value: int) -> None:
    raw = bytearray(csa_header({"EchoLinePosition": "64", "B_value": "800", "Last": "1"}))
    raw[at % len(raw)] = value
    found = csa_number(bytes(raw[: len(raw) - cut % len(raw)]), "B_value")
    assert found is None or isinstance(found, float)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_behind_the_mark_of_a_csa_header_do_no_harm(raw: bytes) -> None:
    assert csa_number(b"SV10" + raw, "B_value") is None or raw


# --- other elements ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "maker"),
    [("SIEMENS", "siemens"), ("Siemens Healthineers", "siemens"), ("GE MEDICAL SYSTEMS", "ge"), ("GE", "ge"),
     ("Philips Medical Systems", "philips"), ("Philips", "philips"), ("TOSHIBA_MEC", "other"), ("", "other"),
     ("GEHIRN AG", "other")],
)  # fmt: skip
def test_makers_are_told_by_the_beginning_of_their_name(name: str, maker: str) -> None:
    ds = image()
    ds.Manufacturer = name
    assert maker_of(ds) == maker


def test_broken_elements_count_as_not_said() -> None:
    ds = image()
    ds.add_new("ImagePositionPatient", "DS", ["1", "2"])
    ds.PixelSpacing = ["nan", "1"]
    ds.RepetitionTime = ""
    ds.AcquisitionTime = "noon"
    header = header_of(ds)
    assert (header.position, header.spacing, header.tr, header.moment) == (None, None, None, None)


def test_of_a_description_only_words_of_the_vocabulary_are_kept() -> None:
    ds = image()
    ds.SeriesDescription = "T2_tse_Mueller_tra"
    ds.ProtocolName = "for Mrs Jones DWI"
    assert header_of(ds).words == {"t2", "tse", "dwi"}
    assert "mueller" not in VOCABULARY


@pytest.mark.parametrize("maker", MAKERS)
def test_a_header_holds_nothing_that_names_the_patient(maker: str) -> None:
    images = study(maker, dce=True)
    raw = msgspec.json.encode(headers(images)).decode()
    first = images[0]
    for secret in (first.PatientID, str(first.PatientName), first.PatientBirthDate, first.StudyDate,
                   first.AccessionNumber, first.InstitutionName, first.DeviceSerialNumber):  # fmt: skip
        assert str(secret) not in raw


def test_objects_that_are_no_mr_images_give_no_header() -> None:
    ds = image()
    ds.Modality = "SR"
    assert list(headers_of(ds)) == []


# --- enhanced ----------------------------------------------------------------------------------------


def test_an_enhanced_object_gives_the_same_facts_as_the_images_it_was_converted_from() -> None:
    classic = series(study("siemens", b_in="standard"), 4)
    for ds in classic:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    enhanced = LegacyConvertedEnhancedMRImage(
        classic, series_instance_uid="2.25.1", series_number=9, sop_instance_uid="2.25.2", instance_number=1
    )
    found = list(headers_of(enhanced))
    assert len(found) == len(classic)

    def facts(one):  # type: ignore[no-untyped-def]
        return (
            one.b,
            one.position,
            one.orientation,
            one.spacing,
            one.te,
            one.tr,
            one.rows,
            one.scanning,
            one.image_type,
        )

    assert sorted(map(facts, found)) == sorted(facts(header_of(ds)) for ds in classic)
    assert sorted(h.frame for h in found) == list(range(len(classic)))
