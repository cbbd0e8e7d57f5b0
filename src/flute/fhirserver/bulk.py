"""A FHIR server's bulk export as a source: the server writes files in its own time, and the hub fetches them.

Steps: 1 kick-off; the export's status address goes into the mark, so that a killed import goes on with the same
export   2 its status is asked for until it is ready   3 failures that it reports are read   4 per type: what was
deleted, then the files, then the type ends   5 the server is told that the files are no longer needed.
An export that is gone (expired, restarted server) is begun anew with the same `_since`.

Source: FHIR Bulk Data Access 2.0 ("Bulk Data Export Operation Request Flow").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from flute.data.reader import Page
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.fhirserver.address import Base, read_origin
from flute.fhirserver.bulk_export import ExportLost, ExportReading
from flute.fhirserver.connection import FHIR_JSON, Connection, Declined
from flute.fhirserver.marks import BulkMark, decoded_mark, encoded, source_of
from flute.fhirserver.options import ServerOptions
from flute.fhirserver.queries import Scope
from flute.fhirserver.wire import Again, Arriving, Call

_ASYNC: Final = {"accept": FHIR_JSON, "prefer": "respond-async"}


class BulkReader:
    """Implements `Reader` by `$export`. Scopes are resource types. See `server.open_server`.

    Raises, on making: MisuseError: options that do not go together.
    """

    def __init__(
        self, base: Base, scopes: tuple[Scope, ...], options: ServerOptions, connect: Callable[[], Connection]
    ) -> None:
        if (options.level == "group") != bool(options.group):
            raise MisuseError("An export of a group names it: 'level: group' and 'group: ID' go together.")
        if options.deletions in ("history", "sweep"):
            raise MisuseError("A bulk export lists deletions itself; write 'deletions: auto', 'reread' or 'none'.")
        self._base, self._scopes, self._options, self._connect = base, scopes, options, connect
        self._hosts = tuple(read_origin(host, allow_http=options.allow_http) for host in options.file_hosts)
        filters = [str(q) for scope in scopes for q in scope.queries] if options.type_filters else []
        self._source = source_of("bulk", base.url, options.level, options.group, *self._kinds, *filters)

    @property
    def name(self) -> str:
        return self._base.name

    @property
    def _kinds(self) -> tuple[str, ...]:
        return tuple(scope.kind for scope in self._scopes)

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        connection = self._connect()
        try:
            found = decoded_mark(mark)
            state = found if isinstance(found, BulkMark) else BulkMark(self._source)
            if state.source != self._source:
                state = BulkMark(self._source, kinds=state.kinds)
            for kind in sorted(set(state.kinds) - set(self._kinds)):
                state = msgspec.structs.replace(state, kinds=tuple(k for k in state.kinds if k != kind))
                yield Page(kind, encoded(state), begins=True, ends="complete")
            yield from self._export(connection, state)
        finally:
            connection.wire.close()

    def _export(self, connection: Connection, state: BulkMark) -> Iterator[Page]:
        """One export; and another where the one that an earlier import began is gone."""
        resumed = bool(state.job)
        while True:
            since = self._since(state)
            if not state.job:
                state = msgspec.structs.replace(
                    state, job=self._kick_off(connection, since), time="", step=0, line=0, whole=True, begun=""
                )
                yield Page(self._kinds[0], encoded(state))
            reading = ExportReading(connection, self._kinds, self._hosts, state, self._options.page_size, since=since)
            try:
                yield from reading.pages(resumed=resumed)
            except ExportLost:
                if not resumed:
                    raise Unreachable(
                        f"The server {self._base.host} lost its export while it was read. Start the import again."
                    ) from None
                resumed, state = False, msgspec.structs.replace(reading.state, job="")
                continue
            _clean_up(connection, reading.job)
            return

    def _since(self, state: BulkMark) -> str:
        return "" if self._options.deletions == "reread" else state.since

    def _kick_off(self, connection: Connection, since: str) -> str:
        """The status address of a new export."""
        level, options = self._options.level, self._options
        path = {"system": "", "patient": "/Patient", "group": f"/Group/{quote(options.group)}"}[level]
        pairs = [("_type", ",".join(self._kinds)), ("_outputFormat", "application/fhir+ndjson")]
        pairs += [("_since", since)] if since else []
        if options.type_filters:
            pairs += [("_typeFilter", str(q)) for scope in self._scopes for q in scope.queries if q.filters]
        url = f"{self._base.url}{path}/$export?{urlencode(pairs)}"
        try:
            return connection.ask(
                Call(url, headers=_ASYNC),
                check=connection.below("an export"),
                read=lambda a: self._where(connection, a),
            )
        except Declined as declined:
            if not declined.is_about_the_request:
                raise
            raise Unmappable(
                f"The server {self._base.host} offers no bulk export of this kind (level: {level}; status "
                f"{declined.status}). Write another level, or 'read: search', in its options."
            ) from declined

    def _where(self, connection: Connection, answer: Arriving) -> str:
        place = answer.headers.get("content-location", "")
        if answer.status != 202 or not place:
            raise Unmappable(
                f"The server {self._base.host} does not answer a bulk export as the standard says (202 and "
                "Content-Location). Write 'read: search' in its options."
            )
        return connection.own("an export's status")(place).url


def _clean_up(connection: Connection, job: str) -> None:
    """Files of records should not lie about; a server that will not delete them lets them expire."""
    call = Call(job, method="DELETE", headers={"accept": FHIR_JSON})
    try:
        with connection.following(call, connection.own("an export's status")):
            pass
    except (Again, Declined, Unmappable, Unreachable):
        return
