"""One bulk export, from its status address to its last line.

Source: FHIR Bulk Data Access 2.0 ("Bulk Data Status Request", "Response - Complete Status", "Bulk Data Output File").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from flute.data.reader import Ends, Page, Record, Refused
from flute.defaults.records import (
    EXPORT_POLL_S,
    FHIR_GONE_PAGE,
    FHIR_RETRY_AFTER_MAX_S,
    MAX_EXPORT_FILES,
    MAX_FHIR_CHANGES,
    MAX_RESOURCE_BYTES,
)
from flute.errors import Unmappable, Unreachable
from flute.fhirserver.address import Origin
from flute.fhirserver.bulk_files import ExportFile, Line, lines_of
from flute.fhirserver.bundles import BROKEN, Bundle, Met, Outcome, read_past, read_resource, refusal
from flute.fhirserver.connection import FHIR_JSON, Connection, Declined
from flute.fhirserver.marks import BulkMark, encoded
from flute.fhirserver.wire import Arriving, Call, retry_after


class ExportLost(Exception):
    """The export, or a file of it, is no longer there."""


class Output(Struct):
    type: str
    url: str
    count: int | None = None


class Manifest(Struct, rename="camel"):
    """What an export made. `transaction_time`: everything up to then is in it."""

    transaction_time: str
    requires_access_token: bool = True
    output: list[Output] | None = None
    deleted: list[Output] | None = None
    error: list[Output] | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """One part of the work: file `number` of a type, or (`file` is None) the end of that type."""

    kind: str
    number: int
    file: ExportFile | None


class ExportReading:
    """Reads one export from where `state` says; `state` moves on before each page and is its mark.

    `hosts`: where files may lie besides the server itself. `since`: it was asked for changes from then on.
    """

    def __init__(
        self,
        connection: Connection,
        kinds: tuple[str, ...],
        hosts: tuple[Origin, ...],
        state: BulkMark,
        page_size: int,
        *,
        since: str,
    ) -> None:
        self.connection, self.kinds, self.state, self.since = connection, kinds, state, since
        self.job = state.job
        self._page_size = page_size
        self._check = connection.among(hosts, "an export file", "file_hosts in the server's options")

    def pages(self, *, resumed: bool) -> Iterator[Page]:
        """`resumed`: an earlier import began the export. Raises: ExportLost, Unreachable, Unmappable, Declined."""
        manifest = self._wait(resumed=resumed)
        if self.state.time not in ("", manifest.transaction_time):
            raise ExportLost
        try:
            if not self.state.time:
                self._move(time=manifest.transaction_time)
                yield from self._failures(manifest)
            gone = self._deleted(manifest) if self.since else {}
            for step in self._steps(manifest)[self.state.step :]:
                if step.number == 0 and not self.state.line:
                    yield from self._gone(step.kind, gone.get(step.kind, []))
                yield from self._end(step.kind) if step.file is None else self._file(step, step.file)
        except Declined as declined:
            if declined.status in (404, 410):
                raise ExportLost from declined
            raise

    # --- status ------------------------------------------------------------------------------------------

    def _wait(self, *, resumed: bool) -> Manifest:
        wire = self.connection.wire
        check = self.connection.own("an export's status")
        while True:
            try:
                found = self.connection.ask(
                    Call(self.job, headers={"accept": FHIR_JSON}), check=check, read=self._status
                )
            except Declined as declined:
                if declined.is_about_the_request:
                    raise ExportLost from declined
                raise
            except Unreachable as error:
                if resumed:
                    raise ExportLost from error
                raise
            if isinstance(found, Manifest):
                return self._checked(found)
            wire.wait(found)

    def _status(self, answer: Arriving) -> Manifest | float:
        """The manifest, or how long to wait before the next look."""
        wire = self.connection.wire
        if answer.status != 202:
            return self.connection.decoded(self.connection.whole(answer), Manifest)
        asked = retry_after(answer.headers, wire.around.now())
        return min(EXPORT_POLL_S if asked is None else asked, FHIR_RETRY_AFTER_MAX_S)

    def _checked(self, manifest: Manifest) -> Manifest:
        files = sum(len(listed or ()) for listed in (manifest.output, manifest.deleted, manifest.error))
        if files > MAX_EXPORT_FILES:
            raise Unmappable(f"The export of {self.connection.host} has more than {MAX_EXPORT_FILES} files.")
        return manifest

    def _steps(self, manifest: Manifest) -> list[_Step]:
        steps: list[_Step] = []
        for kind in self.kinds:
            files = [self._named(out, manifest) for out in manifest.output or () if out.type == kind]
            steps += [_Step(kind, number, file) for number, file in enumerate([*files, None])]
        return steps

    def _named(self, output: Output, manifest: Manifest) -> ExportFile:
        return ExportFile(output.url, self._check, manifest.requires_access_token, output.count)

    # --- pages -------------------------------------------------------------------------------------------

    def _page(self, kind: str, **more: Any) -> Page:
        begins = self.state.begun != kind
        self._move(begun=kind)
        return Page(kind, encoded(self.state), begins=begins, **more)

    def _file(self, step: _Step, file: ExportFile) -> Iterator[Page]:
        lines = lines_of(self.connection, file, done=self.state.line)
        here = self.state.step
        while batch := list(islice(lines, self._page_size)):
            full = len(batch) == self._page_size
            self._move(**({"line": batch[-1].number} if full else {"step": here + 1, "line": 0}))
            found = [self._read(line, step) for line in batch]
            yield self._page(
                step.kind,
                records=tuple(f for f in found if isinstance(f, Record)),
                refused=tuple(f for f in found if isinstance(f, Refused)),
            )
        self._move(step=here + 1, line=0)

    def _read(self, line: Line, step: _Step) -> Record | Refused:
        where = f"{self.connection.host}, {step.kind} file {step.number + 1}, line {line.number}"
        if line.is_too_long:
            mend = f"Keep a resource under {MAX_RESOURCE_BYTES} bytes; put images where images belong."
            return refusal(where, "", "too-long", "", f"{line.length} bytes", mend)
        found = read_resource(line.text, step.kind, where)
        return found.record if isinstance(found, Met) else found

    def _gone(self, kind: str, keys: list[str]) -> Iterator[Page]:
        for start in range(0, len(keys), FHIR_GONE_PAGE):
            yield self._page(kind, gone=tuple(keys[start : start + FHIR_GONE_PAGE]))

    def _end(self, kind: str) -> Iterator[Page]:
        """After the last type the mark is that of a finished import."""
        ends: Ends = "changes" if self.since or not self.state.whole else "complete"
        begins = self.state.begun != kind
        self._move(step=self.state.step + 1, line=0, begun="")
        if kind == self.kinds[-1]:
            since = self.state.time if self.state.whole else self.state.since
            self.state = BulkMark(self.state.source, since=since, kinds=self.kinds)
        yield Page(kind, encoded(self.state), begins=begins, ends=ends)

    # --- files about the export --------------------------------------------------------------------------

    def _failures(self, manifest: Manifest) -> Iterator[Page]:
        """What could not be exported. Then nothing is taken for gone, and the next import asks for all again."""
        host, refused = self.connection.host, []
        for output in manifest.error or ():
            for line in lines_of(self.connection, self._named(output, manifest)):
                for issue in _issues(line):
                    if issue.severity in BROKEN:
                        self._move(whole=False)
                    if issue.severity in (*BROKEN, "warning"):
                        mend = "The server could not export everything; its operator finds the reason in its log."
                        refused.append(
                            refusal(host, "", "wrong-type", "OperationOutcome.issue", issue.code[:60], mend)
                        )
        if refused:
            yield self._page(self.kinds[0], refused=tuple(refused))

    def _deleted(self, manifest: Manifest) -> dict[str, list[str]]:
        """Keys by type. Each line is a bundle whose entries are deletions."""
        gone: dict[str, list[str]] = {kind: [] for kind in self.kinds}
        count = 0
        for output in manifest.deleted or ():
            for line in lines_of(self.connection, self._named(output, manifest)):
                for kind, key in _deletions(line, self.kinds):
                    gone[kind].append(key)
                    count += 1
            if count > MAX_FHIR_CHANGES:
                raise Unmappable(
                    f"The export of {self.connection.host} lists more than {MAX_FHIR_CHANGES} deletions. Write "
                    "'deletions: reread' in the server's options."
                )
        return gone

    def _move(self, **to: Any) -> None:
        self.state = msgspec.structs.replace(self.state, **to)


def _issues(line: Line) -> list[Any]:
    try:
        return msgspec.json.decode(line.text, type=Outcome).issue or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def _deletions(line: Line, kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    try:
        entries = msgspec.json.decode(line.text, type=Bundle).entry or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for raw in entries:
        for kind in kinds:
            past = read_past(raw, kind)
            if past is not None and past.deleted:
                yield kind, past.key
