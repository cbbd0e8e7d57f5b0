"""The simulated study: valid objects, labelled, reproducible, with the physics that it claims."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from flute.errors import MisuseError
from flute.imaging.phantoms.phantom import LESION, OUTER, SMALL, Subject, labels_at, phantom, plans, write_phantom
from support.phantoms import MAKERS, as_file, series, study

STANDARD = Path(highdicom.__file__).parent / "_standard"


@cache
def mandatory() -> dict[str, str]:
    """Keyword to type of the MR Image IOD's attributes outside of sequences, as highdicom's tables have them."""
    modules = json.loads((STANDARD / "iod_module_map.json").read_text())["mr-image"]
    attributes = json.loads((STANDARD / "module_attribute_map.json").read_text())
    return {
        attribute["keyword"]: attribute["type"]
        for module in modules
        if module["usage"] == "M"
        for attribute in attributes[module["key"]]
        if not attribute["path"] and attribute["type"] in ("1", "2")
    }


def broken_rules(ds: Dataset) -> list[str]:
    out = []
    for keyword, kind in mandatory().items():
        if keyword not in ds:
            out.append(f"{keyword} is absent")
        elif kind == "1" and ds[keyword].VM == 0:
            out.append(f"{keyword} is empty")
    return out


@pytest.mark.requirement("F-PIL-25")
@pytest.mark.parametrize("maker", MAKERS)
def test_every_object_has_what_the_standard_demands_of_an_mr_image(maker: str) -> None:
    assert len(mandatory()) > 25
    assert {rule for ds in study(maker, dce=True) for rule in broken_rules(ds)} == set()


def test_the_search_for_broken_rules_finds_one() -> None:
    ds = study()[0]
    del ds.PatientName
    ds.ScanningSequence = ""
    assert broken_rules(ds) == ["PatientName is absent", "ScanningSequence is empty"]


@pytest.mark.parametrize("maker", MAKERS)
def test_every_object_says_that_it_is_simulated_in_four_places(maker: str) -> None:
    for ds in study(maker, dce=True):
        for text in (ds.PatientName, ds.ImageComments, ds.StudyDescription, ds.ManufacturerModelName):
            assert "SIMULATED" in str(text)


def bytes_of(images: list[Dataset]) -> list[bytes]:
    return [as_file(ds) for ds in images]


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others() -> None:
    assert bytes_of(phantom("ge", seed=4)) == bytes_of(phantom("ge", seed=4))
    assert bytes_of(phantom("ge", seed=4)) != bytes_of(phantom("ge", seed=5))


def test_uids_are_valid_and_used_once() -> None:
    images = [ds for maker in MAKERS for ds in study(maker, dce=True)]
    uids = [ds.SOPInstanceUID for ds in images]
    assert len(set(uids)) == len(uids)
    assert all(pydicom.uid.UID(uid).is_valid and len(uid) <= 64 for uid in uids)


def test_two_subjects_share_no_uid() -> None:
    one, other = phantom("ge", subject=Subject("A")), phantom("ge", subject=Subject("B"))
    assert not {ds.SeriesInstanceUID for ds in one} & {ds.SeriesInstanceUID for ds in other}


def test_written_files_are_read_back_by_pydicom_with_their_pixels(tmp_path: Path) -> None:
    files = write_phantom(tmp_path, "philips")
    assert len(files) == len(study("philips"))
    for path in files:
        ds = pydicom.dcmread(path)  # raises without preamble and file meta information
        assert ds.pixel_array.shape == (ds.Rows, ds.Columns)


def test_the_lesion_is_dark_on_t2w_and_adc_and_bright_at_high_b() -> None:
    images = study("siemens")
    labels = {}
    for plan in plans(SMALL):
        labels[plan.number] = np.stack([labels_at(plan.points(start)) for start in plan.positions()])
    means = {}
    for number in (2, 5, 6):
        values = np.stack([ds.pixel_array.astype(float) for ds in series(images, number)])
        means[number] = {label: values[labels[number] == label].mean() for label in (OUTER, LESION)}
    assert means[2][LESION] < 0.8 * means[2][OUTER]
    assert means[6][LESION] < 0.6 * means[6][OUTER]
    assert means[5][LESION] > 1.2 * means[5][OUTER]


def test_an_adc_map_holds_the_tissues_values_within_five_per_cent() -> None:
    plan = next(p for p in plans(SMALL) if p.sort == "adc")
    labels = np.stack([labels_at(plan.points(start)) for start in plan.positions()])
    values = np.stack([ds.pixel_array.astype(float) for ds in series(study("siemens"), 6)])
    for label, truth in ((OUTER, 1650), (LESION, 720)):
        assert abs(values[labels == label].mean() / truth - 1) < 0.05


def test_contrast_agent_raises_the_signal_from_the_third_phase_on() -> None:
    dce = series(study("ge", dce=True), 7)
    by_phase = [
        np.mean([ds.pixel_array.mean() for ds in dce if ds.TemporalPositionIdentifier == phase])
        for phase in (1, 3, 8)
    ]
    assert by_phase[2] > 1.1 * by_phase[1] > 1.05 * by_phase[0] * 0.99


def test_an_unknown_maker_or_defect_is_refused_by_a_list_of_what_there_is() -> None:
    with pytest.raises(MisuseError, match="siemens, ge, philips"):
        phantom("acme")
    with pytest.raises(MisuseError, match="missing-slice"):
        phantom("ge", defects=["missing-sense"])


def test_only_siemens_can_hide_b_values_in_a_csa_header() -> None:
    with pytest.raises(MisuseError, match="Only Siemens"):
        phantom("ge", b_in="csa")
