"""What a hub does with a roster set that it was handed: TUF's client workflow, without I/O and without a clock.

The steps carry the numbers of the TUF specification 1.0, section 5 (client operations). On top of it:
  * one number: root, targets, snapshot and the roster itself carry the same version, so that files of two
    versions cannot be mixed and a hub that trusts root N is never shown a roster before N;
  * what was seen once under a version stays so: other content under the same version is refused;
  * the owners and the coordinator's key in the roster are those of the root that it was signed under;
  * the coordinator's word "this is still the newest" is refused where it claims to hold for more than a day.

What this does not stop: a coordinator that goes on confirming an old roster after owners signed a new one. It
can do so until the old one expires, or until any hub gets the new root by another way (`learn_roots`, for which
the owners' signed bundle is enough): from then on the old set is refused.

python-tuf's own client (`tuf.ngclient.Updater`) reads the clock and fetches by itself, and its inner
`TrustedMetadataSet` is not public; hence the steps are here, on its public Metadata API. A test shows that the
stock client accepts the same sets.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exported there without saying so
    Metadata,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from flute.defaults import COLLUDING, FRESHNESS_LIFETIME_S, MAX_CLOCK_SKEW_S, MAX_ROSTER_STEPS
from flute.errors import Malformed, RosterExpired, RosterRolledBack, RosterUnsigned
from flute.primitives.keys import fingerprint
from flute.trust.roster import Roster, RosterContent, active_hubs, day, read_content
from flute.trust.tuf_files import (
    ROSTER_FILE,
    SNAPSHOT_FILE,
    TARGETS_FILE,
    TIMESTAMP_FILE,
    Authority,
    Files,
    Signed,
    authority_of,
    build_snapshot,
    build_targets,
    build_timestamp,
    fetch,
    moment,
    read,
    require_same,
    require_signed,
    root_file,
)

OWNERS = "the hub owners"
COORDINATOR = "the coordinator's key"


class TrustedState(Struct, frozen=True, forbid_unknown_fields=True):
    """What a party remembers between loads: the newest files it has verified. The caller keeps it on disk.

    Losing it loses the protection against rollback down to the root that is trusted first.
    """

    root: bytes
    timestamp: bytes = b""
    snapshot: bytes = b""
    targets: bytes = b""
    roster: bytes = b""

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @staticmethod
    def from_bytes(raw: bytes) -> TrustedState:
        """Raises: Malformed: the stored state is damaged."""
        try:
            return msgspec.msgpack.decode(raw, type=TrustedState)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(
                "The stored trust in the roster is damaged. Restore it, or trust a root anew by its fingerprint."
            ) from error

    def files(self) -> Files:
        """The set it was made of, to be loaded again after a restart, without the coordinator."""
        stored = {
            root_file(_root(self).signed.version): self.root,
            TIMESTAMP_FILE: self.timestamp,
            SNAPSHOT_FILE: self.snapshot,
            TARGETS_FILE: self.targets,
            ROSTER_FILE: self.roster,
        }
        return {name: raw for name, raw in stored.items() if raw}


# --- first trust -----------------------------------------------------------------------------


def root_fingerprint(root: bytes) -> str:
    """Eight groups of four letters over what the owners signed; further signatures do not change it.

    Raises: Malformed, TooLarge.
    """
    return fingerprint(read(root, Root, "The root").signed_bytes)


def first_trust(root: bytes, fingerprint_heard: str, *, colluding: int = COLLUDING) -> TrustedState:
    """Trust a root because its fingerprint is the one that a hub owner read out.

    Raises: Malformed, TooLarge. RosterUnsigned: another fingerprint, or too few of its own owners signed it.
    """
    found = read(root, Root, "The root")
    if _letters(root_fingerprint(root)) != _letters(fingerprint_heard):
        raise RosterUnsigned(
            f"This root has the fingerprint {root_fingerprint(root)}, not the one that was given. Compare all eight "
            "groups with a hub owner by phone; if they differ, do not go on and say where the file came from."
        )
    authority_of(found.signed, colluding=colluding)
    require_signed(found.signed, found, "The root", OWNERS)
    return TrustedState(root)


def _letters(text: str) -> str:
    return "".join(text.split()).upper()


# --- the workflow ----------------------------------------------------------------------------


def load(state: TrustedState, files: Files, *, now: int, colluding: int = COLLUDING) -> tuple[Roster, TrustedState]:
    """Verify a roster set against what is trusted, and give the roster and the state to keep from now on.

    Guarantees: the roster is signed by the threshold of its hub owners, every change of owners since `state` was
    signed by the threshold of the old ones too, no part is older than what `state` has seen, nothing is expired at
    `now`, and the coordinator's word on it is at most a day old. On an error nothing is to be taken over.
    Args: now: Unix seconds. colluding: hubs that may collude; no root that so few can change is accepted.
    Raises: RosterExpired, RosterRolledBack, RosterUnsigned, Malformed, TooLarge.
    Source: TUF specification 1.0, sections 5.1 to 5.7.
    """
    state = learn_roots(state, files, colluding=colluding)
    root = _root(state).signed
    authority = authority_of(root, colluding=colluding)
    # 5.3.10 freeze: the final root has not expired at the one time that the whole load uses (5.1)
    _require_unexpired(root, now)
    timestamp = _load_timestamp(state, root, files, now)
    _load_snapshot(state, root, timestamp, files, now)
    _load_targets(state, root, files, now)
    content = _load_roster(state, root, authority, files)
    loaded = TrustedState(
        state.root, files[TIMESTAMP_FILE], files[SNAPSHOT_FILE], files[TARGETS_FILE], files[ROSTER_FILE]
    )
    return Roster(content, authority.threshold, int(timestamp.expires.timestamp())), loaded


def learn_roots(state: TrustedState, files: Files, *, colluding: int = COLLUDING) -> TrustedState:
    """Follow the chain of roots as far as the set carries it. Keep the result even if `load` then fails.

    Raises: RosterUnsigned: a root lacks signatures of the old or of its own owners. RosterRolledBack: the set
        ends before the trusted root, or shows another root under its version. Malformed, TooLarge.
    """
    # 5.3.1, 5.3.2 start from the root that is trusted
    trusted = _root(state)
    known = read(_known_root(files, trusted.signed.version), Root, "The known root")
    if known.signed_bytes != trusted.signed_bytes:
        raise RosterRolledBack(_two(trusted.signed.version))
    require_signed(trusted.signed, known, "The known root", OWNERS)
    before = authority_of(trusted.signed, colluding=colluding)
    raw = state.root
    for _ in range(MAX_ROSTER_STEPS):  # 5.3.9 repeat
        # 5.3.3 the next root, if there is one
        name = root_file(trusted.signed.version + 1)
        if name not in files:
            break
        raw = files[name]
        # 5.3.4, 5.3.5, 5.3.7, 5.3.8; 5.3.6 its expiry does not matter yet
        trusted = next_root(trusted, raw, colluding=colluding)
    if authority_of(trusted.signed, colluding=colluding).online != before.online:
        # 5.3.11 a new online key: what the old one said, however high its versions, counts no more
        return TrustedState(raw, targets=state.targets, roster=state.roster)
    return msgspec.structs.replace(state, root=raw)


def next_root(trusted: Metadata[Root], raw: bytes, *, colluding: int) -> Metadata[Root]:
    """TUF 5.3.4 and 5.3.5: one step of the chain.

    Raises: RosterUnsigned: not enough of the old, or of the new owners. Malformed: version not one higher, shape.
    """
    name = root_file(trusted.signed.version + 1)
    found = read(raw, Root, name)
    require_signed(trusted.signed, found, name, "the owners of the roster before it")
    require_signed(found.signed, found, name, "its own owners")
    if found.signed.version != trusted.signed.version + 1:
        raise Malformed(f"{name} carries version {found.signed.version}. Fetch the whole set again.")
    authority_of(found.signed, colluding=colluding)
    return found


def _known_root(files: Files, version: int) -> bytes:
    name = root_file(version)
    if name not in files:
        raise RosterRolledBack(
            f"The roster set does not carry root version {version}, which is already known here. It is older, or "
            "incomplete: fetch the newest set, and ask the coordinator why it handed out this one."
        )
    return files[name]


def _load_timestamp(state: TrustedState, root: Root, files: Files, now: int) -> Timestamp:
    # 5.4.1
    found = read(fetch(files, TIMESTAMP_FILE), Timestamp, TIMESTAMP_FILE)
    # 5.4.2
    require_signed(root, found, TIMESTAMP_FILE, COORDINATOR)
    if state.timestamp:
        seen = read(state.timestamp, Timestamp, "The stored timestamp")
        # 5.4.3.1, and nothing else under the same version
        _require_not_before(found, seen)
        # 5.4.3.2
        if found.signed.snapshot_meta.version < seen.signed.snapshot_meta.version:
            raise RosterRolledBack(_older(found.signed.snapshot_meta.version, seen.signed.snapshot_meta.version))
    # 5.4.4
    _require_fresh(found.signed, now)
    return found.signed


def _require_fresh(timestamp: Timestamp, now: int) -> None:
    expires = int(timestamp.expires.timestamp())
    if timestamp.is_expired(moment(now)):
        raise RosterExpired(
            f"The coordinator's word that this roster is the newest ran out on {day(expires)}. Fetch the set again; "
            "if that does not help, the coordinator is stopped or holds back a newer one: call another hub."
        )
    if expires > now + FRESHNESS_LIFETIME_S + MAX_CLOCK_SKEW_S:
        raise RosterUnsigned(
            f"The coordinator confirms this roster until {day(expires)}, and may do so for one day at a time only. "
            "Compare both machines' clocks; if they agree, the coordinator oversteps what owners let it say."
        )


def _load_snapshot(state: TrustedState, root: Root, timestamp: Timestamp, files: Files, now: int) -> None:
    # 5.5.1, 5.5.3
    raw = fetch(files, SNAPSHOT_FILE)
    found = read(raw, Snapshot, SNAPSHOT_FILE)
    require_signed(root, found, SNAPSHOT_FILE, COORDINATOR)
    if state.snapshot:
        seen = read(state.snapshot, Snapshot, "The stored snapshot")
        # 5.5.5: its one entry, the targets, has its own version (checked below)
        _require_not_before(found, seen)
    # ours: one number for root, snapshot, targets and roster
    _require_version(found.signed.version, root.version, SNAPSHOT_FILE)
    # 5.5.2, 5.5.4: the timestamp names exactly this file, by version, length and hash
    named = build_timestamp(
        raw, root.version, version=timestamp.version, expires=timestamp.expires, spec=timestamp.spec_version
    )
    require_same(timestamp, named, TIMESTAMP_FILE)
    # 5.5.6
    _require_unexpired(found.signed, now)
    # 5.6.2: and the snapshot names exactly these targets
    targets = build_snapshot(
        fetch(files, TARGETS_FILE), version=root.version, expires=root.expires, spec=found.signed.spec_version
    )
    require_same(found.signed, targets, SNAPSHOT_FILE)


def _load_targets(state: TrustedState, root: Root, files: Files, now: int) -> None:
    # 5.6.1, 5.6.3
    found = read(fetch(files, TARGETS_FILE), Targets, TARGETS_FILE)
    require_signed(root, found, TARGETS_FILE, OWNERS)
    if state.targets:
        _require_not_before(found, read(state.targets, Targets, "The stored targets"))
    # 5.6.4
    _require_version(found.signed.version, root.version, TARGETS_FILE)
    # 5.6.5
    _require_unexpired(found.signed, now)
    # 5.6.7 no delegations, 5.7.3 length and hash of the one target: the shape says both
    named = build_targets(
        fetch(files, ROSTER_FILE), version=root.version, expires=root.expires, spec=found.signed.spec_version
    )
    require_same(found.signed, named, TARGETS_FILE)


def _load_roster(state: TrustedState, root: Root, authority: Authority, files: Files) -> RosterContent:
    content = read_content(fetch(files, ROSTER_FILE))
    require_matches(content, root, authority)
    if state.roster and (before := read_content(state.roster)).federation != content.federation:
        raise Malformed(f"This is the roster of {content.federation}, and {before.federation} is the one known here.")
    return content


def require_matches(content: RosterContent, root: Root, authority: Authority) -> None:
    """Raises: Malformed: the roster's version, end, owners or coordinator are not those of its root."""
    owners = frozenset(hub.owner_key for hub in active_hubs(content))
    same = (
        content.version == root.version
        and moment(content.expires) == root.expires
        and owners == authority.owners
        and content.coordinator.signing_key == authority.online
    )
    if not same:
        raise Malformed("The roster names other owners, another coordinator, version or end than its own root.")


# --- parts -----------------------------------------------------------------------------------


def _root(state: TrustedState) -> Metadata[Root]:
    return read(state.root, Root, "The stored root")


def _require_not_before(found: Metadata[Signed], seen: Metadata[Signed]) -> None:
    """Raises: RosterRolledBack: a lower version than was seen, or other content under the same."""
    if found.signed.version < seen.signed.version:
        raise RosterRolledBack(_older(found.signed.version, seen.signed.version))
    if found.signed.version == seen.signed.version and found.signed_bytes != seen.signed_bytes:
        raise RosterRolledBack(_two(found.signed.version))


def _require_version(version: int, wanted: int, name: str) -> None:
    if version < wanted:
        raise RosterRolledBack(_older(version, wanted))
    if version > wanted:
        raise Malformed(
            f"{name} is of version {version}, but the newest root in the set is {wanted}: parts are missing."
        )


def _require_unexpired(signed: Root | Snapshot | Targets, now: int) -> None:
    if signed.is_expired(moment(now)):
        raise RosterExpired(
            f"Roster version {signed.version} ran out on {day(int(signed.expires.timestamp()))}. "
            "Hub owners have to sign a new one before hubs answer again."
        )


def _older(found: int, seen: int) -> str:
    return (
        f"This set carries roster version {found}, and version {seen} is already known here. Somebody hands out an "
        "old roster: fetch the newest, and tell the other hubs."
    )


def _two(version: int) -> str:
    return (
        f"Two different files carry version {version}. Hubs may have been told different things: stop, and compare "
        "root fingerprints with the other hubs by phone."
    )
