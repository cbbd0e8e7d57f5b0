"""The FHIR face as a process of its own, beside the running hub.

It holds no key, opens no database and writes nothing: it knows the hub's folder only by the frozen snapshots and the
tokens' digests. Which snapshot a dataset has now, and what is hidden, it asks the hub through the steward's door
before every answer; through the same door every read goes into the journal before it is answered. So what listens on
a network is apart from what signs, decides and counts, and without the hub service nothing is answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import uvicorn
from msgspec import Struct

import flute
from flute.conformance.model import Model
from flute.data.variables import Variable
from flute.defaults import DOOR_STOP_S, LOOPBACK
from flute.defaults.records import FACE_MAX_CALLS, FACE_MAX_QUERY_CHARS, FACE_PORT
from flute.errors import MisuseError
from flute.face.access import read_tokens, require_address
from flute.face.app import Read, make_face
from flute.face.shelf import Shelf, Shown
from flute.hub.home import HubHome
from flute.hub.store import DatasetEntry
from flute.intake.snapshot import SnapshotSource
from flute.messages.limits import Name

Faces = Callable[[Sequence[Variable]], tuple[Model, Shown] | None]
"""Variables of a dataset to the common model it is shown by; None where there is none."""


class Held(Struct, frozen=True, forbid_unknown_fields=True):
    """A dataset as the door tells of it. `snapshot`: hexadecimal."""

    name: Name
    snapshot: str
    variables: tuple[Variable, ...]
    imported_at: int
    simulated: bool
    hidden: tuple[Name, ...]


class Door(Protocol):
    """The hub service, as far as the face needs it. Raises: FluteError: it does not answer, or says no."""

    def held(self) -> Sequence[Held]:
        """The hub's datasets as they are now."""
        ...

    def note_read(self, read: Read) -> None:
        """Journal a read; on disk when this returns."""
        ...


class HubShelves:
    """Shelves of the hub's datasets as they are now. A shelf is kept until its dataset has another snapshot."""

    def __init__(self, folder: Path, held: Callable[[], Sequence[Held]], faces: Faces) -> None:
        self._folder, self._held, self._faces = folder, held, faces
        self._kept: dict[str, tuple[Held, Shelf | None]] = {}
        self._turn = threading.Lock()

    def __call__(self) -> Mapping[str, Shelf]:
        """Raises: PeerUnreachable, Answered: the hub does not tell. SourceError: a snapshot cannot be read."""
        with self._turn:
            now = {held.name: held for held in self._held()}
            self._kept = {name: kept for name, kept in self._kept.items() if name in now}
            for name, held in now.items():
                if name not in self._kept or self._kept[name][0] != held:
                    self._kept[name] = (held, self._shelf(held))
            return {name: shelf for name, (_, shelf) in self._kept.items() if shelf is not None}

    def _shelf(self, held: Held) -> Shelf | None:
        visible = tuple(v for v in held.variables if v.name not in held.hidden)
        face = self._faces(visible)
        if face is None:
            return None
        model, shown = face
        digest = bytes.fromhex(held.snapshot)
        entry = DatasetEntry(held.name, digest, held.variables, {}, held.imported_at, held.simulated)
        variables = Shelf.variables(entry, shown, held.hidden)
        return Shelf(entry, model, shown, variables, SnapshotSource(self._folder, digest).open(variables))


def serve_face(
    folder: Path,
    faces: Faces,
    door: Door,
    *,
    host: str = LOOPBACK,
    port: int = FACE_PORT,
    private_network: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT. `tls`: certificate and key. Tokens are read anew for every call.

    Raises: MisuseError: an address it may not listen on, no hub in the folder, nobody has a token.
      KeyFileError: the tokens' file is open to others."""
    require_address(host, private_network=private_network, tls=tls is not None)
    home = HubHome(folder)
    home.config()
    if not read_tokens(home.folder).digests:
        raise MisuseError("Nobody could read: make a token first, with 'flute hub face-token'.")
    app = make_face(
        HubShelves(home.folder, door.held, faces),
        lambda token: read_tokens(home.folder).holder(token),
        door.note_read,
        flute.__version__,
    )
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        http="h11",  # the one whose limit on a call's head can be set
        limit_concurrency=FACE_MAX_CALLS,
        h11_max_incomplete_event_size=16 * FACE_MAX_QUERY_CHARS,
        timeout_graceful_shutdown=DOOR_STOP_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    uvicorn.Server(config).run()
