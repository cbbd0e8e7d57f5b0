"""What an import looked like, kept per dataset, and an alarm where the next one looks as if its source had changed.

A profile says how many, what is missing, how values are spread, which categories have which share, when it all
happened, what was refused and who was left out. It holds single values (ends and steps of distributions) and small
counts: it is for the hub's own steward, stays in the hub's folder, and nothing of it is ever sent to anybody.

An alarm needs two things. The change must be unlikely by chance: all tests together raise a false alarm at an
unchanged system in at most DRIFT_FALSE_ALARM of imports (each gets an equal part; Bonferroni). And it must be large
enough to be worth a look. A word or a variable that was never there before is no matter of chance and always told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from msgspec import Meta, Struct

from flute.data.variables import Kind, Variable
from flute.defaults.records import (
    DRIFT_BEYOND,
    DRIFT_FALSE_ALARM,
    DRIFT_NEW_WORD_ROWS,
    DRIFT_ROWS_FELL,
    DRIFT_ROWS_ROSE,
    DRIFT_SHARE,
    DRIFT_SHIFT,
    DRIFT_WORDS,
)
from flute.intake.rows import TABLE, ImportReport, PerVariable, Reasons, Rows, quoted, text_column
from flute.intake.spread import (
    Spread,
    chance_beyond,
    chance_of_counts,
    chance_of_distance,
    chance_of_shares,
    distance,
    spread_of,
)
from flute.messages.limits import Code, Count, Name

DAYS: Final = "index-days"
"""What alarms call the dates that rows are about."""
_Word = Annotated[str, Meta(max_length=40)]


class Column(Struct, frozen=True, forbid_unknown_fields=True):
    """One variable. `missing`: rows without a value; `unusable`: with one that its declaration does not allow.

    `spread`: of numbers, those out of range included. `levels`: rows per declared level, in the declared spelling.
    `words`: other spellings that at least DRIFT_NEW_WORD_ROWS rows have, cut to 40 characters."""

    kind: Kind
    missing: Count
    unusable: Count
    spread: Spread = Spread()
    levels: Annotated[dict[_Word, Count], Meta(max_length=64)] = {}
    words: Annotated[dict[_Word, Count], Meta(max_length=DRIFT_WORDS)] = {}


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """One import of one dataset. `days`: of what rows are about, as days since 1970-01-01."""

    resources: Count
    patients: Count
    rows: Count
    columns: Annotated[dict[Name, Column], Meta(max_length=256)]
    refused: Reasons
    excluded: Reasons
    flags: Reasons
    warnings: Reasons = {}
    days: Spread = Spread()


class Alarm(Struct, frozen=True, forbid_unknown_fields=True):
    """A change that the steward should look at. `about`: a variable, a reason, or empty. `chance`: at most so likely
    where nothing changed; 0 where chance does not come into it. `says` holds counts, values and levels of the
    dataset: for the steward's own eyes, and for no journal."""

    code: Code
    about: Annotated[str, Meta(max_length=64)]
    says: Annotated[str, Meta(max_length=500)]
    chance: float


def profile_of(rows: Rows, report: ImportReport, days: Spread | None = None) -> Profile:
    """`days`: as `days_of` gives them, where the recipe says when things happened."""
    columns = {v.name: _column(rows, v, report.missing, report.unusable) for v in rows.variables if v.kind != "image"}
    return Profile(
        resources=report.resources, patients=report.patients, rows=len(rows), columns=columns, refused=report.refused,
        excluded=report.excluded, flags=report.flags, warnings=report.warnings, days=days or Spread(),
    )  # fmt: skip


def days_of(connection: Any, table: str = "result") -> Spread:
    """The spread of a recipe's column `index_day` over those who are in; empty where there is no such column."""
    names = {row[0] for row in connection.execute(f"DESCRIBE {quoted(table)}").fetchall()}
    if "index_day" not in names:
        return Spread()
    inside = "AND excluded IS NULL" if "excluded" in names else ""
    found = connection.execute(
        f"SELECT date_diff('day', DATE '1970-01-01', index_day) AS day FROM {quoted(table)} "  # noqa: S608 quoted
        f"WHERE index_day IS NOT NULL {inside}"
    ).fetchnumpy()
    return spread_of(np.asarray(found["day"], dtype=np.float64))


def _column(rows: Rows, variable: Variable, missing: PerVariable, unusable: PerVariable) -> Column:
    cell = quoted(variable.name)
    counts = missing.get(variable.name, 0), unusable.get(variable.name, 0)
    if variable.kind == "number":
        values = rows.connection.execute(
            f"SELECT {cell} AS value FROM {TABLE} WHERE {cell} IS NOT NULL"  # noqa: S608 quoted
        ).fetchnumpy()["value"]
        return Column("number", *counts, spread=spread_of(np.asarray(values, dtype=np.float64)))
    found = rows.connection.execute(
        f"SELECT {cell}, count(*) FROM {TABLE} WHERE {cell} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"  # noqa: S608
    ).fetchall()
    labels = variable.levels or ("0", "1")
    levels = dict.fromkeys((label[:40] for label in labels), 0)
    words: dict[str, int] = {}
    for (word, count), code in zip(found, variable.numbers(text_column([w for w, _ in found])), strict=True):
        if not np.isnan(code):
            levels[labels[int(code)][:40]] += count
        elif count >= DRIFT_NEW_WORD_ROWS and len(words) < DRIFT_WORDS:
            words[word[:40]] = count
    return Column(variable.kind, *counts, levels=levels, words=words)


# --- drift ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Test:
    """One comparison. `large`: whether the change is worth an alarm at all."""

    kind: str
    about: str
    chance: float
    large: bool
    says: str


def alarms(previous: Profile, now: Profile) -> tuple[Alarm, ...]:
    """What has changed, the surest first. `previous`: the last import's, or an earlier one that was found to be good:
    against the last one alone, a slow drift is never large."""
    tests = [*_counts(previous, now), *_columns(previous, now), *_reasons(previous, now), *_days(previous, now)]
    part = DRIFT_FALSE_ALARM / max(len(tests), 1)
    raised = [Alarm(t.kind, t.about, t.says, t.chance) for t in tests if t.large and t.chance <= part]
    surest: dict[tuple[str, str], Alarm] = {}
    for alarm in sorted(raised, key=lambda alarm: alarm.chance):
        surest.setdefault((alarm.code, alarm.about), alarm)
    return (*_certain(previous, now), *surest.values())


def _certain(previous: Profile, now: Profile) -> Iterator[Alarm]:
    if previous.rows and not now.rows:
        yield Alarm("rows-gone", "", f"No patient is left of {previous.rows:,}. Was the source empty?", 0.0)
    for name in sorted(set(previous.columns) ^ set(now.columns)):
        fate = "no longer read" if name in previous.columns else "read for the first time"
        yield Alarm("variable-changed", name, f"{name} is {fate}; it cannot be compared.", 0.0)
    for name, before, after in _common(previous, now):
        new = {word: count for word, count in after.words.items() if word not in before.words}
        if new:
            shown = ", ".join(f"'{word}'" for word in list(new)[:5]) + (" …" if len(new) > 5 else "")
            told = f"{name} has values that were never there and are not declared: {shown}."
            says = f"{told} {_of(sum(new.values()), now.rows)} count as missing it; mend the mapping."
            yield Alarm("category-new", name, says, 0.0)


def _common(previous: Profile, now: Profile) -> Iterator[tuple[str, Column, Column]]:
    for name, after in now.columns.items():
        before = previous.columns.get(name)
        if before is not None and before.kind == after.kind:
            yield name, before, after


def _counts(previous: Profile, now: Profile) -> Iterator[_Test]:
    for what in ("resources", "patients", "rows"):
        before, after = getattr(previous, what), getattr(now, what)
        chance = chance_of_counts(before, after)
        told = f"{after:,} {what}, {before:,} before."
        fell = after < before
        hint = "Was the export cut short, or a filter set?" if fell else "Is something read twice?"
        large = after <= (1 - DRIFT_ROWS_FELL) * before if fell else after >= (1 + DRIFT_ROWS_ROSE) * before
        yield _Test(f"{what}-{'fell' if fell else 'rose'}", "", chance, large, f"{told} {hint}")


def _columns(previous: Profile, now: Profile) -> Iterator[_Test]:
    for name, before, after in _common(previous, now):
        for kind, a, b in (
            ("missing", before.missing, after.missing),
            ("unusable", before.unusable, after.unusable),
        ):
            said = f"{name} is {kind} for {_of(b, now.rows)}, {_share(a, previous.rows)} before."
            yield _shares(f"{kind}-changed", name, (a, previous.rows, b, now.rows), DRIFT_SHARE, said)
        if after.kind == "number":
            yield from _spreads(name, before.spread, after.spread)
        n, m = sum(before.levels.values()), sum(after.levels.values())
        for level in after.levels:
            a, b = before.levels.get(level, 0), after.levels[level]
            said = f"{name} is '{level}' for {_of(b, m)} of those who have a value, {_share(a, n)} before."
            yield _shares("category-share", name, (a, n, b, m), DRIFT_SHARE, said)


def _spreads(name: str, before: Spread, after: Spread) -> Iterator[_Test]:
    moved = f"{name} has 5%, median and 95% at {_quantiles(after)}, before at {_quantiles(before)}."
    hint = _unit_hint(before, after)
    d = distance(before, after)
    chance = chance_of_distance(d, before.n, after.n)
    yield _Test("values-shifted", name, chance, d >= DRIFT_SHIFT, f"{moved} {hint}".rstrip())
    yield from _ends("values-beyond", name, before, after, hint, ("lower", "higher"))


def _ends(code: str, name: str, before: Spread, after: Spread, hint: str, sides: Sequence[str]) -> Iterator[_Test]:
    """Whether values lie beyond all of the other import's, both ways at each of the ends `sides`."""
    if not before.n or not after.n:
        return
    for side in sides:
        if side == "higher":
            gained, lost = after.above(before.edges[-1]), before.above(after.edges[-1])
        else:
            gained, lost = after.below(before.edges[0]), before.below(after.edges[0])
        said = f"{name}: {_of(gained, after.n, 'values')} are {side} than any before. {hint}".rstrip()
        yield _Test(code, name, chance_beyond(gained, after.n, before.n), gained >= DRIFT_BEYOND * after.n, said)
        said = f"{name}: {_of(lost, before.n, 'values')} before were {side} than any now. {hint}".rstrip()
        yield _Test(code, name, chance_beyond(lost, before.n, after.n), lost >= DRIFT_BEYOND * before.n, said)


_FACTORS: Final = (1_000.0, 100.0, 10.0, 0.1, 0.01, 0.001)


def _unit_hint(before: Spread, after: Spread) -> str:
    """A sentence where values look like the former ones in another unit."""
    if not before.n or not after.n:
        return ""
    ratio = after.quantile(0.5) / before.quantile(0.5) if before.quantile(0.5) else 0.0
    usual = before.quantile(0.05), before.quantile(0.95)
    strange = [(edge, count) for edge, count in _masses(after) if not before.edges[0] <= edge <= before.edges[-1]]
    part = sum(count for _, count in strange)
    for factor in _FACTORS:
        if ratio > 0 and abs(np.log10(ratio / factor)) < 0.05:
            return f"The values look like the former ones times {factor:g}: has the unit changed?"
        fitting = sum(count for edge, count in strange if usual[0] <= edge / factor <= usual[1])
        if part and part >= DRIFT_BEYOND * after.n and fitting >= 0.8 * part:
            mixed = f"{_share(part, after.n)} of all values look like the others times {factor:g}"
            return f"{mixed}: are two units mixed up?"
    return ""


def _masses(spread: Spread) -> Iterator[tuple[float, int]]:
    last = 0
    for edge, upto in zip(spread.edges, spread.upto, strict=True):
        yield edge, upto - last
        last = upto


def _reasons(previous: Profile, now: Profile) -> Iterator[_Test]:
    for kind, before, after, n, m, worth in (
        ("refused", previous.refused, now.refused, previous.resources, now.resources, DRIFT_BEYOND),
        ("warned", previous.warnings, now.warnings, previous.resources, now.resources, DRIFT_SHARE),
        ("excluded", previous.excluded, now.excluded, previous.patients, now.patients, DRIFT_SHARE),
        ("flagged", previous.flags, now.flags, previous.rows, now.rows, DRIFT_SHARE),
    ):
        unit = "resources" if kind in ("refused", "warned") else "patients"
        for word in sorted({*before, *after}):
            # A refused resource of an unknown total (of a table without resources) is no share of anything.
            a, b = min(before.get(word, 0), n), min(after.get(word, 0), m)
            said = f"{_of(b, m, unit)} {_VERB[kind]} {word}, {_share(a, n)} before."
            yield _shares(f"{kind}-share", word, (a, n, b, m), worth, said)


_VERB: Final[Mapping[str, str]] = {
    "refused": "were refused as", "warned": "were warned of by", "excluded": "were left out as", "flagged": "have",
}  # fmt: skip


def _days(previous: Profile, now: Profile) -> Iterator[_Test]:
    """Later days come by themselves: what is compared is the time that the previous import covered."""
    if not previous.days.n or not now.days.n:
        return
    same_time = now.days.until(previous.days.edges[-1])
    first, before = _date(now.days.edges[0]), _date(previous.days.edges[0])
    hint = f"The first is {first}, before it was {before}. Were dates shifted, or a period left out?"
    d = distance(previous.days, same_time)
    chance = chance_of_distance(d, previous.days.n, same_time.n)
    yield _Test("days-shifted", DAYS, chance, d >= DRIFT_SHIFT, f"The days are spread otherwise. {hint}")
    yield from _ends("days-beyond", DAYS, previous.days, now.days, hint, ("earlier",))


def _date(day: float) -> str:
    return str(np.datetime64(0, "D") + np.timedelta64(int(day), "D"))


def _shares(kind: str, about: str, counts: tuple[int, int, int, int], worth: float, says: str) -> _Test:
    a, n, b, m = counts
    large = bool(n and m) and abs(a / n - b / m) >= worth
    # Fisher's test costs a search over all tables; a change that is not large is none the less one of the tests.
    return _Test(kind, about, chance_of_shares(a, n, b, m) if large else 1.0, large, says)


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f}%" if of else "0.0%"


def _of(count: int, of: int, what: str = "patients") -> str:
    return f"{count:,} {what} ({_share(count, of)})"


def _quantiles(spread: Spread) -> str:
    return " / ".join(f"{spread.quantile(share):.4g}" for share in (0.05, 0.5, 0.95))
