"""The same person under two ids: what can be known is counted, what is declared is joined, nothing is guessed.

A person who stands in a table twice would be counted, trained on and protected as two. Two signs are looked for: the
same identifier (system and value) on two persons, and the same birth date and gender with at least two kinds of
event alike in day and value. Both are suspicions: twins have one birth date, registries reuse numbers. So they are
flagged, and the steward, who can look into the hospital's own system, declares who is one person.
"""

# ruff: noqa: S608 names are the recipe's own and quoted; no value is put into a statement
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flute.defaults.records import MAX_SHARED_IDENTIFIER, MIN_SHARED_EVENTS
from flute.errors import MisuseError

SAME_IDENTIFIER: Final = "same-identifier"
SAME_EVENTS: Final = "same-birth-and-events"
PERSON: Final = "Patient"


def suspects(persons: str, events: str, identifiers: str) -> str:
    """SQL: pairs (`patient`, `other`, `why`) that may be one person; every pair in both orders.

    `persons`: table with `id`, `gender`, `birth` (text, a full date counts). `events`: table with `patient`, `kind`,
    `day`, `number`. `identifiers`: table with `id`, `system`, `value`; one that more than MAX_SHARED_IDENTIFIER
    persons have is a placeholder ("unknown") and says nothing.
    """
    return f"""
  WITH telling AS (
    SELECT DISTINCT id, coalesce(system, '') AS system, value FROM {identifiers} WHERE value IS NOT NULL
    QUALIFY count(DISTINCT id) OVER (PARTITION BY coalesce(system, ''), value) <= {MAX_SHARED_IDENTIFIER}),
  happened AS (
    SELECT DISTINCT e.patient, p.birth, p.gender, e.kind, e.day, coalesce(e.number, 0) AS number
    FROM {events} e JOIN {persons} p ON p.id = e.patient
    WHERE length(p.birth) = 10 AND p.gender IS NOT NULL AND e.day IS NOT NULL)
  SELECT a.id AS patient, b.id AS other, '{SAME_IDENTIFIER}' AS why
  FROM telling a JOIN telling b USING (system, value) WHERE a.id <> b.id
  UNION
  SELECT a.patient, b.patient, '{SAME_EVENTS}'
  FROM happened a JOIN happened b USING (birth, gender, kind, day, number) WHERE a.patient <> b.patient
  GROUP BY 1, 2 HAVING count(DISTINCT kind) >= {MIN_SHARED_EVENTS}"""


def join_persons(
    connection: Any,
    views: Mapping[str, Mapping[str, Any]],
    groups: Sequence[Sequence[str]],
    pseudonym_of: Callable[[str], str],
) -> int:
    """Give every record of a declared group the id of the group's first person. Gives how many ids were joined.

    `views`: the recipe's, whose tables `connection` holds. A view of Patient names the person `id`, any other view
    `patient`. `groups`: pseudonyms of one person each; those that are not in this dataset are passed over.
    Afterwards a name of `views` is a temporary view over the joined rows; what it was before is not changed.
    The persons' own rows stay beside each other: a recipe sees that two birth dates were stated for one person.
    Raises: MisuseError: no view of Patient to find the persons in.
    """
    if not groups:
        return 0
    new_id = _new_ids(connection, views, groups, pseudonym_of)
    if not new_id:
        return 0
    connection.execute("CREATE OR REPLACE TEMP TABLE same_person(id VARCHAR, person VARCHAR)")
    connection.executemany("INSERT INTO same_person VALUES (?, ?)", sorted(new_id.items()))
    for name, declaration in views.items():
        column = "id" if declaration["resource"] == PERSON else "patient"
        if column in {row[0] for row in connection.execute(f"DESCRIBE {_quoted(name)}").fetchall()}:
            _rewrite(connection, name, column)
    return len(new_id)


def _new_ids(
    connection: Any,
    views: Mapping[str, Mapping[str, Any]],
    groups: Sequence[Sequence[str]],
    pseudonym_of: Callable[[str], str],
) -> dict[str, str]:
    """Id to the id that it becomes, for the ids that become another."""
    tables = [name for name, declaration in views.items() if declaration["resource"] == PERSON]
    if not tables:
        raise MisuseError("Persons can be joined only where a view of Patient says who they are.")
    ids = connection.execute(f"SELECT DISTINCT id FROM {_quoted(tables[0])} WHERE id IS NOT NULL").fetchall()
    wanted = {pseudonym for group in groups for pseudonym in group}
    id_of = {known: row[0] for row in ids if (known := pseudonym_of(row[0])) in wanted}
    found: dict[str, str] = {}
    for group in groups:
        here = [id_of[pseudonym] for pseudonym in group if pseudonym in id_of]
        found |= dict.fromkeys(here[1:], here[0] if here else "")
    return found


def _rewrite(connection: Any, name: str, column: str) -> None:
    joined, cell = _quoted(f"joined {name}"), _quoted(column)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {joined} AS SELECT t.* REPLACE (coalesce(s.person, t.{cell}) AS {cell}) "
        f"FROM {_quoted(name)} t LEFT JOIN same_person s ON s.id = t.{cell}"
    )
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {_quoted(name)} AS SELECT * FROM {joined}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
