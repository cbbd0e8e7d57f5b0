"""Which of the pilot's resources are usable, and why another is not: one SQL table `<name>_all` per kind of resource.

A resource has a reason, or none, and then counts. The same is said, with the element and how to mend it, by the
checks that `flute.conformance` compiles out of `pilot.profiles`; this is the second line of defence, and the first
where resources were not checked. Units and limits are the profiles'.
"""

# ruff: noqa: S608 the statements are fixed text; nothing of a caller or a record is put into them
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flute.cohort.contradictions import Identity
from flute.conformance.model import Element, Quantity
from flute.errors import MisuseError
from flute.pilot.profiles import PSA, VOLUME
from flute.pilot.tables import ISUP_LOINC, ISUP_SCT, LOINC, NO_CANCER, PROSTATE_CANCERS, SCT, UCUM

REFUSALS: Final = (
    "required-element-missing", "wrong-type", "reference-not-resolved", "status-not-final", "unit-not-convertible",
    "value-out-of-range", "pirads-out-of-range", "code-not-in-value-set",
)  # fmt: skip
UNRESOLVED: Final = "reference-not-resolved"
"""The one reason that only several resources together can tell; the others are the model's checks' too, which refuse
before a view reads anything. The SQL keeps them as a second line of defence."""
UNIT_FACTORS: Final = {"ng/mL": 1, "ug/L": 1, "mg/L": 1_000, "cm3": 1, "mL": 1}
"""UCUM code to the factor into the model's own unit. Written out, so that a recipe needs no table of units; a test
holds it against UCUM's definitions."""


def _person(identity: Identity) -> str:
    """One row per man, also where his id has several Patient resources (declared to be one person).

    Of two birth dates none counts; a year is no contradiction to a date in it. Of two genders none counts, unless
    such men are refused anyway, by a reason of their own.
    """
    contested = "CASE WHEN list_contains(genders, 'male') THEN 'male' END" if identity == "refuse-person" else "NULL"
    return f"""person AS (
  SELECT id, len(genders) > 1 OR births_differ AS identity_differs,
    CASE WHEN len(genders) > 1 THEN {contested} ELSE genders[1] END AS gender,
    CASE WHEN NOT births_differ THEN births[1] END AS birth
  FROM (
    SELECT *, len(list_filter(births, lambda birth: NOT starts_with(births[1], birth))) > 0 AS births_differ
    FROM (
      SELECT id, coalesce(list(DISTINCT gender ORDER BY gender) FILTER (gender IS NOT NULL), []) AS genders,
        coalesce(list(DISTINCT birth ORDER BY birth DESC) FILTER (birth IS NOT NULL), []) AS births
      FROM patient_view GROUP BY id)))"""


def _measured(element: Element) -> Quantity:
    kind = element.part("value").kind
    if not isinstance(kind, Quantity):
        raise MisuseError(f"The value of {element.name} is no quantity.")
    return kind


_PSA: Final = _measured(PSA)
_VOLUME: Final = _measured(VOLUME)
_DAY: Final = "TRY_CAST(left(coalesce(v.moment, v.instant_at, v.period_start), 10) AS DATE)"
_PERFORMED: Final = "TRY_CAST(left(coalesce(v.moment, v.period_start), 10) AS DATE)"
_UNIT: Final = "coalesce(v.code, v.unit)"
_FOREIGN_UNIT: Final = f"(v.code IS NOT NULL AND v.system <> '{UCUM}')"


def _factor(quantity: Quantity) -> str:
    """SQL: by what a value is multiplied to be in the model's own unit; NULL where its unit is not accepted.

    Raises: MisuseError: an accepted unit whose factor is not written out here.
    """
    codes = {code: code for code in quantity.accepted} | dict(quantity.spellings)
    strange = sorted(set(codes.values()) - set(UNIT_FACTORS))
    if strange:
        raise MisuseError(f"UNIT_FACTORS has no factor for {', '.join(strange)}.")
    by_factor: dict[int, list[str]] = {}
    for spelling, code in codes.items():
        by_factor.setdefault(UNIT_FACTORS[code], []).append(spelling)
    whens = " ".join(
        f"WHEN {_UNIT} IN ({', '.join(repr(spelling) for spelling in spellings)}) THEN {factor}"
        for factor, spellings in by_factor.items()
    )
    return f"CASE {whens} END"


def _reason(*cases: tuple[str, str], status: tuple[str, ...]) -> str:
    """The first case that applies, after those about status and patient; NULL where the resource is usable."""
    allowed = ", ".join(f"'{s}'" for s in status)
    common = (
        ("v.status IS NULL OR NOT v.reference", "required-element-missing"),
        (f"v.status NOT IN ({allowed})", "status-not-final"),
        ("p.id IS NULL", "reference-not-resolved"),
    )
    whens = " ".join(f"WHEN {condition} THEN '{reason}'" for condition, reason in (*common, *cases))
    return f"CASE {whens} END AS reason"


_FINAL: Final = ("final", "amended", "corrected")
_DONE: Final = ("completed",)
_NO_VALUE: Final = ("NOT v.has_value", "required-element-missing")
_NO_SITE: Final = ("NOT v.has_site", "required-element-missing")
_JOIN_PATIENT: Final = "LEFT JOIN person p ON p.id = v.patient"


def _quantity(table: str, quantity: Quantity, *extra: tuple[str, str]) -> str:
    """Checked quantities: `number` in the model's unit, digits as recorded (decimal, so that x1000 is exact)."""
    factor = _factor(quantity)
    exact = f"CAST(TRY_CAST(v.value AS DECIMAL(18, 9)) * ({factor}) AS DOUBLE)"
    reason = _reason(
        *extra,
        _NO_VALUE,
        ("NOT v.is_quantity", "wrong-type"),
        ("v.value IS NULL", "required-element-missing"),
        ("v.comparator IS NOT NULL", "wrong-type"),
        (f"({factor}) IS NULL OR {_FOREIGN_UNIT}", "unit-not-convertible"),
        (f"v.value * ({factor}) NOT BETWEEN {quantity.low} AND {quantity.high}", "value-out-of-range"),
        status=_FINAL,
    )
    return f"""
  SELECT v.id, v.patient, {_DAY} AS day, coalesce(v.moment, v.instant_at, v.period_start) AS moment,
    CASE WHEN ({factor}) = 1 THEN v.value ELSE {exact} END AS number, v.code IS NULL AS unit_by_text, {reason}
  FROM {table} v {_JOIN_PATIENT}"""


def _score(table: str, high: int, beyond: str) -> str:
    reason = _reason(
        _NO_VALUE, ("v.value IS NULL", "wrong-type"), (f"v.value NOT BETWEEN 1 AND {high}", beyond), status=_FINAL
    )
    return f"""
  SELECT v.id, v.patient, {_DAY} AS day, coalesce(v.moment, v.instant_at, v.period_start) AS moment,
    v.value AS number, {reason}
  FROM {table} v {_JOIN_PATIENT}"""


def _isup_codes() -> str:
    pairs = [(SCT, NO_CANCER, 0), *((LOINC, code, grade) for grade, code in ISUP_LOINC.items())]
    pairs += [(SCT, code, grade) for grade, codes in ISUP_SCT.items() for code in codes]
    return ", ".join(f"('{system}', '{code}', {grade})" for system, code, grade in pairs)


_OUTCOME: Final = f"""
  SELECT v.id, v.patient, v.day, v.grade, {
    _reason(
        _NO_VALUE, ("NOT v.is_concept", "wrong-type"), ("v.meanings <> 1", "code-not-in-value-set"), status=_FINAL
    )
}
  FROM (
    SELECT v.id, any_value(v.patient) AS patient, any_value(v.reference) AS reference,
      any_value(v.status) AS status, any_value(v.has_value) AS has_value, any_value(v.is_concept) AS is_concept,
      any_value({_DAY}) AS day, count(DISTINCT m.grade) AS meanings, max(m.grade) AS grade
    FROM outcome_view v LEFT JOIN isup_code m ON m.system = v.system AND m.code = v.code GROUP BY v.id) v
  {_JOIN_PATIENT}"""
_BIOPSY: Final = f"""
  SELECT v.id, v.patient, {_PERFORMED} AS day, v.repeated, floor(v.age) AS stated_age, {
    _reason(
        ("NOT v.has_site AND NOT v.says_prostate", "required-element-missing"),
        ("NOT v.has_category OR NOT v.has_time", "required-element-missing"),
        ("v.initial = v.repeated", "code-not-in-value-set"),
        ("coalesce(v.moment, v.period_start) IS NULL AND v.age IS NULL", "wrong-type"),
        ("v.age_comparator IS NOT NULL", "wrong-type"),
        ("v.age IS NOT NULL AND coalesce(v.age_code, v.age_unit, '') <> 'a'", "unit-not-convertible"),
        ("v.age NOT BETWEEN 0 AND 130", "value-out-of-range"),
        status=_DONE,
    )
}
  FROM biopsy_view v {_JOIN_PATIENT} WHERE v.prostate OR v.says_prostate OR NOT v.has_site"""
_DRE: Final = f"""
  SELECT v.id, v.patient, {_PERFORMED} AS day, coalesce(v.moment, v.period_start) AS moment,
    CAST(v.suspicious AS INTEGER) AS number, {
    _reason(
        _NO_SITE,
        ("NOT v.has_outcome", "required-element-missing"),
        ("v.normal = v.suspicious", "code-not-in-value-set"),
        status=_DONE,
    )
}
  FROM dre_view v {_JOIN_PATIENT} WHERE v.prostate OR NOT v.has_site"""
_FAMILY: Final = f"""
  SELECT v.id, v.patient, v.cancer, {_reason(status=_DONE)}
  FROM (
    SELECT id, any_value(patient) AS patient, any_value(reference) AS reference, any_value(status) AS status,
      coalesce(bool_or(system = '{SCT}' AND code IN ({", ".join(f"'{c}'" for c in PROSTATE_CANCERS)})), false)
        AS cancer
    FROM family_view GROUP BY id) v {_JOIN_PATIENT}"""
_IMAGING: Final = f"""
  SELECT v.id, v.patient, TRY_CAST(left(v.started, 10) AS DATE) AS day, {_reason(status=("available",))}
  FROM imaging_view v {_JOIN_PATIENT} WHERE v.magnetic OR NOT v.has_modality"""

TABLES: Final = {
    "psa": ("Observation", _quantity("psa_view", _PSA)),
    "volume": (
        "Observation",
        _quantity("(SELECT * FROM volume_view WHERE prostate OR NOT has_site)", _VOLUME, _NO_SITE),
    ),
    "pirads": ("Observation", _score("pirads_view", 5, "pirads-out-of-range")),
    "volume_class": ("Observation", _score("volume_class_view", 3, "value-out-of-range")),
    "outcome": ("Observation", _OUTCOME),
    "biopsy": ("Procedure", _BIOPSY),
    "dre": ("Procedure", _DRE),
    "family": ("FamilyMemberHistory", _FAMILY),
    "imaging": ("ImagingStudy", _IMAGING),
}


def usable(identity: Identity) -> str:
    """SQL: a WITH clause of `person` and every table, `<name>_all` each."""
    return _with(_person(identity), TABLES)


def refusal(reason: str) -> str:
    """One row per resource refused for `reason`, out of the tables that can give it."""
    able = [name for name, (_, sql) in TABLES.items() if f"'{reason}'" in sql]
    keys = " UNION ALL ".join(f"SELECT '{TABLES[n][0]}/' || id AS key, reason FROM {n}_all" for n in able)
    return f"{_with(_SOMEBODY, able)}\nSELECT key FROM ({keys}) WHERE reason = '{reason}'"


_SOMEBODY: Final = "person AS (SELECT DISTINCT id FROM patient_view)"


def _with(person: str, names: Iterable[str]) -> str:
    tables = ",".join(f"\n{name}_all AS ({TABLES[name][1]})" for name in names)
    return f"WITH isup_code(system, code, grade) AS (VALUES {_isup_codes()}),\n{person},{tables}"
