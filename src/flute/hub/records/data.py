"""Everything of a hub that deals with its own records, put together."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from flute.hub.decisions.steward import Steward
from flute.hub.parts import Parts
from flute.hub.records.curation import Curator
from flute.hub.records.holdings import Holdings
from flute.hub.records.imports import Imports
from flute.hub.records.withdrawal import Withdrawal


@dataclass(frozen=True, slots=True)
class Data:
    holdings: Holdings
    curator: Curator
    imports: Imports
    withdrawal: Withdrawal


def open_data(parts: Parts, steward: Steward, lock: threading.RLock, folder: Path, pseudonym_key: bytes) -> Data:
    """`lock`: the service's own, so that no dataset changes in the middle of a message."""
    holdings = Holdings(folder)
    curator = Curator(parts, holdings, lock, folder, pseudonym_key)
    withdrawal = Withdrawal(
        parts,
        holdings,
        lock,
        folder,
        pseudonym_key,
        lambda study, person, reason: steward.withdraw(study.study, person=person, reason=reason),
    )
    return Data(holdings, curator, Imports(curator.carry_out), withdrawal)
