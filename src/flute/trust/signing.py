"""Making a roster: propose, sign (each hub owner on an own machine), merge.

A roster is proposed as a `Bundle`: the new root, targets and content, and the root and content before them. Owners
may sign copies side by side; `merge` brings the copies together. Once the threshold of the old owners and of the
new ones have signed, the coordinator publishes it (`trust.publishing`).
Source: TUF specification 1.0, section 6.1 (key management) and 5.3.4 (who signs a new root).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from msgspec import Struct
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exported there without saying so
    Metadata,
    Root,
    Targets,
)

from flute.defaults import (
    COLLUDING,
    MAX_CLOCK_SKEW_S,
    MAX_ROSTER_BYTES,
    ROSTER_LIFETIME_DAYS,
)
from flute.errors import Malformed, MisuseError, RosterRolledBack, TooLarge
from flute.primitives.keys import SigningKey
from flute.trust.roster import (
    Hub,
    RosterContent,
    active_hubs,
    arranged,
    day,
    keys_of,
    members,
    read_content,
    write_content,
)
from flute.trust.tuf_files import (
    ROSTER_FILE,
    TARGETS_FILE,
    Authority,
    Files,
    Signed,
    authority_of,
    build_root,
    build_targets,
    check_threshold,
    default_threshold,
    fetch,
    moment,
    read,
    require_same,
    root_file,
    signer,
    tuf_key,
)
from flute.trust.verification import TrustedState, require_matches

_DAY_S = 24 * 3600


class Bundle(Struct, frozen=True, forbid_unknown_fields=True):
    """A proposed roster on its way between hub owners. Everything in it is public."""

    root: bytes
    targets: bytes
    roster: bytes
    previous_root: bytes = b""
    """Empty for the very first roster."""
    previous_roster: bytes = b""

    def to_bytes(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def from_bytes(raw: bytes) -> Bundle:
        """Raises: TooLarge. Malformed: not a bundle, or its parts do not belong together (`check_bundle`)."""
        if len(raw) > 8 * MAX_ROSTER_BYTES:  # five parts, in base64
            raise TooLarge(f"A proposed roster of {len(raw)} bytes is over the limit of {8 * MAX_ROSTER_BYTES}.")
        try:
            bundle = msgspec.json.decode(raw, type=Bundle)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed("This file is not a proposed roster.") from error
        check_bundle(bundle)
        return bundle


@dataclass(frozen=True, slots=True)
class Standing:
    """Who signed so far and how many more are needed. Only signatures that verify are counted, each owner once."""

    signed: tuple[str, ...]
    """Hubs whose owner signed, as a member of the old owners or of the new ones."""
    missing_old: int
    missing_new: int

    @property
    def complete(self) -> bool:
        return self.missing_old == 0 and self.missing_new == 0

    def explain(self) -> str:
        who = ", ".join(self.signed) or "nobody"
        if self.complete:
            return f"Signed by {who}: enough. The coordinator can publish it."
        return (
            f"Signed by {who}. Missing: {self.missing_old} of the present owners and {self.missing_new} of the new "
            "ones (one person may count as both)."
        )


# --- proposing -------------------------------------------------------------------------------


def propose(
    content: RosterContent,
    *,
    previous: Files | None,
    now: int,
    threshold: int | None = None,
    colluding: int = COLLUDING,
) -> Bundle:
    """An unsigned roster after `previous` (the set in force; None for the first).

    Args: threshold: signatures that the *next* roster will need; a majority if None (2 of 3).
    Raises: Malformed: content breaks a rule, or does not follow the previous one. RosterUnsigned: the threshold
        does not hold against `colluding`. MisuseError: it expires too soon or too late.
    """
    content = arranged(content)
    _check_lifetime(content, now)
    before = newest_root(previous) if previous is not None else b""
    old = fetch(previous, ROSTER_FILE) if previous is not None else b""
    roster = write_content(content)
    owners = frozenset(hub.owner_key for hub in active_hubs(content))
    needed = default_threshold(len(owners), colluding=colluding) if threshold is None else threshold
    check_threshold(needed, len(owners), colluding)
    expires = moment(content.expires)
    authority = Authority(owners, needed, content.coordinator.signing_key)
    root = Metadata(build_root(authority, version=content.version, expires=expires))
    targets = Metadata(build_targets(roster, version=content.version, expires=expires))
    bundle = Bundle(root.to_bytes(), targets.to_bytes(), roster, before, old)
    check_bundle(bundle, colluding=colluding)
    return bundle


def check_bundle(bundle: Bundle, *, colluding: int = COLLUDING) -> RosterContent:
    """The content of a bundle whose parts belong together; counts no signature.

    Raises: Malformed, TooLarge, RosterUnsigned (a threshold too low).
    """
    root = read(bundle.root, Root, "The proposed root").signed
    targets = read(bundle.targets, Targets, "The proposed targets").signed
    content = read_content(bundle.roster)
    require_matches(content, root, authority_of(root, colluding=colluding))
    expected = build_targets(bundle.roster, version=root.version, expires=root.expires, spec=targets.spec_version)
    require_same(targets, expected, TARGETS_FILE)
    if not bundle.previous_root:
        if content.version != 1 or bundle.previous_roster:
            raise Malformed("Only roster version 1 has none before it; this proposal lacks the roster it follows.")
        return content
    before = read_content(bundle.previous_roster)
    old_root = read(bundle.previous_root, Root, "The root before").signed
    require_matches(before, old_root, authority_of(old_root, colluding=colluding))
    _check_successor(before, content)
    return content


def _check_successor(before: RosterContent, after: RosterContent) -> None:
    """Version one higher, same federation, and no key that was revoked comes back."""
    if after.version != before.version + 1 or after.federation != before.federation:
        raise Malformed(
            f"The roster after version {before.version} of {before.federation} must be version {before.version + 1} "
            f"of the same federation, not version {after.version} of {after.federation}."
        )
    revoked = {key for hub in before.hubs if hub.revoked for key in keys_of(hub)}
    revoked |= {person.signing_key for person in before.people if person.revoked}
    for party in members(after):
        if getattr(party, "revoked", False):
            continue
        if revoked.intersection(keys_of(party)):
            raise Malformed(f"{party.id} would come back with a revoked key. It has to make new keys and join anew.")
    gone = {party.id for party in members(before)} - {party.id for party in members(after)}
    gone.discard(before.coordinator.id)
    if gone:
        raise Malformed(f"{', '.join(sorted(gone))} must stay listed, marked as revoked, so that no name is reused.")


def _check_lifetime(content: RosterContent, now: int) -> None:
    if content.expires <= now:
        raise MisuseError(f"The proposed roster would end on {day(content.expires)}, which has passed.")
    if content.expires > now + ROSTER_LIFETIME_DAYS * _DAY_S + MAX_CLOCK_SKEW_S:
        raise MisuseError(
            f"The proposed roster would hold until {day(content.expires)}, longer than {ROSTER_LIFETIME_DAYS} days. "
            "An end bounds for how long an outdated roster can be passed off as the newest."
        )


# --- signing ---------------------------------------------------------------------------------


def sign(
    bundle: Bundle, key: SigningKey, *, now: int, trusted: TrustedState | None, colluding: int = COLLUDING
) -> Bundle:
    """The bundle with one owner's signature more; an owner who signed already changes nothing.

    Args: trusted: what this owner's hub has verified so far: the proposal must follow it. None only where nothing
        was trusted yet (the first roster, or a hub that is only now joining).
    Raises: MisuseError: the key is no owner's, or the lifetime is wrong. RosterRolledBack: the proposal does not
        follow the roster that is trusted here. Malformed, TooLarge, RosterUnsigned: as `check_bundle`.
    """
    content = check_bundle(bundle, colluding=colluding)
    _check_lifetime(content, now)
    if trusted is not None:
        check_follows(bundle, trusted)
    root = read(bundle.root, Root, "The proposed root")
    targets = read(bundle.targets, Targets, "The proposed targets")
    new = authority_of(root.signed, colluding=colluding).owners
    if key.public not in new | _old_owners(bundle, colluding):
        raise MisuseError("This key belongs to no owner of the roster before or after. Use the hub's owner key.")
    root.sign(signer(key), append=True)
    if key.public in new:
        targets.sign(signer(key), append=True)
    return msgspec.structs.replace(bundle, root=root.to_bytes(), targets=targets.to_bytes())


def merge(one: Bundle, other: Bundle) -> Bundle:
    """Two copies of one proposal, signed by different owners, as one.

    Raises: Malformed: they are not the same proposal.
    """
    same = (one.roster, one.previous_root, one.previous_roster)
    if same != (other.roster, other.previous_root, other.previous_roster):
        raise Malformed("These are two different proposals. Owners have to sign the same one.")
    return msgspec.structs.replace(
        one,
        root=_merged(
            read(one.root, Root, "The proposed root"), read(other.root, Root, "The other copy's proposed root")
        ),
        targets=_merged(
            read(one.targets, Targets, "The proposed targets"),
            read(other.targets, Targets, "The other copy's proposed targets"),
        ),
    )


def standing(bundle: Bundle, *, colluding: int = COLLUDING) -> Standing:
    """Raises: as `check_bundle`."""
    content = check_bundle(bundle, colluding=colluding)
    root = read(bundle.root, Root, "The proposed root")
    targets = read(bundle.targets, Targets, "The proposed targets")
    old = read(bundle.previous_root, Root, "The root before").signed if bundle.previous_root else root.signed
    by_old = old.get_verification_result(Root.type, root.signed_bytes, root.signatures)
    by_new = root.signed.get_verification_result(Root.type, root.signed_bytes, root.signatures)
    listed = root.signed.get_verification_result(Targets.type, targets.signed_bytes, targets.signatures)
    whole = by_new.signed.keys() & listed.signed.keys()
    signed = by_old.signed.keys() | whole
    hubs = _hubs_by_key(content, bundle)
    return Standing(
        tuple(sorted(name for keyid, name in hubs.items() if keyid in signed)),
        max(0, by_old.threshold - len(by_old.signed)),
        max(0, by_new.threshold - len(whole)),
    )


def check_follows(bundle: Bundle, trusted: TrustedState) -> None:
    """Raises: RosterRolledBack: the proposal is not built on the root that is trusted."""
    known = read(trusted.root, Root, "The trusted root")
    if bundle.previous_root:
        shown = read(bundle.previous_root, Root, "The root before")
        if shown.signed_bytes == known.signed_bytes:
            return
    raise RosterRolledBack(
        f"This proposal does not follow roster version {known.signed.version}, the newest one known here. Fetch the "
        "newest roster first, and ask who proposed this one."
    )


def _old_owners(bundle: Bundle, colluding: int) -> frozenset[bytes]:
    if not bundle.previous_root:
        return frozenset()
    return authority_of(read(bundle.previous_root, Root, "The root before").signed, colluding=colluding).owners


def _hubs_by_key(content: RosterContent, bundle: Bundle) -> dict[str, str]:
    hubs: list[Hub] = list(content.hubs)
    if bundle.previous_roster:
        hubs += read_content(bundle.previous_roster).hubs
    return {tuf_key(hub.owner_key).keyid: hub.id for hub in hubs}


def _merged(one: Metadata[Signed], other: Metadata[Signed]) -> bytes:
    if one.signed_bytes != other.signed_bytes:
        raise Malformed("These are two different proposals. Owners have to sign the same one.")
    return Metadata(one.signed, {**other.signatures, **one.signatures}).to_bytes()


def newest_root(files: Files) -> bytes:
    """The root that a set's roster was signed under. Raises: Malformed, TooLarge: the set is damaged."""
    return fetch(files, root_file(read_content(fetch(files, ROSTER_FILE)).version))
