"""The steward's door, as the FHIR face uses it."""

from __future__ import annotations

from typing import Self

import msgspec

from flute.errors import Malformed
from flute.face.app import Read
from flute.face.process import Held
from flute.hub.doors.catalogue import DATASETS, READS
from flute.hub.doors.client import HubClient


class FaceDoor(HubClient):
    """Raises PeerUnreachable where no service answers, Answered with the hub's own words."""

    def __enter__(self) -> Self:
        return self

    def held(self) -> tuple[Held, ...]:
        """Raises: Malformed: the service is of another version."""
        try:
            return msgspec.convert(self.get(DATASETS), tuple[Held, ...])
        except msgspec.ValidationError as error:
            raise Malformed(
                "The hub service tells of its datasets in another form; is it of another version?"
            ) from error

    def note_read(self, read: Read) -> None:
        """Once this returns, the read is in the journal."""
        said = {name: getattr(read, name) for name in ("holder", "dataset", "what", "kind", "resources")}
        self._call("POST", READS, json={**said, "person": read.person.hex()})
