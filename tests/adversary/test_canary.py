"""Records never leave: a canary is planted at every hub, and looked for in every byte that leaves one.

Real processes, FHIR import, the pilot's own studies, private and exact. What leaves is kept at three places:
before TLS (each relay's own capture), on the wire (a forwarder between each hub and the coordinator), and at
the coordinator, in everything it stored. Envelopes are opened with the coordinator's key, since a search of
ciphertext alone would find nothing in any build. Leaky builds of the hub show that the search finds leaks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

import flute.local.federation
from flute.deidentify.pseudonyms import pseudonym
from flute.demo import pilot_study
from flute.hub.home import HubHome
from flute.hub.store import HubPolicy
from flute.intake.snapshot import SnapshotSource
from flute.local.federation import LocalFederation
from flute.local.processes import Service
from flute.local.run import StudyStopped, import_fhir, run_study, set_policy
from flute.messages.answer import MaskedAnswer, OwnTotal
from flute.messages.question import OwnQuestion, SecureQuestion
from flute.pilot.recipe import PILOT_RECIPE
from flute.pilot.simulate import plant_canary, write_pilot
from flute.study.agreement import Agreement
from flute.study.files.check import check_study
from flute.trust.keyfiles import load_party_keys
from support.canary import (
    Step,
    canary,
    false_alarm,
    patterns,
    row_patterns,
    search,
    step_of,
    vector_findings,
)
from support.recording import RecordingWire, require_tls_only
from support.wiretap import Said, asked, captured_bodies, in_clear

HUBS = ("chu", "huvh", "irst")
SIZES = {"huvh": 90, "chu": 60, "irst": 60}
POLICY = HubPolicy(epsilon=3, epsilon_all=4, exact_allowed=True, floor=1)
STUDIES = ("pilot", "pilot-exact")

pytestmark = [
    pytest.mark.requirement("URS-1"),
    pytest.mark.requirement("F-SRS-5"),
    pytest.mark.requirement("F-PIL-22"),
    pytest.mark.timeout(180),
]


@dataclass
class Watched:
    """A federation that has run, with all that left its hubs."""

    local: LocalFederation
    capture: Path
    records: Path
    wires: dict[str, RecordingWire]
    agreements: dict[str, Agreement]
    released: dict[str, Any]
    stopped: dict[str, str]

    def raw(self, hub: str) -> bytes:
        return (self.capture / f"{hub}.out").read_bytes()

    def said(self, hub: str) -> list[Said]:
        key = load_party_keys(self.local.coordinator_home.keys).sealing
        return [in_clear(body, key) for body in captured_bodies(self.raw(hub))]

    def key(self, hub: str) -> bytes:
        return HubHome(self.local.hub_folder(hub)).config().pseudonym_key

    def mine(self, hub: str) -> str:
        """The canary's pseudonym at this hub."""
        return pseudonym(self.key(hub), canary(hub).patient)

    def source(self, hub: str) -> SnapshotSource:
        folder = self.local.hub_folder(hub)
        (found,) = (folder / "records").glob("*.parquet")
        return SnapshotSource(folder, bytes.fromhex(found.stem))


# --- running and watching -----------------------------------------------------------------------------


@contextmanager
def watched(folder: Path, studies: tuple[str, ...], *, wires: bool) -> Iterator[Watched]:
    """Build, plant, import and run; everything is ended before the search begins."""
    records, capture = folder / "records", folder / "capture"
    capture.mkdir()
    write_pilot(records, 7, SIZES)
    for hub in HUBS:
        plant_canary(records / hub, canary(hub))
    local = LocalFederation(folder / "federation", HUBS, researcher="ada", capture=capture)
    agreements = {name: pilot_study(name) for name in studies}
    with ExitStack() as stack:
        local.build()
        tapped = {hub: stack.enter_context(_tap(local, hub)) for hub in HUBS} if wires else {}
        found = Watched(local, capture, records, tapped, agreements, {}, {})
        with local:
            local.start()
            set_policy(local, POLICY)
            for hub in HUBS:
                import_fhir(local, hub, "pilot", records / hub, PILOT_RECIPE, True)
            for name, agreement in agreements.items():
                try:
                    found.released[name] = run_study(local, agreement).release
                except StudyStopped as stopped:
                    found.stopped[name] = stopped.text
        yield found


@contextmanager
def _tap(local: LocalFederation, hub: str) -> Iterator[RecordingWire]:
    """Lay this hub's line through a recorder: its kit names the recorder's port from now on."""
    with RecordingWire(local.coordinator_home.config().engine_port) as wire:
        kit = HubHome(local.hub_folder(hub)).kit / "kit.json"
        kit.write_bytes(msgspec.json.encode(msgspec.json.decode(kit.read_bytes()) | {"port": wire.port}))
        yield wire


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("canary"), STUDIES, wires=True) as found:
        yield found


# --- searching ----------------------------------------------------------------------------------------


def findings(found: Watched, hub: str) -> list[str]:
    """All that gives the canary, or any patient, away in what left this hub."""
    wanted = patterns(canary(hub), found.key(hub))
    hits = search(f"{hub} before TLS", found.raw(hub), wanted)
    for said, step in answers(found, hub):
        if step is not None:
            wanted |= row_patterns(step.rows[step.mine], f"row of {said.header.kind}")
            hits += vector_findings(said, step)
    hits += [hit for said in found.said(hub) for hit in search(f"{hub}'s {said.header.kind}", said.clear, wanted)]
    return sorted(set(hits))


def answers(found: Watched, hub: str) -> Iterator[tuple[Said, Step | None]]:
    """Every envelope of a hub; beside an answer to a question, what the hub computed for it."""
    database = found.local.coordinator_home.database
    questions = asked(database, SecureQuestion) | asked(database, OwnQuestion)
    for said in found.said(hub):
        if not isinstance(said.body, MaskedAnswer | OwnTotal):
            yield said, None
            continue
        question, agreement = questions[said.header.answers], found.agreements[said.header.study]
        names = sorted(v.variable.name for v in agreement.variables)
        data = found.source(hub).open([agreement.setting.variables[name].variable for name in names])
        yield said, step_of(agreement, check_study(agreement).prices, question, data, found.mine(hub))


def test_the_canary_is_in_every_hubs_records_and_in_the_studies(pilot: Watched) -> None:
    """Control: he was imported, he is in the cohort, and the two studies ran over him to their end."""
    assert pilot.stopped == {}
    assert set(pilot.released) == set(STUDIES)
    names = ["psa", "volume", "age", "pirads", "cspca"]
    variables = {v.variable.name: v.variable for v in pilot.agreements["pilot"].variables}
    for hub in HUBS:
        data = pilot.source(hub).open([variables[name] for name in names])
        mine = data.pseudonyms.tolist().index(pilot.mine(hub))
        assert {name: data.column(name)[mine] for name in names} == {
            "psa": 173.93, "volume": 287.37, "age": 81.0, "pirads": 0.0, "cspca": 1.0,
        }  # fmt: skip


def test_the_search_finds_him_in_what_his_hospital_exported(pilot: Watched) -> None:
    """Control: every pattern that a text file can hold is found in the hub's own files."""
    for hub in HUBS:
        exported = b"".join(path.read_bytes() for path in (pilot.records / hub).glob("*.ndjson"))
        wanted = patterns(canary(hub), pilot.key(hub))
        hits = {hit.split(": ")[1] for hit in search("export", exported, wanted)}
        assert {"patient id, utf-8", "psa, utf-8", "volume, utf-8", "date of mri, utf-8"} <= hits


def test_the_capture_holds_everything_that_the_coordinator_was_told(pilot: Watched) -> None:
    """Control: a search of half of the traffic would prove half. Counted by hub, study and kind of message."""
    with pilot_traffic(pilot) as told:
        for hub in HUBS:
            seen: dict[tuple[str, str], int] = {}
            for said in pilot.said(hub):
                seen[said.header.study, said.header.kind] = seen.get((said.header.study, said.header.kind), 0) + 1
            expected = {key[1:]: count for key, count in told.items() if key[0] == hub}
            assert {key for key, _ in expected.items()} <= set(seen)
            assert all(seen[key] >= count for key, count in expected.items())
            kinds = {kind for _, kind in seen}
            assert kinds == {"consent", "ticket-given", "masked-answer", "echo-answer", "shares-answer", "own-total"}


@contextmanager
def pilot_traffic(found: Watched) -> Iterator[dict[tuple[str, str, str], int]]:
    import sqlite3

    store = sqlite3.connect(f"{found.local.coordinator_home.database.absolute().as_uri()}?mode=ro", uri=True)
    try:
        rows = store.execute("SELECT sender, study, kind, messages FROM traffic WHERE recipient = 'coordinator'")
        yield {(sender, study, kind): messages for sender, study, kind, messages in rows}
    finally:
        store.close()


@pytest.mark.parametrize("hub", HUBS)
def test_nothing_that_leaves_a_hub_holds_the_canary(pilot: Watched, hub: str) -> None:
    """Plain, decoded, and as numbers: private and exact study, every message of both."""
    assert findings(pilot, hub) == []
    wanted = patterns(canary(hub), pilot.key(hub)).values()
    assert false_alarm(2 * len(pilot.raw(hub)), wanted) < 1e-6  # plain and decoded
    kinds = [said.header.kind for said, step in answers(pilot, hub) if step is not None]
    assert kinds.count("masked-answer") >= 10
    assert kinds.count("own-total") >= 2


def test_the_coordinator_holds_nothing_of_any_canary(pilot: Watched) -> None:
    """Its database, mailbox, logs and results: what was sent, and what it made of it."""
    folder = pilot.local.coordinator_home.folder
    stored = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(stored["coordinator.db"]) > 100_000
    stored["release"] = msgspec.json.encode(pilot.released)
    stored["log"] = (pilot.local.folder / "logs" / "coordinator.log").read_bytes()
    for hub in HUBS:
        wanted = patterns(canary(hub), pilot.key(hub))
        assert [hit for name, raw in stored.items() for hit in search(name, raw, wanted)] == []


@pytest.mark.requirement("URS-4")
@pytest.mark.requirement("F-SRS-6")
@pytest.mark.parametrize("hub", HUBS)
def test_on_the_wire_there_is_nothing_but_tls(pilot: Watched, hub: str) -> None:
    """Every byte of every connection, both ways, is part of a TLS record; none of it can be read."""
    wire = pilot.wires[hub]
    assert wire.sent
    sent = b"".join(bytes(part) for part in wire.sent)
    assert len(sent) > len(pilot.raw(hub)), "the hub reached the coordinator by another way than this wire"
    assert sum(require_tls_only(bytes(part)) for part in (*wire.sent, *wire.received)) > 100
    assert search("wire", sent, patterns(canary(hub), pilot.key(hub))) == []
    for plain in (b"masked-answer", b"coordinator\x00", b"own-total", b"pilot-exact"):
        assert plain not in sent


def test_a_plain_connection_would_be_seen_on_the_wire() -> None:
    """Control: the wire's check fails on anything that is not TLS."""
    with pytest.raises(AssertionError, match="no TLS record"):
        require_tls_only(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    with pytest.raises(AssertionError, match="no TLS record"):
        require_tls_only(b"\x16\x03\x01\x00\x02ab" + b"{'psa': 173.93}")


# --- leaky builds are caught ------------------------------------------------------------------------------


class LeakyService(Service):
    """A hub service with one leak (`support.leaky_hub`); the coordinator is the real one."""

    LEAKS: ClassVar = {"huvh": "unmasked", "chu": "noiseless", "irst": "receipt"}

    def _start(self) -> subprocess.Popen[bytes]:
        if self.name not in self.LEAKS:
            return super()._start()
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "support.leaky_hub", self.LEAKS[self.name], *self._arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "FLUTE_PARENT": str(os.getpid()), "PYTHONPATH": path},
            )  # fmt: skip


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The private study over three hubs, each of which leaks in its own way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flute.local.federation, "Service", LeakyService)
        with watched(tmp_path_factory.mktemp("leaky"), STUDIES[:1], wires=False) as found:
            yield found


def test_a_hub_that_forgets_its_masks_is_caught(leaky: Watched) -> None:
    hits = findings(leaky, "huvh")
    assert any("its check numbers stand in clear" in hit for hit in hits), hits
    assert any("are the hub's own sum, not masked" in hit for hit in hits), hits
    assert leaky.stopped["pilot"], "the coordinator accepted a sum that is none"


def test_a_hub_that_forgets_its_noise_is_caught(leaky: Watched) -> None:
    hits = findings(leaky, "chu")
    assert any("less noise in it than agreed" in hit for hit in hits), hits


def test_a_hub_that_puts_a_value_where_a_digest_belongs_is_caught(leaky: Watched) -> None:
    hits = findings(leaky, "irst")
    assert "irst's own-total: psa, float64" in hits
    assert search("irst before TLS", leaky.raw("irst"), patterns(canary("irst"), leaky.key("irst"))) == [], (
        "sealed: found in the decoded message only, which is why the search has to open them"
    )


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-16", "hex", "base64 at 0", "base64 at 1", "base64 at 2", "reversed"],
)
def test_every_encoding_of_a_text_is_found_inside_other_bytes(encoding: str) -> None:
    import base64

    man = canary("chu")
    text = man.patient
    written = {
        "utf-8": text.encode(),
        "utf-16": text.encode("utf-16-le"),
        "hex": text.encode().hex().encode(),
        "reversed": text.encode()[::-1],
        **{f"base64 at {n}": base64.b64encode(b"x" * n + text.encode() + b"tail") for n in range(3)},
    }[encoding]
    content = b"before" + written + b"after"
    assert f"here: patient id, {encoding}" in search("here", content, patterns(man, bytes(32)))


@pytest.mark.parametrize("how", ["<d", ">d", "fixed"])
def test_every_encoding_of_a_number_is_found_inside_other_bytes(how: str) -> None:
    import struct

    psa = canary("chu").psa
    assert psa is not None
    raw = round(psa * 2**40).to_bytes(8, "little") if how == "fixed" else struct.pack(how, psa)
    hits = search("here", np.random.default_rng(1).bytes(100) + raw, patterns(canary("chu"), bytes(32)))
    assert len(hits) == 1


def test_no_process_is_left_of_either_federation(pilot: Watched, leaky: Watched) -> None:
    import psutil

    for found in (pilot, leaky):
        for process in psutil.process_iter(["cmdline"]):
            with suppress(psutil.NoSuchProcess):
                assert str(found.local.folder) not in " ".join(process.info["cmdline"] or [])
