"""The price of one release, as the journal and the budget both read it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from flute.messages.envelope import MaybeDigest
from flute.messages.limits import Count, Digest, Name, PartyId, StudyId

Price = Annotated[float, Meta(ge=0, le=1e6)]
Delta = Annotated[float, Meta(ge=0, le=1)]
ChargeMode = Literal["private", "exact"]
Outcome = Literal["released", "aborted", "failed"]
"""How a release ended. The charge stands whatever it was."""


class Amount(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a budget. rho: mu^2/2 of Gaussian DP; delta: added deltas; numbers: coordinates opened exactly."""

    rho: Price = 0.0
    delta: Delta = 0.0
    numbers: Count = 0

    @property
    def words(self) -> str:
        exact = f" and {self.numbers} exact numbers" if self.numbers else ""
        return f"rho {self.rho!r} (mu²/2), delta {self.delta!r}{exact}"


class Place(Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """What an allotment is for: a study, a researcher within it, or a question of that researcher."""

    study: Annotated[StudyId, Meta(min_length=1)]
    asker: Annotated[str, Meta(max_length=32, pattern=r"^([a-z][a-z0-9-]*)?\Z")] = ""
    question: Annotated[str, Meta(max_length=64, pattern=r"^([A-Za-z][A-Za-z0-9_.-]*)?\Z")] = ""

    @property
    def words(self) -> str:
        study = f"study {self.study}"
        asker = f"{self.asker} in {study}" if self.asker else study
        return f"question {self.question} of {asker}" if self.question else asker

    @property
    def key(self) -> str:
        return "/".join(part for part in (self.study, self.asker, self.question) if part)

    @property
    def around(self) -> tuple[Place, ...]:
        """The places that enclose it, nearest first."""
        return (
            *((Place(self.study, self.asker),) if self.question else ()),
            *((Place(self.study),) if self.asker else ()),
        )


class Charge(Struct, frozen=True, forbid_unknown_fields=True):
    """What one release costs, as the hub itself computed it. The asker states none of it.

    rho: mu^2/2 (Gaussian DP) of one patient's whole contribution (add or remove one patient), for the noise that is
    left when the worst permitted coalition subtracts its own. delta: added outright (rounding), once per charge.
    numbers: coordinates opened exactly; 0 in private mode, while rho and delta are 0 in exact mode.
    """

    release_id: Digest
    """Digest of the question as it was signed, with its context."""
    study: Annotated[StudyId, Meta(min_length=1)]
    question: Name
    step: Count
    asker: PartyId
    mode: ChargeMode
    rho: Price
    delta: Delta
    numbers: Count
    plan: Name
    persons: Name
    """Whose budget it falls on: the dataset's name. Datasets that share patients must share this name."""
    snapshot: Digest
    """Digest of the frozen records the question was put to."""
    hub_set: MaybeDigest = b""
    """Digest of the hubs whose answers are summed; empty where this hub answers for itself."""

    @property
    def place(self) -> Place:
        return Place(self.study, self.asker, self.question)

    @property
    def price(self) -> str:
        if self.mode == "exact":
            return f"{self.numbers} exact numbers (epsilon infinite)"
        return f"rho {self.rho!r} (mu²/2) and delta {self.delta!r}"

    @property
    def where(self) -> str:
        return f"step {self.step} of question {self.question} of study {self.study}"


def short(value: bytes) -> str:
    """The first letters of a digest, for people."""
    return value.hex()[:12]
