"""What the hub's FHIR face shows of a dataset: FHIR R4 resources, made of the frozen rows when they are asked for.

Processed and de-identified: a person is the hub's pseudonym, a resource is one element of the common model with the
values that the row has. Nothing is kept but the columns; a hidden variable is not among them.
Source: FHIR R4, Resource.meta, search result sets (3.1.1.4).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flute.conformance.build import build, says_nothing
from flute.conformance.cells import Unfit
from flute.conformance.model import Element, Model
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.hub.store import DatasetEntry

Resource = dict[str, Any]
_OBSERVATION_VALUE: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
_ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"


@dataclass(frozen=True, slots=True)
class Column:
    """A part of an element comes from a variable of the dataset. `words`: what the table says to what the model says,
    where they differ."""

    variable: str
    words: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Fixed:
    """A part that is the same for everybody in the dataset, by the rules of its cohort."""

    value: str


Parts = Mapping[str, Column | Fixed]
Shown = Mapping[str, Parts]
"""Element of the common model to where each of its parts comes from."""


@dataclass(frozen=True, slots=True)
class Code:
    """A token of a search: `system` None where any will do, "" where there must be none."""

    system: str | None
    code: str

    def meets(self, coding: Mapping[str, Any]) -> bool:
        return (self.system is None or coding.get("system", "") == self.system) and (
            not self.code or coding.get("code") == self.code
        )


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for. Every set given has to be met; None: not asked about."""

    kind: str
    ids: frozenset[str] | None = None
    persons: frozenset[str] | None = None
    codes: tuple[Code, ...] | None = None


class Shelf:
    """Resources of one dataset. Immutable: another snapshot is another shelf.

    `variables`: those that `data` was opened with. `shown`: as far as they reach; an element that loses a required
    part is left out.
    """

    def __init__(
        self, entry: DatasetEntry, model: Model, shown: Shown, variables: Sequence[Variable], data: Dataset
    ) -> None:
        held = {v.name for v in variables}
        self.name = entry.name
        self.title = model.title
        self.version = entry.snapshot.hex()[:12]
        self.updated = datetime.fromtimestamp(entry.imported_at, UTC)
        self.simulated = entry.simulated
        self._data = data
        self._person = model.person
        self._parts: dict[str, Parts] = {e: _available(parts, held) for e, parts in shown.items()}
        self._elements = tuple(e for e in model.elements if _usable(e, self._parts.get(e.name, {})))
        self._row_of = {str(name): row for row, name in enumerate(data.pseudonyms.tolist())}
        self._ids = list(self._row_of)
        self._present: dict[str, NDArray[np.bool_]] = {}
        self._turn = threading.Lock()

    @staticmethod
    def variables(entry: DatasetEntry, shown: Shown, hidden: Sequence[str]) -> tuple[Variable, ...]:
        """The columns that a shelf needs, no others."""
        wanted = {s.variable for parts in shown.values() for s in parts.values() if isinstance(s, Column)}
        return tuple(v for v in entry.variables if v.name in wanted and v.name not in hidden)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Resource types that the shelf has, the person's first."""
        return tuple(dict.fromkeys((self._person.resource, *(e.resource for e in self._elements))))

    def read(self, kind: str, key: str) -> Resource | None:
        found = self._locate(key)
        if found is None:
            return None
        row, element = found
        return self._made(row, element) if element.resource == kind else None

    def matches(self, search: Search) -> Matches:
        """All that a search finds, in an order that holds as long as the shelf does: by person, then by element."""
        elements = [e for e in (self._person, *self._elements) if e.resource == search.kind]
        rows = np.ones(len(self._ids), dtype=bool)
        if search.persons is not None:
            rows = np.zeros(len(self._ids), dtype=bool)
            rows[[self._row_of[p] for p in search.persons if p in self._row_of]] = True
        if search.ids is not None:
            return self._by_id(search, elements, rows)
        found = np.zeros((len(self._ids), len(elements)), dtype=bool)
        for place, element in enumerate(elements):
            found[:, place] = rows & self._presence(element)
            if search.codes is not None:
                found[:, place] &= self._coded(element, search.codes, found[:, place])
        return Matches(self, tuple(elements), np.flatnonzero(found))

    def _by_id(self, search: Search, elements: list[Element], rows: NDArray[np.bool_]) -> Matches:
        assert search.ids is not None
        places = set()
        for key in search.ids:
            found = self._locate(key)
            if found is None or found[1] not in elements or not rows[found[0]]:
                continue
            made = self._made(*found)
            if made is not None and (search.codes is None or _has_code(made, search.codes)):
                places.add(found[0] * len(elements) + elements.index(found[1]))
        return Matches(self, tuple(elements), np.array(sorted(places), dtype=np.int64))

    def _locate(self, key: str) -> tuple[int, Element] | None:
        person, _, name = key.partition("-")
        row = self._row_of.get(person)
        if row is None:
            return None
        if not name:
            return row, self._person
        return next(((row, e) for e in self._elements if _slug(e) == name), None)

    def _presence(self, element: Element) -> NDArray[np.bool_]:
        """[persons] who have the resource: whoever asks how many there are must get what pages then give."""
        with self._turn:
            if element.name not in self._present:
                rows = range(len(self._ids))
                self._present[element.name] = np.array([self._made(r, element) is not None for r in rows], dtype=bool)
            return self._present[element.name]

    def _coded(self, element: Element, codes: tuple[Code, ...], among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found = np.zeros(len(self._ids), dtype=bool)
        for row in np.flatnonzero(among).tolist():
            made = self._made(row, element)
            found[row] = made is not None and _has_code(made, codes)
            if element.code:  # its code is the element's own: one tells of all
                found[among] = found[row]
                break
        return found

    def _made(self, row: int, element: Element) -> Resource | None:
        """None where the row says nothing of the element, or something that the common model cannot hold."""
        person = self._ids[row]
        values = self._values(row, element)
        if element is self._person:
            try:
                return self._marked(build(element, person, "", values))
            except Unfit:
                return self._marked({"resourceType": element.resource, "id": person})
        if says_nothing(element, values):
            return None
        try:
            return self._marked(build(element, f"{person}-{_slug(element)}", person, values))
        except Unfit:
            return None

    def _values(self, row: int, element: Element) -> dict[str, str]:
        found = {}
        for name, source in self._parts.get(element.name, {}).items():
            word = source.value if isinstance(source, Fixed) else self._word(row, source)
            if word is not None:
                found[name] = word
        return found

    def _word(self, row: int, source: Column) -> str | None:
        value = float(self._data.column(source.variable)[row])
        if np.isnan(value):
            return None
        variable = self._data.variable(source.variable)
        if variable.kind == "category":
            word = variable.levels[int(value)]
        else:
            word = str(int(value)) if value.is_integer() else repr(value)
        return word if source.words is None else source.words.get(word)

    def _marked(self, resource: Resource) -> Resource:
        meta: Resource = {
            "versionId": self.version,
            "lastUpdated": instant(self.updated),
            **resource.get("meta", {}),
            "security": [{"system": _OBSERVATION_VALUE, "code": "PSEUDED", "display": "pseudonymized"}],
        }
        if self.simulated:
            meta["tag"] = [
                {"system": _ACT_REASON, "code": "HTEST", "display": "test health data"},
                {"system": "urn:flute:label", "code": "SIMULATED", "display": "SIMULATED"},
            ]
        rest = {name: value for name, value in resource.items() if name not in ("resourceType", "id", "meta")}
        return {"resourceType": resource["resourceType"], "id": resource["id"], "meta": meta, **rest}


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search found: `places` are row times elements plus element, rising."""

    shelf: Shelf
    elements: tuple[Element, ...]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def page(self, after: int, count: int) -> tuple[list[Resource], int | None]:
        """At most `count` resources from beyond place `after`, and the place to go on from if there are more."""
        start = int(np.searchsorted(self.places, after, side="right"))
        chosen = self.places[start : start + count].tolist()
        more = start + len(chosen) < len(self.places)
        return list(self._made(chosen)), (chosen[-1] if more and chosen else None)

    def _made(self, places: list[int]) -> Iterator[Resource]:
        for place in places:
            row, element = divmod(place, len(self.elements))
            made = self.shelf._made(row, self.elements[element])
            if made is not None:
                yield made


def instant(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _slug(element: Element) -> str:
    """The element's name as a part of a FHIR id."""
    return element.name.replace("_", "-")


def _available(parts: Parts, held: Set[str]) -> Parts:
    return {name: s for name, s in parts.items() if isinstance(s, Fixed) or s.variable in held}


def _usable(element: Element, parts: Parts) -> bool:
    """Some part comes from a column, and no required one is without a source."""
    if not any(isinstance(source, Column) for source in parts.values()):
        return False
    filled = {element.part(name).at for name in parts}
    return all(part.at in filled for part in element.parts if part.required)


def _has_code(resource: Resource, codes: tuple[Code, ...]) -> bool:
    """By `code`, or by `condition.code` where FHIR's search parameter means that (FamilyMemberHistory)."""
    concepts = (
        [resource["code"]] if "code" in resource else [c.get("code", {}) for c in resource.get("condition", [])]
    )
    return any(code.meets(coding) for concept in concepts for coding in concept.get("coding", []) for code in codes)
