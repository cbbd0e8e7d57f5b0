"""Private logistic regression at a hub: how a patient's row is written, and why no row is longer than agreed.

Columns are z = x C (`coding`), x the design's own columns with numbers on the study's reference scale. z spends
a patient's norm as the model needs it, from public facts alone:
    a number          (value - centre) / spread, squared norm 1 for an ordinary patient;
    a binary          -1 or +1, squared norm 1 for everybody;
    K levels          the corners of a regular simplex around 0, squared norm K - 1 for everybody;
    missing           1 in a column of its own where "indicate" is agreed, the value's columns at 0 then;
    the intercept     a constant whose square is _INTERCEPT_SHARE of r^2.
r^2 is the sum of the squared norms above. Noise covers a sum with the same deviation in every direction, so a
column in which patients differ little drowns first; were levels equally frequent and predictors uncorrelated,
every direction of z would have the same variance.

Step 0 opens [upper triangle of z~ z~' / 4 with off-diagonals times sqrt 2, (y - 1/2) z~], z~ = z shrunk to norm at
most r beside its intercept, so |z~|^2 <= R^2 = intercept^2 + r^2 and the row's norm is at most
sqrt((R^2 / 4)^2 + (R / 2)^2).
Later steps are asked at coefficients b and directions A, both worked out from what was opened before, and open
    w (y - p) A z,  p = expit(b z),  w = 1 / max(1, |A z| max(p, 1 - p)):
no row is longer than 1, whatever b and A were sent. w depends on z alone, not on y, so the equations E[w (y - p) A z]
= 0 stay true at the model's own coefficients: bounding costs precision, it moves no coefficient.
Source: conditionally unbiased bounded-influence estimators, Kuensch, Stefanski and Carroll 1989.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import expit

from flute.algorithms.contract import StepShape, StudyVariable
from flute.algorithms.design import Design, Mask, Scaling, bounds
from flute.algorithms.newton import logits
from flute.data.variables import Array

_INTERCEPT_SHARE: Final = 0.2
"""Mean loss of AUC over seven data sets, relative: 1.03 at .15, 1 at .2, .99 at .3; 1.06 at .1 (private_linear)."""
_STEP_WEIGHTS: Final = (0.30, 0.12, 0.18, 0.40)
"""Parts of the question's budget: moments, then three gradients. Relative loss 1.06 at (.4, .12, .16, .32), .99 at
(.25, .12, .2, .43), 1.23 with two gradients at (.4, .15, .45). Nothing of an early gradient is lost: `private_linear`
weighs every step by what it tells."""
_LARGEST_DIRECTION: Final = 1e9
"""Of one entry of A: z has at most 64 columns of at most 1e6 each, so products stay finite whatever was sent."""


def private_scaling(design: Design) -> Scaling:
    """Public scale of x: the study's reference, or middle and quarter of the range where it gives none."""
    centres, spreads = [], []
    for used in design.numbers:
        low, high = bounds(used)
        given = used.scale == "reference"
        centres.append(used.centre if given else (low + high) / 2)
        spreads.append(used.spread if given else (high - low) / 4)
    return Scaling(np.array(centres), np.array(spreads), np.array(centres))


def row_radius(design: Design) -> float:
    """r: bound of the norm of z~ beside its intercept, the norm of an ordinary patient."""
    return float(np.sqrt(sum(_squared_norm(used) for used in design.predictors)))


def _squared_norm(used: StudyVariable) -> int:
    return len(used.variable.levels) - 1 if used.variable.kind == "category" else 1


def intercept(design: Design) -> float:
    """The constant that stands in z's first column."""
    return float(np.sqrt(_INTERCEPT_SHARE)) * row_radius(design)


def coding(design: Design) -> Array:
    """C [p, p], invertible: z = x C; coefficients b over z are C b over x."""
    code = np.eye(design.size)
    code[0, 0] = intercept(design)
    for used in design.predictors:
        name, kind = used.variable.name, used.variable.kind
        at = [i for i, c in enumerate(design.columns) if c.variable == name and c.kind in ("binary", "level")]
        if kind == "number" or not at:
            continue
        reference, others = _corners(used)
        code[0, at] = reference
        code[np.ix_(at, at)] = others - reference
        if (flag := design.position(name, "missing")) >= 0:
            code[flag, at] = -reference
    return code


def _corners(used: StudyVariable) -> tuple[Array, Array]:
    """Where the reference level stands, [K - 1], and the others, [K - 1, K - 1]; a binary is -1 and +1."""
    count = max(len(used.variable.levels), 2)
    across = np.tril(-np.ones((count - 1, count)), 0)
    for row in range(count - 1):
        across[row, row + 1] = row + 1
    corners = (across / np.linalg.norm(across, axis=1)[:, None] * np.sqrt(count)).T
    return corners[0], corners[1:]


def _row_norm(design: Design) -> float:
    return float(np.hypot(intercept(design), row_radius(design)))


def private_outline(design: Design) -> tuple[StepShape, ...]:
    """Shapes of step 0 and the gradient steps. Norms are proved in the module's head."""
    p, norm = design.size, _row_norm(design)
    moments = float(np.hypot(norm**2 / 4, norm / 2))
    first = StepShape("moments", p + p * (p + 1) // 2, moments, _STEP_WEIGHTS[0], moments)
    later = [StepShape(f"gradient-{k}", p, 1.0, weight, 1.0) for k, weight in enumerate(_STEP_WEIGHTS[1:], start=1)]
    return (first, *later)


def moment_factors(size: int) -> Array:
    """What the upper triangle of z~ z~' is multiplied with in step 0, [p (p + 1) / 2]."""
    i, j = np.triu_indices(size)
    return np.where(i == j, 1.0, np.sqrt(2)) / 4


def moment_rows(design: Design, x: Array, outcome: Array, included: Mask) -> Array:
    """Per-patient rows of step 0, [n, p + p (p + 1) / 2], from x [n, p] by `private_scaling`."""
    short = x @ coding(design)
    norms, radius = np.linalg.norm(short[:, 1:], axis=1), row_radius(design)
    short[:, 1:] *= np.minimum(1.0, radius / np.maximum(norms, radius))[:, None]
    i, j = np.triu_indices(design.size)
    gradient = ((outcome == 1) - 0.5)[:, None] * short
    return np.hstack([short[:, i] * short[:, j] * moment_factors(design.size), gradient]) * included[:, None]


def gradient_rows(design: Design, x: Array, outcome: Array, included: Mask, asked: Array) -> Array:
    """Per-patient rows of a later step, [n, p], none longer than 1.

    `asked`: b [p] over z, then A [p, p] row by row, any finite numbers.
    """
    p = design.size
    z = x @ coding(design)
    fitted = expit(logits(z, asked[:p]))
    moved = z @ np.clip(asked[p:].reshape(p, p), -_LARGEST_DIRECTION, _LARGEST_DIRECTION).T
    weight = 1 / np.maximum(1.0, np.linalg.norm(moved, axis=1) * np.maximum(fitted, 1 - fitted))
    return np.asarray((weight * ((outcome == 1) - fitted) * included)[:, None] * moved)
