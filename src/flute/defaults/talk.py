"""Limits of talks: hubs that compute together through the coordinator."""

from __future__ import annotations

from typing import Final

MAX_BOX_BYTES: Final = 2**24
"""From one hub to one other in one step (16 MiB, two million field elements): three hubs fit an envelope."""
MAX_TALK_STEPS: Final = 20_000
"""Steps of one talk. The longest program of today takes about 500; at 80 ms each this many take half an hour."""
TALK_OVERHEAD_BYTES: Final = 16
"""A box is longer than what it holds by the tag of its encryption."""
