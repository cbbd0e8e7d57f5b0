"""By how much noise will move each number of a result: from public facts alone, before anything is asked.

An algorithm is carried out twice on made-up patients (`made_up`): exactly, and many times with the noise that its
price buys; the differences are the errors. So everything that happens to opened sums afterwards (counts that may not
be negative, means kept in their range, steps of a fit) is in them, for every algorithm whose result marks what noise
moves: as {"value", "noise_se"} or one of the shapes that `marked` reads. An algorithm that knows better says so
itself (`Foretelling`); of one that is too large to be tried, only the noise on each opened number is told.
The noise is drawn from a fixed keystream: a preview gives the same answer twice. It is no answer of a hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from scipy.special import ndtri

from flute.algorithms.contract import Algorithm, Finished, Opened, Setting, StepShape
from flute.algorithms.made_up import Assumed, made_up_patients
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import FluteError
from flute.messages.numbers import write_numbers
from flute.primitives.keys import digest
from flute.primitives.prg import keystream

DRAWS: Final = 400
"""Of the noise: an error is then known to 3.5 %, which its own deviation is over the square root of 2 draws."""
_FEWEST_DRAWS: Final = 40
_DRAWS_OF_STEPS: Final = 160
"""Of a question with several steps, whose fits take longer."""
_COHORTS: Final = 8
"""Different made-up patients among whom the draws are divided: what a fit leaves differs from cohort to cohort."""
_ROWS: Final = 4_000
"""Made-up patients at most in a cohort; sums stand for as many as are assumed."""
_LEAST_ROWS: Final = 200
_CELLS: Final = 20_000_000
"""Numbers of one table of rows: 160 MB."""
_WORK: Final = 1_000_000_000
"""Numbers of all tables of rows together: some seconds."""
_LABEL: Final = b"flute/preview/v1"
_COUNTS: Final = frozenset({"n", "missing", "events", "count", "counts"})


@dataclass(frozen=True, slots=True)
class Expected:
    """One number of a result. value: what it is of made-up patients. sd: root mean square of its error, against the
    exact result of the same patients. within: what 95 of 100 errors stay within. unit: "patients" for counts."""

    what: str
    value: float
    sd: float
    within: float
    unit: str = ""


@runtime_checkable
class Foretelling(Protocol):
    """An algorithm that says itself what error its numbers will have."""

    def expected_errors(
        self, spec: Any, setting: Setting, sigmas: Sequence[float], assumed: Assumed
    ) -> Sequence[Expected]:
        """sigmas: deviation of the noise on every opened coordinate, one per step of the outline, update's unit."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. people: assumed patients behind its sums. inputs: as `Algorithm.next` takes them."""

    algorithm: Algorithm
    spec: Any
    setting: Setting
    sigmas: tuple[float, ...]
    people: int
    inputs: Mapping[str, dict[str, Any]]


def expected_errors(asked: Asked, assumed: Assumed, draws: int = DRAWS) -> tuple[Expected, ...]:
    """The error of every number that noise moves, in the order of the result; see the module's head."""
    if isinstance(asked.algorithm, Foretelling):
        return tuple(asked.algorithm.expected_errors(asked.spec, asked.setting, asked.sigmas, assumed))
    outline = asked.algorithm.outline(asked.spec, asked.setting)
    rows = min(_ROWS, max(asked.people, 1), _CELLS // max(step.size for step in outline))
    cost = rows * sum(step.size for step in outline[1:])
    if rows < min(_LEAST_ROWS, asked.people) or cost * _FEWEST_DRAWS > _WORK:
        return _of_opened(outline, asked.sigmas)
    draws = min(draws, DRAWS if len(outline) == 1 else _DRAWS_OF_STEPS, max(_WORK // max(cost, 1), _FEWEST_DRAWS))
    found = _compared(asked, assumed, rows, draws)
    return found or _of_opened(outline, asked.sigmas)


def _of_opened(outline: Sequence[StepShape], sigmas: Sequence[float]) -> tuple[Expected, ...]:
    named = zip(outline, sigmas, strict=True)
    return tuple(Expected(f"each opened number of {step.name}", 0.0, s, 1.96 * s) for step, s in named)


def exact_result(
    algorithm: Algorithm,
    spec: Any,
    setting: Setting,
    data: Dataset,
    people: int,
    inputs: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """The question's exact result, `data` standing for `people` patients; empty where there is no exact mode."""
    exactly = replace(setting, mode="exact")
    try:
        silent = (0.0,) * len(algorithm.outline(spec, exactly))
        return _carried(Asked(algorithm, spec, exactly, silent, people, inputs), data, {}, b"")
    except FluteError:
        return {}


def _compared(asked: Asked, assumed: Assumed, rows: int, draws: int) -> tuple[Expected, ...]:
    """Errors of `draws` answers, each over one of _COHORTS cohorts."""
    errors: dict[str, list[Array]] = {}
    values: dict[str, list[Array]] = {}
    units: dict[str, str] = {}
    for cohort in range(min(_COHORTS, draws)):
        data = made_up_patients(asked.setting, assumed, rows, skip=cohort * rows)
        drawn = _drawn(asked, data, [digest(_LABEL, _two_bytes(k)) for k in range(cohort, draws, _COHORTS)])
        right = marked(exact_result(asked.algorithm, asked.spec, asked.setting, data, asked.people, asked.inputs))
        for what in _fullest(drawn):
            found = [one[what][0] for one in drawn if what in one]
            truth = right[what][0] if what in right else np.mean(found, axis=0)
            units.setdefault(what, next(one[what][1] for one in drawn if what in one))
            values.setdefault(what, []).append(truth)
            errors.setdefault(what, []).extend(np.abs(f - truth).ravel() for f in found if f.shape == truth.shape)
    complete = {what: np.concatenate(e) for what, e in errors.items() if len(e) >= draws / 2}
    return tuple(_summary(what, values[what], found, units[what]) for what, found in complete.items())


def _drawn(asked: Asked, data: Dataset, keys: Sequence[bytes]) -> list[dict[str, tuple[Array, str]]]:
    kept: dict[bytes, Array] = {}
    return [marked(_carried(asked, data, kept, key)) for key in keys]


def _fullest(drawn: Sequence[Mapping[str, tuple[Array, str]]]) -> list[str]:
    """The numbers of the answer that has most: an answer under much noise may lack some."""
    return max((list(one) for one in drawn), key=len, default=[])


def _summary(what: str, values: Sequence[Array], errors: Array, unit: str) -> Expected:
    sd = float(np.sqrt(np.mean(errors**2)))
    return Expected(what, float(np.mean([v.mean() for v in values])), sd, float(np.quantile(errors, 0.95)), unit)


def _two_bytes(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _carried(asked: Asked, data: Dataset, kept: dict[bytes, Array], key: bytes) -> dict[str, Any]:
    """The result under noise of the stream `key`. kept: sums of the first step's rows, by its parameters."""
    outline = asked.algorithm.outline(asked.spec, asked.setting)
    history: list[Opened] = []
    while True:
        answer = asked.algorithm.next(asked.spec, asked.setting, tuple(history), asked.inputs)
        if isinstance(answer, Finished):
            return answer.result
        step, shape = len(history), outline[len(history)]
        first = write_numbers(answer.parameters)
        total = kept.get(first) if step == 0 else None
        if total is None:
            total = _summed(asked, step, shape, answer.parameters, data)
        if step == 0:
            kept[first] = total
        sigma = asked.sigmas[step]
        noise = sigma * _normal(shape.size, digest(key, _two_bytes(step))) if sigma > 0 else 0.0
        history.append(Opened(answer.parameters, total + noise, sigma))


def _summed(asked: Asked, step: int, shape: StepShape, parameters: Array, data: Dataset) -> Array:
    rows = asked.algorithm.update(asked.spec, asked.setting, step, parameters, data)
    if asked.setting.mode == "private":
        lengths = np.linalg.norm(rows, axis=1)
        rows = rows * (shape.clip_norm / np.maximum(lengths, shape.clip_norm))[:, None]
    return np.asarray(rows.sum(axis=0) * (asked.people / len(data)))


def _normal(size: int, key: bytes) -> Array:
    words = np.frombuffer(keystream(key, 8 * size), dtype="<u8")
    return np.asarray(ndtri(((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53))


def marked(result: Mapping[str, Any]) -> dict[str, tuple[Array, str]]:
    """Numbers that a result marks as moved by noise: place to (float64 [] or [k] for a histogram's bins, unit).

    Read are {"value" | "count" | "counts" | "model", "noise_se"}, "x" beside "x_noise_se", and "coefficients" beside
    "noise_standard_errors", by the names of "columns". None is no number.
    """
    found: dict[str, tuple[Array, str]] = {}
    for what, value, unit in _walk(result, "", ""):
        if value is not None and np.all(np.isfinite(np.asarray(value, dtype=np.float64))):
            found[what] = np.asarray(value, dtype=np.float64), unit
    return found


def _walk(value: Any, at: str, unit: str) -> Iterator[tuple[str, Any, str]]:
    if isinstance(value, list):
        for index, inner in enumerate(value):
            label = inner.get("threshold", inner.get("level", index)) if isinstance(inner, dict) else index
            yield from _walk(inner, f"{at}.{label}", unit)
    if not isinstance(value, Mapping):
        return
    own = value.get("unit")
    unit = own if isinstance(own, str) else unit
    yield from _marked_here(value, at, unit)
    for key, inner in value.items():
        inside = at if not at and key in ("variables", "models") else f"{at}.{key}".lstrip(".")
        yield from _walk(inner, inside, unit)


def _marked_here(value: Mapping[str, Any], at: str, unit: str) -> Iterator[tuple[str, Any, str]]:
    if "noise_se" in value:
        for key in ("value", "count", "counts", "model"):
            if key in value:
                place = at if key == "value" else f"{at}.{key}".lstrip(".")
                yield place, value[key], "patients" if place.rpartition(".")[2] in _COUNTS else unit
                break
    for key in value:
        if key != "noise_se" and key.endswith("_noise_se") and key.removesuffix("_noise_se") in value:
            name = key.removesuffix("_noise_se")
            yield f"{at}.{name}".lstrip("."), value[name], "patients" if name in _COUNTS else ""
    if "coefficients" in value and "noise_standard_errors" in value:
        names = value.get("columns") or range(len(value["coefficients"]))
        for name, coefficient in zip(names, value["coefficients"], strict=True):
            yield f"{at}.coefficient {name}".lstrip("."), coefficient, "log odds"
