"""A FHIR server as a source: its search, type by type; or its bulk export (`bulk`).

`open_server` is the way in. Read first: `server_scope` (how nothing is lost while the hospital works on),
`server_address` (where a server may send FLUTE), `server_wire` (limits, retries).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Final

import httpx
import msgspec
from msgspec import Struct

from flute.data.reader import Page, Reader
from flute.errors import Unmappable
from flute.fhirserver.address import Base, read_base
from flute.fhirserver.auth import Anonymous, Credentials, fixed_credentials
from flute.fhirserver.bulk import BulkReader
from flute.fhirserver.connection import Connection, Declined
from flute.fhirserver.gone import Known, gone_by_history, gone_by_sweep
from flute.fhirserver.lists import Lists
from flute.fhirserver.marks import SearchMark, decoded_mark, encoded, source_of
from flute.fhirserver.options import ServerOptions, Smart
from flute.fhirserver.queries import Scope, scopes_of
from flute.fhirserver.scope import ScopeReading
from flute.fhirserver.smart import SmartTokens
from flute.fhirserver.wire import Around, Limits, Wire, make_transport, trusted

Connect = Callable[[], Connection]
_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.\-]{0,19}\Z")


def open_server(
    url: str,
    options: ServerOptions,
    *,
    queries: Sequence[str] = (),
    known: Known | None = None,
    around: Around | None = None,
    transport: Callable[[], httpx.BaseTransport] | None = None,
) -> Reader:
    """A reader of the FHIR server at `url`. Nothing is called before its pages are asked for.

    `queries`: what the caller needs, resource types or searches; those of the options, if any, go before them.
    `known`: the keys that the hub holds of a scope, for `deletions: sweep` (without it everything is read anew).
    `around`, `transport`: for tests.
    Raises: MisuseError: an address, an option or a search that cannot be. KeyFileError: a secret that cannot be had.
    """
    base = read_base(url, allow_http=options.allow_http)
    scopes = scopes_of(options.queries or queries)
    opened = _Opened(base, options, around or Around(), transport)
    if options.read == "bulk":
        return BulkReader(base, scopes, options, opened.connection)
    return ServerReader(base, scopes, options, opened.connection, known)


class _Opened:
    """How a connection is made: anew for every import, so that limits count from its start.

    Raises, on making: MisuseError, KeyFileError: everything that can be wrong before a call is made.
    """

    def __init__(
        self,
        base: Base,
        options: ServerOptions,
        around: Around,
        transport: Callable[[], httpx.BaseTransport] | None,
    ) -> None:
        self._base, self._options, self._around = base, options, around
        self._transport = transport or partial(make_transport, trusted(options.ca_file))
        self.connection().wire.close()

    def connection(self) -> Connection:
        options = self._options
        limits = Limits(
            attempts=options.attempts,
            first_attempts=options.first_attempts,
            request_s=options.request_s,
            whole_s=options.whole_s,
            answer_bytes=options.max_response_mb * 2**20,
        )
        wire = Wire(self._base.host, self._transport(), limits, self._around)
        return Connection(self._base, wire, self._credentials(wire))

    def _credentials(self, wire: Wire) -> Credentials:
        auth = self._options.auth
        if auth is None:
            return Anonymous()
        if isinstance(auth, Smart):
            return SmartTokens(Connection(self._base, wire), auth, allow_http=self._options.allow_http)
        return fixed_credentials(auth)


# --- search ------------------------------------------------------------------------------------------


class _Interaction(Struct):
    code: str = ""


class _Resource(Struct):
    type: str = ""
    interaction: list[_Interaction] | None = None


class _Rest(Struct):
    resource: list[_Resource] | None = None


class Capabilities(Struct, rename="camel"):
    """The parts of a CapabilityStatement that decide how a server is read."""

    resource_type: str = ""
    fhir_version: str = ""
    rest: list[_Rest] | None = None

    def keeps_history(self, kind: str) -> bool:
        listed = [r for rest in self.rest or () for r in rest.resource or () if r.type == kind]
        return any(i.code == "history-type" for r in listed for i in r.interaction or ())


class ServerReader:
    """Implements `Reader` by search. Scopes are resource types. See `open_server`."""

    def __init__(
        self, base: Base, scopes: tuple[Scope, ...], options: ServerOptions, connect: Connect, known: Known | None
    ) -> None:
        self._base, self._scopes, self._options, self._connect, self._known = base, scopes, options, connect, known
        self._source = source_of("search", base.url, *(str(q) for scope in scopes for q in scope.queries))

    @property
    def name(self) -> str:
        return self._base.name

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        connection = self._connect()
        try:
            can = self._capabilities(connection)
            state = self._begin(mark)
            yield from self._no_longer_read(state)
            state = msgspec.structs.replace(state, since=self._since_of_ours(state))
            while state.scope < len(self._scopes):
                state = yield from self._scope(connection, can, state)
        finally:
            connection.wire.close()

    def _begin(self, mark: bytes | None) -> SearchMark:
        """Where to go on. After the last scope the next import begins with the first one again."""
        found = decoded_mark(mark)
        if not isinstance(found, SearchMark):
            return SearchMark(self._source)
        if found.source != self._source:
            # Other searches than the last time: what was read by those is compared with everything there is now.
            return SearchMark(self._source, since=dict.fromkeys(found.since, ""))
        return found if found.scope < len(self._scopes) else SearchMark(self._source, found.since)

    def _no_longer_read(self, state: SearchMark) -> Iterator[Page]:
        """Types that were read before and are asked for no more."""
        left = state
        for kind in sorted(set(state.since) - {scope.kind for scope in self._scopes}):
            left = msgspec.structs.replace(left, since={k: v for k, v in left.since.items() if k != kind})
            yield Page(kind, encoded(left), begins=True, ends="complete")

    def _since_of_ours(self, state: SearchMark) -> dict[str, str]:
        kinds = {scope.kind for scope in self._scopes}
        return {kind: since for kind, since in state.since.items() if kind in kinds}

    def _scope(
        self, connection: Connection, can: Capabilities | None, state: SearchMark
    ) -> Generator[Page, None, SearchMark]:
        scope, options = self._scopes[state.scope], self._options
        since = state.since.get(scope.kind, "")
        if options.deletions == "reread" or (options.deletions == "sweep" and self._known is None):
            since = ""
        lists = Lists(connection, options.page_size)
        now = connection.wire.around.now()
        reading = ScopeReading(lists, scope, state, since=since, overlap_s=options.overlap_s, now=now)
        yield from reading.pages()
        if since:
            yield from self._gone(lists, can, reading)
        until = reading.state.until(since)
        done = SearchMark(self._source, since=state.since | {scope.kind: until}, scope=state.scope + 1)
        if not since:
            yield reading.page(ends="complete", mark=done)
        elif reading.state.given:
            yield reading.page(ends="changes", mark=done)
        return done

    def _gone(self, lists: Lists, can: Capabilities | None, reading: ScopeReading) -> Iterator[Page]:
        how, scope = self._options.deletions, reading.scope
        if how == "sweep" and self._known is not None:
            found = gone_by_sweep(lists, scope, self._known, reading.met)
        elif how == "history" or (how == "auto" and (can is None or can.keeps_history(scope.kind))):
            found = gone_by_history(lists, scope, reading.since, reading.met)
        else:
            return
        try:
            for keys in found:
                yield reading.page(gone=keys)
        except Declined as declined:
            if not declined.is_about_the_request:
                raise
            if how == "history":
                raise Unmappable(
                    f"The server {self._base.host} gives no history of {scope.kind}, which tells of deletions. "
                    "Write 'deletions: sweep' or 'deletions: reread' in its options."
                ) from declined

    def _capabilities(self, connection: Connection) -> Capabilities | None:
        """None where the server does not show them.

        Raises: Unmappable: another version of FHIR than R4.
        """
        try:
            found = connection.read(
                f"{self._base.url}/metadata", Capabilities, check=connection.below("its CapabilityStatement")
            )
        except Declined as declined:
            if not declined.is_about_the_request:
                raise
            return None
        if found.resource_type != "CapabilityStatement":
            raise Unmappable(
                f"The server {self._base.host} shows no CapabilityStatement at this address. See that it is the base "
                "address of its FHIR interface; it often ends in /fhir."
            )
        if found.fhir_version and not found.fhir_version.startswith("4."):
            version = found.fhir_version if _VERSION.match(found.fhir_version) else "unknown"
            raise Unmappable(
                f"The server {self._base.host} speaks FHIR version {version}; FLUTE reads R4 (4.0.1). Many servers "
                "offer R4 at another address."
            )
        return found
