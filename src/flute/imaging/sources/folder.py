"""Images from a folder, or from what a DICOMDIR lists: every file is looked at, broken ones are refused one by one.

Links that lead out of the folder are not followed, and only plain files are opened.
Source: DICOM PS3.10 section 8 (DICOMDIR).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset

from flute.defaults.records import MAX_FOLDER_FILES
from flute.errors import Unmappable, Unreachable
from flute.imaging.sources.objects import read_file
from flute.imaging.sources.source import FoundStudy, ImageRef, NotRead, Wanted, day_of


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    ref: ImageRef
    patient_id: str
    day: str
    accession: str
    modality: str


@dataclass(slots=True)
class FolderSource:
    """`refused`: files that cannot be taken, after `scan`. Files are listed once; call `scan` again to look anew."""

    path: Path
    progress: Callable[[int], None] = lambda _: None
    refused: list[NotRead] = field(default_factory=list)
    _studies: dict[str, list[_File]] | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def scan(self) -> None:
        """Read every file's header. Raises: Unreachable: no such folder. Unmappable: it holds no DICOM object."""
        self.refused.clear()
        studies: dict[str, list[_File]] = defaultdict(list)
        seen: set[str] = set()
        for number, path in enumerate(self._files(), start=1):
            self.progress(number)
            origin = path.relative_to(self._root).as_posix()
            found = read_file(path, origin, pixels=False)
            if isinstance(found, NotRead):
                self.refused.append(found)
            elif found.get("SOPInstanceUID") in seen:
                self.refused.append(
                    NotRead(origin, "instance-twice", "The same image is in the folder already; one copy is read.")
                )
            else:
                seen.add(str(found.SOPInstanceUID))
                studies[str(found.StudyInstanceUID)].append(_listed(path, found))
        self._studies = dict(studies)
        if not studies:
            raise Unmappable(f"No DICOM object was found in {self.name} ({len(self.refused)} files refused).")

    @property
    def _root(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent

    def _files(self) -> Iterator[Path]:
        if not self.path.exists():
            raise Unreachable(f"There is no folder {self.name}.")
        if self.path.name.upper() == "DICOMDIR" and self.path.is_file():
            yield from self._listed_by_directory()
            return
        if self.path.is_file():
            yield self.path
            return
        count = 0
        for folder, folders, names in os.walk(self.path):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if name.upper() == "DICOMDIR" or name.startswith(".") or path.is_symlink() or not path.is_file():
                    continue
                count += 1
                if count > MAX_FOLDER_FILES:
                    raise Unmappable(f"The folder holds more than {MAX_FOLDER_FILES} files; read it in parts.")
                yield path

    def _listed_by_directory(self) -> Iterator[Path]:
        """Files that a DICOMDIR names. One that leads out of its folder, or to nothing, is refused."""
        directory = read_directory(self.path)
        root = self._root.resolve()
        for record in directory.get("DirectoryRecordSequence", []):
            parts = record.get("ReferencedFileID")
            if parts is None or parts == "":
                continue
            parts = [parts] if isinstance(parts, str) else [str(p) for p in parts]
            path = self._root.joinpath(*parts)
            origin = "/".join(parts)
            if not path.resolve().is_relative_to(root):
                self.refused.append(
                    NotRead(origin, "outside-folder", "The DICOMDIR names a file outside its folder.")
                )
            elif not path.is_file():
                self.refused.append(
                    NotRead(
                        origin, "file-missing", "The DICOMDIR names a file that is not there; copy the whole disc."
                    )
                )
            else:
                yield path

    # --- the port ------------------------------------------------------------------------------

    def find(self, wanted: Wanted) -> Iterator[FoundStudy]:
        for uid, files in self._listing().items():
            first = files[0]
            study = FoundStudy(
                uid,
                first.patient_id,
                day_of(first.day),
                first.accession,
                frozenset(f.modality for f in files),
                len(files),
            )
            if wanted.fits(study):
                yield study

    def images(self, study: FoundStudy) -> list[ImageRef]:
        return [file.ref for file in self._listing().get(study.uid, [])]

    def fetch(self, images: Sequence[ImageRef]) -> Iterator[Dataset | NotRead]:
        wanted = {ref.instance for ref in images}
        for uid in {ref.study for ref in images}:
            for file in self._listing().get(uid, []):
                if file.ref.instance in wanted:
                    yield read_file(file.path, file.path.relative_to(self._root).as_posix())

    def _listing(self) -> dict[str, list[_File]]:
        if self._studies is None:
            self.scan()
        assert self._studies is not None
        return self._studies


def read_directory(path: Path) -> Dataset:
    """Raises: Unmappable: no DICOMDIR that can be read."""
    import pydicom

    try:
        return pydicom.dcmread(path)
    except Exception as error:
        raise Unmappable(f"{path.name} cannot be read as a DICOMDIR; give its folder instead.") from error


def _listed(path: Path, ds: Dataset) -> _File:
    def text(keyword: str) -> str:
        return str(ds.get(keyword, "") or "").strip()

    ref = ImageRef(text("StudyInstanceUID"), text("SeriesInstanceUID"), text("SOPInstanceUID"), text("SOPClassUID"))
    return _File(path, ref, text("PatientID"), text("StudyDate"), text("AccessionNumber"), text("Modality"))
