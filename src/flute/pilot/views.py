"""The pilot's ViewDefinitions (SQL-on-FHIR v2): what is read out of which resource, before any judgement.

Views take a resource by its code alone; units, ranges, value sets, status and dates are judged in
`pilot.recipe`, so that whatever is refused can be counted with its reason. A resource's claimed profile is
not asked for: the pilot's guide and its own examples claim different addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flute.pilot.tables import (
    BIOPSY_CODE,
    BIOPSY_INITIAL,
    BIOPSY_REPEATED,
    DRE_CODE,
    DRE_NORMAL,
    DRE_SUSPICIOUS,
    FLUTE_EXAM,
    LOINC,
    OUTCOME_LIST_CODE,
    OUTCOME_TERM_CODE,
    PIRADS_CODE,
    PROFILE,
    PROFILE_OF_EXAMPLES,
    PROSTATE_BIOPSY_CODE,
    PROSTATE_SITE,
    PSA_CODE,
    SCT,
    VOLUME_CLASS_CODE,
    VOLUME_CODE,
)

_Columns = list[dict[str, str]]


def _column(name: str, path: str, kind: str = "string") -> dict[str, str]:
    return {"name": name, "path": path, "type": kind}


def _coded(system: str, *codes: str) -> list[dict[str, str]]:
    either = " or ".join(f"code = '{code}'" for code in codes)
    return [{"path": f"code.coding.where(system = '{system}' and ({either})).exists()"}]


def _about(subject: str = "subject") -> _Columns:
    """Whose, and in what state. `reference` says that there was a reference where `patient` found no patient."""
    return [
        _column("id", "getResourceKey()"),
        _column("patient", f"{subject}.getReferenceKey(Patient)"),
        _column("reference", f"{subject}.reference.exists()", "boolean"),
        _column("status", "status", "code"),
    ]


def _when(element: str) -> _Columns:
    return [
        _column("moment", f"{element}.ofType(dateTime)", "dateTime"),
        _column("period_start", f"{element}.ofType(Period).start", "dateTime"),
    ]


def _has(name: str, element: str, code: str) -> dict[str, str]:
    return _column(name, f"{element}.coding.where(system = '{SCT}' and code = '{code}').exists()", "boolean")


_QUANTITY: Final = [
    _column("has_value", "value.exists()", "boolean"),
    _column("is_quantity", "value.ofType(Quantity).exists()", "boolean"),
    _column("value", "value.ofType(Quantity).value", "decimal"),
    _column("comparator", "value.ofType(Quantity).comparator", "code"),
    _column("unit", "value.ofType(Quantity).unit"),
    _column("code", "value.ofType(Quantity).code", "code"),
    _column("system", "value.ofType(Quantity).system", "uri"),
]
_INTEGER: Final = [
    _column("has_value", "value.exists()", "boolean"),
    _column("value", "value.ofType(integer)", "integer"),
]
_SITE: Final = [_column("has_site", "bodySite.exists()", "boolean"), _has("prostate", "bodySite", PROSTATE_SITE)]
_INSTANT: Final = [_column("instant_at", "effective.ofType(instant)", "instant")]


def _observation(system: str, code: str, *columns: dict[str, str]) -> dict[str, Any]:
    own = [*_about(), *_when("effective"), *_INSTANT, *columns]
    return {"resource": "Observation", "where": _coded(system, code), "select": [{"column": own}]}


_OUTCOME: Final = {
    "resource": "Observation",
    "where": _coded(LOINC, OUTCOME_LIST_CODE, OUTCOME_TERM_CODE),
    "select": [
        {"column": [*_about(), *_when("effective"), *_INSTANT, _column("has_value", "value.exists()", "boolean"),
                    _column("is_concept", "value.ofType(CodeableConcept).exists()", "boolean")]},
        {"forEachOrNull": "value.ofType(CodeableConcept).coding",
         "column": [_column("system", "system", "uri"), _column("code", "code", "code")]},
    ],
}  # fmt: skip
_BIOPSY: Final = {
    "resource": "Procedure",
    "where": _coded(SCT, BIOPSY_CODE, PROSTATE_BIOPSY_CODE),
    "select": [{"column": [
        *_about(), *_when("performed"), *_SITE,
        _has("says_prostate", "code", PROSTATE_BIOPSY_CODE),
        _column("has_category", "category.exists()", "boolean"),
        _has("initial", "category", BIOPSY_INITIAL),
        _has("repeated", "category", BIOPSY_REPEATED),
        _column("has_time", "performed.exists()", "boolean"),
        _column("age", "performed.ofType(Age).value", "decimal"),
        _column("age_code", "performed.ofType(Age).code", "code"),
        _column("age_unit", "performed.ofType(Age).unit"),
        _column("age_comparator", "performed.ofType(Age).comparator", "code"),
    ]}],
}  # fmt: skip
_DRE: Final = {
    "resource": "Procedure",
    "where": _coded(SCT, DRE_CODE),
    "select": [{"column": [
        *_about(), *_when("performed"), *_SITE,
        _column("has_outcome", "outcome.exists()", "boolean"),
        _has("normal", "outcome", DRE_NORMAL),
        _has("suspicious", "outcome", DRE_SUSPICIOUS),
    ]}],
}  # fmt: skip
_FAMILY: Final = {
    "resource": "FamilyMemberHistory",
    "select": [
        {"column": _about("patient")},
        {"forEachOrNull": "condition.code.coding",
         "column": [_column("system", "system", "uri"), _column("code", "code", "code")]},
    ],
}  # fmt: skip
_IMAGING: Final = {
    "resource": "ImagingStudy",
    "select": [{"column": [
        *_about(),
        _column("started", "started", "dateTime"),
        _column("uid", "identifier.where(system = 'urn:dicom:uid').value.first()"),
        _column("has_modality", "modality.exists()", "boolean"),
        _column("magnetic", "modality.where(code = 'MR').exists()", "boolean"),
    ]}],
}  # fmt: skip
_LINKED: Final = " or ".join(f"url = '{base}resource-supportingInfo'" for base in (PROFILE, PROFILE_OF_EXAMPLES))
_IMAGING_LINK: Final = {
    "resource": "ImagingStudy",
    "select": [
        {"column": [_column("study", "getResourceKey()"), _column("patient", "subject.getReferenceKey(Patient)")]},
        {"forEach": f"extension.where({_LINKED}).value.ofType(Reference)",
         "column": [_column("observation", "getReferenceKey(Observation)")]},
    ],
}  # fmt: skip
_PATIENT: Final = {
    "resource": "Patient",
    "select": [{"column": [
        _column("id", "getResourceKey()"),
        _column("gender", "gender", "code"),
        _column("birth", "birthDate", "date"),
    ]}],
}  # fmt: skip
_IDENTIFIER: Final = {
    "resource": "Patient",
    "select": [
        {"column": [_column("id", "getResourceKey()")]},
        {"forEach": "identifier", "column": [_column("system", "system", "uri"), _column("value", "value")]},
    ],
}  # fmt: skip
"""Only to see that two ids have one identifier: a man who is there twice would be protected as two."""

PILOT_VIEWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "patient_view": _PATIENT,
    "identifier_view": _IDENTIFIER,
    "psa_view": _observation(LOINC, PSA_CODE, *_QUANTITY),
    "volume_view": _observation(SCT, VOLUME_CODE, *_QUANTITY, *_SITE),
    "pirads_view": _observation(SCT, PIRADS_CODE, *_INTEGER),
    "volume_class_view": _observation(FLUTE_EXAM, VOLUME_CLASS_CODE, *_INTEGER),
    "outcome_view": _OUTCOME,
    "biopsy_view": _BIOPSY,
    "dre_view": _DRE,
    "family_view": _FAMILY,
    "imaging_view": _IMAGING,
    "imaging_link_view": _IMAGING_LINK,
}
