"""Networks over datasets in one process: what hubs give is added up as it is, without masks, hubs or keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, Opened, Setting, StudyVariable
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.network import NeuralNetworkAlgorithm
from flute.deep.spec import NeuralNetwork

NETWORKS = NeuralNetworkAlgorithm()


def table(
    columns: Mapping[str, Array], variables: Sequence[StudyVariable], images: Mapping[str, NDArray[np.float32]] = {}
) -> Dataset:
    """Patients p00000, p00001 and so on; columns and images as they are."""
    n = len(next(iter(columns.values())))
    names = np.array([f"p{k:05d}" for k in range(n)], dtype=str)
    arrays = {v.variable.name: np.asarray(columns[v.variable.name], dtype=np.float64) for v in variables}
    return Dataset(names, arrays, [v.variable for v in variables], images)


def joined(hubs: Sequence[Dataset], variables: Sequence[StudyVariable]) -> Dataset:
    """All hubs' patients in one place, under new names."""
    names = [v.variable.name for v in variables]
    return table({name: np.concatenate([hub.column(name) for hub in hubs]) for name in names}, variables)


def step(spec: NeuralNetwork, agreed: Setting, hubs: Sequence[Dataset], history: Sequence[Opened]) -> Opened | None:
    """What the next round opens; None where the question has its result."""
    asked = NETWORKS.next(spec, agreed, history, {})
    if not isinstance(asked, Ask):
        return None
    totals = [NETWORKS.total(spec, agreed, len(history), asked.parameters, hub) for hub in hubs]
    return Opened(asked.parameters, np.sum(totals, axis=0), 0.0)


def carried(spec: NeuralNetwork, agreed: Setting, hubs: Sequence[Dataset]) -> dict[str, Any]:
    """The result in exact mode."""
    NETWORKS.check(spec, agreed)
    history: list[Opened] = []
    while (opened := step(spec, agreed, hubs, history)) is not None:
        history.append(opened)
    finished = NETWORKS.next(spec, agreed, history, {})
    assert isinstance(finished, Finished)
    return finished.result
