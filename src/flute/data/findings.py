"""What is wrong with one resource: where, by which rule, what stood there, and how to mend it.

A finding is for the data manager's own eyes and stays at the hub: `found` may quote a value. What is journaled,
counted or sent knows findings only by their `reason`.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

Reason = Literal[
    "malformed-json",
    "malformed-row",
    "too-long",
    "required-element-missing",
    "wrong-type",
    "id-invalid",
    "duplicate-id",
    "file-broken",
    "format-not-read",
    "reference-not-resolved",
    "transaction-refused",
    "unknown-element",
    "status-not-final",
    "code-not-in-value-set",
    "unit-not-convertible",
    "value-out-of-range",
    "date-invalid",
    "profile-not-met",
]
REASONS: tuple[str, ...] = get_args(Reason)
MAX_FOUND_CHARS = 120


class Finding(Struct, frozen=True, forbid_unknown_fields=True):
    """`path`: the element as FHIRPath from the resource. `rule`: id of the broken rule ("r4", "psa-unit", …).

    `found`: what stood there, shortened. `mend`: a sentence that says what to change, and where. `warning`: the
    resource is taken all the same.
    """

    reason: Annotated[str, Meta(max_length=64)]
    path: Annotated[str, Meta(max_length=300)]
    rule: Annotated[str, Meta(max_length=64)]
    found: Annotated[str, Meta(max_length=MAX_FOUND_CHARS)]
    mend: Annotated[str, Meta(max_length=500)]
    warning: bool = False


def shown(value: object) -> str:
    """A value as a finding quotes it: one line, at most MAX_FOUND_CHARS characters, each of which can be printed."""
    text = " ".join(str(value)[: 10 * MAX_FOUND_CHARS].split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= MAX_FOUND_CHARS else text[: MAX_FOUND_CHARS - 1] + "…"
