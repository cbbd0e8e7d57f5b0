"""Where studies run: the same script against a simulator, processes of this machine, or real hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flute.defaults import MAX_PATIENTS
from flute.sdk.hubs.catalogue import Catalogue
from flute.sdk.pages import heading, page, table
from flute.sdk.place import Place
from flute.sdk.places.connected import ConnectedPlace
from flute.sdk.places.processes import LocalPlace
from flute.sdk.places.simulator import SimulatorPlace
from flute.sdk.running import Running
from flute.sdk.study import Study, attached
from flute.sdk.terms import (
    Budget,
    Conditions,
    Exact,
    Terms,
    conditions_of,
    default_period,
    named,
    plan_of,
    protection_of,
    variables_of,
)
from flute.sdk.variables import Declared, Variables

OWN_EPSILON = 10.0
"""What simulated and local hubs allow over their records in all: room for an afternoon's tries, still a bound."""
OWN_NUMBERS = 1_000_000
"""Exact numbers that they allow in all; the records are the researcher's own."""
Records = Mapping[str, Any]


class Federation:
    """Close it, or use it in a `with` block, where it was made for this notebook alone."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @property
    def hubs(self) -> tuple[str, ...]:
        return self.place.hubs

    @property
    def fingerprint(self) -> str:
        """Of the federation's root, by which all that hubs sign is checked: compare it once with a hub owner, by
        phone, or give it to `connect` as `root`. Empty for a simulator, which has no keys."""
        return self.place.fingerprint

    def catalogue(self) -> Catalogue:
        """Datasets that can be asked about, with their variables: of real hubs, what they have published."""
        return Catalogue(self.place.catalogue())

    def study(
        self,
        name: str,
        *,
        title: str | None = None,
        purpose: str,
        variables: Mapping[str, Declared] | str | None = None,
        budget: Budget | float | None = None,
        exact: Exact | bool | None = None,
        plan: str | Mapping[str, Any] = "secagg",
        conditions: Conditions | Mapping[str, Conditions] | None = None,
        hubs: Sequence[str] | None = None,
        dataset: str = "records",
        missing: str = "drop",
        period: tuple[date | str, date | str] | None = None,
        max_patients: int = MAX_PATIENTS,
        hubs_min: int | None = None,
        decide_by: date | str | None = None,
    ) -> Study:
        """A study with these terms; nothing is proposed yet. Elements mean what they mean in a study file.

        variables: None: those that all hubs of the dataset declare alike in the catalogue. hubs_min: how many hubs
        are enough for a run; who was left out of one is asked again in the next.

        Opened again under the same name and terms, it knows its earlier runs.
        Raises: MisuseError, StudyFileError: what cannot be, and what to write instead."""
        chosen = named(hubs, "hubs") if hubs is not None else self.place.hubs
        terms = Terms(
            name=name,
            title=title or name,
            purpose=purpose,
            researcher=self.place.researcher,
            hubs=tuple(sorted(chosen)),
            conditions=conditions_of(conditions, self.place.conditions),
            period=period or default_period(datetime.now(UTC).date()),
            variables=variables_of(variables, None if variables is not None else self._declared(dataset)),
            protection=protection_of(budget, exact),
            plan=plan_of(plan),
            dataset=dataset,
            missing=missing,
            max_patients=max_patients,
            simulated=self.place.simulated,
            hubs_min=hubs_min,
            decide_by=decide_by,
        )
        return Study(terms, self.place)

    def _declared(self, dataset: str) -> Variables | None:
        declared = Catalogue(e for e in self.catalogue() if e["dataset"] == dataset and e["variables"])
        return declared.variables(dataset) if declared else None

    def attach(self, run: str) -> Running:
        """A run that was proposed from here before, perhaps by a kernel that is gone. Raises: MisuseError."""
        return attached(self.place, run)

    def close(self) -> None:
        self.place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.place.name} of {', '.join(self.hubs)}>"

    def _repr_html_(self) -> str:
        runs = [(name, ", ".join(q.id for q in a.questions)) for name, a in sorted(self.place.agreements().items())]
        return page(
            heading(f"{self.place.name}: {', '.join(self.hubs)}"), table(("run", "questions"), runs) if runs else ""
        )


def simulator(
    records: Records, *, researcher: str = "me", epsilon: float = OWN_EPSILON, floor: int = 1,
    simulated: bool | None = None, id_column: str | None = None, numbers: int = OWN_NUMBERS,
) -> Federation:  # fmt: skip
    """Hubs in this process. records: hub to the path of a CSV file or a DataFrame, one row per patient.

    epsilon: what each hub allows in all; floor: least persons behind an exact count; simulated: whether the records
    are, which all results then say (None: if they are an `example`); id_column: which column names the patient;
    numbers: exact ones that each hub opens in all. A network of a million weights opens as many in every round."""
    return Federation(
        SimulatorPlace(
            records,
            researcher=researcher,
            epsilon=epsilon,
            floor=floor,
            simulated=_are_simulated(records, simulated),
            id_column=id_column,
            max_numbers=numbers,
        )
    )


def _are_simulated(records: Records, said: bool | None) -> bool:
    return bool(getattr(records, "simulated", False)) if said is None else said


def local(
    records: Records, *, researcher: str = "me", epsilon: float = OWN_EPSILON, floor: int = 1,
    simulated: bool | None = None, id_column: str | None = None, numbers: int = OWN_NUMBERS,
    folder: str | Path | None = None,
) -> Federation:  # fmt: skip
    """Hubs and a coordinator as real processes of this machine, with keys, masks and ledgers; as `simulator` else.

    folder: kept after closing, and taken up again where it holds a federation of these hubs."""
    return Federation(
        LocalPlace(
            records,
            researcher=researcher,
            epsilon=epsilon,
            floor=floor,
            simulated=_are_simulated(records, simulated),
            id_column=id_column,
            folder=None if folder is None else Path(folder).absolute(),
            max_numbers=numbers,
        )
    )


def connect(
    url: str, *, person: str | Path, federation: str | None = None, hubs: Sequence[str] | None = None,
    simulated: bool = False, root: str | None = None,
) -> Federation:  # fmt: skip
    """Real hubs behind the coordinator at `url`. person: folder of your key (`flute person init`); hubs: those to
    ask, by default all that are connected; root: the fingerprint of the federation that a hub owner read out to you;
    without it the one that is seen first is trusted from then on (`Federation.fingerprint`).

    Raises: PeerUnreachable, KeyFileError, MisuseError. RosterUnsigned: another fingerprint."""
    chosen = None if hubs is None else named(hubs, "hubs")
    place = ConnectedPlace(url, Path(person), federation=federation, hubs=chosen, simulated=simulated, root=root)
    return Federation(place)
