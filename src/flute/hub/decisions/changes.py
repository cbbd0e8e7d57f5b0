"""What one person at the hub may not decide alone: that the hub allows more, and whose word counts for that.

 1 proposed   a steward signs the change; it is journaled, and waits
 2 confirmed  another steward signs the very same change within CHANGE_LIFETIME_S; only then it takes effect
Stewards are enrolled at the hub by their cards (`flute person init`), each with a key of his own that need not be
on this machine. The first two are enrolled by whoever runs the hub; from then on every further one, and every
removal, is a change of this kind itself. Each step is a journal line with the signature in it, so an export shows
that two keys agreed.

Until the hub has granted a study, charged anything, or enrolled two stewards, its policy protects nobody yet and
may be set by one person. To allow less one person is enough, always.

What this does not protect against: one person who holds both keys, or who enrols himself twice while there are fewer
than two (the journal shows when); and somebody with the hub's whole machine, who needs no policy.
"""

from __future__ import annotations

import threading
from typing import Final

import msgspec

from flute.defaults import MAX_CLOCK_SKEW_S
from flute.errors import BadSignature, MisuseError, NotAllowed, Replayed, Stale
from flute.hub.decisions.change import CONFIRM, PROPOSE, Change, PolicyChange, Proposed, StewardIn, StewardOut, Wanted
from flute.hub.parts import Parts
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import HubPolicy, policy_digest, wider
from flute.ledger.lines.budget import (
    ChangeConfirmed,
    ChangeDropped,
    ChangeProposed,
    StewardEnrolled,
    StewardRemoved,
)
from flute.ledger.lines.entries import Entry, PolicySet
from flute.primitives.keys import verify
from flute.trust.people import read_card

_KINDS: Final = ("steward-enrolled", "steward-removed", "change-proposed", "change-confirmed", "change-dropped")
_USED: Final = ("consent-granted", "reserved", "journal-recovered")
"""Lines after which somebody may rely on what this hub allows."""
_AGREE: Final = 2


class Changes:
    """Shares the service's lock."""

    def __init__(self, parts: Parts, lock: threading.RLock) -> None:
        self._p = parts
        self._lock = lock
        self._keys: dict[str, bytes] = {}
        self._proposed: set[bytes] = set()
        self._ended: set[bytes] = set()
        for line in parts.journal.lines(kinds=_KINDS):
            self._take(line.entry)

    # --- who counts --------------------------------------------------------------------------------

    def stewards(self) -> dict[str, bytes]:
        """Enrolled people and their public keys."""
        with self._lock:
            return dict(self._keys)

    def enrol(self, card: str, *, person: str) -> str:
        """Enrol one of the first two stewards. Gives the name on the card.

        Raises: NotAllowed: there are two; the next one is a change. Malformed, BadSignature: the card."""
        steward, key = read_card(card)
        with self._lock:
            if len(self._keys) >= _AGREE:
                raise NotAllowed(
                    "Two stewards are enrolled, so another one needs both: one proposes it (the same command with "
                    "--keys), another confirms ('flute hub confirm')."
                )
            self._require_new(steward, key)
            self._say(StewardEnrolled(person, steward, key))
            return steward

    # --- the policy --------------------------------------------------------------------------------

    @property
    def binds(self) -> bool:
        """Whether somebody may rely on the present policy, so that a wider one needs a second person."""
        used = next(self._p.journal.lines(kinds=_USED), None)
        return len(self._keys) >= _AGREE or used is not None

    def set_policy(self, policy: HubPolicy, *, person: str) -> None:
        """One person's word. Raises: NotAllowed: it allows more, and somebody relies on the present one."""
        with self._lock:
            more = wider(policy, self._p.store.policy())
            if more and self.binds:
                raise NotAllowed(
                    f"This would allow more than this hub's policy ({'; '.join(more)}), so it needs two stewards: "
                    "propose it with your key (--keys), and let another confirm it ('flute hub confirm'). Nothing "
                    "was changed."
                )
            self._put_policy(policy, person)

    def _put_policy(self, policy: HubPolicy, person: str, *before: ChangeConfirmed) -> None:
        self._p.store.prepare_policy(policy)
        self._say(*before, PolicySet(person, policy_digest(policy), policy.sentence))
        self._p.store.put_policy(policy)
        self._p.ledger.set_ceilings(hub_ceilings(policy))

    # --- propose, confirm, drop --------------------------------------------------------------------

    def waiting(self) -> tuple[Change, ...]:
        """Changes that can still be confirmed."""
        now = self._p.now()
        found = [msgspec.msgpack.decode(raw, type=Proposed).change for raw in self._p.store.changes().values()]
        return tuple(c for c in found if c.id in self._proposed - self._ended and c.is_alive(now))

    def propose(self, change: Change, signature: bytes) -> Change:
        """Raises: NotAllowed: the proposer is not enrolled, or nobody is who could confirm. BadSignature. Stale: the
        proposer's clock. Replayed: proposed before."""
        with self._lock:
            self._require_new_here(change)
            key = self._key_of(change.proposer)
            if len(self._keys) < _AGREE:
                raise NotAllowed(
                    "A second person is needed, and only one steward is enrolled here: enrol another by his card "
                    "('flute hub steward FOLDER CARD')."
                )
            verify(key, signature, PROPOSE + change.id)
            self._require_sensible(change.wanted)
            self._p.store.put_change(change.id, msgspec.msgpack.encode(Proposed(change, signature)))
            who = change.proposer
            self._say(ChangeProposed(who, change.id, change.what, change.ends, signature, change.words))
            return change

    def confirm(self, change_id: bytes, person: str, signature: bytes) -> Change:
        """A second person's word: the change takes effect.

        Raises: NotAllowed: not enrolled, or it is the one who proposed. BadSignature. Stale: too late. Replayed: it
          took effect or was dropped. MisuseError: no such change.
        """
        with self._lock:
            proposed = self._find(change_id)
            change, second = proposed.change, self._key_of(person)
            if person == change.proposer:
                raise NotAllowed(f"{person} proposed this change; another steward has to confirm it.")
            verify(self._key_of(change.proposer), proposed.signature, PROPOSE + change.id)
            verify(second, signature, CONFIRM + change.id)
            self._require_sensible(change.wanted)
            said = ChangeConfirmed(person, change.id, change.what, signature)
            match change.wanted:
                case PolicyChange(policy):
                    self._put_policy(policy, person, said)
                case StewardIn(steward, key):
                    self._say(said, StewardEnrolled(person, steward, key))
                case StewardOut(steward):
                    self._say(said, StewardRemoved(person, steward))
            self._p.store.drop_change(change.id)
            return change

    def drop(self, change_id: bytes, *, person: str, reason: str) -> None:
        """To allow no more, one person is enough. Raises: as `confirm`."""
        with self._lock:
            self._say(ChangeDropped(person, self._find(change_id).change.id, reason))
            self._p.store.drop_change(change_id)

    # --- checks ------------------------------------------------------------------------------------

    def _require_new_here(self, change: Change) -> None:
        if change.hub != self._p.signing.public:
            raise BadSignature("This change is for another hub.")
        if change.id in self._proposed:
            raise Replayed("This change was proposed before.")
        if abs(self._p.now() - change.proposed_at) > MAX_CLOCK_SKEW_S:
            raise Stale("This change is dated far from this hub's clock; compare the clocks and propose it anew.")

    def _require_sensible(self, wanted: Wanted) -> None:
        if isinstance(wanted, StewardIn):
            self._require_new(wanted.steward, wanted.key)
        if isinstance(wanted, StewardOut):
            self._key_of(wanted.steward)
            if len(self._keys) <= _AGREE:
                raise NotAllowed("Two stewards have to remain; enrol another one first.")

    def _require_new(self, steward: str, key: bytes) -> None:
        if steward in self._keys or key in self._keys.values():
            raise NotAllowed(f"{steward} is enrolled already, or the key is; two stewards are two people.")

    def _key_of(self, person: str) -> bytes:
        if person not in self._keys:
            raise NotAllowed(
                f"{person} is no steward of this hub; its stewards are {', '.join(sorted(self._keys)) or 'none'}. A "
                "card enrols one ('flute hub steward FOLDER CARD')."
            )
        return self._keys[person]

    def _find(self, change_id: bytes) -> Proposed:
        """The store is no proof that anything was proposed: the journal is."""
        if change_id in self._ended:
            raise Replayed("This change took effect or was dropped before; propose it anew.")
        raw = self._p.store.changes().get(change_id) if change_id in self._proposed else None
        if raw is None:
            raise MisuseError("No such change waits here; 'flute hub changes' lists those that do.")
        proposed = msgspec.msgpack.decode(raw, type=Proposed)
        if proposed.change.id != change_id:
            raise MisuseError("This change was altered in the hub's store; propose it anew.")
        if not proposed.change.is_alive(self._p.now()):
            raise Stale("This change was proposed too long ago, or the clock was set back; propose it anew.")
        return proposed

    def _say(self, *lines: Entry) -> None:
        self._p.journal.append_all(lines, self._p.now())
        for line in lines:
            self._take(line)

    def _take(self, entry: Entry) -> None:
        match entry:
            case StewardEnrolled():
                self._keys[entry.steward] = entry.public
            case StewardRemoved():
                self._keys.pop(entry.steward, None)
            case ChangeProposed():
                self._proposed.add(entry.change)
            case ChangeConfirmed() | ChangeDropped():
                self._ended.add(entry.change)
