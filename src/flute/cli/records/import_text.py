"""How the commands about records speak: progress while an import runs, what came of it, what changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flute.cli.output import ERR
from flute.cohort.flow import SIMULATED

_SHOWN: Final = 10
"""Causes of refusals on the screen; the report page has the rest."""
_PLACES: Final = 3
"""Places of one cause."""
NOBODY: Final = (
    "No patient was found. Is it the right place? A folder's own files are read, not those of folders in it."
)


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
    lines = [f"[yellow]{SIMULATED}[/yellow]"] if ended["simulated"] else []
    lines.append(import_counts(ended["report"]))
    if ended.get("attached"):
        lines.append(attached_text(ended["attached"]))
    for alarm in ended["alarms"]:
        lines.append(f"[yellow]Changed since the last import:[/yellow] {escape(alarm['says'])}")
    kinds = by_kind(ended["refused"])
    if kinds:
        first = f", the first {_SHOWN}" if len(kinds) > _SHOWN else ""
        lines.append(f"Where, and how to mend it{first}:")
    lines += [kind_text(kind) for kind in kinds[:_SHOWN]]
    if page is not None:
        lines.append(f"Report: [bold]{escape(str(page))}[/bold]")
    return "\n".join(lines)


def import_counts(report: dict[str, Any]) -> str:
    """Counts in one sentence each."""
    first = f"{report['rows']:,} patients in the dataset"
    if report["resources"]:
        records, parts = (_plural(report[name], word) for name, word in (("resources", "record"), ("files", "part")))
        first += f", of {report['patients']:,} found in {records} ({parts} of the source)"
    lines = [first + "."]
    if not report["patients"] and report["resources"]:
        lines.append(NOBODY)
    for title in ("excluded", "refused", "warnings", "flags", "missing", "unusable"):
        counts = [f"{n:,} {name}" for name, n in report[title].items() if n]
        if counts:
            lines.append(f"{title.capitalize()}: {', '.join(counts)}.")
    return escape("\n".join(lines))


def by_kind(refused: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Refusals of one cause together, the most frequent first: a data manager mends a cause, not a line."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for one in refused:
        kinds.setdefault((one["reason"], one["path"], one["rule"], one["mend"]), []).append(one)
    return sorted(kinds.values(), key=lambda kind: -len(kind))


def kind_text(kind: list[dict[str, Any]]) -> str:
    """One cause: how often, why, how to mend it, and some of the places."""
    one = kind[0]
    if len(kind) == 1:
        where = ": ".join(part for part in (one["origin"] or one["resource"], one["path"]) if part)
    else:
        where = f"{len(kind):,} times {one['path']}".rstrip()
    places = [f"{k['origin'] or k['resource']}" + (f" ({k['found']})" if k["found"] else "") for k in kind[:_PLACES]]
    found = f" ({escape(one['found'])})" if one["found"] and len(kind) == 1 else ""
    text = f"  {escape(where)}: [bold]{escape(one['reason'])}[/bold]{found}. {escape(one['mend'])}"
    if len(kind) == 1:
        return text
    more = "; …" if len(kind) > _PLACES else ""
    return f"{text}\n    {escape('; '.join(places))}{more}"


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def decision_text(ended: dict[str, Any], decision: str, despite: list[str]) -> str:
    """What a decision by hand came to. A patient whom no rule left out cannot be told from a slip of the pen."""
    lines = [f"Decided: {decision}. It is in the journal, and the dataset was made anew."]
    steps = [] if ended["flow"] is None else ended["flow"]["steps"]
    if decision == "keep-in" and not any(step["kept"] for step in steps if step["word"] in despite):
        lines.append(
            f"[yellow]Nobody is kept in by it:[/yellow] no patient of this id is left out by {' or '.join(despite)}. "
            "See that the id is the hospital's own; --decision take-back takes it back."
        )
    return "\n".join([*lines, import_text(ended)])


def images_text(images: dict[str, Any]) -> str:
    """What came of the images."""
    studies = ", ".join(f"{n:,} {state}" for state, n in images["studies"].items() if n) or "none"
    lines = [f"Images: {images['fetched']:,} fetched, {images['kept']:,} kept from before; studies: {studies}."]
    for title in ("links", "withheld", "faults"):
        counts = [f"{n:,} {name}" for name, n in images[title].items() if n]
        if counts:
            lines.append(f"{title.capitalize()}: {', '.join(counts)}.")
    if images["problem"]:
        lines.append(f"Not finished: {images['problem']} The next import goes on.")
    return escape("\n".join(lines))


def attached_text(attached: Iterable[dict[str, Any]]) -> str:
    """What became of the images of each variable."""
    lines = []
    for one in attached:
        unusable = sum(one["unusable"].values())
        lines.append(
            f"{one['variable']}: {_plural(one['images'], 'patient')} with an image, {one['missing']:,} without one, "
            f"{unusable:,} with one that is unusable."
        )
        for title in ("unusable", "left_out"):
            counts = [f"{n:,} {name}" for name, n in sorted(one[title].items())]
            if counts:
                lines.append(f"  {title.replace('_', ' ').capitalize()}: {', '.join(counts)}.")
        if one["unmatched"]:
            lines.append(f"  {_plural(one['unmatched'], 'image')} of somebody who is not in the dataset.")
    return escape("\n".join(lines))


def withdrawal_text(done: dict[str, Any]) -> str:
    if not done["datasets"] and not done["studies_changed"] and not done["studies_ended"]:
        return (
            "No dataset of this hub holds a patient of this id, so none was changed; see that the id is the "
            "hospital's own.\nWhatever comes later under this id will be passed over: it counts as withdrawn."
        )
    held = ", ".join(done["datasets"]) or "no dataset of this hub"
    lines = [f"Withdrawn. The patient was in {held}, and is in none now."]
    if done["studies_changed"]:
        lines.append(f"Studies that go on without this patient: {', '.join(done['studies_changed'])}.")
    if done["studies_ended"]:
        lines.append(f"Exact studies that ended here: {', '.join(done['studies_ended'])}.")
    return "\n".join([*lines, "The next import reads everything anew and passes over the patient's records."])


def quality_text(dataset: str, imports: list[dict[str, Any]]) -> str:
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
    if len(imports) > 1:
        from flute.intake.profile import Profile, alarms  # scipy.stats: a second that other commands need not wait

        raised = alarms(*(msgspec.convert(one["profile"], Profile) for one in imports[-2:]))
        lines += [alarm.says for alarm in raised] or ["Nothing of note changed between the last two imports."]
    return "\n".join(
        lines or [f"Nothing was imported into a dataset called {dataset} yet; 'flute hub status' lists them."]
    )
