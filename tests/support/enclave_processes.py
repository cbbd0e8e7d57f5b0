"""Aggregators as processes of their own beside a local federation, with a software TPM's evidence (DEVELOPMENT)."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from flute.attestation.policy import read_policy
from flute.coordinator.federation.rosterbook import RosterBook
from flute.coordinator.federation.setup import next_roster
from flute.coordinator.plans.aggregators import AggregatorConfig
from flute.hub.setup import accept_roster, sign_roster
from flute.local.federation import LocalFederation
from flute.local.processes import Service
from flute.trust.keyfiles import load_party_keys
from flute.trust.verification import root_fingerprint
from support.swtpm import Swtpm

START_S = 60.0


@contextmanager
def aggregators(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Service]]:
    """`names` over one TPM. folder: absolute and short, for sockets and policies in it. All are ended after it."""
    (folder / "tpm").mkdir()
    with ExitStack() as stack:
        stack.callback(_sweep, folder, names)
        tpm = Swtpm.start(folder / "tpm")
        stack.callback(tpm.stop)
        running = {}
        for name in names:
            words = ["aggregator", "serve", name, "--socket", str(socket_of(folder, name)), "--write-policy",
                     str(policy_of(folder, name)), "--tcti", f"swtpm:path={folder / 'tpm' / 'tpm'}"]  # fmt: skip
            service = Service(name, words, folder / f"{name}.log")
            stack.callback(service.wait_ended)
            stack.callback(service.terminate)
            service.wait_until(socket_of(folder, name).exists, START_S)  # one at a time: they take turns at the TPM
            running[name] = service
        yield running


def _sweep(folder: Path, names: Sequence[str]) -> None:
    """What an aggregator that a test killed could not remove itself."""
    for policy in (policy_of(folder, name) for name in names):
        for private in left_behind(policy) if policy.exists() else ():
            shutil.rmtree(private)


def left_behind(policy: Path) -> list[Path]:
    """Private folders of aggregators over the TPM that `policy` takes, of no other process's."""
    (key,) = read_policy(policy.read_bytes()).tpm.keys
    memory = Path("/dev/shm")
    names = (memory if memory.is_dir() else Path(tempfile.gettempdir())).glob("flute-aggregator-*/name")
    return [name.parent for name in names if name.read_bytes().hex() == key]


def approve(local: LocalFederation, folder: Path, names: Sequence[str]) -> None:
    """The coordinator, not yet started, knows the aggregators; the next roster approves them, signed by owners."""
    home, now = local.coordinator_home, int(time.time())
    policies = {name: policy_of(folder, name).read_bytes() for name in names}
    known = {name: AggregatorConfig(str(socket_of(folder, name)), str(policy_of(folder, name))) for name in names}
    home.write_config(msgspec.structs.replace(home.config(), aggregators=known))
    keys = load_party_keys(home.keys)
    book = RosterBook(home.roster, keys.signing)
    bundle = next_roster(
        local.name, keys, book.roster(now), book.files(), hubs=[], people=[], now=now, policies=policies
    )
    book.propose(bundle)
    for hub in local.hubs:
        if book.proposal() is not None:
            book.signed(sign_roster(local.hub_folder(hub), bundle, now), now)
    files = book.files()
    for hub in local.hubs:
        accept_roster(local.hub_folder(hub), files, root_fingerprint(files["1.root.json"]), now)


def socket_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.socket"


def policy_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.policy"
