"""Flower's SecAgg+, processor time at a client and at the server: what ours is compared with.

    python benchmarks/flower_secagg.py --hubs N --size D --dropouts K --repeats R [--fewest-shares] [--json]

Run by the Python that `benchmarks/flower_environment.py` prints, one process per measurement. It calls what a user
of Flower calls: `secaggplus_mod` (flwr/client/mod/secure_aggregation/secaggplus_mod.py) at every client and
`SecAggPlusWorkflow` (flwr/server/workflow/secure_aggregation/secaggplus_workflow.py) at the server, all four
stages, between them a grid without a network. Complete graph; Flower's defaults otherwise: clipping range 8,
quantisation range 2^22, modulus 2^32. The opened mean times the survivors is the sum; it must be the plain sum
within the quantiser's error, else the exit status is 1.

Counted at a client: two key pairs, shares of both secrets and their encryption, quantising, its own and the
pairwise masks, reading the others' shares. Counted at the server: routing keys and shares, adding the masked
vectors, rebuilding secrets, removing masks (a lost hub's pairwise ones too), dequantising. Not counted: training,
sending the model, delivery, the strategy's own averaging. Told apart (`..._framing_ms`): arrays to bytes and back by
numpy.save and numpy.load, which is no part of the arithmetic. A lost hub sends its shares, then no vector.

Where the time goes at the server with many hubs: Shamir over GF(2^128) in plain Python, quadratic in the shares
given. `unmask_stage` hands `combine_shares` every share that came, N where 2N/3 suffice; a seed is three blocks, a
lost hub's key (306 bytes of PEM) twenty. `--fewest-shares` hands it only as many as are needed: no Flower does so,
but a goal that holds against this one does not rest on that waste. An earlier table (server 20, 150 and 2500 ms at
3, 10 and 30 hubs x 1e5) agrees with `--fewest-shares` (20, 180, 2900 when both were run in one process) and not with
the workflow as it is (27, 220, 4400). Both are plain Python: on a shared host they swing by 1.6 within a minute, so
only ratios to what ran beside them are worth keeping.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["FLWR_DISABLE_UPDATE_CHECK"] = "1"
os.environ["FLWR_LOG_LEVEL"] = "ERROR"

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common import (
    Code,
    FitIns,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation import secaggplus_workflow as server_module
from flwr.supercore.task_identity import TaskIdentity

client_module = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")  # its package hides it
Vector = NDArray[np.float32]

CONVERSIONS = (
    (client_module, "ndarray_to_bytes"),
    (client_module, "parameters_to_ndarrays"),
    (server_module, "bytes_to_ndarray"),
    (server_module, "ndarrays_to_parameters"),
)
RECONSTRUCTION_THRESHOLD = 2 / 3
"""Share of the hubs whose shares rebuild a secret: 2 of 3, 7 of 10, 20 of 30. Flower has no default for it."""
WEIGHT = 1000
"""Number of examples of every hub. It equals Flower's default maximum, so that no resolution is lost to weights."""
STEP = 2 * 8.0 / 2**22
"""One step of Flower's quantiser with its defaults, in units of the vector."""
WORST_ERROR = STEP * (1 + 1 / 8)
"""Rounding moves a coordinate by less than one step; `x + 8` in float32 by 1/8 of one before that."""
WARMERS = 3
"""Hubs in the round that is not counted: enough for imports, threads and memory, and as few as Flower takes."""


@dataclass(frozen=True)
class Figures:
    """Medians of processor time in ms: `client` of one surviving hub, `server` of all it does, `framing` what
    numpy.save and numpy.load took beside them. `worst_error`: largest |mean - plain mean| of a coordinate."""

    hubs: int
    size: int
    dropouts: int
    repeats: int
    fewest_shares: bool
    client_ms: float
    server_ms: float
    client_framing_ms: float
    server_framing_ms: float
    plain_sum_ms: float
    worst_error: float
    right: bool
    flwr_version: str


class Clock:
    """Processor time of this process (all its threads), seconds by name. An inner span is taken out of the outer."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        self._settle()
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def framing(self, convert: Callable[..., Any]) -> Callable[..., Any]:
        """`convert`, its time kept apart from that of whoever calls it."""

        def timed(*given: Any) -> Any:
            with self.running(f"{self._open[-1]} framing"):
                return convert(*given)

        return timed

    def _settle(self) -> None:
        now = time.process_time()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now


class Hub:
    """One client: Flower's own mod around a training step that is done already."""

    def __init__(self, node_id: int, vector: Vector, clock: Clock) -> None:
        self.name = f"client {node_id}"
        self._trained, self._clock = ndarrays_to_parameters([vector]), clock
        self._context = Context(run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={})

    def answer(self, message: Message) -> Message:
        received = copy.deepcopy(message)  # the mod empties what it reads, and Flower sends one object to all
        with self._clock.running(self.name):
            return client_module.secaggplus_mod(received, self._context, self._train)

    def _train(self, message: Message, _context: Context) -> Message:
        with self._clock.running("training"):
            result = FitRes(Status(Code.OK, ""), self._trained, num_examples=WEIGHT, metrics={})
            return Message(compat.fitres_to_recorddict(result, keep_input=True), reply_to=message)


class InProcessGrid:
    """Flower's grid without a network. `lost` hubs send their shares, then fail when their vector is asked for:
    the only loss that costs the server something."""

    def __init__(self, hubs: dict[int, Hub], lost: frozenset[int], clock: Clock) -> None:
        self._hubs, self._lost, self._clock = hubs, lost, clock

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        with self._clock.running("delivery"):
            return [self._deliver(message) for message in messages]

    def _deliver(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if node_id in self._lost and stage == Stage.COLLECT_MASKED_VECTORS:
            return Message(Error(code=0, reason="lost"), reply_to=message)
        return self._hubs[node_id].answer(message)


@dataclass(frozen=True)
class Proxy:
    node_id: int


class HandOn:
    """A strategy that sends no model and keeps what the workflow has opened: neither is secure aggregation."""

    def __init__(self, node_ids: Iterable[int]) -> None:
        self._proxies = [Proxy(node_id) for node_id in node_ids]

    def configure_fit(self, *_given: Any) -> list[tuple[Proxy, FitIns]]:
        return [(proxy, FitIns(nothing(), {})) for proxy in self._proxies]

    def aggregate_fit(self, _round: int, results: list[Any], _failures: Any) -> tuple[Parameters, dict[str, Any]]:
        return results[0][1].parameters, {}


def nothing() -> Parameters:
    return Parameters(tensors=[], tensor_type="numpy.ndarray")


def server_context(node_ids: Iterable[int]) -> LegacyContext:
    state = RecordDict()
    state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(nothing(), keep_input=True)
    own = Context(run_id=1, node_id=1, node_config={}, state=state, run_config={})
    return LegacyContext(own, strategy=HandOn(node_ids))


@contextmanager
def framing_apart(clock: Clock) -> Iterator[None]:
    """Flower's conversions of arrays to bytes and back, named as its two modules import them, on their own time."""
    with ExitStack() as stack:
        for module, name in CONVERSIONS:
            stack.enter_context(patch.object(module, name, clock.framing(getattr(module, name))))
        yield


@contextmanager
def only(needed: int) -> Iterator[None]:
    """The server rebuilds secrets from the first `needed` shares instead of from all that came."""
    with patch.object(server_module, "combine_shares", lambda shares: combine_shares(shares[:needed])):
        yield


def secure_mean(vectors: list[Vector], dropouts: int, clock: Clock) -> NDArray[np.float64]:
    """One round of SecAgg+ over a complete graph: the mean of all vectors but the first `dropouts`.

    Raises: RuntimeError: Flower halted the round, as it does with too few survivors.
    """
    hubs = {node_id: Hub(node_id, vector, clock) for node_id, vector in enumerate(vectors, start=2)}
    grid = InProcessGrid(hubs, frozenset(list(hubs)[:dropouts]), clock)
    context = server_context(hubs)
    workflow = server_module.SecAggPlusWorkflow(len(hubs), RECONSTRUCTION_THRESHOLD)
    with framing_apart(clock), clock.running("server"):
        workflow(grid, context)
    opened = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], keep_input=True)
    if not opened.tensors:
        raise RuntimeError(f"Flower halted: {len(hubs)} hubs, {dropouts} lost")
    (mean,) = parameters_to_ndarrays(opened)
    return mean


def plain_sum_ms(vectors: list[Vector], repeats: int) -> float:
    """Median processor time of adding all vectors, float32, one by one to an accumulator that is in memory."""
    total, spent = np.zeros_like(vectors[0]), []
    for _ in range(max(5, repeats) + 1):
        total.fill(0)
        begun = time.process_time()
        for vector in vectors:
            np.add(total, vector, out=total)
        spent.append(time.process_time() - begun)
    return 1e3 * statistics.median(spent[1:])


def worst_error(opened: NDArray[np.float64], survivors: list[Vector]) -> float:
    plain = sum((vector.astype(np.float64) for vector in survivors), np.zeros(len(opened)))
    return float(np.max(np.abs(opened - plain / len(survivors))))


def measure(hubs: int, size: int, dropouts: int, repeats: int, *, fewest_shares: bool) -> Figures:
    chance = np.random.default_rng(1)
    vectors = [chance.uniform(-1, 1, size).astype(np.float32) for _ in range(hubs)]
    rounds, errors = [], []
    with only(round(RECONSTRUCTION_THRESHOLD * hubs)) if fewest_shares else nullcontext():
        secure_mean(vectors[:WARMERS], min(dropouts, 1), Clock())
        for _ in range(repeats):
            gc.collect()
            clock = Clock()
            errors.append(worst_error(secure_mean(vectors, dropouts, clock), vectors[dropouts:]))
            rounds.append(clock.spent)
    survivors = [f"client {node_id}" for node_id in range(2 + dropouts, 2 + hubs)]

    def median_ms(names: list[str]) -> float:
        return 1e3 * statistics.median(spent[name] for spent in rounds for name in names)

    return Figures(
        hubs, size, dropouts, repeats, fewest_shares,
        client_ms=median_ms(survivors), server_ms=median_ms(["server"]),
        client_framing_ms=median_ms([f"{name} framing" for name in survivors]),
        server_framing_ms=median_ms(["server framing"]),
        plain_sum_ms=plain_sum_ms(vectors, repeats),
        worst_error=max(errors), right=max(errors) <= WORST_ERROR, flwr_version=version("flwr"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Flower's SecAgg+: processor time of a client and of the server.")
    parser.add_argument("--hubs", type=int, default=3)
    parser.add_argument("--size", type=int, default=10**6, help="coordinates of a vector")
    parser.add_argument("--dropouts", type=int, default=0, help="hubs lost after they have shared their secrets")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fewest-shares", action="store_true", help="rebuild secrets from the threshold's shares")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    found = measure(given.hubs, given.size, given.dropouts, given.repeats, fewest_shares=given.fewest_shares)
    if given.json:
        print(json.dumps(asdict(found)), flush=True)
    else:
        print("\n".join(f"{name}: {value}" for name, value in asdict(found).items()))
    if not found.right:
        raise SystemExit(f"the sum is wrong: off by {found.worst_error:.3g}, {WORST_ERROR:.3g} allowed")


if __name__ == "__main__":
    main()
