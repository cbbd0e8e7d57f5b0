"""How far the records of a table are like one another: k-anonymity, l-diversity, uniqueness, and what would help.

Only counts come out. Records with the same quasi-identifiers form a class; k is the size of the smallest one, a
record alone in its class is unique. Risks by the field's words (El Emam, Dankar 2008): the *prosecutor* knows that
his target is in the table, and is right with 1/class size; the *journalist* does not, and finds him among all persons
of the population who look alike; the *marketer* names everybody and is right for classes/records of them.
l-diversity: the least number of different sensitive values in a class. The report is about the persons in the table:
it is for the hub itself, exact and not noised, and does not leave it.
Source: Sweeney 2002; Machanavajjhala et al. 2007; ISO/IEC 20889; EMA policy 0070.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from flute.defaults.records import MIN_CLASS_SIZE
from flute.deidentify.classes import Classes
from flute.errors import MisuseError

Column = Sequence[Any]
_WIDTHS: Final = (2.0, 5.0, 10.0, 20.0)
"""Of ranges that are suggested for a number, in tenths of the power of ten below its spread: 2, 5, 10, 20 years."""
_OTHER: Final = "other"
Count = Annotated[int, Meta(ge=0)]


class Risk(Struct, frozen=True):
    """Chances between 0 and 1. `journalist` is None where the population's size is not known."""

    prosecutor_highest: float
    prosecutor_mean: float
    journalist_highest: float | None
    marketer: float


class Generalisation(Struct, frozen=True):
    """What the report would be if a column were coarser. `how`: "ranges of 5", "rare levels together", "left out"."""

    column: str
    how: str
    k: Count
    unique: Count


class AnonymityReport(Struct, frozen=True):
    """records: rows. classes: different combinations. sizes: class size to number of records in such classes (1, 2, …
    up to the size that meets the highest risk, and more). diversity: sensitive column to its l. suggestions: coarser
    columns that together meet the highest risk, each told with those before it; none where nothing does."""

    quasi_identifiers: tuple[str, ...]
    records: Count
    classes: Count
    k: Count
    unique: Count
    sizes: dict[str, Count]
    diversity: dict[str, Count]
    risk: Risk
    suggestions: tuple[Generalisation, ...]
    enough: bool


def anonymity(table: Mapping[str, Column], classes: Classes, *, population: int | None = None) -> AnonymityReport:
    """Report on a table (columns of equal length, None where missing) by the classes of its variables.

    `population`: how many persons the table's rows were drawn from, where that is known.
    Raises: MisuseError: an identifier among the columns, no quasi-identifier, or columns of different lengths.
    """
    quasi = classes.named("quasi-identifier")
    if found := [name for name in classes.named("identifier") if name in table]:
        raise MisuseError(f"The column {found[0]} identifies persons; take it out before anything else is measured.")
    if not quasi or any(name not in table for name in classes.of):
        raise MisuseError("At least one column must be a quasi-identifier, and every declared column in the table.")
    lengths = {len(table[name]) for name in classes.of}
    if len(lengths) != 1 or 0 in lengths:
        raise MisuseError("The table's columns need one common length, and at least one row.")
    columns = {name: list(table[name]) for name in quasi}
    sizes = _class_sizes(columns)
    sensitive = {name: table[name] for name in classes.named("sensitive")}
    suggestions = _suggested(columns, MIN_CLASS_SIZE)
    k = min(sizes.values())
    return AnonymityReport(
        quasi_identifiers=quasi,
        records=sizes.total(),
        classes=len(sizes),
        k=k,
        unique=_unique(sizes),
        sizes=_by_size(sizes, MIN_CLASS_SIZE),
        diversity={name: _diversity(columns, values) for name, values in sensitive.items()},
        risk=_risk(sizes, population),
        suggestions=suggestions,
        enough=k >= MIN_CLASS_SIZE,
    )


def as_text(report: AnonymityReport) -> str:
    """The report in sentences."""
    risk = report.risk
    lines = [
        f"{report.records} records, {report.classes} combinations of {', '.join(report.quasi_identifiers)}.",
        f"k = {report.k}: the smallest class has {report.k} of them. {report.unique} records are unique.",
        f"Highest risk for one person whose presence is known (prosecutor): {risk.prosecutor_highest:.1%}; "
        f"on average {risk.prosecutor_mean:.1%} (as many a marketer would name rightly).",
    ]
    if risk.journalist_highest is not None:
        lines.append(
            f"Highest risk where presence is not known (journalist), estimated: {risk.journalist_highest:.1%}."
        )
    lines += [f"l = {least} for {name}." for name, least in report.diversity.items()]
    lines += [
        f"Suggested: {step.column}, {step.how}: k = {step.k}, {step.unique} unique." for step in report.suggestions
    ]
    if report.enough:
        lines.append(f"This meets a highest risk of {1 / MIN_CLASS_SIZE:.0%}.")
    elif not report.suggestions:
        lines.append(
            f"No step that we know meets a highest risk of {1 / MIN_CLASS_SIZE:.0%}; leave rare records out."
        )
    return "\n".join(lines)


def _class_sizes(columns: Mapping[str, Column]) -> Counter[tuple[Any, ...]]:
    return Counter(zip(*(map(_cell, column) for column in columns.values()), strict=True))


def _cell(value: Any) -> Any:
    """Missing values are alike; NaN is missing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _unique(sizes: Counter[tuple[Any, ...]]) -> int:
    return sum(size == 1 for size in sizes.values())


def _by_size(sizes: Counter[tuple[Any, ...]], needed: int) -> dict[str, int]:
    found = Counter(min(size, needed) for size in sizes.values() for _ in range(size))
    return {f"{size}" if size < needed else f"{needed} or more": found[size] for size in sorted(found)}


def _diversity(columns: Mapping[str, Column], sensitive: Column) -> int:
    values: defaultdict[tuple[Any, ...], set[Any]] = defaultdict(set)
    for row, value in zip(zip(*(map(_cell, c) for c in columns.values()), strict=True), sensitive, strict=True):
        values[row].add(_cell(value))
    return min(len(found) for found in values.values())


def _risk(sizes: Counter[tuple[Any, ...]], population: int | None) -> Risk:
    records, smallest = sizes.total(), min(sizes.values())
    if population is not None and population < records:
        raise MisuseError("The population cannot be smaller than the table that was drawn from it.")
    # A class of f in the table stands for about f times population / records persons.
    journalist = None if population is None else min(1.0, records / (smallest * population))
    mean = len(sizes) / records
    return Risk(1 / smallest, mean, journalist, mean)


# --- what would help ------------------------------------------------------------------------------------

_Form = tuple[str, list[Any]]


def _suggested(columns: Mapping[str, list[Any]], needed: int) -> tuple[Generalisation, ...]:
    """One level of one column at a time, always the one after which the fewest records are in classes that are too
    small; then each column back as far as it can go (Sweeney's Datafly, with a second look)."""
    ladders: dict[str, list[_Form]] = {
        name: [("", column), *_coarser(column, needed)] for name, column in columns.items()
    }
    level = dict.fromkeys(columns, 0)

    def below(levels: Mapping[str, int]) -> int:
        sizes = _class_sizes({name: ladders[name][at][1] for name, at in levels.items()})
        return sum(size for size in sizes.values() if size < needed)

    while below(level):
        higher = [{**level, name: at + 1} for name, at in level.items() if at + 1 < len(ladders[name])]
        if not higher:
            break
        level = min(higher, key=below)
    if below(level):
        return ()
    for name in sorted(level, key=lambda name: -level[name]):
        while level[name] and not below({**level, name: level[name] - 1}):
            level[name] -= 1
    return tuple(_told(ladders, level))


def _told(ladders: Mapping[str, list[_Form]], level: Mapping[str, int]) -> Iterator[Generalisation]:
    """Each changed column, with what the table is like once it and those before it are changed."""
    now = {name: forms[0][1] for name, forms in ladders.items()}
    for name, at in level.items():
        if at:
            how, now[name] = ladders[name][at]
            sizes = _class_sizes(now)
            yield Generalisation(name, how, min(sizes.values()), _unique(sizes))


def _coarser(column: list[Any], needed: int) -> list[_Form]:
    """Coarser forms of a column, the finest first. A column that says nothing has none."""
    present = [value for value in column if _cell(value) is not None]
    if len(set(map(_cell, column))) < 2:
        return []
    forms = list[_Form]()
    if present and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        spread = max(present) - min(present)
        unit = 10.0 ** math.floor(math.log10(spread)) / 10 if spread > 0 else 1.0
        forms += [(f"ranges of {w * unit:g}", [_floored(v, w * unit) for v in column]) for w in _WIDTHS]
    else:
        often = {value for value, n in Counter(map(_cell, column)).items() if n >= needed}
        forms.append(("rare levels together", [v if _cell(v) in often else _OTHER for v in column]))
    return [*forms, ("left out", [None] * len(column))]


def _floored(value: Any, width: float) -> Any:
    return None if _cell(value) is None else math.floor(value / width) * width
