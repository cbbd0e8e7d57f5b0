"""What one simulated man's chart looks like as FHIR R4 resources.

A resource claims a profile of the pilot only where it meets it: other units, "no cancer", no family history
and a dated biopsy (the R4 profile demands the age instead) are written without a claim.
Source: HL7 Europe FLUTE implementation guide, R4, profiles PR-*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from flute.pilot.tables import (
    ACT_REASON,
    BIOPSY_CODE,
    BIOPSY_INITIAL,
    BIOPSY_REPEATED,
    DICOM_MODALITY,
    DRE_CODE,
    DRE_NORMAL,
    DRE_SUSPICIOUS,
    FLUTE_EXAM,
    FLUTE_ORIGIN,
    ISUP_LOINC,
    LOINC,
    MALIGNANT_PROSTATE_TUMOUR,
    NO_CANCER,
    OUTCOME_LIST_CODE,
    OUTCOME_TERM_CODE,
    PIRADS_CODE,
    PROFILE,
    PROSTATE_SITE,
    PSA_CODE,
    ROLE_CODE,
    SCT,
    UCUM,
    VOLUME_CLASS_CODE,
    VOLUME_CODE,
)

Resource = dict[str, Any]
FILES: Final = ("Patient", "Observation", "Procedure", "FamilyMemberHistory", "ImagingStudy")
"""One NDJSON file per resource type."""


@dataclass(frozen=True, slots=True)
class Man:
    """One simulated man's chart; None where nothing was recorded.

    Days are dates; psa in `psa_unit`, volume in `volume_unit`. `age_only`: the biopsy states an age, no
    date. `report_days`: how long after the MRI its PI-RADS was reported. `earlier_*` and `later_psa` are
    what the recipe must not take: (day, value) besides the index examinations. `planted`: the reason for
    which he must be left out, empty where he belongs in.
    """

    patient: str
    planted: str
    gender: str
    birth: date
    age: int
    age_only: bool
    biopsy: date | None
    repeated: int
    isup: int | None
    psa: float | None
    psa_day: date
    psa_unit: str
    dre: int | None
    dre_volume_class: int | None
    volume: float | None
    volume_unit: str
    mri: date | None
    pirads: int | None
    report_days: int = 0
    second_lesion: int | None = None
    family_history: int | None = None
    second_condition: bool = False
    earlier_psa: tuple[date, float] | None = None
    later_psa: tuple[date, float] | None = None
    earlier_biopsy: tuple[date, int] | None = None
    earlier_mri: tuple[date, int] | None = None


def resources_of(man: Man) -> Iterator[Resource]:
    """Every resource of one man; all but `Patient` refer to him and to nobody else."""
    yield _base("Patient", man.patient) | {"gender": man.gender, "birthDate": man.birth.isoformat()}
    yield from _blood_and_examination(man)
    yield from _imaging(man)
    yield from _biopsies(man)
    if man.family_history is not None:
        yield _family_history(man)


# --- building blocks -----------------------------------------------------------------------------

_TAGS: Final = [
    {"system": FLUTE_ORIGIN, "code": "SIMULATED", "display": "Simulated: no patient stands behind this"},
    {"system": ACT_REASON, "code": "HTEST", "display": "test health data"},
]
_META: Final = {"tag": _TAGS}
_META_OF: Final = {
    name: {"profile": [PROFILE + name], "tag": _TAGS}
    for name in (
        "PR-ProstateSpecificAntigen", "PR-DigitalRectalExamination", "PR-Biopsy", "PR-ProstateVolume",
        "PR-PIRADSScore", "PR-ProstateCancerFamilyHistory", "PR-OutcomeBCN-RC2", "imagingStudy-eu-flute",
    )
}  # fmt: skip


def _concept(system: str, *codes: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code} for code in codes]}


_PROSTATE: Final = _concept(SCT, PROSTATE_SITE)
_PSA: Final = _concept(LOINC, PSA_CODE)
_VOLUME: Final = _concept(SCT, VOLUME_CODE)
_PIRADS: Final = _concept(SCT, PIRADS_CODE)
_OUTCOME: Final = _concept(LOINC, OUTCOME_LIST_CODE, OUTCOME_TERM_CODE)
_VOLUME_CLASS: Final = _concept(FLUTE_EXAM, VOLUME_CLASS_CODE)
_DRE: Final = _concept(SCT, DRE_CODE)
_DRE_OUTCOMES: Final = (_concept(SCT, DRE_NORMAL), _concept(SCT, DRE_SUSPICIOUS))
_BIOPSY: Final = _concept(SCT, BIOPSY_CODE)
_BIOPSY_TYPES: Final = (_concept(SCT, BIOPSY_INITIAL), _concept(SCT, BIOPSY_REPEATED))
_ISUP: Final = (_concept(SCT, NO_CANCER), *(_concept(LOINC, ISUP_LOINC[grade]) for grade in range(1, 6)))
_UNIT_TEXT: Final = {"cm3": "cc"}
"""The volume profile writes cm3 as "cc" for people."""


def _base(kind: str, key: str, profile: str | None = None) -> Resource:
    return {"resourceType": kind, "id": key, "meta": _META_OF[profile] if profile else _META}


def _subject(man: Man) -> dict[str, str]:
    return {"reference": f"Patient/{man.patient}"}


def _observation(man: Man, key: str, code: Any, day: date, value: Resource, profile: str | None = None) -> Resource:
    return _base("Observation", f"{man.patient}-{key}", profile) | {
        "status": "final",
        "code": code,
        "subject": _subject(man),
        "effectiveDateTime": day.isoformat(),
        **value,
    }


def _quantity(value: float, unit: str) -> Resource:
    return {"valueQuantity": {"value": value, "unit": _UNIT_TEXT.get(unit, unit), "system": UCUM, "code": unit}}


# --- blood test and examination ------------------------------------------------------------------


def _blood_and_examination(man: Man) -> Iterator[Resource]:
    tests = [("psa", (man.psa_day, man.psa)), ("psa-earlier", man.earlier_psa), ("psa-later", man.later_psa)]
    profile = "PR-ProstateSpecificAntigen" if man.psa_unit == "ng/mL" else None
    for key, test in tests:
        if test is not None and test[1] is not None:
            yield _observation(man, key, _PSA, test[0], _quantity(test[1], man.psa_unit), profile)
    if man.dre is not None:
        yield _base("Procedure", f"{man.patient}-dre", "PR-DigitalRectalExamination") | {
            "status": "completed",
            "code": _DRE,
            "subject": _subject(man),
            "performedDateTime": man.psa_day.isoformat(),
            "bodySite": [_PROSTATE],
            "outcome": _DRE_OUTCOMES[man.dre],
        }
    if man.dre_volume_class is not None:
        value = {"valueInteger": man.dre_volume_class}
        yield _observation(man, "dre-volume", _VOLUME_CLASS, man.psa_day, value)


# --- imaging -------------------------------------------------------------------------------------


def _imaging(man: Man) -> Iterator[Resource]:
    if man.volume is not None:
        profile = "PR-ProstateVolume" if man.volume_unit == "cm3" else None
        value = _quantity(man.volume, man.volume_unit) | {"bodySite": _PROSTATE}
        yield _observation(man, "volume", _VOLUME, man.mri or man.psa_day, value, profile)
    if man.mri is not None:
        scores = {"pirads": man.pirads, "pirads-second": man.second_lesion}
        yield from _study(man, "mri", man.mri, scores, man.report_days, volume=man.volume is not None)
    if man.earlier_mri is not None:
        day, score = man.earlier_mri
        yield from _study(man, "mri-earlier", day, {"pirads-earlier": score}, 0, volume=False)


def _study(
    man: Man, key: str, day: date, scores: dict[str, int | None], report_days: int, *, volume: bool
) -> Iterator[Resource]:
    """An imaging study and the scores that were read from it, linked by the study's extension."""
    read = {name: score for name, score in scores.items() if score is not None}
    for name, score in read.items():
        reported = day + timedelta(report_days)
        yield _observation(man, name, _PIRADS, reported, {"valueInteger": score}, "PR-PIRADSScore")
    linked = [*read, *(["volume"] if volume else [])]
    study = _base("ImagingStudy", f"{man.patient}-{key}", "imagingStudy-eu-flute") | {
        "status": "available",
        "modality": [{"system": DICOM_MODALITY, "code": "MR"}],
        "subject": _subject(man),
        "started": f"{day.isoformat()}T09:30:00+01:00",
    }
    if linked:
        study["extension"] = [
            {
                "url": PROFILE + "resource-supportingInfo",
                "valueReference": {"reference": f"Observation/{man.patient}-{name}"},
            }
            for name in linked
        ]
    yield study


# --- biopsy, outcome, family ---------------------------------------------------------------------


def _biopsies(man: Man) -> Iterator[Resource]:
    if man.earlier_biopsy is not None:
        day, grade = man.earlier_biopsy
        yield _biopsy(man, "biopsy-earlier", 0, {"performedDateTime": day.isoformat()})
        yield _outcome(man, "isup-earlier", grade, day)
    if man.biopsy is None:
        return
    when: Resource = {"performedDateTime": man.biopsy.isoformat()}
    if man.age_only:
        when = {"performedAge": {"value": man.age, "unit": "a", "system": UCUM, "code": "a"}}
    yield _biopsy(man, "biopsy", man.repeated, when)
    if man.isup is not None:
        yield _outcome(man, "isup", man.isup, man.biopsy)


def _biopsy(man: Man, key: str, repeated: int, when: Resource) -> Resource:
    profile = "PR-Biopsy" if "performedAge" in when else None
    return _base("Procedure", f"{man.patient}-{key}", profile) | {
        "status": "completed",
        "category": _BIOPSY_TYPES[repeated],
        "code": _BIOPSY,
        "subject": _subject(man),
        "bodySite": [_PROSTATE],
        **when,
    }


def _outcome(man: Man, key: str, isup: int, biopsy: date) -> Resource:
    """Pathology reports a week after the biopsy. Grade group 0 is "no cancer", for which no profile exists."""
    profile = "PR-OutcomeBCN-RC2" if isup else None
    value = {"valueCodeableConcept": _ISUP[isup]}
    return _observation(man, key, _OUTCOME, biopsy + timedelta(7), value, profile)


def _family_history(man: Man) -> Resource:
    other = {"code": {"text": "hypertension"}}
    conditions = [{"code": _concept(SCT, MALIGNANT_PROSTATE_TUMOUR)}] if man.family_history else []
    if man.second_condition:
        # Not first on purpose: every condition counts, not condition[0] alone.
        conditions.insert(0, other)
    plain = conditions and not man.second_condition
    resource = _base(
        "FamilyMemberHistory", f"{man.patient}-family", "PR-ProstateCancerFamilyHistory" if plain else None
    ) | {"status": "completed", "patient": _subject(man), "relationship": _concept(ROLE_CODE, "FTH")}
    if conditions:
        resource["condition"] = conditions
    return resource
