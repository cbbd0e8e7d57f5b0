"""A small synthetic table for developers: made from what is published, never from records.

The model is plain, and says so: every column is drawn by itself (columns are independent of each other), a number
from its released histogram and evenly within a bin, a category from its released shares, a gap with the released
share of missing values. Where nothing was released, a number is even over its declared range, every level is as
likely as any other, and nothing is missing. So the sample has the right columns, units, levels and rough
proportions, and none of the associations between them: it is for trying code, not for learning anything.

It costs no budget, being made of released numbers alone, and its chance is no secret: the same numbers give the
same sample, byte for byte.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from flute.catalogue.entry import Entry
from flute.catalogue.statistics import Figures
from flute.data.variables import Array, Variable
from flute.errors import MisuseError
from flute.primitives.keys import digest
from flute.primitives.prg import keystream

SAMPLE_ROWS: Final = 100
"""A fixed number: how many persons there are must not show."""
MODEL: Final = (
    "SYNTHETIC. No row is of a person: every column was drawn by itself from what the catalogue entry publishes "
    "(released histograms and shares under noise, or the declared range where nothing was released). Columns are "
    "independent of each other, so associations in this table mean nothing. For trying code only."
)
_DIGITS: Final = 4
"""Significant digits of a drawn number; more would only look like precision."""
Row = Mapping[str, str]
"""Variable to its value as a table has it; a missing value is not in it."""
Build = Callable[[str, Row], Iterable[Mapping[str, Any]]]
"""(person's id, row) to FHIR resources; the common model's, passed in by whoever knows it."""


def sample_name(entry: Entry) -> str:
    """Stem of the files: says what they are wherever they are copied to."""
    return f"{entry.declared.dataset}-SYNTHETIC"


def sample_rows(entry: Entry, rows: int = SAMPLE_ROWS) -> list[tuple[str, Row]]:
    """(id, values) of `rows` persons that do not exist; every id says SYNTHETIC."""
    drawn = {v.variable.name: _column(v.variable, entry, rows) for v in entry.variables}
    return [
        (f"SYNTHETIC-{i + 1:04d}", {name: values[i] for name, values in drawn.items() if values[i]})
        for i in range(rows)
    ]


def sample_csv(entry: Entry, rows: int = SAMPLE_ROWS) -> bytes:
    """UTF-8 with a header line; the first column, `patient`, says SYNTHETIC in every row. There is no comment line:
    CSV has none (RFC 4180), and readers would take it for the header."""
    file = io.StringIO()
    names = [v.variable.name for v in entry.variables]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["patient", *names])
    writer.writerows([person, *(row.get(name, "") for name in names)] for person, row in sample_rows(entry, rows))
    return file.getvalue().encode()


def sample_ndjson(entry: Entry, build: Build, rows: int = SAMPLE_ROWS) -> bytes:
    """The same persons as FHIR resources, one a line, each tagged as test data (HTEST) and SYNTHETIC.

    Source: FHIR R4, Resource.meta.tag; HL7 v3 ActReason, HTEST."""
    lines = []
    for person, row in sample_rows(entry, rows):
        for resource in build(person, row):
            meta = dict(resource.get("meta", {}))
            meta["tag"] = [*meta.get("tag", []), *_TAGS]
            lines.append(msgspec.json.encode({**resource, "meta": meta}))
    return b"".join(line + b"\n" for line in lines)


_TAGS: Final = (
    {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST", "display": "test health data"},
    {"system": "urn:flute:label", "code": "SYNTHETIC", "display": "SYNTHETIC: no person behind this"},
)


def sidecar(entry: Entry) -> bytes:
    """The note that lies beside the sample's files."""
    d, statistics = entry.declared, entry.statistics
    made = statistics.sentence if statistics else "Nothing was released of this dataset yet: declared ranges only."
    head = "SIMULATED dataset. " if entry.simulated else ""
    return f"{head}{entry.title}\n\n{MODEL}\n\n{made}\n\nEntry: {d.address}\nSnapshot: {entry.snapshot}\n".encode()


def _column(variable: Variable, entry: Entry, rows: int) -> Sequence[str]:
    """`rows` values as text, empty where missing; no image is made up."""
    if variable.kind == "image":
        return [""] * rows
    released = entry.statistics.figures(variable.name) if entry.statistics else None
    chance = _uniform(entry, variable.name, 3, rows)
    gap = released.missing_share if released else 0.0
    drawn = (
        _numbers(variable, released, chance[1:])
        if variable.kind == "number"
        else _levels(variable, released, chance[1])
    )
    return ["" if u < gap else value for u, value in zip(chance[0].tolist(), drawn, strict=True)]


def _numbers(variable: Variable, released: Figures | None, chance: Array) -> list[str]:
    counts = np.array(released.counts if released else ())
    if counts.size == 0 or counts.sum() <= 0:
        counts = np.ones(1)
    edges = np.linspace(variable.low, variable.high, len(counts) + 1)
    bins = np.minimum(np.searchsorted(np.cumsum(counts) / counts.sum(), chance[0], side="right"), len(counts) - 1)
    values = edges[bins] + chance[1] * (edges[bins + 1] - edges[bins])
    texts = [f"{value:.{_DIGITS}g}" for value in values.tolist()]
    return [
        t if variable.low <= float(t) <= variable.high else repr(v)
        for t, v in zip(texts, values.tolist(), strict=True)
    ]


def _levels(variable: Variable, released: Figures | None, chance: Array) -> list[str]:
    names = variable.levels if variable.kind == "category" else ("0", "1")
    counts = np.array([released.levels[n].value or 0.0 for n in names] if released else np.ones(len(names)))
    if counts.sum() <= 0:
        counts = np.ones(len(names))
    index = np.searchsorted(np.cumsum(counts) / counts.sum(), chance, side="right")
    return [names[i] for i in np.minimum(index, len(names) - 1).tolist()]


def _uniform(entry: Entry, column: str, series: int, rows: int) -> Array:
    """[series, rows] numbers in [0, 1), from what is published alone."""
    if not 1 <= rows <= 100_000:
        raise MisuseError("A sample has 1 to 100,000 rows.")
    published = msgspec.msgpack.encode((entry.snapshot, entry.statistics, [v.variable for v in entry.variables]))
    stream = keystream(digest(b"flute/sample/v1", published, column.encode()), 8 * series * rows)
    return (np.frombuffer(stream, dtype="<u8") >> 11).astype(np.float64).reshape(series, rows) * 2.0**-53
