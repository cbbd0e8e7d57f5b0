"""Constants of trees, forests, boosting and support vector machines, with unit and reason."""

from __future__ import annotations

from typing import Final

MAX_STEP_NUMBERS: Final = 40_000
"""Of one step of such a model: rows of 1,000 patients then take 320 MB while they are summed, as wide as they get."""
MAX_MODEL_NUMBERS: Final = 50_000
"""What one model is, as later questions carry it: half of what a question may carry (messages.question)."""
LEAST_GAIN: Final = 1e-9
"""Of a split, in units of its criterion: less is the fixed point's rounding, and separates nobody."""
LARGEST_MARGIN: Final = 50.0
"""Log odds that a boosted model's margin is kept within: e^-50 is no chance, and gradients stay numbers."""
MAX_DECISION: Final = 64.0
"""How far on the wrong side of its margin a patient counts at most, so that one patient's part of a sum has a public
bound; at a solution that is worth having nobody is near it."""
SVM_STEPS: Final = 80
"""Gradients of one exact support vector machine: ten on the pilot, 64 on 30 columns that almost separate patients."""
SVM_TOLERANCE: Final = 1e-5
"""Of a step: no patient's decision value would move by more, where a margin is 1."""
