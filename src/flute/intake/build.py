"""From a folder of FHIR exports to one row per patient, by a recipe: views make tables, SQL makes the rows.

Steps, in order: 1 resources are read and checked one by one   2 each view of the resource's type adds its
rows   3 the database is locked: no statement of the recipe can reach a file   4 the recipe's refusals are
counted; a refused resource of a transaction bundle takes its bundle out, and the import starts anew without
it   5 the recipe's SQL makes the rows   6 patients get the hub's pseudonyms; ids and raw tables are gone.

Recipes are declarations that ship with the software or lie in the hub's folder; none arrives over the wire.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np

from flute.connectors.files import BUNDLE_REFUSED, WRONG_TYPE, Folder, Found
from flute.data.source import Recipe
from flute.defaults import IMPORT_BATCH_ROWS
from flute.errors import MisuseError, Unmappable
from flute.intake.rows import (
    ImportReport,
    Rows,
    count_cells,
    counted,
    database,
    lock,
    make_rows,
    quoted,
    text_column,
)
from flute.views.view import DoesNotFit, Row, View, compile_view

_TEXTS_WITHOUT_VALUES: Final = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)
"""DuckDB's other errors may quote a value."""


def build(folder: Path, recipe: Recipe, *, key: bytes) -> tuple[Rows, ImportReport]:
    """Import a folder. `key`: the hub's own 32 bytes, for pseudonyms.

    The recipe's SQL gives `patient`, one column per variable, and optionally `excluded` (a reason, NULL where
    the patient is in) and `flags` (a list of words about him). A SQL of `refusals` gives one row per refused
    resource, its first column being "Type/id".

    Raises: Unreachable: the folder cannot be read. Unmappable: a view or the SQL cannot be carried out, or
    does not give one row per patient.
    """
    views = {name: compile_view(name, declaration) for name, declaration in recipe.views.items()}
    by_type: dict[str, list[View]] = defaultdict(list)
    for view in views.values():
        by_type[view.resource].append(view)
    given_up: frozenset[int] = frozenset()
    culprits: Counter[str] = Counter()
    while True:
        read = Folder(folder, given_up)
        tables = _Tables(views)
        for found in read:
            tables.take(found, by_type.get(found.resource["resourceType"], ()))
        tables.finish()
        lock(tables.connection)
        refused, in_bundles = _refusals(tables, recipe)
        if not in_bundles:
            # Resources that took a transaction out keep their own reason; the rest of it went along.
            read.refused.update(culprits)
            read.refused[BUNDLE_REFUSED] -= culprits.total()
            return _rows(tables, recipe, read, refused, key)
        tables.connection.close()
        culprits.update(reason for _, reason in in_bundles)
        given_up |= {bundle for bundle, _ in in_bundles}


class _Tables:
    """The views' rows on their way into DuckDB, in batches."""

    def __init__(self, views: dict[str, View]) -> None:
        self.connection = database()
        self.refused: Counter[str] = Counter()
        self.set_aside = 0
        self.bundle_of: dict[str, int] = {}
        self.in_bundles: list[tuple[int, str]] = []
        self._views = views
        self._rows: dict[str, list[Row]] = {name: [] for name in views}
        for view in views.values():
            columns = ", ".join(f"{quoted(c.name)} {c.sql_type}" for c in view.columns)
            self.connection.execute(f"CREATE TABLE {quoted(view.name)} ({columns})")

    def take(self, found: Found, views: Sequence[View]) -> None:
        """Add a resource's rows to every view of its type; a resource that does not fit one is in none."""
        resource = found.resource
        if found.bundle:
            self.bundle_of[f"{resource['resourceType']}/{resource['id']}"] = found.bundle
        try:
            made = [(view.name, view.rows(resource)) for view in views]
        except DoesNotFit:
            self.refused[WRONG_TYPE] += 1
            if found.bundle:
                self.in_bundles.append((found.bundle, WRONG_TYPE))
            return
        if not any(rows for _, rows in made):
            self.set_aside += 1
        for name, rows in made:
            waiting = self._rows[name]
            waiting += rows
            if len(waiting) >= IMPORT_BATCH_ROWS:
                self._flush(name)

    def finish(self) -> None:
        for name in self._views:
            self._flush(name)

    def _flush(self, name: str) -> None:
        rows, self._rows[name] = self._rows[name], []
        if not rows:
            return
        columns = self._views[name].columns
        cells = zip(*rows, strict=True)
        batch = {c.name: _column(c.sql_type, values) for c, values in zip(columns, cells, strict=True)}
        self.connection.register("batch", batch)
        selected = ", ".join(f"CAST({quoted(c.name)} AS {c.sql_type})" for c in columns)
        self.connection.execute(f"INSERT INTO {quoted(name)} SELECT {selected} FROM batch")  # noqa: S608 quoted
        self.connection.unregister("batch")


def _column(sql_type: str, values: Sequence[Any]) -> Any:
    """NaN becomes NULL; whole numbers of FHIR fit a double exactly."""
    if sql_type == "VARCHAR":
        return text_column(values)
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _refusals(tables: _Tables, recipe: Recipe) -> tuple[Counter[str], list[tuple[int, str]]]:
    """Resources the recipe refuses, by reason; and for those of a transaction, its number and the reason."""
    refused = Counter(tables.refused)
    in_bundles = list(tables.in_bundles)
    for reason, sql in recipe.refusals.items():
        keys = [str(row[0]) for row in _query(tables.connection, sql, f"refusal {reason}").fetchall()]
        refused[reason] += len(keys)
        in_bundles += [(tables.bundle_of[key], reason) for key in keys if key in tables.bundle_of]
    return refused, in_bundles


def _rows(
    tables: _Tables, recipe: Recipe, read: Folder, refused: Counter[str], key: bytes
) -> tuple[Rows, ImportReport]:
    connection = tables.connection
    _query(connection, f"CREATE TABLE result AS SELECT * FROM ({recipe.sql})", "SQL")  # noqa: S608 the hub's own recipe
    names = {row[0] for row in connection.execute("DESCRIBE result").fetchall()}
    absent = sorted({"patient", *(v.name for v in recipe.variables)} - names)
    if absent:
        raise Unmappable(f"The SQL of recipe {recipe.name} gives no column {', '.join(absent)}.")
    inside = "excluded IS NULL" if "excluded" in names else "true"
    excluded, flags = _excluded(connection, recipe, names), _flags(connection, recipe, names, inside)
    patients = int(connection.execute("SELECT count(*) FROM result").fetchone()[0])
    connection.execute(f"CREATE TABLE chosen AS SELECT * FROM result WHERE {inside}")  # noqa: S608 fixed text
    missing, unusable = count_cells(connection, recipe.variables)
    rows = make_rows(connection, recipe.variables, key)
    report = ImportReport(
        source=recipe.name,
        files=read.files,
        resources=read.resources,
        set_aside=tables.set_aside,
        refused=dict(sorted((+(refused + read.refused)).items())),
        patients=patients,
        excluded=excluded,
        flags=flags,
        rows=len(rows),
        missing=missing,
        unusable=unusable,
    )
    return rows, report


def _excluded(connection: Any, recipe: Recipe, names: set[str]) -> dict[str, int]:
    if "excluded" not in names:
        return {}
    found = connection.execute(
        "SELECT excluded, count(*) FROM result WHERE excluded IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return counted(found, recipe.sql)


def _flags(connection: Any, recipe: Recipe, names: set[str], inside: str) -> dict[str, int]:
    if "flags" not in names:
        return {}
    found = connection.execute(
        f"SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM result WHERE {inside}) "  # noqa: S608 fixed text
        "WHERE flag IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return counted(found, recipe.sql)


def _query(connection: Any, sql: str, what: str) -> Any:
    """Raises: Unmappable: DuckDB will not carry it out; MisuseError: it is more than one statement."""
    try:
        if len(duckdb.extract_statements(sql)) != 1:
            raise MisuseError(f"The recipe's {what} must be one statement.")
        return connection.execute(sql)
    except _TEXTS_WITHOUT_VALUES as error:
        raise Unmappable(f"The recipe's {what} does not fit its views: {error}") from error
    except duckdb.Error:
        raise Unmappable(f"The recipe's {what} failed on these records; the data does not fit it.") from None
