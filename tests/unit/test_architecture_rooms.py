"""What import contracts cannot say: who knows the pilot's variables, who draws chance, how large things are."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "flute"
MODULES = sorted(SOURCE.rglob("*.py"))
PILOT_WORDS = re.compile(
    r"\b(psa|pirads|pi_rads|pi-rads|dre|cspca|isup|prostate|biopsy|biopsy_type|huvh|chu|irst|bcn[12])\b",
    re.IGNORECASE,
)
"""The pilot's variables, hospitals and vocabulary."""
MAY_KNOW_THE_PILOT = ("pilot/", "cli/", "demo.py")
TEMPLATES = sorted(p for p in SOURCE.rglob("*") if p.suffix in (".html", ".sql", ".css", ".j2"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def words_of_code(path: Path) -> list[tuple[int, str]]:
    """(line, text) of names and strings. Comments and docstrings may give a hospital as an example."""
    docstrings = docstring_lines(path)
    with path.open("rb") as file:
        return [
            (token.start[0], token.string)
            for token in tokenize.tokenize(file.readline)
            if token.type in (tokenize.NAME, tokenize.STRING) and token.start[0] not in docstrings
        ]


def docstring_lines(path: Path) -> set[int]:
    """Lines of strings that stand alone as a statement: docstrings, and the ones below a constant."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def test_nothing_outside_the_pilot_names_its_variables() -> None:
    named = {
        f"{relative(path)}:{line}": text
        for path in MODULES
        if not relative(path).startswith(MAY_KNOW_THE_PILOT)
        for line, text in words_of_code(path)
        if PILOT_WORDS.search(text)
    }
    assert named == {}


def test_no_template_outside_the_pilot_names_its_variables() -> None:
    named = [relative(p) for p in TEMPLATES if PILOT_WORDS.search(p.read_text(encoding="utf-8"))]
    assert [name for name in named if not name.startswith("pilot/")] == []


def test_the_search_for_pilot_words_finds_them_where_they_belong() -> None:
    """It would fail on the pilot's own declarations, and passes over a comment."""
    views = SOURCE / "pilot" / "views.py"
    assert any(PILOT_WORDS.search(text) for _, text in words_of_code(views))


def test_every_module_is_short_enough_to_read() -> None:
    """STYLE: split near 350 lines. What runs inside the sandbox is one file: nothing of ours is there to import."""
    lengths = {relative(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 375 and name != "sandbox/runner.py"} == {}


MOST_MODULES = 18
"""In one folder. A room that grows beyond is split by purpose: a stranger reads the names before the code."""


def rooms_with_more_modules_than(most: int) -> dict[str, int]:
    folders = {p.parent for p in MODULES}
    sizes = {relative(f): len([p for p in MODULES if p.parent == f and p.name != "__init__.py"]) for f in folders}
    return {name: size for name, size in sizes.items() if size > most}


def test_every_room_is_small_enough_to_know() -> None:
    assert rooms_with_more_modules_than(MOST_MODULES) == {}
    assert "hub/rounds" in rooms_with_more_modules_than(5), "control: what is larger is seen"


def test_every_room_says_what_it_is_for() -> None:
    """In the first line of its __init__.py."""
    rooms = [p for p in MODULES if p.name == "__init__.py" and "versions" not in p.parts]
    silent = [relative(p) for p in rooms if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert silent == []


def test_no_function_is_longer_than_a_page() -> None:
    long = {
        f"{relative(path)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in MODULES
        if "migrations" not in path.parts  # a list of columns
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 60
    }
    assert long == {}


def test_real_chance_is_drawn_in_the_shells_alone() -> None:
    """`os.urandom` and its like: services, commands and the pieces that make keys; never below."""
    shells = ("cli/", "hub/", "coordinator/", "local/", "transport/", "pilot/", "sdk/", "sandbox/")
    drawn = re.compile(r"\burandom\b|\bimport secrets\b|\bSystemRandom\b|\bdefault_rng\b")
    found = {relative(p) for p in MODULES if drawn.search(p.read_text(encoding="utf-8"))}
    assert {name for name in found if not name.startswith(shells)} == set()
    assert any(name.startswith("hub/") for name in found)
