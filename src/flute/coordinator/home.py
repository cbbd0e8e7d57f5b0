"""The coordinator's folder, and what its start needs to know.

coordinator.json   federation, addresses
keys/              signing and sealing keys; the signing key is TUF's online key as well
authority/         the engine's certificate authority
kit/               certificate and key of the engine's server
roster/            published TUF metadata
coordinator.db     studies, rounds, results
coordinator-bodies/   long vectors of rounds
mail/              mailbox of the wire
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from flute.coordinator.plans.aggregators import AggregatorConfig
from flute.defaults import MAX_AGGREGATORS, ROUND_TIMEOUT_S
from flute.homes import private_folder, read_config, write_config
from flute.messages.limits import Name

Port = Annotated[int, Meta(ge=1, le=65535)]
Host = Annotated[str, Meta(min_length=1, max_length=255)]


class CoordinatorConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`engine_host` must be the DNS name in the engine's certificate; it binds loopback for localhost.
    `round_timeout_s`: a round in which a hub stays silent this long is given up and repeated."""

    federation: Annotated[str, Meta(max_length=64)]
    engine_host: Host
    engine_port: Port
    api_host: Host
    api_port: Port
    round_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = ROUND_TIMEOUT_S
    aggregators: Annotated[dict[Name, AggregatorConfig], Meta(max_length=MAX_AGGREGATORS)] = {}
    """Of plan enclave, by the names that agreements use; neither address nor policy is trusted by any hub."""


class CoordinatorHome:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.keys = self.folder / "keys"
        self.authority = self.folder / "authority"
        self.kit = self.folder / "kit"
        self.roster = self.folder / "roster"
        self.database = self.folder / "coordinator.db"
        self.mail = self.folder / "mail"

    def config(self) -> CoordinatorConfig:
        """Raises: MisuseError: the folder is no coordinator's."""
        return read_config(self.folder / "coordinator.json", CoordinatorConfig, made_by="flute coordinator init")

    def write_config(self, config: CoordinatorConfig) -> None:
        private_folder(self.folder)
        write_config(self.folder / "coordinator.json", config)
