"""What a hub service is made of, and the few things that all its parts do with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from msgspec import Struct

from flute.aggregation.plan import PLANS
from flute.attestation.roots import MAKERS, Roots
from flute.data.source import RecordSource
from flute.hub.store import HubStore, StudyEntry
from flute.hub.trusted import Trust
from flute.ledger.budgets.budget import Ledger
from flute.ledger.journals.journal import Journal
from flute.messages.answer import Consent
from flute.messages.channel import Channel
from flute.messages.envelope import ID_SIZE, write_envelope
from flute.messages.question import JointQuestion
from flute.primitives.keys import AgreementKey, SigningKey
from flute.study.agreement import read_agreement
from flute.study.plans.encrypted import EncryptedSide
from flute.study.plans.jointly import Vector, Work, joint_talk
from flute.study.plans.sides import HubSide
from flute.study.plans.talk import Talk

COORDINATOR = "coordinator"
NO_DIGEST = bytes(32)
OWN_STUDIES = "catalogue-"
"""What the names begin with under which a hub charges its own releases; no researcher's study may be called so."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The process builds it from the hub's folder (`hub.process`); tests from what they like."""

    me: str
    signing: SigningKey
    sealing: AgreementKey
    store: HubStore
    journal: Journal
    ledger: Ledger
    trust: Trust
    sources: Callable[[bytes], RecordSource]
    """Snapshot digest to the frozen records."""
    channel: Channel
    now: Callable[[], int]
    entropy: Callable[[int], bytes] = os.urandom
    """Fresh operating-system entropy; an argument so that tests can replay."""
    roots: Roots = MAKERS
    """Whose word on enclaves counts; others exist only in tests."""

    def side(self, entry: StudyEntry) -> HubSide:
        """This hub in the aggregation of one study."""
        return HubSide(
            self.me,
            read_agreement(entry.agreement),
            entry.digest,
            self.trust.roster,
            load=lambda: self.store.member(entry.study),
            save=lambda state, vector: self.store.put_member(entry.study, state, vector),
            vector=lambda: self.store.vector(entry.study),
            key=self.signing,
            entropy=self.entropy,
        )

    def talk(self, entry: StudyEntry, asked: JointQuestion, work: Work) -> Talk[Vector]:
        """This hub's end of a computation among the study's hubs."""
        agreement = read_agreement(entry.agreement)
        return joint_talk(
            self.me, agreement, self.trust.roster, asked, work, key=self.signing, entropy=self.entropy
        )  # fmt: skip

    def encrypted(self, entry: StudyEntry) -> EncryptedSide:
        """This hub in the encrypted sums of one study."""
        return EncryptedSide(
            self.me,
            read_agreement(entry.agreement),
            entry.digest,
            self.trust.roster,
            load=lambda: self.store.member(entry.study),
            save=lambda state: self.store.put_member(entry.study, state),
            key=self.signing,
            entropy=self.entropy,
        )

    def decision(self, entry: StudyEntry) -> Consent:
        """What the coordinator is told of a decided study. A grant under masks comes with a new study key."""
        if entry.state == "withdrawn":
            return Consent(entry.digest, "withdrawn", None, NO_DIGEST)
        if entry.state != "granted":
            return Consent(entry.digest, "denied", None, NO_DIGEST)
        plan = PLANS[read_agreement(entry.agreement).plan.name]
        key = self.side(entry).study_key() if plan.masks else None
        return Consent(entry.digest, "granted", key, entry.snapshot)

    def envelope(self, body: Struct, study: str, answers: bytes, now: int) -> bytes:
        """A signed message, sealed to the coordinator. Raises: NotInRoster."""
        roster = self.trust.roster
        return write_envelope(
            body,
            key=self.signing,
            sender=self.me,
            recipient=COORDINATOR,
            roster_version=roster.version,
            now=now,
            rand=self.entropy(ID_SIZE),
            study=study,
            answers=answers,
            seal_to=roster.sealing_key(COORDINATOR),
        )
