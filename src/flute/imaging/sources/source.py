"""The port of everything that images are read through: studies are found, their images listed, then fetched.

A source remembers nothing: what was fetched already is the caller's to know (`collect`). What it gives carries names
and numbers of patients and stays in this process until it is de-identified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, Protocol

from pydicom.dataset import Dataset

from flute.errors import MisuseError
from flute.imaging.headers import ENHANCED_MR, MR_IMAGE

SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"
WANTED_CLASSES: Final = frozenset({MR_IMAGE, *ENHANCED_MR, SEGMENTATION, STRUCTURE_SET})
"""What is fetched at all. Screenshots, scanned papers and reports carry names, and no volume is made of them."""
UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_WILD: Final = re.compile(r"[*?\\]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which studies. Empty and None: no matter. Dates inclusive. `modality`: one that the study must hold."""

    patient_ids: tuple[str, ...] = ()
    study_uids: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None
    modality: str = "MR"

    def __post_init__(self) -> None:
        if any(_WILD.search(wanted) or not wanted.strip() for wanted in self.patient_ids):
            raise MisuseError("A patient id that is searched for may not be empty nor hold * ? or a backslash.")
        if any(not UID.match(uid) for uid in self.study_uids):
            raise MisuseError("A study is named by its Study Instance UID: digits and dots.")

    @property
    def dates(self) -> str:
        """As DICOM writes a range, or empty."""
        if self.first is None and self.last is None:
            return ""
        return f"{self.first:%Y%m%d}-" * (self.first is not None) + (
            f"{'-' * (self.first is None)}{self.last:%Y%m%d}" if self.last is not None else ""
        )

    def fits(self, study: FoundStudy) -> bool:
        """Whether the answer is to the question: some servers ignore what they cannot match on and give
        everything."""
        return (
            (not self.patient_ids or study.patient_id in self.patient_ids)
            and (not self.study_uids or study.uid in self.study_uids)
            and (self.first is None or (study.day is not None and study.day >= self.first))
            and (self.last is None or (study.day is not None and study.day <= self.last))
            and (not self.modality or not study.modalities or self.modality in study.modalities)
        )


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """What a search says of a study. `images`: how many it holds, where the system says so."""

    uid: str
    patient_id: str
    day: date | None
    accession: str
    modalities: frozenset[str] = frozenset()
    images: int | None = None


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One object in a source. `sop_class` is empty where the listing does not say."""

    study: str
    series: str
    instance: str
    sop_class: str = ""

    @property
    def wanted(self) -> bool:
        return not self.sop_class or self.sop_class in WANTED_CLASSES


@dataclass(frozen=True, slots=True)
class NotRead:
    """An object that could not be taken. `origin`: a file's path below its folder, or an instance's UID."""

    origin: str
    reason: str
    text: str


class ImageSource(Protocol):
    """Raises everywhere: Unreachable: no answer, or it broke off; Unmappable: an answer that is none."""

    @property
    def name(self) -> str:
        """For reports: no secret."""
        ...

    def find(self, wanted: Wanted) -> Iterator[FoundStudy]:
        """Every study that fits, once."""
        ...

    def images(self, study: FoundStudy) -> list[ImageRef]:
        """Everything the study holds, in a stable order."""
        ...

    def fetch(self, images: Sequence[ImageRef]) -> Iterator[Dataset | NotRead]:
        """Objects of one study, one by one, in any order. One that cannot be read does not stop the others."""
        ...


def day_of(text: str) -> date | None:
    """A DICOM date, also in the old form with dots. None where it is none."""
    found = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", text.strip())
    try:
        return date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None
