"""Sizes of the attacks on networks, with unit and reason."""

from __future__ import annotations

from typing import Final

HEART_PATIENTS: Final = 32
"""Of whom each is in a model that learns them by heart or not: few, so that it can."""
HEART_ROUNDS: Final = 6
"""Of ordinary training that is to learn by heart."""
HEART_EPOCHS: Final = 15
"""Passes over a hub's patients in each of them."""
HEART_RATE: Final = 0.2
"""Its learning rate."""
INVERSION_STARTS: Final = 2
"""Random inputs that a search for one begins at, beside what was read off directly."""
INVERSION_STEPS: Final = 300
"""Of one search."""
FOUND: Final = 1e-6
"""Distance of directions below which no other start is tried: 32 bits show about as much."""
NUMBERS_REACH: Final = 4.0
"""Units of a network's scale that a sought number may have: half a declared range is 2."""
SMOOTH: Final = 1e-8
"""Weight of the mean difference between neighbouring pixels beside the distance of directions."""
UNROLLED: Final = 8
"""Local steps that a search follows; those after are taken to point the same way."""
MOST_WEIGHTS: Final = 50_000
"""Of a network that the suite attacks: its attacks train it a few hundred times."""
MOST_NUMBERS: Final = 500_000
"""What such a network's layers give for one patient."""
SLOW_NUMBERS: Final = 5_000
"""Opened by all steps of a network; from so many on fewer worlds are played."""
RECORDS: Final = 12
"""Patients whose images are sought, in clear and under the plan: a search takes about a second."""
PRIVATE_STEPS: Final = 2
"""Steps of a private network that a search reads: where the inputs lie, and the first gradient."""
