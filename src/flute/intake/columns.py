"""More columns for patients who are in a dataset already: image features, a vendor's measurements, a registry.

The file is CSV with one row per patient. It never adds a patient; rows about somebody who is not in the dataset are
counted and passed over.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.intake.flat import read_csv
from flute.intake.rows import TABLE, ImportReport, Rows, plain_column, quoted, text_column


def with_columns(
    rows: Rows,
    report: ImportReport,
    path: Path,
    variables: tuple[Variable, ...],
    *,
    key: bytes | None,
    id_column: str,
) -> tuple[Rows, ImportReport]:
    """The dataset with these variables beside its own, missing where the file says nothing of a patient.

    `key`: the hub's own, where `id_column` has the hospital's patient ids; None where it has the hub's pseudonyms.
    Raises: Unreachable, Unmappable: the file, see `flat.read_csv`. MisuseError: a variable that is there already.
    """
    twice = sorted({v.name for v in rows.variables} & {v.name for v in variables})
    if twice:
        raise MisuseError(f"The dataset has {', '.join(twice)} already; give the added columns other names.")
    more, _ = read_csv(path, variables, key=key, id_column=id_column)
    added = len(more)
    columns = more.connection.execute(f"SELECT * FROM {TABLE}").fetchnumpy()  # noqa: S608 a fixed name
    rows.connection.register("more", {name: plain_column(column) for name, column in columns.items()})
    cells = ", ".join(f"m.{quoted(v.name)}" for v in variables)
    rows.connection.execute(
        f"CREATE TABLE joined AS SELECT r.*, {cells} FROM {TABLE} r LEFT JOIN more m USING (patient)"  # noqa: S608 quoted
    )
    ((matched,),) = rows.connection.execute(
        f"SELECT count(*) FROM more SEMI JOIN {TABLE} USING (patient)"  # noqa: S608 a fixed name
    ).fetchall()
    rows.connection.unregister("more")
    rows.connection.execute(f"DROP TABLE {TABLE}")
    rows.connection.execute(f"ALTER TABLE joined RENAME TO {TABLE}")
    joined = Rows(rows.connection, (*rows.variables, *variables))
    return joined, _counted(joined, report, variables, unmatched=added - int(matched))


def _counted(rows: Rows, report: ImportReport, variables: tuple[Variable, ...], *, unmatched: int) -> ImportReport:
    missing, unusable = dict(report.missing), dict(report.unusable)
    for variable in variables:
        cells = rows.connection.execute(f"SELECT {quoted(variable.name)} FROM {TABLE}").fetchall()  # noqa: S608 quoted
        values = [cell for (cell,) in cells]
        missing[variable.name] = sum(value is None for value in values)
        unusable[variable.name] = int(np.isnan(variable.numbers(text_column(values))).sum()) - missing[variable.name]
    return msgspec.structs.replace(
        report, missing=missing, unusable=unusable, files=report.files + 1, unmatched=report.unmatched + unmatched
    )
