"""The way of persons from all that were found to the cohort: who was left out at which step, and why.

The steps and their order are the cohort's declared rules; a person is counted at the first rule that applies.
Counts here are exact and may be small. They are for the steward's own eyes: `small` says where one could single
somebody out, and nothing of a flow is sent to anybody.
Source: STROBE statement, item 13 (participants: numbers at each stage, reasons, a flow diagram); CONSORT 2010.
"""

# ruff: noqa: S608 a table's name is the caller's own; no value is put into a statement
from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from flute.cohort.rules import KEPT, LEFT_OUT, Cohort
from flute.defaults import DISCLOSURE_FLOOR
from flute.errors import Unmappable
from flute.messages.limits import Code, Count

_Sentence = Annotated[str, Meta(max_length=500)]
_ByWord = Annotated[dict[Code, Count], Meta(max_length=128)]
LEFT_OUT_SAYS = "Left out by the data manager's decision"


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """One rule. `left`: persons that it leaves out, `remain`: persons after it, `kept`: persons whom it would leave
    out and whom a decision by hand keeps in."""

    word: Code
    says: _Sentence
    requirement: Annotated[str, Meta(max_length=64)]
    left: Count
    remain: Count
    kept: Count = 0


class Note(Struct, frozen=True, forbid_unknown_fields=True):
    """A flag, and how many persons of the cohort have it."""

    word: Code
    says: _Sentence
    persons: Count


class Flow(Struct, frozen=True, forbid_unknown_fields=True):
    """`found`: all persons. `steps`: rules in their order, then what was decided by hand. `included`: the cohort.
    `kept`: of these, by hand. `notes`: flags of the cohort. `joined`: ids that were declared to be another's.

    Guarantees: found = included + what all steps left out.
    """

    persons: Annotated[str, Meta(max_length=32)]
    purpose: _Sentence
    found: Count
    steps: Annotated[tuple[Step, ...], Meta(max_length=128)]
    included: Count
    kept: Count
    notes: Annotated[tuple[Note, ...], Meta(max_length=128)]
    joined: Count = 0
    simulated: bool = False

    @property
    def small(self) -> bool:
        """Whether a count is there that is not zero and under DISCLOSURE_FLOOR: for the steward's own eyes only."""
        counts = [self.found, self.included, self.kept, self.joined, *(note.persons for note in self.notes)]
        counts += [count for step in self.steps for count in (step.left, step.kept)]
        return any(0 < count < DISCLOSURE_FLOOR for count in counts)


def flow_of(
    connection: Any, cohort: Cohort, *, table: str = "result", joined: int = 0, simulated: bool = False
) -> Flow:
    """The flow through a recipe's `result`, after `apply_by_hand`. The table has `excluded` and `flags`, and
    `reasons` where persons were kept by hand.

    Raises: Unmappable: somebody is left out for a reason that the cohort does not declare.
    """
    found = int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    excluded = connection.execute(
        f"SELECT excluded, count(*) FROM {table} WHERE excluded IS NOT NULL GROUP BY 1"
    ).fetchall()
    flags = connection.execute(
        f"SELECT flag, count(*) FROM (SELECT unnest(flags) AS flag FROM {table} WHERE excluded IS NULL) "
        "WHERE flag IS NOT NULL GROUP BY 1"
    ).fetchall()
    kept: Mapping[str, int] = {}
    if any(word == KEPT for word, _ in flags):
        kept = dict(
            connection.execute(
                f"SELECT word, count(*) FROM (SELECT unnest(reasons) AS word FROM {table} "
                f"WHERE list_contains(flags, '{KEPT}')) GROUP BY 1"
            ).fetchall()
        )
    return flow_from(cohort, found, dict(excluded), dict(flags), kept, joined=joined, simulated=simulated)


def flow_from(
    cohort: Cohort,
    found: int,
    excluded: Mapping[str, int],
    flags: Mapping[str, int],
    kept: Mapping[str, int] | None = None,
    *,
    joined: int = 0,
    simulated: bool = False,
) -> Flow:
    """The flow from an import report's counts. `kept`: per rule, persons kept in by hand.

    Raises: Unmappable: somebody is left out for a reason that the cohort does not declare, or flagged so.
    """
    by_hand = kept or {}
    undeclared = set(excluded) - {rule.word for rule in cohort.rules} - {LEFT_OUT}
    undeclared |= set(flags) - {flag.word for flag in cohort.flags} - {KEPT}
    if undeclared:
        raise Unmappable(f"The rows use words that the cohort does not declare: {', '.join(sorted(undeclared))}.")
    steps, remain = [], found
    for rule in cohort.rules:
        left = excluded.get(rule.word, 0)
        remain -= left
        steps.append(Step(rule.word, rule.says, rule.requirement, left, remain, by_hand.get(rule.word, 0)))
    if LEFT_OUT in excluded:
        remain -= excluded[LEFT_OUT]
        steps.append(Step(LEFT_OUT, LEFT_OUT_SAYS, "", excluded[LEFT_OUT], remain))
    notes = tuple(Note(flag.word, flag.says, flags[flag.word]) for flag in cohort.flags if flags.get(flag.word))
    return Flow(
        persons=cohort.persons, purpose=cohort.purpose, found=found, steps=tuple(steps), included=remain,
        kept=flags.get(KEPT, 0), notes=notes, joined=joined, simulated=simulated,
    )  # fmt: skip


# --- as a table and as text --------------------------------------------------------------------------

FOR_OWN_EYES = (
    f"Counts under {DISCLOSURE_FLOOR} stand here. They are for the steward's own eyes: do not pass this on."
)
SIMULATED = "SIMULATED: no patient stands behind any of these."
TableRow = tuple[str, str, str, str, str]


def flow_table(flow: Flow) -> tuple[TableRow, ...]:
    """Head and one row per step, as STROBE's item 13 asks: step, reason, requirement, left out, remaining."""
    head = ("Step", "Reason", "Requirement", "Left out", "Remain")
    rows: list[TableRow] = [head, ("found", f"All {flow.persons} found", "", "", f"{flow.found:,}")]
    for step in flow.steps:
        kept = f" ({step.kept:,} kept by hand)" if step.kept else ""
        rows.append((step.word, step.says + kept, step.requirement, f"{step.left:,}", f"{step.remain:,}"))
    rows.append(("cohort", f"{flow.persons.capitalize()} in the cohort", "", "", f"{flow.included:,}"))
    return tuple(rows)


def flow_text(flow: Flow) -> str:
    """The same for a terminal, at most 118 columns wide: a column that says why is broken into lines."""
    rows = flow_table(flow)
    lines = [flow.purpose] if flow.purpose else []
    lines += [SIMULATED] if flow.simulated else []
    width = max(len(row[0]) for row in rows)
    for word, says, requirement, left, remain in rows:
        told, *more = broken(says, 60)
        lines.append(f"{word:<{width}}  {left:>9} {remain:>9}  {told:<60}  {requirement}".rstrip())
        lines += [" " * (width + 23) + line for line in more]
    lines += [f"  of these {note.persons:,}: {note.says}" for note in flow.notes]
    if flow.kept:
        lines.append(f"  of these {flow.kept:,}: kept by the data manager's decision although a rule applies")
    if flow.joined:
        lines.append(f"  {joined_says(flow)}")
    return "\n".join([*lines, *([FOR_OWN_EYES] if flow.small else [])])


def joined_says(flow: Flow) -> str:
    """How many ids were declared to be another id's person; empty where none was."""
    if not flow.joined:
        return ""
    return f"{flow.joined:,} id{' was' if flow.joined == 1 else 's were'} declared to be another id's person"


def broken(text: str, width: int) -> list[str]:
    """A sentence in lines of at most so many characters; a longer word stands alone."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
