"""One resource type of a FHIR server, read so that nothing is lost or met twice while the hospital goes on working.

By time, where the server can: resources come in the order of their last update, and each page asks for what was
updated at or after the last one met. What is changed meanwhile moves to the end and is met there; nothing shifts, no
state at the server is needed, and an interrupted import goes on from an instant. A page full of one instant (a bulk
load) is read as a list of its own.
By list, where it cannot sort: next links are followed, and the list is read again until it held still.

Source: FHIR R4 section 3.1.1.5.6 (`_sort`), 3.1.1.4.3 (`_lastUpdated`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from flute.data.reader import Ends, Page
from flute.defaults import MAX_CLOCK_SKEW_S
from flute.defaults.records import FHIR_WALKS
from flute.errors import Unmappable, Unreachable
from flute.fhirserver.connection import Declined
from flute.fhirserver.lists import Listed, Lists, Walk
from flute.fhirserver.marks import SearchMark, encoded
from flute.fhirserver.queries import Query, Scope, before, read_instant, write_instant

_UPDATED: Final = "_lastUpdated"
_SORTED: Final = ("_sort", _UPDATED)


class ScopeReading:
    """Reads one scope from where `state` says. `state` moves on before each page and is the mark of that page.

    `since`: only what was updated from then on, less `overlap_s`; empty: everything. `now`: our own time of day; a
    server's time that lies far beyond it is not believed.
    """

    def __init__(
        self, lists: Lists, scope: Scope, state: SearchMark, *, since: str, overlap_s: int, now: datetime
    ) -> None:
        self.lists, self.scope, self.state = lists, scope, state
        self.since = before(since, overlap_s) if since else ""
        self.met: set[str] = set()
        """Keys met by this very reading, where it reads changes only."""
        self._latest_sane = now + timedelta(seconds=MAX_CLOCK_SKEW_S)
        self._untouched = not (state.query or state.listed or state.cursor or state.given)
        self._given: set[int] = set()
        self._refused: set[int] = set()

    def pages(self) -> Iterator[Page]:
        """Raises: Unreachable, Unmappable, Declined."""
        while self.state.query < len(self.scope.queries):
            query = self.scope.queries[self.state.query]
            yield from self._by_list(query) if self.state.listed else self._by_time(query)

    def page(self, *, gone: tuple[str, ...] = (), ends: Ends = "", mark: SearchMark | None = None) -> Page:
        """A page without resources. `mark`: instead of this scope's own state."""
        begins = not self.state.given
        self._move(given=True)
        return Page(self.scope.kind, encoded(mark or self.state), gone=gone, begins=begins, ends=ends)

    # --- by time -----------------------------------------------------------------------------------------

    def _by_time(self, query: Query) -> Iterator[Page]:
        """Ends with `state.listed` where the server does not sort, or does not keep to an instant."""
        boundary: set[int] = set()
        proven = False
        while True:
            try:
                page = self.lists.start(query, self.lists.address(query, *self._bound(), _SORTED))
            except Declined as declined:
                self._list_instead(declined)
                return
            self._note(page)
            if not page.next:
                self._query_done()
                yield from self._give(page, boundary)
                return
            cursor = read_instant(self.state.cursor)
            latest = _latest_of(page, cursor or read_instant(self.since))
            if latest is None or (cursor is not None and latest < cursor):
                self._list_instead()
                return
            if latest != cursor:
                if not proven and not self._sorts(query, page, latest):
                    self._list_instead()
                    return
                proven = proven or page.met[0].updated != latest
                self._move(cursor=write_instant(latest), after=False)
                yield from self._give(page, boundary)
                boundary = {met.version for met in page.met if met.updated == latest}
                continue
            self._given = boundary
            if self.state.after or not (yield from self._one_instant(query, page)):
                self._list_instead()
                return
            self._move(after=True)
            boundary = self._given

    def _sorts(self, query: Query, page: Listed, latest: datetime) -> bool:
        """Whether the server sorts at all: a page in order may be chance, and going on by time would skip the rest.

        Where the page holds several instants, the last resource of all, asked for first, must not be earlier than
        `latest`; where it holds one, nothing may be earlier than that.
        """
        one_instant = page.met[0].updated == latest
        earlier, last = (_UPDATED, f"lt{write_instant(latest)}"), ("_sort", f"-{_UPDATED}")
        try:
            asked = self.lists.address(query, *self._bound(), earlier if one_instant else last, count=1)
            found = self.lists.start(query, asked).met
        except Declined as declined:
            if not declined.is_about_the_request:
                raise
            return False
        if one_instant:
            return not found
        return bool(found) and found[0].updated is not None and found[0].updated >= latest

    def _one_instant(self, query: Query, seen: Listed) -> Generator[Page, None, bool]:
        """Everything that was updated at the cursor: nothing can come into this list any more.

        Gives False where the server does not find the resources of `seen` so, or the list does not hold still.
        """
        expected, found = {met.key for met in seen.met}, set[str]()
        for walked in range(FHIR_WALKS):
            walk = Walk(self.lists, query, self.lists.address(query, (_UPDATED, f"eq{self.state.cursor}")))
            known = len(self._given)
            try:
                for page in walk.pages():
                    found |= {met.key for met in page.met}
                    yield from self._give(page, self._given)
            except Declined:
                return False
            if not expected & found:
                return False
            if walk.quiet or (walked and len(self._given) == known):
                return True
        return False

    def _list_instead(self, declined: Declined | None = None) -> None:
        if declined is not None and not declined.is_about_the_request:
            raise declined
        self._move(listed=True, loose=self.state.loose or not self.state.began)

    # --- by list -----------------------------------------------------------------------------------------

    def _by_list(self, query: Query) -> Iterator[Page]:
        """Raises: Unreachable: the list never holds still."""
        self._given = set()
        bounded = True
        for walked in range(FHIR_WALKS):
            resumed, known = bool(self.state.link), len(self._given)
            bound = self._bound() if bounded else ()
            walk = Walk(self.lists, query, self.state.link or self.lists.address(query, *bound), resumed=resumed)
            try:
                yield from self._walked(walk)
            except Declined as declined:
                if not declined.is_about_the_request:
                    raise
                if not (resumed or walk.begun):
                    if not bound:
                        raise self._unknown(query, declined) from declined
                    bounded = False
            self._move(link="")
            if walk.quiet or (walked and walk.ended and not resumed and len(self._given) == known):
                self._query_done()
                return
        raise Unreachable(
            f"The list of {query.kind} at {self.lists.connection.host} changes while it is read, and the server does "
            "not sort it by time. Import at a quieter hour, or by its bulk export (read: bulk)."
        )

    def _walked(self, walk: Walk) -> Iterator[Page]:
        for page in walk.pages():
            self._note(page)
            self._move(link=page.next)
            yield from self._give(page, self._given)

    def _unknown(self, query: Query, declined: Declined) -> Unmappable:
        names = ", ".join(sorted({name for name, _ in query.filters}))
        said = f", it says {declined.said}" if declined.said else ""
        return Unmappable(
            f"The server {self.lists.connection.host} does not offer a search for {query.kind}"
            f"{' by ' + names if names else ''} (status {declined.status}{said}). Correct it under queries, or "
            "leave it out."
        )

    # --- both --------------------------------------------------------------------------------------------

    def _bound(self) -> tuple[tuple[str, str], ...]:
        if self.state.cursor:
            return ((_UPDATED, ("gt" if self.state.after else "ge") + self.state.cursor),)
        return ((_UPDATED, f"ge{self.since}"),) if self.since else ()

    def _give(self, page: Listed, given: set[int]) -> Iterator[Page]:
        """What of a page was not given before; `given` is added to. No page where that is nothing."""
        fresh = [met for met in page.met if met.version not in given]
        refused = [why for number, why in page.refused if number not in self._refused]
        given.update(met.version for met in fresh)
        self._refused.update(number for number, _ in page.refused)
        if self.since:
            self.met.update(met.key for met in page.met)
        if not fresh and not refused:
            return
        whole = not (self.since or self.state.given) and len(self.scope.queries) == 1
        begins = not self.state.given
        self._move(given=True)
        yield Page(
            self.scope.kind,
            encoded(self.state),
            tuple(met.record for met in fresh),
            tuple(refused),
            begins=begins,
            total=page.total if whole else None,
        )

    def _note(self, page: Listed) -> None:
        """The server's time at the very first page, and the latest update of all."""
        if self._untouched and page.stamp is not None and page.stamp <= self._latest_sane:
            self._move(began=write_instant(page.stamp))
        self._untouched = False
        times = [met.updated for met in page.met if met.updated is not None and met.updated <= self._latest_sane]
        newest = read_instant(self.state.newest)
        if times and (newest is None or newest < max(times)):
            self._move(newest=write_instant(max(times)))

    def _query_done(self) -> None:
        self._move(query=self.state.query + 1, listed=False, cursor="", after=False, link="")

    def _move(self, **to: Any) -> None:
        self.state = msgspec.structs.replace(self.state, **to)


def _latest_of(page: Listed, bound: datetime | None) -> datetime | None:
    """The last update of a page that is sorted by it and keeps to its bound; None for any other. Servers that show
    whole seconds may know more."""
    times = [met.updated for met in page.met if met.updated is not None]
    if not times or len(times) < len(page.met) or times != sorted(times):
        return None
    if bound is not None and times[0] < (bound if times[0].microsecond else bound.replace(microsecond=0)):
        return None
    return times[-1]
