"""How commands speak: tables and sentences for people, JSON for programs, errors that say what to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console

Format = Literal["text", "json"]
FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]
OUT = Console(highlight=False, soft_wrap=True)
"""Lines are not broken: a terminal does that itself, and a file or a pipe gets fingerprints and sentences whole."""
ERR = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def show(value: Any, text: str, format: Format) -> None:
    """`text` may use rich markup; values in it that come from elsewhere must be escaped by the caller."""
    if format == "json":
        print_json(value)
    else:
        OUT.print(text)
