"""From what is staged to one row per patient: the recipe's SQL, its refusals, who was withdrawn, pseudonyms.

Steps, in order: 1 the recipe's refusals are looked for; a refused resource of a transaction takes its transaction
out, and they are looked for anew   2 ids that were declared to be one person are joined   3 the recipe's SQL makes
the rows   4 decisions by hand about single persons count   5 persons get the hub's pseudonyms; ids stay behind.
The staging itself is not changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from flute.cohort.flow import Flow, flow_of
from flute.cohort.overrides import Decisions, apply_by_hand
from flute.cohort.persons import join_persons
from flute.cohort.rules import HAND_WORDS
from flute.data.findings import Finding
from flute.data.reader import Refused
from flute.defaults.records import SUSPECTS_SHOWN
from flute.deidentify.anonymity import AnonymityReport, anonymity
from flute.deidentify.classes import declared
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, Unmappable
from flute.intake.batch import BUNDLE_WENT
from flute.intake.profile import days_of
from flute.intake.recipe import Recipe
from flute.intake.rows import TABLE, ImportReport, Rows, count_cells, counted, make_rows, plain_column
from flute.intake.spread import Spread
from flute.intake.staging import Staging

_TEXTS_WITHOUT_VALUES: Final = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)
"""DuckDB's other errors may quote a value."""
_BY_HAND: Final = "".join(f"'{word}'" for word in HAND_WORDS)
"""Reasons and flags that no recipe spells out, since people give them."""


@dataclass(frozen=True, slots=True)
class Freezing:
    """`key`: the hub's own 32 bytes, for pseudonyms. `by_hand`: decisions that count now. `withdrawn`: how many
    persons are withdrawn from this hub; their records are not in the staging."""

    key: bytes
    by_hand: Decisions = field(default_factory=Decisions)
    withdrawn: int = 0
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Frozen:
    """`refused`: everything refused, by reader, rules and recipe; `flow`: persons through the cohort's rules, where
    the recipe declares them; `days`: of what rows are about; `suspects`: pairs of pseudonyms that may be one person,
    and why; `alike`: how well patients hide among each other. All of it is for the data manager's own eyes."""

    rows: Rows
    report: ImportReport
    refused: tuple[Refused, ...]
    flow: Flow | None
    days: Spread
    suspects: tuple[tuple[str, str, str], ...]
    alike: AnonymityReport | None


def freeze(staging: Staging, recipe: Recipe, how: Freezing) -> Frozen:
    """One row per patient.

    Raises: Unmappable: the SQL cannot be carried out, or does not give one row per patient. MisuseError: a decision
    by hand that the cohort does not allow.
    """
    early = staging.refused()
    late = _refusals(staging, recipe)
    database = staging.database

    def known_as(patient: str) -> str:
        return pseudonym(how.key, patient)

    joined = join_persons(database, recipe.views, how.by_hand.groups, known_as)
    _query(database, "CREATE OR REPLACE TEMP TABLE result AS ", recipe.sql, "SQL")
    names = {row[0] for row in database.execute("DESCRIBE result").fetchall()}
    absent = sorted({"patient", *(v.name for v in recipe.variables)} - names)
    if absent:
        raise Unmappable(f"The SQL of recipe {recipe.name} gives no column {', '.join(absent)}.")
    flow = None
    if recipe.cohort is not None:
        apply_by_hand(database, recipe.cohort, how.by_hand, known_as)
        flow = flow_of(database, recipe.cohort, joined=joined, simulated=how.simulated)
    inside = "excluded IS NULL" if "excluded" in names else "true"
    excluded, flags = _excluded(database, recipe, names), _flags(database, recipe, names, inside)
    patients = int(database.execute("SELECT count(*) FROM result").fetchone()[0])
    database.execute(f"CREATE OR REPLACE TEMP TABLE chosen AS SELECT * FROM result WHERE {inside}")  # noqa: S608 fixed
    missing, unusable = count_cells(database, recipe.variables)
    rows = make_rows(database, recipe.variables, how.key)
    report = ImportReport(
        source=recipe.name,
        files=staging.scopes(),
        resources=staging.resources() + len(_first_of_each(early)),
        set_aside=staging.set_aside(),
        refused=dict(sorted(Counter(r.finding.reason for r in _first_of_each([*early, *late])).items())),
        patients=patients,
        excluded=excluded,
        flags=flags,
        rows=len(rows),
        missing=missing,
        unusable=unusable,
        warnings=staging.warnings(),
        withdrawn=how.withdrawn,
    )
    suspects = _suspects(database, recipe, known_as)
    return Frozen(rows, report, (*early, *late), flow, days_of(database), suspects, _alike(rows, recipe))


def _first_of_each(refused: Sequence[Refused]) -> list[Refused]:
    """One per resource, by its first finding: a resource that breaks three rules is refused once."""
    return list({(r.origin, r.key): r for r in reversed(refused)}.values())


# --- refusals that only several resources together can tell ------------------------------------------


def _refusals(staging: Staging, recipe: Recipe) -> list[Refused]:
    """Resources that the recipe refuses, and those that go with them. Leaves the views without the latter."""
    found: dict[str, Refused] = {}
    while True:
        staging.offer_views([key for key, r in found.items() if r.bundle])
        new = {key: reason for key, reason in _refused_keys(staging.database, recipe) if key not in found}
        if not new:
            return [found[key] for key in sorted(found)]
        origins = staging.origins(list(new))
        with_them = staging.of_bundles_of(list(new))
        bundles = {key: bundle for key, _, bundle in with_them}
        for key, reason in new.items():
            found[key] = Refused(origins.get(key, ""), key, _finding(reason), bundles.get(key, ""))
        for key, origin, bundle in with_them:
            found.setdefault(key, Refused(origin, key, BUNDLE_WENT, bundle))


def _refused_keys(database: Any, recipe: Recipe) -> list[tuple[str, str]]:
    return [
        (str(row[0]), reason)
        for reason, sql in recipe.refusals.items()
        for row in _query(database, "", sql, f"refusal {reason}").fetchall()
    ]


_MENDS: Final = {
    "reference-not-resolved": "Export the resource that this one refers to as well, or mend the reference.",
}


def _finding(reason: str) -> Finding:
    mend = _MENDS.get(reason, "See the recipe's rule of that name; it judges the resource beside others.")
    return Finding(reason=reason, path="", rule="recipe", found="judged beside the other resources", mend=mend)


def _suspects(database: Any, recipe: Recipe, known_as: Callable[[str], str]) -> tuple[tuple[str, str, str], ...]:
    if not recipe.suspects:
        return ()
    pairs = _query(database, "", recipe.suspects, "suspects").fetchmany(SUSPECTS_SHOWN)
    return tuple(sorted((known_as(patient), known_as(other), str(why)) for patient, other, why in pairs))


def _alike(rows: Rows, recipe: Recipe) -> AnonymityReport | None:
    if not recipe.classes or not len(rows):
        return None
    columns = rows.connection.execute(f"SELECT * FROM {TABLE}").fetchnumpy()  # noqa: S608 a fixed name
    table = {v.name: plain_column(columns[v.name]).tolist() for v in recipe.variables}
    return anonymity(table, declared(table, recipe.classes))


# --- counts ----------------------------------------------------------------------------------------------


def _excluded(database: Any, recipe: Recipe, names: set[str]) -> dict[str, int]:
    if "excluded" not in names:
        return {}
    found = database.execute(
        "SELECT excluded, count(*) FROM result WHERE excluded IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return counted(found, recipe.sql + _BY_HAND)


def _flags(database: Any, recipe: Recipe, names: set[str], inside: str) -> dict[str, int]:
    if "flags" not in names:
        return {}
    found = database.execute(
        f"SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM result WHERE {inside}) "  # noqa: S608 fixed text
        "WHERE flag IS NOT NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return counted(found, recipe.sql + _BY_HAND)


def _query(database: Any, before: str, sql: str, what: str) -> Any:
    """One SELECT. Raises: Unmappable: DuckDB will not carry it out; MisuseError: it is more than one statement."""
    try:
        if len(duckdb.extract_statements(sql)) != 1:
            raise MisuseError(f"The recipe's {what} must be one statement.")
        return database.execute(f"{before}SELECT * FROM ({sql.rstrip().rstrip(';')})")  # noqa: S608 the hub's own recipe
    except _TEXTS_WITHOUT_VALUES as error:
        raise Unmappable(f"The recipe's {what} does not fit its views: {error}") from error
    except duckdb.Error:
        raise Unmappable(f"The recipe's {what} failed on these records; the data does not fit it.") from None
