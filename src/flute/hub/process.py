"""The hub as a process: parts from its folder, one thread for messages, the steward's door, a clean end."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import uvicorn

import flute
from flute.defaults import DOOR_STOP_S
from flute.homes import private_socket
from flute.hub.decisions.steward import Steward
from flute.hub.doors.door import make_door
from flute.hub.home import HubHome
from flute.hub.parts import Parts
from flute.hub.records.catalogue import Catalogue
from flute.hub.records.data import open_data
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.service import HubService
from flute.hub.store import HubStore
from flute.hub.trusted import Trust
from flute.hub.witness import open_journal
from flute.intake.snapshot import SnapshotSource
from flute.ledger.budgets.budget import Ledger
from flute.ledger.lines.entries import ServiceStarted
from flute.messages.channel import Channel
from flute.questions.code import code_digest
from flute.transport.identity import load_kit
from flute.transport.local import LocalChannel, LocalExchange
from flute.transport.relay import RelayChannel
from flute.trust.keyfiles import load_party_keys

LOG = logging.getLogger("flute.hub")


def unix_time() -> int:
    return int(time.time())


def build_parts(home: HubHome, channel: Channel) -> Parts:
    """Open everything in the folder. Raises: KeyFileError, LedgerError, JournalBroken, MisuseError."""
    keys = load_party_keys(home.keys)
    store = HubStore(home.folder)
    journal = open_journal(home, keys.signing, store)
    ledger = Ledger(journal, hub_ceilings(store.policy()))
    return Parts(
        me=keys.party,
        signing=keys.signing,
        sealing=keys.sealing,
        store=store,
        journal=journal,
        ledger=ledger,
        trust=Trust.at(home, unix_time()),
        sources=lambda digest: SnapshotSource(home.folder, digest),
        channel=channel,
        now=unix_time,
    )


def serve_hub(folder: Path, *, capture: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. `capture`: for tests only, see `transport.relay`."""
    home = HubHome(folder)
    config = home.config()
    channel = _channel(home, config.hub, capture)
    try:
        parts = build_parts(home, channel)
        _run(home, parts, config.pseudonym_key)
    finally:
        channel.close()


def _channel(home: HubHome, hub: str, capture: Path | None) -> RelayChannel | LocalChannel:
    """The wire; for a hub that has not joined a federation yet, one on which nobody ever speaks."""
    if not home.roster_state.exists():
        return LocalExchange().channel(hub)
    return RelayChannel(home.mail, hub, load_kit(home.kit), capture=capture)


def _run(home: HubHome, parts: Parts, pseudonym_key: bytes) -> None:
    parts.journal.append(ServiceStarted(flute.__version__, code_digest()), parts.now())
    service = HubService(parts)
    steward = Steward(parts, service.lock, service.consents)
    data = open_data(parts, steward, service.lock, home.folder, pseudonym_key)
    stop = threading.Event()
    worker = threading.Thread(target=service.serve, args=(stop,), name="messages", daemon=True)
    worker.start()
    door = private_socket(home.socket)
    server = uvicorn.Server(
        uvicorn.Config(
            make_door(steward, data, Catalogue(parts, service.lock, home.folder), parts),
            log_level="warning",
            lifespan="off",
            timeout_graceful_shutdown=DOOR_STOP_S,
        )
    )
    try:
        server.run(sockets=[door])
    finally:
        stop.set()
        worker.join(timeout=DOOR_STOP_S)
        door.close()
        home.socket.unlink(missing_ok=True)
        with service.lock:
            parts.journal.close()
            data.holdings.close()
            parts.store.close()
