"""A question caught on its way to a hub, and what a hostile sender can make of it.

The federation is real (`support.inprocess`): the study was proposed, consented and started, and the
coordinator's own question waits undelivered. Every attack changes one thing about it, so a refusal can have
one reason only, and the untouched question is the control.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from flute.coordinator.desk import ACCEPTS as COORDINATOR_ACCEPTS
from flute.data.variables import Variable
from flute.hub.service import ACCEPTS, HubService
from flute.hub.store import HubPolicy
from flute.ledger.budgets.budget import Level
from flute.ledger.journals.journal import verify
from flute.ledger.lines.entries import Refused as RefusedLine
from flute.messages.answer import Refused
from flute.messages.envelope import (
    ID_SIZE,
    Envelope,
    Header,
    Opened,
    kind_of,
    open_envelope,
    parse_envelope,
    write_envelope,
)
from flute.messages.question import OwnQuestion, SecureQuestion
from flute.study.agreement import Agreement
from flute.trust.roster import Roster
from support.inprocess import Columns, InProcessFederation, TestHub
from support.parties import Party

T = TypeVar("T", bound=Struct)
QUESTIONS = ("secure-question", "own-question")
RECORD_VALUES = ("47.131719", "191.41414")
"""Written into the hub's records; no text that leaves may hold them."""
NAMES = ("north", "south", "west", "ada", "mallory", "eve")


def marked_people(hubs: tuple[str, ...] = ("north", "south", "west"), n: int = 40) -> dict[str, Columns]:
    """The same small table at every hub, with values that would be recognised anywhere."""
    columns: dict[str, Sequence[Any]] = {
        "age": [float(RECORD_VALUES[0]), *(30.0 + i for i in range(n - 1))],
        "pressure": [float(RECORD_VALUES[1]), *(90.0 + i for i in range(n - 1))],
        "sex": [i % 2 for i in range(n)],
        "grade": [("low", "mid", "high")[i % 3] for i in range(n)],
        "ill": [int(i % 5 < 2) for i in range(n)],
    }
    return {hub: dict(columns) for hub in hubs}


@dataclass
class Caught:
    """The coordinator's next question to `hub`, in clear, with the federation around it."""

    fed: InProcessFederation
    hub: TestHub
    raw: bytes
    header: Header
    body: SecureQuestion | OwnQuestion
    ids: int = field(default=1)

    @property
    def service(self) -> HubService:
        return self.hub.service

    @property
    def charged(self) -> tuple[float, int]:
        account = self.hub.parts.ledger.account(Level.STUDY, self.header.study)
        return account.reserved + account.settled, account.exact_numbers

    def fresh_id(self) -> bytes:
        self.ids += 1
        return self.ids.to_bytes(ID_SIZE, "big")

    def forge(self, body: Struct | None = None, *, signer: str = "coordinator", **changed: Any) -> bytes:
        """The question anew with some things changed, correctly sealed and signed by `signer`'s key."""
        values: dict[str, Any] = {
            "sender": self.header.sender,
            "recipient": self.header.recipient,
            "roster_version": self.header.roster_version,
            "now": self.fed.now,
            "rand": self.fresh_id(),
            "study": self.header.study,
            "round": self.header.round,
            "seal_to": Party(self.hub.name).sealing.public,
        }
        return write_envelope(body or self.body, key=Party(signer).signing, **(values | changed))

    def with_header(self, **changed: Any) -> bytes:
        """The very same sealed body under a changed header, signed anew by the coordinator."""
        envelope = parse_envelope(self.raw)
        header = msgspec.structs.replace(envelope.header, **changed)
        from flute.messages.envelope import _to_sign

        signature = Party("coordinator").signing.sign(_to_sign(header, envelope.body))
        return msgspec.msgpack.encode(Envelope(header, envelope.body, signature))

    def set_roster(self, roster: Roster, *, at_coordinator: bool = True) -> None:
        self.hub.parts.trust.roster = roster  # type: ignore[misc]  # FixedTrust is a plain dataclass
        if at_coordinator:
            self.fed.roster = roster

    def set_policy(self, **changed: Any) -> None:
        policy = msgspec.structs.replace(self.fed.policy, **changed)
        self.hub.steward.set_policy(policy, person="eva")

    def opened_reply(self, reply: bytes) -> Opened:
        """A reply as the coordinator opens it."""
        return open_envelope(
            reply, me="coordinator", roster=self.hub.parts.trust.roster, accepts=COORDINATOR_ACCEPTS,
            now=self.fed.now, key=Party("coordinator").sealing,
        )  # fmt: skip

    def lines(self, kind: type[T]) -> list[T]:
        """The hub's journal lines of one kind, in order."""
        return [line.entry for line in self.hub.parts.journal.lines() if isinstance(line.entry, kind)]

    def refused_lines(self) -> list[RefusedLine]:
        return self.lines(RefusedLine)


def catch(
    folder: Path, agreement: Agreement, variables: tuple[Variable, ...], *, policy: HubPolicy, hub: str = "north",
    run: bool = True, people: Mapping[str, Columns] | None = None,
) -> Caught:  # fmt: skip
    """Bring a study to the point where its first question to `hub` is on the way."""
    fed = InProcessFederation(folder, people or marked_people(), variables, policy=policy)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)
    raw = _next_question(fed, fed.hubs[hub])
    opened = open_at_hub(fed, hub, raw)
    assert isinstance(opened.body, SecureQuestion | OwnQuestion)
    return Caught(fed, fed.hubs[hub], raw, opened.header, opened.body)


def open_at_hub(fed: InProcessFederation, hub: str, raw: bytes) -> Opened:
    return open_envelope(raw, me=hub, roster=fed.roster, accepts=ACCEPTS, now=fed.now, key=Party(hub).sealing)


def _next_question(fed: InProcessFederation, caught: TestHub) -> bytes:
    """Deliver everything but the first question to `caught`; that one is taken off the channel."""
    while True:
        for hub in fed.hubs.values():
            delivery = hub.parts.channel.receive(0)
            if delivery is None:
                continue
            if hub is caught and parse_envelope(delivery.body).header.kind in QUESTIONS:
                hub.parts.channel.done(delivery)
                return delivery.body
            hub.service.deal(delivery)
        while (delivery := fed.channel.receive(0)) is not None:
            fed.runner.receive(delivery.body)
            fed.channel.done(delivery)


def expect_refusal(caught: Caught, raw: bytes, code: str, *, opened: int | None = None) -> Refused:
    """Hand `raw` to the hub: a typed refusal comes back, is journaled, costs nothing and reads nothing."""
    before, charged = len(caught.hub.source.opened), caught.charged
    lines = len(caught.refused_lines())
    reply = caught.service.reply_to(raw)
    assert reply is not None
    answer = caught.opened_reply(reply)
    assert isinstance(answer.body, Refused), kind_of(answer.body)
    assert answer.body.code == code, (answer.body.code, answer.body.text)
    check_text(answer.body.text)
    journaled = caught.refused_lines()
    assert len(journaled) == lines + 1
    assert (journaled[-1].code, journaled[-1].text) == (code, answer.body.text)
    assert len(caught.hub.source.opened) == (before if opened is None else opened), "the records were read"
    assert caught.charged == charged, "a refused question was charged"
    verify(caught.hub.folder / "journal.db", caught.hub.parts.signing.public)
    return answer.body


def check_text(text: str) -> None:
    """A sentence for a person: nothing of a record, a key or a stack trace in it."""
    assert text.endswith("."), text
    assert 20 < len(text) <= 600, text
    assert text[0].isupper() or text.split()[0] in NAMES, text
    assert not re.search(r"Traceback|File \"|\.py\b|\b0x|Error\(|\bb'|<class|\n", text), text
    assert not any(value in text for value in RECORD_VALUES), text
    for name in ("north", "south", "west", "coordinator", "ada"):
        assert not any(k.hex() in text for k in (name.encode().ljust(32, b"s"), name.encode().ljust(32, b"x"))), text
