"""Who belongs in a cohort, as declared rules: each with a word, a requirement, a sentence for people, a condition.

A rule leaves persons *out*. Rules have an order; a person is counted under the first that applies, and every one
that applies is kept, so that an exception for one rule never lets in somebody whom another one keeps out.
The conditions are SQL over the named columns of one table with one row per person; nothing here knows them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flute.errors import MisuseError

WORD: Final = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
LEFT_OUT: Final = "left-out-by-hand"
"""In place of a rule's word: the data manager left this person out."""
KEPT: Final = "kept-by-hand"
"""Flag: a rule applies, and the data manager kept this person in."""
HAND_WORDS: Final = (LEFT_OUT, KEPT)
_MORE_THAN_A_CONDITION: Final = re.compile(r";|--|/\*")


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason for leaving a person out.

    `word`: the reason, as reports count it. `condition`: SQL, true for whom it leaves out; NULL counts as false.
    `says`: why he is out, a sentence without the full stop. `requirement`: id in the catalogue, empty where the rule
    is ours. `by_hand`: whether the data manager may keep a person in against it; false protects the rule.
    """

    word: str
    condition: str
    says: str
    requirement: str = ""
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """A word about a person who stays in. `condition`: SQL, true where it applies."""

    word: str
    condition: str
    says: str
    requirement: str = ""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Rules in their order, flags, what its persons are called ("men", "patients"), and what it is for, as a heading.

    Raises: MisuseError: a word that is none, or that stands twice; a condition that is more than one.
    """

    rules: tuple[Rule, ...]
    flags: tuple[Flag, ...] = ()
    persons: str = "patients"
    purpose: str = ""

    def __post_init__(self) -> None:
        for kind in (self.rules, self.flags):
            words = [*(item.word for item in kind), *HAND_WORDS]
            twice = sorted({word for word in words if words.count(word) > 1})
            if twice:
                raise MisuseError(f"A cohort declares {', '.join(twice)} twice; every word has one meaning.")
            for item in kind:
                if not WORD.match(item.word):
                    raise MisuseError(f"{item.word!r} is no word for a reason: lower case letters, digits, hyphens.")
                if not item.condition.strip() or _MORE_THAN_A_CONDITION.search(item.condition):
                    raise MisuseError(f"The condition of {item.word} must be one SQL expression without comments.")

    def rule(self, word: str) -> Rule:
        """Raises: MisuseError: no rule of that word."""
        for rule in self.rules:
            if rule.word == word:
                return rule
        raise MisuseError(f"The cohort has no rule {word}; it has {', '.join(r.word for r in self.rules)}.")

    # --- into the recipe's SQL -----------------------------------------------------------------------

    def excluded(self) -> str:
        """SQL: the word of the first rule that applies, NULL for who is in."""
        if not self.rules:
            return "CAST(NULL AS VARCHAR)"
        return "CASE " + " ".join(f"WHEN {r.condition} THEN '{r.word}'" for r in self.rules) + " END"

    def reasons(self) -> str:
        """SQL: the words of all rules that apply, in their order; the first is `excluded`."""
        return _list(self.rules)

    def flagged(self) -> str:
        """SQL: the words of all flags that apply."""
        return _list(self.flags)


def _list(items: Sequence[Rule] | Sequence[Flag]) -> str:
    cases = ", ".join(f"CASE WHEN {item.condition} THEN '{item.word}' END" for item in items)
    return f"list_filter(CAST([{cases}] AS VARCHAR[]), lambda word: word IS NOT NULL)"
