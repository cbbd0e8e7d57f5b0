"""The port between a notebook and where its studies run: a simulator, processes of this machine, or real hubs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flute.sdk.terms import Conditions
from flute.study.agreement import Agreement

ENDED = ("finished", "stopped")


@dataclass(frozen=True, slots=True)
class Account:
    """What one hub says it charged a patient: by study run, and over its dataset. Nothing where it does not tell."""

    hub: str
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dataset: Mapping[str, Any] | None = None
    told: bool = True


class Place(Protocol):
    """Safe for several threads. Errors are those of whoever answers, in their own words."""

    name: str
    """What it is, for people."""
    hubs: tuple[str, ...]
    researcher: str
    simulated: bool

    @property
    def conditions(self) -> Conditions | None:
        """On what ground hubs take part that are the researcher's own; None where their stewards have to be told."""
        ...

    def prepare(self, agreement: Agreement) -> None:
        """Whatever has to be there before it is proposed: records, where they are the researcher's own."""
        ...

    def propose(self, agreement: Agreement) -> None: ...

    def status(self, study: str) -> dict[str, Any]:
        """State, consents, progress, as a coordinator says them; a study that is ready is set going."""
        ...

    def stop(self, study: str, why: str) -> None: ...

    def release(self, study: str) -> dict[str, Any]: ...

    def traffic(self, study: str) -> list[dict[str, Any]]: ...

    def agreements(self) -> dict[str, Agreement]:
        """Of all runs that this researcher proposed from here."""
        ...

    def taken(self) -> set[str]:
        """Names of runs that cannot be used again."""
        ...

    def accounts(self, dataset: str) -> list[Account]: ...

    def catalogue(self) -> list[dict[str, Any]]:
        """Datasets that can be asked about: hub, dataset, variables (`Variable`) and a sentence."""
        ...

    def close(self) -> None: ...
