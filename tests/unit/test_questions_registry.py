"""No statement, no registration; and the digest of what decides on privacy."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from flute.algorithms.contract import Describe, Evaluate, Spec
from flute.algorithms.statistics import DescribeAlgorithm
from flute.errors import MisuseError
from flute.questions import code, registry
from flute.questions.code import code_digest
from flute.questions.registry import REGISTRY, Registration, algorithm_for, of_others, registered


def _altered(**changed: Any) -> Any:
    return type("Altered", (DescribeAlgorithm,), changed)()


@pytest.mark.requirement("NF-HUF-2")
@pytest.mark.parametrize(
    "changed",
    [
        {"statement": None},
        {"statement": "trust us"},
        {"statement": replace(DescribeAlgorithm.statement, released=" ")},
        {"statement": replace(DescribeAlgorithm.statement, bounded_by="")},
        {"statement": replace(DescribeAlgorithm.statement, leaked_otherwise="")},
        {"statement": replace(DescribeAlgorithm.statement, unit="")},
        {"statement": replace(DescribeAlgorithm.statement, norm="")},
        {"statement": replace(DescribeAlgorithm.statement, event="")},
        {"operations": frozenset()},
        {"operations": None},
        {"operations": frozenset({"sums"})},
        {"name": ""},
    ],
)
def test_an_algorithm_without_a_complete_statement_is_not_registered(changed: dict[str, Any]) -> None:
    registered([Registration(Describe, DescribeAlgorithm())])
    with pytest.raises(MisuseError):
        registered([Registration(Describe, _altered(**changed))])


@pytest.mark.requirement("NF-HUF-2")
def test_every_algorithm_that_can_be_asked_for_is_registered_with_its_statement() -> None:
    for spec, one in REGISTRY.items():
        assert spec.__struct_config__.tag == one.algorithm.name
        assert one.algorithm.statement.released
        assert one.algorithm.operations


def test_nothing_is_registered_twice() -> None:
    with pytest.raises(MisuseError, match="twice"):
        registered([Registration(Describe, DescribeAlgorithm()), Registration(Describe, DescribeAlgorithm())])


def test_a_struct_and_its_algorithm_have_one_name() -> None:
    with pytest.raises(MisuseError, match="tagged 'describe'"):
        registered([Registration(Evaluate, DescribeAlgorithm())])


class _Others(Spec, frozen=True, tag="others"):
    variable: str


class _Point:
    name, value = "others", "others:REGISTRATION"

    def __init__(self, given: Any) -> None:
        self._given = given

    def load(self) -> Any:
        return self._given


@pytest.mark.requirement("NF-HUF-2")
def test_an_installed_package_registers_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Registration(_Others, _altered(name="others"))
    monkeypatch.setattr(registry, "entry_points", lambda group: [_Point(theirs), _Point(lambda: [theirs])])
    assert of_others() == [theirs, theirs]
    monkeypatch.setattr(registry, "entry_points", lambda group: [_Point(lambda: ["trust us"])])
    with pytest.raises(MisuseError, match="no Registration"):
        of_others()


def test_an_algorithm_is_found_by_its_struct() -> None:
    assert algorithm_for(Describe(("age",))).name == "describe"
    with pytest.raises(MisuseError):
        algorithm_for(42)  # type: ignore[arg-type]


def test_the_code_digest_sees_a_changed_byte_a_renamed_and_an_added_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(str(files("flute")))
    for module in (m for room in code._ROOMS for m in (package / room).rglob("*.py")):
        copy = tmp_path / module.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(module.read_bytes())
    installed, now = code_digest(), code_digest.__wrapped__
    monkeypatch.setattr(code, "files", lambda _: tmp_path)
    assert now() == installed
    changed = tmp_path / "dp" / "__init__.py"
    before = changed.read_bytes()
    changed.write_bytes(before + b"\n")
    one = now()
    changed.write_bytes(before)
    (tmp_path / "algorithms" / "added.py").write_bytes(b"")
    two = now()
    (tmp_path / "algorithms" / "added.py").rename(tmp_path / "algorithms" / "renamed.py")
    assert len({installed, one, two, now()}) == 4
    assert len(installed) == 32
