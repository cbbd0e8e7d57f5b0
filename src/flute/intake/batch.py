"""One page of a reader, judged: what is taken, what is refused and why, and what the views read out of it.

A resource is refused one by one. The exception is a transaction bundle: one refused resource takes it out whole.
The same key twice: see `data.reader`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from flute.data.findings import Finding
from flute.data.reader import Ends, Page, Record, Refused, Resource
from flute.views.program import Program
from flute.views.view import DoesNotFit, Row, View

Check = Callable[[Resource], list[Finding]]
"""All findings of one resource, by the hub's rules."""
Withdrawn = Callable[[Resource], bool]


class Before(NamedTuple):
    """What is known of a key. `here`: it was met in this very reading, or stands in another scope too."""

    digest: bytes
    updated: str
    here: bool


Known = Mapping[str, Before]
DIGEST_BYTES: Final = 16
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True)
class Taken:
    """One resource that is taken, without the resource: its rows in every view that has some."""

    key: str
    origin: str
    bundle: str
    digest: bytes
    updated: str
    warnings: tuple[str, ...]
    rows: dict[str, list[Row]]


@dataclass(slots=True)
class Batch:
    """A judged page. `unchanged`: what is known with the very same content."""

    scope: str
    mark: bytes
    begins: bool
    ends: Ends
    gone: tuple[str, ...] = ()
    taken: dict[str, Taken] = field(default_factory=dict)
    unchanged: dict[str, Record] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)


class Judge:
    """Turns pages into batches. `views`: by name. `check`: findings of a resource; any but a warning refuses it.

    `withdrawn`: whether a resource is about somebody who was withdrawn; it is passed over as if it were not there.
    `conceal`: the hub's keyed hash, for cells of the columns `concealed`.
    """

    def __init__(
        self,
        views: Mapping[str, View],
        check: Check | None,
        *,
        withdrawn: Withdrawn | None = None,
        concealed: Mapping[str, tuple[str, ...]] | None = None,
        conceal: Callable[[str], str] | None = None,
    ) -> None:
        self._check = check
        self._withdrawn = withdrawn
        self._conceal = conceal
        self._concealed = {
            name: tuple(place for place, column in enumerate(views[name].columns) if column.name in columns)
            for name, columns in (concealed or {}).items()
        }
        self._views = views
        self._program = Program(views.values())

    def batch(self, page: Page, known: Known) -> Batch:
        """`known`: of the page's keys, those that were taken before."""
        batch = Batch(page.scope, page.mark, page.begins, page.ends, page.gone, refused=list(page.refused))
        for record in page.records:
            if self._withdrawn is None or not self._withdrawn(record.resource):
                self._one(record, batch, known)
        _whole_or_not_at_all(batch)
        return batch

    def _one(self, record: Record, batch: Batch, known: Known) -> None:
        key = record.key
        digest, updated = digest_of(record.resource), _updated(record.resource)
        now, before = batch.taken.get(key), known.get(key)
        if now is not None:
            before = Before(now.digest, now.updated, here=True)
        if before is not None and before.digest == digest:
            if now is None:
                batch.unchanged[key] = record
            return
        if before is not None and before.here and not before.updated < updated:
            batch.refused.append(_refused(record, _DUPLICATE))
            return
        batch.unchanged.pop(key, None)
        findings = self._check(record.resource) if self._check else []
        errors = [f for f in findings if not f.warning]
        if errors:
            batch.refused += [_refused(record, finding) for finding in errors]
            return
        try:
            rows = self._rows(record.resource)
        except DoesNotFit:
            batch.refused.append(_refused(record, _DOES_NOT_FIT))
            return
        warned = tuple(dict.fromkeys(f.rule for f in findings))
        batch.taken[key] = Taken(key, record.origin, record.bundle, digest, updated, warned, rows)

    def _rows(self, resource: Resource) -> dict[str, list[Row]]:
        made = ((name, self._views[name].rows(resource)) for name in self._program.meets(resource))
        return {name: self._hidden(name, rows) for name, rows in made if rows}

    def _hidden(self, name: str, rows: list[Row]) -> list[Row]:
        places = self._concealed.get(name)
        if not places:
            return rows
        return [tuple(self._cell(cell, hidden=place in places) for place, cell in enumerate(row)) for row in rows]

    def _cell(self, cell: Any, *, hidden: bool) -> Any:
        return self._conceal(str(cell)) if hidden and cell is not None and self._conceal else cell


def digest_of(resource: Resource) -> bytes:
    """Of the content: the same resource has the same digest however its fields are ordered."""
    return hashlib.blake2b(_encode(resource), digest_size=DIGEST_BYTES).digest()


_DUPLICATE: Final = Finding(
    reason="duplicate-id",
    path="id",
    rule="one-id-one-resource",
    found="another resource of this type and id, with other content",
    mend="Give each resource an id of its own, or a meta.lastUpdated that says which version is the later one.",
)
_DOES_NOT_FIT: Final = Finding(
    reason="wrong-type",
    path="",
    rule="view",
    found="a value of another type, or several where one belongs",
    mend="Compare the resource with the profile of the common model ('flute model export' writes it).",
)
BUNDLE_WENT: Final = Finding(
    reason="transaction-refused",
    path="",
    rule="transaction",
    found="another resource of the same transaction was refused",
    mend="Mend the resource that was refused; a transaction is taken as a whole or not at all.",
)


def _updated(resource: Resource) -> str:
    meta = resource.get("meta")
    updated = meta.get("lastUpdated") if isinstance(meta, dict) else None
    return updated if isinstance(updated, str) else ""


def _refused(record: Record, finding: Finding) -> Refused:
    return Refused(record.origin, record.key, finding, record.bundle)


def _whole_or_not_at_all(batch: Batch) -> None:
    broken = {r.bundle for r in batch.refused if r.bundle}
    if not broken:
        return
    for met in (batch.taken, batch.unchanged):
        for key, item in [(k, i) for k, i in met.items() if i.bundle in broken]:
            del met[key]
            batch.refused.append(Refused(item.origin, key, BUNDLE_WENT, item.bundle))


def rows_of(taken: Iterable[Taken], name: str) -> list[Row]:
    """The rows of one view; the first cell of each says whose it is."""
    return [(item.key, *row) for item in taken for row in item.rows.get(name, ())]


KEY: Final = "#key"
"""First column of every view's table in staging; no view can name a column so."""
