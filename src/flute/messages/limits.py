"""Bounded field types that every message is made of. A message has no field without a bound."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from flute.defaults import MAX_HUBS, MAX_ID_CHARS, MAX_TEXT_CHARS

PartyId = Annotated[str, Meta(min_length=2, max_length=32, pattern=r"^[a-z][a-z0-9-]*\Z")]
"""A hub, a person or the coordinator: lower case letters, digits, hyphens."""
Name = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*\Z")]
"""A study, question, variable or algorithm."""
StudyId = Annotated[str, Meta(max_length=MAX_ID_CHARS, pattern=r"^([a-z][a-z0-9-]*)?\Z")]
"""Empty where a message belongs to no study."""
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
JournalHead = Annotated[bytes, Meta(max_length=512)]
"""A signed head as `ledger.journals.heads` writes it."""
Count = Annotated[int, Meta(ge=0, le=2**62)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]
"""Unix time, whole seconds, UTC."""
HubIndex = Annotated[int, Meta(ge=1, le=MAX_HUBS)]
Code = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS, pattern=r"^[a-z][a-z0-9-]*\Z")]
"""A stable error or state code."""
