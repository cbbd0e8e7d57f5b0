"""How the pilot's resources become one row per man: what is refused, what is chosen, who is left out and why.

Three steps decide everything, in SQL over the tables of `pilot.views`: `pilot.usable` (a resource is usable or has
a reason), `_chosen` (which usable ones make the row) and `pilot.cohort` (the criteria, in their order).

Choices, where the pilot's documents are silent or contradict each other: the index biopsy is the last one
with an ISUP grade (else the last); its outcome is the highest grade reported from its day until the next
biopsy. The index MRI is the last on or before it; PSA, examination and volume are the last on or before it;
PI-RADS is the highest of the index MRI. A date less exact than a day is no date. Something undated is taken
only where nothing dated fits. PSA is above 3.0 as recorded, not as rounded. A man whose PSA was not recorded
stays in, flagged; one whose recorded PSA is too low stays in only by a suspicious examination. Where values of one
day or outcomes of one biopsy contradict each other, `cohort.contradictions` says what counts.
Source: HL7 Europe FLUTE implementation guide (R4), inclusion criteria of the pilot.
"""

# ruff: noqa: S608 the statements are fixed text; nothing of a caller or a record is put into them
from __future__ import annotations

from typing import Final

from flute.cohort.contradictions import Contradictions, chosen_result, differs, order_within_day
from flute.cohort.persons import suspects
from flute.cohort.rules import Cohort
from flute.data.variables import Variable
from flute.intake.recipe import ImagesView, Recipe
from flute.pilot.cohort import EXCLUSIONS, FLAGS, Declared, pilot_cohort
from flute.pilot.profiles import PILOT_MODEL
from flute.pilot.usable import UNRESOLVED, refusal, usable
from flute.pilot.views import PILOT_VIEWS

__all__ = ["EXCLUSIONS", "FLAGS", "PILOT_RECIPE", "PILOT_VARIABLES", "Declared", "pilot_recipe"]

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


PILOT_CLASSES: Final = dict.fromkeys((v.name for v in PILOT_VARIABLES), "sensitive") | dict.fromkeys(
    ("age", "biopsy_type", "family_history"), "quasi-identifier"
)
"""What somebody who knows a man may know of him already, and what only his records tell."""


def pilot_recipe(declared: Declared | None = None) -> Recipe:
    """The pilot's recipe for one hub's dataset.

    Raises: MisuseError: a PI-RADS version that is no number.
    """
    known = declared or Declared()
    cohort = pilot_cohort(known)
    before = usable(known.contradictions.identity) + _chosen(known.contradictions)
    return Recipe(
        name="prostate-pilot",
        views=PILOT_VIEWS,
        sql=before + _chart(known) + _result(cohort),
        variables=PILOT_VARIABLES,
        refusals={UNRESOLVED: refusal(UNRESOLVED)},
        model=PILOT_MODEL,
        cohort=cohort,
        suspects=before + "\nSELECT patient, other, why FROM suspect",
        concealed={"identifier_view": ("value",)},
        classes=PILOT_CLASSES,
        images=ImagesView("patient_view", "identifier_view", "imaging_view"),
    )


# --- which usable resources make the row --------------------------------------------------------------


def _last(name: str, order: str) -> str:
    """Of the usable ones on or before the index biopsy, the last; undated ones only where no dated one fits."""
    return f"""
last_{name} AS (
  SELECT t.*, {differs("t.number", "t.patient, t.day")} AS differs
  FROM {name}_all t LEFT JOIN index_biopsy b USING (patient)
  WHERE t.reason IS NULL AND (b.id IS NULL OR t.day IS NULL OR b.day IS NULL OR t.day <= b.day)
  QUALIFY row_number() OVER (PARTITION BY t.patient ORDER BY t.day DESC NULLS LAST, {order}) = 1)"""


def _chosen(rules: Contradictions) -> str:
    order = order_within_day(rules.same_day)
    lasts = "".join("," + _last(name, order) for name in ("psa", "volume", "dre", "volume_class"))
    return _index(rules) + lasts + f",\nsuspect AS ({suspects('person', 'event', 'identifier_view')})"


def _index(rules: Contradictions) -> str:
    latest = "coalesce(day, DATE '0001-01-01'), outcome"
    return f""",
outcome_of_biopsy AS (
  SELECT b.id, o.grade, o.day, o.id AS outcome FROM outcome_all o JOIN biopsy_all b USING (patient)
  WHERE o.reason IS NULL AND b.reason IS NULL AND (o.day IS NULL OR b.day IS NULL OR b.day <= o.day)
  QUALIFY row_number() OVER (PARTITION BY o.id ORDER BY b.day DESC NULLS LAST, b.id DESC) = 1),
graded AS (
  SELECT id, {chosen_result(rules.same_event, "grade", latest)} AS grade, min(grade) < max(grade) AS differs
  FROM outcome_of_biopsy GROUP BY id),
index_biopsy AS (
  SELECT b.id, b.patient, b.day, b.repeated, b.stated_age, g.grade, coalesce(g.differs, false) AS outcome_differs,
    {differs("b.repeated", "b.patient, b.day, b.stated_age")} AS differs
  FROM biopsy_all b LEFT JOIN graded g USING (id)
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
relatives AS (SELECT patient, bool_or(cancer) AS cancer FROM family_all WHERE reason IS NULL GROUP BY patient),
event AS (
  SELECT patient, 'psa' AS kind, day, number FROM psa_all WHERE reason IS NULL UNION ALL
  SELECT patient, 'volume', day, number FROM volume_all WHERE reason IS NULL UNION ALL
  SELECT patient, 'biopsy', day, CAST(repeated AS DOUBLE) FROM biopsy_all WHERE reason IS NULL UNION ALL
  SELECT patient, 'mri', day, NULL FROM imaging_all WHERE reason IS NULL)"""


# --- the row, and who is left out -----------------------------------------------------------------

_BIRTH: Final = "TRY_CAST(p.birth AS DATE)"
_WHOLE_YEARS: Final = (
    f"year(b.day) - year({_BIRTH}) - CAST((month(b.day), day(b.day)) < (month({_BIRTH}), day({_BIRTH})) AS INTEGER)"
)


def _chart(declared: Declared) -> str:
    """What is known of each man, one row each: the variables, and the columns that the criteria speak of."""
    family = "relatives.cancer"
    if declared.no_record_means_no_family_history:
        family = "coalesce(relatives.cancer, false)"
    return f""",
chart AS (
  SELECT p.id AS patient, p.gender, p.identity_differs,
    coalesce(b.stated_age, {_WHOLE_YEARS}) AS age,
    b.id AS biopsy, b.day AS biopsy_day, CAST(b.repeated AS INTEGER) AS biopsy_type,
    coalesce(b.differs, false) AS biopsy_differs,
    b.grade AS isup, CAST(b.grade >= 2 AS INTEGER) AS cspca, coalesce(b.outcome_differs, false) AS outcome_differs,
    psa.number AS psa, coalesce(psa.differs, false) AS psa_differs,
    dre.number AS dre, coalesce(dre.differs, false) AS dre_differs, felt.number AS dre_volume_class,
    volume.number AS volume, coalesce(volume.differs, false) AS volume_differs,
    psa.unit_by_text OR volume.unit_by_text AS unit_by_text,
    any_mri.patient IS NOT NULL AS any_mri, m.patient IS NOT NULL AS mri_before, m.day AS mri_day, m.pirads,
    CAST({family} AS INTEGER) AS family_history,
    twin.patient IS NOT NULL AS suspected,
    {declared.version} AS pirads_version, '{declared.scheme}' AS biopsy_scheme
  FROM person p
  LEFT JOIN index_biopsy b ON b.patient = p.id
  LEFT JOIN index_mri m ON m.patient = p.id
  LEFT JOIN any_mri ON any_mri.patient = p.id
  LEFT JOIN last_psa psa ON psa.patient = p.id
  LEFT JOIN last_volume volume ON volume.patient = p.id
  LEFT JOIN last_dre dre ON dre.patient = p.id
  LEFT JOIN last_volume_class felt ON felt.patient = p.id
  LEFT JOIN relatives ON relatives.patient = p.id
  LEFT JOIN (SELECT DISTINCT patient FROM suspect) twin ON twin.patient = p.id)"""


def _result(cohort: Cohort) -> str:
    names = ", ".join(variable.name for variable in PILOT_VARIABLES)
    return f"""
SELECT patient, {names},
  {cohort.excluded()} AS excluded,
  {cohort.reasons()} AS reasons,
  {cohort.flagged()} AS flags,
  biopsy_day AS index_day
FROM chart"""


PILOT_RECIPE: Final = pilot_recipe()
"""For the simulated hubs: PI-RADS 2.1, systematic and targeted biopsies."""
