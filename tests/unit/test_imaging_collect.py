"""The road into the hub, from a folder: cleaned, stored once, resumed, judged, forgotten; no person stays on disk."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from flute.deidentify.dicom import DicomRules
from flute.deidentify.pixels import Region
from flute.deidentify.pseudonyms import pseudonym
from flute.deidentify.release import Images
from flute.errors import MisuseError, Unreachable
from flute.imaging.collect import Collector, CollectReport
from flute.imaging.headers import headers_of
from flute.imaging.linking import ClinicalRecord
from flute.imaging.phantoms.phantom import Size, Subject, phantom
from flute.imaging.quality import BPMRI, MPMRI, judge
from flute.imaging.shelf import Shelf
from flute.imaging.sources.folder import FolderSource
from flute.imaging.sources.source import FoundStudy, ImageRef, NotRead, Wanted
from flute.imaging.volumes.masks import segments_of
from flute.imaging.volumes.series import recognise
from flute.imaging.volumes.volume import volume_of
from support.phantoms import MAKERS, as_file

KEY = bytes(range(32))
TINY = Size(32, 2.0, 24, 2.8, 5, 7.0)
NAME = "Quetzalcoatl^Isidro"
RECORD = ClinicalRecord({"MRN7319": "p1", "MRN7320": "p2"})


class NoText:
    """The picture reader of these tests: text in pixels is another test's matter (federation, with a real reader)."""

    def read(self, picture: NDArray[np.uint8]) -> list[Region]:
        return []


CLEAN = Images(DicomRules(KEY), NoText(), None)


@cache
def _files(maker: str, patient: str, defects: tuple[str, ...], dce: bool) -> list[bytes]:
    return [as_file(ds) for ds in phantom(maker, subject=Subject(patient, NAME), size=TINY, defects=defects, dce=dce)]


def images(maker: str = "siemens", patient: str = "MRN7319", *defects: str, dce: bool = False) -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(raw)) for raw in _files(maker, patient, defects, dce)]


def t2(patient: str = "MRN7319") -> list[Dataset]:
    return [ds for ds in images(patient=patient) if ds.SeriesNumber == 2]


def write(folder: Path, made: Sequence[Dataset]) -> FolderSource:
    folder.mkdir(exist_ok=True)
    for number, ds in enumerate(made):
        (folder / f"{ds.PatientID}-{ds.SeriesNumber}-{number}").write_bytes(as_file(ds))
    return FolderSource(folder)


@dataclass
class Counted:
    """A source that counts what is fetched, and breaks off after `until` images."""

    source: FolderSource
    until: int = 10**9
    fetched: list[str] = field(default_factory=list)
    name: str = "counted"

    def find(self, wanted: Wanted) -> Iterator[FoundStudy]:
        return self.source.find(wanted)

    def images(self, study: FoundStudy) -> list[ImageRef]:
        return self.source.images(study)

    def fetch(self, images: Sequence[ImageRef]) -> Iterator[Dataset | NotRead]:
        for got in self.source.fetch(images):
            if len(self.fetched) >= self.until:
                raise Unreachable("It broke off.")
            if isinstance(got, Dataset):
                self.fetched.append(str(got.SOPInstanceUID))
            yield got


def run(source: Any, shelf: Shelf, record: ClinicalRecord = RECORD, **options: Any) -> CollectReport:
    return Collector(source, shelf, KEY, options.pop("clean", CLEAN), options.pop("protocol", BPMRI)).run(
        Wanted(), record
    )[0]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "hub", KEY)
    yield made
    made.close()


@pytest.mark.requirement("F-PIL-7")
@pytest.mark.parametrize("maker", MAKERS)
def test_a_linked_study_is_on_the_shelf_under_its_pseudonym_complete(
    maker: str, tmp_path: Path, shelf: Shelf
) -> None:
    made = images(maker)
    report = run(write(tmp_path / "pacs", made), shelf)
    assert (report.fetched, report.kept, dict(report.withheld)) == (len(made), 0, {})
    assert dict(report.studies) == {"complete": 1}
    assert report.whole
    ((patient, folder, quality),) = shelf.studies()
    assert patient == pseudonym(KEY, "p1")
    assert folder.parent.name == patient
    assert quality is not None
    assert quality.complete
    assert len(shelf.files()) == len(made)


@pytest.mark.requirement("F-PIL-6")
@pytest.mark.parametrize("maker", MAKERS)
def test_nothing_on_disk_names_the_patient_or_the_pacs(maker: str, tmp_path: Path, shelf: Shelf) -> None:
    made = images(maker)
    run(write(tmp_path / "pacs", made), shelf)
    shelf.close()
    secrets = {"MRN7319", "Quetzalcoatl", "Isidro", "19500312", "SIM-A1", *(str(ds.SOPInstanceUID) for ds in made),
               *(str(ds.SeriesInstanceUID) for ds in made), str(made[0].StudyInstanceUID)}  # fmt: skip
    files = [p for p in (tmp_path / "hub").rglob("*") if p.is_file()]
    assert len(files) > len(made)
    for path in files:
        raw = path.read_bytes()
        assert [s for s in secrets if s.encode() in raw or s in path.name] == []
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    planted = b"".join(p.read_bytes() for p in (tmp_path / "pacs").iterdir())
    assert all(s.encode() in planted for s in secrets), "the search would find them in the PACS's files"


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_stored_is_recognised_alone_as_it_was_with_its_private_elements(
    maker: str, tmp_path: Path, shelf: Shelf
) -> None:
    protocol = MPMRI if maker == "ge" else BPMRI
    made = images(maker, dce=protocol is MPMRI)
    run(write(tmp_path / "pacs", made), shelf, protocol=protocol)
    stored = [pydicom.dcmread(path) for path in shelf.files()]
    assert not any(element.tag.is_private for ds in stored for element in ds)

    def told(found):  # type: ignore[no-untyped-def]
        return sorted((one.kind, one.b_values, one.plane, one.images, one.phases) for one in found)

    again = recognise(h for ds in stored for h in headers_of(ds))
    assert told(again) == told(recognise(h for ds in made for h in headers_of(ds)))
    assert judge([h for ds in stored for h in headers_of(ds)], protocol).complete


def test_directions_of_the_gradient_survive_without_their_private_elements(tmp_path: Path, shelf: Shelf) -> None:
    made = [ds for ds in images() if ds.SeriesNumber == 4]
    for number, ds in enumerate(made):
        gradient = [1.0, 0.0, 0.0] if number % 2 else [0.0, 0.6, 0.8]
        ds.private_block(0x0019, "SIEMENS MR HEADER").add_new(0x0E, "FD", gradient)
    run(write(tmp_path / "pacs", made), shelf)
    stored = [h for path in shelf.files() for h in headers_of(pydicom.dcmread(path))]
    assert {h.direction for h in stored} == {"1.000 0.000 0.000", "0.000 0.600 0.800"}


def test_a_second_run_fetches_nothing_and_says_the_same(tmp_path: Path, shelf: Shelf) -> None:
    source = Counted(write(tmp_path / "pacs", images()))
    first = run(source, shelf)
    count = len(source.fetched)
    second = run(source, shelf)
    assert len(source.fetched) == count
    assert (second.fetched, second.kept) == (0, first.fetched)
    assert second.studies == first.studies


@pytest.mark.parametrize("until", [0, 1, 30])
def test_a_run_that_breaks_off_is_resumed_with_nothing_twice(until: int, tmp_path: Path, shelf: Shelf) -> None:
    made = images()
    source = Counted(write(tmp_path / "pacs", made), until)
    report = run(source, shelf)
    assert not report.whole
    assert dict(report.studies) == {"unfinished": 1}
    assert [quality for _, _, quality in shelf.studies()] == [None] * bool(until)
    source.until = 10**9
    assert run(source, shelf).whole
    assert sorted(source.fetched) == sorted(str(ds.SOPInstanceUID) for ds in made)
    assert len(shelf.files()) == len(made)


def test_a_pacs_that_is_down_ends_the_run_after_three_studies(tmp_path: Path, shelf: Shelf) -> None:
    made = [ds for number in range(5) for ds in images(patient=f"MRN{number}")[:2]]
    record = ClinicalRecord({f"MRN{number}": f"p{number}" for number in range(5)})
    report = run(Counted(write(tmp_path / "pacs", made), 0), shelf, record)
    assert dict(report.studies) == {"unfinished": 5}
    assert report.problem == "It broke off."


def test_only_linked_studies_are_fetched(tmp_path: Path, shelf: Shelf) -> None:
    source = Counted(write(tmp_path / "pacs", [*t2(), *t2("STRANGER")]))
    report = run(source, shelf)
    assert report.links == {"linked-by-patient-id": 1, "patient-unknown": 1, "patient-without-study": 1}
    assert len(source.fetched) == report.fetched == len(t2())


def test_a_new_image_of_a_known_study_is_fetched_alone_and_the_study_judged_anew(
    tmp_path: Path, shelf: Shelf
) -> None:
    made = images()
    late = next(ds for ds in made if ds.SeriesNumber == 2 and ds.InstanceNumber == 3)
    folder = tmp_path / "pacs"
    assert dict(run(write(folder, [ds for ds in made if ds is not late]), shelf).faults)["slice-missing"] == 1
    source = Counted(write(folder, made))
    report = run(source, shelf)
    assert source.fetched == [late.SOPInstanceUID]
    assert "slice-missing" not in report.faults
    assert dict(report.studies) == {"complete": 1}


def test_an_image_of_another_patient_in_a_study_is_refused_and_remembered(tmp_path: Path, shelf: Shelf) -> None:
    made = images("siemens", "MRN7319", "other-patient")
    source = Counted(write(tmp_path / "pacs", [ds for ds in made if ds.PatientID == "MRN7319"]))
    odd = next(ds for ds in made if ds.PatientID != "MRN7319")
    (tmp_path / "pacs" / "z").write_bytes(as_file(odd))
    report = run(source, shelf)
    assert dict(report.withheld) == {"patient-differs": 1}
    assert len(shelf.files()) == len(made) - 1
    count = len(source.fetched)
    run(source, shelf)
    assert len(source.fetched) == count


def test_what_the_de_identifier_withholds_is_counted_by_its_reason(tmp_path: Path, shelf: Shelf) -> None:
    made = t2()
    for ds in made[:4]:
        ds.BurnedInAnnotation = "YES"
    report = run(write(tmp_path / "pacs", made), shelf)
    assert dict(report.withheld) == {"burnt-in-declared": 4}
    assert report.fetched == len(made) - 4
    assert shelf.forget_refusals() == 4


def test_a_screenshot_is_not_even_fetched(tmp_path: Path, shelf: Shelf) -> None:
    made = images()
    made[0].SOPClassUID = made[0].file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    source = Counted(write(tmp_path / "pacs", made))
    report = run(source, shelf)
    assert report.passed_over == 1
    assert made[0].SOPInstanceUID not in source.fetched


def test_a_mask_still_fits_its_image_after_both_were_de_identified(tmp_path: Path, shelf: Shelf) -> None:
    """References between objects, frames of reference and geometry survive together."""
    drawn_on = t2()
    drawn = np.zeros((5, 32, 32), dtype=bool)
    drawn[2:4, 10:15, 11:20] = True
    label = hd.seg.SegmentDescription(
        1, "lesion", codes.SCT.Tissue, codes.SCT.Tissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    seg = hd.seg.Segmentation(
        drawn_on, drawn.astype(np.uint8), hd.seg.SegmentationTypeValues.BINARY, [label], "2.25.11", 20, "2.25.12", 1,
        "SIMULATED", "SIMULATED", "1", "1",
    )  # fmt: skip
    report = run(write(tmp_path / "pacs", [*drawn_on, seg]), shelf)
    assert (report.fetched, dict(report.withheld)) == (6, {})
    stored = [pydicom.dcmread(path) for path in shelf.files()]
    (mask,) = [ds for ds in stored if ds.Modality == "SEG"]
    cleaned = [ds for ds in stored if ds.Modality == "MR"]
    assert mask.FrameOfReferenceUID == cleaned[0].FrameOfReferenceUID != drawn_on[0].FrameOfReferenceUID
    (found,) = segments_of(mask, volume_of(cleaned), frame_of_reference=cleaned[0].FrameOfReferenceUID).values()
    assert np.array_equal(sitk.GetArrayFromImage(found).astype(bool), drawn)


def test_a_withdrawn_patient_leaves_no_file_and_no_line(tmp_path: Path, shelf: Shelf) -> None:
    run(write(tmp_path / "pacs", [*t2(), *t2("MRN7320")]), shelf)
    gone, stays = pseudonym(KEY, "p1"), pseudonym(KEY, "p2")
    assert shelf.forget(gone) == len(t2())
    assert not (tmp_path / "hub" / gone).exists()
    assert [patient for patient, _, _ in shelf.studies()] == [stays]
    assert len(shelf.files()) == len(t2())
    assert shelf.forget(gone) == 0


def test_a_study_that_turns_out_to_be_another_patients_moves_to_him(tmp_path: Path, shelf: Shelf) -> None:
    source = write(tmp_path / "pacs", t2())
    run(source, shelf)
    report = run(source, shelf, ClinicalRecord({"MRN7319": "p2"}))
    assert report.fetched == len(t2())
    assert [patient for patient, _, _ in shelf.studies()] == [pseudonym(KEY, "p2")]
    assert not any((tmp_path / "hub" / pseudonym(KEY, "p1")).rglob("*.dcm"))


def test_another_protocol_judges_what_is_there_anew(tmp_path: Path, shelf: Shelf) -> None:
    source = Counted(write(tmp_path / "pacs", images()))
    assert dict(run(source, shelf).studies) == {"complete": 1}
    count = len(source.fetched)
    assert dict(run(source, shelf, protocol=MPMRI).studies) == {"incomplete": 1}
    assert len(source.fetched) == count


def test_a_file_that_vanished_from_the_shelf_is_fetched_again(tmp_path: Path, shelf: Shelf) -> None:
    source = Counted(write(tmp_path / "pacs", t2()))
    run(source, shelf)
    shelf.files()[2].unlink()
    assert run(source, shelf).fetched == 1


def test_half_a_file_of_a_dead_process_is_cleared_away(tmp_path: Path, shelf: Shelf) -> None:
    run(write(tmp_path / "pacs", t2()), shelf)
    path = shelf.files()[0]
    left = path.parent / f".{path.name}.x7"
    left.write_bytes(b"half")
    shelf.close()
    Shelf(tmp_path / "hub", KEY).close()
    assert not left.exists()


def test_a_key_that_is_none_makes_no_shelf(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="32 bytes"):
        Shelf(tmp_path / "hub", b"short")
    assert not (tmp_path / "hub").exists()
