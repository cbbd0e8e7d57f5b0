"""Going on from an older copy of a journal, knowingly.

Two ways. Lines that are missing come back from an export, which proves itself; then nothing was lost. Or they stay
unknown: then every study and every dataset counts as having spent all that its ceiling allowed, for good, so that
nothing can be answered twice out of one budget. More is possible only where the policy is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flute.errors import JournalBroken, LedgerError, NotPossible
from flute.ledger.audit import export_rows, verify_export
from flute.ledger.budgets.ceilings import Ceiling, Level
from flute.ledger.charge import Amount
from flute.ledger.journals.chain import Head, Position
from flute.ledger.journals.journal import Journal
from flute.ledger.journals.witness import Witness
from flute.ledger.lines.budget import JournalRecovered
from flute.primitives.keys import SigningKey


@dataclass(frozen=True, slots=True)
class Recovered:
    """`brought_back`: lines that came from the export. `charged`: everything counts as spent."""

    brought_back: int
    charged: bool
    position: Position


def recover(
    path: Path,
    key: SigningKey,
    witness: Witness,
    ceilings: Sequence[Ceiling],
    *,
    person: str,
    reason: str,
    now: int,
    export: Path | None = None,
) -> Recovered:
    """Make the journal at `path` one that the hub may go on with. `ceilings`: the hub owner's, as they were.

    Raises: NotPossible: nothing is wrong with it. JournalBroken: it is damaged in itself, or the export is, or is
      another journal's. LedgerError: it cannot be written.
    """
    with Journal.open(path, key) as journal:
        brought_back = _bring_back(journal, export) if export is not None else 0
        missing = _missing(journal, witness)
        if missing is None and not brought_back and not _witness_is_gone(journal, witness):
            raise NotPossible("This journal is no older copy: every head that the witness kept is in it.")
        charged = missing is not None or _witness_is_gone(journal, witness)
        if charged:
            journal.append(_line(journal, missing, ceilings, person, reason), now)
        witness.start_over(journal.signed_head())
        return Recovered(brought_back, charged, journal.last)


def _bring_back(journal: Journal, export: Path) -> int:
    """Lines of an export that follow the journal's last one. Raises: JournalBroken: it is of another journal."""
    verify_export(export, journal.public, journal.last)
    return journal.append_sealed(row for row in export_rows(export) if row.number > journal.last.line)


def _heads(witness: Witness, public: bytes) -> tuple[Head, ...]:
    """A witness that is damaged tells nothing."""
    try:
        return witness.heads(public)
    except LedgerError:
        return ()


def _missing(journal: Journal, witness: Witness) -> Head | None:
    """The latest head that the witness kept and the journal lacks."""
    lacking = []
    for head in _heads(witness, journal.public):
        try:
            journal.require_position(Position(head.number, head.digest), journal.public)
        except JournalBroken:
            lacking.append(head)
    return max(lacking, default=None)


def _witness_is_gone(journal: Journal, witness: Witness) -> bool:
    return not _heads(witness, journal.public) and any(journal.lines(kinds=("witness-kept",)))


def _line(
    journal: Journal, missing: Head | None, ceilings: Sequence[Ceiling], person: str, reason: str
) -> JournalRecovered:
    last = journal.last
    lost = Position(last.line, last.digest) if missing is None else Position(missing.number, missing.digest)
    return JournalRecovered(
        person,
        last.line,
        lost.line,
        lost.digest,
        _most(ceilings, Level.STUDY),
        _most(ceilings, Level.PERSONS),
        reason,
    )


def _most(ceilings: Sequence[Ceiling], level: Level) -> Amount:
    """What any account of a level may have spent: it was under every ceiling that is over all of them."""
    over = [c.policy for c in ceilings if c.level is level and c.of is None]
    if not over:
        raise LedgerError("No ceiling bounds what the missing lines may have charged; nothing can be recovered.")
    return Amount(
        min(p.rho for p in over),
        min(p.delta for p in over),
        min(p.max_numbers if p.exact_allowed else 0 for p in over),
    )
