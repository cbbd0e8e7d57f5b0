"""One appraisal in progress: checks that refuse, and the list of what was not looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flute.attestation.policy import Unchecked
from flute.errors import RejectedEvidence


@dataclass(slots=True)
class Checks:
    """`unchecked`: (field, reason) of each field that the policy leaves alone."""

    unchecked: list[tuple[str, str]] = field(default_factory=list)

    def require(self, holds: bool, reason: str, text: str) -> None:
        """Raises: RejectedEvidence: it does not hold."""
        if not holds:
            raise RejectedEvidence(text, reason=reason)

    def one_of(self, name: str, value: str, allowed: Sequence[str] | Unchecked, reason: str, text: str) -> None:
        """`value` is one of the reference values, or the policy says why nobody looks.

        Raises: RejectedEvidence: it is another one.
        """
        if isinstance(allowed, Unchecked):
            self.unchecked.append((name, allowed.unchecked))
        else:
            self.require(value in allowed, reason, f"{text} Found: {_shown(value)}.")

    def no_older_than(self, name: str, age_s: int, most_s: int, reason: str, text: str) -> None:
        self.require(
            age_s <= most_s, reason, f"{text} {name} is {_days(age_s)} old, at most {_days(most_s)} are taken."
        )

    def report_data(self, found: bytes, expected: bytes | Unchecked) -> None:
        """Raises: RejectedEvidence: the evidence binds something else than `expected`."""
        if isinstance(expected, Unchecked):
            self.unchecked.append(("report_data", expected.unchecked))
        else:
            self.require(
                found == expected,
                "report-data",
                "This evidence was not made for this key and this purpose: its report data is another one. Ask the "
                "enclave for evidence over the key it uses now.",
            )


def _shown(value: str) -> str:
    return value if len(value) <= 128 else f"{value[:128]}…"


def _days(seconds: int) -> str:
    return f"{seconds / 86_400:.1f} days"
