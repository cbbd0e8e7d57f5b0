"""What the pages say is so: links, modules, elements, threat cells, figures."""

from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path
from runpy import run_path
from typing import get_args

import msgspec
import pytest

from flute.aggregation.plan import PLANS
from flute.deep.layers import Layer
from flute.deep.spec import Training
from flute.dp.ceiling import odds_of
from flute.dp.odds import factor_text
from flute.questions.registry import REGISTRY
from flute.study.agreement import PlanChoice
from flute.study.files import file as study_file
from flute.study.files import variables as file_variables
from flute.study.files.wording import WRITE
from flute.study.protection import budget_of
from flute.study.threats import guarantees

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "flute"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
STRUCTS = [
    study_file.StudyFile, file_variables.FileVariable, study_file.FileConditions, study_file.FilePeriod,
    study_file.FileBudget, study_file.FileExact, study_file.FilePlan, *REGISTRY, *get_args(Layer), Training,
]  # fmt: skip
"""Everything that a study file is made of."""


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def elements() -> set[str]:
    return {f.encode_name for kind in STRUCTS for f in msgspec.structs.fields(kind)} | {
        "algorithm",
        "share",
        "per_hub",
    }


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(page))
    local = [t for t in targets if not t.startswith(("http:", "https:", "mailto:"))]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths in backticks that begin with a folder of the repository."""
    paths = re.findall(r"`((?:src|tests|docs|examples|benchmarks)/[\w./-]+)`", read(page))
    assert [p for p in paths if not (ROOT / p).exists()] == []


def test_architecture_names_modules_that_exist() -> None:
    tokens = re.findall(r"`([a-z]+/[a-z_/]+)(?:\.[a-z_]+)?`", read(DOCS / "architecture.md"))
    modules = [t for t in tokens if not t.startswith(("tests/", "docs/"))]
    assert len(modules) >= 15
    assert [m for m in modules if not (SOURCE / f"{m}.py").exists()] == []


def rooms() -> set[str]:
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(c for c in contracts if c["type"] == "layers")["layers"]
    return {room.strip() for layer in layers for room in layer.split("|")}


def test_the_picture_and_the_page_show_every_room() -> None:
    shown = set(
        re.findall(
            r'<g>\s*<rect[^>]*/>\s*<text class="t"[^>]*>([a-z]+)</text>', read(DOCS / "images/architecture.svg")
        )
    )
    assert shown == rooms()
    page = read(DOCS / "architecture.md")
    assert [room for room in rooms() if not re.search(rf"\b{room}\b", page)] == []


def test_every_element_of_a_study_file_is_documented() -> None:
    page = read(DOCS / "reference" / "study-file.md")
    assert sorted(e for e in elements() if f"`{e}`" not in page) == []


def test_every_element_of_a_study_file_has_advice_for_the_checker() -> None:
    asked_by_algorithm = {"questions", "algorithm", "share", "per_hub"}
    assert elements() - asked_by_algorithm <= set(WRITE)
    assert set(WRITE) <= elements()


def test_the_threat_model_is_the_table_in_the_code() -> None:
    namespace = run_path(str(DOCS / "make_threat_model.py"))
    assert read(DOCS / "threat-model.md") == namespace["page"](), "run: python docs/make_threat_model.py"


@pytest.mark.requirement("URS-14")
@pytest.mark.requirement("URS-15")
def test_every_verdict_of_every_plan_names_a_test_that_exists() -> None:
    cells = [c for plan in PLANS for mode in ("private", "exact") for c in guarantees(mode, PlanChoice(plan))]
    assert len(cells) == 9 * 2 * len(PLANS)
    assert sorted({c.test for c in cells if not (ROOT / c.test).is_file()}) == []
    assert all(c.because and c.assumes and c.residual for c in cells)


def test_the_odds_are_the_ones_that_the_ledger_says() -> None:
    page = read(DOCS / "explanation" / "budget.md")
    for epsilon, factor in re.findall(r"^\| ([\d.]+) \| ([\d.,]+) \|$", page, re.MULTILINE):
        rho, _ = budget_of(float(epsilon), 1e-6)
        assert factor == factor_text(math.exp(odds_of(rho, 1e-6)))
    assert "| 1 | 3.3 |" in page


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=named)
def test_a_decision_says_what_would_change_our_mind_on_one_page(page: Path) -> None:
    text = read(page)
    assert "**What would change our mind.**" in text
    assert len(text.splitlines()) <= 60


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(p.name[:4]) for p in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


def test_it_is_said_that_nothing_is_audited() -> None:
    for page in (ROOT / "README.md", ROOT / "SECURITY.md", DOCS / "explanation" / "protection.md"):
        assert "UNAUDITED" in read(page)
