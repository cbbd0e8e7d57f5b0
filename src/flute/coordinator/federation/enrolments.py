"""How hubs come in at the coordinator: invitations, requests, admissions. Membership is the owners' to sign."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Engine, select
from sqlalchemy.dialects.sqlite import insert as upsert

from flute.coordinator.store import ENROLMENT
from flute.defaults import INVITATION_LIFETIME_S
from flute.errors import JoinRefused, MisuseError
from flute.primitives.keys import fingerprint
from flute.transport.identity import Authority, approve
from flute.trust.enrolment import (
    TOKEN_SIZE,
    Invitation,
    join_digest,
    read_join,
    token_digest,
    verify_join,
    write_admission,
    write_invitation,
)
from flute.trust.keyfiles import PartyKeys
from flute.trust.roster import Hub, Roster, keys_of, members


class Enrolments:
    """Requests to join, by hub. An invitation is for one hub name and serves once."""

    def __init__(self, engine: Engine, federation: str, keys: PartyKeys, authority: Authority) -> None:
        self._engine = engine
        self._federation = federation
        self._keys = keys
        self._authority = authority

    def invite(self, hub: str, *, api_url: str, now: int, rand: bytes) -> str:
        """An invitation as text, to be mailed. `rand`: TOKEN_SIZE fresh bytes.

        Raises: MisuseError: the hub has joined already."""
        row = self._row(hub)
        if row is not None and row["state"] == "admitted":
            raise MisuseError(f"{hub} was admitted already; a hub that lost its keys joins under a new name.")
        invitation = Invitation(
            federation=self._federation,
            coordinator=self._keys.party,
            api_url=api_url,
            engine_url=self._authority.kit.url,
            coordinator_fingerprint=fingerprint(self._keys.signing.public),
            ca_fingerprint=self._authority.fingerprint,
            token=rand[:TOKEN_SIZE],
            expires=now + INVITATION_LIFETIME_S,
        )
        self._put(hub, token=token_digest(invitation.token), expires_at=invitation.expires, state="invited")
        return write_invitation(invitation)

    def receive(self, raw: bytes, roster: Roster | None, now: int) -> Hub:
        """A request to join; the same one again changes nothing.

        Raises: JoinRefused, Stale, BadSignature, Malformed, TooLarge."""
        request = read_join(raw)
        row = self._row(request.hub)
        if row is None:
            raise JoinRefused(f"Nobody invited a hub called {request.hub}. Ask the coordinator for an invitation.")
        if row["request"] is not None and row["request"] != raw:
            raise JoinRefused(f"A request of {request.hub} is here already; the invitation serves once.")
        entry = verify_join(
            request,
            federation=self._federation,
            expected_token_digest=row["token"],
            expires=row["expires_at"],
            now=now,
            taken_ids=self._taken_ids(roster, request.hub),
            taken_keys=self._taken_keys(roster, request.hub),
        )
        if row["request"] is None:
            self._put(request.hub, request=raw, state="asked")
        return entry

    def admitted(self) -> list[Hub]:
        """Roster entries of hubs that somebody admitted, for the next roster."""
        return self._entries(ENROLMENT.c.state == "admitted")

    def waiting(self) -> list[Hub]:
        """Roster entries of hubs that asked, admitted or not."""
        return self._entries(ENROLMENT.c.request.is_not(None))

    def _entries(self, which: ColumnElement[bool]) -> list[Hub]:
        with self._engine.begin() as db:
            rows = db.execute(select(ENROLMENT).where(which).order_by(ENROLMENT.c.hub))
            requests = [read_join(row.request) for row in rows]
        return [Hub(r.hub, r.signing_key, r.sealing_key, r.owner_key, r.tls_common_name) for r in requests]

    def admit(self, hub: str, root: bytes) -> bytes:
        """Sign the hub's certificate and answer its request; a person has compared its fingerprint.

        Raises: MisuseError: it has not asked."""
        row = self._row(hub)
        if row is None or row["request"] is None:
            raise MisuseError(f"{hub} has not asked to join yet.")
        if row["admission"] is not None:
            return bytes(row["admission"])
        request = read_join(row["request"])
        admission = write_admission(
            request,
            signing=self._keys.signing,
            sealing_key=self._keys.sealing.public,
            kit_zip=approve(self._authority, hub, request.csr_zip),
            root=root,
        )
        self._put(hub, admission=admission, state="admitted")
        return admission

    def admission(self, hub: str, request: bytes) -> bytes | None:
        """The answer to a request that is named by its digest; None while it waits."""
        row = self._row(hub)
        if row is None or row["request"] is None or join_digest(read_join(row["request"])) != request:
            raise JoinRefused(f"There is no such request of {hub} here.")
        return None if row["admission"] is None else bytes(row["admission"])

    def _row(self, hub: str) -> dict[str, Any] | None:
        with self._engine.begin() as db:
            row = db.execute(select(ENROLMENT).where(ENROLMENT.c.hub == hub)).mappings().first()
        return None if row is None else dict(row)

    def _put(self, hub: str, **values: object) -> None:
        with self._engine.begin() as db:
            first = {"token": b"", "expires_at": 0, "state": "invited"} | values
            statement = upsert(ENROLMENT).values(hub=hub, **first)
            db.execute(statement.on_conflict_do_update(index_elements=["hub"], set_=values))

    def _taken_ids(self, roster: Roster | None, hub: str) -> set[str]:
        known = {party.id for party in members(roster.content)} if roster else set()
        return (known | {h.id for h in self.waiting()}) - {hub} | {"coordinator"}

    def _taken_keys(self, roster: Roster | None, hub: str) -> set[bytes]:
        known = [p for p in members(roster.content) if p.id != hub] if roster else []
        return {k for p in (*known, *(h for h in self.waiting() if h.id != hub)) for k in keys_of(p)}
