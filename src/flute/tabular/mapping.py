"""What a mapping file says: which table of a hospital holds what of the common model, and how its cells are written.

What the file leaves open is never guessed where a guess could change a value: a quantity without a unit, a comma
that may be a decimal sign, a day that may be a month. `mapping_file` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from flute.conformance.model import Model

VERSION: Final = "mapping/1"
MAX_TABLE_NAME_CHARS: Final = 31
_Column = Annotated[str, Meta(min_length=1, max_length=128)]
_Words = dict[str, str]
_Sign = Annotated[str, Meta(max_length=1)]
_RowNumber = Annotated[int, Meta(ge=1, le=100)]
Encoding = Literal["utf-8", "latin-1", "cp1252", "iso-8859-15"]


class Formats(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How cells that are text are written. What is left out is taken from the table's, then from the file's."""

    decimal: Literal[".", ","] | None = None
    thousands: Literal[".", ",", " ", "'"] | None = None
    dates: str | tuple[str, ...] | None = None
    zone: Annotated[str, Meta(max_length=64)] | None = None
    blank: tuple[Annotated[str, Meta(max_length=64)], ...] | None = None

    def over(self, under: Formats) -> Formats:
        """These, and where they say nothing, `under`."""
        own = {name: getattr(self, name) for name in self.__struct_fields__}
        return Formats(**{name: getattr(under, name) if value is None else value for name, value in own.items()})

    def date_formats(self) -> tuple[str, ...]:
        return (self.dates,) if isinstance(self.dates, str) else (self.dates or ())


class UnitColumn(Struct, frozen=True, forbid_unknown_fields=True):
    """The unit stands in a column of its own. `values`: a spelling to the UCUM code that it means."""

    column: _Column
    values: _Words = {}


class Link(Struct, frozen=True, forbid_unknown_fields=True):
    """To rows of another table of this file: `column` holds their key, or several with `separator` between them.
    `filled`: only where this other column has a value."""

    table: str
    column: _Column
    separator: Annotated[str, Meta(max_length=4)] = ""
    filled: str = ""


class MappedPart(Struct, frozen=True, forbid_unknown_fields=True):
    """Where one part of an element comes from: a column, or always the same (`fixed`)."""

    column: str = ""
    fixed: str = ""
    values: _Words = {}
    unit: str | UnitColumn = ""
    formats: Formats = Formats()
    links: tuple[Link, ...] = ()

    def columns(self) -> Iterator[str]:
        if self.column:
            yield self.column
        if isinstance(self.unit, UnitColumn):
            yield self.unit.column
        for link in self.links:
            yield link.column
            if link.filled:
                yield link.filled


class MakeBy(Struct, frozen=True, forbid_unknown_fields=True):
    """A long table: `values` says for the words of `column` which element a row makes. `others`: rows with another
    word are passed over, or refused."""

    column: _Column
    values: Annotated[_Words, Meta(min_length=1)]
    others: Literal["skip", "refuse"] = "skip"


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the password of the database is: one of the two. It never stands in a mapping or an address."""

    password_env: Annotated[str, Meta(max_length=128)] = ""
    password_file: Annotated[str, Meta(max_length=1_000)] = ""


class Tag(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A label that every resource carries in `meta.tag`."""

    system: Annotated[str, Meta(min_length=1, max_length=200)]
    code: Annotated[str, Meta(min_length=1, max_length=64)]
    display: Annotated[str, Meta(max_length=200)] = ""


class FilesForm(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the files of all tables are written that do not say otherwise themselves."""

    encoding: Encoding | None = None
    delimiter: _Sign | None = None
    header_row: _RowNumber | None = None


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """One table as the file says it, defaults filled in. Exactly one of `file` (and `sheet`), `table`, `query` says
    where its rows are."""

    patient: _Column
    parts: dict[str, MappedPart] = {}
    file: str = ""
    sheet: str = ""
    table: str = ""
    query: str = ""
    make: str = ""
    make_by: MakeBy | None = None
    key: tuple[_Column, ...] = ()
    changed: str = ""
    overlap_s: Annotated[float, Meta(ge=0, le=31 * 86_400)] = 3_600.0
    where: dict[str, tuple[str, ...]] = {}
    if_empty: Literal["skip", "refuse"] = "refuse"
    encoding: Encoding = "utf-8"
    delimiter: _Sign = ""
    header_row: _RowNumber = 1
    formats: Formats = Formats()

    def elements(self) -> tuple[str, ...]:
        """Names of the model's elements that rows can make."""
        return (self.make,) if self.make_by is None else tuple(dict.fromkeys(self.make_by.values.values()))

    def columns(self) -> tuple[str, ...]:
        """Every column that is read; no others are."""
        names = [self.patient, *self.key, *self.where]
        names += [self.changed] if self.changed else []
        names += [self.make_by.column] if self.make_by else []
        for part in self.parts.values():
            names += part.columns()
        return tuple(dict.fromkeys(names))


class MappingFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file's own shape. Tables are read one by one, so that what is wrong points at its own line."""

    flute: Literal["mapping/1"]
    tables: Annotated[dict[str, Any], Meta(min_length=1, max_length=64)]
    name: Annotated[str, Meta(max_length=64)] = ""
    login: Login = Login()
    tags: Annotated[tuple[Tag, ...], Meta(max_length=8)] = ()
    formats: Formats = Formats()
    files: FilesForm = FilesForm()


class Mapping(Struct, frozen=True):
    """A mapping that fits its model: tables by name, in the file's order, formats filled in everywhere."""

    name: str
    tables: dict[str, Table]
    tags: tuple[Tag, ...] = ()
    login: Login = Login()


def digest_text(mapping: Mapping, name: str, model: Model) -> bytes:
    """What decides how the rows of a table become resources: another one, and they are read anew."""
    linked = {link.table for part in mapping.tables[name].parts.values() for link in part.links}
    makes = [model.element(e) for e in mapping.tables[name].elements()]
    others = [(other, mapping.tables[other].elements()) for other in sorted(linked)]
    return msgspec.json.encode((mapping.tables[name], mapping.tags, makes, others), order="sorted")
