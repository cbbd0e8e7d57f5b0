"""Whether a mapping fits the common model and itself: names exist, quantities have units, nothing is doubtful."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final
from zoneinfo import ZoneInfo

from flute.conformance.model import Code, Coded, Element, Flag, Links, Model, Part, Quantity, Whole
from flute.errors import MisuseError, StudyFileError, Unmappable
from flute.study.files.lines import Lines, line_of
from flute.tabular.cell_formats import date_pattern
from flute.tabular.mapping import Formats, Link, MappedPart, Table
from flute.tabular.statement import check_one_select

_PLACES: Final = ("file", "table", "query")
_TABLE: Final = re.compile(r"[^\W\d][\w$ -]*(\.[^\W\d][\w$ -]*){0,2}\Z")


def near(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a sentence."""
    names = sorted(known)
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]!r}?" if found else f"there may be {', '.join(names) or 'none'}."


def check_table(name: str, table: Table, tables: dict[str, Table], model: Model, lines: Lines) -> None:
    """Raises: StudyFileError: with the line, what is wrong and what to write."""
    at = ("tables", name)
    _check_place(at, table, lines)
    elements = _elements(at, table, model, lines)
    _check_formats(at, table.formats, lines)
    if table.changed and not table.key:
        raise StudyFileError(
            f"{name} has 'changed' and no 'key': a changed row could not be told from a new one. Write the column "
            "that names a row, for example 'key: sample_id'.",
            line=line_of(lines, *at, "changed"),
        )
    for part_name, part in table.parts.items():
        owners = [e for e in elements if any(p.name == part_name for p in e.parts)]
        if not owners:
            known = {p.name for e in elements for p in e.parts}
            raise StudyFileError(
                f"{' and '.join(e.name for e in elements)} has no part {part_name!r}; {near(part_name, known)}",
                line=line_of(lines, *at, "parts", part_name),
            )
        for element in owners:
            _check_part((*at, "parts", part_name), part, element.part(part_name), tables, model, lines)
    for element in elements:
        _check_complete(at, table, element, lines)


def check_whole(tables: dict[str, Table], model: Model, lines: Lines) -> None:
    """Raises: StudyFileError: nobody is there whom the other tables could be about."""
    if not any(model.person.name in table.elements() for table in tables.values()):
        raise StudyFileError(
            f"No table makes {model.person.name!r}, so that nothing would be known of the persons whom the others "
            f"are about; add a table with 'make: {model.person.name}'.",
            line=line_of(lines, "tables"),
        )


def _check_place(at: tuple[str, ...], table: Table, lines: Lines) -> None:
    given = [place for place in _PLACES if getattr(table, place)]
    if len(given) + (bool(table.sheet) and not table.file) != 1:
        said = " and ".join(given) if given else "nothing"
        raise StudyFileError(
            f"{at[-1]} says {said} about where its rows are; write one of 'file: …' (for a workbook 'sheet: …'), "
            "'table: …' and 'query: …'.",
            line=line_of(lines, *at),
        )
    if table.table and not _TABLE.match(table.table):
        raise StudyFileError(
            f"{at[-1]}: {table.table[:60]!r} is no name of a table; write for example 'table: lab.results', or a "
            "'query:'.",
            line=line_of(lines, *at, "table"),
        )
    if table.query:
        try:
            check_one_select(table.query)
        except Unmappable as error:
            raise StudyFileError(f"{at[-1]}: {error.text}", line=line_of(lines, *at, "query")) from error
    for word in ("changed", "overlap_s"):
        if (*at, word) in lines and not (table.table or table.query):
            raise StudyFileError(
                f"{at[-1]}: {word!r} is for tables of a database; a file that changed is read anew as a whole. Leave "
                "it out.",
                line=line_of(lines, *at, word),
            )


def _elements(at: tuple[str, ...], table: Table, model: Model, lines: Lines) -> list[Element]:
    if bool(table.make) == (table.make_by is not None):
        raise StudyFileError(
            f"{at[-1]} must say what a row makes: 'make: …' where each row makes the same, or 'make_by: …' for a "
            "long table whose rows say it themselves.",
            line=line_of(lines, *at),
        )
    names = {e.name for e in (model.person, *model.elements)}
    for name in table.elements():
        if name not in names:
            raise StudyFileError(
                f"The common model {model.name} has no element {name[:60]!r}; {near(name, names)}",
                line=line_of(lines, *at, "make" if table.make else "make_by"),
            )
    if len(table.elements()) > 1 and model.person.name in table.elements():
        raise StudyFileError(
            f"{at[-1]} makes {model.person.name!r} beside others; give persons a table of their own (it may read the "
            "same rows).",
            line=line_of(lines, *at, "make_by"),
        )
    return [model.element(name) for name in table.elements()]


def _check_complete(at: tuple[str, ...], table: Table, element: Element, lines: Lines) -> None:
    """Every part that the element needs is mapped, or one that can stand in its place."""
    for part in element.parts:
        either = [p.name for p in element.parts if p.at == part.at]
        if part.required and not set(either) & set(table.parts):
            raise StudyFileError(
                f"{at[-1]} makes {element.name!r}, which needs {' or '.join(either)}; write it below 'parts'.",
                line=line_of(lines, *at, "parts"),
            )


def _check_part(
    at: tuple[str, ...], mapped: MappedPart, part: Part, tables: dict[str, Table], model: Model, lines: Lines
) -> None:
    name, line = ".".join(at), line_of(lines, *at)
    _check_formats(at, mapped.formats, lines)
    if isinstance(part.kind, Links):
        if not mapped.links:
            raise StudyFileError(
                f"{name} is a list of links; write for example '[{{table: scores, column: report_id}}]'.", line=line
            )
        for index, link in enumerate(mapped.links):
            _check_link((*at, "links", str(index)), link, part.kind, tables, model, lines)
        return
    if mapped.links or bool(mapped.column) == bool(mapped.fixed):
        raise StudyFileError(
            f"{name} must say where it comes from: a column, or 'fixed: …' where it is always the same.", line=line
        )
    _check_unit(at, mapped, part, lines)
    words = _words_of(part)
    if words is None and mapped.values:
        raise StudyFileError(f"{name} is no choice between words; leave 'values' out.", line=line)
    for word, meaning in mapped.values.items():
        if words is not None and meaning not in words:
            raise StudyFileError(
                f"{name}: {meaning[:60]!r} is no word of the common model; {near(meaning, words)}",
                line=line_of(lines, *at, "values", word),
            )
    if words is not None and mapped.fixed and mapped.fixed not in words:
        raise StudyFileError(
            f"{name}: {mapped.fixed[:60]!r} is no word of the common model; {near(mapped.fixed, words)}", line=line
        )


def _words_of(part: Part) -> tuple[str, ...] | None:
    """The words that a choice may have; None where it is none. A small whole number may come from words too."""
    kind = part.kind
    if isinstance(kind, Coded | Code):
        return tuple(kind.values)
    if isinstance(kind, Flag):
        return ("0", "1")
    if isinstance(kind, Whole) and kind.high - kind.low < 100:
        return tuple(str(number) for number in range(kind.low, kind.high + 1))
    return None


def _check_unit(at: tuple[str, ...], mapped: MappedPart, part: Part, lines: Lines) -> None:
    name, kind = ".".join(at), part.kind
    if not isinstance(kind, Quantity):
        if mapped.unit:
            raise StudyFileError(f"{name} has no unit; leave 'unit' out.", line=line_of(lines, *at, "unit"))
        return
    if not mapped.unit:
        raise StudyFileError(
            f"{name} is a quantity and nothing says its unit; write 'unit: {kind.unit}' if the column is always in "
            "it, or 'unit: {column: …}'.",
            line=line_of(lines, *at),
        )
    units = [mapped.unit] if isinstance(mapped.unit, str) else list(mapped.unit.values.values())
    for unit in units:
        if unit not in kind.accepted and unit not in kind.spellings:
            raise StudyFileError(
                f"{name}: {unit[:60]!r} cannot be turned into {kind.unit}; {near(unit, kind.accepted)}",
                line=line_of(lines, *at, "unit"),
            )


def _check_link(
    at: tuple[str, ...], link: Link, kind: Links, tables: dict[str, Table], model: Model, lines: Lines
) -> None:
    line = line_of(lines, *at)
    if link.table not in tables:
        raise StudyFileError(
            f"A link names the table {link.table[:60]!r}, which is not in this file; {near(link.table, tables)}",
            line=line,
        )
    target = tables[link.table]
    if len(target.key) != 1:
        raise StudyFileError(
            f"Links lead to {link.table!r}, which has no 'key' of one column; write one there.", line=line
        )
    foreign = [name for name in target.elements() if name not in kind.elements]
    if foreign:
        raise StudyFileError(
            f"{link.table!r} makes {foreign[0]!r}, to which no such link may lead; it may lead to "
            f"{', '.join(kind.elements)}.",
            line=line,
        )
    try:
        types = {model.element(name).resource for name in target.elements()}
    except MisuseError:
        return  # that table's own check says so
    if len(types) > 1:
        raise StudyFileError(
            f"Links lead to {link.table!r}, whose rows make {' and '.join(sorted(types))}: it cannot be told which a "
            "link means. Give each a table of its own.",
            line=line,
        )


def _check_formats(at: tuple[str, ...], formats: Formats, lines: Lines) -> None:
    line = line_of(lines, *at, "formats")
    if formats.thousands is not None and formats.thousands == (formats.decimal or "."):
        raise StudyFileError(
            f"{'.'.join(at)}: the same sign stands for decimals and for thousands; write both, for example "
            '\'{decimal: ",", thousands: "."}\'.',
            line=line,
        )
    shapes: dict[str, str] = {}
    for written in formats.date_formats():
        try:
            _, shape = date_pattern(written)
        except MisuseError as error:
            raise StudyFileError(f"{'.'.join(at)}: {error.text}", line=line) from error
        if shape in shapes:
            raise StudyFileError(
                f"{'.'.join(at)}: {shapes[shape]!r} and {written!r} look alike, so that a day could be taken for a "
                "month; keep one of them here, and give the columns 'formats' of their own.",
                line=line,
            )
        shapes[shape] = written
    if formats.zone is not None:
        try:
            ZoneInfo(formats.zone)
        except (ValueError, OSError, KeyError) as error:
            raise StudyFileError(
                f"{'.'.join(at)}: there is no time zone {formats.zone!r}; write for example 'zone: Europe/Brussels'.",
                line=line,
            ) from error
