"""Hazard ratios of groups from their life tables: Cox's model with the group as its only predictor, noise included.

With d_j events of all groups in bin j, Y_gj at risk and hazards e^b_g against the first group, ties by Breslow,
    score of b_g      sum_j d_gj - d_j p_gj,   p_gj = Y_gj e^b_g / sum_h Y_hj e^b_h
    information       sum_j d_j (diag(p_j) - p_j p_j').
Noise moves the score by what it moves each count (`life_tables.RiskTable.noise`), and b by the information's inverse
times that.
Sources: Cox 1972; Breslow 1974.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flute.algorithms.scores import Z_95
from flute.data.variables import Array
from flute.defaults.summaries import RATIO_LARGEST_LOG, RATIO_STEPS, RATIO_TOLERANCE
from flute.summaries.blocks import interval
from flute.summaries.survival.life_tables import Life, RiskTable, risk_table


def hazard_ratios(lives: Mapping[str, Life]) -> dict[str, Any]:
    """Per group against the first; None where a group has nobody, no event, or no finite ratio."""
    names = [name for name, life in lives.items() if life.n >= 1]
    first = next(iter(lives))
    none = dict.fromkeys(name for name in lives if name != first)
    if first not in names or len(names) < 2:
        return none
    table = risk_table([lives[name] for name in names])
    if not (table.smooth * table.used).sum(axis=1).min() > 0 or (fitted := _fitted(table)) is None:
        return none
    logs, inverse = fitted
    noise = inverse @ table.noise(np.exp(np.append(0.0, logs)))[1:, 1:] @ inverse
    errors = zip(logs.tolist(), np.sqrt(np.diag(inverse)), np.sqrt(np.diag(noise)), strict=True)
    return none | dict(zip(names[1:], (_shown(*error) for error in errors), strict=True))


def _shown(logged: float, sampling: float, noise: float) -> dict[str, Any]:
    found = interval(logged, sampling, noise, Z_95)
    ends = {key: float(np.exp(found[key])) for key in ("value", "low", "high")}
    return {**ends, "log_se": found["se"], "log_sampling_se": found["sampling_se"], "log_noise_se": found["noise_se"]}


def _fitted(table: RiskTable) -> tuple[Array, Array] | None:
    """Logarithms [groups - 1] and the information's inverse; None where steps find no finite maximum.

    The likelihood is concave; a step that lowers it is halved."""
    logs = np.zeros(len(table.lives) - 1)
    here = _likelihood(table, logs)
    for _ in range(RATIO_STEPS):
        score, information = _derivatives(table, logs)
        if np.linalg.cond(information) > 1e12:
            return None
        step = np.linalg.solve(information, score)
        if np.abs(step).max() < RATIO_TOLERANCE:
            return logs, np.asarray(np.linalg.inv(information), dtype=np.float64)
        while (there := _likelihood(table, logs + step)) < here - 1e-9 * abs(here):
            step = step / 2
        logs, here = logs + step, there
        if np.abs(logs).max() > RATIO_LARGEST_LOG:
            return None
    return None


def _likelihood(table: RiskTable, logs: Array) -> float:
    weighted = table.risks * np.exp(np.append(0.0, logs))[:, None]
    events = table.smooth * table.used
    logged = np.log(np.where(table.used, weighted.sum(axis=0), 1.0))
    return float(events.sum(axis=1)[1:] @ logs - events.sum(axis=0) @ logged)


def _derivatives(table: RiskTable, logs: Array) -> tuple[Array, Array]:
    share = table.shares(np.exp(np.append(0.0, logs)))
    events = table.smooth * table.used
    total = events.sum(axis=0)
    score = events.sum(axis=1) - share @ total
    information = np.diag(share @ total) - (share * total) @ share.T
    return np.asarray(score[1:]), np.asarray(information[1:, 1:])
