"""The budget counted again from an exported journal, by somebody who has the hub's public key and nothing else.

The same lines make the same `Book` as at the hub, so `recount` and the hub's own `tally` agree to the last digit, or
somebody changed something. What is left is not told: the ceilings are the hub's own and in no line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from flute.ledger.audit import export_rows, verify_export
from flute.ledger.budgets.allotments import Allotment, level_of
from flute.ledger.budgets.book import KINDS, Book
from flute.ledger.budgets.budget import Ledger
from flute.ledger.budgets.ceilings import Standing
from flute.ledger.journals.chain import Position, Verified
from flute.ledger.lines.entries import read_entry


@dataclass(frozen=True, slots=True)
class Recount:
    """`tally`: what was spent and allotted, in plain values, as `tally` gives it of a running ledger."""

    verified: Verified
    tally: dict[str, Any]


def recount(export: Path, public: bytes, expected: Position | None = None) -> Recount:
    """Verify an export and count its charges.

    Raises: JournalBroken: it is not what the hub wrote, or ends before `expected`. LedgerError: there is no file, or
      its charges make no sense.
    """
    verified = verify_export(export, public, expected)
    book = Book()
    for row in export_rows(export):
        if row.kind in KINDS:
            book.take(read_entry(row.body), Position(row.number, row.digest))
    standings = [book.standing(level, key, ()) for level, key in book.accounts()]
    return Recount(verified, _tally(standings, book.allotments, book.open_count))


def tally(ledger: Ledger) -> dict[str, Any]:
    """The same of a running ledger."""
    return _tally(ledger.accounts(), ledger.allotments(), len(ledger.open()))


def _tally(standings: Sequence[Standing], allotments: Iterable[Allotment], waiting: int) -> dict[str, Any]:
    return {
        "accounts": [_account(s) for s in standings],
        "allotments": [_allotment(a) for a in allotments],
        "open": waiting,
    }


def _account(s: Standing) -> dict[str, Any]:
    """`reserved`: of releases that have not ended. All of it is spent."""
    return {
        "level": s.level.value,
        "name": s.key,
        "rho_reserved": s.reserved,
        "rho_settled": s.settled,
        "delta": s.delta,
        "exact_numbers": s.exact_numbers,
        "exact": s.exact,
        "unbounded": s.unbounded,
    }


def _allotment(a: Allotment) -> dict[str, Any]:
    return {
        "level": level_of(a.place).value,
        "name": a.place.key,
        "dataset": a.persons,
        **msgspec.to_builtins(a.amount),
    }
