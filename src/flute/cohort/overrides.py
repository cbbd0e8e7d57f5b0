"""What the data manager decides by hand, and how it is carried out: a person in or out, who is one person, a fact.

Every decision names a person who took it and a reason, is journaled before it counts, and can be taken back. None
of them changes a value of a record. Keeping somebody in names the rules that are set aside for him: where another
rule applies, today or after the next import, he is out all the same. A rule may forbid it altogether.
"""

# ruff: noqa: S608 a table's name is the caller's own; no value is put into a statement
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from flute.cohort.facts import Fact
from flute.cohort.rules import KEPT, LEFT_OUT, Cohort
from flute.defaults.records import MAX_OVERRIDES
from flute.errors import MisuseError
from flute.messages.limits import Code, Name, PartyId

Pseudonym = Annotated[str, Meta(min_length=32, max_length=32, pattern=r"^[0-9a-f]{32}\Z")]
Why = Annotated[str, Meta(min_length=3, max_length=200)]
"""Why it was decided, without a word that tells who the patient is: it stays in the journal for good."""


class _ByHand(Struct, frozen=True, forbid_unknown_fields=True, tag_field="decision"):
    """Base of all decisions: who took it, and why."""

    person: PartyId
    why: Why


class KeepIn(_ByHand, frozen=True, tag="keep-in"):
    """Keep this patient in although the rules of these words leave him out."""

    patient: Pseudonym
    despite: Annotated[tuple[Code, ...], Meta(min_length=1, max_length=16)]

    def says(self) -> str:
        return f"{self.person} keeps patient {self.patient[:8]}… in despite {', '.join(self.despite)}: {self.why}"


class LeaveOut(_ByHand, frozen=True, tag="leave-out"):
    """Leave this patient out although no rule does."""

    patient: Pseudonym

    def says(self) -> str:
        return f"{self.person} leaves patient {self.patient[:8]}… out: {self.why}"


class SamePerson(_ByHand, frozen=True, tag="same-person"):
    """These pseudonyms are one person; he goes by the first."""

    patients: Annotated[tuple[Pseudonym, ...], Meta(min_length=2, max_length=16)]

    def says(self) -> str:
        shown = ", ".join(f"{patient[:8]}…" for patient in self.patients)
        return f"{self.person} declares that {shown} are one person: {self.why}"


class Declare(_ByHand, frozen=True, tag="declare"):
    """A fact about the whole dataset that no record says."""

    fact: Name
    value: Annotated[str, Meta(min_length=1, max_length=64)]

    def says(self) -> str:
        return f"{self.person} declares {self.fact} = {self.value}: {self.why}"


class TakeBack(_ByHand, frozen=True, tag="take-back"):
    """Whatever was decided by hand about this patient, joined ids included, no longer counts."""

    patient: Pseudonym

    def says(self) -> str:
        return f"{self.person} takes back what was decided about patient {self.patient[:8]}…: {self.why}"


Override = KeepIn | LeaveOut | SamePerson | Declare | TakeBack
"""The closed set, in the order in which they were taken."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What counts now. `kept`: pseudonym to the words that are set aside for him. `groups`: one person each."""

    kept: Mapping[str, frozenset[str]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    groups: tuple[tuple[str, ...], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def check_override(override: Override, cohort: Cohort, facts: Sequence[Fact] = ()) -> None:
    """Before a decision is journaled.

    Raises: MisuseError: a protected rule, a rule or fact that is not there, a value that the fact cannot have, one id
    declared to be the same as itself.
    """
    if isinstance(override, KeepIn):
        for word in override.despite:
            if not cohort.rule(word).by_hand:
                raise MisuseError(
                    f"The rule {word} is protected: nobody is kept in against it. If a record is wrong, mend it "
                    "in the hospital's system and import again."
                )
    elif isinstance(override, Declare):
        by_name = {fact.name: fact for fact in facts}
        if override.fact not in by_name:
            raise MisuseError(
                f"There is no fact {override.fact} to declare; there are {', '.join(by_name) or 'none'}."
            )
        by_name[override.fact].read(override.value)
    elif isinstance(override, SamePerson) and len(set(override.patients)) != len(override.patients):
        raise MisuseError("One of the ids stands twice; name each id of the person once.")


def settle(overrides: Iterable[Override]) -> Decisions:
    """What counts after all decisions, the later before the earlier.

    Raises: MisuseError: more than MAX_OVERRIDES.
    """
    kept: dict[str, frozenset[str]] = {}
    left_out: set[str] = set()
    groups: list[tuple[str, ...]] = []
    facts: dict[str, str] = {}
    for count, override in enumerate(overrides):
        if count >= MAX_OVERRIDES:
            raise MisuseError(f"More than {MAX_OVERRIDES} decisions by hand; change the cohort's rules instead.")
        match override:
            case KeepIn():
                left_out.discard(override.patient)
                kept[override.patient] = frozenset(override.despite)
            case LeaveOut():
                kept.pop(override.patient, None)
                left_out.add(override.patient)
            case SamePerson():
                groups = _joined(groups, override.patients)
            case Declare():
                facts[override.fact] = override.value
            case TakeBack():
                kept.pop(override.patient, None)
                left_out.discard(override.patient)
                groups = [group for group in groups if override.patient not in group]
    for first, *others in groups:
        # He goes by the first id, and so does what was decided about another one.
        for other in others:
            if other in kept:
                kept.setdefault(first, kept.pop(other))
            if other in left_out:
                left_out.discard(other)
                left_out.add(first)
    for patient in left_out:
        kept.pop(patient, None)
    return Decisions(kept, frozenset(left_out), tuple(groups), facts)


def _joined(groups: list[tuple[str, ...]], new: tuple[str, ...]) -> list[tuple[str, ...]]:
    """A declared pair that shares an id with an earlier one is the same person as all of them."""
    touching = [group for group in groups if set(group) & set(new)]
    whole = tuple(dict.fromkeys(patient for group in (*touching, new) for patient in group))
    return [*(group for group in groups if group not in touching), whole]


# --- carried out ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """What decisions by hand did to one import, in persons. `idle`: decisions that changed nothing (no rule applies
    any more, or another one leaves him out all the same). `absent`: of patients who are not in this dataset."""

    kept: int = 0
    left_out: int = 0
    idle: int = 0
    absent: int = 0


_CARRIED_OUT: Final = f"""
CREATE OR REPLACE TEMP TABLE {{table}} AS
SELECT * EXCLUDE (despite, out, standing) REPLACE (
  coalesce(standing[1], CASE WHEN out THEN '{LEFT_OUT}' END) AS excluded,
  CASE WHEN len(reasons) > 0 AND len(standing) = 0 THEN list_append(flags, '{KEPT}') ELSE flags END AS flags)
FROM (
  SELECT r.*, h.despite, coalesce(h.out, false) AS out,
    list_filter(r.reasons, lambda word: NOT list_contains(coalesce(h.despite, []), word)) AS standing
  FROM {{table}} r LEFT JOIN by_hand h ON h.patient = CAST(r.patient AS VARCHAR))"""


def apply_by_hand(
    connection: Any,
    cohort: Cohort,
    decisions: Decisions,
    pseudonym_of: Callable[[str], str],
    table: str = "result",
) -> Applied:
    """Let decisions about single patients count in a recipe's `result`: `excluded` and `flags` change, nothing else.

    The table has `patient`, `excluded`, `reasons` (every rule's word that applies, in order) and `flags`, as a recipe
    with a `Cohort` makes them. Call it before anything is counted.
    Guarantees: nobody is in against a rule that is protected, or that his decision does not name; also where a rule
    was protected only after the decision was taken (the decision is then idle).
    """
    open_to_hand = {rule.word for rule in cohort.rules if rule.by_hand}
    decided = {patient: sorted(words & open_to_hand) for patient, words in decisions.kept.items()}
    decided |= {patient: [] for patient in decisions.left_out}
    if not decided:
        return Applied()
    ids = connection.execute(f"SELECT CAST(patient AS VARCHAR) FROM {table} WHERE patient IS NOT NULL").fetchall()
    id_of = {known: row[0] for row in ids if (known := pseudonym_of(row[0])) in decided}
    connection.execute("CREATE OR REPLACE TEMP TABLE by_hand(patient VARCHAR, despite VARCHAR[], out BOOLEAN)")
    for known, patient in sorted(id_of.items()):
        row = [patient, decided[known], known in decisions.left_out]
        connection.execute("INSERT INTO by_hand VALUES (?, ?, ?)", row)
    # `excluded` is made anew from all reasons: the first one that is not set aside is the one named.
    connection.execute(_CARRIED_OUT.format(table=table))
    kept, out = connection.execute(
        f"SELECT count(*) FILTER (list_contains(flags, '{KEPT}')), "
        f"count(*) FILTER (excluded = '{LEFT_OUT}') FROM {table}"
    ).fetchone()
    return Applied(kept, out, idle=len(id_of) - kept - out, absent=len(decided) - len(id_of))
