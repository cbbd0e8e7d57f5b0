"""What the proofs name exists: every function beside its module, and every test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "proofs").glob("*.md"))
_PLACE = re.compile(r"`([a-z/_]+\.py): ([^`]+)`")
_TEST = re.compile(r"`(test_\w+)`")


def missing(text: str) -> list[str]:
    sources = {path.as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "src" / "flute").rglob("*.py")}
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = [(module, name) for module, names in _PLACE.findall(text) for name in re.split(r"[,.]\s*", names)]
    places = [
        f"{module}: {name}"
        for module, name in named
        if not any(
            re.search(rf"\b(def|class) {name}\b|^\s*{name}\b", source, re.MULTILINE)
            for path, source in sources.items()
            if path.endswith(f"/{module}")
        )
    ]
    return places + [name for name in _TEST.findall(text) if f"def {name}(" not in tests]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_and_tests_that_a_proof_names_exist(page: Path) -> None:
    assert missing(re.sub(r"\s*\n\s*", " ", page.read_text(encoding="utf-8"))) == []


def test_control_a_name_that_does_not_exist_is_seen() -> None:
    assert missing("`member.py: unmask, no_such_step` and `test_no_such_test`") == [
        "member.py: no_such_step", "test_no_such_test",
    ]  # fmt: skip
