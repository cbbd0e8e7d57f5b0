"""A folder of images and resources through the command: what is written, counted, refused, with which exit code."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pydicom
import pytest
import typer
from typer.testing import CliRunner

from flute.cli.records.deidentify import anonymity_report, deidentify
from flute.deidentify.pseudonyms import pseudonym
from support.planted_leaks import OBSERVATION, PATIENT, anatomy, as_file, image, put_picture, written

pytestmark = pytest.mark.requirement("F-PIL-6")
APP = typer.Typer(pretty_exceptions_enable=False)
APP.command("deidentify")(deidentify)
APP.command("anonymity")(anonymity_report)


def call(*words: object) -> Any:
    return CliRunner().invoke(APP, [str(word) for word in words])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    (folder / "Mueller").mkdir(parents=True)
    (folder / "Mueller" / "1.dcm").write_bytes(as_file(image()))
    screen = image()
    screen.SOPClassUID = screen.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    (folder / "Mueller" / "2.dcm").write_bytes(as_file(screen))
    (folder / "readme.txt").write_text("no image")
    named = {"resourceType": "Practitioner", "id": "dr", "name": [{"family": "Oberländer"}]}
    for kind, resources in {"Patient": [PATIENT], "Observation": [OBSERVATION], "Practitioner": [named]}.items():
        lines = "".join(json.dumps(resource) + "\n" for resource in resources)
        (folder / f"{kind}.ndjson").write_text(lines)
    return folder


def test_images_and_resources_leave_under_one_pseudonym(source: Path, tmp_path: Path) -> None:
    """The image says "471122-9", which is an identifier of Patient/pat-471122: both are one person."""
    out = tmp_path / "clean"
    result = call("deidentify", source, "--out", out, "--key-file", tmp_path / "key", "--format", "json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["report"]["images"] == 1
    assert told["report"]["resources"] == {"Observation": 1, "Patient": 1}
    assert told["report"]["withheld"] == {"class-not-accepted": 1, "not-dicom": 1, "type-not-listed": 1}
    assert told["report"]["leaks"] == {}
    assert len(told["refused"]) == 3
    name = pseudonym((tmp_path / "key").read_bytes(), "pat-471122")
    [file] = (out / "dicom" / name).rglob("*.dcm")
    image_ = pydicom.dcmread(file)
    assert image_.PatientID == name
    patient = json.loads((out / "fhir" / "Patient.ndjson").read_text())
    assert patient["id"] == name
    observation = json.loads((out / "fhir" / "Observation.ndjson").read_text())
    assert observation["effectiveDateTime"][:10].replace("-", "") == image_.StudyDate  # both of 27 November 2019


def test_a_new_key_is_private_and_its_keeping_is_explained(source: Path, tmp_path: Path) -> None:
    result = call("deidentify", source, "--out", tmp_path / "a", "--key-file", tmp_path / "key")
    assert "Keep it, and keep it secret" in result.stderr
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    again = call("deidentify", source, "--out", tmp_path / "b", "--key-file", tmp_path / "key")
    assert "Made a new key" not in again.stderr
    files = [sorted(p.relative_to(tmp_path / x) for p in (tmp_path / x).rglob("*.dcm")) for x in "ab"]
    assert files[0] == files[1]


def test_a_key_open_to_others_or_of_another_size_is_refused(source: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    key.chmod(0o644)
    assert "chmod 600" in str(call("deidentify", source, "--out", tmp_path / "a", "--key-file", key).exception)
    key.chmod(0o600)
    key.write_bytes(b"short")
    assert "5 bytes" in str(call("deidentify", source, "--out", tmp_path / "a", "--key-file", key).exception)


def test_results_are_not_mixed_with_others_or_with_their_source(source: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "old").write_text("x")
    assert "not empty" in str(call("deidentify", source, "--out", full, "--key-file", tmp_path / "k").exception)
    inside = call("deidentify", source, "--out", source / "clean", "--key-file", tmp_path / "k")
    assert "kept apart" in str(inside.exception)
    missing = call("deidentify", tmp_path / "none", "--out", tmp_path / "x", "--key-file", tmp_path / "k")
    assert "no folder" in str(missing.exception)


def test_a_name_in_the_pixels_is_refused_or_blanked(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    ds = image()
    put_picture(ds, written(anatomy(), "MUELLER ANNELIESE"))
    (folder / "1.dcm").write_bytes(as_file(ds))
    refused = call("deidentify", folder, "--out", tmp_path / "a", "--key-file", tmp_path / "k")
    assert refused.exit_code == 0
    assert "1 burnt-in-text" in refused.stdout
    assert not list((tmp_path / "a").rglob("*.dcm"))
    blanked = call("deidentify", folder, "--out", tmp_path / "b", "--key-file", tmp_path / "k", "--burnt-in", "blank")
    assert blanked.exit_code == 0, blanked.output
    assert len(list((tmp_path / "b").rglob("*.dcm"))) == 1
    assert "1 regions were blanked" in blanked.stdout


def test_a_series_with_text_on_one_image_is_not_released_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for number in range(3):
        ds = image()
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        put_picture(ds, written(anatomy(), "MUELLER ANNELIESE") if number == 2 else anatomy(seed=number))
        (folder / f"{number}.dcm").write_bytes(as_file(ds))
    told = json.loads(
        call("deidentify", folder, "--out", tmp_path / "a", "--key-file", tmp_path / "k", "--format", "json").stdout
    )
    assert told["report"]["withheld"] == {"burnt-in-text": 1, "text-in-its-series": 2}
    assert told["report"]["images"] == 0
    assert not list((tmp_path / "a").rglob("*.dcm"))


def test_a_finding_of_the_residual_check_is_an_exit_code_and_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A de-identifier that forgets the institution: what it made stays inside."""
    from flute.deidentify import dicom

    careful = dicom._mark

    def forgetful(result: Any, dates: Any) -> None:
        careful(result, dates)
        result.InstitutionName = "Klinikum Blautal"

    monkeypatch.setattr(dicom, "_mark", forgetful)
    out = tmp_path / "clean"
    result = call("deidentify", source, "--out", out, "--key-file", tmp_path / "key")
    assert result.exit_code == 1
    assert "place, (0008,0080): 1" in result.stdout
    assert "Blautal" not in result.output
    assert not list(out.rglob("*.dcm"))


def test_a_table_is_reported_on(tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text("age,sex,outcome\n" + "60,m,1\n60,m,0\n61,f,1\n")
    words = ("anonymity", table, "--quasi", "age", "--quasi", "sex", "--sensitive", "outcome")
    told = json.loads(call(*words, "--format", "json").stdout)
    assert (told["records"], told["k"], told["unique"]) == (3, 1, 1)
    assert "k = 1" in call(*words).stdout
    assert "no column 'weight'" in str(call("anonymity", table, "--quasi", "weight").exception)
