"""The study agreement: what a researcher asks for and every hub consents to, word for word.

It is one closed struct with canonical bytes. Its digest is in every ticket, every release id and every
receipt, so nobody can ask under it what it does not say. It fixes beforehand all that decides privacy:
fields, questions, clip norms, noise, the number of vectors opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from flute.algorithms.contract import Mode, Scope, Setting, Spec, StudyVariable
from flute.defaults import MAX_AGGREGATORS, MAX_HUBS, MAX_PATIENTS
from flute.errors import BadSignature, Malformed, TooLarge, WrongStudy
from flute.messages.limits import Digest, Name, PartyId, Seconds, StudyId, Text
from flute.primitives.keys import SigningKey, digest, verify
from flute.questions.registry import ANY_SPEC, algorithm_for

VERSION: Final = 3
MAX_AGREEMENT_BYTES: Final = 256 * 1024
_SIGNED: Final = b"flute/agreement/v1"
if TYPE_CHECKING:
    _What = Spec
else:
    _What = ANY_SPEC  # decoders need the closed union, which installed packages may widen


class HubConditions(Struct, frozen=True, forbid_unknown_fields=True):
    """On what ground a hub takes part; a data protection officer reads these."""

    legal_basis: Annotated[str, Meta(min_length=1, max_length=500)]
    ethics_approval: Annotated[str, Meta(min_length=1, max_length=500)]
    retain_until: Seconds
    """Until when results may be kept. Nothing deletes them by itself yet; whoever holds them has to."""


class PlanChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """How answers are protected, how many hubs may collude with the coordinator, and how many may be missing.

    dropouts: hubs without whose answers a sum may still be opened; the noise of the others then has to do.
    echo: hubs sign the set of answers before they open its sum. Without it a round takes two messages instead of
    three, and a coordinator that lies can reach smaller sets: only for one that is trusted to be honest but curious.
    openers: plan threshold-he: how many hubs' parts of the key open a total; 0 for one more than may collude.
    aggregators: plan enclave: the enclaves that add up, each by the name under which the roster approves its policy.
    """

    name: Name = "secagg"
    colluding: Annotated[int, Meta(ge=0, le=MAX_HUBS)] = 1
    dropouts: Annotated[int, Meta(ge=0, le=MAX_HUBS)] = 0
    echo: bool = True
    openers: Annotated[int, Meta(ge=0, le=MAX_HUBS)] = 0
    aggregators: Annotated[tuple[Name, ...], Meta(max_length=MAX_AGGREGATORS)] = ()


class Question(Struct, frozen=True, forbid_unknown_fields=True):
    """One question of the fixed list. `share`: its part of the study's privacy budget (0 in exact mode)."""

    id: Name
    what: _What
    scope: Scope = "pooled"
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Agreement(Struct, frozen=True, forbid_unknown_fields=True):
    """See the module's head. Times are Unix seconds."""

    version: int
    study: Annotated[StudyId, Meta(min_length=2)]
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    purpose: Text
    researcher: PartyId
    hubs: Annotated[tuple[PartyId, ...], Meta(min_length=1, max_length=MAX_HUBS)]
    conditions: Mapping[PartyId, HubConditions]
    starts: Seconds
    ends: Seconds
    dataset: Name
    missing: Literal["drop", "indicate"]
    variables: Annotated[tuple[StudyVariable, ...], Meta(min_length=1, max_length=256)]
    plan: PlanChoice
    mode: Mode
    epsilon: Annotated[float, Meta(ge=0, le=100)]
    """Private mode: the study's whole budget at `delta`, per patient and hub. 0 in exact mode."""
    delta: Annotated[float, Meta(ge=0, le=1e-3)]
    max_numbers: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    """Exact mode: cap on the numbers opened, all iterations counted. 0 in private mode."""
    questions: Annotated[tuple[Question, ...], Meta(min_length=1, max_length=64)]
    code: Digest
    """Digest of the algorithm code that hubs run; the roster must approve it."""
    guarantees: Digest
    """Digest of the nine threat cells as they were told (`study.threats`)."""
    simulated: bool = False
    """True: every record is simulated, and every result says SIMULATED."""
    max_patients: Annotated[int, Meta(ge=1, le=10**9)] = MAX_PATIENTS
    """No hub has more patients in the dataset: a public bound, from which the room that sums need follows."""
    hubs_min: Annotated[int, Meta(ge=2, le=MAX_HUBS)] | UnsetType = UNSET
    """How many of the hubs carry the study out at least, whatever the others decide; unset: all
    (`study.plans.quorum`)."""
    decide_by: Seconds | UnsetType = UNSET
    """With `hubs_min`: when the study begins without the hubs that have not decided; unset: it waits for them."""

    @property
    def least(self) -> int:
        """Without so many hubs the study is not carried out."""
        return len(self.hubs) if self.hubs_min is UNSET else self.hubs_min

    @property
    def setting(self) -> Setting:
        return Setting(
            variables={v.variable.name: v for v in self.variables},
            missing=self.missing,
            mode=self.mode,
            hubs=tuple(sorted(self.hubs)),
            questions={q.id: (q.what, q.scope) for q in self.questions},
            max_patients=self.max_patients,
        )

    def question(self, question_id: str) -> Question:
        """Raises: WrongStudy: this agreement has no such question."""
        for question in self.questions:
            if question.id == question_id:
                return question
        raise WrongStudy(f"Study {self.study} was not agreed with a question {question_id!r}.")

    def fields(self) -> tuple[str, ...]:
        """All variables that any question reads, in alphabetical order."""
        names = {f for q in self.questions for f in algorithm_for(q.what).fields(q.what, self.setting)}
        return tuple(sorted(names))


def write_agreement(agreement: Agreement) -> bytes:
    raw = msgspec.msgpack.encode(agreement)
    if len(raw) > MAX_AGREEMENT_BYTES:
        raise TooLarge(f"A study agreement may have {MAX_AGREEMENT_BYTES} bytes; this one has {len(raw)}.")
    return raw


def read_agreement(raw: bytes) -> Agreement:
    """Raises: TooLarge, Malformed: not a canonical agreement of this version."""
    if len(raw) > MAX_AGREEMENT_BYTES:
        raise TooLarge(f"A study agreement may have {MAX_AGREEMENT_BYTES} bytes; this one has {len(raw)}.")
    try:
        agreement = msgspec.msgpack.decode(raw, type=Agreement)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("These bytes are not a study agreement.") from error
    if agreement.version != VERSION or write_agreement(agreement) != raw:
        raise Malformed("The study agreement is of another version or not in canonical form.")
    return agreement


def agreement_digest(raw: bytes) -> bytes:
    """Names the agreement everywhere: in tickets, release ids, receipts."""
    return digest(_SIGNED, raw)


def sign_agreement(raw: bytes, key: SigningKey) -> bytes:
    return key.sign(agreement_digest(raw))


def check_agreement_signature(raw: bytes, signature: bytes, researcher_key: bytes) -> None:
    """Raises: BadSignature: the researcher that the agreement names did not sign these very bytes."""
    try:
        verify(researcher_key, signature, agreement_digest(raw))
    except BadSignature as error:
        raise BadSignature("The study agreement is not signed by the researcher it names.") from error
