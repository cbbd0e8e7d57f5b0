"""A row of a mapped table into a resource of the common model, or into a refusal that names row and column."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from flute.conformance.build import ID, build, says_nothing
from flute.conformance.cells import Measured, Unfit, is_blank
from flute.conformance.model import Code, Coded, Element, Links, Model, Moment, Part, Quantity
from flute.data.findings import Finding
from flute.data.reader import Record, Refused, Resource
from flute.errors import Unmappable
from flute.tabular import mapping as maps
from flute.tabular.cell_formats import Cell, moment_reader, number_reader, text_of, unfit, word_reader
from flute.tabular.mapping_check import near

Row = Mapping[str, Cell]
_DIGEST_BYTES: Final = 16
_encode = msgspec.json.Encoder(order="sorted").encode


def person_id(patient: str) -> str:
    """The id of a person's resource from what the hospital calls him: the same word, or a digest of it where FHIR
    allows no such id. Readers of all kinds of sources must agree on it."""
    return patient if ID.match(patient) else f"x.{_hex(patient.encode())}"


def resource_id(table: str, key: Sequence[str]) -> str:
    """`table.key`, which is unique in the source as long as the key is unique in its table; a digest of the key where
    FHIR allows no such id, or where the key has several columns."""
    plain = f"{table}.{key[0]}"
    return plain if len(key) == 1 and ID.match(plain) else f"{table}.{_hex(_encode(list(key)))}"


def _hex(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=_DIGEST_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a part comes from: `column` for the finding, `read` from the row."""

    part: str
    column: str
    unit_column: str
    read: Callable[[Row], object]


class RowMaker:
    """Makes resources of one table's rows. It remembers nothing between rows."""

    def __init__(self, name: str, mapping: maps.Mapping, model: Model) -> None:
        self.name = name
        self.table = mapping.tables[name]
        self._person = model.person.name
        self._blank = frozenset(self.table.formats.blank or ())
        self._where = {c: frozenset(w.casefold() for w in words) for c, words in self.table.where.items()}
        self._tags = [msgspec.to_builtins(tag) for tag in mapping.tags]
        self._elements = {e: model.element(e) for e in self.table.elements()}
        self._sources = {
            name: [self._source(element.part(p), part, mapping, model) for p, part in self._parts_of(element)]
            for name, element in self._elements.items()
        }
        by = self.table.make_by
        self._words = {word.casefold(): made for word, made in by.values.items()} if by else {}

    def make(self, row: Row, origin: str) -> Record | Refused | None:
        """The row's resource; None where the row is not wanted (`where`, `make_by`) or says nothing (`if_empty`)."""
        key = ""
        try:
            if not all(self._text(row, column).casefold() in words for column, words in self._where.items()):
                return None
            element = self._element(row)
            if element is None:
                return None
            subject = person_id(
                self._needed(row, self.table.patient, "row-patient", "Every row must say whose it is.")
            )
            own = self._id(row, element, subject)
            key = f"{element.resource}/{own}" if own else ""
            values = self._values(row, element)
            if self.table.if_empty == "skip" and element.name != self._person and says_nothing(element, values):
                return None
            resource = self._built(element, own, subject, values)
        except Unfit as error:
            return Refused(origin, key, error.finding)
        if self._tags:
            resource["meta"] = resource.get("meta", {}) | {"tag": self._tags}
        return Record(resource, origin)

    # --- what the row is ---------------------------------------------------------------------------

    def _element(self, row: Row) -> Element | None:
        by = self.table.make_by
        if by is None:
            return self._elements[self.table.make]
        word = self._text(row, by.column)
        made = by.values.get(word) or self._words.get(word.casefold())
        if made is None and by.others == "refuse":
            mend = f"Say which element it makes: write it below make_by of table {self.name} in the mapping."
            raise unfit("code-not-in-value-set", "row-element", word, mend, by.column)
        return self._elements[made] if made else None

    def _id(self, row: Row, element: Element, subject: str) -> str:
        """Empty where the id is to be a digest of the content."""
        if element.name == self._person:
            return subject
        if not self.table.key:
            return ""
        mend = "Give the row a key, or leave 'key' out of the mapping where the table has none."
        return resource_id(self.name, [self._needed(row, column, "row-key", mend) for column in self.table.key])

    def _built(self, element: Element, own: str, subject: str, values: Mapping[str, object]) -> Resource:
        try:
            resource = build(element, own or "0", subject, values)
        except Unfit as error:
            raise Unfit(self._by_column(error.finding, element)) from error
        if not own:
            del resource["id"]
            resource["id"] = f"{self.name}.{_hex(_encode(resource))}"
        return resource

    # --- cells ---------------------------------------------------------------------------------------

    def _text(self, row: Row, column: str) -> str:
        try:
            text = text_of(row[column])
        except Unfit as error:
            raise Unfit(msgspec.structs.replace(error.finding, path=column)) from error
        return "" if text in self._blank else text

    def _needed(self, row: Row, column: str, rule: str, mend: str) -> str:
        text = self._text(row, column)
        if not text:
            raise unfit("required-element-missing", rule, "", mend, column)
        return text

    def _values(self, row: Row, element: Element) -> dict[str, object]:
        values: dict[str, object] = {}
        for source in self._sources[element.name]:
            try:
                values[source.part] = source.read(row)
            except Unfit as error:
                finding = error.finding
                raise Unfit(
                    finding if finding.path else msgspec.structs.replace(finding, path=source.column)
                ) from error
        return values

    def _by_column(self, finding: Finding, element: Element) -> Finding:
        """A finding of the model's own rules, with the column in place of the FHIR element."""
        part = finding.rule.removeprefix(f"{element.name}-")
        source = next((s for s in self._sources[element.name] if s.part == part), None)
        if source is None:
            return finding
        if finding.reason == "unit-not-convertible":
            mend = f"{finding.mend} Or say what it means: 'values' below the part's 'unit' in the mapping."
            return msgspec.structs.replace(finding, path=source.unit_column or source.column, mend=mend)
        return msgspec.structs.replace(finding, path=source.column or part)

    # --- made once per table -----------------------------------------------------------------------

    def _parts_of(self, element: Element) -> list[tuple[str, maps.MappedPart]]:
        own = {part.name for part in element.parts}
        return [(name, part) for name, part in self.table.parts.items() if name in own]

    def _source(self, part: Part, mapped: maps.MappedPart, mapping: maps.Mapping, model: Model) -> _Source:
        unit = mapped.unit.column if isinstance(mapped.unit, maps.UnitColumn) else ""
        column = mapped.column or (mapped.links[0].column if mapped.links else "")
        if isinstance(part.kind, Links):
            return _Source(part.name, column, "", self._links(mapped, mapping, model))
        if mapped.fixed:
            word = mapped.fixed
            value = Measured(word, mapped.unit) if isinstance(mapped.unit, str) and mapped.unit else word
            return _Source(part.name, "", unit, lambda row: value)
        return _Source(part.name, column, unit, self._cells(part, mapped))

    def _cells(self, part: Part, mapped: maps.MappedPart) -> Callable[[Row], object]:
        column, blank = mapped.column, frozenset(mapped.formats.blank or ())
        read: Callable[[Cell], Cell]
        if isinstance(part.kind, Moment):
            read = moment_reader(mapped.formats)
        elif mapped.values or isinstance(part.kind, Coded | Code):
            read = word_reader(mapped.values, f"'values' of {part.name} in table {self.name}")
        else:
            read = number_reader(mapped.formats)

        def cell(row: Row) -> object:
            raw = row[column]
            if is_blank(raw) or (isinstance(raw, str) and raw.strip() in blank):
                return None
            return read(raw)

        if not isinstance(part.kind, Quantity):
            return cell
        return self._measured(cell, mapped)

    def _measured(self, number: Callable[[Row], object], mapped: maps.MappedPart) -> Callable[[Row], object]:
        unit = mapped.unit
        if isinstance(unit, str):
            return lambda row: Measured(number(row), unit)

        def measured(row: Row) -> object:
            value = number(row)
            spelt = self._text(row, unit.column)
            if value is not None and not spelt:
                mend = "Fill in the unit; or write 'unit: …' in the mapping, if it is the same for the whole column."
                raise unfit("required-element-missing", "row-unit", "", mend, unit.column)
            return Measured(value, unit.values.get(spelt, spelt))

        return measured

    def _links(self, mapped: maps.MappedPart, mapping: maps.Mapping, model: Model) -> Callable[[Row], object]:
        kinds = {
            link.table: model.element(mapping.tables[link.table].elements()[0]).resource for link in mapped.links
        }

        def references(row: Row) -> object:
            found: list[str] = []
            for link in mapped.links:
                if link.filled and not self._text(row, link.filled):
                    continue
                text = self._text(row, link.column)
                keys = text.split(link.separator) if link.separator else [text]
                found += [f"{kinds[link.table]}/{resource_id(link.table, [k.strip()])}" for k in keys if k.strip()]
            # Sorted, since a database gives what it gathers in any order.
            return sorted(set(found))

        return references


def places_of(names: Sequence[str], wanted: Sequence[str], what: str) -> dict[str, int]:
    """Where each wanted column stands among `names`.

    Raises: Unmappable: one is not there, or stands there twice. `what`: the table as people call it.
    """
    places: dict[str, int] = {}
    for column in wanted:
        count = list(names).count(column)
        if count == 0:
            raise Unmappable(f"{what} has no column {column!r}, which the mapping names; {near(column, names)}")
        if count > 1:
            raise Unmappable(f"{what} has two columns called {column!r}; rename one of them.")
        places[column] = list(names).index(column)
    return places
