"""The road of images into a hub: 1 find, 2 link, 3 list, 4 fetch, 5 clean and store, 6 recognise and judge.

Only studies that link to a patient of the record are fetched, and of them only what is not on the shelf yet. Every
image is de-identified before it touches the disk; what it said about physics and geometry is kept beside it, since
the makers' private elements do not survive the cleaning. An image that is withheld is counted and remembered. Killed
at any moment, the next run goes on where this one stopped; run again on an unchanged PACS it fetches nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol as Port

from msgspec.structs import replace
from pydicom.dataset import Dataset

from flute.defaults.records import PACS_GIVE_UP_STUDIES
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import Unmappable, Unreachable
from flute.imaging.headers import Header, headers_of, seconds_of
from flute.imaging.linking import ClinicalRecord, Linked, Links, link
from flute.imaging.quality import Protocol, StudyQuality, judge
from flute.imaging.shelf import Shelf
from flute.imaging.sources.source import FoundStudy, ImageSource, NotRead, Wanted


class Clean(Port):
    """The de-identifier with its residual check. `patient`: his id in the record, which dates and pseudonym follow.

    Raises: Unmappable (with a `reason`): the object is withheld.
    """

    def __call__(self, ds: Dataset, *, patient: str) -> Dataset: ...


@dataclass(slots=True)
class CollectReport:
    """Counts by fixed words; no id of a patient or study stands in it.

    links: ways and reasons of `linking`. fetched, kept: images taken from the PACS now, and those on the shelf
    before. passed_over: images of kinds that are not wanted. withheld: reason to images. studies: complete,
    incomplete and unfinished ones. faults: rule to studies that show it. problem: why the run ended early, or empty.
    """

    links: dict[str, int] = field(default_factory=dict)
    fetched: int = 0
    kept: int = 0
    passed_over: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    studies: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    problem: str = ""

    @property
    def whole(self) -> bool:
        return not self.problem and not self.studies["unfinished"]


@dataclass(frozen=True, slots=True)
class Collector:
    """What every study of a run meets. `progress`: studies done, studies in all, images of the study done."""

    source: ImageSource
    shelf: Shelf
    key: bytes
    clean: Clean
    protocol: Protocol
    progress: Callable[[int, int, int], None] = lambda done, total, images: None

    def run(self, wanted: Wanted, record: ClinicalRecord) -> tuple[CollectReport, Links]:
        """Raises: Unreachable: nothing could be found at all. A PACS that fails later ends the run with a report."""
        report = CollectReport()
        links = link(sorted(self.source.find(wanted), key=lambda s: s.uid), record)  # 1, 2
        report.links = links.counts()
        failed = 0
        for done, linked in enumerate(links.linked):
            self.progress(done, len(links.linked), 0)
            try:
                self._study(linked, report, done, len(links.linked))
                failed = 0
            except Unreachable as error:
                report.studies["unfinished"] += 1
                failed += 1
                if failed == PACS_GIVE_UP_STUDIES:
                    report.studies["unfinished"] += len(links.linked) - done - 1
                    report.problem = error.text
                    break
            except Unmappable as error:
                report.studies["unfinished"] += 1
                report.problem = report.problem or error.text
        return report, links

    def _study(self, linked: Linked, report: CollectReport, done: int, total: int) -> None:
        study = linked.study
        images = self.source.images(study)  # 3
        wanted = [image for image in images if image.wanted]
        report.passed_over += len(images) - len(wanted)
        self.shelf.begin(study.uid, pseudonym(self.key, linked.patient), linked.by)
        missing = [image for image in wanted if not self.shelf.has(image.instance)]
        report.kept += len(wanted) - len(missing)
        for number, got in enumerate(self.source.fetch(missing) if missing else (), start=1):  # 4
            self.progress(done, total, number)
            if isinstance(got, NotRead):
                report.withheld[got.reason] += 1
            else:
                self._image(study, linked.patient, got, report)  # 5
        if not all(self.shelf.has(image.instance) for image in missing):
            report.studies["unfinished"] += 1
            return
        quality = self.shelf.quality(study.uid)
        if quality is None or quality.protocol != self.protocol.name:
            quality = judge(self.shelf.headers(study.uid), self.protocol)  # 6
            self.shelf.finish(study.uid, quality)
        _count(report, quality)

    def _image(self, study: FoundStudy, patient: str, ds: Dataset, report: CollectReport) -> None:
        """Checked against what was asked for, cleaned, stored; or its refusal remembered."""
        uid = str(ds.SOPInstanceUID)
        reason, headers = "", list[Header]()
        if str(ds.StudyInstanceUID) != study.uid:
            reason = "study-differs"
        elif str(ds.get("PatientID", "")).strip() != study.patient_id:
            reason = "patient-differs"
        else:
            headers = list(headers_of(ds))
            try:
                cleaned = self.clean(_with_diffusion(ds, headers), patient=patient)
            except Unmappable as error:
                reason = str(getattr(error, "reason", error.code))
            else:
                self.shelf.put(study.uid, uid, cleaned, [_renamed(h, ds, cleaned) for h in headers])
                report.fetched += 1
        if reason:
            self.shelf.refuse(study.uid, uid, reason)
            report.withheld[reason] += 1


def _with_diffusion(ds: Dataset, headers: Sequence[Header]) -> Dataset:
    """b-value and gradient direction in the standard's elements too: private ones are taken out by the cleaning, and
    volumes are made from the stored file."""
    if len(headers) != 1:
        return ds
    if headers[0].b is not None and "DiffusionBValue" not in ds:
        ds.DiffusionBValue = headers[0].b
    gradient = headers[0].direction.split()
    if len(gradient) == 3 and "DiffusionGradientOrientation" not in ds:
        ds.DiffusionGradientOrientation = [float(v) for v in gradient]
    return ds


def _renamed(header: Header, ds: Dataset, cleaned: Dataset) -> Header:
    """The header under the new UIDs, and its time counted from the study's beginning: the PACS's own are not kept."""
    start = seconds_of(str(ds.get("StudyTime", "") or ""))
    return replace(
        header,
        series=str(cleaned.SeriesInstanceUID),
        instance=str(cleaned.SOPInstanceUID),
        frame_of_reference=str(cleaned.get("FrameOfReferenceUID", "")),
        moment=None if header.moment is None else header.moment - (start or 0.0),
    )


def _count(report: CollectReport, quality: StudyQuality) -> None:
    report.studies["complete" if quality.complete else "incomplete"] += 1
    report.faults.update({fault.rule for fault in quality.faults})
