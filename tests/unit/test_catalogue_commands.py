"""`flute hub catalogue` from an empty folder to files that validate, through the hub's own door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlcroissant
import msgspec
import pyshacl
import pytest
import rdflib
import typer
from typer.testing import CliRunner

from flute.catalogue.listing import SignedListing, read_listing
from flute.cli.hub.catalogue import catalogue
from flute.coordinator.doors.client import CoordinatorClient
from flute.coordinator.listings import Listings
from flute.errors import Answered, MisuseError
from flute.ledger import audit
from flute.ledger.lines.entries import Reserved
from support.catalogue_entries import HEART
from support.catalogue_hub import open_hub, records
from support.face_servers import served_door
from support.inprocess import NOW, TestHub

APP = typer.Typer()
APP.command()(catalogue)
SHAPES = Path(__file__).resolve().parents[1] / "support" / "shapes" / "healthdcat_ap.ttl"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TestHub]:
    opened = open_hub(tmp_path, records(1))
    with served_door(opened.parts, opened.folder):
        yield opened
    opened.close()


def run(hub: TestHub, *arguments: str) -> str:
    result = CliRunner().invoke(APP, [str(hub.folder), "--dataset", "heart", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.requirement("F-PIL-16")
def test_from_a_file_to_an_entry_that_validates(hub: TestHub, tmp_path: Path) -> None:
    assert "no entry yet" in run(hub)
    (tmp_path / "heart.yaml").write_text(HEART)
    run(hub, "--entry", str(tmp_path / "heart.yaml"), "--person", "eva")
    said = run(hub, "--release", "--epsilon", "0.5", "--out", str(tmp_path / "entry"), "--person", "eva")
    assert "epsilon 0.5 of 1 spent" in said
    assert "Intervals include the noise" in said
    names = sorted(path.name for path in (tmp_path / "entry").iterdir())
    assert names == [
        "croissant.json", "dcat.jsonld", "dcat.ttl", "heart-SYNTHETIC.csv", "heart-SYNTHETIC.txt", "statistics.json",
    ]  # fmt: skip
    for name in ("dcat.jsonld", "dcat.ttl"):
        held, _, report = pyshacl.validate(
            rdflib.Graph().parse(tmp_path / "entry" / name), shacl_graph=rdflib.Graph().parse(SHAPES)
        )
        assert held, report
    dataset = mlcroissant.Dataset(str(tmp_path / "entry" / "croissant.json"))
    assert not dataset.metadata.issues.errors
    assert len(list(dataset.records("sample"))) == 100
    assert json.loads((tmp_path / "entry" / "statistics.json").read_text())["epsilon"] == 0.5


def test_looking_costs_nothing_and_needs_no_person(hub: TestHub) -> None:
    run(hub, "--release", "--epsilon", "0.5", "--person", "eva")
    lines = hub.parts.journal.last.line
    shown = json.loads(run(hub, "--format", "json"))
    assert shown["statistics"]["epsilon"] == 0.5
    assert shown["current"] is True
    assert shown["budget"]["epsilon_left"] > 0
    assert hub.parts.journal.last.line == lines
    charged = [line for line in hub.parts.journal.lines() if isinstance(line.entry, Reserved)]
    assert len(charged) == 1


def test_what_is_wrong_is_said_in_the_hubs_words(hub: TestHub, tmp_path: Path) -> None:
    (tmp_path / "heart.yaml").write_text(HEART.replace("[EHRS]", "[EHR]"))
    with pytest.raises(Answered, match="entry 1 of category is the text 'EHR'"):
        run(hub, "--entry", str(tmp_path / "heart.yaml"), "--person", "eva")
    with pytest.raises(Answered, match="has no entry yet"):
        run(hub, "--out", str(tmp_path / "entry"))
    with pytest.raises(Answered, match="Nothing was read"):
        run(hub, "--release", "--epsilon", "2", "--person", "eva")
    with pytest.raises(MisuseError, match="with --person"):
        run(hub, "--release", "--epsilon", "0.5")
    with pytest.raises(MisuseError, match="go together"):
        run(hub, "--epsilon", "0.5", "--person", "eva")


@pytest.mark.requirement("F-PIL-16")
def test_an_entry_is_signed_and_handed_to_the_coordinator_and_taken_out_again(
    hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator's own store stands at the other end of the line."""
    kept, roster = Listings(tmp_path / "kept"), hub.parts.trust.roster

    def post(_: CoordinatorClient, path: str, signed: Any) -> None:
        assert path == "/catalogue"
        kept.publish(msgspec.convert(signed, type=SignedListing), roster, NOW)

    monkeypatch.setattr(CoordinatorClient, "post", post)
    monkeypatch.setattr(
        "flute.hub.setup.invitation_of", lambda *_: SimpleNamespace(api_url="http://nowhere", federation="test")
    )
    with pytest.raises(Answered, match="has no entry yet"):
        run(hub, "--publish", "--person", "eva")
    (tmp_path / "heart.yaml").write_text(HEART)
    run(hub, "--entry", str(tmp_path / "heart.yaml"), "--person", "eva")
    with pytest.raises(MisuseError, match="with --person"):
        run(hub, "--publish")
    assert "Shown to the federation's researchers" in run(hub, "--publish", "--person", "eva")
    (listing,) = map(read_listing, kept.newest())
    assert listing.entry is not None
    assert (listing.hub, listing.entry.title) == ("north", "SIMULATED: Heart failure clinic")
    assert listing.entry.statistics is None  # nothing was released, so no number about a record is in it
    object.__setattr__(hub.parts, "now", lambda: NOW + 1)  # the next listing is a newer one
    assert "No longer shown" in run(hub, "--unpublish", "--person", "eva")
    assert [read_listing(one).entry for one in kept.newest()] == [None]
    said = [str(line.as_json()) for line in audit.history(hub.parts.journal)]
    assert any("eva: catalogue-published heart." in line for line in said)
    assert any("eva: catalogue-taken-out heart." in line for line in said)
