"""The coordinator's part: give out a signed roster, and confirm for a day at a time that it is the newest.

The coordinator's online key signs TUF's snapshot and timestamp. It cannot alter the roster; the worst it can do is
to go on confirming an old one (`trust.verification` says what ends that).
Source: TUF specification 1.0, sections 4.4 (snapshot) and 4.6 (timestamp).
"""

from __future__ import annotations

from tuf.api.metadata import Metadata, Timestamp  # type: ignore[attr-defined]  # re-exported without saying so

from flute.defaults import COLLUDING, FRESHNESS_LIFETIME_S
from flute.errors import MisuseError, RosterExpired, RosterUnsigned
from flute.primitives.keys import SigningKey
from flute.trust.roster import RosterContent, day, read_content
from flute.trust.signing import Bundle, check_bundle, check_follows, newest_root, standing
from flute.trust.tuf_files import (
    ROSTER_FILE,
    SNAPSHOT_FILE,
    TARGETS_FILE,
    TIMESTAMP_FILE,
    Files,
    build_snapshot,
    build_timestamp,
    fetch,
    moment,
    read,
    root_file,
    signer,
)
from flute.trust.verification import TrustedState, first_trust, load, root_fingerprint


def publish(
    bundle: Bundle, key: SigningKey, *, previous: Files | None, now: int, colluding: int = COLLUDING
) -> dict[str, bytes]:
    """The whole set that hubs fetch: every root so far, targets, roster, and the coordinator's word on them.

    It is loaded as a hub would before it is given out, so an incomplete one cannot be published.
    Args: key: the coordinator's signing key. previous: the set in force; None for the first roster.
    Raises: RosterUnsigned: signatures are missing. RosterRolledBack: it does not follow `previous`.
        MisuseError: another key than the roster's coordinator. RosterExpired, Malformed, TooLarge.
    """
    so_far = standing(bundle, colluding=colluding)
    if not so_far.complete:
        raise RosterUnsigned(so_far.explain())
    content = check_bundle(bundle, colluding=colluding)
    files = _roots(previous) if previous is not None else {}
    state = _trust_before(bundle, previous, colluding)
    files |= {root_file(content.version): bundle.root, TARGETS_FILE: bundle.targets, ROSTER_FILE: bundle.roster}
    snapshot = Metadata(build_snapshot(bundle.targets, version=content.version, expires=moment(content.expires)))
    snapshot.sign(signer(key))
    files[SNAPSHOT_FILE] = snapshot.to_bytes()
    last = _timestamp_version(previous) if previous is not None else 0
    files = _confirmed(files, content, key, version=last + 1, now=now)
    load(state, files, now=now, colluding=colluding)
    return files


def refresh(files: Files, key: SigningKey, *, now: int) -> dict[str, bytes]:
    """The same set with the coordinator's word renewed for a day; nothing else changes.

    Raises: RosterExpired: owners must sign a new roster first. MisuseError: not the coordinator's key.
        Malformed, TooLarge: the set at hand is damaged.
    """
    content = read_content(fetch(files, ROSTER_FILE))
    if now >= content.expires:
        raise RosterExpired(f"The roster ended on {day(content.expires)}; hub owners have to sign a new one.")
    return _confirmed(dict(files), content, key, version=_timestamp_version(files) + 1, now=now)


def _confirmed(
    files: dict[str, bytes], content: RosterContent, key: SigningKey, *, version: int, now: int
) -> dict[str, bytes]:
    if key.public != content.coordinator.signing_key:
        raise MisuseError("This is not the key of the coordinator that the roster names.")
    expires = moment(min(now + FRESHNESS_LIFETIME_S, content.expires))
    stamp = Metadata(build_timestamp(files[SNAPSHOT_FILE], content.version, version=version, expires=expires))
    stamp.sign(signer(key))
    return {**files, TIMESTAMP_FILE: stamp.to_bytes()}


def _trust_before(bundle: Bundle, previous: Files | None, colluding: int) -> TrustedState:
    """What a hub trusts before it sees the new set; for the first roster, that root itself."""
    if previous is None:
        return first_trust(bundle.root, root_fingerprint(bundle.root), colluding=colluding)
    state = TrustedState(newest_root(previous))
    check_follows(bundle, state)
    return state


def _timestamp_version(files: Files) -> int:
    return read(fetch(files, TIMESTAMP_FILE), Timestamp, TIMESTAMP_FILE).signed.version


def _roots(files: Files) -> dict[str, bytes]:
    return {name: raw for name, raw in files.items() if name.endswith(".root.json")}
