"""What no record can say and the steward declares for a whole dataset, as typed declarations.

A fact has a name, the values it may have, what holds until it is declared, and a sentence that asks for it. What
was declared is text; `read_facts` checks it, so that a slip of the pen is said at once and not found in a cohort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from flute.errors import MisuseError

UNKNOWN: Final = "unknown"
YES: Final = "yes"
NO: Final = "no"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to declare. `choices`: values it may have; empty for a version such as 2.1, or `unknown`.

    `initial`: what holds until somebody declares it. `asks`: the question to the steward, in one sentence.
    `requirement`: id in the catalogue, empty where the fact is ours.
    """

    name: str
    choices: tuple[str, ...]
    initial: str
    asks: str
    requirement: str = ""

    def read(self, value: str) -> str:
        """Raises: MisuseError: no value that the fact may have."""
        if self.choices:
            if value not in self.choices:
                raise MisuseError(f"{self.name} cannot be {value!r}; it is one of {', '.join(self.choices)}.")
            return value
        version(value, self.name)
        return value


def version(value: str, name: str = "a version") -> Decimal | None:
    """A version of two parts such as 2.1 as a number; None for `unknown`.

    Raises: MisuseError: it is neither.
    """
    if value == UNKNOWN:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise MisuseError(f"The declared {name} {value!r} is no version such as 2.1, and not {UNKNOWN!r}.") from error
    if not number.is_finite() or number < 0:
        raise MisuseError(f"The declared {name} {value!r} is no version such as 2.1, and not {UNKNOWN!r}.")
    return number


def read_facts(facts: Sequence[Fact], declared: Mapping[str, str]) -> dict[str, str]:
    """Every fact's value: as declared, else its initial one.

    Raises: MisuseError: a name that is no fact, or a value that the fact cannot have.
    """
    known = {fact.name: fact for fact in facts}
    strange = sorted(set(declared) - set(known))
    if strange:
        raise MisuseError(f"There is no fact {', '.join(strange)} to declare; there are {', '.join(known)}.")
    return {name: fact.read(declared.get(name, fact.initial)) for name, fact in known.items()}
