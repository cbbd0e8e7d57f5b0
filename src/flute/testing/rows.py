"""Checks of what leaves a hub: rows of patients, their shape, their bounds, what they depend on.

Bounds are searched for adversarially: from patients at every extreme, one value after the other is replaced by
whichever makes the row longest, until nothing does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flute.attacks.chance import Chance
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.errors import FluteError, MisuseError
from flute.testing.course import ROWS, Trial, clipped
from flute.testing.example import Watched, extremes, joined, mixed, mixed_columns, strange, table, taken

_ROUNDING: Final = 1 + 1e-9
"""By which a bound may be missed on account of floating point."""
_SWEEPS: Final = 2
"""Times that a search goes through all variables; rows mostly depend on few of them together."""
_STARTS: Final = 24
_SLOWER: Final = 6.0
"""Times longer that a step may take on hostile values before it says so."""
_LEAST_S: Final = 0.03
"""Processor time that a step has to take longer besides: below it the machine's own unrest is seen."""
_PARTS: Final = (1.0, -1.0, 1e-3, 30.0, 1e308, -1e308)
"""What a coordinator that cheats writes in the place of parameters, all alike or by chance."""


def fields(trial: Trial) -> None:
    """A step reads the declared fields of the question, no others."""
    named = trial.algorithm.fields(trial.example.spec, trial.setting)
    known = set(trial.setting.variables)
    if not set(named) <= known:
        raise trial.fail("fields", f"it names {sorted(set(named) - known)}, which the study does not declare.")
    read: set[str] = set()
    for step, parameters in trial.steps:
        trial.rows(step, parameters, Watched(trial.data, trial.example, read))
    if trial.mode == "exact":
        trial.algorithm.cells(trial.example.spec, trial.setting, Watched(trial.data, trial.example, read))
    if read - set(named):
        raise trial.fail(
            "fields",
            f"it reads {sorted(read - set(named))}, which `fields` does not name; a hub opens no others.",
        )


def shape(trial: Trial) -> None:
    """float64, one row per patient, as many columns as the outline says, however many patients there are."""
    for step, parameters in trial.steps:
        size = trial.outline()[step].size
        for data in (trial.data, trial.data.where(np.arange(len(trial.data)) < 7)):
            rows = trial.rows(step, parameters, data)
            if rows.shape != (len(data), size):
                raise trial.fail(
                    "shape",
                    f"step {step} gives {rows.shape} for {len(data)} patients; agreed were {size} columns.",
                )
            if rows.dtype != np.float64:
                raise trial.fail("shape", f"step {step} gives {rows.dtype}; it has to give float64.")


def empty_hub(trial: Trial) -> None:
    """A hub without patients answers with no rows."""
    nobody = trial.data.where(np.zeros(len(trial.data), dtype=np.bool_))
    for step, parameters in trial.steps:
        try:
            rows = trial.rows(step, parameters, nobody)
        except Exception as error:
            raise trial.fail("empty-hub", f"step {step} fails without patients: {_told(error)}") from error
        if rows.shape != (0, trial.outline()[step].size):
            raise trial.fail("empty-hub", f"step {step} gives {rows.shape} without patients.")


def hostile(trial: Trial) -> None:
    """No value makes a step fail or give a number that is not finite."""
    chance = trial.chance("hostile")
    for step, parameters in trial.steps:
        data = mixed(trial.example, ROWS, chance, hostile=True)
        try:
            rows = trial.rows(step, parameters, data)
        except Exception as error:
            raise trial.fail("hostile", f"step {step} fails on strange values: {_told(error)}") from error
        if not np.isfinite(rows).all():
            raise trial.fail("hostile", f"step {step} gives numbers that are not finite for strange values.")


def parameters(trial: Trial) -> None:
    """Parameters of another length, or not finite, are refused as a caller's mistake."""
    for step, good in trial.steps:
        for bad in ((*good, 0.0), (float("nan"),) * max(len(good), 1), (float("inf"),) * max(len(good), 1)):
            try:
                trial.rows(step, bad, trial.data)
            except MisuseError:
                continue
            except Exception as error:
                raise trial.fail("parameters", f"step {step}: they give {_told(error)}, not MisuseError.") from error
            raise trial.fail(
                "parameters",
                f"step {step} takes {len(good)} finite parameters, and computed with others.",
            )


def determinism(trial: Trial) -> None:
    """The same patients and parameters give the same bytes, and the patients' values stay as they were."""
    before = _values(trial)
    for step, asked in trial.steps:
        first = trial.rows(step, asked, trial.data)
        again = trial.rows(step, asked, trial.data)
        fresh = trial.pristine.update(trial.example.spec, trial.setting, step, asked, trial.data)
        if not (np.array_equal(first, again) and np.array_equal(first, fresh)):
            raise trial.fail(
                "determinism",
                f"step {step} gives other rows when it is called again; noise and chance are the hub's.",
            )
    for name, values in _values(trial).items():
        if not np.array_equal(values, before[name], equal_nan=True):
            raise trial.fail("determinism", f"a step changed the column {name}; copy it first.")


def _values(trial: Trial) -> dict[str, Array]:
    """Copies of all that is known of the patients."""
    found = {name: trial.data.column(name).copy() for name in trial.setting.variables}
    images = [name for name, used in trial.setting.variables.items() if used.variable.kind == "image"]
    return found | {f"{name} of images": trial.data.images(name).astype(np.float64) for name in images}


def row_order(trial: Trial) -> None:
    """A patient's row does not depend on its place in the table."""
    order = trial.chance("order").order(len(trial.data))
    moved = _taken(trial, order)
    for step, asked in trial.steps:
        rows, after = trial.rows(step, asked, trial.data), trial.rows(step, asked, moved)
        if not _alike(trial, rows[order], after):
            raise trial.fail("row-order", f"step {step} gives patients other rows when they stand in another order.")


def own_row(trial: Trial) -> None:
    """A patient's row depends on that patient alone, so that the clip norm bounds what one can move.

    Not asked of totals that a hub gives at once in exact mode, where no norm bounds anything."""
    if trial.at_once:
        return
    kept = trial.chance("kept").coins(len(trial.data), chance=0.4)
    kept[0] = True
    alone = np.arange(len(trial.data)) == 0
    for step, asked in trial.steps:
        rows = trial.rows(step, asked, trial.data)
        for chosen in (kept, alone):
            if not _alike(trial, rows[chosen], trial.rows(step, asked, trial.data.where(chosen))):
                raise trial.fail(
                    "own-row",
                    f"step {step} gives patients other rows when others are left out: nothing then bounds what one "
                    "patient moves. Use public constants instead of what the hub's patients come to together.",
                )


def sensitivity(trial: Trial) -> None:
    """Adding or removing one patient with declared values moves the sum by no more than the clip norm (private)."""
    if trial.mode != "private":
        return
    chance = trial.chance("sensitivity")
    for step, asked in trial.steps:
        norm = trial.outline()[step].clip_norm
        worst, found = _longest(trial, step, asked, chance, extremes)
        if not trial.example.clipped_by_hub and found > norm * _ROUNDING:
            raise trial.fail("sensitivity", _beyond(step, found, norm, worst))
        joined = _joined(trial, worst, chance)
        with_them, without = (trial.rows(step, asked, data) for data in (joined, trial.data))
        if trial.example.clipped_by_hub:
            with_them, without = clipped(with_them, norm), clipped(without, norm)
        moved = float(np.linalg.norm(with_them.sum(axis=0) - without.sum(axis=0)))
        slack = 1e-9 * float(np.abs(with_them).sum())
        if moved > norm * _ROUNDING + slack:
            raise trial.fail(
                "sensitivity", f"step {step}: one patient moves the sum by {moved:.6g}, over {norm:.6g}."
            )


def bounds(trial: Trial) -> None:
    """As `sensitivity`, whatever stands in the record and whatever a coordinator asks with (private)."""
    if trial.mode != "private" or trial.example.clipped_by_hub:
        return
    chance = trial.chance("bounds")
    for step, asked in trial.steps:
        norm = trial.outline()[step].clip_norm
        for sent in _sent(asked, chance):
            worst, found = _longest(trial, step, sent, chance, strange)
            if found > norm * _ROUNDING:
                raise trial.fail("bounds", _beyond(step, found, norm, worst))


def magnitude(trial: Trial) -> None:
    """No coordinate of one patient's row is beyond the magnitude of its step (exact); of a total: see `totals`."""
    if trial.mode != "exact" or trial.at_once:
        return
    chance = trial.chance("magnitude")
    for step, asked in trial.steps:
        most = trial.outline()[step].magnitude
        for sent in _sent(asked, chance):
            for values in (extremes, strange):
                worst, found = _longest(trial, step, sent, chance, values, largest=True)
                if found > most * _ROUNDING:
                    raise trial.fail("magnitude", _beyond(step, found, most, worst))


def cells(trial: Trial) -> None:
    """Counts of persons, whole and not negative, on any values and on nobody (exact)."""
    if trial.mode != "exact":
        return
    nobody = trial.data.where(np.zeros(len(trial.data), dtype=np.bool_))
    strangers = mixed(trial.example, 50, trial.chance("cells"), hostile=True)
    for data in (trial.data, nobody, strangers):
        try:
            counted = trial.algorithm.cells(trial.example.spec, trial.setting, data)
        except Exception as error:
            raise trial.fail("cells", f"counting {len(data)} patients fails: {_told(error)}") from error
        if not (counted.ndim == 1 and counted.dtype == np.int64 and (counted >= 0).all()):
            raise trial.fail("cells", "it has to give int64 [cells], none below 0.")
        if counted.size and counted.max() > len(data):
            raise trial.fail("cells", f"a cell counts {counted.max()} of {len(data)} patients.")


def duration(trial: Trial) -> None:
    """A step takes about as long on extreme and hostile values as on ordinary ones."""
    chance = trial.chance("duration")
    usual = _taken(trial, chance.integers(len(trial.data), ROWS))
    for step, asked in trial.steps:
        normal = _seconds(trial, step, asked, usual)
        for hostile_values in (False, True):
            other = mixed(trial.example, ROWS, chance, hostile=hostile_values)
            taken = _seconds(trial, step, asked, other)
            if taken > _SLOWER * normal + _LEAST_S:
                raise trial.fail(
                    "duration",
                    f"step {step} took {taken * 1e3:.0f} ms on strange values, {normal * 1e3:.0f} ms on ordinary "
                    "ones: how long an answer takes must not tell what is in a record.",
                )


def _seconds(trial: Trial, step: int, asked: Array, data: Dataset) -> float:
    """Processor and waiting time of the fastest of three calls."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        trial.rows(step, asked, data)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _sent(asked: Array, chance: Chance) -> Iterator[Array]:
    """What was asked, and what may be sent in its place."""
    yield asked
    if not len(asked):
        return
    for part in _PARTS:
        yield np.full(len(asked), part)
    signs = np.where(chance.coins(len(asked)), 1.0, -1.0)
    for size in (1.0, 100.0, 1e300):
        yield signs * size


def _longest(
    trial: Trial, step: int, asked: Array, chance: Chance, values: Callable[..., Array], *,
    largest: bool = False,
) -> tuple[dict[str, float], float]:  # fmt: skip
    """The patient found with the longest row (largest: with the largest coordinate), and that length.

    Infinite for a row that is not finite; nothing where the algorithm refuses the parameters."""
    columns = mixed_columns(trial.example, _STARTS * 4, chance, hostile=values is strange)
    names = list(columns)
    people = np.column_stack(list(columns.values()))
    try:
        lengths = _lengths(trial, step, asked, people, chance, largest=largest)
        best = people[np.argsort(-lengths)[:4]]
        for _ in range(_SWEEPS):
            for at, used in enumerate(trial.example.variables):
                options = values(used.variable)
                tried = np.repeat(best, len(options), axis=0)
                tried[:, at] = np.tile(options, len(best))
                lengths = _lengths(trial, step, asked, tried, chance, largest=largest)
                best = tried[np.argsort(-lengths)[:4]]
    except FluteError:  # a coordinator that sends these parameters gets nothing
        return {}, 0.0
    found = _lengths(trial, step, asked, best[:1], chance, largest=largest)
    return dict(zip(names, best[0].tolist(), strict=True)), float(found[0])


def _lengths(trial: Trial, step: int, asked: Array, people: Array, chance: Chance, *, largest: bool) -> Array:
    names = [u.variable.name for u in trial.example.variables]
    data = table(trial.example, {name: people[:, at] for at, name in enumerate(names)}, chance)
    rows = trial.rows(step, asked, data)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.abs(rows).max(axis=1, initial=0.0) if largest else np.linalg.norm(rows, axis=1)
    return np.where(np.isnan(lengths), np.inf, lengths)


def _joined(trial: Trial, one: dict[str, float], chance: Chance) -> Dataset:
    """The patients and one more, who stands in the middle; the others keep their pseudonyms."""
    columns = {u.variable.name: np.array([one.get(u.variable.name, 0.0)]) for u in trial.example.variables}
    return joined(trial.example, trial.data, table(trial.example, columns, chance), len(trial.data) // 2)


def _taken(trial: Trial, places: NDArray[np.int64]) -> Dataset:
    """The patients at these places; one that comes again gets a pseudonym of its own."""
    again = len(set(places.tolist())) < len(places)
    return taken(trial.example, trial.data, places, trial.chance("again") if again else None)


def _alike(trial: Trial, one: Array, other: Array) -> bool:
    """But for rounding, relative to the largest number."""
    if one.shape != other.shape:
        return False
    apart = trial.example.rounding
    return bool(np.allclose(one, other, rtol=apart, atol=max(1e-12, apart * float(np.abs(one).max(initial=0.0)))))


def _beyond(step: int, found: float, limit: float, one: dict[str, float]) -> str:
    return f"step {step}: a row comes to {found:.6g}, over the {limit:.6g} of its outline, for the patient {one}."


def _told(error: Exception) -> str:
    return f"{type(error).__name__} ({str(error)[:120]})"
