"""What can go wrong, and whose fault it is.

    FluteError
    ├── MisuseError             our caller: wrong order, wrong size
    ├── Refusal                 the hub said no; a code and safe text are all that crosses the wire
    │   ├── NotInRoster  NotAllowed  JoinRefused  NoConsent  FieldHidden  CodeNotApproved
    │   └── ExactNotAllowed  UnderFloor  BudgetExceeded  NotPossible  SandboxRefusal
    ├── BadMessageError         their bytes; also answered by code and safe text
    │   ├── Malformed  UnknownVersion  TooLarge  BadSignature
    │   └── Stale  WrongRecipient  WrongStudy  Replayed  OutOfOrder
    ├── RosterError             the roster: RosterExpired  RosterRolledBack  RosterUnsigned
    ├── ProtocolAbortedError    the protocol stopped before anything opened
    │   └── TooFewHubs  BadShare  Equivocation  BadTotal  Cheating
    ├── EvidenceError           an enclave's evidence: MalformedEvidence  UntrustedEvidence  RejectedEvidence
    ├── SourceError             the hospital's system: Unreachable  Unmappable (counts, no values)
    ├── KeyFileError            a key file of this machine: missing, readable by others, damaged
    ├── LedgerError             the journal: JournalBroken (names the line)
    ├── StudyFileError          the study file: points at the line and says what to write
    └── ChannelError            the wire: PeerUnreachable

Texts say what happened, to whom it matters and what to do next. They never carry a record,
a secret or a stack trace: every text here may be read by the other side.
"""

from __future__ import annotations

from typing import ClassVar


class FluteError(Exception):
    """Base of every error of ours. `code` is stable; the text is for people."""

    code: ClassVar[str] = "error"

    @property
    def text(self) -> str:
        return str(self)


class MisuseError(FluteError):
    """Our own caller did something out of order or of the wrong size."""

    code = "misuse"


# --- the hub said no -------------------------------------------------------------------------


class Refusal(FluteError):
    """The hub declined. Only `code` and the text cross the wire."""

    code = "refused"


class NotInRoster(Refusal):
    code = "not-in-roster"


class NotAllowed(Refusal):
    """A known person whose role in the roster does not cover this act."""

    code = "not-allowed"


class JoinRefused(Refusal):
    """A request to join that the invitation or the present members do not allow."""

    code = "join-refused"


class NoConsent(Refusal):
    code = "no-consent"


class FieldHidden(Refusal):
    code = "field-hidden"


class CodeNotApproved(Refusal):
    code = "code-not-approved"


class ExactNotAllowed(Refusal):
    code = "exact-not-allowed"


class UnderFloor(Refusal):
    code = "under-floor"


class BudgetExceeded(Refusal):
    code = "budget-exceeded"


class NotPossible(Refusal):
    """The question is allowed but cannot be carried out here (no such dataset, plan cannot carry it)."""

    code = "not-possible"


class SandboxRefusal(Refusal):
    """A step that is not run here: no sandbox on this machine, too little of something, a file of a refused kind.

    Raised before the step has seen a row, so it tells nothing of any. `reason`: lower-case with hyphens, stable.
    """

    code = "sandbox"

    def __init__(self, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


# --- their bytes -----------------------------------------------------------------------------


class BadMessageError(FluteError):
    """Bytes from outside that do not pass; nothing in them was acted upon."""

    code = "bad-message"


class Malformed(BadMessageError):
    code = "malformed"


class UnknownVersion(BadMessageError):
    code = "unknown-version"


class TooLarge(BadMessageError):
    code = "too-large"


class BadSignature(BadMessageError):
    code = "bad-signature"


class Stale(BadMessageError):
    """Expired, from the future, or under an old roster."""

    code = "stale"


class WrongRecipient(BadMessageError):
    code = "wrong-recipient"


class WrongStudy(BadMessageError):
    code = "wrong-study"


class Replayed(BadMessageError):
    code = "replayed"


class OutOfOrder(BadMessageError):
    code = "out-of-order"


# --- roster ----------------------------------------------------------------------------------


class RosterError(FluteError):
    code = "roster"


class RosterExpired(RosterError):
    code = "roster-expired"


class RosterRolledBack(RosterError):
    code = "roster-rolled-back"


class RosterUnsigned(RosterError):
    """Fewer owners than the threshold signed it, or a signature does not verify."""

    code = "roster-unsigned"


# --- protocols, sources, ledger, study files, wire ------------------------------------------


class ProtocolAbortedError(FluteError):
    """A protocol stopped. Nothing was opened by this run of it."""

    code = "protocol-aborted"


class TooFewHubs(ProtocolAbortedError):
    code = "too-few-hubs"


class BadShare(ProtocolAbortedError):
    code = "bad-share"


class Equivocation(ProtocolAbortedError):
    """Someone told two parties two different things."""

    code = "equivocation"


class BadTotal(ProtocolAbortedError):
    """What was opened cannot be the sum of the answers. It is not used; the budget stays spent."""

    code = "bad-total"


class Cheating(ProtocolAbortedError):
    """Somebody did not follow the protocol. `blamed`: who, where the protocol can tell; empty where it cannot."""

    code = "cheating"

    def __init__(self, text: str, *, blamed: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.blamed = blamed


class EvidenceError(FluteError):
    """An enclave's evidence did not pass. `reason`: which check refused it, stable and lower-case with hyphens."""

    code = "evidence"

    def __init__(self, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class MalformedEvidence(EvidenceError):
    """These bytes are no evidence of the kind they claim to be."""

    code = "evidence-malformed"


class UntrustedEvidence(EvidenceError):
    """No chain of valid signatures leads from the evidence to a maker's root."""

    code = "evidence-untrusted"


class RejectedEvidence(EvidenceError):
    """Genuine, but not what the appraisal policy asks for: other software, out of date, debuggable, another nonce."""

    code = "evidence-rejected"


class SourceError(FluteError):
    """The hospital's own system. Counts and element names only, never a value."""

    code = "source"


class Unreachable(SourceError):
    code = "source-unreachable"


class Unmappable(SourceError):
    code = "source-unmappable"


class KeyFileError(FluteError):
    """A key file of this machine that cannot be made or used; the text says what its owner does next."""

    code = "key-file"


class LedgerError(FluteError):
    code = "ledger"


class JournalBroken(LedgerError):
    """The journal's chain does not hold; `line` is the first line that shows it."""

    code = "journal-broken"

    def __init__(self, text: str, *, line: int) -> None:
        super().__init__(text)
        self.line = line


class StudyFileError(FluteError):
    """A study file that cannot be agreed to. `line` is 1-based, 0 where no line is to blame."""

    code = "study-file"

    def __init__(self, text: str, *, line: int = 0, path: str = "") -> None:
        super().__init__(text)
        self.line = line
        self.path = path


class ChannelError(FluteError):
    code = "channel"


class PeerUnreachable(ChannelError):
    code = "peer-unreachable"


class Answered(FluteError):
    """A service said no, in its own words; `said` is its own code."""

    code = "answered"

    def __init__(self, said: str, text: str) -> None:
        super().__init__(text)
        self.said = said
