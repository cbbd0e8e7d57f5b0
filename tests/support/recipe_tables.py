"""A recipe's views and SQL over resources in memory, without an import around them: what they say of a patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import duckdb
import msgspec

from flute.intake.recipe import Recipe
from flute.intake.rows import quoted, text_column
from flute.views.view import compile_view


def plain(resources: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Copies as they would come out of a file."""
    return [msgspec.json.decode(msgspec.json.encode(resource)) for resource in resources]


def tables_of(resources: Iterable[dict[str, Any]], recipe: Recipe) -> duckdb.DuckDBPyConnection:
    """A database with one table per view of the recipe."""
    views = {name: compile_view(name, declaration) for name, declaration in recipe.views.items()}
    by_type: dict[str, list[str]] = defaultdict(list)
    for name, view in views.items():
        by_type[view.resource].append(name)
    rows: dict[str, list[Any]] = {name: [] for name in views}
    for resource in resources:
        for name in by_type[resource["resourceType"]]:
            rows[name] += views[name].rows(resource)
    connection = duckdb.connect(config={"threads": "1"})
    for name, view in views.items():
        columns = ", ".join(f"{quoted(c.name)} {c.sql_type}" for c in view.columns)
        connection.execute(f"CREATE TABLE {quoted(name)} ({columns})")
        if rows[name]:
            cells = zip(*rows[name], strict=True)
            told = [[None if cell is None else str(cell) for cell in column] for column in cells]
            connection.register("batch", {c.name: text_column(v) for c, v in zip(view.columns, told, strict=True)})
            connection.execute(f"INSERT INTO {quoted(name)} SELECT * FROM batch")
            connection.unregister("batch")
    return connection


def result_of(resources: Iterable[dict[str, Any]], recipe: Recipe) -> duckdb.DuckDBPyConnection:
    """The same with the recipe's rows as temporary table `result`."""
    connection = tables_of(resources, recipe)
    connection.execute(f"CREATE TEMP TABLE result AS SELECT * FROM ({recipe.sql})")
    return connection


def decisions(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Patient to (reason or empty, flags)."""
    found = connection.execute("SELECT patient, excluded, flags FROM result").fetchall()
    return {patient: (excluded or "", tuple(flags)) for patient, excluded, flags in found}
