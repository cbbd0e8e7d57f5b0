"""Features of the images on a hub's shelf as one table: a row per patient, by pseudonym, for the hub's own import.

Of a patient's studies the last on the shelf counts. A mask (DICOM SEG, RTSTRUCT) is laid over every T2W and ADC
volume of its study that it fits; each label gives columns. What cannot be computed is counted, and left empty.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset

from flute.errors import Unmappable
from flute.imaging.headers import headers_of
from flute.imaging.measures.features import FeatureSettings, digest, features_of
from flute.imaging.sources.source import SEGMENTATION, STRUCTURE_SET
from flute.imaging.volumes.masks import segments_of, structures_of
from flute.imaging.volumes.series import recognise
from flute.imaging.volumes.volume import volume_of

PATIENT: Final = "patient"
_VOLUMES: Final = ("T2W", "ADC")
_MASKS: Final = (SEGMENTATION, STRUCTURE_SET)
_WORD: Final = re.compile(r"[^a-z0-9]+")


@dataclass(slots=True)
class Extracted:
    """`settings`: digest; two hubs' columns may be put together where it is equal. `left_out`: reason to volumes."""

    settings: str
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def columns(self) -> list[str]:
        return sorted({name for row in self.rows.values() for name in row})


def extract(shelf: Path, settings: FeatureSettings, said: Callable[[int], None] = lambda done: None) -> Extracted:
    """`shelf`: the hub's folder of images. `said`: told of every patient done.

    Raises: MisuseError: the extra `radiomics` is not installed.
    """
    found = Extracted(digest(settings))
    folders = sorted(path for path in shelf.iterdir() if path.is_dir())
    for done, patient in enumerate(folders, start=1):
        studies = sorted((path for path in patient.iterdir() if path.is_dir()), key=lambda p: p.stat().st_mtime)
        if studies:
            row = dict(_features(studies[-1], settings, found.left_out))
            if row:
                found.rows[patient.name] = row
            else:
                found.left_out["no-mask-that-fits"] += 1
        said(done)
    return found


def write_csv(found: Extracted, out: Path) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([PATIENT, *found.columns])
        for patient, row in sorted(found.rows.items()):
            writer.writerow([patient, *(repr(row[name]) if name in row else "" for name in found.columns)])


def _features(study: Path, settings: FeatureSettings, left_out: Counter[str]) -> Iterator[tuple[str, float]]:
    objects = [pydicom.dcmread(path) for path in sorted(study.rglob("*.dcm"))]
    masks = [ds for ds in objects if ds.SOPClassUID in _MASKS]
    for kind, volume, frame in _volumes([ds for ds in objects if ds.SOPClassUID not in _MASKS], left_out):
        for ds in masks:
            for label, mask in _laid_over(ds, volume, frame, left_out).items():
                prefix = f"{kind.lower()}_{_WORD.sub('_', label.lower()).strip('_')}"
                try:
                    yield from features_of(volume, mask, settings, prefix=prefix).items()
                except Unmappable:
                    left_out["mask-too-small"] += 1


def _volumes(images: list[Dataset], left_out: Counter[str]) -> Iterator[tuple[str, Any, str]]:
    """(kind, volume, frame of reference) of every series that features are computed of."""
    series = recognise(header for ds in images for header in headers_of(ds))
    for one in series:
        if one.kind in _VOLUMES and not one.calculated:
            own = [ds for ds in images if str(ds.SeriesInstanceUID) == one.series]
            try:
                yield one.kind, volume_of(own), str(own[0].get("FrameOfReferenceUID", ""))
            except Unmappable:
                left_out["no-volume"] += 1


def _laid_over(ds: Dataset, volume: Any, frame: str, left_out: Counter[str]) -> dict[str, Any]:
    read = segments_of if ds.SOPClassUID == SEGMENTATION else structures_of
    try:
        return read(ds, volume, frame_of_reference=frame)
    except Unmappable:
        left_out["mask-does-not-fit"] += 1
        return {}
