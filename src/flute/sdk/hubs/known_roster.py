"""Who is in the federation, as this person knows it: by the hub owners' signatures, not by the coordinator's word.

The first roster is trusted by the fingerprint that a hub owner read out, or at first sight where none was given;
every later one has to follow from it (`trust.verification`). It is kept in the person's key folder and never goes
back.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from flute.errors import Malformed, MisuseError, NotInRoster
from flute.homes import write_private
from flute.trust.roster import Roster
from flute.trust.tuf_files import root_file
from flute.trust.verification import TrustedState, first_trust, load, root_fingerprint

_AGAIN_S: Final = 300
"""A roster is fetched anew this often; whoever joined meanwhile is known then, or at once where a hub is unknown."""


class KnownRoster:
    """`path`: where it is kept. `fetch`: the coordinator's files. `heard`: the root's fingerprint, or None."""

    def __init__(self, path: Path, fetch: Callable[[], Any], federation: str, heard: str | None) -> None:
        self._path = path
        self._fetch = fetch
        self._federation = federation
        self._heard = heard
        self._roster: Roster | None = None
        self._fetched = 0
        self.fingerprint = ""
        """Of the federation's first root, to be compared with a hub owner; empty before a roster was needed."""

    def hub_key(self, hub: str, now: int) -> bytes:
        """A hub's signing key. Raises: NotInRoster, and as `roster`."""
        try:
            return self.roster(now).hub(hub).signing_key
        except NotInRoster:
            if self._fetched == now:
                raise
        return self._renewed(now).hub(hub).signing_key

    def roster(self, now: int) -> Roster:
        """Raises: RosterUnsigned: another fingerprint than was heard, or too few owners signed. RosterRolledBack,
        RosterExpired, Malformed, TooLarge. MisuseError: another federation's."""
        if self._roster is not None and now < min(self._fetched + _AGAIN_S, self._roster.fresh_until):
            return self._roster
        return self._renewed(now)

    def _renewed(self, now: int) -> Roster:
        files = _files(self._fetch())
        first = files.get(root_file(1), b"")
        if self._heard is not None:
            load(first_trust(first, self._heard), files, now=now)
        kept = self._path.read_bytes() if self._path.exists() else None
        state = TrustedState.from_bytes(kept) if kept else first_trust(first, root_fingerprint(first))
        roster, state = load(state, files, now=now)
        if roster.content.federation != self._federation:
            raise MisuseError(f"The coordinator shows the roster of another federation than {self._federation}.")
        write_private(self._path, state.to_bytes())
        self._roster, self._fetched, self.fingerprint = roster, now, root_fingerprint(first)
        return roster


def _files(said: Any) -> Mapping[str, bytes]:
    """Raises: Malformed."""
    try:
        return {str(name): base64.b64decode(raw, validate=True) for name, raw in dict(said).items()}
    except (TypeError, ValueError, binascii.Error) as error:
        raise Malformed("What the coordinator gave as the roster cannot be read.") from error
