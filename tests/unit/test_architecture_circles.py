"""No module imports itself by way of others: imports within functions and for type checkers count as well."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
KNOWN = frozenset({"flute.mpc"})
"""Rooms whose modules still stand in a circle; none may be added."""


def modules() -> dict[str, Path]:
    named = {".".join(p.relative_to(SOURCE).with_suffix("").parts): p for p in (SOURCE / "flute").rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imported(tree: ast.AST, known: Mapping[str, object]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (name for name in (inner if inner in known else node.module,) if name in known)


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Modules that reach each other, by taking away those that import, or are imported by, nothing that is left."""
    left = {name: set(to) for name, to in graph.items()}
    while True:
        used = {to for targets in left.values() for to in targets}
        ends = {name for name, targets in left.items() if not targets or name not in used}
        if not ends:
            return [set(left)] if left else []
        left = {name: targets - ends for name, targets in left.items() if name not in ends}


def graph() -> dict[str, set[str]]:
    found = modules()
    return {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), found)) - {name}
        for name, path in found.items()
    }


def test_no_module_stands_in_a_circle_of_imports() -> None:
    rooms = {".".join(name.split(".")[:2]) for circle in circles(graph()) for name in circle}
    assert rooms <= KNOWN


def test_a_planted_circle_is_seen_whatever_hides_it() -> None:
    known = {"flute.a": 0, "flute.b": 0, "flute.c": 0}
    within = "def late():\n    from flute.b import thing\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flute import a\n"
    planted = {
        "flute.a": set(imported(ast.parse(within), known)), "flute.b": set(imported(ast.parse(typed), known)),
        "flute.c": {"flute.a"},
    }  # fmt: skip
    assert circles(planted) == [{"flute.a", "flute.b"}]
    assert circles({**planted, "flute.b": set()}) == []
