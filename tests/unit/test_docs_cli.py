"""Commands and their documentation agree: an undocumented command or option fails, and so does a stale page."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cli_reference", ROOT / "docs" / "make_cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
COMMANDS: dict[str, Any] = dict(SCRIPT.all_commands())
STANDARD = {"--help", "-h"}


def typed_in(page: Path) -> list[str]:
    """Lines of a page's shell blocks that call `flute`, continuation lines joined, loops unwrapped."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [re.search(r"(?:^|\s|/)flute (.*)", line) for line in lines if not line.lstrip().startswith("#")]
    return [f"flute {match.group(1)}" for match in found if match]


def problems(line: str) -> list[str]:
    """What of a typed command does not exist. `;`, `|`, `&` and `>` end it."""
    words = shlex.split(re.split(r"\s[;|&>]|;|\s2>", line)[0], comments=True)
    name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in COMMANDS), None)
    if name is None:
        return [f"no command {' '.join(words[:3])!r}"]
    known = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)} | STANDARD
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    return [f"{name} has no {option}" for option in options if option not in known]


def test_the_page_is_not_stale() -> None:
    assert SCRIPT.PAGE.read_text(encoding="utf-8") == SCRIPT.page(), "run: python docs/make_cli_reference.py"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_says_what_it_is(name: str) -> None:
    command = COMMANDS[name]
    assert re.search(r"Examples?: `", " ".join(command.help.split())), f"{name} has no example in its help"
    assert [p.name for p in SCRIPT.shown(command) if not SCRIPT.explained(p)] == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_examples_of_a_command_would_be_understood(name: str) -> None:
    examples = re.findall(r"`(flute [^`]*)`", " ".join(COMMANDS[name].help.split()))
    assert examples
    assert [p for example in examples for p in problems(example)] == []


@pytest.mark.parametrize("page", [p for p in PAGES if typed_in(p)], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_command_in_a_page_exists(page: Path) -> None:
    assert [p for line in typed_in(page) for p in problems(line)] == []


def test_a_wrong_command_in_a_page_would_be_found() -> None:
    assert problems("flute hub imports /srv/flute") == ["no command 'flute hub imports'"]
    assert problems("flute hub init /srv/flute --nam x") == ["flute hub init has no --nam"]


def test_an_option_without_help_would_be_found() -> None:
    options = [p for p in COMMANDS["flute hub init"].params if not SCRIPT.is_argument(p)]
    options[0].help, before = "", options[0].help
    try:
        assert not SCRIPT.explained(options[0])
    finally:
        options[0].help = before
