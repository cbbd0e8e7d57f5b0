"""A folder of DICOM files and FHIR resources, de-identified into another one, with a report that names nobody.

Written: `dicom/PSEUDONYM/STUDY/SERIES/OBJECT.dcm` and `fhir/TYPE.ndjson`. The report counts by fixed words; which
source file was refused and why is for the data manager's own eyes (names of files name patients) and is not written.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, Any, Final

from msgspec import Meta, Struct

from flute.defaults.records import MAX_DICOM_FILE_BYTES
from flute.deidentify.dicom import Released
from flute.deidentify.fhir import FhirRules
from flute.deidentify.needles import known_of_dicom
from flute.deidentify.pseudonyms import object_uid
from flute.deidentify.release import Images, Leaked, Resource, release_resource
from flute.deidentify.residual import search_name
from flute.deidentify.withheld import Withheld
from flute.errors import MisuseError

Count = Annotated[int, Meta(ge=0)]
_FHIR_ENDINGS: Final = (".ndjson", ".json", ".ndjson.gz", ".json.gz")


class FolderReport(Struct, frozen=True):
    """What was done, in counts.

    images, resources: released, the latter by type. withheld: not released, by reason. frames: pictures that were
    read. blanked: regions of text that were blanked. dropped: elements and attributes that did not pass, by why.
    leaks: what the residual check found in objects that it then held back, "kind, where" to how often. eyes: who
    looked at the pictures for the residual check.
    """

    images: Count
    resources: dict[str, Count]
    withheld: dict[str, Count]
    frames: Count
    blanked: Count
    dropped: dict[str, Count]
    leaks: dict[str, Count]
    eyes: str


@dataclass(slots=True)
class Folder:
    """One run. `refused`: called with what was not released (for the data manager's own eyes) and why. `progress`:
    called with how many objects are done."""

    out: Path
    images: Images
    rules: FhirRules
    eyes: str
    refused: Callable[[str, Withheld], None] = lambda what, why: None
    progress: Callable[[int], None] = lambda done: None
    _images: int = 0
    _frames: int = 0
    _blanked: int = 0
    _resources: Counter[str] = field(default_factory=Counter)
    _withheld: Counter[str] = field(default_factory=Counter)
    _dropped: Counter[str] = field(default_factory=Counter)
    _leaks: Counter[str] = field(default_factory=Counter)
    _written_on: set[str] = field(default_factory=set)
    """Series, by their new UIDs, of which an image was withheld for text in its pixels."""

    def run(self, files: Iterable[Path], resources: Iterable[tuple[str, Resource]]) -> FolderReport:
        """De-identify DICOM files, and resources each with where it stands.

        Raises: MisuseError: `out` is not empty.
        """
        if self.out.exists() and any(self.out.iterdir()):
            raise MisuseError(f"{self.out} is not empty. Results of two runs are not mixed; name a new folder.")
        self.out.mkdir(mode=0o700, parents=True, exist_ok=True)
        done = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom tells every value that its type does not allow
            for path in files:
                self._guarded(str(path), lambda path=path: self._image(path))  # type: ignore[misc]
                self.progress(done := done + 1)
        self._take_back()
        with _outputs(self.out / "fhir") as output:
            for origin, resource in resources:
                self._guarded(origin, lambda r=resource: self._resource(r, output))  # type: ignore[misc]
                self.progress(done := done + 1)
        return FolderReport(
            self._images, dict(sorted(self._resources.items())), dict(sorted(self._withheld.items())), self._frames,
            self._blanked, dict(sorted(self._dropped.items())), dict(sorted(self._leaks.items())), self.eyes,
        )  # fmt: skip

    def _guarded(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Withheld as error:
            self._withheld[error.reason] += 1
            if isinstance(error, Leaked):
                self._leaks.update(f"{leak.kind}, {leak.where}" for leak in error.leaks)
            self.refused(what, error)

    def _image(self, path: Path) -> None:
        source = _read(path)
        try:
            result = replace(self.images, counted=self._counted)(source)
        except Withheld as error:
            if error.reason == "burnt-in-text" or _saw_text(error):
                series = str(source.get("SeriesInstanceUID", ""))
                self._written_on.add(object_uid(self.images.rules.key, series))
            raise
        parts = (result.PatientID, result.StudyInstanceUID, result.SeriesInstanceUID)
        target = self.out.joinpath("dicom", *map(str, parts), f"{result.SOPInstanceUID}.dcm")
        persons = self.images.persons
        leaks = search_name(
            str(target.relative_to(self.out)), persons.all_known(persons.key_of(source), known_of_dicom(source))
        )
        if leaks:
            raise Leaked(leaks)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        result.save_as(target, enforce_file_format=True)
        self._images += 1

    def _take_back(self) -> None:
        """What is written on one image of a series is likely on all, and no reader sees it on every one."""
        for series in self._written_on:
            for file in [*self.out.glob(f"dicom/*/*/{series}/*.dcm")]:
                file.unlink()
                self._images -= 1
                self._withheld["text-in-its-series"] += 1

    def _counted(self, released: Released) -> None:
        self._frames += released.frames
        self._blanked += released.blanked
        self._dropped.update(released.dropped)

    def _resource(self, resource: Resource, output: Callable[[str], IO[bytes]]) -> None:
        line, dropped = release_resource(resource, self.rules, self.images.persons)
        kind = str(resource["resourceType"])
        output(kind).write(line + b"\n")
        self._resources[kind] += 1
        self._dropped.update(dropped)


def _saw_text(error: Withheld) -> bool:
    return isinstance(error, Leaked) and any(leak.where.startswith("picture of") for leak in error.leaks)


def dicom_files(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not named as FHIR is, in the order of their names. Links are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.lower().endswith(_FHIR_ENDINGS):
            yield path


def _read(path: Path) -> Any:
    """Raises: Withheld: not DICOM, or too large."""
    import pydicom

    if path.stat().st_size > MAX_DICOM_FILE_BYTES:
        raise Withheld("too-large", f"The file is larger than {MAX_DICOM_FILE_BYTES // 2**20} MiB.")
    try:
        source = pydicom.dcmread(path, force=True)
    except Exception as error:  # the parser raises many kinds on bytes that are not DICOM
        raise Withheld("not-dicom", "It cannot be read as DICOM.") from error
    if "SOPClassUID" not in source:
        raise Withheld("not-dicom", "It is no DICOM object: it does not say of which class it is.")
    return source


@contextmanager
def _outputs(folder: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """Files by resource type, opened when the first resource of the type comes."""
    with ExitStack() as stack:
        opened: dict[str, IO[bytes]] = {}

        def output(kind: str) -> IO[bytes]:
            if kind not in opened:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                opened[kind] = stack.enter_context((folder / f"{kind}.ndjson").open("wb"))
            return opened[kind]

        yield output
