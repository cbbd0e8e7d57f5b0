"""What a hub does with the pages of a reader, in its simplest form: a dictionary that follows the port's words.

It can be cut off after any page, as by kill -9: what pages brought stays, and reading goes on from the last mark.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from flute.data.reader import Page, Reader
from flute.fhirserver.wire import Around, make_transport, trusted

_TRUSTED = trusted("")


def plain_transport() -> httpx.BaseTransport:
    """The real one, without loading this machine's authorities anew for each of a thousand readers."""
    return make_transport(_TRUSTED)


class CutOff(Exception):
    """The process that took pages was killed."""


@dataclass(slots=True)
class Taker:
    """`held`: by scope, the resources by key. `given`: how often each key was given since `given` was cleared."""

    held: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    mark: bytes | None = None
    given: Counter[str] = field(default_factory=Counter)
    refused: list[Any] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    _met: dict[str, set[str]] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def take(self, reader: Reader, *, cut_after: int | None = None) -> list[Page]:
        """Everything that is new; `cut_after`: only so many pages, then CutOff."""
        taken: list[Page] = []
        for page in reader.pages(self.mark):
            if cut_after is not None and len(taken) == cut_after:
                raise CutOff
            self._one(page)
            taken.append(page)
        return taken

    def _one(self, page: Page) -> None:
        assert page.begins or page.scope in self._open or not page.ends, "a scope ends that never began"
        held = self.held.setdefault(page.scope, {})
        if page.begins:
            self._met[page.scope] = set()
            self._open.add(page.scope)
        met = self._met.setdefault(page.scope, set())
        assert not {r.key for r in page.records} & set(page.gone), "a page that gives a resource and takes it away"
        for record in page.records:
            before = held.get(record.key)
            if record.key in met and before is not None and before != record.resource:
                was, now = (r.get("meta", {}).get("lastUpdated", "") for r in (before, record.resource))
                assert was < now, "two contents of one key, and no telling which is the later one"
            held[record.key] = record.resource
            met.add(record.key)
            self.given[record.key] += 1
        for key in page.gone:
            held.pop(key, None)
        if page.ends == "complete":
            self.held[page.scope] = {key: held[key] for key in held if key in met}
        if page.ends:
            self._open.discard(page.scope)
        self.mark = page.mark
        self.refused += page.refused
        self.pages.append(page)

    @property
    def all(self) -> dict[str, dict[str, Any]]:
        return {key: resource for scope in self.held.values() for key, resource in scope.items()}


@dataclass(slots=True)
class Patience:
    """Time that passes when somebody waits. `slept`: how long, each time."""

    slept: list[float] = field(default_factory=list)
    chance: float = 1.0
    now: datetime = datetime(2026, 3, 2, tzinfo=UTC)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def clock(self) -> float:
        return time.monotonic() + sum(self.slept)

    def around(self) -> Around:
        return Around(sleep=self.sleep, clock=self.clock, now=lambda: self.now, chance=lambda: self.chance)
