"""One row per patient, as the connectors hand it on: pseudonyms, declared variables, and a report without records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NoReturn

import duckdb
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from flute.data.variables import Variable
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, Unmappable
from flute.messages.limits import Code, Count, Name

TABLE: Final = "rows"
IMAGE_TYPE: Final = "BLOB"
"""Of a snapshot's column of digests of images: no other column has it."""
_SQL_TYPES: Final = {"number": "DOUBLE", "binary": "VARCHAR", "category": "VARCHAR", "image": "VARCHAR"}

Reasons = Annotated[dict[Code, Count], Meta(max_length=64)]
PerVariable = Annotated[dict[Name, Count], Meta(max_length=256)]


class ImportReport(Struct, frozen=True, forbid_unknown_fields=True):
    """What an import found: counts by fixed words. There is no field in which a record could stand.

    files: files, or other parts of the system that were read. refused: resources (or none, for CSV) by reason.
    warnings: resources by the rule that warns of them. set_aside: resources read that no view asked for.
    excluded: patients by reason. withdrawn: patients whose records are not to be used. unmatched: rows of added
    columns about nobody in the dataset. flags: patients in the rows by a word about them. missing: rows without a
    value. unusable: rows whose value the variable's declaration does not allow (treated as missing).
    """

    source: Name
    files: Count
    resources: Count
    set_aside: Count
    refused: Reasons
    patients: Count
    excluded: Reasons
    flags: Reasons
    rows: Count
    missing: PerVariable
    unusable: PerVariable
    warnings: Reasons = {}
    withdrawn: Count = 0
    unmatched: Count = 0


@dataclass(frozen=True, slots=True)
class Rows:
    """A DuckDB table `rows`: `patient` (pseudonym, VARCHAR), then one column per variable.

    Numbers are DOUBLE, binaries and categories VARCHAR as the source spelt them, images VARCHAR, the path of a file;
    NULL where missing.
    The connection lives in this process only; nothing here can be sent or pickled.
    """

    connection: Any = field(repr=False)
    variables: tuple[Variable, ...]

    def __len__(self) -> int:
        return int(self.connection.execute(f"SELECT count(*) FROM {TABLE}").fetchall()[0][0])  # noqa: S608 a fixed name

    def __reduce__(self) -> NoReturn:
        raise MisuseError("Rows hold records; they cannot be serialised or copied to another process.")


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


SAFE_DATABASE: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "threads": "2",
}
"""Settings of every DuckDB of ours: nothing is loaded from the network."""


def database() -> Any:
    """An in-memory DuckDB that spills nothing beside its process."""
    return duckdb.connect(":memory:", config=SAFE_DATABASE)


def lock(connection: Any) -> None:
    """From here on no statement of this connection can read or write a file or a setting."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def make_rows(connection: Any, variables: Sequence[Variable], key: bytes | None) -> Rows:
    """Rows in a database of their own from the import's table `chosen` (`patient` as the source calls him, raw
    variables); raw ids stay behind. `key`: None where the ids are pseudonyms of this hub already.

    Raises: Unmappable: a patient without an id, or one who stands in two rows.
    """
    total, named, different = connection.execute(
        "SELECT count(*), count(patient), count(DISTINCT patient) FROM chosen"
    ).fetchone()
    if named != total:
        raise Unmappable(f"{total - named} rows have no patient id; every row must say whose it is.")
    if different != named:
        raise Unmappable(f"{named - different} rows repeat a patient; one row per patient is needed.")
    cells = "".join(f", {_typed(v)} AS {quoted(v.name)}" for v in variables)
    columns = connection.execute(
        f"SELECT CAST(c.patient AS VARCHAR) AS patient{cells} FROM chosen c"  # noqa: S608 identifiers are quoted
    ).fetchnumpy()
    if key is not None:
        columns["patient"] = text_column([pseudonym(key, patient) for patient in columns["patient"]])
    declared = "".join(f", {quoted(v.name)} {_SQL_TYPES[v.kind]}" for v in variables)
    own = database()
    own.execute(f"CREATE TABLE {TABLE} (patient VARCHAR{declared})")
    own.register("source", {name: plain_column(column) for name, column in columns.items()})
    own.execute(f"INSERT INTO {TABLE} SELECT * FROM source ORDER BY patient")  # noqa: S608 a fixed name
    own.unregister("source")
    return Rows(own, tuple(variables))


def plain_column(column: Any) -> NDArray[Any]:
    """A column as DuckDB hands it out, without its mask: NaN among numbers and None among text where missing."""
    if not np.ma.isMaskedArray(column):
        return np.asarray(column)
    plain = np.array(column.data)
    # Not `filled`: for None it would write numpy's own mark for "no value".
    plain[np.ma.getmaskarray(column)] = np.nan if plain.dtype.kind == "f" else None
    return plain


def _typed(variable: Variable) -> str:
    """SQL for a variable's column of `chosen`: a finite DOUBLE or NULL for a number, text for the rest."""
    column = f"c.{quoted(variable.name)}"
    if variable.kind != "number":
        return f"CAST({column} AS VARCHAR)"
    number = f"TRY_CAST(trim(CAST({column} AS VARCHAR)) AS DOUBLE)"
    return f"CASE WHEN isfinite({number}) THEN {number} END"


def text_column(values: Sequence[str | None]) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def count_cells(connection: Any, variables: Sequence[Variable]) -> tuple[dict[str, int], dict[str, int]]:
    """Per variable: rows of `chosen` without a value, and rows whose value the declaration does not allow."""
    missing, unusable = {}, {}
    for variable in variables:
        cells = connection.execute(
            f"SELECT {quoted(variable.name)} IS NULL, {_typed(variable)} FROM chosen c"  # noqa: S608 quoted
        ).fetchall()
        coded = variable.numbers(text_column([value for _, value in cells]))
        missing[variable.name] = sum(absent for absent, _ in cells)
        unusable[variable.name] = int(np.isnan(coded).sum()) - missing[variable.name]
    return missing, unusable


def counted(rows: Sequence[tuple[Any, Any]], declared_in: str) -> dict[str, int]:
    """Counts by word. Every word must be spelt out in the SQL `declared_in`, so that no value passes for one.

    Raises: Unmappable: a word that is not.
    """
    if any(f"'{word}'" not in declared_in for word, _ in rows):
        raise Unmappable("The recipe gives a reason or a flag that is not written out in its SQL.")
    return {str(word): int(count) for word, count in rows}
