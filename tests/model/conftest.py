"""Signatures are verified once each: the same verdict again is remembered, for a search asks for it thousands of
times. Everything else runs as it is."""

from __future__ import annotations

import pytest

from flute.aggregation import member, tickets
from flute.errors import BadSignature
from flute.primitives import keys


@pytest.fixture(autouse=True)
def _verdicts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts: dict[tuple[bytes, bytes, bytes], str | None] = {}

    def verify(public: bytes, signature: bytes, message: bytes) -> None:
        asked = public, signature, message
        if asked not in verdicts:
            try:
                keys.verify(*asked)
                verdicts[asked] = None
            except BadSignature as error:
                verdicts[asked] = str(error)
        if (why := verdicts[asked]) is not None:
            raise BadSignature(why)

    monkeypatch.setattr(member, "verify", verify)
    monkeypatch.setattr(tickets, "verify", verify)
