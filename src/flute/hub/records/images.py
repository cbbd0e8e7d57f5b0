"""Images of a dataset's patients: found in the PACS, linked, de-identified, kept by pseudonym beside the dataset.

Only patients who are in the dataset are asked for: a PACS holds everybody's. The hospital's ids are taken from what
was staged; where it holds identifiers as keyed hashes only, a Patient ID of the PACS is hashed and compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta, Struct

from flute.data.variables import Variable
from flute.defaults.images import GRID_SPACING_MM
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, Unreachable
from flute.homes import private_folder, read_secret_file
from flute.intake.arrays import arrays_in
from flute.intake.pixels import Picture
from flute.intake.recipe import ImagesView
from flute.intake.staging import Staging

if TYPE_CHECKING:
    from flute.imaging.collect import CollectReport
    from flute.imaging.linking import ClinicalRecord

FOLDER: Final = "images"
_Spacing = Annotated[float, Meta(ge=0.1, le=20)]
_INSTALL: Final = "Images need packages that are not installed: pip install 'flute[imaging]'."
Say = Callable[[str, int, int], None]
"""What is being done, studies done, studies in all."""


class ImagesPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """`place`: a folder, a DICOMweb address, or dimse://AETITLE@host:port. `authorization_file`: holds the value of
    the Authorization header. `protocol`: what a study must hold."""

    place: Annotated[str, Meta(min_length=1, max_length=4096)]
    protocol: Annotated[str, Meta(pattern=r"^(bpMRI|mpMRI)\Z")] = "bpMRI"
    authorization_file: Annotated[str, Meta(max_length=4096)] = ""
    calling: Annotated[str, Meta(min_length=1, max_length=16)] = "FLUTE"
    receive_port: Annotated[int, Meta(ge=0, le=65535)] = 0


class ImageColumn(Struct, frozen=True, forbid_unknown_fields=True):
    """A variable of a dataset whose values are images.

    folder: holds PATIENT.npy, by the hospital's own ids or (pseudonyms) by this hub's; empty: made of what is on the
    hub's shelf, on a grid of `variable.shape` and `spacing` (mm between slices, rows, columns)."""

    variable: Variable
    folder: Annotated[str, Meta(max_length=4096)] = ""
    pseudonyms: bool = False
    spacing: tuple[_Spacing, _Spacing, _Spacing] = GRID_SPACING_MM

    def __post_init__(self) -> None:
        if self.variable.kind != "image":
            raise ValueError("a column of images is a variable of kind image")
        shape, ends = self.variable.shape or (), (self.variable.low, self.variable.high)
        if not self.folder and (len(shape) != 4 or shape[0] != 3 or ends != (-1, 1)):
            raise ValueError("images made of the shelf's have 3 channels, slices, rows, columns, from -1 to 1")


class CollectedImages(Struct, frozen=True):
    """Counts by fixed words: see `imaging.collect.CollectReport`."""

    links: dict[str, int]
    fetched: int
    kept: int
    passed_over: int
    withheld: dict[str, int]
    studies: dict[str, int]
    faults: dict[str, int]
    problem: str


class _Known(dict[str, str]):
    """Ids of a PACS to patients; an id that is not spelt out here is looked up by its keyed hash."""

    def __init__(self, plain: Mapping[str, str], hashed: Mapping[str, str], key: bytes) -> None:
        super().__init__(plain)
        self._hashed = hashed
        self._key = key

    def get(self, known: str, default: Any = None) -> Any:
        found = super().get(known)
        return self._hashed.get(pseudonym(self._key, known), default) if found is None else found


def collect(
    plan: ImagesPlan, view: ImagesView, staging: Staging, included: frozenset[str], folder: Path, key: bytes, say: Say
) -> CollectedImages:
    """Fetch what is new. `included`: pseudonyms of the dataset. `folder`: the hub's.

    Raises: Unreachable: nothing could be found at all. Unmappable: an answer that is none. MisuseError: the address,
    or `flute[imaging]` is not installed.
    """
    try:
        from flute.deidentify.dicom import DicomRules
        from flute.deidentify.eyes import Rapid
        from flute.deidentify.pixels import RapidReader
        from flute.deidentify.release import Images
        from flute.imaging.bvalues import b_value
        from flute.imaging.check import source_at
        from flute.imaging.collect import Collector
        from flute.imaging.quality import BPMRI, MPMRI
        from flute.imaging.shelf import Shelf
        from flute.imaging.sources.source import Wanted
    except ImportError as error:
        raise MisuseError(_INSTALL) from error
    record = _record(view, staging, included, key)
    secret = read_secret_file(Path(plan.authorization_file)).decode().strip() if plan.authorization_file else None
    source = source_at(
        plan.place, authorization=secret, calling=plan.calling, receive_port=plan.receive_port,
        progress=lambda files: say(f"reading headers, file {files}", 0, 0),
    )  # fmt: skip
    clean = Images(DicomRules(key, b_value=lambda ds: b_value(ds)[0]), RapidReader(), Rapid())
    shelf = Shelf(private_folder(folder / FOLDER), key)
    protocol = BPMRI if plan.protocol == BPMRI.name else MPMRI
    try:
        collector = Collector(
            source, shelf, key, clean, protocol,
            progress=lambda done, total, images: say(f"study {done + 1}, image {images}", done, total),
        )  # fmt: skip
        report, _ = collector.run(Wanted(), record)
    finally:
        shelf.close()
    return _counts(report)


def pictures(
    column: ImageColumn, folder: Path, key: bytes, left_out: Counter[str], said: Callable[[int], None]
) -> Iterator[Picture]:
    """The images of a column. `folder`: the hub's. `left_out`: filled with patients on the shelf whose images make
    none, by reason. `said`: told how many patients were looked at.

    Raises: Unreachable: there is no such folder, or no shelf. MisuseError: `flute[imaging]` is not installed."""
    if column.folder:
        yield from arrays_in(Path(column.folder), None if column.pseudonyms else key)
        return
    if not (folder / FOLDER).is_dir():
        raise Unreachable("This hub keeps no images yet; an import that names the PACS brings them (--dicom).")
    try:
        from flute.imaging.volumes.tensors import Grid, Shelved
    except ImportError as error:
        raise MisuseError(_INSTALL) from error
    _, slices, rows, columns = column.variable.shape or (0, 0, 0, 0)
    shelved = Shelved(folder / FOLDER, Grid((slices, rows, columns), column.spacing), left_out)
    yield from shelved.images(said)


def forget(folder: Path, key: bytes, known_as: str) -> int:
    """Delete a withdrawn patient's images. Gives how many there were; 0 where the hub keeps none."""
    if not (folder / FOLDER).exists():
        return 0
    from flute.imaging.shelf import Shelf

    shelf = Shelf(folder / FOLDER, key)
    try:
        return shelf.forget(known_as)
    finally:
        shelf.close()


def _record(view: ImagesView, staging: Staging, included: frozenset[str], key: bytes) -> ClinicalRecord:
    from flute.imaging.linking import ClinicalRecord, ClinicalStudy
    from flute.imaging.sources.source import day_of

    if not view.patients:
        raise MisuseError("This dataset's recipe does not say who its patients are, so no image can be linked.")
    staging.offer_views([])
    ids = [row["id"] for row in _rows(staging, view.patients)]
    inside = {patient for patient in ids if patient is not None and pseudonym(key, patient) in included}
    hashed: dict[str, set[str]] = {}
    for row in _rows(staging, view.identifiers):
        if row["id"] in inside and row["value"]:
            hashed.setdefault(row["value"], set()).add(row["id"])
    studies = [
        ClinicalStudy(
            row["patient"],
            frozenset({str(row["uid"]).removeprefix("urn:oid:")} if row["uid"] else ()),
            frozenset(),
            day_of(str(row["started"] or "")[:10].replace("-", "")),
        )
        for row in _rows(staging, view.studies)
        if row["patient"] in inside
    ]
    alone = {value: next(iter(of)) for value, of in hashed.items() if len(of) == 1}
    return ClinicalRecord(_Known({patient: patient for patient in inside}, alone, key), studies)


def _rows(staging: Staging, name: str) -> Iterator[dict[str, Any]]:
    if name:
        names = [column.name for column in staging.views[name].columns]
        for row in staging.rows(name):
            yield dict(zip(names, row, strict=True))


def _counts(report: CollectReport) -> CollectedImages:
    return CollectedImages(
        dict(report.links), report.fetched, report.kept, report.passed_over, dict(report.withheld),
        dict(report.studies), dict(report.faults), report.problem,
    )  # fmt: skip
