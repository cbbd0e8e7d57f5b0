"""A sheet of an .xlsx workbook row by row: typed cells, formulas by their last calculated value.

A row is refused, not guessed, where a cell that is needed shows an error, was never calculated, or lies in a merged
block, of which only the first cell holds the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from flute.data.findings import Finding
from flute.defaults.records import MAX_CSV_COLUMNS
from flute.errors import Unmappable, Unreachable
from flute.tabular.workbook_check import Dead, look_through

_MENDS: Final = {
    "error": "The cell shows an error such as #N/A; correct the formula or the cell.",
    "formula": "The formula was never calculated; open the workbook in the program that made it, and save it.",
    "merged": "The cell is merged with the one above or beside it; split it, and write the value into every row.",
}


class Workbook:
    """Raises: Unreachable: no such file. Unmappable: no workbook that can be read safely; the library is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents = look_through(path)
        self._book = _opened(path)
        self.hidden = frozenset(s.name for s in self._book.sheets_metadata if not str(s.visible).endswith(".Visible"))

    def sheet(self, name: str, header_row: int) -> Sheet:
        """Raises: Unmappable: there is no such sheet, or no names of columns in that row."""
        names = self._book.sheet_names
        if name not in names:
            shown = [f"{n} (hidden)" if n in self.hidden else n for n in names]
            raise Unmappable(f"{self.path.name} has no sheet {name!r}; it has {', '.join(shown)}.")
        what = f"{self.path.name}, sheet {name}"
        return Sheet(
            what, _guarded(self._book.get_sheet_by_name, name), self._contents.dead.get(name, {}), header_row
        )


class Sheet:
    """`header`: the columns' names. `total`: rows below them."""

    def __init__(self, what: str, sheet: Any, dead: Dead, header_row: int) -> None:
        self.what = what
        self._sheet = sheet
        self._first_column = (sheet.start or (0, 0))[1]
        self._dead = dead | {
            (row, column): "merged"
            for first, last in sheet.merged_cell_ranges or ()
            for row in range(first[0], min(last[0], sheet.total_height) + 1)
            for column in range(first[1], min(last[1], sheet.total_width) + 1)
            if (row, column) != tuple(first)
        }
        self._header_row = header_row
        self.header = self._names()
        self.total = max(0, sheet.total_height - header_row)

    def _names(self) -> list[str]:
        row = next((cells for number, cells in self._numbered() if number == self._header_row), [])
        names = [str(cell).strip() for cell in row]
        if not any(names) or len(names) > MAX_CSV_COLUMNS:
            raise Unmappable(
                f"{self.what} has no names of columns in row {self._header_row}; write 'header_row: …' in the "
                "mapping if they stand elsewhere."
            )
        return names

    def _numbered(self) -> Iterator[tuple[int, list[Any]]]:
        return enumerate(self._sheet.iter_rows(), start=1)

    def rows(self, places: Sequence[int]) -> Iterator[tuple[int, list[Any] | Finding]]:
        """(row of the sheet, its cells or why they cannot be read). `places`: of the columns that are needed."""
        for number, cells in self._numbered():
            if number <= self._header_row or all(cell == "" for cell in cells):
                continue
            why = self._why_not(number - 1, places) if self._dead else None
            if why is None:
                yield number, cells
            else:
                place, kind = why
                yield number, Finding("wrong-type", self.header[place], f"cell-{kind}", kind, _MENDS[kind])

    def _why_not(self, row: int, places: Sequence[int]) -> tuple[int, str] | None:
        for place in places:
            kind = self._dead.get((row, place + self._first_column))
            if kind is not None:
                return place, kind
        return None


def _opened(path: Path) -> Any:
    try:
        from python_calamine import CalamineWorkbook
    except ImportError as error:
        raise Unmappable("Workbooks are read by python-calamine: pip install 'flute[data]'.") from error
    return _guarded(CalamineWorkbook.from_path, str(path))


def _guarded(call: Any, argument: str) -> Any:
    """The library's call; whatever it raises, a panic of its Rust part included, becomes one sentence."""
    from python_calamine import CalamineError

    try:
        return call(argument)
    except OSError as error:
        raise Unreachable(f"The workbook {Path(argument).name} cannot be read.") from error
    except BaseException as error:
        if isinstance(error, CalamineError) or type(error).__name__ == "PanicException":
            raise Unmappable(
                "The workbook cannot be read: it is damaged or has a password. Save it anew as .xlsx."
            ) from None
        raise
