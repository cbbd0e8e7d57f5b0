"""The coordinator's roster: what owners signed, published, and its own word that it is the newest."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flute.defaults import ROSTER_RENEW_S
from flute.errors import MisuseError
from flute.homes import private_folder, write_private
from flute.primitives.keys import SigningKey
from flute.trust.publishing import publish, refresh
from flute.trust.roster import Roster
from flute.trust.signing import Bundle, merge, newest_root, standing
from flute.trust.verification import TrustedState, first_trust, load, root_fingerprint

_PROPOSAL: Final = "proposal.bundle"


class RosterBook:
    """The published files and, while owners are signing, one proposal."""

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self._folder = private_folder(folder)
        self._key = key
        self._lock = threading.RLock()
        self._files: dict[str, bytes] = {
            path.name: path.read_bytes() for path in sorted(folder.glob("*.json")) if path.is_file()
        }
        self._state: TrustedState | None = None
        self._roster: Roster | None = None
        self._renewed_at = 0

    def files(self) -> dict[str, bytes]:
        with self._lock:
            return dict(self._files)

    def roster(self, now: int) -> Roster:
        """The newest roster, with the coordinator's word on it renewed. Raises: MisuseError: none is published."""
        with self._lock:
            if not self._files:
                raise MisuseError("There is no roster yet: hub owners have to sign the first one.")
            if self._roster is None or now - self._renewed_at > ROSTER_RENEW_S:
                self._take(refresh(self._files, self._key, now=now), now)
            assert self._roster is not None
            return self._roster

    def proposal(self) -> Bundle | None:
        path = self._folder / _PROPOSAL
        return Bundle.from_bytes(path.read_bytes()) if path.exists() else None

    def propose(self, bundle: Bundle) -> None:
        with self._lock:
            write_private(self._folder / _PROPOSAL, bundle.to_bytes())

    def signed(self, copy: Bundle, now: int) -> str:
        """An owner's signed copy of the proposal; published once enough have signed. Says where it stands.

        Raises: MisuseError: nothing is proposed. Malformed: another proposal. RosterError: it does not hold."""
        with self._lock:
            held = self.proposal()
            if held is None:
                raise MisuseError("No roster is being signed at the moment.")
            bundle = merge(held, copy)
            now_standing = standing(bundle)
            if not now_standing.complete:
                self.propose(bundle)
                return now_standing.explain()
            self._take(publish(bundle, self._key, previous=self._files or None, now=now), now)
            (self._folder / _PROPOSAL).unlink(missing_ok=True)
            return now_standing.explain()

    def _take(self, files: Mapping[str, bytes], now: int) -> None:
        """Check a set as a hub would, keep it, and write it. Never a set that hubs would refuse."""
        if self._state is None:
            root = newest_root(files)
            self._state = first_trust(root, root_fingerprint(root))
        self._roster, self._state = load(self._state, dict(files), now=now)
        for name, raw in files.items():
            write_private(self._folder / name, raw)
        self._files = dict(files)
        self._renewed_at = now
