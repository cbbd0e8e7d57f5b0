"""Slips of the pen in what a data manager types, told before a hub is asked or a record is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from flute.errors import MisuseError
from flute.messages.limits import Name, PartyId

_WHY_CHARS: Final = range(3, 201)
_TABLES: Final = {".csv", ".tsv", ".xlsx"}
_FHIR: Final = {".json", ".ndjson", ".xml"}


def require_names(dataset: str | None = None, person: str | None = None) -> None:
    """Raises: MisuseError: a name that the hub would not take, and one that it would."""
    if dataset is not None and not _fits(dataset, Name):
        raise MisuseError(
            f"{dataset!r} cannot be a dataset's name: letters, digits, dots, hyphens and underscores, a letter "
            f"first; for example {_close_to(dataset) or 'pilot'}."
        )
    if person is not None and not _fits(person, PartyId):
        raise MisuseError(
            f"{person!r} cannot stand in the journal as a person: 2 to 32 lower-case letters, digits and hyphens, "
            f"a letter first; for example {_close_to(person.lower().replace('_', '-')) or 'eva'}."
        )


def _fits(said: str, kind: Any) -> bool:
    try:
        msgspec.convert(said, kind)
    except msgspec.ValidationError:
        return False
    return True


def _close_to(said: str) -> str:
    """What the name may have been meant to be, or nothing."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", said).strip("-_")
    return plain if _fits(plain, Name) and len(plain) in range(2, 33) else ""


def require_folder(page: Path) -> None:
    """Before an import, not after it. Raises: MisuseError: a page cannot be written there."""
    if page.is_dir() or not page.absolute().parent.is_dir():
        raise MisuseError(f"No page can be written to {page}: name a file in a folder that exists.")


def require_decision(decision: str, patients: Sequence[str], despite: Sequence[str], why: str) -> None:
    """Raises: MisuseError: a decision by hand that lacks a part."""
    if decision not in ("keep-in", "leave-out", "same-person", "take-back"):
        raise MisuseError("--decision is keep-in, leave-out, same-person or take-back.")
    if (decision == "keep-in") != bool(despite):
        raise MisuseError(
            "keep-in and --despite go together: name the rule that leaves the patient out, for example --despite "
            "mri-older-than-1y; 'flute hub cohort' lists them."
        )
    if decision == "same-person" and len(patients) == 1:
        raise MisuseError("same-person is about two ids or more that are one person; name them all.")
    if len(why) not in _WHY_CHARS:
        raise MisuseError(
            f"--why is a few words, {_WHY_CHARS[0]} to {_WHY_CHARS[-1]} characters; it is kept for good."
        )


def require_no_tables(place: str, mend: str) -> None:
    """Raises: MisuseError: tables stand where FHIR files were expected."""
    path = Path(place)
    files = [path] if path.is_file() else list(path.iterdir()) if path.is_dir() else []
    endings = {ending for file in files for ending in file.suffixes}
    if endings & _TABLES and not endings & _FHIR:
        raise MisuseError(f"{place} holds tables, not FHIR. {mend}")
