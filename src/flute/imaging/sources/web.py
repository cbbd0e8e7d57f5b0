"""Images from a PACS by DICOMweb: QIDO-RS finds and lists, WADO-RS fetches, one object per call.

Bounded: bytes of an answer, silence, attempts, studies. An answer that breaks off, 429 and 5xx are asked for again
after a pause; everything else ends the run. Redirects are not followed: the address that was agreed is the one used.
Source: DICOM PS3.18 sections 10.4 (retrieve), 10.6 (search).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from functools import partial
from typing import Any, Final, TypeVar

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from flute.defaults.records import (
    MAX_INSTANCE_BYTES,
    MAX_QIDO_BYTES,
    MAX_STUDIES,
    MAX_STUDY_IMAGES,
    PACS_ATTEMPTS,
    PACS_PAUSE_S,
    PACS_TIMEOUT_S,
    QIDO_PAGE,
)
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.imaging.sources.objects import read_bytes
from flute.imaging.sources.source import UID, FoundStudy, ImageRef, NotRead, Wanted, day_of

T = TypeVar("T")
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIELDS: Final = (
    "StudyInstanceUID",
    "PatientID",
    "StudyDate",
    "AccessionNumber",
    "ModalitiesInStudy",
    "NumberOfStudyRelatedInstances",
)
logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # its lines name patients' searches


class _TooLarge(Exception):
    pass


class _Bounded(HTTPAdapter):
    """Counts the bytes of every answer while they arrive, whatever its headers announced."""

    def send(self, request: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        response = super().send(request, **options)
        searched = "json" in request.headers.get("Accept", "")
        limit = MAX_QIDO_BYTES if searched else MAX_INSTANCE_BYTES + 2**16
        stream = response.raw.stream

        def counted(amount: int = 2**16, decode_content: bool | None = None) -> Iterator[bytes]:
            got = 0
            for piece in stream(amount, decode_content=decode_content):
                got += len(piece)
                if got > limit:
                    raise _TooLarge(f"The PACS sent more than {limit} bytes in one answer.")
                yield piece

        response.raw.stream = counted
        return response


class WebSource:
    """A DICOMweb service. `authorization`: value of that header, or None. `sleep`: how to wait, for tests."""

    def __init__(
        self,
        url: str,
        *,
        authorization: str | None = None,
        attempts: int = PACS_ATTEMPTS,
        timeout_s: float = PACS_TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
        verify: bool | str = True,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise MisuseError("A DICOMweb address begins with http:// or https://.")
        session = requests.Session()
        session.mount("http://", _Bounded())
        session.mount("https://", _Bounded())
        session.max_redirects = 0
        session.trust_env = False  # no proxy, and no password from a .netrc, that nobody named here
        session.verify = verify
        if authorization is not None:
            session.headers["Authorization"] = authorization
        self._url, self._session, self._timeout = url.rstrip("/"), session, timeout_s
        self._client = DICOMwebClient(self._url, session=session, timeout=timeout_s)
        self._client.set_http_retry_params(retry=False)
        self._attempts, self._sleep = attempts, sleep

    @property
    def name(self) -> str:
        return f"DICOMweb at {self._client.host}"

    def find(self, wanted: Wanted) -> Iterator[FoundStudy]:
        filters: dict[str, str] = {"StudyDate": wanted.dates, "ModalitiesInStudy": wanted.modality}
        asked = [("PatientID", v) for v in wanted.patient_ids] or [("StudyInstanceUID", v) for v in wanted.study_uids]
        seen: set[str] = set()
        for name, value in asked or [("", "")]:
            for study in self._pages({k: v for k, v in {**filters, name: value}.items() if v}):
                if study.uid not in seen and wanted.fits(study):
                    seen.add(study.uid)
                    yield study

    def _pages(self, filters: dict[str, str]) -> Iterator[FoundStudy]:
        """Pages until one brings nothing new: some servers cap the page, some ignore the offset."""
        seen: set[str] = set()
        while True:
            options: dict[str, Any] = {"limit": QIDO_PAGE, "offset": len(seen), "fields": _FIELDS}
            found = self._ask(partial(self._client.search_for_studies, search_filters=filters, **options))
            new = {s.uid: s for s in map(_study, found) if s is not None and s.uid not in seen}
            if not new:
                return
            seen |= set(new)
            if len(seen) > MAX_STUDIES:
                raise Unmappable(f"The PACS lists more than {MAX_STUDIES} studies; ask for fewer, by date.")
            yield from new.values()

    def images(self, study: FoundStudy) -> list[ImageRef]:
        found = self._ask(lambda: self._client.search_for_instances(study.uid, get_remaining=False))
        if study.images is not None and len(found) < study.images:
            found = self._remaining(study, found)
        refs = {}
        for item in found:
            ref = ImageRef(study.uid, _text(item, "0020000E"), _text(item, "00080018"), _text(item, "00080016"))
            if UID.match(ref.series) and UID.match(ref.instance):
                refs[ref.instance] = ref
        if len(refs) > MAX_STUDY_IMAGES:
            raise Unmappable(f"A study lists more than {MAX_STUDY_IMAGES} images; it is not read.")
        return sorted(refs.values(), key=lambda ref: (ref.series, ref.instance))

    def _remaining(self, study: FoundStudy, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        while len(found) <= MAX_STUDY_IMAGES:
            offset = len(found)
            more = self._ask(partial(self._client.search_for_instances, study.uid, offset=offset))
            known = {_text(item, "00080018") for item in found}
            new = [item for item in more if _text(item, "00080018") not in known]
            if not new:
                break
            found = [*found, *new]
        return found

    def fetch(self, images: Sequence[ImageRef]) -> Iterator[Dataset | NotRead]:
        for ref in images:
            yield self._one(ref)

    def _one(self, ref: ImageRef) -> Dataset | NotRead:
        """The image, asked for again while it comes broken; what is broken in the archive stays so, and is told."""
        got: Dataset | NotRead = NotRead(ref.instance, "not-sent", "The PACS sent nothing.")
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(PACS_PAUSE_S * 2 ** (attempt - 1))
            try:
                raw = self._ask(partial(self._retrieve, ref))
            except _Gone:
                return NotRead(ref.instance, "not-in-pacs", "The PACS lists the image and does not have it.")
            except _TooLarge as error:
                return NotRead(ref.instance, "too-large", str(error))
            got = read_bytes(raw, ref.instance)
            if isinstance(got, Dataset):
                break
        if isinstance(got, Dataset) and str(got.SOPInstanceUID) != ref.instance:
            return NotRead(ref.instance, "other-image", "The PACS sent another image than was asked for.")
        return got

    def _retrieve(self, ref: ImageRef) -> bytes:
        """WADO-RS of one instance, in the transfer syntax that the archive holds.

        Raises: ValueError: no DICOM in the answer, or the answer ends before its last boundary.
        """
        path = f"/studies/{ref.study}/series/{ref.series}/instances/{ref.instance}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        answer = self._session.get(self._url + path, headers={"Accept": accept}, timeout=self._timeout)
        answer.raise_for_status()
        return _first_part(answer.headers.get("Content-Type", ""), answer.content)

    def _ask(self, call: Callable[[], T]) -> T:
        """`call`, again after a pause where that may help. Raises: Unreachable, Unmappable, _Gone."""
        problem = ""
        for attempt in range(self._attempts):
            if attempt:
                self._sleep(PACS_PAUSE_S * 2 ** (attempt - 1))
            try:
                return call()
            except requests.HTTPError as error:
                status = 0 if error.response is None else error.response.status_code
                if status in (404, 410):
                    raise _Gone from error
                if status in (401, 403):
                    raise Unreachable(
                        f"The PACS does not let FLUTE in (status {status}): check the authorization."
                    ) from error
                if status not in _RETRIED:
                    raise Unmappable(f"The PACS answered with status {status}: check the address.") from error
                problem = f"status {status}"
            except requests.TooManyRedirects as error:
                raise Unreachable("The PACS redirects elsewhere; give the final address.") from error
            except (json.JSONDecodeError, requests.exceptions.JSONDecodeError):
                problem = "no JSON"
            except (requests.RequestException, OSError):
                problem = "the connection broke off or stayed silent"
            except ValueError:
                problem = "an answer that holds no DICOM object"
        raise Unreachable(
            f"The PACS failed {self._attempts} times in a row, last with: {problem}. Run the import again later."
        )


class _Gone(Unmappable):
    """404: not there."""


def _first_part(content_type: str, body: bytes) -> bytes:
    """The object in a multipart answer (RFC 2387), or the body where a server sends it bare."""
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise ValueError("no multipart answer")
    mark = b"--" + boundary.encode("latin-1")
    start = body.index(b"\r\n\r\n", body.index(mark)) + 4
    return body[start : body.index(b"\r\n" + mark, start)]


def _study(item: dict[str, Any]) -> FoundStudy | None:
    uid = _text(item, "0020000D")
    if not UID.match(uid):
        return None
    images = _text(item, "00201208")
    return FoundStudy(
        uid,
        _text(item, "00100020"),
        day_of(_text(item, "00080020")),
        _text(item, "00080050"),
        frozenset(str(v) for v in item.get("00080061", {}).get("Value", [])),
        int(images) if images.isdigit() else None,
    )


def _text(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value", [])
    return str(values[0]).strip() if values and values[0] is not None else ""
