"""The steward's door, as the catalogue's commands use it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Self

from flute.hub.doors.client import HubClient


class CatalogueClient(HubClient):
    """Raises PeerUnreachable where no service answers, Answered with the hub's own words."""

    def __enter__(self) -> Self:
        return self

    def catalogue(self, dataset: str) -> Any:
        return self.get(f"/catalogue/{dataset}")

    def declare(self, dataset: str, text: str, *, person: str) -> Any:
        return self._call("PUT", f"/catalogue/{dataset}", json={"text": text, "person": person})

    def release(self, dataset: str, *, epsilon: float, person: str, variables: Sequence[str] = ()) -> Any:
        asked = {"epsilon": epsilon, "person": person, "variables": list(variables)}
        return self._call("POST", f"/catalogue/{dataset}/release", json=asked)

    def publish(self, dataset: str, *, person: str, shown: bool) -> Any:
        """The signed listing, for the coordinator."""
        return self._call("POST", f"/catalogue/{dataset}/publish", json={"person": person, "shown": shown})

    def files(self, dataset: str) -> dict[str, bytes]:
        """The entry's files by name."""
        found = self.get(f"/catalogue/{dataset}/files")
        return {name: base64.b64decode(content) for name, content in found.items()}
