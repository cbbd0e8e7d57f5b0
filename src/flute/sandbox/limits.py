"""What a study asks of a hub's machine for its own code, and what the hub grants."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flute.defaults.sandbox import MAX_THREADS, MAX_UNITS, MEMORY_RESERVE_BYTES
from flute.errors import MisuseError, SandboxRefusal


@dataclass(frozen=True, slots=True)
class Span:
    """From what a step needs at least, up to what it may use at most.

    Raises: MisuseError: the minimum is negative or above the maximum.
    """

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum < float("inf"):
            raise MisuseError(f"A span of {self.minimum} to {self.maximum} is none: 0 <= minimum <= maximum.")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one run, as the agreement states them.

    memory_bytes: of the step's own, beyond interpreter, libraries and input. cpu_s, wall_s: of all units together.
    units: that any hub has at most. Each has an equal share of the time of so many, however many a hub has: so no
    unit takes another's time, and neither shares nor refusals depend on how many patients there are.
    threads: at once, the step's first included (a step starts no processes at all). gpus: none are given to a
    sandbox; a minimum above 0 is refused. constant_time: units begin, and the result is handed over, at times that
    do not depend on what the step does.
    """

    memory_bytes: Span
    cpu_s: Span
    wall_s: Span
    units: int
    threads: Span = Span(1, 1)
    gpus: Span = Span(0, 0)
    constant_time: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.units <= MAX_UNITS:
            raise MisuseError(f"A run has 1 to {MAX_UNITS:,} units.")
        if self.threads.maximum < 1 or self.threads.maximum > MAX_THREADS:
            raise MisuseError(f"A step has 1 to {MAX_THREADS} threads.")
        if not (self.memory_bytes.maximum and self.cpu_s.maximum and self.wall_s.maximum):
            raise MisuseError("A step needs some memory, processor time and time.")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a hub is ready to give to one run, on this machine, now."""

    memory_bytes: float
    cpu_s: float = 3_600.0
    wall_s: float = 3_600.0
    threads: int = 1
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What one run gets: the stated maximum or, where that is less, what the hub offers."""

    memory_bytes: int
    cpu_s: float
    wall_s: float
    threads: int


def offer_of_machine() -> Offer:
    """All free memory but a reserve, and all processors. Graphics cards: none, whatever the machine has."""
    return Offer(max(_free_memory_bytes() - MEMORY_RESERVE_BYTES, 0), threads=len(os.sched_getaffinity(0)))


def admit(limits: Limits, offer: Offer) -> Grant:
    """Guarantees: what is granted is at least the stated minimum and at most the stated maximum, of everything.

    Raises: SandboxRefusal: the hub has less than the minimum; `reason` says of what.
    """
    asked = {
        "memory": (limits.memory_bytes, offer.memory_bytes, "bytes of memory"),
        "cpu": (limits.cpu_s, offer.cpu_s, "seconds of processor time"),
        "wall": (limits.wall_s, offer.wall_s, "seconds"),
        "processes": (limits.threads, offer.threads, "threads"),
        "gpu": (limits.gpus, offer.gpus, "graphics cards"),
    }
    for reason, (span, offered, unit) in asked.items():
        if offered < span.minimum:
            raise SandboxRefusal(
                f"This step needs at least {span.minimum:,.10g} {unit}; this hub can give {offered:,.10g} now.",
                reason=reason,
            )
    return Grant(
        int(min(limits.memory_bytes.maximum, offer.memory_bytes)),
        min(limits.cpu_s.maximum, offer.cpu_s),
        min(limits.wall_s.maximum, offer.wall_s),
        max(int(min(limits.threads.maximum, offer.threads)), 1),
    )


def _free_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
