"""Statistics that were computed on shares, as tables: quantiles, and tests of difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flute.report.model import Report
from flute.report.numbers import decimal, finite, p_value, short
from flute.report.reading import Names, mapping, results
from flute.report.sections.figures import Table


def statistics_tables(report: Report) -> list[Table]:
    """One table of quantiles for each question that asked for some, and one of all tests of a study."""
    tables: list[Table] = []
    tests: dict[str, list[tuple[str, ...]]] = {}
    for names, reference, result in results(report):
        quantiles = list(_quantiles(names, mapping(result.get("variables"))))
        if quantiles:
            caption = f"{names.model(reference)}: quantiles over all hubs, exact on a public grid"
            tables.append(Table(caption, ("Variable", "Percent", "Value", "Grid step"), tuple(quantiles), (0,)))
        row = _test(names, reference, result)
        if row is not None:
            tests.setdefault(names.study.title, []).append(row)
    head = ("Question", "Test", "Statistic", "Degrees of freedom", "p")
    tables += [Table(f"{title}: do groups differ?", head, tuple(rows), (0, 1)) for title, rows in tests.items()]
    return tables


def _quantiles(names: Names, variables: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, raw in variables.items():
        found = mapping(raw)
        step = finite(found.get("grid_step"))
        if step is None:  # a description, which has a section of its own
            continue
        unit = names.unit(name)
        label = f"{names.variable(name)} ({unit})" if unit else names.variable(name)
        grid = f"{short(step)} of the logarithm" if found.get("grid_of_logarithms") else short(step)
        for percent, value in mapping(found.get("quantiles")).items():
            number = finite(value)
            if number is not None:
                yield label, str(percent), decimal(number, 2), grid


def _test(names: Names, reference: str, result: Mapping[str, Any]) -> tuple[str, ...] | None:
    statistic, degrees, p = (finite(result.get(k)) for k in ("statistic", "degrees_of_freedom", "p"))
    exact = result.get("test") == "Fisher's exact"
    if p is None or (not exact and (statistic is None or degrees is None)):
        return None
    test = result.get("test") if isinstance(result.get("test"), str) else "log-rank"
    numbers = ["" if value is None else decimal(value, places) for value, places in ((statistic, 2), (degrees, 0))]
    return names.model(reference), str(test), *numbers, p_value(p)
