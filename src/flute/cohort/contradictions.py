"""What counts where records contradict each other. Every choice is declared, and what it met is counted.

Two records of one kind for one person on one day can both be right (blood was drawn twice) or one of them wrong;
the data cannot say which. So a rule chooses, the person is flagged, and a stricter hub leaves him out instead. Equal
values are no contradiction. (One resource sent twice with other content is settled before: the later
`meta.lastUpdated` counts, else the first; see `data.reader`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from flute.errors import MisuseError

Choice = Literal["last", "highest", "refuse-person"]
Identity = Literal["refuse-person", "missing"]
CHOICES: Final[tuple[str, ...]] = get_args(Choice)
IDENTITIES: Final[tuple[str, ...]] = get_args(Identity)


@dataclass(frozen=True, slots=True)
class Contradictions:
    """`same_day`: of several values of one day. `same_event`: of several results of one event, such as two pathology
    reports about one biopsy. last: the latest time of day (of results: the latest report), then the last id; highest:
    the largest number; refuse-person: the person is left out, the rest is chosen as by `last`.

    `identity`: of two birth dates or genders for one person. refuse-person: he is left out. missing: what is
    contradicted counts as not recorded. Neither guesses.

    Raises: MisuseError: another word.
    """

    same_day: Choice = "last"
    same_event: Choice = "highest"
    identity: Identity = "refuse-person"

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.same_day, CHOICES),
            (self.same_event, CHOICES),
            (self.identity, IDENTITIES),
        ):
            if value not in allowed:
                raise MisuseError(f"Contradictions cannot be settled by {value!r}; choose {', '.join(allowed)}.")


def order_within_day(choice: Choice) -> str:
    """SQL, the end of an ORDER BY of which the first row counts; over columns `number`, `moment`, `id` of `t`."""
    by_time = "t.moment DESC NULLS LAST, t.id DESC"
    return f"t.number DESC NULLS LAST, {by_time}" if choice == "highest" else by_time


def differs(value: str, within: str) -> str:
    """SQL: whether `value` has different values within a partition (as a window; NULL counts as none)."""
    window = f"OVER (PARTITION BY {within})"
    return f"min({value}) {window} IS DISTINCT FROM max({value}) {window}"


def chosen_result(choice: Choice, value: str, order: str) -> str:
    """SQL, an aggregate: what counts among several results of one event. `order`: columns that say which is later."""
    return f"max({value})" if choice == "highest" else f"arg_max({value}, ({order}))"
