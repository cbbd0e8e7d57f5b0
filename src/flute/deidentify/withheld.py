"""Why an object or a resource is not released."""

from __future__ import annotations

from flute.errors import Unmappable


class Withheld(Unmappable):
    """An object or resource that is not released. `reason`: a fixed word, for counting; the text holds no value."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
