"""Numbers that go together: correlations as a shaded grid, principal components as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flute.report.charts.bars import flat_bars
from flute.report.charts.grid import MAX_COLUMNS, Cell, grid_chart
from flute.report.numbers import decimal, finite, p_value, percent
from flute.report.reading import Interval, interval, mapping, sequence, texts
from flute.report.sections.figures import Figure, Table, counted, described
from flute.report.sections.shown import Answer, Asked, bounded, ends, noise_of, noted, with_unit

_MAX_COMPONENTS: Final = 8

Pair = tuple[str, str, Interval, float | None]


def correlated(asked: Asked) -> Answer:
    """Correlations with intervals, and what the principal components of the standardised numbers hold."""
    names = [asked.names.variable(n) for n in texts(asked.result.get("names"))]
    found = [[interval(cell) for cell in sequence(row)] for row in sequence(asked.result.get("correlation"))]
    if len(found) != len(names) or any(len(row) != len(names) for row in found):
        return Answer(asked.heading)
    components = mapping(mapping(asked.result.get("components")).get("correlation"))
    figures = [_grid(asked, names, found), _components(asked, components)]
    tables = (_means(asked), *_loadings(names, components))
    n = counted(interval(asked.result.get("n")))
    return Answer(
        asked.heading, tuple(f for f in figures if f is not None), tables,
        note=f"{n} patients have all of these. {asked.note}".strip(),
    )  # fmt: skip


def _grid(asked: Asked, names: Sequence[str], found: Sequence[Sequence[Interval]]) -> Figure | None:
    pairs = _pairs(asked, names, found)
    if not pairs:
        return None
    cells = [
        [Cell(decimal(c.value), c.value, ends(c, decimal)) if c.value is not None else None for c in row[:i]]
        for i, row in enumerate(found)
    ]
    strongest = max(pairs, key=lambda p: abs(p[2].value or 0.0))
    takeaway = (
        f"Strongest of {len(pairs)}: {strongest[0]} and {strongest[1]}, correlation {bounded(strongest[2], decimal)}."
    )
    title, identity = "Correlations of all pairs", f"{asked.identity}-grid"
    desc = described(takeaway, "A grid of correlations, shaded by their size.")
    drawn = len(names) <= MAX_COLUMNS
    heads = (names[1:], names[:-1])
    svg = grid_chart(identity, title, desc, ("", ""), heads, cells[1:]) if drawn else None
    rows = tuple(
        (f"{a} and {b}", decimal(c.value, 3), ends(c, lambda v: decimal(v, 3)), noise_of(c), p_value(p))
        for a, b, c, p in pairs
    )
    table = Table(title, ("Pair", "Correlation", "95% interval", "Noise (SE)", "p"), rows)
    note = "Under each figure its 95% interval." if drawn else "Too many numbers to draw; see the table."
    return Figure(identity, title, takeaway, svg, table, note)


def _pairs(asked: Asked, names: Sequence[str], found: Sequence[Sequence[Interval]]) -> list[Pair]:
    raw = [sequence(row) for row in sequence(asked.result.get("correlation"))]
    return [
        (names[j], names[i], found[i][j], finite(mapping(raw[i][j]).get("p")))
        for i in range(len(names))
        for j in range(i)
        if found[i][j].value is not None
    ]


def _components(asked: Asked, components: Mapping[str, Any]) -> Figure | None:
    told = [finite(s) for s in sequence(components.get("shares"))]
    shares = [s for s in told if s is not None]
    if not shares or len(shares) != len(told):
        return None
    first = sum(shares[:2])
    takeaway = f"The first component holds {percent(shares[0])} of the variance, the first two {percent(first)}."
    title, identity = "Principal components: share of the variance", f"{asked.identity}-components"
    bars = [(f"component {i + 1}", max(s, 0.0)) for i, s in enumerate(shares[:_MAX_COMPONENTS])]
    svg = flat_bars(identity, title, described(takeaway, "Bars of shares."), bars, lambda v: percent(v, 1))
    values = [interval(e) for e in sequence(components.get("eigenvalues"))]
    rows = tuple(
        (f"component {i + 1}", percent(s, 1), noted(values[i]) if i < len(values) else "")
        for i, s in enumerate(shares)
    )
    table = Table("Components of the standardised numbers", ("Component", "Share", "Eigenvalue"), rows)
    return Figure(identity, title, takeaway, svg, table)


def _loadings(names: Sequence[str], components: Mapping[str, Any]) -> tuple[Table, ...]:
    loadings = [[finite(v) for v in sequence(row)] for row in sequence(components.get("loadings"))]
    if not loadings or any(len(row) != len(names) for row in loadings):
        return ()
    head = ("Number", *(f"component {i + 1}" for i in range(min(len(loadings), _MAX_COMPONENTS))))
    rows = tuple((name, *(decimal(row[k]) for row in loadings[:_MAX_COMPONENTS])) for k, name in enumerate(names))
    return (Table("What each component is made of", head, rows),)


def _means(asked: Asked) -> Table:
    means, sds = mapping(asked.result.get("means")), mapping(asked.result.get("sds"))
    rows = tuple(
        (
            with_unit(asked.names.variable(name), asked.names.unit(name)),
            noted(interval(mean)),
            ends(interval(mean)),
            noted(interval(sds.get(name))),
        )
        for name, mean in means.items()
    )
    return Table("The numbers by themselves", ("Number", "Mean", "95% interval", "SD"), rows)
