"""The gate: what has to be true before a row is read. Order is safety, so the checks are numbered.

  1 envelope   size, form, signature, recipient, roster version, clock      BadMessageError
  2 roster     the coordinator asks, the researcher is enrolled, every hub of the study is still in
  3 consent    this hub granted this very agreement, and its period runs    NoConsent
  4 policy     fields not hidden, exact allowed, floor, the step is agreed, FieldHidden, ExactNotAllowed, …
               its parameters are numbers, and those that message 0 names   Malformed, Equivocation
  5 code       the algorithms here are those that the roster approved, and  CodeNotApproved
               so is what runs in every enclave, by evidence                EvidenceError
  6 budget     the price is reserved, on disk                               BudgetExceeded
Whatever fails is answered with a code and a sentence, and journaled; the record source was not opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from msgspec import UNSET, Struct

from flute.attestation.roots import MAKERS, Roots
from flute.data.variables import Array
from flute.defaults import MAX_CLOCK_SKEW_S
from flute.enclaves.hub import Admitted as Accepted
from flute.errors import (
    CodeNotApproved,
    Equivocation,
    ExactNotAllowed,
    FieldHidden,
    NoConsent,
    NotInRoster,
    NotPossible,
    OutOfOrder,
    StudyFileError,
    UnderFloor,
    WrongStudy,
)
from flute.hub.parts import COORDINATOR, OWN_STUDIES
from flute.hub.rounds.own_code import require_allowed
from flute.hub.rounds.resources import require_resources
from flute.hub.store import HubPolicy, HubStore, StudyEntry
from flute.ledger.budgets.budget import Ceiling, Charge, Ledger, Level, Reservation
from flute.ledger.budgets.budget import Policy as BudgetPolicy
from flute.messages.envelope import Bodies, Opened, open_envelope
from flute.messages.numbers import read_numbers
from flute.messages.question import (
    AnyQuestion,
    EncryptedQuestion,
    JointQuestion,
    OwnQuestion,
    SecureQuestion,
    SplitQuestion,
)
from flute.primitives.keys import AgreementKey, digest
from flute.questions.code import code_digest
from flute.questions.registry import algorithm_for
from flute.study.agreement import Agreement, Question, check_agreement_signature, read_agreement
from flute.study.files.check import Checked, check_study, checked_agreement
from flute.study.plans.enclaved import accepted
from flute.study.plans.sides import step_digest
from flute.study.protection import Price, budget_of, study_budget
from flute.trust.roster import Role, Roster

CODE = "algorithms"
_PLANS: Final[dict[type[Struct], str]] = {
    SecureQuestion: "secagg",
    JointQuestion: "mpc",
    EncryptedQuestion: "threshold-he",
    SplitQuestion: "enclave",
}
"""Under which plan each kind of pooled question may be asked; no coordinator chooses a study's protection."""
_MASKED_SPLIT: Final = "secagg-enclave"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A question that passed all six checks. Only `Gate.admit` makes one."""

    opened: Opened
    study: StudyEntry
    agreement: Agreement
    question: Question
    step: int
    parameters: Array
    """float64 [k], finite."""
    named: bytes
    """`sides.step_digest`: what is asked, in which step, with which parameters."""
    price: Price
    reservation: Reservation
    enclaves: Accepted | None = None
    """Plans with enclaves: aggregators whose evidence this hub has appraised; nothing can be split for others."""

    @property
    def release(self) -> bytes:
        return self.reservation.release_id


class Gate:
    """Holds nothing of its own: every check asks the roster, the store and the ledger as they are now."""

    def __init__(
        self, me: str, key: AgreementKey, store: HubStore, ledger: Ledger, roster: Callable[[], Roster],
        roots: Roots = MAKERS,
    ) -> None:  # fmt: skip
        self._me = me
        self._key = key
        self._store = store
        self._ledger = ledger
        self._roster = roster
        self._roots = roots

    def open(self, raw: bytes, accepts: Bodies, now: int) -> Opened:
        """Checks 1 and 2 for any message: whoever speaks is the coordinator, and in the roster."""
        roster = self._roster()
        roster.require_current(now)
        opened = open_envelope(raw, me=self._me, roster=roster, accepts=accepts, now=now, key=self._key)
        if opened.header.sender != COORDINATOR:
            raise NotInRoster(f"Questions come from the coordinator; {opened.header.sender} cannot ask.")
        return opened

    def check_proposal(self, raw: bytes, signature: bytes) -> Checked:
        """Is this an agreement that could be carried out here, by people and hubs of the roster?"""
        agreement = read_agreement(raw)
        if agreement.study.startswith(OWN_STUDIES):
            raise NotPossible(f"Names that begin with {OWN_STUDIES!r} are the hubs' own; give the study another.")
        roster = self._roster()
        check_agreement_signature(raw, signature, roster.signing_key(agreement.researcher))
        roster.require_role(agreement.researcher, Role.RESEARCHER)
        if self._me not in agreement.hubs:
            raise WrongStudy(f"Study {agreement.study} does not name {self._me} among its hubs.")
        try:
            return check_study(agreement, roster_hubs=[hub.id for hub in roster.hubs()])
        except StudyFileError as error:
            raise NotPossible(f"Study {agreement.study} cannot be carried out: {error.text}") from error

    def consented(self, opened: Opened, agreement_digest: bytes, now: int) -> tuple[StudyEntry, Agreement]:
        """Checks 2 (people and hubs of the agreement) and 3."""
        entry = self._store.study(opened.header.study)
        if entry.digest != agreement_digest:
            raise WrongStudy(f"The question names another agreement than the one of study {entry.study} here.")
        agreement = read_agreement(entry.agreement)
        roster = self._roster()
        roster.require_role(agreement.researcher, Role.RESEARCHER)
        if agreement.hubs_min is UNSET:  # else whoever carries it out is checked with its keys (`study.plans.sides`)
            for hub in agreement.hubs:
                roster.signing_key(hub)
        if entry.state != "granted":
            raise NoConsent(f"{self._me} has not consented to study {entry.study} (it is {entry.state} here).")
        if not agreement.starts - MAX_CLOCK_SKEW_S <= now <= agreement.ends:
            raise NoConsent(f"Study {entry.study} is outside its agreed period.")
        return entry, agreement

    def admit(self, opened: Opened, now: int) -> Admitted:
        """All six checks for a question. Returns once the reservation is on disk."""
        asked = opened.body
        if not isinstance(asked, AnyQuestion):
            raise OutOfOrder("This message asks nothing.")
        entry, agreement = self.consented(opened, asked.agreement, now)
        question = agreement.question(asked.question)
        if (question.scope == "each") != isinstance(asked, OwnQuestion):
            raise WrongStudy(f"Question {question.id} was agreed with another scope.")
        if question.scope == "pooled":
            self.require_plan(agreement, _plan_of(asked))
        self._require_policy(entry, agreement)
        price = self._agreed_step(entry, question, asked.step)
        parameters, named = _parameters(asked), _named(asked)
        self._require_code(agreement)
        require_resources(question, agreement.setting)
        enclaves = None
        if isinstance(asked, SplitQuestion):
            enclaves = accepted(asked, agreement, self._roster(), price, now=now, roots=self._roots)
        charge = _charge(entry, agreement, asked, price)
        reservation = self._ledger.reserve(charge, study_ceilings(agreement), now=now)
        return Admitted(
            opened, entry, agreement, question, asked.step, parameters, named, price, reservation, enclaves
        )

    @staticmethod
    def require_plan(agreement: Agreement, plan: str) -> None:
        """Raises: WrongStudy: the coordinator asks under another plan than was agreed."""
        if agreement.plan.name != plan:
            raise WrongStudy(f"Study {agreement.study} was agreed under plan {agreement.plan.name}, and no other.")

    def _require_policy(self, entry: StudyEntry, agreement: Agreement) -> None:
        policy = self._store.policy()
        hidden = sorted(set(agreement.fields()) & set(policy.hidden))
        if hidden:
            raise FieldHidden(f"{self._me} does not share {', '.join(hidden)}; ask its steward or leave it out.")
        require_allowed(agreement, allowed=policy.own_code_allowed, me=self._me)
        if agreement.mode == "exact" and not policy.exact_allowed:
            raise ExactNotAllowed(
                f"{self._me} does not allow exact results; its steward can, or the study can be private."
            )
        if agreement.mode == "exact" and not entry.floor_holds:
            raise UnderFloor(
                f"{self._me} cannot answer study {entry.study} exactly: some of its counts, or counts worked out "
                f"from several exact studies over these records, are under the disclosure floor of {policy.floor} "
                "persons. No further exact study is granted over them. A private study has no floor."
            )

    @staticmethod
    def _agreed_step(entry: StudyEntry, question: Question, step: int) -> Price:
        steps = checked_agreement(entry.agreement).prices[question.id]
        if not 0 <= step < len(steps):
            raise WrongStudy(f"Question {question.id} was agreed with {len(steps)} steps; {step} is none of them.")
        return steps[step]

    def _require_code(self, agreement: Agreement) -> None:
        here = code_digest()
        if agreement.code != here or self._roster().approved(CODE) != here:
            raise CodeNotApproved(
                f"The algorithms installed at {self._me} are not those that the roster and this study approved; "
                "all hubs need the same released version."
            )


def _parameters(asked: AnyQuestion) -> Array:
    """Raises: Malformed: no whole numbers. WrongStudy: not finite."""
    parameters = read_numbers(asked.parameters)
    if not np.isfinite(parameters).all():
        raise WrongStudy(f"The parameters of question {asked.question} are not finite numbers.")
    return parameters


def _named(asked: AnyQuestion) -> bytes:
    """Raises: Equivocation: message 0 is of another step, or of other parameters, than what is asked."""
    named = step_digest(asked.agreement, asked.question, asked.step, asked.attempt, asked.parameters)
    start = asked.start if isinstance(asked, SecureQuestion) else None
    start = asked.masked if isinstance(asked, SplitQuestion) else start
    if start is not None and start.question != named:
        raise Equivocation(f"Message 0 of question {asked.question} names another step, or other parameters.")
    return named


def _plan_of(asked: AnyQuestion) -> str:
    if isinstance(asked, SplitQuestion) and asked.masked is not None:
        return _MASKED_SPLIT
    return _PLANS[type(asked)]


def fields_of(question: Question, agreement: Agreement) -> tuple[str, ...]:
    return algorithm_for(question.what).fields(question.what, agreement.setting)


def release_id(entry: StudyEntry, asked: AnyQuestion) -> bytes:
    """Digest of the question as it was signed, its context (tickets, roster, hub set) included.

    The hub computes it; two questions that differ in anything are two releases, each charged."""
    return digest(b"flute/release/v1", entry.digest, entry.snapshot, msgspec.msgpack.encode(asked))


def study_ceilings(agreement: Agreement) -> tuple[Ceiling, ...]:
    """What the agreement itself allows, on top of the hub owner's own ceilings."""
    rho, delta = study_budget(agreement)
    exact = agreement.mode == "exact"
    policy = BudgetPolicy(rho=rho, delta=delta, max_numbers=agreement.max_numbers, exact_allowed=exact)
    return (Ceiling(Level.STUDY, policy, of=agreement.study),)


def hub_ceilings(policy: HubPolicy) -> tuple[Ceiling, ...]:
    """The hub owner's ceilings: over every study, and over all studies of one dataset together."""

    def ceiling(epsilon: float) -> BudgetPolicy:
        rho, delta = budget_of(epsilon, policy.delta)
        return BudgetPolicy(rho=rho, delta=delta, max_numbers=policy.max_numbers, exact_allowed=policy.exact_allowed)

    return (Ceiling(Level.STUDY, ceiling(policy.epsilon)), Ceiling(Level.PERSONS, ceiling(policy.epsilon_all)))


def _charge(entry: StudyEntry, agreement: Agreement, asked: AnyQuestion, price: Price) -> Charge:
    hubs = asked.start.terms.hubs if isinstance(asked, SecureQuestion) else sorted(agreement.hubs)
    return Charge(
        release_id=release_id(entry, asked),
        study=entry.study,
        question=asked.question,
        step=asked.step,
        asker=agreement.researcher,
        mode=agreement.mode,
        rho=price.rho,
        delta=price.delta,
        numbers=price.numbers,
        plan=agreement.plan.name,
        persons=agreement.dataset,
        snapshot=entry.snapshot,
        hub_set=digest(*(hub.encode() for hub in hubs)) if not isinstance(asked, OwnQuestion) else b"",
    )
