"""All commands, put together. Errors of ours become one sentence and exit code 1; a bug keeps its trace."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

import flute
from flute.cli import coordinator, data, hub, imaging, ledger, local, model, pilot, roster, study, view
from flute.cli.deidentify import anonymity_report, deidentify
from flute.cli.output import ERR
from flute.cli.requirements import requirements
from flute.errors import Answered, FluteError, MisuseError, StudyFileError

APP = typer.Typer(
    help="FLUTE: hospitals build and test health AI together while every patient record stays where it is.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
APP.add_typer(hub.APP, name="hub")
APP.add_typer(coordinator.APP, name="coordinator")
APP.add_typer(study.APP, name="study")
APP.add_typer(local.APP, name="local")
APP.add_typer(view.APP, name="view")
APP.add_typer(data.APP, name="data")
APP.add_typer(model.APP, name="model")
APP.add_typer(roster.APP, name="roster")
APP.add_typer(roster.PEOPLE, name="person")
APP.add_typer(ledger.LEDGER, name="ledger")
APP.add_typer(ledger.AUDIT, name="audit")
APP.add_typer(imaging.APP, name="imaging")
pilot.SIMULATE.command("mri")(imaging.simulate_mri)
APP.add_typer(pilot.SIMULATE, name="simulate")
APP.command("demo")(pilot.demo)
APP.command("deidentify")(deidentify)
APP.command("anonymity")(anonymity_report)
APP.command("requirements")(requirements)


def _version(wanted: bool) -> None:
    if wanted:
        print(flute.__version__)
        raise typer.Exit


@APP.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def run() -> None:
    try:
        APP()
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
