"""How commands speak: tables and sentences for people, JSON for programs, errors that say what to do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console

Format = Literal["text", "json"]
FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for programs.")]
OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def show(value: Any, text: str, format: Format) -> None:
    """`text` may use rich markup; values in it that come from elsewhere must be escaped by the caller."""
    if format == "json":
        print_json(value)
    else:
        OUT.print(text, soft_wrap=True)  # the terminal breaks lines; a file or a pipe gets them whole
