"""Real hubs behind a coordinator. Their stewards decide; the notebook waits, and may be closed meanwhile.

The coordinator carries what hubs say and is not believed: decisions, charges and catalogue entries count where their
hub signed them, by the keys of a roster that the hubs' owners signed (`sdk.hubs.known_roster`).

Proposed agreements are kept in the person's key folder, one file each, so that another kernel of this person finds
its runs again: what they were about, and what they cost. The coordinator keeps the rest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from flute.catalogue.listing import SignedListing, check_listing, read_listing
from flute.coordinator.doors.client import CoordinatorClient
from flute.coordinator.doors.posted import StudyPosted
from flute.errors import Answered, Equivocation, Malformed, MisuseError, PeerUnreachable, TooLarge
from flute.homes import private_folder, write_private
from flute.messages.accounts import NONCE_SIZE, ask_accounts
from flute.sdk.hubs.known_roster import KnownRoster
from flute.sdk.hubs.told import account_of, read_told
from flute.sdk.place import Account, Document
from flute.sdk.terms import Conditions
from flute.study.agreement import (
    Agreement,
    agreement_digest,
    check_agreement_signature,
    read_agreement,
    write_agreement,
)
from flute.trust.keyfiles import load_person_key

_SUFFIX: Final = ".agreement"


class ConnectedPlace:
    """`person`: folder of the person's key. `federation`: its name, which is compared with what the coordinator says.
    `root`: fingerprint of the federation's root, as a hub owner read it out; None: the first one that is seen.

    Raises: PeerUnreachable: nobody answers at `url`. MisuseError: another federation. KeyFileError: the key."""

    conditions: Conditions | None = None

    def __init__(
        self, url: str, person: Path, *, federation: str | None = None, hubs: tuple[str, ...] | None = None,
        simulated: bool = False, root: str | None = None,
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
        self._key = key.key
        self._federation = found
        self._folder = private_folder(private_folder(person / "studies") / found)
        self.known = KnownRoster(self._folder / "roster.state", lambda: self._client.get("/roster"), found, root)
        if root is not None:
            self.known.roster(_now())

    @property
    def fingerprint(self) -> str:
        self.known.roster(_now())
        return self.known.fingerprint

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

    def document(self, study: str) -> Document:
        """As the coordinator has it and hands it to hubs. Raises: BadSignature, Equivocation."""
        try:
            posted = msgspec.convert(self._client.get(f"/studies/{study}/agreement"), type=StudyPosted)
        except msgspec.ValidationError as error:
            raise Malformed(f"What the coordinator gave as the agreement of {study} cannot be read.") from error
        check_agreement_signature(posted.agreement, posted.signature, self._key.public)
        kept = self._folder / f"{study}{_SUFFIX}"
        same = read_agreement(posted.agreement).study == study
        if not same or (kept.exists() and kept.read_bytes() != posted.agreement):
            raise Equivocation(
                f"The coordinator shows another agreement of {study} than the one that was proposed from here. Do "
                "not use its results, and tell the hubs' stewards."
            )
        return Document(posted.agreement, signed=True)

    def accounts(self, runs: Sequence[str], dataset: str) -> list[Account]:
        """Raises: BadSignature, Equivocation, RosterError: the coordinator shows what hubs did not say."""
        known = self.agreements()
        agreements = {run: agreement_digest(write_agreement(known[run])) for run in runs if run in known}
        told = {}
        if agreements:
            now, nonce = _now(), os.urandom(NONCE_SIZE)
            call = ask_accounts(
                self._key, self.researcher, self._federation, tuple(agreements), now=now, rand=nonce
            )  # fmt: skip
            answer = self._client.post("/accounts", call)
            told = read_told(
                answer, nonce=nonce, key_of=lambda hub: self.known.hub_key(hub, now), agreements=agreements
            )  # fmt: skip
        hubs = sorted({*self.hubs, *(hub for run in agreements for hub in known[run].hubs)})
        return [account_of(hub, told.get(hub), dataset, asked=bool(agreements)) for hub in hubs]

    def catalogue(self) -> list[dict[str, Any]]:
        """What hubs published. Raises: BadSignature, RosterError: the coordinator shows what hubs did not say."""
        now = _now()
        found = []
        for said in _listings(self._client.get("/catalogue")):
            listing = read_listing(said)
            check_listing(said, listing, self.known.hub_key(listing.hub, now))
            if listing.federation != self._federation:
                raise Equivocation(f"{listing.hub} published its entry in another federation than this one.")
            if listing.entry is not None:
                entry = listing.entry
                found.append({
                    "hub": listing.hub, "dataset": listing.dataset, "about": entry.description, "entry": entry,
                    "variables": tuple(v.variable for v in entry.variables),
                })  # fmt: skip
        return found

    def close(self) -> None:
        self._client.close()


def _listings(said: Any) -> tuple[SignedListing, ...]:
    try:
        return msgspec.convert(said, type=tuple[SignedListing, ...])
    except msgspec.ValidationError as error:
        raise Malformed("What the coordinator gave as the catalogue cannot be read.") from error


def _now() -> int:
    return int(time.time())


def _health(url: str) -> dict[str, Any]:
    with CoordinatorClient(url, "", None) as unsigned:
        health = unsigned.get("/health")
    if not isinstance(health, dict) or "federation" not in health or "connected" not in health:
        raise PeerUnreachable(f"What answers at {url} is no coordinator.")
    return health
