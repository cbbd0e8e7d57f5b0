"""Parties with keys made from their names, and a roster that is a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flute.errors import NotInRoster
from flute.primitives.keys import AgreementKey, SigningKey


@dataclass
class Party:
    """Keys of one party, made from its name: the same in every run."""

    name: str

    @property
    def signing(self) -> SigningKey:
        return SigningKey(self.name.encode().ljust(32, b"s")[:32])

    @property
    def sealing(self) -> AgreementKey:
        return AgreementKey(self.name.encode().ljust(32, b"x")[:32])


@dataclass
class TableRoster:
    """A roster that is a table: what `open_envelope` needs, without TUF."""

    parties: Mapping[str, Party]
    version: int = 1
    revoked: set[str] = field(default_factory=set)

    def _party(self, name: str) -> Party:
        if name not in self.parties or name in self.revoked:
            raise NotInRoster(f"{name} is not in the roster.")
        return self.parties[name]

    def signing_key(self, party: str) -> bytes:
        return self._party(party).signing.public

    def sealing_key(self, party: str) -> bytes:
        return self._party(party).sealing.public
