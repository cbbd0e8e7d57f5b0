"""Write docs/reference/cli.md from the commands' own help: `python docs/make_cli_reference.py`.

A test fails where the page is stale, or where a command or an option says nothing about itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from flute.cli.app import APP

PAGE: Final = Path(__file__).parent / "reference" / "cli.md"
HEAD: Final = """\
# Commands

Written by `python docs/make_cli_reference.py` from the commands' own help; do not edit.

Every command prints one sentence and ends with exit code 1 when it cannot do what it was asked, 2 when it was typed
wrongly, 130 when it was stopped with Ctrl-C. Commands that show something have `--format json`. `-h` or `--help`
after any of these shows its help; `flute --version` prints the version.
"""


def commands(group: Any, path: tuple[str, ...] = ("flute",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        elif not command.hidden:
            yield " ".join((*path, name)), command


def all_commands() -> list[tuple[str, Any]]:
    return sorted(commands(typer.main.get_command(APP)), key=lambda pair: pair[0])


def shown(command: Any) -> list[Any]:
    """Arguments and options that its help shows."""
    return [p for p in command.params if not getattr(p, "hidden", False)]


def is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def explained(parameter: Any) -> str:
    return " ".join(str(getattr(parameter, "help", None) or "").split())


def usage(name: str, command: Any) -> str:
    words = [name]
    for parameter in shown(command):
        if is_argument(parameter):
            word = str(parameter.metavar or parameter.name).strip("[]{}").upper()
            words.append(word if parameter.required else f"[{word}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} …")
    optional = any(not p.required and not is_argument(p) for p in shown(command))
    return " ".join([*words, "[OPTIONS]"] if optional else words)


def row(parameter: Any) -> str:
    if is_argument(parameter):
        name = f"`{str(parameter.metavar or parameter.name).strip('[]{}').upper()}`"
    else:
        name = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    return f"| {name} | {explained(parameter)} | {remark(parameter)} |"


def remark(parameter: Any) -> str:
    """Whether it is needed, what it is otherwise, and from which variable of the environment it is taken."""
    parts = ["needed"] if parameter.required else []
    if not parameter.required and parameter.default not in (None, False, "", 0) and not callable(parameter.default):
        parts.append(f"default `{getattr(parameter.default, 'value', parameter.default)}`")
    if isinstance(parameter.envvar, str):
        parts.append(f"or `${parameter.envvar}`")
    if getattr(parameter, "multiple", False):
        parts.append("may be repeated")
    return ", ".join(parts)


def section(name: str, command: Any) -> str:
    text = "\n\n".join(" ".join(part.split()) for part in str(command.help or "").split("\n\n"))
    lines = [f"## {name}", "", text, "", "```", usage(name, command), "```"]
    rows = [row(parameter) for parameter in shown(command)]
    if rows:
        lines += ["", "| argument, option | what it is | |", "| --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def page() -> str:
    return "\n".join([HEAD, *(section(name, command) for name, command in all_commands())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}.")
