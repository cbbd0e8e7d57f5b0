"""A hub's folder: what lies where, and what may be backed up.

hub.json          who this hub is and where its coordinator's engine listens
keys/             private keys; never leave, never copied
kit/              certificate and key of the engine's wire
roster.state      newest roster seen (TUF metadata); never goes back
journal.db        the journal: budget and audit log are views of it
hub.db            datasets, studies, answers          may be backed up
hub-bodies/       long answers of hub.db              may be backed up with it
secrets.db        ticket secrets, channel keys        in NO backup
mail/             mailbox of the wire
records/          frozen datasets (Parquet), one file per snapshot
holdings.db       imports, profiles, decisions, withdrawals   may be backed up
catalogue/        declarations and released statistics        may be backed up
face.json         digests of the FHIR face's tokens
intake/           what was read so far, with the hospital's ids   in NO backup
images/           de-identified images, by pseudonym
witness.json      where the newest head of the journal is kept; else ../NAME.witness, in NO backup of this folder
api.socket        the steward's door (Unix socket, owner only)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from flute.homes import private_folder, read_config, short_socket, write_config, write_private
from flute.messages.limits import Key, PartyId


class HubConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`pseudonym_key`: keys the hash that makes pseudonyms; this hub's own, so that two hubs' pseudonyms
    cannot be compared. The other fields are public."""

    hub: PartyId
    federation: Annotated[str, Meta(max_length=64)]
    pseudonym_key: Key
    root_fingerprint: Annotated[str, Meta(max_length=64)] = ""


class HubHome:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.keys = self.folder / "keys"
        self.kit = self.folder / "kit"
        self.journal = self.folder / "journal.db"
        self.mail = self.folder / "mail"
        self.records = self.folder / "records"
        self.roster_state = self.folder / "roster.state"

    @property
    def socket(self) -> Path:
        return short_socket(self.folder, "api.socket")

    def config(self) -> HubConfig:
        """Raises: MisuseError: the folder is no hub's."""
        return read_config(self.folder / "hub.json", HubConfig, made_by="flute hub init")

    def write_config(self, config: HubConfig) -> None:
        private_folder(self.folder)
        write_config(self.folder / "hub.json", config)

    def write_roster_state(self, state: bytes) -> None:
        write_private(self.roster_state, state)
