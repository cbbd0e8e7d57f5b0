"""Constants of networks, with unit and reason."""

from __future__ import annotations

from typing import Final

MAX_WEIGHTS: Final = 2_000_000
"""Of one network: what a question may carry (16 MB of numbers), so that a round stays one message each way."""
MAX_NETWORK_NUMBERS: Final = 2**25
"""What a network's layers give for one patient, together: 134 MB while her gradient is worked out."""
MAX_BATCH_NUMBERS: Final = 2**28
"""The same for a whole batch: 1 GB, and about as much again for gradients."""
MAX_NESTED: Final = 4
"""Residual layers within each other; deeper networks stand one layer after the other."""
CHANGE_BOUND: Final = 4.0
"""How far one round moves a weight at one hub at most: a network whose weights move farther is not being trained, and
exact sums need a public bound."""
GRADIENT_BOUND: Final = 4.0
"""Of each coordinate of a mean gradient, which SCAFFOLD opens beside the change."""
LOSS_CAP: Final = 16.0
"""Of a mean loss, in nats: the outcome was called 1 in 9 million."""
INPUT_REACH: Final = 8.0
"""Units of the study's scale that a predictor reaches at most: inputs stay numbers that a network can use, however
small a spread the study file states."""
ADAM_RATE: Final = 0.01
"""Step of the server's Adam where a study states none: the middle of what Reddi et al. 2021 found good (10^-2.5 to
10^-1.5) for networks of images."""
ADAM_DECAYS: Final = (0.9, 0.99)
"""Of the first and the second moment. Source: Reddi et al. 2021, section 5."""
ADAM_FLOOR: Final = 1e-3
"""tau, added to the root of the second moment. Source: the same."""
SCORED_AT_ONCE: Final = 64
"""Patients whose risks are worked out together."""
MAX_WEIGHTS_HEADER_BYTES: Final = 2**20
"""Names and shapes of a safetensors file: a few hundred tensors take 30 kB."""
MONAI_LARGEST_ARGUMENT: Final = 1024
"""Of any number in a MONAI network's arguments, so that sizing it stays a matter of a second."""
