"""A look at images without a hub: what would be recognised, and how good it is. Nothing is written or de-identified.

The result is for the data manager's own eyes and stays on this machine. It names studies by their UIDs, never
patients.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from flute.errors import MisuseError, Unreachable
from flute.imaging.headers import Header, headers_of
from flute.imaging.quality import Protocol, StudyQuality, judge
from flute.imaging.sources.dimse import DimseSource
from flute.imaging.sources.folder import FolderSource
from flute.imaging.sources.source import FoundStudy, ImageSource, NotRead, Wanted
from flute.imaging.sources.web import WebSource

HARMLESS: Final = frozenset({"not-dicom", "directory", "instance-twice"})
"""Refusals after which a folder is still in order."""


class RefusedObject(Struct, frozen=True):
    """`origin`: a file below its folder, or an instance's UID."""

    origin: str
    reason: str
    text: str


class StudyCheck(Struct, frozen=True):
    """`passed_over`: objects of kinds that are never taken (screenshots, reports, documents)."""

    study: str
    images: int
    passed_over: int
    quality: StudyQuality
    refused: tuple[RefusedObject, ...]


class ImagingCheck(Struct, frozen=True):
    """`good`: every study is complete and nothing was refused that should have been readable. `more`: studies that
    were found and not looked at."""

    source: str
    good: bool
    studies: tuple[StudyCheck, ...]
    more: bool
    refused: tuple[RefusedObject, ...]


def source_at(
    place: str, *, authorization: str | None = None, calling: str = "FLUTE", receive_port: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> ImageSource:  # fmt: skip
    """A source by what was typed: `http(s)://…` is DICOMweb, `dimse://AETITLE@host:port` is DIMSE, else a folder.

    DIMSE: by C-MOVE where `receive_port` is given, by C-GET where it is 0.
    Raises: MisuseError: an address that is none. Unreachable: no such folder.
    """
    if place.startswith(("http://", "https://")):
        return WebSource(place, authorization=authorization)
    if place.startswith("dimse://"):
        parts = urlsplit(place)
        try:
            port = parts.port
        except ValueError:
            port = None
        if not parts.username or not parts.hostname or not port:
            raise MisuseError("Write dimse://AETITLE@host:port, for example dimse://PACS@10.0.0.5:104.")
        title = place.removeprefix("dimse://").partition("@")[0]
        return DimseSource(
            parts.hostname, port, called=title, calling=calling, how="move" if receive_port else "get",
            receive_host="", receive_port=receive_port,
        )  # fmt: skip
    if not Path(place).exists():
        raise Unreachable(f"There is no folder {Path(place).name}.")
    return FolderSource(Path(place), progress)


def check(
    source: ImageSource, protocol: Protocol, wanted: Wanted, *, limit: int,
    progress: Callable[[int, int], None] = lambda study, image: None,
) -> ImagingCheck:  # fmt: skip
    """Look at up to `limit` studies. `progress`: number of the study, images of it read so far."""
    found = list(islice(source.find(wanted), limit + 1))
    studies = []
    for number, study in enumerate(found[:limit], start=1):

        def seen(image: int, number: int = number) -> None:
            progress(number, image)

        studies.append(_study(source, study, protocol, seen))
    refused = source.refused if isinstance(source, FolderSource) else []
    good = all(s.quality.complete and not s.refused for s in studies) and not any(
        r.reason not in HARMLESS for r in refused
    )
    return ImagingCheck(
        source.name, good and bool(studies), tuple(studies), len(found) > limit, tuple(_shown(r) for r in refused)
    )


def _study(source: ImageSource, study: FoundStudy, protocol: Protocol, seen: Callable[[int], None]) -> StudyCheck:
    images = source.images(study)
    wanted = [image for image in images if image.wanted]
    headers: list[Header] = []
    refused = []
    for number, got in enumerate(source.fetch(wanted), start=1):
        seen(number)
        if isinstance(got, NotRead):
            refused.append(_shown(got))
        elif str(got.get("PatientID", "")).strip() != study.patient_id:
            refused.append(RefusedObject(str(got.SOPInstanceUID), "patient-differs",
                                         "The image names another patient than its study."))  # fmt: skip
        else:
            headers += headers_of(got)
    return StudyCheck(study.uid, len(wanted), len(images) - len(wanted), judge(headers, protocol), tuple(refused))


def _shown(one: NotRead) -> RefusedObject:
    return RefusedObject(one.origin, one.reason, one.text)
