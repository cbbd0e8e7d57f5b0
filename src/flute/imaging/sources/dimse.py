"""Images from a PACS by DIMSE: C-FIND finds and lists, C-MOVE sends them to a storage service of ours, or C-GET.

C-MOVE is what every PACS can do: the PACS is told "send this to AE title X" and opens a connection of its own to the
address that its administrator entered for X. So `calling` must be known there, with this machine and `receive_port`.
C-GET needs no second connection, and not every PACS offers it.
Source: DICOM PS3.4 Annex C (query/retrieve), PS3.7; PS3.8 (AE titles).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.status import code_to_category

from flute.defaults import LOOPBACK
from flute.defaults.records import DIMSE_QUEUE, MAX_STUDIES, MAX_STUDY_IMAGES, PACS_TIMEOUT_S
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.imaging.sources.objects import checked
from flute.imaging.sources.source import UID as VALID_UID
from flute.imaging.sources.source import WANTED_CLASSES, FoundStudy, ImageRef, NotRead, Wanted, day_of

_ECHO: Final = UID("1.2.840.10008.1.1")
_FIND: Final = UID("1.2.840.10008.5.1.4.1.2.2.1")
_MOVE: Final = UID("1.2.840.10008.5.1.4.1.2.2.2")
_GET: Final = UID("1.2.840.10008.5.1.4.1.2.2.3")
"""Verification; Study Root Query/Retrieve: FIND, MOVE, GET."""
_UNCOMPRESSED: Final = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.5",
)
"""Transfer syntaxes we take: plain and lossless. Deflated is not among them: it can inflate without bound."""
_NOT_ALLOWED: Final = 0x0124
_NO_ROOM: Final = 0xA700
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its lines hold identifiers


class DimseSource:
    """A PACS behind host, port and AE titles: `called` is its, `calling` ours. One retrieval at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        called: str,
        calling: str = "FLUTE",
        how: Literal["move", "get"] = "move",
        receive_host: str = LOOPBACK,
        receive_port: int = 0,
        timeout_s: float = PACS_TIMEOUT_S,
    ) -> None:
        if any(not 0 < len(title.strip()) <= 16 or "\\" in title for title in (called, calling)):
            raise MisuseError("An AE title has 1 to 16 characters and no backslash.")
        self._host, self._port, self._called, self._calling = host, port, called, calling
        self._how, self._listen, self._timeout = how, (receive_host, receive_port), timeout_s

    @property
    def name(self) -> str:
        return f"{self._called} at {self._host}:{self._port}"

    def echo(self) -> None:
        """C-ECHO: whether the PACS is there and knows our AE title. Raises: Unreachable."""
        with _Association(self, _ECHO) as association:
            status = association.send_c_echo()
            if status.get("Status") != 0x0000:
                raise Unreachable(f"{self._called} does not answer an echo; check host, port and AE titles.")

    def find(self, wanted: Wanted) -> Iterator[FoundStudy]:
        asked = [("PatientID", v) for v in wanted.patient_ids] or [("StudyInstanceUID", v) for v in wanted.study_uids]
        seen: set[str] = set()
        for name, value in asked or [("PatientID", "")]:
            query = _query(
                "STUDY",
                StudyInstanceUID="",
                PatientID="",
                StudyDate=wanted.dates,
                AccessionNumber="",
                ModalitiesInStudy=wanted.modality,
                NumberOfStudyRelatedInstances="",
            )
            setattr(query, name, value)
            for answer in self._find(query, MAX_STUDIES):
                study = _study(answer)
                if study is not None and study.uid not in seen and wanted.fits(study):
                    seen.add(study.uid)
                    yield study

    def images(self, study: FoundStudy) -> list[ImageRef]:
        refs = []
        series_query = _query("SERIES", StudyInstanceUID=study.uid, SeriesInstanceUID="", Modality="")
        for series in self._find(series_query, MAX_STUDY_IMAGES):
            uid = str(series.get("SeriesInstanceUID", ""))
            query = _query(
                "IMAGE", StudyInstanceUID=study.uid, SeriesInstanceUID=uid, SOPInstanceUID="", SOPClassUID=""
            )
            for image in self._find(query, MAX_STUDY_IMAGES):
                refs.append(
                    ImageRef(study.uid, uid, str(image.get("SOPInstanceUID", "")), str(image.get("SOPClassUID", "")))
                )
        if any(not VALID_UID.match(ref.series) or not VALID_UID.match(ref.instance) for ref in refs):
            raise Unmappable("The PACS lists an image without a valid UID.")
        return sorted(refs, key=lambda ref: (ref.series, ref.instance))

    def _find(self, query: Dataset, limit: int) -> list[Dataset]:
        found: list[Dataset] = []
        with _Association(self, _FIND) as association:
            for status, answer in association.send_c_find(query, _FIND):
                category = code_to_category(status.Status) if status and "Status" in status else "no answer"
                if category == "Pending" and answer is not None:
                    found.append(answer)
                    if len(found) > limit:
                        association.abort()
                        raise Unmappable(f"The PACS lists more than {limit}; ask for fewer, by date.")
                elif category != "Success":
                    raise Unreachable(f"{self._called} did not answer a search ({category}).")
        return found

    def fetch(self, images: Sequence[ImageRef]) -> Iterator[Dataset | NotRead]:
        """Whole series in one request where all of it is wanted, else image by image. What did not come is reported.

        Raises: Unreachable: the PACS refuses, or breaks off. What came before was given already.
        """
        missing = {ref.instance: ref for ref in images}
        inbox = _Inbox(missing, self._called)
        with inbox.listening(self) as port:
            worker = threading.Thread(target=inbox.run, args=(self, list(images), port), daemon=True)
            worker.start()
            try:
                for ds in inbox.arrivals():
                    uid = str(ds.SOPInstanceUID)
                    if missing.pop(uid, None) is not None:
                        yield checked(ds, uid)
            finally:
                inbox.close()
                worker.join(self._timeout)
        if inbox.problem:
            raise Unreachable(inbox.problem)
        for uid in missing:
            yield NotRead(uid, "not-sent", "The PACS lists the image and did not send it.")


class _Association:
    """An association for one service, released at the end. Raises on entry: Unreachable."""

    def __init__(self, pacs: DimseSource, *contexts: Any, roles: Any = None, handlers: Any = None) -> None:
        self._pacs, self._contexts, self._roles, self._handlers = pacs, contexts, roles, handlers

    def __enter__(self) -> Any:
        pacs = self._pacs
        ae = AE(ae_title=pacs._calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = pacs._timeout
        for context in self._contexts:
            if context in WANTED_CLASSES:
                ae.add_requested_context(context, list(_UNCOMPRESSED))
            else:
                ae.add_requested_context(context)
        self._association = ae.associate(
            pacs._host,
            pacs._port,
            ae_title=pacs._called,
            ext_neg=self._roles or [],
            evt_handlers=self._handlers or [],
        )
        if not self._association.is_established:
            why = "refuses our AE title" if self._association.is_rejected else "does not answer"
            raise Unreachable(
                f"{pacs._called} at {pacs._host}:{pacs._port} {why}: check host, port and both AE titles."
            )
        if self._contexts[0] not in {c.abstract_syntax for c in self._association.accepted_contexts}:
            self._association.release()
            raise Unreachable(f"{pacs._called} does not offer the service {self._contexts[0].name} to our AE title.")
        return self._association

    def __exit__(self, *_: object) -> None:
        if self._association.is_established:
            self._association.release()


class _Inbox:
    """Where images arrive: only those that were asked for, at most DIMSE_QUEUE at a time in memory."""

    def __init__(self, wanted: dict[str, ImageRef], sender: str) -> None:
        self._wanted, self._sender = set(wanted), sender
        self._queue: queue.Queue[Dataset | None] = queue.Queue(maxsize=DIMSE_QUEUE)
        self._closed = threading.Event()
        self.problem = ""

    def receive(self, event: Any) -> int:
        """Handler of C-STORE: what nobody asked for is refused and not kept."""
        ds = event.dataset
        ds.file_meta = event.file_meta
        if str(ds.get("SOPInstanceUID", "")) not in self._wanted:
            return _NOT_ALLOWED
        return 0x0000 if self._put(ds) else _NO_ROOM

    def _put(self, item: Dataset | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def arrivals(self) -> Iterator[Dataset]:
        while (ds := self._queue.get()) is not None:
            yield ds

    def close(self) -> None:
        self._closed.set()

    def listening(self, pacs: DimseSource) -> _Receiver:
        return _Receiver(self, pacs)

    def run(self, pacs: DimseSource, images: list[ImageRef], port: int) -> None:
        """Ask for everything, then close the queue. Runs beside the reader."""
        try:
            for query in _retrievals(images):
                if self._closed.is_set():
                    break
                self._retrieve(pacs, query)
        except Unreachable as error:
            self.problem = error.text
        finally:
            self._put(None)

    def _retrieve(self, pacs: DimseSource, query: Dataset) -> None:
        get = pacs._how == "get"
        contexts = (_GET, *sorted(WANTED_CLASSES)) if get else (_MOVE,)
        roles = [build_role(sop_class, scp_role=True) for sop_class in sorted(WANTED_CLASSES)] if get else []
        handlers = [(evt.EVT_C_STORE, self.receive)] if get else []
        with _Association(pacs, *contexts, roles=roles, handlers=handlers) as association:
            answers = (
                association.send_c_get(query, _GET) if get else association.send_c_move(query, pacs._calling, _MOVE)
            )
            last = "no answer"
            for status, _ in answers:
                last = code_to_category(status.Status) if status and "Status" in status else "no answer"
        if last not in ("Success", "Warning"):
            raise Unreachable(
                f"{pacs._called} did not send what was asked for ({last}): check that it knows the AE title "
                f"{pacs._calling} with this machine and its port."
            )


class _Receiver:
    """Our storage service, up while a retrieval runs; it takes associations of the PACS alone."""

    def __init__(self, inbox: _Inbox, pacs: DimseSource) -> None:
        self._inbox, self._pacs = inbox, pacs
        self._server: Any = None

    def __enter__(self) -> int:
        if self._pacs._how == "get":
            return 0
        ae = AE(ae_title=self._pacs._calling)
        ae.require_calling_aet = [self._pacs._called]
        ae.require_called_aet = True
        ae.maximum_associations = 2
        ae.dimse_timeout = ae.network_timeout = self._pacs._timeout
        for sop_class in sorted(WANTED_CLASSES):
            ae.add_supported_context(sop_class, list(_UNCOMPRESSED))
        try:
            self._server = ae.start_server(
                self._pacs._listen, block=False, evt_handlers=[(evt.EVT_C_STORE, self._inbox.receive)]
            )
        except OSError as error:
            raise Unreachable(f"The port {self._pacs._listen[1]} at which images should arrive is taken.") from error
        return int(self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()


def _query(level: str, **elements: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in elements.items():
        setattr(query, keyword, value)
    return query


def _retrievals(images: list[ImageRef]) -> Iterator[Dataset]:
    """One request per series, which names its images."""
    series: dict[tuple[str, str], list[str]] = defaultdict(list)
    for ref in images:
        series[ref.study, ref.series].append(ref.instance)
    for (study, uid), instances in series.items():
        query = _query("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=uid)
        query.SOPInstanceUID = instances
        yield query


def _study(answer: Dataset) -> FoundStudy | None:
    uid = str(answer.get("StudyInstanceUID", ""))
    if not VALID_UID.match(uid):
        return None
    modalities = answer.get("ModalitiesInStudy", "") or ()
    images = str(answer.get("NumberOfStudyRelatedInstances", "") or "")
    return FoundStudy(
        uid,
        str(answer.get("PatientID", "") or "").strip(),
        day_of(str(answer.get("StudyDate", "") or "")),
        str(answer.get("AccessionNumber", "") or "").strip(),
        frozenset([modalities] if isinstance(modalities, str) else (str(v) for v in modalities)),
        int(images) if images.isdigit() else None,
    )
