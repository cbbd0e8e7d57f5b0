"""`flute hub import` and its neighbours: slips of the pen are told in words before a hub is asked; what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flute.cli.hub import app as hub
from flute.cli.records.import_text import decision_text, import_text, quality_text, withdrawal_text
from flute.cli.records.slips import require_names
from flute.errors import FluteError, MisuseError, PeerUnreachable

FLOW_STEP = {"word": "too-young", "says": "Under 18", "requirement": "", "left": 1, "remain": 9, "kept": 0}


def told(*typed: str) -> str:
    """What the command says, ours without a label, and typer's."""
    result = CliRunner().invoke(hub.APP, list(typed))
    if isinstance(result.exception, FluteError):
        assert isinstance(result.exception, MisuseError | PeerUnreachable)
        return result.exception.text
    assert isinstance(result.exception, SystemExit), result.exception
    return result.output


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with FHIR, one with tables, a mapping; the reader stands beside them."""
    (tmp_path / "fhir").mkdir()
    (tmp_path / "fhir" / "Patient.ndjson").write_text('{"resourceType": "Patient", "id": "1"}\n')
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "patients.csv").write_text("id;weight\n1;3,4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SLIPS = [
    (("--fhir", "nowhere"), "There is nothing at nowhere."),
    (("--fhir", "tables"), "tables holds tables, not FHIR. Import them with --csv"),
    (("--fhir", "tables/patients.csv"), "holds tables, not FHIR"),
    (("--csv", "tables"), "Say what the tables mean, with one --mapping (0 given)"),
    (("--csv", "tables", "--sql", "sqlite:///x.db", "--mapping", "csv"), "need a --mapping each, the one of --csv"),
    (("--mapping", "csv"), "name them too, with --csv or --sql"),
    (("--csv", "tables", "--mapping", "clinic.yaml"), "There is no mapping file clinic.yaml"),
    (("--csv", "nowhere.csv", "--mapping", "csv"), "There is nothing at nowhere.csv."),
    (("--fhir", "fhir", "--declare", "foo=1"), "There is no fact foo to declare; there are "),
    (("--fhir", "fhir", "--declare", "foo"), "'foo' is not NAME=VALUE; the facts are "),
    (("--declare", "pirads-version=2.1"), "--declare and --columns go with the sources they are about"),
    (("--fhir", "fhir", "--columns", "more.csv"), "--columns and --columns-variables go together"),
    (("--fhir", "fhir", "--recipe", "other.json"), "other.json is no recipe: write 'pilot', or a JSON file"),
    (("--fhir", "fhir", "--recipe", "other.json", "--declare", "same-day=last"), "a recipe file says its own facts"),
    (("--variables", "heart.yaml"), "--variables goes with --csv FILE."),
    (("--fhir", "fhir", "--report", "no/such/page.html"), "name a file in a folder that exists"),
    (("--fhir", "fhir", "--report", "."), "No page can be written to ."),
    (("--fhir", "fhir", "--server-options", "server.yaml"), "No hub service answers in"),
]  # fmt: skip


@pytest.mark.requirement("URS-12")
@pytest.mark.parametrize(
    ("options", "said"), SLIPS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_a_slip_in_an_import_is_told_with_what_to_write(options: tuple[str, ...], said: str, export: Path) -> None:
    text = told("import", "hub", "--dataset", "pilot", "--person", "eva", *options)
    assert said in " ".join(text.split())
    assert text.strip().endswith((".", ")", "starts it."))


@pytest.mark.requirement("URS-12")
def test_a_hub_that_does_not_run_is_told_and_how_to_start_it(export: Path) -> None:
    for typed in (
        ("import", "hub", "--dataset", "pilot", "--person", "eva", "--fhir", "fhir"),
        ("cohort", "hub", "--dataset", "pilot"),
        ("quality", "hub", "--dataset", "pilot"),
        ("withdraw-patient", "hub", "4711", "--person", "eva", "--reason", "asked for it"),
    ):
        text = told(*typed)
        assert f"No hub service answers in {export / 'hub'}" in text
        assert "'flute hub serve " in text


def test_names_that_the_hub_would_not_take_are_told_with_one_that_it_would() -> None:
    cases = [
        ("my pilot", "my-pilot"),
        ("2024", "pilot"),
        ("", "pilot"),
        ("pilot/2024", "pilot-2024"),
        ("x" * 65, "pilot"),
    ]
    for name, instead in cases:
        with pytest.raises(MisuseError, match=f"for example {instead}\\."):
            require_names(dataset=name)
    for person, instead in (
        ("Eva", "eva"),
        ("eva_m", "eva-m"),
        ("é", "eva"),
        ("Eva Martín", "eva-mart-n"),
        ("e", "eva"),
    ):
        with pytest.raises(MisuseError, match=f"for example {instead}\\."):
            require_names(person=person)
    require_names("pilot-2024.b", "eva-m2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--decision", "keep", "--why", "seen"), "--decision is keep-in, leave-out, same-person or take-back."),
        (("--decision", "keep-in", "--why", "seen"), "keep-in and --despite go together"),
        (("--decision", "leave-out", "--despite", "too-young", "--why", "seen"), "keep-in and --despite go together"),
        (("--decision", "same-person", "--why", "twins"), "two ids or more"),
        (("--decision", "leave-out", "--why", "x"), "3 to 200 characters"),
        (("--decision", "leave-out", "--why", "x" * 201), "3 to 200 characters"),
        (("--decision", "leave-out", "--why", "seen"), "No hub service answers"),
    ],
)
def test_a_decision_that_lacks_a_part_reaches_no_hub(options: tuple[str, ...], said: str, export: Path) -> None:
    assert said in told("decide", "hub", "4711", "--dataset", "pilot", "--person", "eva", *options)


# --- what is printed -----------------------------------------------------------------------------------------


def ended(**changes: Any) -> dict[str, Any]:
    report = {
        "rows": 9, "patients": 10, "resources": 40, "files": 2, "excluded": {"too-young": 1}, "refused": {},
        "warnings": {}, "flags": {}, "missing": {"kg": 2, "sex": 0}, "unusable": {},
    }  # fmt: skip
    plain = {"simulated": False, "report": report, "refused": [], "alarms": [], "flow": {"steps": [FLOW_STEP]}}
    return plain | {"images": None} | changes


def refusal(n: int) -> dict[str, str]:
    return {"origin": f"a.ndjson, line {n}", "resource": "Observation/1", "path": "Observation.value[x]", "rule": "w",
            "reason": "unit-missing", "found": "[red]", "mend": "Write the unit."}  # fmt: skip


def test_an_import_is_told_in_counts_places_and_mends() -> None:
    text = import_text(ended(refused=[refusal(1)]))
    assert "9 patients in the dataset, of 10 found in 40 records (2 parts of the source)." in text
    assert "Excluded: 1 too-young.\nMissing: 2 kg." in text
    assert (
        "Where, and how to mend it:\n  a.ndjson, line 1: Observation.value\\[x]: [bold]unit-missing[/bold] (" in text
    )
    assert r"\[red]" in text  # what stood there is no markup
    assert "SIMULATED" not in text
    assert import_text(ended(simulated=True)).startswith("[yellow]SIMULATED")


def test_refusals_of_one_cause_are_told_once_with_some_places_the_most_frequent_first() -> None:
    other = refusal(9) | {"reason": "date-malformed", "mend": "Write the day."}
    text = import_text(ended(refused=[other, *(refusal(n) for n in range(1200))]))
    told = text.partition("Where, and how to mend it:\n")[2].splitlines()
    assert told[0].startswith("  1,200 times Observation.value\\[x]: [bold]unit-missing[/bold]. Write the unit.")
    places = "; ".join(f"a.ndjson, line {n} (\\[red])" for n in range(3))
    assert told[1] == f"    {places}; …"
    assert "date-malformed" in told[2]
    many = import_text(ended(refused=[refusal(n) | {"path": f"p{n}"} for n in range(12)]))
    assert "Where, and how to mend it, the first 10:" in many
    assert many.count("unit-missing") == 10


def test_an_import_of_nobody_asks_for_the_place() -> None:
    state = ended()
    state["report"] |= {"rows": 0, "patients": 0, "resources": 1, "files": 1, "excluded": {}}
    assert "0 patients in the dataset, of 0 found in 1 record (1 part of the source)." in import_text(state)
    assert "Is it the right place?" in import_text(state)
    assert "Is it the right place?" not in import_text(ended())


def test_a_decision_that_keeps_nobody_in_says_so() -> None:
    assert "Nobody is kept in by it" in decision_text(ended(), "keep-in", ["too-young"])
    kept = ended(flow={"steps": [FLOW_STEP | {"kept": 1}]})
    assert "Nobody" not in decision_text(kept, "keep-in", ["too-young"])
    assert "Nobody is kept in by it" in decision_text(kept, "keep-in", ["no-weight"])
    assert "Nobody" not in decision_text(ended(), "leave-out", [])


def test_a_withdrawal_of_an_unknown_id_does_not_sound_like_one_of_a_patient() -> None:
    nobody = {"datasets": [], "studies_changed": [], "studies_ended": []}
    assert "No dataset of this hub holds a patient of this id" in withdrawal_text(nobody)
    assert "Withdrawn." not in withdrawal_text(nobody)
    assert withdrawal_text(nobody | {"datasets": ["ward"]}).startswith("Withdrawn. The patient was in ward,")
    assert "Studies that go on without this patient: old." in withdrawal_text(nobody | {"studies_changed": ["old"]})


def test_quality_of_a_dataset_that_was_never_imported_names_it() -> None:
    assert quality_text("pilto", []).startswith("Nothing was imported into a dataset called pilto yet")
