"""What a penalised regression tells: the model that the criterion picked, and the path it was picked from."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from flute.algorithms.design import Design, raw_scaling, transfer
from flute.algorithms.linear import LEAST_INFORMED, model_table, or_none, plain_numbers, wald_table
from flute.models.regression.penalised_path import Path, Point

_SAID: Final = {
    "converged": (
        "The fit converged. A penalised fit has no standard errors: what the penalty takes from a coefficient is "
        "bias, which they would not show."
    ),
    "noised": (
        "The agreed noised sums were opened, and the penalty was added afterwards, which cost no budget. A penalised "
        "fit has no standard errors."
    ),
    "noise-dominated": (
        "The noise outweighs what these patients tell; do not use these coefficients. Give the question a larger "
        "share of the budget, fewer predictors or more hubs."
    ),
    "not-converged": "The steps that were agreed did not suffice; do not use these coefficients.",
    "one-outcome": "Everybody has the same outcome; there is nothing to fit.",
    "no-data": "No patient had the values that this model needs.",
}


def told(spec: Any, design: Design, path: Path) -> dict[str, Any]:
    rows = [_row(spec, path, point) for point in path.points]
    picked = _picked(spec, rows) if path.ending in ("converged", "noised") else -1
    nothing = np.full(design.size, np.nan)
    b = path.points[picked].coefficients if picked >= 0 else nothing
    raw = transfer(design, path.scaling, raw_scaling(design)) @ b
    ending = path.ending
    if ending == "noised" and path.informed is not None and path.informed < LEAST_INFORMED:
        ending = "noise-dominated"
    said = wald_table(b, None) if spec.family == "binomial" else {"standard_errors": None, "p": None}
    return {
        **model_table(spec, design, path.scaling, b, raw),
        "coefficients": or_none(b),
        "raw_coefficients": or_none(raw),
        **said,
        "raw_standard_errors": None,
        "noise_standard_errors": None,
        "family": spec.family,
        "l1_ratio": spec.l1_ratio,
        "strength": spec.strengths[picked] if picked >= 0 else None,
        "chosen_by": spec.choose_by,
        "path": rows,
        "n": max(0, round(path.n)),
        "n_noise_se": float(path.n_noise),
        "informed": path.informed,
        "ending": ending,
        "ending_column": "",
        "ending_text": _SAID[ending],
        "not_estimated": list(path.absent),
    }


def _row(spec: Any, path: Path, point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {
        "strength": point.strength,
        "coefficients": plain_numbers(point.coefficients),
        "columns_kept": int(np.count_nonzero(point.coefficients[1:])),
        "degrees_of_freedom": point.freedom,
    }
    if point.deviance is None:
        return {**row, "deviance": None, "aic": None, "bic": None}
    fit = point.deviance
    if spec.family == "gaussian":
        fit = path.n * float(np.log(2 * np.pi * max(point.deviance, 1e-300) / path.n) + 1)
    return {
        **row,
        "deviance": point.deviance,
        "aic": fit + 2 * point.freedom,
        "bic": fit + float(np.log(path.n)) * point.freedom,
    }


def _picked(spec: Any, rows: list[dict[str, Any]]) -> int:
    """The least criterion, the larger strength of equal ones; the first where there is none."""
    if rows[0][spec.choose_by] is None:
        return 0
    return int(np.argmin([row[spec.choose_by] for row in rows]))
