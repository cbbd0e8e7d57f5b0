"""What a proposed roster changes, in sentences: what an owner reads before signing."""

from __future__ import annotations

from collections.abc import Iterator

from flute.trust.roster import Coordinator, Hub, Party, RosterContent, day, describe, keys_of, members


def changes(before: RosterContent | None, after: RosterContent) -> tuple[str, ...]:
    """One sentence per change; for the first roster, one per party. Says nothing about signatures."""
    return tuple(_changes(before, after))


def _changes(before: RosterContent | None, after: RosterContent) -> Iterator[str]:
    if before is None:
        yield f"First roster of the federation {after.federation}, valid until {day(after.expires)}."
    elif before.expires != after.expires:
        yield f"The roster will be valid until {day(after.expires)} (so far {day(before.expires)})."
    known = {} if before is None else {party.id: party for party in members(before)}
    for party in members(after):
        yield from _party_changes(known.pop(party.id, None), party)
    for party in known.values():
        yield f"Gone: {describe(party)}"
    yield from _code_changes(before, after)


def _party_changes(before: Party | None, after: Party) -> Iterator[str]:
    if before is None or type(before) is not type(after):
        yield f"New: {describe(after)}"
    elif keys_of(before) != keys_of(after):
        yield f"NEW KEYS (compare the fingerprint by phone): {describe(after)}"
    elif not isinstance(before, Coordinator) and not isinstance(after, Coordinator):
        if after.revoked and not before.revoked:
            yield f"Revoked: {describe(after)}"
        elif before != after:
            yield f"Changed: {_difference(before, after)}"


def _difference(before: Party, after: Party) -> str:
    if isinstance(before, Hub) and isinstance(after, Hub) and before.tls_common_name != after.tls_common_name:
        return f"{describe(after)}; name on the wire {before.tls_common_name} becomes {after.tls_common_name}"
    return f"{describe(after)} (before: {describe(before)})"


def _code_changes(before: RosterContent | None, after: RosterContent) -> Iterator[str]:
    old = {} if before is None else {code.name: code.digest for code in before.codes}
    for code in after.codes:
        if old.pop(code.name, None) != code.digest:
            yield f"Code {code.name} will be approved with SHA-256 {code.digest.hex()}."
    for name in old:
        yield f"Code {name} will no longer be approved."
