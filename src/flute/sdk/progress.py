"""How a run goes, per hub and round: one line in a terminal, a small page in a notebook, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from flute.sdk.pages import bar, heading, page, table, words

Show = Callable[[Mapping[str, Any], list[dict[str, Any]]], None]
"""Takes a run's status and its traffic so far."""


@contextmanager
def shown(wanted: bool | None) -> Iterator[Show | None]:
    """wanted: None: where somebody looks (a notebook, a terminal). Gives None where nothing is to be shown."""
    display = _notebook()
    if wanted is False or (wanted is None and display is None and not sys.stderr.isatty()):
        yield None
    elif display is not None:
        yield _in_notebook(display)
    else:
        with Console(stderr=True, highlight=False).status("…") as waiting:
            yield lambda status, _: waiting.update(escape(line(status)))


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says, where somebody looks, what this process is busy with; afterwards it is gone."""
    display = _notebook()
    if display is not None:
        handle = display.display(display.HTML(page(words(text))), display_id=True)
        try:
            yield
        finally:
            handle.update(display.HTML(""))
    elif sys.stderr.isatty():
        with Console(stderr=True, highlight=False).status(escape(text)):
            yield
    else:
        yield


def _notebook() -> Any | None:
    """IPython's display where a notebook's kernel runs this code."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    return sys.modules["IPython"].display


def _in_notebook(display: Any) -> Show:
    handle = display.display(display.HTML(page(words("…"))), display_id=True)
    last = ""

    def show(status: Mapping[str, Any], traffic: list[dict[str, Any]]) -> None:
        nonlocal last
        html = status_page(status, traffic)
        if html != last:
            last = html
            handle.update(display.HTML(html))

    return show


def line(status: Mapping[str, Any]) -> str:
    """Where a run stands, in one line."""
    waiting = sorted(hub for hub, decision in status["consents"].items() if decision == "asked")
    if status["state"] == "consenting" and waiting:
        return f"{status['study']}: waiting for the consent of {', '.join(waiting)}"
    now = status.get("now")
    doing = (
        f", {now['question']} step {now['step'] + 1} ({now['state']})" if now and status["state"] == "running" else ""
    )
    gone = "; ".join(f"{hub} {why}" for hub, why in status.get("missing", {}).items())
    said = "; ".join(part for part in (status["why"], gone if gone != status["why"] else "") if part)
    why = f" ({said})" if said else ""
    repeated = f", {status['repeated']} repeated" if status.get("repeated") else ""
    return (
        f"{status['study']}: {status['state']}{doing}, {status['done']} of {status['of']} results, "
        f"{status['rounds']} round{'' if status['rounds'] == 1 else 's'}{repeated}{why}"
    )


def status_page(status: Mapping[str, Any], traffic: list[dict[str, Any]]) -> str:
    """The same per hub: its decision, and what it sent so far."""
    rows = []
    for hub, decision in sorted(status["consents"].items()):
        sent = [row for row in traffic if row["sender"] == hub]
        size = _size(sum(row["bytes"] for row in sent))
        rows.append((hub, decision, sum(row["messages"] for row in sent), size))
    done = status["done"] / status["of"] if status["of"] else 0.0
    return page(heading(status["study"]), bar(done, line(status)), table(("hub", "consent", "answers", "sent"), rows))


def _size(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{size / 1000:,.1f} kB"
