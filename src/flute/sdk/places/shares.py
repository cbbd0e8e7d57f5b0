"""Computations among hubs (plan mpc) with all hubs in one process: the real program on real shares, no channels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import JointAlgorithm
from flute.data.dataset import Dataset
from flute.defaults.joint import KEY_BYTES
from flute.mpc.party import Party
from flute.mpc.setup import Circle, setup
from flute.study.agreement import Agreement
from flute.study.plans.jointly import computed
from flute.study.plans.talk import Program
from flute.study.protection import Price


def on_shares(
    algorithm: JointAlgorithm, spec: Any, agreement: Agreement, data: Mapping[str, Dataset], price: Price
) -> NDArray[np.int64]:
    """What the hubs open together, the same at each of them."""
    hubs = tuple(sorted(data))
    session = os.urandom(32)

    def program(place: int, rows: Dataset) -> Program[NDArray[np.int64]]:
        circle = Circle(place, len(hubs), session, agreement.plan.colluding, hubs)
        keys = yield from setup(circle, rand=os.urandom(KEY_BYTES))
        work = computed(algorithm, spec, agreement.setting, rows, price)
        return (yield from work(Party(circle, keys)))

    return _together({place: program(place, data[hub]) for place, hub in enumerate(hubs, start=1)})


def _together(programs: Mapping[int, Program[NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Lock-step rounds, until all have returned."""
    sent = {place: next(program) for place, program in programs.items()}
    results: dict[int, NDArray[np.int64]] = {}
    while len(results) < len(programs):
        heard = {me: {other: sent[other][me] for other in sent if other != me} for me in sent}
        sent = {}
        for place, messages in heard.items():
            try:
                sent[place] = programs[place].send(messages)
            except StopIteration as stop:
                results[place] = stop.value
    return results[1]
