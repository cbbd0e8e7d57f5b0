"""Images from a real PACS (Orthanc), by DICOMweb and DIMSE: found, linked, recognised, cleaned, resumed, refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pynetdicom import AE

from flute.deidentify.dicom import DicomRules
from flute.deidentify.eyes import Rapid
from flute.deidentify.needles import known_of_dicom
from flute.deidentify.pixels import RapidReader, Region
from flute.deidentify.release import Images
from flute.deidentify.residual import Look, search_dicom
from flute.errors import Unmappable, Unreachable
from flute.imaging.check import check
from flute.imaging.collect import Collector, CollectReport
from flute.imaging.linking import ClinicalRecord, link, record_of
from flute.imaging.phantoms.phantom import Size, Subject, phantom
from flute.imaging.quality import BPMRI
from flute.imaging.shelf import Shelf
from flute.imaging.sources.dimse import DimseSource
from flute.imaging.sources.source import FoundStudy, ImageSource, NotRead, Wanted
from flute.imaging.sources.web import WebSource
from flute.imaging.volumes.series import recognise
from support.orthanc import AE_TITLE, Pacs, free_port, running_orthanc
from support.pacs_proxy import Proxy, proxy_before
from support.phantoms import MAKERS, headers

KEY = bytes(range(32))
TINY = Size(48, 1.4, 24, 2.8, 5, 8.0)
PATIENTS = {"siemens": "MRN7319", "ge": "MRN7320", "philips": "MRN7321"}
DAYS = {"siemens": "20200110", "ge": "20200220", "philips": "20210330"}
DEFECTS = {"MRN8001": "missing-slice", "MRN8002": "one-b-value", "MRN8003": "wrong-orientation"}
RECORD = ClinicalRecord({mrn: f"p{n}" for n, mrn in enumerate(PATIENTS.values())})
OURS = Wanted(patient_ids=tuple(PATIENTS.values()))


class NoText:
    def read(self, picture: NDArray[np.uint8]) -> list[Region]:
        return []


CLEAN = Images(DicomRules(KEY), NoText(), None)
"""With the residual check of headers and bytes; pixels are read in a test of their own, which takes longer."""


def made(maker: str, patient: str = "", *defects: str) -> list[Dataset]:
    subject = Subject(
        patient or PATIENTS[maker], "Quetzalcoatl^Isidro", study_date=DAYS[maker], accession=f"ACC-{maker}"
    )
    return phantom(maker, subject=subject, size=TINY, defects=defects)


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """Three makers' studies and three broken ones. One T2W series comes by C-STORE, the rest by STOW-RS, without
    preamble and group length, as that client sends objects; Orthanc gives them back so."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        everything = [ds for maker in MAKERS for ds in made(maker)]
        everything += [ds for patient, defect in DEFECTS.items() for ds in made("ge", patient, defect)]
        sent = [ds for ds in everything if ds.PatientID == "MRN7319" and ds.SeriesNumber == 2]
        running.store(sent)
        DICOMwebClient(running.web).store_instances([ds for ds in everything if ds not in sent])
        assert running.count() == len(everything)
        yield running


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    one = Shelf(tmp_path / "hub", KEY)
    yield one
    one.close()


@pytest.fixture
def proxy(pacs: Pacs) -> Iterator[Proxy]:
    with proxy_before(f"http://127.0.0.1:{pacs.http_port}") as between:
        yield between


def sources(pacs: Pacs) -> dict[str, ImageSource]:
    where = {"host": "127.0.0.1", "port": pacs.dicom_port, "called": AE_TITLE, "timeout_s": 10.0}
    return {
        "DICOMweb": WebSource(pacs.web),
        "C-MOVE": DimseSource(**where, receive_port=pacs.receive_port),  # type: ignore[arg-type]
        "C-GET": DimseSource(**where, how="get"),  # type: ignore[arg-type]
    }


WAYS = ("DICOMweb", "C-MOVE", "C-GET")


def study_of(source: ImageSource, patient: str) -> FoundStudy:
    (found,) = source.find(Wanted(patient_ids=(patient,)))
    return found


def collect(source: ImageSource, shelf: Shelf, *, clean: Any = CLEAN, wanted: Wanted = OURS) -> CollectReport:
    return Collector(source, shelf, KEY, clean, BPMRI).run(wanted, RECORD)[0]


# --- find, list, fetch ---------------------------------------------------------------------------------


@pytest.mark.requirement("F-STD-3")
@pytest.mark.requirement("F-PIL-8")
@pytest.mark.requirement("F-HUF-19")
@pytest.mark.parametrize("way", WAYS)
def test_studies_of_three_makers_are_found_fetched_and_recognised(pacs: Pacs, way: str) -> None:
    source = sources(pacs)[way]
    found = {study.patient_id: study for study in source.find(OURS)}
    assert set(found) == set(PATIENTS.values())
    for maker, patient in PATIENTS.items():
        study = found[patient]
        assert study.day is not None
        assert (f"{study.day:%Y%m%d}", study.accession, study.images) == (DAYS[maker], f"ACC-{maker}", 38)
        if way == "DICOMweb" or maker == "philips":  # DIMSE is slow in Python: one study of it
            images = source.images(study)
            got = [one for one in source.fetch(images) if isinstance(one, Dataset)]
            assert sorted(str(ds.SOPInstanceUID) for ds in got) == sorted(image.instance for image in images)
            assert all(
                np.array_equal(ds.pixel_array, original.pixel_array) for ds, original in pairs(got, made(maker))
            )
            kinds = Counter((one.kind, one.b_values) for one in recognise(headers(got)))
            assert kinds == {("T2W", ()): 2, ("DWI", (50.0, 400.0, 800.0)): 1, ("DWI", (1400.0,)): 1, ("ADC", ()): 1,
                             ("localizer", ()): 1}  # fmt: skip


def pairs(got: Sequence[Dataset], originals: Sequence[Dataset]) -> list[tuple[Dataset, Dataset]]:
    by_uid = {ds.SOPInstanceUID: ds for ds in originals}
    return [(ds, by_uid[ds.SOPInstanceUID]) for ds in got]


@pytest.mark.parametrize("way", WAYS)
def test_a_search_by_patient_and_date_gives_what_was_asked_for(pacs: Pacs, way: str) -> None:
    source = sources(pacs)[way]
    days = {maker: study_of(source, PATIENTS[maker]).day for maker in MAKERS}
    assert [s.patient_id for s in source.find(Wanted(patient_ids=("MRN7320", "NOBODY")))] == ["MRN7320"]
    later = [s.patient_id for s in source.find(Wanted(first=days["philips"]))]
    assert later == ["MRN7321"]
    exact = Wanted(patient_ids=OURS.patient_ids, first=days["ge"], last=days["ge"])
    assert [s.patient_id for s in source.find(exact)] == ["MRN7320"]
    assert list(source.find(Wanted(modality="CT"))) == []


@pytest.mark.parametrize("way", WAYS)
def test_two_images_of_a_study_are_fetched_alone(pacs: Pacs, way: str) -> None:
    source = sources(pacs)[way]
    images = source.images(study_of(source, "MRN7320"))[7:9]
    got = [str(one.SOPInstanceUID) for one in source.fetch(images) if isinstance(one, Dataset)]
    assert sorted(got) == sorted(image.instance for image in images)


@pytest.mark.parametrize("patient", sorted(DEFECTS))
def test_a_defect_in_the_pacs_is_found_with_its_reason(pacs: Pacs, patient: str) -> None:
    from flute.imaging.phantoms.defects import DEFECTS as RULES

    result = check(WebSource(pacs.web), BPMRI, Wanted(patient_ids=(patient,)), limit=5)
    assert not result.good
    assert RULES[DEFECTS[patient]] in {f.rule for f in result.studies[0].quality.faults if f.severity == "error"}


def test_a_study_is_linked_by_what_the_fhir_record_says_of_it(pacs: Pacs) -> None:
    source = WebSource(pacs.web)
    ge = study_of(source, "MRN7320")
    record = record_of([
        {"resourceType": "Patient", "id": "a", "identifier": [{"value": "MRN7319"}]},
        {"resourceType": "Patient", "id": "b", "identifier": [{"value": "known elsewhere"}]},
        {"resourceType": "ImagingStudy", "id": "i", "subject": {"reference": "Patient/b"}, "started": "2020-02-20",
         "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{ge.uid}"}]},
    ])  # fmt: skip
    links = link(source.find(OURS), record)
    assert {(one.patient, one.by) for one in links.linked} == {("a", "patient-id"), ("b", "study-uid")}
    assert links.counts()["patient-unknown"] == 1


# --- the whole road -------------------------------------------------------------------------------------


@pytest.mark.requirement("URS-5")
@pytest.mark.requirement("F-PIL-6")
def test_the_whole_road_from_pacs_to_shelf_leaves_no_identifier(pacs: Pacs, shelf: Shelf, tmp_path: Path) -> None:
    """Cleaned with the picture reader, and searched with a second look at the pictures."""
    report = collect(WebSource(pacs.web), shelf, clean=Images(DicomRules(KEY), RapidReader(), Rapid()),
                     wanted=Wanted(patient_ids=("MRN7320",)))  # fmt: skip
    assert (report.fetched, dict(report.withheld), dict(report.studies)) == (38, {}, {"complete": 1})
    originals = made("ge")
    secrets = [
        b"MRN7320",
        b"Quetzal",
        b"Isidro",
        b"20200220",
        b"ACC-ge",
        *(o.SOPInstanceUID.encode() for o in originals),
    ]
    for path in (p for p in (tmp_path / "hub").rglob("*") if p.is_file()):
        raw = path.read_bytes()
        assert [s for s in secrets if s in raw or s.decode() in str(path)] == []


def test_the_residual_check_finds_the_patient_when_nothing_is_cleaned(pacs: Pacs) -> None:
    source = WebSource(pacs.web)
    ds = next(one for one in source.fetch(source.images(study_of(source, "MRN7320"))[:1]) if isinstance(one, Dataset))
    raw = BytesIO()
    ds.save_as(raw, enforce_file_format=True)
    known = known_of_dicom(ds)
    assert {leak.kind for leak in search_dicom(raw.getvalue(), Look(known, known.days))} >= {
        "name",
        "number",
        "birth-date",
    }


def test_an_image_with_a_name_in_its_pixels_is_withheld_and_the_others_are_kept(tmp_path: Path, shelf: Shelf) -> None:
    with running_orthanc(tmp_path / "second") as second:
        size = Size(96, 0.7, 24, 2.8, 3, 12.0)
        images = [ds for ds in phantom("siemens", subject=Subject("MRN7319"), size=size, defects=["burnt-in-name"])
                  if ds.SeriesNumber in (2, 6)]  # fmt: skip
        DICOMwebClient(second.web).store_instances(images)
        report = collect(WebSource(second.web), shelf, clean=Images(DicomRules(KEY), RapidReader(), None))
    assert dict(report.withheld) == {"burnt-in-text": 3}
    assert report.fetched == 3


def test_by_dimse_the_same_files_lie_on_the_shelf_as_by_the_web(pacs: Pacs, tmp_path: Path) -> None:
    contents = []
    for way in ("DICOMweb", "C-MOVE"):
        one = Shelf(tmp_path / way, KEY)
        assert collect(sources(pacs)[way], one, wanted=Wanted(patient_ids=("MRN7321",))).whole
        contents.append({path.relative_to(one.folder): path.read_bytes() for path in one.files()})
        one.close()
    assert len(contents[0]) == 38
    assert contents[0] == contents[1]


# --- a PACS that misbehaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "503", "429", "drop", "garbage", "half-object"])
def test_a_passing_fault_is_waited_out_within_the_run(proxy: Proxy, shelf: Shelf, fault: str) -> None:
    waits: list[float] = []
    proxy.faults = lambda number, path: (
        fault if number in (1, 2, 9, 20) and not (fault == "half-object" and number < 9) else ""
    )
    report = collect(WebSource(proxy.web, sleep=waits.append), shelf, wanted=Wanted(patient_ids=("MRN7319",)))
    assert report.whole
    assert report.fetched == 38
    assert len(proxy.images()) == 38, "every image was answered once"
    assert len(set(proxy.images())) == 38
    assert waits
    assert all(wait >= 0.5 for wait in waits)


@pytest.mark.parametrize("fault", ["500", "drop", "garbage", "half-object", "silence"])
def test_a_pacs_that_breaks_down_mid_way_is_resumed_with_nothing_twice(
    proxy: Proxy, shelf: Shelf, fault: str
) -> None:
    broken = True
    proxy.faults = lambda number, path: fault if broken and len(proxy.images()) >= 17 else ""
    source = WebSource(proxy.web, attempts=2, sleep=lambda _: None, timeout_s=0.5 if fault == "silence" else 10.0)
    first = collect(source, shelf, wanted=Wanted(patient_ids=("MRN7319",)))
    assert not first.whole
    assert first.fetched == 17
    assert dict(first.studies) == {"unfinished": 1}
    broken = False
    second = collect(source, shelf, wanted=Wanted(patient_ids=("MRN7319",)))
    assert second.whole
    assert (second.fetched, second.kept) == (21, 17)
    assert sorted(Counter(proxy.images()).values()) == [1] * 38
    assert len(shelf.files()) == 38


def test_a_pacs_that_answers_nothing_at_all_is_told_in_a_sentence(proxy: Proxy, shelf: Shelf) -> None:
    proxy.faults = lambda number, path: "500"
    with pytest.raises(Unreachable, match=r"failed 2 times in a row, last with: status 500"):
        collect(WebSource(proxy.web, attempts=2, sleep=lambda _: None), shelf)
    with pytest.raises(Unreachable, match="failed"):
        list(WebSource(f"http://127.0.0.1:{free_port()}/dicom-web", attempts=1).find(OURS))


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [("401", Unreachable, "authorization"), ("302", Unreachable, "final address"), ("400", Unmappable, "status 400")],
)
def test_a_fault_that_waiting_does_not_mend_is_told_at_once(
    proxy: Proxy, fault: str, kind: type[Exception], says: str
) -> None:
    proxy.faults = lambda number, path: fault
    with pytest.raises(kind, match=says):
        list(WebSource(proxy.web, sleep=lambda _: None).find(OURS))
    assert proxy.calls == 1


def test_an_image_that_is_listed_and_gone_is_counted_and_the_others_are_taken(proxy: Proxy, shelf: Shelf) -> None:
    gone: list[str] = []

    def faults(number: int, path: str) -> str:
        if "/instances/" in path and not gone:
            gone.append(path)
        return "404" if path in gone else ""

    proxy.faults = faults
    report = collect(WebSource(proxy.web), shelf, wanted=Wanted(patient_ids=("MRN7319",)))
    assert dict(report.withheld) == {"not-in-pacs": 1}
    assert report.fetched == 37
    assert dict(report.studies) == {"unfinished": 1}


def test_a_server_that_ignores_the_question_gives_nobody_elses_studies(proxy: Proxy) -> None:
    proxy.faults = lambda number, path: "ignore-query"
    assert [s.patient_id for s in WebSource(proxy.web).find(Wanted(patient_ids=("MRN7320",)))] == ["MRN7320"]


def test_an_answer_beyond_the_limit_is_cut_off(pacs: Pacs, monkeypatch: pytest.MonkeyPatch) -> None:
    source = WebSource(pacs.web)
    images = source.images(study_of(source, "MRN7320"))[:1]
    monkeypatch.setattr("flute.imaging.sources.web.MAX_INSTANCE_BYTES", 500 - 2**16)
    (got,) = source.fetch(images)
    assert isinstance(got, NotRead)
    assert got.reason == "too-large"


RESUMED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from federation.test_imaging_pacs import CLEAN, KEY, BPMRI, Collector, RECORD, Shelf, Wanted, WebSource
collector = Collector(WebSource({web!r}), Shelf(Path({hub!r}), KEY), KEY, CLEAN, BPMRI)
collector.run(Wanted(patient_ids=("MRN7319",)), RECORD)
"""


def test_a_process_that_is_killed_mid_way_goes_on_where_it_was(proxy: Proxy, tmp_path: Path) -> None:
    """kill -9 while an image is under way: at most that one is fetched a second time, none is lost or doubled."""
    hub, tests = tmp_path / "hub", Path(__file__).parents[1]
    proxy.faults = lambda number, path: "silence" if len(proxy.images()) >= 12 else ""
    code = RESUMED.format(tests=str(tests), web=proxy.web, hub=str(hub))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tests)})
    try:
        deadline = time.monotonic() + 60
        while len(list(hub.rglob("*.dcm"))) < 12 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    proxy.faults = lambda number, path: ""
    shelf = Shelf(hub, KEY)
    report = collect(WebSource(proxy.web), shelf, wanted=Wanted(patient_ids=("MRN7319",)))
    assert report.whole
    assert report.kept in (11, 12)  # the twelfth file may lie on disk without its line in the index
    assert len(shelf.files()) == len(list(hub.rglob("*.dcm"))) == 38
    assert sum(n - 1 for n in Counter(proxy.images()).values()) <= 1
    shelf.close()


# --- DIMSE: who may talk to whom ------------------------------------------------------------------------------


def test_an_echo_tells_whether_the_pacs_is_there(pacs: Pacs) -> None:
    DimseSource("127.0.0.1", pacs.dicom_port, called=AE_TITLE).echo()
    with pytest.raises(Unreachable, match="AE title"):
        DimseSource("127.0.0.1", pacs.dicom_port, called="WRONG", timeout_s=3).echo()
    with pytest.raises(Unreachable, match="does not answer"):
        DimseSource("127.0.0.1", free_port(), called=AE_TITLE, timeout_s=3).echo()


def test_a_pacs_that_does_not_know_our_title_says_so_in_a_sentence(pacs: Pacs) -> None:
    stranger = DimseSource(
        "127.0.0.1", pacs.dicom_port, called=AE_TITLE, calling="STRANGER", receive_port=free_port()
    )
    with pytest.raises(Unreachable, match=r"AE title|did not answer|does not answer"):
        list(stranger.find(OURS))


def test_images_that_nobody_asked_for_and_strangers_are_turned_away(pacs: Pacs) -> None:
    source = sources(pacs)["C-MOVE"]
    images = source.images(study_of(source, "MRN7320"))[:3]
    fetching = source.fetch(images)
    first = next(fetching)
    assert isinstance(first, Dataset)
    other = made("philips")[0]
    assert offered(other, "EVIL", pacs.receive_port) is None, "a stranger gets no association"
    assert offered_until_let_in(other, AE_TITLE, pacs.receive_port) == 0x0124
    rest = [str(one.SOPInstanceUID) for one in fetching if isinstance(one, Dataset)]
    assert sorted([str(first.SOPInstanceUID), *rest]) == sorted(image.instance for image in images)


def offered(ds: Dataset, title: str, port: int) -> int | None:
    """Status of a C-STORE to our own service, or None where no association came about."""
    ae = AE(ae_title=title)
    ae.add_requested_context(ds.SOPClassUID)
    association = ae.associate("127.0.0.1", port, ae_title="FLUTE")
    if not association.is_established:
        return None
    try:
        return int(association.send_c_store(ds).Status)
    finally:
        association.release()


def offered_until_let_in(ds: Dataset, title: str, port: int) -> int | None:
    """The stranger's connection may still be ending, and the service takes a bounded number at once."""
    for _ in range(50):
        status = offered(ds, title, port)
        if status is not None:
            return status
        time.sleep(0.1)
    return None


def test_a_reader_that_stops_early_leaves_nothing_listening(pacs: Pacs) -> None:
    source = sources(pacs)["C-MOVE"]
    images = source.images(study_of(source, "MRN7320"))
    fetching = source.fetch(images)
    next(fetching)
    fetching.close()  # type: ignore[attr-defined]
    assert offered(made("ge")[0], AE_TITLE, pacs.receive_port) is None
    got = [one for one in source.fetch(images[:2]) if isinstance(one, Dataset)]
    assert len(got) == 2


@pytest.mark.parametrize("how", ["move", "get"])
def test_a_pacs_that_dies_while_it_sends_is_resumed_with_nothing_twice(
    how: Any, tmp_path: Path, shelf: Shelf
) -> None:
    """kill -9 of Orthanc after ten images, then the same archive again."""
    wanted = Wanted(patient_ids=("MRN7319",))

    def source(of: Pacs) -> DimseSource:
        return DimseSource(
            "127.0.0.1", of.dicom_port, called=AE_TITLE, how=how, receive_port=of.receive_port, timeout_s=5
        )

    with running_orthanc(tmp_path / "archive") as dying:
        DICOMwebClient(dying.web).store_instances(made("siemens"))

        def kill(done: int, total: int, images: int) -> None:
            if images == 10:
                dying.process.kill()

        report, _ = Collector(source(dying), shelf, KEY, CLEAN, BPMRI, kill).run(wanted, RECORD)
    assert not report.whole
    assert 10 <= report.fetched < 38
    with running_orthanc(tmp_path / "archive") as again:
        second = collect(source(again), shelf, wanted=wanted)
    assert second.whole
    assert (second.kept, second.fetched) == (report.fetched, 38 - report.fetched)
    assert len(shelf.files()) == 38


def test_pixels_come_unchanged_through_every_way(pacs: Pacs) -> None:
    for source in sources(pacs).values():
        image = source.images(study_of(source, "MRN7321"))[0]
        (got,) = source.fetch([image])
        assert isinstance(got, Dataset)
        original = next(ds for ds in made("philips") if image.instance == ds.SOPInstanceUID)
        assert got.PixelData == original.PixelData
        assert pydicom.uid.UID(got.file_meta.TransferSyntaxUID).is_little_endian
