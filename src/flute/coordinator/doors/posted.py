"""What callers of the coordinator's API post, and are given back as it was posted."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from flute.study.agreement import MAX_AGREEMENT_BYTES


class StudyPosted(Struct, frozen=True, forbid_unknown_fields=True):
    """A study agreement and the researcher's signature over it, both base64."""

    agreement: Annotated[bytes, Meta(max_length=2 * MAX_AGREEMENT_BYTES)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class StopPosted(Struct, frozen=True, forbid_unknown_fields=True):
    why: Annotated[str, Meta(min_length=1, max_length=500)]
