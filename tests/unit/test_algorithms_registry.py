"""No statement, no registration; and the digest of what decides on privacy."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import pytest

from flute.algorithms import registry
from flute.algorithms.contract import Describe, Evaluate, Spec
from flute.algorithms.registry import ALGORITHMS, algorithm_for, code_digest, registered
from flute.algorithms.statistics import DescribeAlgorithm
from flute.errors import MisuseError


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
    registered([(Describe, DescribeAlgorithm())])
    with pytest.raises(MisuseError):
        registered([(Describe, _altered(**changed))])


@pytest.mark.requirement("NF-HUF-2")
def test_every_algorithm_that_can_be_asked_for_is_registered_with_its_statement() -> None:
    assert set(ALGORITHMS) == set(get_args(Spec))
    for algorithm in ALGORITHMS.values():
        assert algorithm.statement.released
        assert algorithm.operations


def test_nothing_is_registered_twice() -> None:
    with pytest.raises(MisuseError, match="twice"):
        registered([(Describe, DescribeAlgorithm()), (Evaluate, DescribeAlgorithm())])


def test_an_algorithm_is_found_by_its_struct() -> None:
    assert algorithm_for(Describe(("age",))).name == "describe"
    with pytest.raises(MisuseError):
        algorithm_for(42)  # type: ignore[arg-type]


def test_the_code_digest_sees_a_changed_byte_a_renamed_and_an_added_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(str(files("flute")))
    for room in registry._ROOMS:
        (tmp_path / room).mkdir()
        for module in (package / room).glob("*.py"):
            (tmp_path / room / module.name).write_bytes(module.read_bytes())
    installed = code_digest()
    monkeypatch.setattr(registry, "files", lambda _: tmp_path)
    assert code_digest() == installed
    changed = tmp_path / "dp" / "__init__.py"
    before = changed.read_bytes()
    changed.write_bytes(before + b"\n")
    one = code_digest()
    changed.write_bytes(before)
    (tmp_path / "algorithms" / "added.py").write_bytes(b"")
    two = code_digest()
    (tmp_path / "algorithms" / "added.py").rename(tmp_path / "algorithms" / "renamed.py")
    assert len({installed, one, two, code_digest()}) == 4
    assert len(installed) == 32
