"""What plans mpc, threshold-he and enclave put on the wire: no canary, and nothing that is not like chance.

Real processes, FHIR import, short studies over the planted canaries of `test_canary`. Where network namespaces can
be made, every hub is a host of its own and talks mTLS over its only link, which is tapped frame by frame; aggregators
are processes with a software TPM. Envelopes are opened with the coordinator's key, since ciphertext alone hides any
leak. Then the hubs start again as leaky builds: each search and each test finds what it is there for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import flute.local.federation
from flute.coordinator.federation.rosterbook import RosterBook
from flute.coordinator.federation.setup import next_roster
from flute.coordinator.home import CoordinatorConfig
from flute.coordinator.plans.aggregators import AggregatorConfig
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import PeerUnreachable
from flute.hub.home import HubHome
from flute.hub.setup import accept_roster, sign_roster
from flute.hub.store import HubPolicy
from flute.intake.snapshot import SnapshotSource
from flute.local.federation import LocalFederation
from flute.local.processes import Service
from flute.local.run import StudyStopped, import_fhir, run_study, set_policy
from flute.pilot.recipe import PILOT_RECIPE
from flute.pilot.simulate import plant_canary, write_pilot
from flute.questions.code import code_digest
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file
from flute.study.protection import RAND_SIZE, Price, cover
from flute.trust.keyfiles import load_party_keys
from flute.trust.verification import root_fingerprint
from support.canary import canary, false_alarm, patterns, row_patterns, search
from support.namespaces import MIDDLE_NAME, Hosts, Tap, require_namespaces, tcp_streams
from support.plan_wires import (
    Payloads,
    Spied,
    byte_faults,
    element_faults,
    encrypted_findings,
    payloads,
    repeated,
    split_findings,
)
from support.recording import require_tls_only
from support.swtpm import Swtpm, require_swtpm
from support.wiretap import Said, captured_bodies, in_clear

TESTS = Path(__file__).parents[1]
HUBS = ("chu", "huvh", "irst")
SIZES = {"huvh": 40, "chu": 30, "irst": 30}
POLICY = HubPolicy(epsilon=3, epsilon_all=4, exact_allowed=True, floor=1)
AGGREGATORS = ("first", "second")
STUDY = """\
flute: 1
study: NAME
title: What plan PLAN puts on the wire
purpose: To look for a canary in it.
researcher: ada
hubs: [huvh, chu, irst]
simulated: true
dataset: pilot
missing: drop
max_patients: 400
period: {from: 2026-01-01, until: 2027-12-31}
conditions:
  all: {legal_basis: test, ethics_approval: test, retain_until: 2032-12-31}
variables:
  age: {kind: number, unit: a, range: [40, 90]}
  psa: {kind: number, unit: ng/mL, range: [0.2, 200], log: true}
  volume: {kind: number, unit: cm3, range: [10, 300], log: true}
plan: CHOICE
PROTECTION
questions:
  cohort: {algorithm: describe, variables: [age, psa, volume], bins: BINS, QUESTION}
"""
PRIVATE = ("budget: {epsilon: 1.5, delta: 1.0e-6}", "share: 0.9")
LEAKY = "-leaky"
BINS = {"mpc": "8", "threshold-he": "60", "enclave": "200"}
EXACT = ("exact: {max_numbers: 4000}", "")
STUDIES = {
    "mpc": ("{name: mpc}", PRIVATE),
    "threshold-he": ("{name: threshold-he}", EXACT),
    "enclave": ("{name: enclave, aggregators: [first, second]}", EXACT),
}

pytestmark = [
    pytest.mark.requirement("URS-1"),
    pytest.mark.requirement("F-SRS-5"),
    pytest.mark.timeout(240),
]


def agreed(plan: str, name: str) -> Agreement:
    """Sums have as many numbers as tests of chance need; a computation among hubs says much about a few."""
    choice, (protection, question) = STUDIES[plan]
    text = STUDY.replace("NAME", name).replace("PLAN", plan).replace("CHOICE", choice)
    text = text.replace("BINS", BINS[plan])
    text = text.replace("PROTECTION", protection).replace(", QUESTION", f", {question}" if question else "")
    agreement, lines = read_study_file(text, path=f"{name}.yaml", code=code_digest())
    return check_study(agreement, lines=lines, path=f"{name}.yaml").agreement


# --- running and watching -----------------------------------------------------------------------------


class Placed(Service):
    """A service on a host of its own, and, from the moment that `leaky` says so, a hub of a leaky build."""

    hosts: ClassVar[Hosts | None] = None
    leaky: ClassVar[bool] = False

    def _start(self) -> subprocess.Popen[bytes]:
        prefix = self.hosts.prefix(self.name) if self.hosts else []
        program, arguments = ["flute"], self._arguments
        if self.leaky:
            program = ["support.plan_wires", "leaky"]
            arguments = [*arguments[:-1], f"{arguments[-1]}{LEAKY}"]  # the last one is where it is captured
        elif self.hosts and self.name == self.hosts.middle:
            program = ["support.plan_wires", "listening"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*prefix, sys.executable, "-m", *program, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment(),
            )  # fmt: skip


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "FLUTE_PARENT": str(os.getpid()), "PYTHONUNBUFFERED": "1"}


@dataclass
class Enclaves:
    """Two aggregator processes over one software TPM: DEVELOPMENT, which simulated records allow."""

    folder: Path
    policies: dict[str, bytes]

    def socket(self, name: str) -> Path:
        return self.folder / f"{name}.socket"

    def spied(self) -> list[Spied]:
        return [Spied.read(name, self.folder / f"{name}.opened") for name in AGGREGATORS]


@contextmanager
def aggregators(folder: Path) -> Iterator[Enclaves]:
    (folder / "tpm").mkdir()
    with ExitStack() as stack:
        tpm = Swtpm.start(folder / "tpm")
        stack.callback(tpm.stop)
        found = Enclaves(folder, {})
        for name in AGGREGATORS:
            policy = folder / f"{name}.policy"
            words = ["aggregator", "serve", name, "--socket", str(found.socket(name)), "--write-policy", str(policy),
                     "--tcti", f"swtpm:path={folder / 'tpm' / 'tpm'}"]  # fmt: skip
            with (folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "support.plan_wires", f"spied:{folder / name}.opened", *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
                )  # fmt: skip
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            until = time.monotonic() + 60
            while not found.socket(name).exists():
                assert process.poll() is None, (folder / f"{name}.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            found.policies[name] = policy.read_bytes()
        yield found


def approve(local: LocalFederation, enclaves: Enclaves) -> None:
    """The coordinator knows the aggregators; the next roster, signed by every owner, approves their policies."""
    home, now = local.coordinator_home, int(time.time())
    known = {}
    for name, policy in enclaves.policies.items():
        kept = home.folder / f"{name}.policy.json"
        kept.write_bytes(policy)
        known[name] = AggregatorConfig(str(enclaves.socket(name)), str(kept))
    home.write_config(msgspec.structs.replace(home.config(), aggregators=known))
    keys = load_party_keys(home.keys)
    book = RosterBook(home.roster, keys.signing)
    bundle = next_roster(
        local.name, keys, book.roster(now), book.files(), hubs=[], people=[], now=now, policies=enclaves.policies
    )
    book.propose(bundle)
    for hub in HUBS:
        if book.proposal() is not None:
            book.signed(sign_roster(local.hub_folder(hub), bundle, now), now)
    files = book.files()
    for hub in HUBS:
        accept_roster(local.hub_folder(hub), files, root_fingerprint(files["1.root.json"]), now)


@dataclass
class Watched:
    """A federation that has run, with all that left its hubs. `build`: "" or LEAKY."""

    local: LocalFederation
    capture: Path
    build: str
    agreements: dict[str, Agreement]
    taps: dict[str, Tap] = field(default_factory=dict)
    released: dict[str, Any] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    enclaves: list[Spied] = field(default_factory=list)
    said: dict[str, list[Said]] = field(default_factory=dict)

    def raw(self, hub: str) -> bytes:
        return (self.capture / f"{hub}.out{self.build}").read_bytes()

    def sent(self, hub: str, plan: str) -> Payloads:
        if plan not in self.agreements:
            require_swtpm()
        if hub not in self.said:
            key = load_party_keys(self.local.coordinator_home.keys).sealing
            self.said[hub] = [in_clear(body, key) for body in captured_bodies(self.raw(hub))]
        return payloads(self.said[hub], self.agreements[plan].study)

    def wanted(self, hub: str) -> dict[str, bytes]:
        return patterns(canary(hub), HubHome(self.local.hub_folder(hub)).config().pseudonym_key)

    def rows(self, hub: str, plan: str) -> tuple[NDArray[np.float64], int]:
        """What this hub summed under this plan, and which row is the canary's."""
        folder, agreement = self.local.hub_folder(hub), self.agreements[plan]
        (found,) = (folder / "records").glob("*.parquet")
        variables = sorted((v.variable for v in agreement.variables), key=lambda v: v.name)
        data = SnapshotSource(folder, bytes.fromhex(found.stem)).open(variables)
        what = agreement.questions[0].what
        mine = pseudonym(HubHome(folder).config().pseudonym_key, canary(hub).patient)
        updates = algorithm_for(what).update(what, agreement.setting, 0, (), data)
        return updates, data.pseudonyms.tolist().index(mine)

    def price(self, plan: str) -> Price:
        (price,) = check_study(self.agreements[plan]).prices["cohort"]
        return price

    def vector(self, hub: str, plan: str) -> NDArray[np.int64]:
        """This hub's numbers as they were encrypted or split, of an exact study."""
        return cover(self.rows(hub, plan)[0], self.price(plan), hubs=len(HUBS), rand=bytes(RAND_SIZE))


@contextmanager
def watched(folder: Path, plans: Sequence[str], hosts: Hosts | None) -> Iterator[tuple[Watched, Watched]]:
    """Build, plant, import, run honest hubs and then leaky ones; all is ended before the search begins."""
    records, capture = folder / "records", folder / "capture"
    capture.mkdir()
    write_pilot(records, 7, SIZES)
    for hub in HUBS:
        plant_canary(records / hub, canary(hub))
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        here = type("Here", (Placed,), {"hosts": hosts})
        patch.setattr(flute.local.federation, "Service", here)
        if hosts:
            patch.setattr(flute.local.federation, "CoordinatorConfig", on_a_host_of_its_own)
        local = LocalFederation(folder / "federation", HUBS, researcher="ada", capture=capture)
        local.build()
        both = [Watched(local, capture, build, {plan: agreed(plan, plan + build) for plan in plans})
                for build in ("", LEAKY)]  # fmt: skip
        if "enclave" in plans:
            short = Path(tempfile.mkdtemp(prefix="flute-wire-"))
            stack.callback(shutil.rmtree, short)
            enclaves = stack.enter_context(aggregators(short))
            approve(local, enclaves)
        if hosts:
            both[0].taps = {hub: Tap(hosts, hub) for hub in HUBS}
            for tap in both[0].taps.values():
                stack.callback(tap.close)
            stack.enter_context(hosts.inside(hosts.middle))
        with local:
            local.start()
            set_policy(local, POLICY)
            for hub in HUBS:
                import_fhir(local, hub, "pilot", records / hub, PILOT_RECIPE, True)
            run(both[0])
            for tap in both[0].taps.values():
                tap.close()
            here.leaky = True
            start_again(local)
            run(both[1])
        for found in both if "enclave" in plans else ():
            found.enclaves = enclaves.spied()
        stack.close()
        yield both[0], both[1]


def start_again(local: LocalFederation) -> None:
    for hub in HUBS:
        local.services[hub].terminate()
    for hub in HUBS:
        local.services[hub].wait_ended()
        local.services[hub].restart()
    for hub in HUBS:
        local.services[hub].wait_until(lambda hub=hub: opens(local, hub), 30)  # type: ignore[misc]


def opens(local: LocalFederation, hub: str) -> bool:
    try:
        with local.hub(hub) as door:
            door.get("/status")
    except PeerUnreachable:
        return False
    return True


def on_a_host_of_its_own(federation: str, _: str, *more: Any) -> CoordinatorConfig:
    return CoordinatorConfig(federation, MIDDLE_NAME, *more)


def run(found: Watched) -> None:
    for plan, agreement in found.agreements.items():
        try:
            found.released[plan] = run_study(found.local, agreement).release
        except StudyStopped as stopped:
            found.stopped[plan] = stopped.text


def available() -> list[str]:
    """All plans, or all but enclave where no software TPM is installed; its tests then skip."""
    try:
        require_swtpm()
    except pytest.skip.Exception:
        return ["mpc", "threshold-he"]
    return list(STUDIES)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts | None]:
    """None where no namespace can be made; the test of the wire then skips, and the others run on loopback."""
    try:
        require_namespaces()
    except pytest.skip.Exception:
        yield None
        return
    with Hosts("coordinator", HUBS, tmp_path_factory.mktemp("hosts")) as made:
        yield made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, hosts: Hosts | None) -> Iterator[tuple[Watched, Watched]]:
    with watched(tmp_path_factory.mktemp("plans"), available(), hosts) as found:
        yield found


@pytest.fixture
def honest(both: tuple[Watched, Watched]) -> Watched:
    return both[0]


@pytest.fixture
def leaky(both: tuple[Watched, Watched]) -> Watched:
    return both[1]


# --- no canary ----------------------------------------------------------------------------------------


def findings(found: Watched, hub: str) -> list[str]:
    """All that gives the canary, or the hub's own numbers, away in what left this hub."""
    wanted = found.wanted(hub)
    hits = search(f"{hub} before TLS", found.raw(hub), wanted)
    for plan in found.agreements:
        sent = found.sent(hub, plan)
        rows, mine = found.rows(hub, plan)
        wanted |= row_patterns(rows[mine], f"row of {plan}")
        if plan == "threshold-he":
            hits += encrypted_findings(hub, sent, found.vector(hub, plan))
        if plan == "enclave":
            price = found.price(plan)
            words = price.layout.pack(0, found.vector(hub, plan), price.bounds)
            for split in sent.split:
                hits += split_findings(hub, split, found.enclaves, words)
                hits += [hit for each in found.enclaves for hit in search(each.name, each.share(split), wanted)]
    hits += [hit for said in found.said[hub] for hit in search(f"{hub}'s {said.header.kind}", said.clear, wanted)]
    return sorted(set(hits))


def test_the_studies_ran_over_the_canaries_to_their_end(honest: Watched) -> None:
    """Control: he is among the rows that were summed, under every plan, and every hub sent what the plan sends."""
    assert honest.stopped == {}
    assert set(honest.released) == set(honest.agreements)
    for hub in HUBS:
        for plan in honest.agreements:
            rows, mine = honest.rows(hub, plan)
            assert rows[mine].any()
            assert sum(SIZES.values()) > len(rows) > 1
        assert honest.sent(hub, "mpc").boxes
        assert len(honest.sent(hub, "threshold-he").contributed) == 1
        if "enclave" in honest.agreements:
            assert len(honest.sent(hub, "enclave").split) == 1


@pytest.mark.parametrize("hub", HUBS)
def test_nothing_that_leaves_a_hub_under_any_plan_holds_the_canary(honest: Watched, hub: str) -> None:
    assert findings(honest, hub) == []
    assert false_alarm(2 * len(honest.raw(hub)), honest.wanted(hub).values()) < 1e-6  # plain and decoded


def test_the_coordinator_holds_nothing_of_any_canary_under_any_plan(honest: Watched) -> None:
    folder = honest.local.coordinator_home.folder
    stored = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(stored["coordinator.db"]) > 100_000
    stored["release"] = msgspec.json.encode(honest.released)
    stored["log"] = (honest.local.folder / "logs" / "coordinator.log").read_bytes()
    for hub in HUBS:
        assert [hit for name, raw in stored.items() for hit in search(name, raw, honest.wanted(hub))] == []


# --- nothing but chance -------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("plan", ["mpc", "threshold-he"])
def test_what_hubs_say_to_each_other_is_like_chance(honest: Watched, plan: str, hub: str) -> None:
    """Boxes of the computation, and of the key ceremony. False alarm: below 5e-8 for each of six."""
    boxes = honest.sent(hub, plan).boxes
    assert byte_faults(b"".join(boxes)) == []
    assert repeated(boxes) == []


@pytest.mark.parametrize("hub", HUBS)
def test_encrypted_numbers_are_like_chance_but_for_how_elements_are_written(honest: Watched, hub: str) -> None:
    """False alarm: below 6e-8. A further bit that is always 0, or one that is 0 in three of four, is seen."""
    elements = honest.sent(hub, "threshold-he").elements
    assert element_faults(elements) == []
    assert all(raw[0] & 1 == raw[31] >> 7 == 0 for raw in elements)
    for every in (1, 2):
        changed = [raw[:9] + bytes([raw[9] & 0xEF]) + raw[10:] for raw in elements[::every]]
        mixed = changed + ([] if every == 1 else elements[1::2])
        assert [fault for fault in element_faults(mixed) if fault.startswith("bit 76 is set in")]


@pytest.mark.parametrize("hub", HUBS)
def test_what_goes_to_enclaves_is_like_chance(honest: Watched, hub: str) -> None:
    """Sealed, and, since one aggregator may be malicious, opened at the last one too. False alarm: below 1e-7."""
    sent = honest.sent(hub, "enclave")
    assert byte_faults(b"".join(sent.sealed)) == []
    assert repeated(box for split in sent.split for box in split.boxes) == []
    for spied in honest.enclaves:
        opened = [spied.share(split) for each in HUBS for split in honest.sent(each, "enclave").split]
        assert repeated(opened) == []
    assert byte_faults(b"".join(honest.enclaves[-1].share(split) for split in sent.split)) == []


# --- on the wire between separate hosts ---------------------------------------------------------------


@pytest.mark.requirement("URS-4")
@pytest.mark.requirement("F-SRS-6")
@pytest.mark.parametrize("hub", HUBS)
def test_between_separate_hosts_there_is_nothing_but_tls_like_chance(honest: Watched, hub: str) -> None:
    """Every frame on the hub's only link: no canary, TLS only, and its records' bodies like chance."""
    require_namespaces()
    tap = honest.taps[hub]
    assert tap.dropped == 0
    streams = tcp_streams(tap.sent)
    assert sum(map(len, streams)) > len(honest.raw(hub)), "the hub reached the coordinator by another way"
    assert sum(map(require_tls_only, (*streams, *tcp_streams(tap.received)))) > 100
    frames = b"".join(tap.sent)
    assert search("wire", frames + b"".join(streams), honest.wanted(hub)) == []
    for plain in (b"talk-said", b"coordinator\x00", b"encrypted-answer", b"split-answer", b"threshold-he"):
        assert plain not in frames
    bodies = application_bodies(streams)
    assert byte_faults(b"".join(bodies)) == []
    assert repeated(bodies) == []


def application_bodies(streams: Sequence[bytes]) -> list[bytes]:
    found, application = [], 23
    for stream in streams:
        at = 0
        while at + 5 <= len(stream):
            size = int.from_bytes(stream[at + 3 : at + 5], "big")
            if stream[at] == application:
                found.append(stream[at + 5 : at + 5 + size])
            at += 5 + size
    return found


def test_a_hub_that_says_something_beside_its_connection_is_seen_on_its_link(
    honest: Watched, hosts: Hosts | None
) -> None:
    """Control: the same tap and search find the canary in one plain datagram."""
    require_namespaces()
    assert hosts is not None
    tap = Tap(hosts, "chu")
    hosts.send_in_clear("chu", b"psa of " + canary("chu").patient.encode())
    tap.close()
    assert "link: patient id, utf-8" in search("link", b"".join(tap.sent), honest.wanted("chu"))


# --- leaky builds are caught ------------------------------------------------------------------------------


def test_a_talk_whose_boxes_are_not_encrypted_is_caught(leaky: Watched) -> None:
    assert leaky.stopped.get("mpc") is None, "the leak alone changes nothing that parties would notice"
    boxes = leaky.sent("chu", "mpc").boxes
    assert any("chi-squared" in fault for fault in byte_faults(b"".join(boxes)))
    assert repeated(boxes), "what goes to all is the same for all"


def test_an_encryption_with_r_of_0_is_caught(leaky: Watched) -> None:
    hits = findings(leaky, "huvh")
    assert any("numbers stand in clear in the exponent" in hit for hit in hits), hits
    faults = element_faults(leaky.sent("huvh", "threshold-he").elements)
    assert any("no elements" in fault for fault in faults), faults
    assert any("chi-squared" in fault for fault in faults), faults


def test_a_split_whose_seeds_are_empty_is_caught(leaky: Watched) -> None:
    require_swtpm()
    assert leaky.stopped.get("enclave") is None, "the leak alone changes nothing that parties would notice"
    hits = findings(leaky, "irst")
    assert any("numbers follow from its share and empty seeds" in hit for hit in hits), hits
    assert repeated(leaky.enclaves[0].share(split) for hub in HUBS for split in leaky.sent(hub, "enclave").split)
    assert byte_faults(b"".join(leaky.sent("irst", "enclave").sealed)) == [], (
        "sealed: it shows to an aggregator alone, which is why the test looks at what one of them opens"
    )
