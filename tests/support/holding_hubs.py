"""A federation in one process whose hubs hold real datasets: imported, frozen, decided about, withdrawn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from flute.data.variables import Variable
from flute.hub.decisions.steward import Steward
from flute.hub.records.data import Data, open_data
from flute.hub.records.plans import FlatTable, ImportPlan
from flute.hub.service import HubService
from flute.hub.store import HubPolicy
from flute.intake.snapshot import SnapshotSource
from support.inprocess import InProcessFederation, TestHub

KEY = b"k" * 32


class HoldingFederation(InProcessFederation):
    """`tables`: hub to the text of its CSV file, whose first column is the patient's id."""

    def __init__(
        self,
        folder: Path,
        tables: Mapping[str, str],
        variables: tuple[Variable, ...],
        policy: HubPolicy | None = None,
    ) -> None:
        super().__init__(folder, {hub: {v.name: [0] for v in variables} for hub in tables}, variables, policy=policy)
        self.data: dict[str, Data] = {}
        for hub, text in tables.items():
            self.hold(hub)
            self.import_text(hub, text)

    def hold(self, name: str) -> None:
        old = self.hubs[name]
        parts = dataclasses.replace(old.parts, sources=lambda digest: SnapshotSource(old.folder, digest))
        service = HubService(parts)
        steward = Steward(parts, service.lock, service.consents)
        self.hubs[name] = TestHub(name, old.folder, old.source, parts, service, steward)
        self.data[name] = open_data(parts, steward, service.lock, old.folder, KEY)

    def import_text(self, hub: str, text: str) -> None:
        path = self.folder / f"{hub}.csv"
        path.write_text(text)
        plan = ImportPlan(self.dataset, "eva", table=FlatTable(str(path), self.variables), simulated=True)
        self.data[hub].curator.import_(plan)

    def close(self) -> None:
        for data in self.data.values():
            data.holdings.close()
        super().close()
