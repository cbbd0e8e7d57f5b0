"""The newest roster that this hub has seen, on disk; it never goes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flute.errors import MisuseError, RosterExpired
from flute.hub.home import HubHome
from flute.trust.roster import Roster, read_content
from flute.trust.verification import TrustedState, load

_NOT_JOINED = "This hub has not joined a federation yet; 'flute hub join INVITATION' does."


class Trust:
    """What the hub service asks for the roster. `save`: returns once the state is on disk."""

    def __init__(self, state: TrustedState | None, save: Callable[[bytes], None], now: int) -> None:
        """`state`: None for a hub that has not joined a federation yet."""
        self._state = state
        self._save = save
        self._roster = None if state is None else _known(state, now)

    @classmethod
    def at(cls, home: HubHome, now: int) -> Trust:
        try:
            raw = home.roster_state.read_bytes()
        except FileNotFoundError:
            return cls(None, home.write_roster_state, now)
        return cls(TrustedState.from_bytes(raw), home.write_roster_state, now)

    @property
    def joined(self) -> bool:
        return self._roster is not None

    @property
    def roster(self) -> Roster:
        """Raises: MisuseError: the hub has not joined a federation yet."""
        if self._roster is None:
            raise MisuseError(_NOT_JOINED)
        return self._roster

    def update(self, files: Mapping[str, bytes], now: int) -> Roster:
        """Take a newer set over, or a renewed word on the same one.

        Raises: RosterUnsigned, RosterRolledBack, RosterExpired, Malformed, TooLarge: nothing was taken over.
        """
        if self._state is None:
            raise MisuseError(_NOT_JOINED)
        roster, state = load(self._state, dict(files), now=now)
        self._save(state.to_bytes())
        self._roster, self._state = roster, state
        return roster


def _known(state: TrustedState, now: int) -> Roster:
    """The stored roster. It was verified when it was stored; if the coordinator's word on it has run out
    meanwhile, it still serves to understand a renewed one, and the gate answers nothing until then."""
    try:
        return load(state, state.files(), now=now)[0]
    except RosterExpired:
        return Roster(read_content(state.roster), threshold=0, fresh_until=0)
