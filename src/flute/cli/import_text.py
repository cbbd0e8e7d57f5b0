"""How the commands about records speak: progress while an import runs, what came of it, what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flute.cli.output import ERR
from flute.intake.profile import Profile, alarms

_SHOWN: Final = 10
"""Refusals on the screen; the report page has the rest."""


@contextmanager
def import_progress(*, quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """A line that moves while an import runs; nothing in a pipe."""
    if quiet or not ERR.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=ERR, transient=True) as shown:
        task = shown.add_task("Reading …", total=None)

        def say(state: Any) -> None:
            read = f"{state['read']:,} records, {state['scope']}" if state["scope"] else "Reading …"
            shown.update(task, description=escape(read), completed=state["read"], total=state["total"])

        yield say


def import_text(ended: dict[str, Any], page: Path | None = None) -> str:
    """What came in, what did not and why, in a few lines."""
    lines = [import_counts(ended["report"])]
    for alarm in ended["alarms"]:
        lines.append(f"[yellow]Changed since the last import:[/yellow] {escape(alarm['says'])}")
    shown = ended["refused"][:_SHOWN]
    if shown:
        lines.append("Refused, the first of them:" if len(ended["refused"]) > _SHOWN else "Refused:")
    for one in shown:
        where = ": ".join(part for part in (one["origin"] or one["resource"], one["path"]) if part)
        found = f" ({escape(one['found'])})" if one["found"] else ""
        lines.append(f"  {escape(where)}: [bold]{escape(one['reason'])}[/bold]{found}. {escape(one['mend'])}")
    if page is not None:
        lines.append(f"Report: [bold]{escape(str(page))}[/bold]")
    return "\n".join(lines)


def import_counts(report: dict[str, Any]) -> str:
    """Counts in one sentence each."""
    first = f"{report['rows']:,} patients in the dataset"
    if report["resources"]:
        parts = f"{report['files']} part{'s' if report['files'] != 1 else ''} of the source"
        first += f", of {report['patients']:,} found in {report['resources']:,} records ({parts})"
    lines = [first + "."]
    for title in ("excluded", "refused", "warnings", "flags", "missing", "unusable"):
        counts = [f"{n:,} {name}" for name, n in report[title].items() if n]
        if counts:
            lines.append(f"{title.capitalize()}: {', '.join(counts)}.")
    return escape("\n".join(lines))


def withdrawal_text(done: dict[str, Any]) -> str:
    held = ", ".join(done["datasets"]) or "no dataset of this hub"
    lines = [f"Withdrawn. The patient was in {held}, and is in none now."]
    if done["studies_changed"]:
        lines.append(f"Studies that go on without this patient: {', '.join(done['studies_changed'])}.")
    if done["studies_ended"]:
        lines.append(f"Exact studies that ended here: {', '.join(done['studies_ended'])}.")
    return "\n".join([*lines, "The next import reads everything anew and passes over the patient's records."])


def quality_text(imports: list[dict[str, Any]]) -> str:
    """One line per import, and what differs between the last two."""
    lines = []
    for one in imports:
        profile = one["profile"]
        gaps = ", ".join(
            f"{name} {column['missing'] + column['unusable']:,}"
            for name, column in profile["columns"].items()
            if column["missing"] + column["unusable"]
        )
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["at"]))
        lines.append(
            f"{day}: {profile['rows']:,} patients of {profile['patients']:,}; without a value: {gaps or 'none'}"
        )
    last = [msgspec.convert(one["profile"], Profile) for one in imports[-2:]]
    if len(last) == 2:
        raised = alarms(*last)
        lines += [alarm.says for alarm in raised] or ["Nothing of note changed between the last two imports."]
    return "\n".join(lines or ["Nothing was imported yet."])
