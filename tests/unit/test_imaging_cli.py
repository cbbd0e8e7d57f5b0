"""`flute simulate mri` and `flute imaging check` as a data manager types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flute.cli.app import APP
from flute.errors import FluteError, MisuseError
from flute.imaging.check import source_at
from flute.imaging.sources.dimse import DimseSource
from flute.imaging.sources.web import WebSource

RUN = CliRunner()


def flute(*words: str) -> Result:
    return RUN.invoke(APP, words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "mri"
    done = flute("simulate", "mri", "--out", str(out), "--maker", "philips", "--size", "small", "--format", "json")
    assert json.loads(done.stdout) == {"out": str(out), "maker": "philips", "seed": 1, "images": 66, "defects": []}
    return out


@pytest.mark.requirement("F-PIL-8")
def test_a_whole_study_is_told_series_by_series(whole: Path) -> None:
    done = flute("imaging", "check", str(whole), "--format", "json")
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["good"]
    (study,) = told["studies"]
    assert sorted(s["kind"] for s in study["quality"]["series"]) == ["ADC", "DWI", "DWI", "T2W", "T2W", "localizer"]
    assert [s["b_values"] for s in study["quality"]["series"] if s["kind"] == "DWI"] == [[50, 400, 800], [1400]]
    assert all(s["evidence"] for s in study["quality"]["series"])


def test_the_text_says_the_same_and_names_no_patient(whole: Path) -> None:
    done = flute("imaging", "check", str(whole), "--evidence")
    assert done.exit_code == 0
    for word in ("complete", "T2W", "sagittal", "50 400 800", "for ADC: image type ADC"):
        assert word in done.stdout
    assert "SIM-0001" not in done.stdout
    assert "SIMULATED^" not in done.stdout


def test_a_defect_and_a_broken_file_are_told_with_what_to_do_and_exit_code_1(tmp_path: Path) -> None:
    out = str(tmp_path / "mri")
    flute(*["simulate", "mri", "--maker", "ge", "--size", "small", "--defect", "missing-slice", "--out"], out)
    (tmp_path / "mri" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 50)
    done = flute("imaging", "check", str(tmp_path / "mri"))
    assert done.exit_code == 1
    assert "slice-missing" in done.stdout
    assert "Send the series again" in done.stdout
    assert "broken.dcm damaged" in done.stdout


def test_a_readme_beside_the_images_is_no_fault(whole: Path) -> None:
    (whole / "readme.txt").write_text("images of the trial " * 20)
    assert flute("imaging", "check", str(whole)).exit_code == 0


def test_what_is_asked_for_and_not_there_is_told(whole: Path) -> None:
    done = flute("imaging", "check", str(whole), "--patient", "NOBODY")
    assert done.exit_code == 1
    assert "No study was found" in done.stdout


@pytest.mark.parametrize(
    ("place", "kind"),
    [("https://pacs.example.org/dicom-web", WebSource), ("dimse://PACS@10.0.0.5:104", DimseSource)],
)
def test_an_address_leads_to_its_kind_of_source(place: str, kind: type) -> None:
    assert isinstance(source_at(place), kind)


@pytest.mark.parametrize(
    "place",
    [
        "dimse://10.0.0.5:104",
        "dimse://PACS@10.0.0.5",
        "dimse://PACS@h:99999999",
        f"dimse://{'A' * 17}@h:104",
        "/nowhere",
    ],
)
def test_an_address_that_is_none_is_told_in_one_sentence(place: str) -> None:
    with pytest.raises(FluteError, match=r"\.\Z"):
        source_at(place)


def test_a_secret_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("Bearer x")
    secret.chmod(0o644)
    done = flute("imaging", "check", "https://127.0.0.1:9/dicom-web", "--authorization", str(secret))
    assert isinstance(done.exception, MisuseError)
    assert "chmod 600" in str(done.exception)


def test_an_unknown_defect_is_answered_by_the_list_of_those_there_are(tmp_path: Path) -> None:
    done = flute("simulate", "mri", "--out", str(tmp_path), "--defect", "misery")
    assert isinstance(done.exception, MisuseError)
    assert "missing-slice" in str(done.exception)
