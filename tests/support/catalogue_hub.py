"""One hub with invented records, and its catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flute.data.variables import Variable
from flute.hub.records.catalogue import Catalogue
from flute.hub.store import HubPolicy
from support.inprocess import InProcessFederation, TestHub

VARIABLES = (
    Variable("age", "number", 18, 110, unit="a", label="Age"),
    Variable("pressure", "number", 60, 260, unit="mm[Hg]", label="Systolic pressure"),
    Variable("smoker", "binary", label="Smokes"),
    Variable("grade", "category", levels=("low", "mid", "high"), label="Severity"),
)


def records(seed: int, n: int = 2_000) -> dict[str, list[Any]]:
    """Raw columns; 5 % of the pressures are missing."""
    rng = np.random.default_rng(seed)
    pressure = rng.normal(130, 20, n).clip(65, 250).round(1).astype(object)
    pressure[rng.random(n) < 0.05] = None
    return {
        "age": rng.normal(62, 11, n).clip(20, 100).round().tolist(),
        "pressure": pressure.tolist(),
        "smoker": (rng.random(n) < 0.25).astype(int).tolist(),
        "grade": rng.choice(["low", "mid", "high"], n, p=[0.5, 0.3, 0.2]).tolist(),
    }


def open_hub(folder: Path, columns: dict[str, list[Any]], policy: HubPolicy | None = None) -> TestHub:
    """Hub `north` of a federation of one; its dataset is called heart."""
    federation = InProcessFederation(
        folder, {"north": columns}, VARIABLES, policy=policy or HubPolicy(), dataset="heart"
    )
    return federation.hubs["north"]


def generous() -> HubPolicy:
    """Far more than any hub should allow: for tests about noise, not about the budget."""
    return HubPolicy(epsilon=100.0, epsilon_all=100.0, epsilon_catalogue=100.0)


def catalogue_of(hub: TestHub) -> Catalogue:
    return Catalogue(hub.parts, hub.service.lock, hub.folder)
