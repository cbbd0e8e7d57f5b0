"""Limits of plan `enclave`: aggregators that add up hubs' shares."""

from __future__ import annotations

from typing import Final

from flute.defaults import MAX_VECTOR, SENTINELS

MIN_AGGREGATORS: Final = 2
"""One aggregator would see every hub's answer."""
CHECKS: Final = 64
"""Check numbers behind every vector: each misses a changed total with chance 1/2, so all of them with 2^-64."""
CHECK_PART: Final = 4_096
"""Words of a vector whose check numbers are added up at a time: their bits (256 kB) stay in the cache."""
SEAL_BYTES: Final = 48
"""A sealed box is longer than what it holds by the sender's fresh key (32) and the tag (16)."""
MAX_SHARE_BYTES: Final = 8 * (MAX_VECTOR + SENTINELS + CHECKS)
"""One share of one vector at 64 bits; what an aggregator takes from one hub, and gives back."""
MAX_DUTY_BYTES: Final = 2**21
"""A call that asks an aggregator for a key: an agreement (256 kB) and a roster (1 MB)."""
MAX_CALL_BYTES: Final = MAX_SHARE_BYTES + 2**16
"""One call to an aggregator: a box, its signature, the digests of the other boxes."""
MAX_OPEN_ROUNDS: Final = 16
"""Rounds that an aggregator keeps at a time; each holds one share (32 MB at most) and a key."""
MAX_TOOL_OUTPUT_BYTES: Final = 2**21
"""What a program that fetches evidence may print: evidence and collateral in base64."""
TOOL_TIMEOUT_S: Final = 30.0
"""One call of a program that talks to a TPM or fetches evidence; a TPM chip signs within 1 s."""
AGGREGATOR_PORT: Final = 8_097
"""Where an aggregator listens on this machine unless it is told otherwise."""
MEASURED_REGISTER: Final = 23
"""The TPM register that takes the aggregator's measurement: for applications (TCG PC Client profile). Whoever runs
the machine can reset it, so it is for DEVELOPMENT."""
MAX_SOURCE_FILE_BYTES: Final = 2**24
"""One file of the package that is measured; the largest of today has 30 kB."""
