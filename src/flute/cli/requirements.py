"""`flute requirements`: which requirement of the public catalogue is shown by which test, in a checkout."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flute.cli.output import FormatOption, show
from flute.errors import MisuseError


def requirements(
    checkout: Annotated[Path, typer.Argument(help="A checkout of the project.")] = Path(),
    missing: Annotated[bool, typer.Option("--missing", help="Only what no test shows yet.")] = False,
    format: FormatOption = "text",
) -> None:
    """The trace from requirement to test: every id of the catalogue, and the tests that are marked with it.

    Examples: `flute requirements` · `flute requirements --missing`
    """
    catalogue = checkout / "docs" / "reference" / "requirements.csv"
    if not catalogue.exists():
        raise MisuseError(f"There is no {catalogue}; run this in a checkout of the project.")
    shown_by = marked_tests(checkout / "tests")
    with catalogue.open(encoding="utf-8", newline="") as file:
        catalogued = list(csv.DictReader(file))
    wanted = [row for row in catalogued if not (missing and row["id"] in shown_by)]
    lines = [_line(row["id"], row["asks"], shown_by.get(row["id"], [])) for row in wanted]
    count = sum(row["id"] in shown_by for row in catalogued)
    lines.append(f"{count} of {len(catalogued)} requirements are shown by at least one test.")
    show([{**row, "tests": shown_by.get(row["id"], [])} for row in wanted], "\n".join(lines), format)


def _line(requirement: str, asks: str, tests: list[str]) -> str:
    if not tests:
        return f"[dim]{requirement:<12} {escape(asks)} · no test yet[/dim]"
    return f"{requirement:<12} {escape(asks)} · {escape(tests[0])}" + (
        f" and {len(tests) - 1} more" if len(tests) > 1 else ""
    )


def marked_tests(folder: Path) -> dict[str, list[str]]:
    """Requirement id to the tests that carry its marker, by reading the files (nothing is imported)."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, requirement in _marks(tree):
            found.setdefault(requirement, []).append(f"{path.relative_to(folder)}::{name}")
    return found


def _marks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                for requirement in _ids(decorator):
                    yield node.name, requirement
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets
        ):
            for each in ast.walk(node.value):
                for requirement in _ids(each):
                    yield "(whole file)", requirement


def _ids(node: ast.AST) -> list[str]:
    """Arguments of pytest.mark.requirement(...)."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "requirement":
        return [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
    return []
