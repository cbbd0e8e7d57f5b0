"""What a workbook holds, looked through before the library that reads it: a bomb would end the process, not the file.

Every part is inflated here once, in pieces and up to a limit, whatever the archive says about its size; no part may
declare a document type; and every sheet's cells are counted, since the reader makes room for the whole rectangle
up to the last one. On the way, cells are noted that show nothing to the reader though something stands in them: an
error such as #N/A, and a formula that no program has calculated yet.
Source: ECMA-376 (Open Packaging Conventions, SpreadsheetML).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final
from xml.parsers import expat

from flute.defaults.records import (
    MAX_SHEET_CELLS,
    MAX_SHEET_DEAD_CELLS,
    MAX_WORKBOOK_BYTES,
    MAX_WORKBOOK_INFLATED_BYTES,
    MAX_WORKBOOK_MEMBERS,
)
from flute.errors import Unmappable, Unreachable

_PIECE: Final = 2**18
_REFERENCE: Final = re.compile(r"([A-Z]{1,3})([0-9]{1,7})\Z")
_LOCAL_HEADER_BYTES: Final = 30
Dead = dict[tuple[int, int], str]
"""(row, column), from 0, of cells that show nothing: "error" or "formula"."""


@dataclass(slots=True)
class Contents:
    """Of a workbook: sheet name to the dead cells of the sheet."""

    dead: dict[str, Dead] = field(default_factory=dict)


def look_through(path: Path) -> Contents:
    """Raises: Unreachable: no such file. Unmappable: no workbook, or not one that can be read safely."""
    try:
        if path.stat().st_size > MAX_WORKBOOK_BYTES:
            raise Unmappable(f"{path.name} is larger than {MAX_WORKBOOK_BYTES} bytes; save its sheets as CSV files.")
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            parts = _parts(path.name, file, archive.infolist())
            return Contents(_by_name(parts))
    except OSError as error:
        raise Unreachable(f"There is no file {path.name} that can be read.") from error
    except (zipfile.BadZipFile, zlib.error, expat.ExpatError, UnicodeError, NotImplementedError) as error:
        raise Unmappable(
            f"{path.name} is no .xlsx workbook that can be read, or it has a password; save it anew as .xlsx."
        ) from error


def _parts(name: str, file: BinaryIO, members: list[zipfile.ZipInfo]) -> dict[str, _Part]:
    names = [member.filename for member in members]
    if len(names) > MAX_WORKBOOK_MEMBERS or len({n.lower() for n in names}) < len(names):
        raise Unmappable(f"{name} holds far more parts than a workbook has, or a part twice.")
    room = MAX_WORKBOOK_INFLATED_BYTES
    parts: dict[str, _Part] = {}
    for member in members:
        part = _Part(name)
        for piece in _inflated(file, member):
            room -= len(piece)
            if room < 0:
                raise Unmappable(
                    f"{name} unpacks to more than {MAX_WORKBOOK_INFLATED_BYTES} bytes; save its sheets as CSV files."
                )
            if member.filename.endswith((".xml", ".rels")):
                part.feed(piece)
        if member.filename.endswith((".xml", ".rels")):
            part.end()
        parts[member.filename] = part
    return parts


def _inflated(file: BinaryIO, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """A part's bytes to the end of its compressed stream, not only as far as the archive says."""
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile("encrypted, or compressed in a way that no workbook is")
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER_BYTES)
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
    left = member.compress_size
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    while left > 0 and (raw := file.read(min(left, _PIECE))):
        left -= len(raw)
        if member.compress_type == zipfile.ZIP_STORED:
            yield raw
            continue
        while raw and not inflate.eof:
            yield inflate.decompress(raw, _PIECE)
            raw = inflate.unconsumed_tail


class _Part:
    """One XML part, read as a stream: what its root is, and of a sheet its cells; of the workbook its sheets."""

    def __init__(self, file: str) -> None:
        self.dead: Dead = {}
        self.relations: dict[str, str] = {}
        self.sheets: list[tuple[str, str]] = []
        self.root = ""
        self._file = file
        self._rows = self._columns = 0
        self._at = (-1, -1)
        self._cell: tuple[str, bool, bool] | None = None
        self._text = False
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._stop
        self._parser.CharacterDataHandler = self._said
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, piece: bytes) -> None:
        self._parser.Parse(piece, False)

    def end(self) -> None:
        self._parser.Parse(b"", True)

    def _doctype(self, *_: object) -> None:
        raise Unmappable(f"{self._file} declares a document type in its XML, which no workbook does; it is not read.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        self.root = self.root or name
        if name == "Relationship":
            self.relations[attributes.get("Id", "")] = attributes.get("Target", "")
        elif name == "sheet" and self.root == "workbook":
            key = next((v for k, v in attributes.items() if k.rpartition(":")[2] == "id"), "")
            self.sheets.append((attributes.get("name", ""), key))
        elif self.root != "worksheet":
            return
        elif name == "row":
            row = int(attributes["r"]) - 1 if attributes.get("r", "").isdecimal() else self._at[0] + 1
            self._at = (row, -1)
        elif name == "c":
            self._at = self._place(attributes.get("r"))
            self._cell = (attributes.get("t", ""), False, False)
        elif name in ("v", "t", "is"):
            self._text = True
        elif name == "f" and self._cell is not None:
            self._cell = (self._cell[0], True, self._cell[2])

    def _place(self, reference: str | None) -> tuple[int, int]:
        match = _REFERENCE.match(reference) if reference is not None else None
        if match is None:
            return self._at[0], self._at[1] + 1
        column = 0
        for letter in match[1]:
            column = column * 26 + ord(letter) - 64
        return int(match[2]) - 1, column - 1

    def _said(self, text: str) -> None:
        if self._text and self._cell is not None and text.strip():
            self._cell = (*self._cell[:2], True)

    def _stop(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if name in ("v", "t", "is"):
            self._text = False
        elif name == "c" and self._cell is not None:
            self._end_cell(*self._cell)
            self._cell = None

    def _end_cell(self, kind: str, formula: bool, value: bool) -> None:
        if kind == "e" or (formula and not value):
            self.dead[self._at] = "error" if kind == "e" else "formula"
        if not (value or formula):
            return
        self._rows, self._columns = max(self._rows, self._at[0] + 1), max(self._columns, self._at[1] + 1)
        if self._rows * self._columns > MAX_SHEET_CELLS or len(self.dead) > MAX_SHEET_DEAD_CELLS:
            raise Unmappable(
                f"A sheet of {self._file} reaches over more than {MAX_SHEET_CELLS} cells, or has more than "
                f"{MAX_SHEET_DEAD_CELLS} that show errors; delete what stands far out, or save it as a CSV file."
            )


def _by_name(parts: dict[str, _Part]) -> dict[str, Dead]:
    """Sheets by their names, as the workbook lists them."""
    workbook = next((name for name, part in parts.items() if part.root == "workbook"), None)
    if workbook is None:
        raise zipfile.BadZipFile("no workbook in it")
    folder, _, file = workbook.rpartition("/")
    relations = parts.get(f"{folder}/_rels/{file}.rels".removeprefix("/"))
    targets = relations.relations if relations is not None else {}
    found: dict[str, Dead] = {}
    for name, key in parts[workbook].sheets:
        target = targets.get(key, "")
        path = target.removeprefix("/") if target.startswith("/") else f"{folder}/{target}".removeprefix("/")
        found[name] = parts[path].dead if path in parts else {}
    return found
