"""Reads a mapping file: YAML that people write, so every error points at a line and says what to write."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from flute.conformance.model import Model
from flute.errors import StudyFileError
from flute.study.files.lines import Form, Lines, convert, line_of, parse
from flute.tabular.mapping import MAX_TABLE_NAME_CHARS, VERSION, Mapping, MappingFile, Table
from flute.tabular.mapping_check import check_table, check_whole

_NAME: Final = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_TABLE_NAME_CHARS - 1}}}\Z")
_LISTS: Final = ("key",)
_NUMBERS: Final = ("overlap_s", "header_row")
FORM: Final = Form(
    file="mapping file",
    begins=f"flute: {VERSION}",
    page="docs/reference/mapping-file.md",
    named={
        ("tables", 1): "write each table's name, and below it where its rows are and what they make",
        ("tables", 2): "write below it where its rows are (file, sheet, table or query), patient, make and parts",
    },
    write={
        "flute": f"write 'flute: {VERSION}', which is the version of this file's form",
        "name": "write a text of at most 64 characters that reports call this source by",
        "login": "write 'login: {password_env: NAME}' (an environment variable) or 'login: {password_file: FILE}'",
        "password_env": "write the name of the environment variable that holds the password",
        "password_file": "write the name of the file that holds the password",
        "tags": "write a list of labels, each with system and code",
        "system": "write the address of the label's code system",
        "code": "write the label's code",
        "display": "write a text of at most 200 characters",
        "formats": "write for example 'formats: {decimal: \",\", dates: DD.MM.YYYY, zone: Europe/Brussels}'",
        "files": "write for example 'files: {encoding: cp1252, delimiter: \";\"}'",
        "decimal": "write 'decimal: \",\"' or 'decimal: \".\"'",
        "thousands": "write the sign between thousands, one of \".\", \",\", \"'\" and \" \", in quotes",
        "dates": "write how days are written with YYYY, MM, DD and, for times, hh, mm, ss, for example 'DD.MM.YYYY'",
        "zone": "write a time zone such as Europe/Brussels",
        "blank": "write a list of texts that mean an empty cell, for example 'blank: [n/a, \"-\"]'",
        "file": "write the name of a file in the folder, for example 'file: lab.csv'",
        "sheet": "write the name of a sheet of the workbook, for example 'sheet: Lab'",
        "table": "write the name of a table, for example 'table: lab.results'",
        "query": "write one SELECT statement",
        "patient": "write the column that says whose row it is, for example 'patient: patient_id'",
        "make": "write the element of the common model that each row makes",
        "make_by": "write 'make_by: {column: test_code, values: {...}}', for each code the element that it makes",
        "others": "write 'others: skip' (rows of other codes are passed over) or 'others: refuse'",
        "key": "write the column, or a list of columns, that names a row for ever, for example 'key: sample_id'",
        "changed": "write the column that says when a row was last changed",
        "overlap_s": "write how many seconds a change may be late: a number from 0 to 2678400",
        "where": "write for a column the words that rows must have in it, for example 'where: {status: [F, C]}'",
        "if_empty": "write 'if_empty: skip' (rows that say nothing are passed over) or 'if_empty: refuse'",
        "encoding": "write utf-8, latin-1, cp1252 or iso-8859-15",
        "delimiter": "write one character in quotes, for example 'delimiter: \";\"'",
        "header_row": "write the number of the line with the columns' names, 1 to 100",
        "parts": "write for each part of the element its column, as in 'parts: {value: result, when: taken_on}'",
        "column": "write the name of a column",
        "fixed": "write what it always is",
        "values": "write for each word of the column what it means, for example 'values: {m: male, f: female}'",
        "unit": "write a unit, for example 'unit: ng/mL', or 'unit: {column: unit_text}'",
        "links": "write a list, for example 'links: [{table: scores, column: report_id}]'",
        "separator": "write the sign between several keys, at most 4 characters",
        "filled": "write the name of a column",
    },
)  # fmt: skip


def read_mapping(text: str, model: Model, *, path: str = "mapping.yaml") -> Mapping:
    """The mapping that the file says, checked against `model`.

    Raises: StudyFileError: with the line, what is wrong and what to write.
    """
    try:
        document, lines = parse(text, FORM)
        file = convert(_as_words(document, (), lines), MappingFile, (), lines, form=FORM)
        tables = {name: _table(name, raw, file, model, lines) for name, raw in file.tables.items()}
        for name, table in tables.items():
            check_table(name, table, tables, model, lines)
        check_whole(tables, model, lines)
    except StudyFileError as error:
        raise StudyFileError(error.text, line=error.line, path=path) from error
    return Mapping(file.name, tables, file.tags, file.login)


def _table(name: str, raw: Any, file: MappingFile, model: Model, lines: Lines) -> Table:
    at = ("tables", name)
    if not _NAME.match(name):
        raise StudyFileError(
            f"{name[:MAX_TABLE_NAME_CHARS]!r} cannot be the name of a table; write at most {MAX_TABLE_NAME_CHARS} "
            "lower case letters, digits and hyphens, a letter first. It becomes a part of the resources' ids.",
            line=line_of(lines, *at),
        )
    if isinstance(raw, dict):
        in_file = "file" in raw or "sheet" in raw
        raw = (msgspec.to_builtins(file.files) if in_file else {}) | raw
        raw = {key: [value] if key in _LISTS and isinstance(value, str) else value for key, value in raw.items()}
        if isinstance(raw.get("parts"), dict):
            raw["parts"] = {key: _long_form(value) for key, value in raw["parts"].items()}
        if isinstance(raw.get("where"), dict):
            raw["where"] = {key: [v] if isinstance(v, str) else v for key, v in raw["where"].items()}
    table = convert(raw, Table, at, lines, form=FORM)
    own = table.formats.over(file.formats)
    parts = {key: msgspec.structs.replace(part, formats=part.formats.over(own)) for key, part in table.parts.items()}
    key = table.key or ((table.patient,) if table.make == model.person.name else ())
    return msgspec.structs.replace(table, formats=own, parts=parts, key=key)


def _long_form(value: Any) -> Any:
    """`when: taken_on` is short for `when: {column: taken_on}`, a bare list for `{links: […]}`."""
    if isinstance(value, str):
        return {"column": value}
    return {"links": value} if isinstance(value, list) else value


def _as_words(value: Any, at: tuple[str, ...], lines: Lines) -> Any:
    """The document with whole numbers as text, since a hospital's words may look like numbers ("1" for male).

    Raises: StudyFileError: a bare yes or no, which YAML does not read as text.
    """
    if isinstance(value, bool):
        raise StudyFileError(
            f"{'.'.join(at)} is a bare yes, no, on, off, true or false, which YAML does not read as text; put it in "
            "quotes.",
            line=line_of(lines, *at),
        )
    if isinstance(value, dict):
        return {_name(key, at, lines): _as_words(inner, (*at, str(key)), lines) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_words(inner, (*at, str(index)), lines) for index, inner in enumerate(value)]
    if isinstance(value, int) and not (at and at[-1] in _NUMBERS):
        return str(value)
    return value


def _name(key: Any, at: tuple[str, ...], lines: Lines) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise StudyFileError(
        f"A name below {'.'.join(at) or 'the file'} is no text to YAML (a bare yes, no, true, false, a day or a "
        "number with a point); put it in quotes.",
        line=line_of(lines, *at),
    )
