"""What a reviewer is shown before a hub approves a step: findings with lines, a digest, what changed.

This is a help for people and a first sieve. It is not what holds a hostile step: the sandbox is. A text without
findings may still be hostile; a text with findings is not run unless a hub's steward decides so.
"""

from __future__ import annotations

import ast
import difflib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flute.defaults.sandbox import MAX_SOURCE_BYTES, MAX_SOURCE_DEPTH
from flute.errors import SandboxRefusal
from flute.primitives.keys import digest

LANGUAGE: Final = frozenset(
    (
        "__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "operator",
        "statistics", "typing",
    )
)  # fmt: skip
LIBRARIES: Final = frozenset(("numpy", "scipy", "torch"))
LOADED_LATE: Final = {
    "numpy": ("fft", "linalg", "ma", "polynomial", "random"),
    "scipy": (
        "fft",
        "integrate",
        "interpolate",
        "linalg",
        "optimize",
        "signal",
        "sparse",
        "spatial",
        "special",
        "stats",
    ),
}
"""Parts that a library loads when they are first named. In a sandbox that is too late: nothing can be opened."""
_DENIED_PARTS: Final = frozenset(
    (
        "ctypeslib", "distutils", "f2py", "io", "multiprocessing", "distributed", "hub", "package", "utils",
        "testing", "cpp_extension", "_C", "weave", "datasets",
    )
)  # fmt: skip
"""Of libraries: files, networks, compilers, foreign code."""
_DENIED_NAMES: Final = frozenset(
    (
        "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "help",
        "input", "locals", "memoryview", "open", "quit", "setattr", "vars", "__builtins__", "__loader__", "__spec__",
    )
)  # fmt: skip
_DENIED_METHODS: Final = frozenset(
    (
        "ctypes", "dump", "dumps", "fromfile", "genfromtxt", "load", "loads", "loadtxt", "memmap", "mro", "save",
        "savetxt", "savez", "savez_compressed", "tofile", "cr_frame", "f_back", "f_builtins", "f_code", "f_globals",
        "f_locals", "gi_code", "gi_frame", "tb_frame", "tb_next", "format_map",
    )
)  # fmt: skip
"""Attributes that read and write files, or lead to the interpreter's insides."""
STEP: Final = "step"


@dataclass(frozen=True, slots=True)
class Finding:
    """`line`: of the text, from 1; 0 for the whole. `rule`: stable, lower-case with hyphens. `text`: for people."""

    line: int
    rule: str
    text: str


def readable(code: bytes) -> str:
    """The text as it is reviewed, hashed and run: UTF-8, lines end in a single line feed.

    Raises: SandboxRefusal: too large, not UTF-8, or with characters that show otherwise than they read.
    """
    if len(code) > MAX_SOURCE_BYTES:
        raise SandboxRefusal(f"A step has at most {MAX_SOURCE_BYTES:,} bytes.", reason="too-large")
    try:
        text = code.decode("utf-8")
    except UnicodeDecodeError:
        raise SandboxRefusal("A step is a text in UTF-8.", reason="not-text") from None
    for number, line in enumerate(text.split("\n"), 1):
        if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cs") and c != "\t" for c in line):
            raise SandboxRefusal(f"Line {number} has a character that cannot be seen.", reason="not-text")
    if _deepest(text) > MAX_SOURCE_DEPTH:
        raise SandboxRefusal(f"Brackets lie more than {MAX_SOURCE_DEPTH} deep.", reason="not-python")
    return text


def imported(text: str) -> tuple[str, ...]:
    """Modules that the text imports or names as parts, and that a sandbox may load: they are loaded before it runs.

    The others are left out; importing them fails in the sandbox. Raises: SandboxRefusal: no Python.
    """
    tree = _parsed(text)
    found = {name for name, _ in _imports(tree) if _importable(name)}
    roots = {name.partition(".")[0] for name in found} & LOADED_LATE.keys()
    words = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words |= {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    return tuple(sorted(found | {f"{root}.{part}" for root in roots for part in LOADED_LATE[root] if part in words}))


def review(code: bytes) -> tuple[Finding, ...]:
    """What a reviewer has to look at, by line; empty where nothing was found.

    Raises: SandboxRefusal: no text of Python that can be reviewed.
    """
    tree = _parsed(readable(code))
    found = [*_form(tree), *_imported_findings(tree)]
    for node in ast.walk(tree):
        found.extend(_looked_at(node))
    return tuple(sorted(set(found), key=lambda f: (f.line, f.rule, f.text)))


def digest_of(code: bytes) -> bytes:
    """32 bytes that stand in the agreement for exactly this text. Raises: SandboxRefusal: see `readable`."""
    return digest(b"flute/step/v1", readable(code).encode())


def changes(old: bytes, new: bytes) -> str:
    """A unified diff, for a reviewer who approved `old`. Raises: SandboxRefusal: see `readable`."""
    before, after = (readable(code).splitlines(keepends=True) for code in (old, new))
    return "".join(difflib.unified_diff(before, after, "approved", "proposed"))


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 0
        raise SandboxRefusal(f"Line {line} is no Python of this hub's version.", reason="not-python") from None


def _deepest(text: str) -> int:
    """Of brackets, counted without regard to strings: more than there are, never fewer in a text without strings."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        depth = max(depth, 0)
        deepest = max(deepest, depth)
    return deepest


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base, node.lineno


def _importable(name: str) -> bool:
    root, *rest = name.split(".")
    if not name.isascii() or root not in LANGUAGE | LIBRARIES:
        return False
    return root in LANGUAGE or not _DENIED_PARTS & set(rest)


def _form(tree: ast.Module) -> Iterator[Finding]:
    steps = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == STEP]
    if len(steps) != 1:
        yield Finding(0, "no-step", "A step's module has one function step(rows, parameters).")
    elif [a.arg for a in steps[0].args.args] != ["rows", "parameters"]:
        yield Finding(steps[0].lineno, "no-step", "step takes rows and parameters.")
    for node in tree.body:
        documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        harmless = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
        if not documented and not isinstance(node, harmless):
            yield Finding(
                node.lineno, "runs-at-import", "Outside of functions stand imports, definitions and constants."
            )


def _imported_findings(tree: ast.Module) -> Iterator[Finding]:
    for name, line in _imports(tree):
        if not _importable(name):
            yield Finding(line, "import", f"{name} is not among what a step may import.")


def _looked_at(node: ast.AST) -> Iterator[Finding]:
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.Name) and (node.id in _DENIED_NAMES or node.id.startswith("__")):
        yield Finding(line, "name", f"{node.id} leads out of what a step needs.")
    if isinstance(node, ast.Attribute) and (node.attr.startswith("__") or node.attr in _DENIED_METHODS):
        yield Finding(line, "attribute", f".{node.attr} reads or writes files, or leads into the interpreter.")
    if isinstance(node, ast.alias) and {*node.name.split("."), node.asname} & (_DENIED_METHODS | _DENIED_PARTS):
        yield Finding(line, "import", f"{node.name} reads or writes files, or leads into the interpreter.")
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "__" in node.value:
        yield Finding(line, "hidden-name", "A text names something by double underscores.")
    if isinstance(node, ast.Name | ast.arg | ast.FunctionDef) and not _shown_name(node).isascii():
        yield Finding(line, "name", "A name has letters that look like others.")
    if isinstance(node, ast.Global | ast.Nonlocal):
        yield Finding(line, "state", "Nothing outlives a unit; a global variable is not kept.")
    if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
        yield Finding(line, "async", "A step waits for nothing.")


def _shown_name(node: ast.Name | ast.arg | ast.FunctionDef) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.arg if isinstance(node, ast.arg) else node.name
