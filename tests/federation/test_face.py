"""The hub's FHIR face as a process beside the hub: a client reads it, our own reader gives the same table again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from flute.connectors.files import FilesReader
from flute.data.variables import Variable
from flute.defaults.records import FACE_TOKEN_BYTES
from flute.deidentify.pseudonyms import pseudonym
from flute.face.access import FILE, make_token, void_token
from flute.fhirserver.connection import Declined
from flute.fhirserver.options import Bearer, ServerOptions
from flute.fhirserver.server import open_server
from flute.hub.home import HubConfig, HubHome
from flute.hub.parts import Parts
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import DatasetEntry, HubPolicy, HubStore
from flute.intake.freeze import Freezing, freeze
from flute.intake.snapshot import SnapshotSource, write_snapshot
from flute.intake.staging import Staging
from flute.intake.take import Design, take
from flute.ledger.budgets.budget import Ledger
from flute.ledger.journals.journal import Journal, verify
from flute.ledger.lines.entries import PersonAct
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.recipe import PILOT_VARIABLES, pilot_recipe
from flute.pilot.simulate import write_pilot
from flute.primitives.keys import digest
from support.face_servers import served_door, served_face
from support.parties import Party

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
NOW = 1_790_000_000
NAMES = tuple(v.name for v in PILOT_VARIABLES)


@dataclass
class Hub:
    folder: Path
    parts: Parts
    token: str


def snapshot_of(reader: Any, root: Path, key: bytes) -> bytes:
    """By the hub's own pipeline: pages, checks by the pilot's model, recipe, pseudonyms, snapshot."""
    design = Design(replace(pilot_recipe(), model=PILOT_MODEL))
    with Staging(None, design.views, design.digest) as staging:
        take(reader, staging, design.judge(KEY))
        frozen = freeze(staging, design.recipe, Freezing(key, simulated=True))
    assert frozen.report.refused == {}
    return write_snapshot(frozen.rows, root)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One hub with the simulated men of one hospital, its door served."""
    out, folder = tmp_path_factory.mktemp("export"), tmp_path_factory.mktemp("hub")
    write_pilot(out, 7, {"huvh": 60})
    found = snapshot_of(FilesReader(out / "huvh"), folder, KEY)
    store, me = HubStore(folder), Party("north")
    store.put_dataset(DatasetEntry("pilot", found, PILOT_VARIABLES, {}, NOW, True))
    store.put_dataset(DatasetEntry("other", found, (Variable("age", "number", 0, 120),), {}, NOW, True))
    journal = Journal.open(folder / "journal.db", me.signing)
    parts = Parts(
        me="north", signing=me.signing, sealing=me.sealing, store=store, journal=journal,
        ledger=Ledger(journal, hub_ceilings(HubPolicy())), trust=None,  # type: ignore[arg-type]
        sources=lambda d: SnapshotSource(folder, d), channel=None, now=lambda: NOW,  # type: ignore[arg-type]
    )  # fmt: skip
    token = make_token(folder, "viewer", bytes(range(FACE_TOKEN_BYTES)))
    with served_door(parts, folder):
        yield Hub(folder, parts, token)
    journal.close()
    store.close()


@pytest.fixture(scope="module")
def base(hub: Hub) -> Iterator[str]:
    with served_face(hub.folder) as address:
        yield address


@pytest.fixture
def http(hub: Hub, base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, headers={"authorization": f"Bearer {hub.token}"}, timeout=30) as client:
        yield client


def noted(hub: Hub) -> list[str]:
    return [line.entry.says() for line in hub.parts.journal.lines() if isinstance(line.entry, PersonAct)]


@pytest.mark.requirement("F-HUF-21")
def test_our_own_reader_gives_the_same_table_again(hub: Hub, base: str, tmp_path: Path) -> None:
    """What FLUTE made, read as any hospital's FHIR server is read, through the same checks and the same recipe."""
    (tmp_path / "token").write_text(hub.token)
    (tmp_path / "token").chmod(0o600)
    options = ServerOptions(
        queries=("Patient", "Observation", "Procedure", "FamilyMemberHistory"),
        auth=Bearer(file=str(tmp_path / "token")),
        page_size=50,
    )
    again = snapshot_of(open_server(f"{base}/pilot", options), tmp_path, OTHER_KEY)
    first = SnapshotSource(hub.folder, hub.parts.store.dataset("pilot").snapshot).open(PILOT_VARIABLES)
    second = SnapshotSource(tmp_path, again).open(PILOT_VARIABLES)
    assert len(second) == len(first) == 60
    place = {str(p): row for row, p in enumerate(second.pseudonyms)}
    order = [place[pseudonym(OTHER_KEY, str(p))] for p in first.pseudonyms]
    for name in NAMES:
        np.testing.assert_array_equal(first.column(name), second.column(name)[order], err_msg=name)
    assert sum(np.isnan(first.column(name)).sum() for name in NAMES) > 0  # with gaps that stay gaps


def test_every_read_is_a_line_of_the_hubs_journal(hub: Hub, http: httpx.Client) -> None:
    before = len(noted(hub))
    person = str(SnapshotSource(hub.folder, hub.parts.store.dataset("pilot").snapshot).open([]).pseudonyms[0])
    assert http.get("/pilot/metadata").json()["resourceType"] == "CapabilityStatement"
    assert http.get(f"/pilot/Patient/{person}").status_code == 200
    assert http.get("/pilot/Observation?_count=7").json()["total"] > 100
    lines = noted(hub)[before:]
    assert lines == [
        "viewer: face-metadata pilot/CapabilityStatement, 1 resources.",
        f"viewer: face-read pilot/Patient of patient {digest(person.encode()).hex()[:12]}, 1 resources.",
        "viewer: face-search pilot/Observation, 7 resources.",
    ]
    assert person not in "".join(lines)
    verify(hub.parts.journal.path, hub.parts.signing.public)


def test_what_nobody_declared_as_fhir_is_not_shown(http: httpx.Client) -> None:
    assert http.get("/other/metadata").status_code == 404


def test_a_hidden_variable_disappears_at_once(hub: Hub, http: httpx.Client) -> None:
    count = "/pilot/Observation?_summary=count&code=http://loinc.org|2857-1"
    assert http.get(count).json()["total"] > 50
    hub.parts.store.put_policy(HubPolicy(hidden=("psa",)))
    try:
        assert http.get(count).json()["total"] == 0
    finally:
        hub.parts.store.put_policy(HubPolicy())
    assert http.get(count).json()["total"] > 50


def test_a_token_that_was_taken_away_opens_nothing(hub: Hub, base: str) -> None:
    token = make_token(hub.folder, "guest", bytes(range(2, 2 + FACE_TOKEN_BYTES)))
    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{base}/pilot/metadata", headers=headers).status_code == 200
    void_token(hub.folder, "guest")
    assert httpx.get(f"{base}/pilot/metadata", headers=headers).status_code == 401
    assert httpx.get(f"{base}/pilot/metadata").status_code == 401
    with pytest.raises(Declined, match="does not accept FLUTE's credentials"):
        list(open_server(f"{base}/pilot", ServerOptions(queries=("Patient",))).pages(None))


def test_a_tokens_file_that_others_can_read_opens_nothing(hub: Hub, http: httpx.Client) -> None:
    (hub.folder / FILE).chmod(0o644)
    try:
        answer = http.get("/pilot/metadata")
        assert answer.status_code == 503
        assert str(hub.folder) not in answer.text
    finally:
        (hub.folder / FILE).chmod(0o600)
    assert http.get("/pilot/metadata").status_code == 200


def test_without_the_hub_service_nothing_is_shown(tmp_path: Path) -> None:
    """A folder with records and tokens, and no service that could journal a read."""
    HubHome(tmp_path).write_config(HubConfig("north", "test", bytes(32)))
    token = make_token(tmp_path, "viewer", bytes(range(FACE_TOKEN_BYTES)))
    with served_face(tmp_path) as address:
        for path in ("/pilot/metadata", "/pilot/Patient"):
            answer = httpx.get(address + path, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 503
            assert answer.json()["issue"][0]["code"] == "transient"
            assert str(tmp_path) not in answer.text


def test_head_and_oversized_calls_over_the_wire(http: httpx.Client) -> None:
    head = http.head("/pilot/metadata")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(http.get("/pilot/metadata").content)
    assert "server" not in head.headers
    assert http.get("/pilot/Patient", headers={"x": "a" * 100_000}).status_code >= 400
    assert http.post("/pilot/Patient", content=b"{}").status_code == 405
