"""SQL-on-FHIR v2: our own cases, and the standard's own files where FLUTE_SOF says where they lie."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flute.errors import FluteError
from sof.suite import Case, Disagreement, cases, check, report

OURS = list(cases(Path(__file__).parent / "cases"))
LEAST = 133
"""Of the standard's 134 cases; which one may be missing, and why, is in docs/explanation/sql-on-fhir.md."""


@pytest.mark.parametrize("case", OURS, ids=lambda case: case.id)
def test_a_view_gives_what_the_standard_says(case: Case) -> None:
    check(case)


def test_there_are_enough_cases_of_our_own() -> None:
    assert len(OURS) >= 60
    assert len({case.id for case in OURS}) == len(OURS)


def test_a_wrong_expectation_is_noticed() -> None:
    for case in OURS:
        if case.expected.get("expect"):
            wrong = Case(case.file, case.title, case.resources, case.declaration, {"expect": []})
        elif case.expected.get("expectError"):
            wrong = Case(case.file, case.title, case.resources, case.declaration, {"expectError": True, "says": "§"})
        else:
            continue
        with pytest.raises(Disagreement):
            check(wrong)


@pytest.mark.skipif("FLUTE_SOF" not in os.environ, reason="opt-in: make test-sof SOF=DIR, where DIR holds its tests/")
def test_the_standard_s_own_cases(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Prints passed and total, and writes the standard's test report to FLUTE_SOF_REPORT where that is set."""
    folder = Path(os.environ["FLUTE_SOF"])
    found = [(case, _fault(case)) for case in cases(folder / "tests" if (folder / "tests").is_dir() else folder)]
    passed = sum(fault is None for _, fault in found)
    where = Path(os.environ.get("FLUTE_SOF_REPORT") or tmp_path / "test_report.json")
    where.write_text(json.dumps(report(found), indent=1))
    with capsys.disabled():
        print(f"\nSQL-on-FHIR: {passed} of {len(found)} of the standard's own cases pass; report: {where}")
        for case, fault in found:
            if fault is not None:
                print(f"  {case.id}: {fault}")
    assert passed >= LEAST


def _fault(case: Case) -> str | None:
    try:
        check(case)
    except (Disagreement, FluteError) as error:
        return str(error)
    return None
