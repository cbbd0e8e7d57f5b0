"""How the pilot's resources become one row per man: what is refused, what is chosen, who is left out and why.

Three steps decide everything, in SQL over the tables of `pilot.views`: `_TABLES` (a resource is usable or has
a reason), `_chosen` (which usable ones make the row) and `_excluded` (the cohort's criteria, in their order).

Choices, where the pilot's documents are silent or contradict each other: the index biopsy is the last one
with an ISUP grade (else the last); its outcome is the highest grade reported from its day until the next
biopsy. The index MRI is the last on or before it; PSA, examination and volume are the last on or before it;
PI-RADS is the highest of the index MRI. A date less exact than a day is no date. Something undated is taken
only where nothing dated fits. PSA is above 3.0 as recorded, not as rounded. A man whose PSA was not recorded
stays in, flagged; one whose recorded PSA is too low stays in only by a suspicious examination.
Source: HL7 Europe FLUTE implementation guide (R4), inclusion criteria of the pilot.
"""

# ruff: noqa: S608 the statements are fixed text; nothing of a caller or a record is put into them
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from flute.data.source import Recipe
from flute.data.variables import Variable
from flute.errors import MisuseError
from flute.pilot.tables import ISUP_LOINC, ISUP_SCT, LOINC, NO_CANCER, PROSTATE_CANCERS, SCT, UCUM
from flute.pilot.views import PILOT_VIEWS

PILOT_VARIABLES: Final = (
    Variable("age", "number", 40, 90, unit="a", label="Age at biopsy, whole years"),
    Variable("psa", "number", 0.2, 200, unit="ng/mL", label="Prostate-specific antigen before the biopsy"),
    Variable("dre", "binary", label="Digital rectal examination: 1 suspicious, 0 normal"),
    Variable("biopsy_type", "binary", label="Biopsy: 0 initial, 1 repeated"),
    Variable("volume", "number", 10, 300, unit="cm3", label="Prostate volume on MRI"),
    Variable("pirads", "category", levels=("1", "2", "3", "4", "5"), label="PI-RADS of the index MRI"),
    Variable("family_history", "binary", label="Prostate cancer in the family: 1 yes, 0 no"),
    Variable("cspca", "binary", label="Clinically significant prostate cancer: ISUP grade group 2 or more"),
    Variable("isup", "category", levels=("0", "1", "2", "3", "4", "5"), label="ISUP grade group, 0 no cancer"),
    Variable("dre_volume_class", "category", levels=("1", "2", "3"), label="Volume class felt at the examination"),
)
"""Ranges are public plausible bounds, chosen from the literature and never from a hub's records."""

EXCLUSIONS: Final = (
    "not-male", "no-biopsy", "no-suspicion", "no-mri", "mri-after-biopsy", "mri-older-than-1y",
    "mri-timing-unverified", "pirads-version", "biopsy-scheme",
)  # fmt: skip
REFUSALS: Final = (
    "required-element-missing", "wrong-type", "reference-not-resolved", "status-not-final", "unit-not-convertible",
    "value-out-of-range", "pirads-out-of-range", "code-not-in-value-set",
)  # fmt: skip
FLAGS: Final = ("label-missing", "mri-timing-unverified", "suspicion-unverified", "unit-without-code")


@dataclass(frozen=True, slots=True)
class Declared:
    """What no resource can say and the steward declares for the dataset.

    `scheme`: how men were biopsied; "systematic" alone leaves out those with PI-RADS 3 or more.
    `no_record_means_no_family_history`: otherwise a man without any record of his family is missing it.
    `keep_unverified_timing`: keep men whose biopsy or MRI has no date to compare.
    """

    pirads_version: str = "2.1"
    scheme: Literal["systematic-and-targeted", "systematic", "other"] = "systematic-and-targeted"
    no_record_means_no_family_history: bool = False
    keep_unverified_timing: bool = True


def pilot_recipe(declared: Declared | None = None) -> Recipe:
    """The pilot's recipe for one hub's dataset.

    Raises: MisuseError: a PI-RADS version that is no number.
    """
    known = declared or Declared()
    return Recipe(
        name="prostate-pilot",
        views=PILOT_VIEWS,
        sql=_checked(_TABLES) + _chosen() + _final(known),
        variables=PILOT_VARIABLES,
        refusals={reason: _refusal(reason) for reason in REFUSALS},
    )


# --- which resources are usable -----------------------------------------------------------------

_DAY: Final = "TRY_CAST(left(coalesce(v.moment, v.instant_at, v.period_start), 10) AS DATE)"
_PERFORMED: Final = "TRY_CAST(left(coalesce(v.moment, v.period_start), 10) AS DATE)"
_UNIT: Final = "coalesce(v.code, v.unit)"
_FOREIGN_UNIT: Final = f"(v.code IS NOT NULL AND v.system <> '{UCUM}')"
_PSA_FACTOR: Final = (
    f"CASE WHEN {_UNIT} IN ('ng/mL', 'ng/ml', 'ug/L', 'ug/l', 'µg/L', 'μg/L', 'µg/l', 'μg/l') THEN 1 "
    f"WHEN {_UNIT} IN ('mg/L', 'mg/l') THEN 1000 END"
)
_VOLUME_FACTOR: Final = f"CASE WHEN {_UNIT} IN ('cm3', 'mL', 'ml', 'cc', 'cm³') THEN 1 END"


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
_JOIN_PATIENT: Final = "LEFT JOIN patient_view p ON p.id = v.patient"


def _quantity(table: str, factor: str, ceiling: int, *extra: tuple[str, str]) -> str:
    """Checked quantities: `number` in the variable's unit, digits as recorded (decimal, so that x1000 is exact)."""
    exact = f"CAST(TRY_CAST(v.value AS DECIMAL(18, 9)) * ({factor}) AS DOUBLE)"
    reason = _reason(
        *extra,
        _NO_VALUE,
        ("NOT v.is_quantity", "wrong-type"),
        ("v.value IS NULL", "required-element-missing"),
        ("v.comparator IS NOT NULL", "wrong-type"),
        (f"({factor}) IS NULL OR {_FOREIGN_UNIT}", "unit-not-convertible"),
        (f"v.value < 0 OR v.value * ({factor}) > {ceiling}", "value-out-of-range"),
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

_TABLES: Final = {
    "psa": ("Observation", _quantity("psa_view", _PSA_FACTOR, 100_000)),
    "volume": (
        "Observation",
        _quantity("(SELECT * FROM volume_view WHERE prostate OR NOT has_site)", _VOLUME_FACTOR, 2_000, _NO_SITE),
    ),
    "pirads": ("Observation", _score("pirads_view", 5, "pirads-out-of-range")),
    "volume_class": ("Observation", _score("volume_class_view", 3, "value-out-of-range")),
    "outcome": ("Observation", _OUTCOME),
    "biopsy": ("Procedure", _BIOPSY),
    "dre": ("Procedure", _DRE),
    "family": ("FamilyMemberHistory", _FAMILY),
    "imaging": ("ImagingStudy", _IMAGING),
}


def _checked(names: Iterable[str]) -> str:
    tables = ",".join(f"\n{name}_all AS ({_TABLES[name][1]})" for name in names)
    return f"WITH isup_code(system, code, grade) AS (VALUES {_isup_codes()}),{tables}"


def _refusal(reason: str) -> str:
    """One row per resource refused for `reason`, out of the tables that can give it."""
    able = [name for name, (_, sql) in _TABLES.items() if f"'{reason}'" in sql]
    keys = " UNION ALL ".join(f"SELECT '{_TABLES[n][0]}/' || id AS key, reason FROM {n}_all" for n in able)
    return f"{_checked(able)}\nSELECT key FROM ({keys}) WHERE reason = '{reason}'"


# --- which of them make the row -----------------------------------------------------------------


def _last(name: str) -> str:
    """Of the usable ones on or before the index biopsy, the last; undated ones only where no dated one fits."""
    return f"""
last_{name} AS (
  SELECT t.* FROM {name}_all t LEFT JOIN index_biopsy b USING (patient)
  WHERE t.reason IS NULL AND (b.id IS NULL OR t.day IS NULL OR b.day IS NULL OR t.day <= b.day)
  QUALIFY row_number() OVER (
    PARTITION BY t.patient ORDER BY t.day DESC NULLS LAST, t.moment DESC NULLS LAST, t.id DESC) = 1)"""


def _chosen() -> str:
    return _INDEX + "".join("," + _last(name) for name in ("psa", "volume", "dre", "volume_class"))


_INDEX: Final = """,
outcome_of_biopsy AS (
  SELECT b.id, o.grade FROM outcome_all o JOIN biopsy_all b USING (patient)
  WHERE o.reason IS NULL AND b.reason IS NULL AND (o.day IS NULL OR b.day IS NULL OR b.day <= o.day)
  QUALIFY row_number() OVER (PARTITION BY o.id ORDER BY b.day DESC NULLS LAST, b.id DESC) = 1),
index_biopsy AS (
  SELECT b.id, b.patient, b.day, b.repeated, b.stated_age, g.grade
  FROM biopsy_all b LEFT JOIN (SELECT id, max(grade) AS grade FROM outcome_of_biopsy GROUP BY id) g USING (id)
  WHERE b.reason IS NULL
  QUALIFY row_number() OVER (
    PARTITION BY b.patient ORDER BY g.grade IS NULL, b.day DESC NULLS LAST, b.id DESC) = 1),
scored AS (
  SELECT r.patient, coalesce(i.day, r.day) AS day, r.number
  FROM pirads_all r
  LEFT JOIN imaging_link_view l ON l.observation = r.id AND l.patient = r.patient
  LEFT JOIN imaging_all i ON i.id = l.study AND i.reason IS NULL
  WHERE r.reason IS NULL),
mri AS (
  SELECT patient, day, max(number) AS pirads FROM (
    SELECT patient, day, number FROM scored UNION ALL
    SELECT patient, day, NULL FROM imaging_all WHERE reason IS NULL)
  GROUP BY patient, day),
index_mri AS (
  SELECT m.patient, m.day, m.pirads FROM mri m LEFT JOIN index_biopsy b USING (patient)
  WHERE b.id IS NULL OR m.day IS NULL OR b.day IS NULL OR m.day <= b.day
  QUALIFY row_number() OVER (PARTITION BY m.patient ORDER BY m.day DESC NULLS LAST) = 1),
any_mri AS (SELECT DISTINCT patient FROM mri),
relatives AS (SELECT patient, bool_or(cancer) AS cancer FROM family_all WHERE reason IS NULL GROUP BY patient)"""


# --- the row, and who is left out -----------------------------------------------------------------

_BIRTH: Final = "TRY_CAST(p.birth AS DATE)"
_WHOLE_YEARS: Final = (
    f"year(b.day) - year({_BIRTH}) - CAST((month(b.day), day(b.day)) < (month({_BIRTH}), day({_BIRTH})) AS INTEGER)"
)
_UNVERIFIED: Final = "(b.day IS NULL OR m.day IS NULL)"


def _excluded(declared: Declared) -> str:
    """The criteria, first come first named."""
    cases = [
        ("p.gender IS DISTINCT FROM 'male'", "not-male"),
        ("b.id IS NULL", "no-biopsy"),
        ("psa.number <= 3.0 AND dre.number IS DISTINCT FROM 1", "no-suspicion"),
        ("any_mri.patient IS NULL", "no-mri"),
        ("m.patient IS NULL", "mri-after-biopsy"),
        ("m.day < b.day - INTERVAL 1 YEAR", "mri-older-than-1y"),
    ]
    if not declared.keep_unverified_timing:
        cases.append((_UNVERIFIED, "mri-timing-unverified"))
    if not _version_at_least_2(declared.pirads_version):
        cases.append(("true", "pirads-version"))
    if declared.scheme == "other":
        cases.append(("true", "biopsy-scheme"))
    elif declared.scheme == "systematic":
        cases.append(("m.pirads >= 3", "biopsy-scheme"))
    return "CASE " + " ".join(f"WHEN {condition} THEN '{reason}'" for condition, reason in cases) + " END"


def _version_at_least_2(version: str) -> bool:
    try:
        return float(version) >= 2.0
    except ValueError as error:
        raise MisuseError(f"The declared PI-RADS version {version!r} is no version such as 2.1.") from error


def _final(declared: Declared) -> str:
    family = "relatives.cancer"
    if declared.no_record_means_no_family_history:
        family = "coalesce(relatives.cancer, false)"
    return f"""
SELECT p.id AS patient,
  coalesce(b.stated_age, {_WHOLE_YEARS}) AS age,
  psa.number AS psa,
  dre.number AS dre,
  CAST(b.repeated AS INTEGER) AS biopsy_type,
  volume.number AS volume,
  m.pirads AS pirads,
  CAST({family} AS INTEGER) AS family_history,
  CAST(b.grade >= 2 AS INTEGER) AS cspca,
  b.grade AS isup,
  felt.number AS dre_volume_class,
  {_excluded(declared)} AS excluded,
  [CASE WHEN b.grade IS NULL THEN 'label-missing' END,
   CASE WHEN {_UNVERIFIED} THEN 'mri-timing-unverified' END,
   CASE WHEN psa.number IS NULL AND dre.number IS DISTINCT FROM 1 THEN 'suspicion-unverified' END,
   CASE WHEN psa.unit_by_text OR volume.unit_by_text THEN 'unit-without-code' END] AS flags
FROM patient_view p
LEFT JOIN index_biopsy b ON b.patient = p.id
LEFT JOIN index_mri m ON m.patient = p.id
LEFT JOIN any_mri ON any_mri.patient = p.id
LEFT JOIN last_psa psa ON psa.patient = p.id
LEFT JOIN last_volume volume ON volume.patient = p.id
LEFT JOIN last_dre dre ON dre.patient = p.id
LEFT JOIN last_volume_class felt ON felt.patient = p.id
LEFT JOIN relatives ON relatives.patient = p.id"""


PILOT_RECIPE: Final = pilot_recipe()
"""For the simulated hubs: PI-RADS 2.1, systematic and targeted biopsies."""
