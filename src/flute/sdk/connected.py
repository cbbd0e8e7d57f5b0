"""Real hubs behind a coordinator. Their stewards decide; the notebook waits, and may be closed meanwhile.

Proposed agreements are kept in the person's key folder, one file each, so that another kernel of this person finds
its runs again: what they were about, and what they cost. The coordinator keeps the rest.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

from flute.coordinator.client import CoordinatorClient
from flute.errors import Answered, Malformed, MisuseError, PeerUnreachable, TooLarge
from flute.homes import private_folder, write_private
from flute.sdk.place import Account
from flute.sdk.terms import Conditions
from flute.study.agreement import Agreement, read_agreement, write_agreement
from flute.trust.keyfiles import load_person_key

_SUFFIX: Final = ".agreement"


class ConnectedPlace:
    """`person`: folder of the person's key. `federation`: its name, which is compared with what the coordinator says.

    Raises: PeerUnreachable: nobody answers at `url`. MisuseError: another federation. KeyFileError: the key."""

    conditions: Conditions | None = None

    def __init__(
        self, url: str, person: Path, *, federation: str | None = None, hubs: tuple[str, ...] | None = None,
        simulated: bool = False,
    ) -> None:  # fmt: skip
        health = _health(url)
        found = str(health["federation"])
        if federation is not None and federation != found:
            raise MisuseError(f"At {url} answers federation {found!r}, not {federation!r}.")
        key = load_person_key(person)
        self.name = f"federation {found}"
        self.researcher = key.party
        self.simulated = simulated
        self.hubs = tuple(sorted(hubs if hubs is not None else health["connected"]))
        self._client = CoordinatorClient(url, found, key)
        self._folder = private_folder(private_folder(person / "studies") / found)

    def prepare(self, agreement: Agreement) -> None:
        """The hubs have their records."""

    def propose(self, agreement: Agreement) -> None:
        write_private(self._folder / f"{agreement.study}{_SUFFIX}", write_agreement(agreement))
        try:
            self._client.propose(agreement)
        except Answered:
            (self._folder / f"{agreement.study}{_SUFFIX}").unlink(missing_ok=True)
            raise

    def status(self, study: str) -> dict[str, Any]:
        status: dict[str, Any] = self._client.get(f"/studies/{study}")
        if status["state"] == "ready":
            status = self._client.run(study)
        return status

    def stop(self, study: str, why: str) -> None:
        self._client.post(f"/studies/{study}/stop", {"why": why})

    def release(self, study: str) -> dict[str, Any]:
        release: dict[str, Any] = self._client.get(f"/studies/{study}/release")
        return release

    def traffic(self, study: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._client.get(f"/studies/{study}/traffic")["traffic"]
        return rows

    def agreements(self) -> dict[str, Agreement]:
        """Those that the coordinator has: a proposal that never reached it was none. A damaged file is as if it were
        not there."""
        arrived = {str(row["study"]) for row in self._client.get("/studies")}
        found: dict[str, Agreement] = {}
        for file in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(Malformed, TooLarge, OSError):
                agreement = read_agreement(file.read_bytes())
                if agreement.study in arrived:
                    found[agreement.study] = agreement
        return found

    def taken(self) -> set[str]:
        return {str(row["study"]) for row in self._client.get("/studies")}

    def accounts(self, dataset: str) -> list[Account]:
        """A hub's ledger is its steward's to read: nothing but what the releases say is known here."""
        return [Account(hub, told=False) for hub in self.hubs]

    def catalogue(self) -> list[dict[str, Any]]:
        """Raises: MisuseError: catalogue entries are published by the hubs' owners, not by the coordinator."""
        raise MisuseError(
            "This coordinator keeps no catalogue: hubs publish their entries themselves ('flute hub catalogue'). "
            "Take the variables from such an entry: flute.Variables.read('dictionary.yaml')."
        )

    def close(self) -> None:
        self._client.close()


def _health(url: str) -> dict[str, Any]:
    with CoordinatorClient(url, "", None) as unsigned:
        health = unsigned.get("/health")
    if not isinstance(health, dict) or "federation" not in health or "connected" not in health:
        raise PeerUnreachable(f"What answers at {url} is no coordinator.")
    return health
