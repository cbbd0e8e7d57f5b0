"""Images of a dataset's patients: of nobody else, by pseudonym, once, and gone with the patient."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flute.data.reader import Page
from flute.deidentify.pseudonyms import pseudonym
from flute.hub.records.images import ImagesPlan, collect, forget
from flute.imaging.phantoms.phantom import SMALL, Subject, write_phantom
from flute.intake.recipe import ImagesView, Recipe
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from support.pages import PagesReader, patient, record

KEY = b"k" * 32
VIEWS = {
    "people": {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "getResourceKey()"}]}]},
    "numbers": {
        "resource": "Patient",
        "select": [
            {"column": [{"name": "id", "path": "getResourceKey()"}]},
            {"forEach": "identifier", "column": [{"name": "value", "path": "value"}]},
        ],
    },
    "scans": {
        "resource": "ImagingStudy",
        "select": [
            {
                "column": [
                    {"name": "patient", "path": "subject.getReferenceKey(Patient)"},
                    {"name": "started", "path": "started", "type": "dateTime"},
                    {"name": "uid", "path": "identifier.where(system = 'urn:dicom:uid').value.first()"},
                ]
            }
        ],
    },
}
RECIPE = Recipe("scans", VIEWS, "SELECT id AS patient FROM people", (), concealed={"numbers": ("value",)})
VIEW = ImagesView("people", "numbers", "scans")


class NoText:
    """No reader of pictures: it has tests of its own, and takes half a second an image."""

    def read(self, picture: Any) -> list[Any]:
        return []


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Staging]:
    monkeypatch.setattr("flute.deidentify.pixels.RapidReader", NoText)
    monkeypatch.setattr("flute.deidentify.eyes.Rapid", lambda: None)
    known_by_number = patient("p2", identifier=[{"system": "urn:x-flute:mrn", "value": "MRN-4711"}])
    scan = record(
        "ImagingStudy", "s1", subject={"reference": "Patient/p1"}, started="2023-04-11T09:30:00+01:00",
        identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
    )  # fmt: skip
    pages = [Page("all", b"1", (patient("p1"), known_by_number, patient("p3"), scan), begins=True, ends="complete")]
    design = Design(RECIPE)
    with Staging(None, design.views, design.digest) as held:
        take(PagesReader(pages), held, design.judge(KEY))
        yield held


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SIMULATED studies of three patients of the record, and of one whom it does not know."""
    folder = tmp_path_factory.mktemp("pacs")
    for number, known_as in enumerate(("p1", "MRN-4711", "p3", "stranger")):
        write_phantom(folder / known_as, "siemens", seed=number, size=SMALL, subject=Subject(patient_id=known_as))
    return folder


def run(staging: Staging, pacs: Path, hub: Path, *included: str) -> Any:
    names = frozenset(pseudonym(KEY, patient) for patient in included)
    return collect(ImagesPlan(str(pacs)), VIEW, staging, names, hub, KEY, lambda doing, done, total: None)


@pytest.mark.requirement("F-PIL-7")
@pytest.mark.requirement("URS-12")
def test_only_images_of_the_dataset_s_patients_are_taken(staging: Staging, pacs: Path, tmp_path: Path) -> None:
    found = run(staging, pacs, tmp_path, "p1", "p2")
    assert found.studies == {"complete": 2}
    assert found.links["linked-by-patient-id"] == 2
    assert found.links["patient-unknown"] == 2
    kept = {path.name for path in (tmp_path / "images").iterdir() if path.is_dir()}
    assert kept == {pseudonym(KEY, "p1"), pseudonym(KEY, "p2")}
    names = (b"MRN-4711", b"stranger")
    assert not any(name in path.read_bytes() for path in (tmp_path / "images").rglob("*.dcm") for name in names)
    again = run(staging, pacs, tmp_path, "p1", "p2")
    assert (again.fetched, again.kept) == (0, found.fetched)


def test_a_withdrawn_patient_s_images_are_gone(staging: Staging, pacs: Path, tmp_path: Path) -> None:
    assert forget(tmp_path, KEY, pseudonym(KEY, "p1")) == 0
    run(staging, pacs, tmp_path, "p1", "p2")
    assert forget(tmp_path, KEY, pseudonym(KEY, "p1")) > 0
    left = {path.relative_to(tmp_path / "images").parts[0] for path in (tmp_path / "images").rglob("*.dcm")}
    assert left == {pseudonym(KEY, "p2")}
