"""The pilot's common model as declared: complete, consistent with the recipe's tables, and written down."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from typer.testing import CliRunner

from flute.cli import model as model_command
from flute.conformance.model import Coded, Flag, Model, Quantity
from flute.conformance.structure import documents
from flute.conformance.units import factors
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.tables import ISUP_LOINC, ISUP_SCT, PROSTATE_CANCERS
from flute.pilot.views import PILOT_VIEWS

ROOT = Path(__file__).resolve().parents[2]
ELEMENTS = (PILOT_MODEL.person, *PILOT_MODEL.elements)


def test_the_model_can_be_written_as_json_and_read_again() -> None:
    assert msgspec.json.decode(msgspec.json.encode(PILOT_MODEL), type=Model) == PILOT_MODEL


def test_every_code_that_a_view_asks_for_is_a_code_of_an_element() -> None:
    text = json.dumps(PILOT_VIEWS)
    for element in ELEMENTS:
        for coding in element.code:
            assert coding.code in text, element.name
        for coding in element.sites:
            assert coding.code in text


@pytest.mark.requirement("F-PIL-28")
def test_grade_groups_are_read_from_loinc_and_snomed() -> None:
    kind = PILOT_MODEL.element("outcome").part("value").kind
    assert isinstance(kind, Coded)
    assert [kind.values[str(grade)][0].code for grade in range(1, 6)] == list(ISUP_LOINC.values())
    assert {c.code for c in kind.values["4"]} == {ISUP_LOINC[4], *ISUP_SCT[4]}
    assert set(kind.values) == {"0", "1", "2", "3", "4", "5"}


def test_all_thirty_cancers_count_as_family_history() -> None:
    kind = PILOT_MODEL.element("family_history").part("value").kind
    assert isinstance(kind, Flag)
    assert {c.code for c in kind.codings} == set(PROSTATE_CANCERS)
    assert len(kind.codings) == 30


def test_no_two_choices_share_a_coding() -> None:
    for element in ELEMENTS:
        for part in element.parts:
            if isinstance(part.kind, Coded):
                meant = [(c.system, c.code) for codings in part.kind.values.values() for c in codings]
                assert len(set(meant)) == len(meant), (element.name, part.name)


@pytest.mark.requirement("NF-PIL-1")
def test_every_accepted_unit_can_be_converted() -> None:
    kinds = [part.kind for element in ELEMENTS for part in element.parts if isinstance(part.kind, Quantity)]
    assert [len(factors(kind)) for kind in kinds] == [10, 5]


def test_export_writes_every_document(tmp_path: Path) -> None:
    result = CliRunner().invoke(model_command.APP, ["export", "--out", str(tmp_path / "model"), "--format", "json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    written = {p.name: json.loads(p.read_text(encoding="utf-8")) for p in (tmp_path / "model").iterdir()}
    assert sorted(written) == sorted(said["files"])
    assert sorted(written.values(), key=lambda d: d["url"]) == sorted(documents(PILOT_MODEL), key=lambda d: d["url"])


def page_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_common_model", ROOT / "docs" / "make_common_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_not_stale() -> None:
    page = (ROOT / "docs" / "reference" / "common-model.md").read_text(encoding="utf-8")
    assert page == page_script().page(), "run: python docs/make_common_model.py"
    for element in ELEMENTS:
        assert all(f"`{coding.code}`" in page for coding in (*element.code, *element.sites))
