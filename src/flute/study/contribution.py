"""One hub's part of one step: what an algorithm makes of the records, to the covered vector that may leave.

Hubs, the simulator and tests call this one function, so that all of them mean the same by an algorithm's rows, blocks
and totals. A step that fails on someone's values enters the sum as zeros, under full noise in private mode: whether
it failed is itself something about the data, so it must not show. The log says it to whoever keeps the records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Algorithm, BlockUpdates, HubTotals, Setting, StepShape
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import MisuseError, ProtocolAbortedError
from flute.study.protection import Price, cover

LOG = logging.getLogger("flute.hub")


class _Fault(Exception):
    """What an algorithm gave is not what was agreed."""


def contribution(
    algorithm: Algorithm, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset, price: Price, *,
    hubs: int, rand: bytes, question: str = "",
) -> NDArray[np.int64]:  # fmt: skip
    """int64 [d] of the step's `price.shape`: rows, blocks of rows (private) or a total (exact), covered.

    hubs: how many answer this step. rand: RAND_SIZE fresh bytes of operating-system entropy. question: for the log.
    Raises: MisuseError: parameters that the step does not take. ProtocolAbortedError: the study was stopped.
    """
    given = given_by(algorithm, spec, setting, step, parameters, data)
    return covered(given, len(data), price, hubs=hubs, rand=rand, question=question)


def given_by(
    algorithm: Algorithm, spec: Any, setting: Setting, step: int, parameters: Array, data: Dataset
) -> Callable[[], Array | Iterator[Array]]:
    """What will give the step's numbers, nothing being computed yet: a table [n, d], blocks of its rows, or what may
    stand for its sum [d]."""
    if setting.mode == "private" and isinstance(algorithm, BlockUpdates):
        return lambda: algorithm.blocks(spec, setting, step, parameters, data)
    if setting.mode == "exact" and isinstance(algorithm, HubTotals):
        return lambda: algorithm.total(spec, setting, step, parameters, data)
    return lambda: algorithm.update(spec, setting, step, parameters, data)


def covered(
    given: Callable[[], Array | Iterator[Array]], patients: int, price: Price, *, hubs: int, rand: bytes,
    question: str = "",
) -> NDArray[np.int64]:  # fmt: skip
    """As `contribution`, of what `given` gives when it is called, for `patients` patients.

    Where it fails, blocks midway included, nothing of what it gave counts: the answer is zeros and the same noise,
    which has not left with anything else."""
    try:
        return cover(_agreed(given(), patients, price), price, hubs=hubs, rand=rand)
    except (MisuseError, ProtocolAbortedError):
        raise
    except _Fault as fault:
        LOG.error("step %s of %s: %s; it enters the sum as zero", price.shape.name, question, fault)
    except Exception:
        LOG.exception("step %s of %s failed; it enters the sum as zero", price.shape.name, question)
    return cover(np.zeros((0, price.shape.size)), price, hubs=hubs, rand=rand)


def _agreed(given: Array | Iterator[Array], patients: int, price: Price) -> Array | Iterator[Array]:
    """What `cover` takes. Raises: _Fault: of another shape or kind than agreed, or a total that is not finite."""
    shape, size = price.shape, price.shape.size
    if not isinstance(given, np.ndarray):
        if price.mechanism is None:
            raise _Fault("no table, of which alone exact sums are")
        return _whole(given, patients, size)
    if given.ndim == 1 and price.mechanism is None:
        return _bounded(given, patients, shape)[None, :]
    _require_rows(given, size)
    if len(given) != patients:
        raise _Fault(f"{len(given)} rows for {patients} patients")
    return given


def _whole(blocks: Iterator[Array], patients: int, size: int) -> Iterator[Array]:
    """The blocks, as long as they are of agreed rows, one for each patient in all."""
    left = patients
    for block in blocks:
        _require_rows(block, size)
        left -= len(block)
        if left < 0:
            raise _Fault(f"blocks of more rows than {patients} patients")
        yield block
    if left:
        raise _Fault(f"blocks of {patients - left} rows for {patients} patients")


def _bounded(total: Array, patients: int, shape: StepShape) -> Array:
    """A hub's total, no coordinate beyond what its patients' rows could come to."""
    if total.shape != (shape.size,) or total.dtype != np.float64 or not np.isfinite(total).all():
        raise _Fault("a total of another shape than agreed, or not of finite numbers")
    most = patients * shape.magnitude
    return np.clip(total, -most, most)


def _require_rows(rows: Array, size: int) -> None:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != size or rows.dtype != np.float64:
        raise _Fault("rows of another shape than agreed")
