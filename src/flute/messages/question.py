"""What the coordinator may say to a hub. None of it makes a hub do anything: the hub's gate decides."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from flute.defaults import MAX_HUBS, MAX_PARAMETERS_BYTES
from flute.defaults.threshold import MAX_KEY_ATTEMPTS
from flute.messages.enclave import EnclaveStart
from flute.messages.limits import Code, Count, Digest, JournalHead, Name, Signature, StudyId, Text
from flute.messages.protocol import Echoes, Start, StudyKey, Survivors
from flute.messages.threshold import Contribution

Parameters = Annotated[bytes, Meta(max_length=MAX_PARAMETERS_BYTES)]
"""Public input of a step (coefficients, centres, spreads, weights) as `messages.numbers` writes it. The gate checks
that it is whole numbers, and finite; the algorithm, that it is as many as the step takes."""
FileName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[0-9]*[.]?[a-z]+[.][a-z]+$")]


class Proposal(Struct, frozen=True, forbid_unknown_fields=True, tag="proposal"):
    """A study agreement for the steward to read, signed by the researcher it names."""

    agreement: Annotated[bytes, Meta(max_length=256 * 1024)]
    signature: Signature


class TicketCall(Struct, frozen=True, forbid_unknown_fields=True, tag="ticket-call"):
    """Asks for a live ticket (T). `keys`: every hub's signed study key, so that channels can be set up.
    `after`: the highest serial of this hub's tickets that the coordinator counts as burnt."""

    agreement: Digest
    after: Count
    keys: Annotated[tuple[StudyKey, ...], Meta(max_length=MAX_HUBS)]


class SecureQuestion(Struct, frozen=True, forbid_unknown_fields=True, tag="secure-question"):
    """Message 0: one step of one question over all hubs, to be answered under masks."""

    agreement: Digest
    question: Name
    step: Count
    attempt: Count
    parameters: Parameters
    start: Start


class SurvivorsSaid(Struct, frozen=True, forbid_unknown_fields=True, tag="survivors-said"):
    """Message 2: whose vectors arrived."""

    survivors: Survivors


class EchoesSaid(Struct, frozen=True, forbid_unknown_fields=True, tag="echoes-said"):
    """Message 4: every hub's tag over the survivor set."""

    echoes: Echoes


class OwnQuestion(Struct, frozen=True, forbid_unknown_fields=True, tag="own-question"):
    """One step of a question that each hub answers for itself, under its own noise alone."""

    agreement: Digest
    question: Name
    step: Count
    attempt: Count
    parameters: Parameters


class JointQuestion(Struct, frozen=True, forbid_unknown_fields=True, tag="joint-question"):
    """One step of one question, to be computed by the hubs together, on shares. round: the coordinator's number of
    the attempt, so that no two talks are one."""

    agreement: Digest
    question: Name
    step: Count
    attempt: Count
    parameters: Parameters
    round: Count


class KeyCall(Struct, frozen=True, forbid_unknown_fields=True, tag="key-call"):
    """Asks the hubs of a study under plan threshold-he to make its key together. attempt: from 1, each higher."""

    agreement: Digest
    attempt: Annotated[int, Meta(ge=1, le=MAX_KEY_ATTEMPTS)]


class EncryptedQuestion(Struct, frozen=True, forbid_unknown_fields=True, tag="encrypted-question"):
    """One step of one question over all hubs, to be answered encrypted. key: digest of the study's public key."""

    agreement: Digest
    question: Name
    step: Count
    attempt: Count
    parameters: Parameters
    round: Count
    key: Digest


class OpeningCall(Struct, frozen=True, forbid_unknown_fields=True, tag="opening-call"):
    """All hubs' contributions to one sum, for each hub to add up, and to open by its part of the key."""

    contributions: Annotated[tuple[Contribution, ...], Meta(max_length=MAX_HUBS)]


class SplitQuestion(Struct, frozen=True, forbid_unknown_fields=True, tag="split-question"):
    """One step of one question over all hubs, to be answered in shares for the aggregators that `start` offers.

    masked: message 0 of the masks that the answer is put under before it is split (plan secagg-enclave), or None.
    """

    agreement: Digest
    question: Name
    step: Count
    attempt: Count
    parameters: Parameters
    start: EnclaveStart
    masked: Start | None = None


AnyQuestion = SecureQuestion | JointQuestion | EncryptedQuestion | SplitQuestion | OwnQuestion
"""What a gate admits: each reads records, and each is charged."""


class RoundClosed(Struct, frozen=True, forbid_unknown_fields=True, tag="round-closed"):
    """What became of a release, so that the hub can settle its reservation. It stays charged either way."""

    release: Digest
    outcome: Code
    total: Digest
    """Digest of the opened total, all zero where none was opened; every hub gets the same to compare."""


class RosterFiles(Struct, frozen=True, forbid_unknown_fields=True, tag="roster-files"):
    """TUF metadata; it proves itself by the owners' signatures, whoever hands it over.

    head: the newest head of this hub's journal that the coordinator was given; the hub's own signature proves it.
    """

    files: Annotated[dict[FileName, Annotated[bytes, Meta(max_length=512 * 1024)]], Meta(max_length=8)]
    head: JournalHead = b""


class StudyClosed(Struct, frozen=True, forbid_unknown_fields=True, tag="study-closed"):
    """The study has ended; the hub erases its study keys and unused tickets."""

    agreement: Digest
    study: StudyId
    state: Code
    why: Text
