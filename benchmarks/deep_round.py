"""What a round of federated deep learning takes besides training, beside NVFLARE's own FedAvg of the same network.

    python benchmarks/deep_round.py [--quick] [--json]

Three hubs and a coordinator are processes of this machine (plan secagg: certificates, envelopes, masks, ledgers,
state on disk before an answer leaves). The network has a million weights; every hub has 1,000 simulated images,
volumes of 3 x 16 x 48 x 48 as of an MRI or pictures of 3 x 64 x 64, and trains for an epoch a round, on one thread,
while the other two train too. A round goes from the first
hub's start of training to the first hub's start in the next round; its overhead is that less the slowest hub's
training, which is clocked within the hubs (`deep_clock`). Figures are medians over rounds. Processor time: of all
processes of the federation in a round, less what training used, so that a busy machine does not show in it.

NVFLARE's FedAvgRecipe runs in its SimEnv: one process for each client, the same training code, numpy arrays sent. It
differs: no secure aggregation, signatures, certificates or ledger, and nothing is kept on disk but the model.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from deep_network import HERE, HUBS, IMAGE, OUTCOME, SIZES, Size, as_frame, layers, question
from rows import Row, options, show

import flute.sdk as flute
from flute.defaults import MAX_PATIENTS
from flute.sdk.federation import OWN_NUMBERS

LIMIT_S: Final = 1500.0
OVERHEAD: Final = 0.20
"""Of one local epoch, at most."""
SEEN_S: Final = 0.05
"""How often the processes' times are read."""
JUDGED: Final = ("volumes", "pictures")
"""Sizes that are held against the goal."""


@dataclass(frozen=True, slots=True)
class Training:
    process: int
    step: int
    begun: float
    ended: float
    cpu: float


class Clock:
    """Reads what hubs note, and the processor time of all processes below as a round's first training ends."""

    def __init__(self, times: Path) -> None:
        self._times = times
        self.used: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> list[Training]:
        self._ended.set()
        self._thread.join()
        return self.trainings()

    def trainings(self) -> list[Training]:
        if not self._times.exists():
            return []
        return [Training(**json.loads(line)) for line in self._times.read_text(encoding="utf-8").splitlines()]

    def _watch(self) -> None:
        while not self._ended.wait(SEEN_S):
            for step in {one.step for one in self.trainings()} - self.used.keys():
                self.used[step] = _used()


def _used() -> float:
    """Processor seconds of this process's children, and theirs, those that ended included."""
    found = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found += times.user + times.system + times.children_user + times.children_system
    return found


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds, medians over rounds. epoch: the slowest hub's training."""

    period: float
    epoch: float
    overhead: float
    cpu_overhead: float
    cpu_epoch: float


def figures(trainings: list[Training], used: Mapping[int, float]) -> Figures:
    """Of all rounds but the last, which nothing follows on, and the first, which reads files for the first time.

    Processor time is read when a first training ends, so between two of them lies about one training of each hub."""
    rounds: dict[int, list[Training]] = {}
    for one in trainings:
        rounds.setdefault(one.step, []).append(one)
    if any(len(hubs) != len(HUBS) for hubs in rounds.values()):
        raise SystemExit(f"Some rounds were repeated or lack a hub: {sorted((k, len(v)) for k, v in rounds.items())}")
    counted = sorted(rounds)[1:-1]
    begun = {step: min(one.begun for one in hubs) for step, hubs in rounds.items()}
    slowest = {step: max(one.ended - one.begun for one in hubs) for step, hubs in rounds.items()}
    cpu = {step: statistics.fmean(one.cpu for one in hubs) for step, hubs in rounds.items()}
    whole = used[counted[-1] + 1] - used[counted[0]]
    trained = sum(one.cpu for step in counted for one in rounds[step + 1])
    return Figures(
        statistics.median(begun[step + 1] - begun[step] for step in counted),
        statistics.median(slowest[step] for step in counted),
        statistics.median(begun[step + 1] - begun[step] - slowest[step] for step in counted),
        (whole - trained) / len(counted),
        statistics.median(cpu[step] for step in counted),
    )


@contextmanager
def clocked(folder: Path) -> Iterator[Clock]:
    """Processes that are started within are clocked, and compute on one thread each."""
    said = {
        "DEEP_ROUND_TIMES": str(folder / "times"),
        "PYTHONPATH": os.pathsep.join([str(HERE / "deep_clock"), str(HERE)]),
        "OMP_NUM_THREADS": "1",
    }
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    clock = Clock(folder / "times")
    try:
        yield clock
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def ours(size: Size, folder: Path) -> tuple[Figures, int]:
    """And how many weights the network has."""
    with clocked(folder) as clock:
        fed = flute.local(
            {hub: as_frame(size, k) for k, hub in enumerate(HUBS)}, simulated=True, numbers=10 * OWN_NUMBERS
        )
        with fed:
            study = fed.study(
                "deep-round",
                purpose="Measure a round.",
                variables=flute.Variables(
                    {OUTCOME: flute.binary(), IMAGE: flute.image(size.shape, -2, 2)},
                ),
                exact=flute.Exact(max_numbers=10 * OWN_NUMBERS),
                max_patients=min(size.images, MAX_PATIENTS),
            )
            what = question(size)
            model = flute.NeuralNetwork(
                OUTCOME,
                image=IMAGE,
                network=list(layers(size)),
                rounds=what.training.rounds,
                local_epochs=1,
                batch=what.training.batch,
                learning_rate=what.training.learning_rate,
            )
            model.fit(study, timeout=LIMIT_S, progress=False)
            trainings = clock.close()
        return figures(trainings, clock.used), int(model.fitted.value["size"])


def theirs(name: str, folder: Path) -> Figures:
    with clocked(folder) as clock:
        with (folder / "log").open("wb") as log:
            subprocess.run(
                [sys.executable, str(HERE / "deep_nvflare_job.py"), name, str(folder / "jobs")],
                cwd=folder, stdout=log, stderr=log, check=True, timeout=LIMIT_S,
            )  # fmt: skip
        return figures(clock.close(), clock.used)


def rows(name: str, mine: Figures, engine: Figures, weights: int) -> Iterator[Row]:
    part = mine.overhead / mine.epoch
    anchor = (
        f"NVFLARE 2.9.0 FedAvgRecipe in SimEnv: {engine.overhead:.2f} s, {engine.overhead / engine.epoch:.0%} of "
        "its epoch"
    )
    size = SIZES[name]
    said = f"{weights:,} weights, 3 hubs x {size.images:,} images {' x '.join(map(str, size.shape))}"
    goal = f"below {OVERHEAD:.0%} of a local epoch"
    yield Row(
        f"{name}: overhead of a round in parts of a local epoch ({said})", part, "",
        goal if name in JUDGED else "", anchor, part < OVERHEAD if name in JUDGED else None,
    )  # fmt: skip
    told = [
        ("overhead of a round", "overhead"),
        ("a local epoch, slowest of three hubs at once", "epoch"),
        ("processor time of a round besides training, all processes", "cpu_overhead"),
        ("processor time of a local epoch, one hub", "cpu_epoch"),
    ]
    for title, field in told:
        yield Row(f"{name}: {title}", getattr(mine, field), "s", "", f"NVFLARE: {getattr(engine, field):.2f} s", None)
    yield Row(
        f"{name}: processor time besides training, in parts of that of training", _share(mine), "", "",
        f"NVFLARE: {_share(engine):.2f}", None,
    )  # fmt: skip


def _share(figures: Figures) -> float:
    return figures.cpu_overhead / (len(HUBS) * figures.cpu_epoch)


def main() -> None:
    arguments: Any = options(__doc__ or "")
    for name in ("quick",) if arguments.quick else JUDGED:
        for row in measured(name):
            show(row, as_json=arguments.json)


def measured(name: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="flute-deep-") as folder:
        places = [Path(folder) / side for side in ("ours", "theirs")]
        for place in places:
            place.mkdir()
        mine, weights = ours(SIZES[name], places[0])
        engine = theirs(name, places[1])
    yield from rows(name, mine, engine, weights)


if __name__ == "__main__":
    main()
