"""All commands, put together. Errors of ours become one sentence and exit code 1; a bug keeps its trace."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

import flute
from flute.cli.output import ERR
from flute.errors import Answered, FluteError, MisuseError, StudyFileError

_GROUPS: Final = {
    "hub": ("hub.app", "APP"),
    "coordinator": ("coordinator", "APP"),
    "study": ("study", "APP"),
    "local": ("local", "APP"),
    "view": ("records.view", "APP"),
    "data": ("records.data", "APP"),
    "model": ("model", "APP"),
    "roster": ("roster", "APP"),
    "person": ("roster", "PEOPLE"),
    "ledger": ("ledger", "LEDGER"),
    "audit": ("ledger", "AUDIT"),
    "imaging": ("records.imaging", "APP"),
    "simulate": ("pilot", "SIMULATE"),
    "evidence": ("evidence", "APP"),
    "aggregator": ("aggregator", "APP"),
}
"""Group: its module in this room, and its name there. Only the group that is called is loaded: it is half of the time
that a command takes."""
_COMMANDS: Final = {
    "demo": ("pilot", "demo"),
    "deidentify": ("records.deidentify", "deidentify"),
    "anonymity": ("records.deidentify", "anonymity_report"),
    "requirements": ("requirements", "requirements"),
    "threats": ("threats", "threats"),
    "attack": ("attack", "attack"),
    "lab": ("lab", "lab"),
}


def commands(wanted: str = "") -> typer.Typer:
    """All commands, or those below the word `wanted`."""
    app = typer.Typer(
        help="FLUTE: hospitals build and test health AI together while every patient record stays where it is.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    alone = wanted in _GROUPS or wanted in _COMMANDS or wanted == "--version"
    for name, (module, part) in _GROUPS.items():
        if name == wanted or not alone:
            app.add_typer(_loaded(module, part), name=name)
    for name, (module, part) in _COMMANDS.items():
        if name == wanted or not alone:
            app.command(name)(_loaded(module, part))
    app.callback()(_common)
    return app


def _loaded(module: str, part: str) -> Any:
    return getattr(import_module(f"flute.cli.{module}"), part)


def __getattr__(name: str) -> typer.Typer:
    if name == "APP":
        return commands()
    raise AttributeError(name)


def _version(wanted: bool) -> None:
    if wanted:
        print(flute.__version__)
        raise typer.Exit


def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def run() -> None:
    try:
        commands(sys.argv[1] if len(sys.argv) > 1 else "")()
    except StudyFileError as error:
        where = f"{error.path}:{error.line}: " if error.line else f"{error.path}: " if error.path else ""
        ERR.print(f"[red]{escape(where)}[/red]{escape(error.text)}")
        sys.exit(1)
    except FluteError as error:
        ERR.print(f"[red]{_label(error)}[/red]{escape(error.text)}")
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise  # not a file that somebody named: a bug keeps its trace
        ERR.print(f"[red]{escape(str(error.filename))}:[/red] {escape(error.strerror or 'cannot be used')}.")
        sys.exit(1)
    except KeyboardInterrupt:
        ERR.print("Stopped.")
        sys.exit(130)


def _label(error: FluteError) -> str:
    """The stable code in front of the sentence; none where the sentence is about the command that was typed."""
    if isinstance(error, MisuseError):
        return ""
    return escape(f"{error.said if isinstance(error, Answered) else error.code}: ")
