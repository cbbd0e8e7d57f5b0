"""What every kind of journal line is made of."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from flute.defaults import MAX_ID_CHARS

Word = Annotated[str, Meta(max_length=MAX_ID_CHARS)]
"""Something that may not have been checked yet (the claimed sender of a refused message)."""
Short = Annotated[str, Meta(max_length=200)]


class Line(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Base of all kinds; holds nothing."""
