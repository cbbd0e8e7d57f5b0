"""Constants of private training of networks, with unit and reason.

"Chosen" ones were chosen on other divisions, cohorts and noise than `benchmarks/private_deep.py` reports on."""

from __future__ import annotations

from typing import Final

INPUT_PART: Final = 0.1
"""Of the question's budget: the means and spreads of its inputs, before the first gradient. Chosen: without them the
pilot's AUC at epsilon 0.5 is .034 lower (.813 to .848)."""
INPUT_UNIT: Final = 2.0
"""An input counts as 1, where means and spreads are opened, that is so far from its public centre: half of a range
that reads as -2 to 2."""
INPUT_MOST: Final = 1.5
"""What one counts as at most."""
COUNT_PART: Final = 0.5
"""What each patient adds to the count, beside a norm of 1 for everything else."""
UNIFORM_SQUARE: Final = 1 / 3
"""Mean square of what is anywhere in [-1, 1] alike: squares are opened less this, which keeps rows short."""
CELLS: Final = {2: 8, 3: 4}
"""Of a mean image along every side, by how many sides it has: 64 numbers for each channel, so that their noise stays
small; a side with fewer pixels has a cell for each."""
LEAST_SPREAD: Final = 0.1
"""Of an input's variance, beside the mean one of all inputs: noise alone could make it 0."""
LEAST_VARIANCE: Final = 0.005
"""Of the mean variance of all inputs, in squares of INPUT_UNIT: images that differ less count as if they did."""
TYPICAL_CLIP: Final = 0.35
"""clip_norm 1 in units of a typical patient's gradient were she called wrong for certain. Chosen: a third of it does
alike; about three times as much loses .004 of AUC on breast cancer and .05 on diabetes at epsilon 0.5."""
FILTER_PACE: Final = 0.5
"""Of the filters of a convolution that an image reaches first, beside other weights: they are few, and each moves all
that lies behind, so that noise on them costs most. Chosen on four other outcomes of the digits, two trials of each:
at epsilon 0.5 and 1 the AUC is .005 and .009 higher than at a pace of 1, at 10 alike; half of this loses .002 at
10."""
BIAS_UNIT: Final = 0.3
"""How long the last bias's part of a gradient is beside a typical rest of 1: it takes a twentieth of the norm."""
LOG_ODDS_NOISE: Final = 0.5
"""Deviation, in log odds of a typical patient, of the noise that all steps together may bring: rates follow from it.
Chosen, on breast cancer and diabetes at epsilon 0.5: five times as much loses .004 and .03 of AUC, half of it .007
and .02; on the pilot twice as much does alike."""
LARGEST_RATE: Final = 5.0
"""Of one step, in units of what moves a typical patient's log odds by 1 where all patients agree. Beyond, steps
overshoot: without a limit the pilot loses .004 of AUC at epsilon 10."""
DIRECTIONS: Final = 16
"""In which the typical length of a gradient is measured: it is then known to a third, its root to a sixth."""
MADE_UP_INPUTS: Final = 8
"""At which it is measured."""
MEASURED_NUMBERS: Final = 2**31
"""What layers give in all these measurements together; for larger networks fewer directions are tried: a minute."""
BLOCK_BYTES: Final = 100_000_000
"""For the gradients that are worked out together."""
MOST_AT_ONCE: Final = 256
"""Patients whose gradients are worked out together, however small the network."""
