"""Constants of the sandbox for a researcher's own step, with unit and reason."""

from __future__ import annotations

from typing import Final

MAX_SOURCE_BYTES: Final = 2**16
"""One module of a step: some 1,500 lines, about what a reviewer can read."""
MAX_SOURCE_DEPTH: Final = 60
"""Brackets within brackets; deeper nesting is for breaking parsers, which this is refused before."""
MAX_MODEL_BYTES: Final = 256 * 2**20
"""An exported model; the sizes of today's networks for tables and images, not of language models."""
MAX_WEIGHTS_BYTES: Final = 1 * 2**30
"""One safetensors file."""
MAX_WEIGHTS_HEADER_BYTES: Final = 2**20
"""Its header: 60 bytes for each of MAX_TENSORS arrays, and room. The format itself would allow 100 MB."""
MAX_TENSORS: Final = 10_000
MAX_PARAMETERS: Final = 10_000
"""Named arrays that a step is given beside the rows."""
MAX_DIMENSIONS: Final = 8
MAX_NAME_BYTES: Final = 200
MAX_VALUES: Final = 2**27
"""Numbers of one array, input or output: 1 GiB in float64; judged by the declared shape, before anything is made."""
MAX_UNITS: Final = 1_000_000
"""Units of one run: each costs two forks, 3 to 7 ms."""
MAX_OUTPUTS: Final = 1_000_000
"""Numbers that a step gives for one unit: 8 MB, held three times."""
MAX_LOG_BYTES: Final = 2**16
"""What a step prints, for the steward, of one run; the rest is dropped."""
MAX_UNIT_LOG_BYTES: Final = 2**12
"""Of one unit."""
MAX_THREADS: Final = 256
START_TIMEOUT_S: Final = 30.0
"""Interpreter and libraries; nothing has been sent yet, so this time tells nobody anything. PyTorch takes 2 s."""
STOP_POLL_S: Final = 0.2
"""How often a run looks whether it should go on."""
KILL_GRACE_S: Final = 0.5
"""After the stated maximum: how long the sandbox may take to stop by itself before it is killed."""
HANDOVER_S: Final = 1.0
"""After the stated maximum: when the result is handed over, whatever happened. Covers the grace and the killing."""
MIN_SLOT_S: Final = 0.02
"""Shortest time for one unit: a fork, the filter and a small computation take 3 ms on an idle machine."""
TEARDOWN_S: Final = 0.005
"""End of a slot in which a unit no longer runs: it is killed and its memory given back before the next begins."""
TEARDOWN_S_PER_GIB: Final = 0.15
"""The same for the memory that it may hold; measured 0.06 s per GiB."""
MEMORY_RESERVE_BYTES: Final = 512 * 2**20
"""Of the machine's free memory: never offered to a step."""
INTERPRETER_BYTES: Final = 2**30
"""What interpreter, libraries and buffers may hold beside the step's own memory, where a control group counts all."""
RUNNER_USER: Final = 65534
"""`nobody`: who a hub that runs as root starts the sandbox as. Root itself is not bound by limits on processes."""
