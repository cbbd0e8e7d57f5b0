"""The port between a notebook and where its studies run: a simulator, processes of this machine, or real hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flute.sdk.terms import Conditions
from flute.study.agreement import Agreement

ENDED = ("finished", "stopped")


@dataclass(frozen=True, slots=True)
class Account:
    """What one hub says it decided and charged a patient: by study run, over its dataset by all studies, and by all
    questions of this researcher. Where it told nothing, `why`."""

    hub: str
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dataset: Mapping[str, Any] | None = None
    own: Mapping[str, Any] | None = None
    told: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """The agreement of a run as it was proposed, byte for byte; `signed`: by its researcher, which was checked."""

    raw: bytes
    signed: bool


class Place(Protocol):
    """Safe for several threads. Errors are those of whoever answers, in their own words."""

    name: str
    """What it is, for people."""
    hubs: tuple[str, ...]
    researcher: str
    simulated: bool

    @property
    def fingerprint(self) -> str:
        """Of the root of trust in what hubs sign; empty where nothing is signed."""
        ...

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

    def document(self, study: str) -> Document:
        """Raises: BadSignature, Equivocation: it is not what its researcher proposed."""
        ...

    def accounts(self, runs: Sequence[str], dataset: str) -> list[Account]:
        """One for each hub, about these runs and a dataset."""
        ...

    def catalogue(self) -> list[dict[str, Any]]:
        """Datasets that can be asked about: hub, dataset, variables (`Variable`), a sentence `about` it, and `entry`
        (`catalogue.entry.Entry`), where its hub has published one."""
        ...

    def close(self) -> None: ...
