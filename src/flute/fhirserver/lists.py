"""Lists that a FHIR server gives in pages, followed link by link, with an eye on whether they hold still.

A list that changes while it is read shifts: a resource that moves from a page that was read to one that was not is
met twice, and another is never met. `Walk.quiet` says that this cannot have happened.
Source: FHIR R4 section 3.1.1.4.6 (paging), 3.1.1.4.2 (handling of parameters, the `self` link).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flute.data.reader import Refused
from flute.defaults.records import FHIR_STALE_PAGES
from flute.errors import Unmappable
from flute.fhirserver.bundles import Bundle, Met, Past, check_bundle, read_match, read_past
from flute.fhirserver.connection import Connection
from flute.fhirserver.queries import Query, read_instant

_STRICT: Final = {"prefer": "handling=strict"}
"""Asks a server to refuse what it does not know rather than to leave it out."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One page. `refused`: with a number that tells entries apart. `stamp`: the server's time when it searched."""

    met: tuple[Met, ...]
    refused: tuple[tuple[int, Refused], ...]
    next: str
    total: int | None
    stamp: datetime | None


class Lists:
    """Asks one server. `page_size`: resources wanted at once."""

    def __init__(self, connection: Connection, page_size: int) -> None:
        self.connection, self.page_size = connection, page_size
        self._check = connection.below("a next link")

    def start(self, query: Query, url: str) -> Listed:
        """The first page of a search, at its address.

        Raises: Declined: the server knows no such search. Unmappable: it ignores one of the filters.
        """
        bundle = self._bundle(url)
        own = bundle.where("self")
        ignored = query.ignored_by(own) if own else []
        if ignored:
            raise Unmappable(
                f"The server {self.connection.host} ignores {', '.join(ignored)} in the search for {query.kind}. "
                "Leave it out of queries: what is not needed is left out later."
            )
        return self._listed(bundle, query.kind)

    def address(self, query: Query, *more: tuple[str, str], count: int = 0) -> str:
        """Of a search's first page. `count`: resources wanted, by default `page_size`."""
        return query.url(self.connection.base.url, *more, ("_count", str(count or self.page_size)))

    def follow(self, url: str, kind: str) -> Listed:
        return self._listed(self._bundle(url), kind)

    def _bundle(self, url: str) -> Bundle:
        return self.connection.read(url, Bundle, check=self._check, headers=_STRICT)

    def _listed(self, bundle: Bundle, kind: str) -> Listed:
        host = self.connection.host
        met: list[Met] = []
        refused: list[tuple[int, Refused]] = []
        for raw in check_bundle(bundle, "searchset", host):
            found = read_match(raw, kind, host)
            if isinstance(found, Met):
                met.append(found)
            elif found is not None:
                refused.append((hash(bytes(raw)), found))
        stamp = read_instant(bundle.meta.last_updated) if bundle.meta else None
        return Listed(tuple(met), tuple(refused), bundle.where("next"), bundle.total, stamp)

    def history(self, kind: str, since: str) -> Iterator[list[Past]]:
        """What happened to a type since an instant, newest first; it ends where only older things follow.

        Raises: Declined: the server keeps no history of types, or does not give it.
        """
        start, links, seen = read_instant(since), Links(self.connection.host), set[int]()
        query = Query(kind, (("_since", since), ("_count", str(self.page_size))))
        url = query.url(self.connection.base.url).replace(f"/{kind}?", f"/{kind}/_history?", 1)
        while url:
            links.take(url)
            bundle = self._bundle(url)
            entries = check_bundle(bundle, "history", self.connection.host)
            found = [past for raw in entries if (past := read_past(raw, kind)) is not None]
            known = len(seen)
            seen.update(hash((past.key, past.when)) for past in found)
            links.note(fresh=len(seen) > known)
            yield found
            # Some servers forget `_since` in their next links and go on to the beginning of time.
            old = start is not None and all(past.when is not None and past.when < start for past in found)
            url = "" if found and old else bundle.where("next")


class Links:
    """Next links that were taken. Raises, on taking or noting: Unmappable: they lead in a circle or nowhere."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._taken: set[int] = set()
        self._stale = 0

    def take(self, url: str) -> None:
        if hash(url) in self._taken:
            raise Unmappable(f"The next links of the server {self._host} lead in a circle. Its operator should know.")
        self._taken.add(hash(url))

    def note(self, *, fresh: bool) -> None:
        """`fresh`: the page brought something that none before it had."""
        self._stale = 0 if fresh else self._stale + 1
        if self._stale >= FHIR_STALE_PAGES:
            raise Unmappable(
                f"The next links of the server {self._host} give the same again and again. Its operator should know."
            )


class Walk:
    """One list from a page to its end. `url`: the first page, or a next link of a walk that was broken off."""

    def __init__(self, lists: Lists, query: Query, url: str, *, resumed: bool = False) -> None:
        self._lists, self._query, self._url, self._resumed = lists, query, url, resumed
        self._keys: set[int] = set()
        self._totals: set[int | None] = set()
        self._time: datetime | None = None
        self._disturbed = resumed
        self.begun = self.ended = False
        """A page has come; the last page has come."""

    def pages(self) -> Iterator[Listed]:
        """Raises: Declined: the server does not know the search, or has forgotten the link."""
        lists, links, url = self._lists, Links(self._lists.connection.host), self._url
        first = not self._resumed
        while url:
            links.take(url)
            page = lists.start(self._query, url) if first else lists.follow(url, self._query.kind)
            first, self.begun = False, True
            self._watch(page, links)
            yield page
            url = page.next
        self.ended = True

    def _watch(self, page: Listed, links: Links) -> None:
        before = len(self._keys)
        self._keys.update(hash(met.key) for met in page.met)
        links.note(fresh=len(self._keys) > before or bool(page.refused))
        # What could not be read counts in a total too; then the total proves nothing.
        self._totals.add(None if page.refused else page.total)
        self._time = self._time or page.stamp
        began = self._time
        self._disturbed |= began is not None and any(m.updated is not None and m.updated > began for m in page.met)

    @property
    def quiet(self) -> bool:
        """The whole list was read and cannot have shifted: every page named the same total, as many different
        resources were met, and none was updated since the walk began."""
        return self.ended and not self._disturbed and self._totals == {len(self._keys)}
