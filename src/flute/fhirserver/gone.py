"""What is no longer at a FHIR server, as far as the server lets one know.

By history: the type's history names deletions; what was changed and does not match the searches any more is gone
from the scope too. By sweep: the ids that the server still has, against those that the hub holds. Whatever is only
suspected is asked for by id before it is called gone, so that a list that shifted takes nothing away.
Source: FHIR R4 http section 3.1.0.11 (history), search parameters `_id` and `_elements`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice

from flute.defaults.records import FHIR_GONE_PAGE, FHIR_ID_BATCH, MAX_FHIR_CHANGES
from flute.errors import Unmappable
from flute.fhirserver.connection import Declined
from flute.fhirserver.lists import Lists, Walk
from flute.fhirserver.queries import Query, Scope

Known = Callable[[str], Iterable[str]]
"""Keys ("Type/id") that the hub holds of a scope."""


def gone_by_history(lists: Lists, scope: Scope, since: str, met: set[str]) -> Iterator[tuple[str, ...]]:
    """Keys, in portions. `met`: those that were found just now, so that they need no question.

    Raises: Declined: the server has no history of types.
    """
    latest: dict[str, tuple[datetime | None, bool]] = {}
    for page in lists.history(scope.kind, since):
        for past in page:
            known = latest.get(past.key)
            # Newest first, so the first entry of a key counts, unless times say otherwise.
            if known is None or (known[0] is not None and past.when is not None and known[0] < past.when):
                latest[past.key] = (past.when, past.deleted)
        _check_count(lists, scope, len(latest))
    deleted = sorted(key for key, (_, is_deleted) in latest.items() if is_deleted)
    yield from _portions(deleted)
    if scope.is_filtered:
        left = sorted(key for key, (_, is_deleted) in latest.items() if not is_deleted and key not in met)
        yield from _portions(_absent(lists, scope, left))


def gone_by_sweep(lists: Lists, scope: Scope, known: Known, met: set[str]) -> Iterator[tuple[str, ...]]:
    """Keys, in portions, that the hub holds and the server's searches do not find."""
    held = set(known(scope.kind))
    _check_count(lists, scope, len(held))
    for query in scope.queries:
        for key in _ids(lists, query):
            held.discard(key)
    yield from _portions(_absent(lists, scope, sorted(held - met)))


def _ids(lists: Lists, query: Query) -> Iterator[str]:
    """Keys of everything that a search finds, as briefly as the server can say them."""
    try:
        for page in Walk(lists, query, lists.address(query, ("_elements", "id"))).pages():
            yield from (met.key for met in page.met)
    except Declined as declined:
        if not declined.is_about_the_request:
            raise
        for page in Walk(lists, query, lists.address(query)).pages():
            yield from (met.key for met in page.met)


def _absent(lists: Lists, scope: Scope, keys: Iterable[str]) -> Iterator[str]:
    """Those of the keys that no search of the scope finds. Raises: Unmappable: the server ignores `_id`."""
    rest = iter(keys)
    while batch := list(islice(rest, FHIR_ID_BATCH)):
        ids = ",".join(key.partition("/")[2] for key in batch)
        found: set[str] = set()
        for query in scope.queries:
            for page in Walk(lists, query, lists.address(query, ("_id", ids))).pages():
                found.update(met.key for met in page.met)
        if not found <= set(batch):
            raise Unmappable(
                f"The server {lists.connection.host} ignores _id in a search, so that it cannot say what is gone. "
                "Write 'deletions: reread' in the server's options: each import then reads everything."
            )
        yield from (key for key in batch if key not in found)


def _portions(keys: Iterable[str]) -> Iterator[tuple[str, ...]]:
    rest = iter(keys)
    while portion := tuple(islice(rest, FHIR_GONE_PAGE)):
        yield portion


def _check_count(lists: Lists, scope: Scope, count: int) -> None:
    if count > MAX_FHIR_CHANGES:
        raise Unmappable(
            f"More than {MAX_FHIR_CHANGES} resources ({scope.kind}) at {lists.connection.host} are to be compared. "
            "Write 'deletions: reread' in the server's options, or read them by its bulk export."
        )
