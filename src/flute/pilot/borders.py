"""Simulated men on the borders of the pilot's cohort, each with the decision that PILOT.md section 2 asks for.

One man per border, named after what is peculiar to him; otherwise he is plain and belongs in. Some borders lie in
what the steward declares for a dataset: those men carry the facts under which the decision is theirs. No patient
stands behind any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import nan
from typing import Any, Final

from flute.pilot.resources import Man

AGE: Final = 67
"""Of every border man at his biopsy, whole years."""


@dataclass(frozen=True, slots=True)
class BorderMan:
    """`expected`: the reason for which he must be left out, empty where he belongs in. `flags`: what must be said of
    him if he is in. `facts`: declared facts (`pilot.cohort.FACTS`) under which this holds; the initial ones if none.
    """

    name: str
    man: Man
    expected: str = ""
    flags: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def truth(self) -> dict[str, float]:
        """What his row must say, NaN where nothing is recorded; by name of `simulate.TRUTH`."""
        man = self.man
        counted = man.later_psa[1] if "psa-contradicts" in self.flags and man.later_psa else man.psa
        values: dict[str, float | None] = {
            "age": man.age,
            "psa": counted,
            "dre": man.dre,
            "biopsy_type": man.repeated,
            "volume": man.volume,
            "pirads": man.pirads,
            "family_history": man.family_history,
            "cspca": None if man.isup is None else man.isup >= 2,
            "isup": man.isup,
            "dre_volume_class": man.dre_volume_class,
        }
        return {name: nan if value is None else float(value) for name, value in values.items()}


def border_men(stem: str = "border", psa_unit: str = "ng/mL", volume_unit: str = "cm3") -> tuple[BorderMan, ...]:
    """All of them. `stem`: what their patient ids begin with."""
    every = (*_PERSONS, *_SUSPICION, *_TIMING, *_RECORDS, *_DECLARED)
    men = []
    for place, (name, changes, expected, flags, facts) in enumerate(every):
        # Each has a birthday of his own; but for the twins nobody may look like another's second record.
        man = _man(f"{stem}-{name}", changes, expected, psa_unit, volume_unit)
        born = man.birth + timedelta(0 if "birth" in changes else place)
        men.append(BorderMan(name, dataclasses.replace(man, birth=born), expected, flags, facts))
    return tuple(men)


def planted_borders(stem: str, psa_unit: str, volume_unit: str) -> tuple[BorderMan, ...]:
    """Those that stand in a dataset of which nothing special is declared."""
    return tuple(border for border in border_men(stem, psa_unit, volume_unit) if not border.facts)


_BIOPSY: Final = date(2023, 5, 20)
_Border = tuple[str, dict[str, Any], str, tuple[str, ...], dict[str, str]]


def _man(patient: str, changes: Mapping[str, Any], expected: str, psa_unit: str, volume_unit: str) -> Man:
    biopsy = changes.get("biopsy", _BIOPSY)
    day = (biopsy or _BIOPSY) - timedelta(60)
    plain = Man(
        patient=patient, planted=expected, gender="male", birth=date((biopsy or _BIOPSY).year - AGE, 1, 1), age=AGE,
        age_only=False, biopsy=biopsy, repeated=0, isup=None if biopsy is None else 2, psa=6.8, psa_day=day,
        psa_unit=psa_unit, dre=0, dre_volume_class=2, volume=45.5, volume_unit=volume_unit, mri=day, pirads=4,
        family_history=0,
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


_PERSONS: Final[tuple[_Border, ...]] = (
    ("plain", {}, "", (), {}),
    ("female", {"gender": "female"}, "not-male", (), {}),
    ("gender-unknown", {"gender": "unknown"}, "not-male", (), {}),
    ("no-biopsy", {"biopsy": None}, "no-biopsy", (), {}),
    ("age-only", {"age_only": True}, "", ("mri-timing-unverified",), {}),
    ("age-only-strict", {"age_only": True}, "mri-timing-unverified", (), {"keep-unverified-timing": "no"}),
)
_SUSPICION: Final[tuple[_Border, ...]] = (
    ("psa-exactly-3.0", {"psa": 3.0}, "no-suspicion", (), {}),
    ("psa-3.1", {"psa": 3.1}, "", (), {}),
    ("psa-3.0-and-dre", {"psa": 3.0, "dre": 1}, "", (), {}),
    ("psa-3.0-dre-unknown", {"psa": 3.0, "dre": None}, "no-suspicion", (), {}),
    ("dre-only", {"psa": 0.9, "dre": 1}, "", (), {}),
    ("dre-without-psa", {"psa": None, "dre": 1}, "", (), {}),
    ("no-psa-dre-normal", {"psa": None}, "", ("suspicion-unverified",), {}),
)
_LEAP: Final = date(2024, 2, 29)
_TIMING: Final[tuple[_Border, ...]] = (
    ("no-mri", {"mri": None, "pirads": None, "volume": None}, "no-mri", (), {}),
    ("mri-on-the-day", {"mri": _BIOPSY}, "", (), {}),
    ("mri-the-day-after", {"mri": _BIOPSY + timedelta(1)}, "mri-after-biopsy", (), {}),
    ("mri-one-year", {"mri": date(2022, 5, 20)}, "", (), {}),
    ("mri-one-year-and-a-day", {"mri": date(2022, 5, 19)}, "mri-older-than-1y", (), {}),
    # A leap day's year began on the last of February; a year from a leap day ends on the last of February.
    ("biopsy-on-leap-day", {"biopsy": _LEAP, "mri": date(2023, 2, 28)}, "", (), {}),
    ("biopsy-on-leap-day-late", {"biopsy": _LEAP, "mri": date(2023, 2, 27)}, "mri-older-than-1y", (), {}),
    ("mri-on-leap-day", {"biopsy": date(2025, 2, 28), "mri": _LEAP}, "", (), {}),
    ("mri-on-leap-day-late", {"biopsy": date(2025, 3, 1), "mri": _LEAP}, "mri-older-than-1y", (), {}),
    ("mri-across-leap-day", {"biopsy": date(2024, 5, 20), "mri": date(2023, 5, 20)}, "", (), {}),
)
_TWIN: Final = {"birth": date(_BIOPSY.year - AGE, 2, 22)}
_RECORDS: Final[tuple[_Border, ...]] = (
    ("no-label", {"isup": None}, "", ("label-missing",), {}),
    ("isup-1", {"isup": 1}, "", (), {}),
    ("two-psa-one-day", {"later_psa": (_BIOPSY - timedelta(60), 7.4)}, "", ("psa-contradicts",), {}),
    ("two-psa-strict", {"later_psa": (_BIOPSY - timedelta(60), 7.4)}, "contradictory-values", (),
     {"same-day": "refuse-person"}),
    ("twice-there-1", _TWIN, "", ("suspected-duplicate",), {}),
    ("twice-there-2", _TWIN, "", ("suspected-duplicate",), {}),
    ("two-equal-psa", {"later_psa": (_BIOPSY - timedelta(60), 6.8)}, "", (), {}),
)  # fmt: skip
_DECLARED: Final[tuple[_Border, ...]] = (
    ("pirads-v1", {}, "pirads-version", (), {"pirads-version": "1.0"}),
    ("pirads-unknown", {}, "pirads-version", (), {"pirads-version": "unknown"}),
    ("pirads-v2", {}, "", (), {"pirads-version": "2.0"}),
    ("systematic-pirads-2", {"pirads": 2}, "", (), {"biopsy-scheme": "systematic"}),
    ("systematic-pirads-3", {"pirads": 3}, "biopsy-scheme", (), {"biopsy-scheme": "systematic"}),
    ("other-scheme", {"pirads": 2}, "biopsy-scheme", (), {"biopsy-scheme": "other"}),
)
