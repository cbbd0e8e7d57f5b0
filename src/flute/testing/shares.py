"""Checks of algorithms that hubs compute together on shares: three hubs in one process, in lock-step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from flute.algorithms.contract import Finished, JointAlgorithm, Opened
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.defaults.joint import KEY_BYTES
from flute.mpc.party import Party
from flute.mpc.setup import Circle, Keys, setup
from flute.testing.course import Trial, divided, first_difference, turned, written

_HUBS: Final = 3
_REACH: Final = 2.0**29
"""Of what is opened: see `JointAlgorithm.program`."""
_Program = Generator[Mapping[int, bytes], Mapping[int, bytes], Any]


def program(trial: Trial) -> None:
    """All hubs open the same numbers, as many as the outline says, whatever order patients stand in; and `next` makes
    plain JSON of them."""
    algorithm = trial.algorithm
    assert isinstance(algorithm, JointAlgorithm)
    size = trial.outline()[0].size
    if len(trial.outline()) != 1:
        raise trial.fail("program", "what is computed on shares is opened once: its outline has one step.")
    parts = divided(trial.data, _HUBS, trial.chance("parts"))
    if not trial.example.empty_hub:
        parts = [trial.data.where(np.arange(len(trial.data)) % _HUBS == hub) for hub in range(_HUBS)]
    results = []
    for hubs in (parts, [turned(part, trial.example) for part in parts]):
        opened = _computed(partial(_part, trial, algorithm, hubs))
        if not all(np.array_equal(opened[1], other) for other in opened.values()):
            raise trial.fail("program", "the hubs opened different numbers.")
        if opened[1].shape != (size,) or not np.all(np.abs(opened[1]) < _REACH):
            raise trial.fail("program", f"it opened {opened[1].shape}; the outline says {size} numbers below 2^29.")
        answer = algorithm.next(
            trial.example.spec, trial.setting, (Opened((), opened[1], 0.0),), trial.example.inputs
        )
        if not isinstance(answer, Finished):
            raise trial.fail("program", "after its one step it still asks.")
        written(trial, "program", answer.result)
        results.append(answer.result)
    if different := first_difference(results[0], results[1], trial.example.tolerance):
        raise trial.fail("program", f"with patients in another order it gives another result: {different}.")


def _part(trial: Trial, algorithm: JointAlgorithm, hubs: Sequence[Dataset], me: int, party: Party) -> _Program:
    return algorithm.program(trial.example.spec, trial.setting, hubs[me - 1], party)


def _computed(work: Callable[[int, Party], _Program]) -> dict[int, Array]:
    """What every hub opened, by its place."""
    circles = {me: Circle(me, _HUBS, b"tried") for me in range(1, _HUBS + 1)}
    keys: dict[int, Keys] = _lockstep({me: setup(circles[me], rand=_bytes(me)) for me in circles})
    return _lockstep({me: work(me, Party(circles[me], keys[me])) for me in circles})


def _bytes(me: int) -> bytes:
    return hashlib.shake_256(b"flute/testing/shares" + bytes([me])).digest(KEY_BYTES)


def _lockstep(programs: Mapping[int, _Program]) -> dict[int, Any]:
    """Carry every message until all have returned."""
    results: dict[int, Any] = {}
    sent = {me: next(one) for me, one in programs.items()}
    while sent:
        arrived = {me: {other: out[me] for other, out in sent.items() if other != me} for me in sent}
        sent = {}
        for me, messages in arrived.items():
            try:
                sent[me] = programs[me].send(messages)
            except StopIteration as stop:
                results[me] = stop.value
    return results
