"""The simulated pilot as tables: CSV files, a hospital's database, an OMOP database. SIMULATED, all of it.

Every export comes with the mapping file that turns it back into the common model, and gives the same table as the
FHIR files of the same men. `varied` writes the same men as another hospital would.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal

import sqlalchemy as sa

from flute.pilot.hospital import Sheet, hospital_tables
from flute.pilot.mappings import mapping_text
from flute.pilot.omop import omop_tables
from flute.pilot.resources import Man

Form = Literal["csv", "sql", "omop"]
NOTICE: Final = "SIMULATED. No patient stands behind any row here. Drawn by flute.pilot.simulate."
_TYPES: Final[dict[type, Any]] = {
    str: sa.Text(), int: sa.BigInteger(), date: sa.Date(), datetime: sa.DateTime(),
    float: sa.Numeric(asdecimal=False),
}  # fmt: skip


def write_tables(men: Sequence[Man], folder: Path, form: Form, *, varied: bool = False) -> Path:
    """Write the men into `folder` with a notice and `mapping.yaml`; give what an import is pointed at: the folder
    itself for CSV files, `hospital.db` in it for an SQLite database in the hospital's own form or in OMOP's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SIMULATED.txt").write_text(NOTICE + "\n", encoding="utf-8")
    name = f"{form}-varied" if varied and form != "omop" else form
    (folder / "mapping.yaml").write_text(mapping_text(name), encoding="utf-8")
    if form == "csv":
        write_csv(men, folder, varied=varied)
        return folder
    database = folder / "hospital.db"
    database.unlink(missing_ok=True)
    write = write_sql if form == "sql" else write_omop
    write(men, f"sqlite:///{database}", varied=varied)
    return database


def write_csv(men: Sequence[Man], folder: Path, *, varied: bool = False) -> None:
    """One CSV file per table: UTF-8 with commas; `varied`: cp1252 with semicolons."""
    for sheet in hospital_tables(men, varied=varied):
        with (folder / f"{sheet.name}.csv").open("w", encoding="cp1252" if varied else "utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=";" if varied else ",", lineterminator="\n")
            writer.writerow(sheet.columns)
            writer.writerows(["" if cell is None else str(cell) for cell in row] for row in sheet.rows)


def write_sql(men: Sequence[Man], url: str, *, varied: bool = False) -> None:
    """The hospital's tables into the database at `url` (any of SQLAlchemy's); tables of these names are replaced."""
    _write(url, hospital_tables(men, varied=varied))


def write_omop(men: Sequence[Man], url: str, *, varied: bool = False) -> None:
    """OMOP's tables into the database at `url`; tables of these names are replaced."""
    _write(url, omop_tables(men, varied=varied))


def _write(url: str, sheets: Sequence[Sheet]) -> None:
    notice = Sheet("simulated", {"id": int, "notice": str}, ((1, NOTICE),))
    metadata = sa.MetaData()
    tables = [(_table(sheet, metadata), sheet) for sheet in (*sheets, notice)]
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            metadata.drop_all(connection)
            metadata.create_all(connection)
            for table, sheet in tables:
                rows = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
                if rows:
                    connection.execute(table.insert(), rows)
    finally:
        engine.dispose()


def _table(sheet: Sheet, metadata: sa.MetaData) -> sa.Table:
    key = next(iter(sheet.columns))
    columns: list[sa.Column[Any]] = [
        sa.Column(name, _TYPES[kind], primary_key=name == key, autoincrement=False)
        for name, kind in sheet.columns.items()
    ]
    return sa.Table(sheet.name, metadata, *columns)
