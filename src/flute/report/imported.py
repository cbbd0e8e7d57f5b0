"""The report of an import as one self-contained page: what was taken, what was refused and how to mend it, who is in.

It is for the hospital's own eyes: it quotes values that were refused and counts that may be small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from markupsafe import Markup

from flute.cohort.drawing import flow_svg
from flute.cohort.flow import Flow, flow_table
from flute.deidentify.anonymity import AnonymityReport, as_text
from flute.report.charts.bars import flat_bars
from flute.report.numbers import count, percent, plural, when
from flute.report.page import Tile
from flute.report.render import pages
from flute.report.sections.figures import Figure, Table

EXAMPLES: Final = 3
"""Places that are named per kind of refusal; a data manager mends the export, not one line of it."""
_ORDER: Final = ("variable", "rows with a value", "missing", "not usable")

_REFUSED: Final = ("records refused", "record refused, with its reason", "records refused, with reasons")
"""Of none, one, more."""


@dataclass(frozen=True, slots=True)
class RefusalShown:
    """All refusals of one rule at one element. `examples`: (where, what stood there)."""

    reason: str
    path: str
    rule: str
    mend: str
    resources: str
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ImportPage:
    title: str
    dataset: str
    made: str
    simulated: bool
    tiles: tuple[Tile, ...]
    flow: Markup | None
    steps: Table | None
    refusals: tuple[RefusalShown, ...]
    more: str
    warnings: Table | None
    alarms: tuple[tuple[str, str], ...]
    values: Figure
    alike: tuple[str, ...]


def render_import(ended: Mapping[str, Any], *, at: int, simulated: bool) -> str:
    """`ended`: the last state of an import, as the hub's door tells it. `at`: Unix time."""
    return pages().get_template("imported.html").render(page=_page(ended, at, simulated))


def _page(ended: Mapping[str, Any], at: int, simulated: bool) -> ImportPage:
    report, refused = ended["report"], ended["refused"]
    total, listed = sum(report["refused"].values()), len({(r["origin"], r["resource"]) for r in refused})
    flow = None if ended["flow"] is None else msgspec.convert(ended["flow"], Flow)
    warned = tuple((rule, count(n)) for rule, n in report["warnings"].items())
    return ImportPage(
        title=f"Import of {ended['dataset']}",
        dataset=ended["dataset"],
        made=when(at),
        simulated=simulated,
        tiles=_tiles(report),
        flow=None if flow is None else Markup(flow_svg(flow)),  # noqa: S704 escaped where it is made
        steps=None if flow is None else _steps(flow),
        refusals=_refusals(refused),
        more=_more(total - listed) if total > listed else "",
        warnings=Table("Taken, and warned of", ("rule", "resources"), warned) if warned else None,
        alarms=tuple((f"{a['code']} {a['about']}".rstrip(), a["says"]) for a in ended["alarms"]),
        values=_values(report),
        alike=_alike(ended.get("anonymity")),
    )


def _more(hidden: int) -> str:
    return f"{plural(hidden, 'record was', 'records were')} refused besides, not listed one by one."


def _steps(flow: Flow) -> Table:
    """The drawing in words, for narrow screens and for copying."""
    lines = tuple((says, word, left, remain) for word, says, _, left, remain in flow_table(flow)[1:])
    return Table("Persons by rule", ("why", "rule", "left out", "remain"), lines, words=(0, 1))


def _alike(found: Any) -> tuple[str, ...]:
    if found is None:
        return ()
    return tuple(line for line in as_text(msgspec.convert(found, AnonymityReport)).splitlines() if line.strip())


def _tiles(report: Mapping[str, Any]) -> tuple[Tile, ...]:
    files, excluded = report["files"], sum(report["excluded"].values())
    refused, records = sum(report["refused"].values()), "record" if report["resources"] == 1 else "records"
    return (
        Tile(count(report["rows"]), f"patients in the dataset, of {count(report['patients'])} found"),
        Tile(count(excluded), "left out by the cohort's rules"),
        Tile(count(report["resources"]), f"{records} in {plural(files, 'part', 'parts')} of the source"),
        Tile(count(refused), _REFUSED[min(refused, 2)]),
    )


def _refusals(refused: Sequence[Mapping[str, Any]]) -> tuple[RefusalShown, ...]:
    """By rule and element, the most frequent first."""
    kinds: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for one in refused:
        kinds.setdefault((one["reason"], one["path"], one["rule"], one["mend"]), []).append(one)
    ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(
        RefusalShown(
            reason, path, rule, mend, plural(len({(o["origin"], o["resource"]) for o in found}), "record", "records"),
            tuple((o["origin"] or o["resource"], o["found"]) for o in found[:EXAMPLES]),
        )
        for (reason, path, rule, mend), found in ordered
    )  # fmt: skip


def _values(report: Mapping[str, Any]) -> Figure:
    rows = report["rows"]
    lines, bars = [], []
    for name, missing in report["missing"].items():
        unusable = report["unusable"][name]
        share = (missing + unusable) / rows if rows else 0.0
        lines.append((name, count(rows - missing - unusable), count(missing), count(unusable)))
        bars.append((name, share))
    worst = max(bars, key=lambda bar: bar[1], default=("", 0.0))
    takeaway = (
        f"Most often without a value: {worst[0]}, {percent(worst[1], 1)} of the rows."
        if worst[1]
        else ("Every row has a value of every variable.")
    )
    svg = flat_bars("missing", "Rows without a value", takeaway, bars, lambda share: percent(share, 1))
    return Figure(
        "values", "Rows without a usable value", takeaway, svg,
        Table("Values by variable", _ORDER, tuple(lines)),
        "Not usable: recorded, but outside what the variable's declaration allows; it counts as missing.",
    )  # fmt: skip
