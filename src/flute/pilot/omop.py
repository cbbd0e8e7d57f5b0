"""The simulated pilot as an OMOP CDM v5.4 site would hold it: events with concepts, answers and units as concepts.

The concept table holds the few concepts that the men need, under ids of our own: 2,000,000,000 and up is the range
that OMOP leaves to sites. The mapping file finds concepts by vocabulary and code and never by id, so that it fits a
site that has them from Athena. A procedure must have a date in OMOP; a biopsy of which only the age is known has
NO_DATE there, and the age in an observation that points at it.
Source: OHDSI, OMOP Common Data Model v5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Final

from flute.pilot.hospital import UNIT_SPELLINGS, Cell, Sheet
from flute.pilot.resources import Man
from flute.pilot.tables import (
    BIOPSY_INITIAL,
    BIOPSY_REPEATED,
    DRE_CODE,
    DRE_NORMAL,
    DRE_SUSPICIOUS,
    ISUP_LOINC,
    MALIGNANT_PROSTATE_TUMOUR,
    NO_CANCER,
    OUTCOME_TERM_CODE,
    PIRADS_CODE,
    PROSTATE_BIOPSY_CODE,
    PSA_CODE,
    VOLUME_CLASS_CODE,
    VOLUME_CODE,
)

NO_DATE: Final = date(1900, 1, 1)
"""What the simulated site writes where a procedure's day is not known."""
FIRST_CONCEPT: Final = 2_000_000_001
EHR: Final = 32817
"""OMOP's type concept for what comes from an electronic health record."""
_MRI, _AGE, _FAMILY, _NO, _HYPERTENSION = "113091000", "397669002", "416471007", "373067005", "38341003"
_OUTCOMES: Final = {0: ("SNOMED", NO_CANCER), **{grade: ("LOINC", code) for grade, code in ISUP_LOINC.items()}}
_CONCEPTS: Final = (
    ("Gender", "M", "MALE"), ("Gender", "F", "FEMALE"),
    ("LOINC", PSA_CODE, "Prostate specific Ag [Mass/volume] in Serum or Plasma"),
    ("LOINC", "718-7", "Hemoglobin [Mass/volume] in Blood"),
    ("LOINC", OUTCOME_TERM_CODE, "Prostate cancer grade group"),
    *(("LOINC", code, f"Grade group {grade}") for grade, code in ISUP_LOINC.items()),
    ("SNOMED", NO_CANCER, "No evidence of malignant neoplasm"),
    ("SNOMED", VOLUME_CODE, "Volume of prostate"), ("SNOMED", PIRADS_CODE, "PI-RADS score"),
    ("SNOMED", DRE_CODE, "Digital examination of rectum"), ("SNOMED", DRE_NORMAL, "Normal"),
    ("SNOMED", DRE_SUSPICIOUS, "Suspicious"), ("SNOMED", _MRI, "Magnetic resonance imaging"),
    ("SNOMED", PROSTATE_BIOPSY_CODE, "Biopsy of prostate"), ("SNOMED", BIOPSY_INITIAL, "Initial"),
    ("SNOMED", BIOPSY_REPEATED, "Repeat"), ("SNOMED", _AGE, "Age"),
    ("SNOMED", _FAMILY, "Family history of clinical finding"), ("SNOMED", _NO, "No"),
    ("SNOMED", MALIGNANT_PROSTATE_TUMOUR, "Malignant tumor of prostate"), ("SNOMED", _HYPERTENSION, "Hypertension"),
    ("FLUTE", VOLUME_CLASS_CODE, "Volume class felt at the rectal examination"),
    *(("UCUM", code, code) for code in ("ng/mL", "ug/L", "mg/L", "mL", "cm3", "g/dL", "a")),
)  # fmt: skip
_IDS: Final = {(vocabulary, code): FIRST_CONCEPT + i for i, (vocabulary, code, _) in enumerate(_CONCEPTS)}
_COLUMNS: Final[dict[str, dict[str, type]]] = {
    "person": {
        "person_id": int, "gender_concept_id": int, "year_of_birth": int, "month_of_birth": int, "day_of_birth": int,
        "birth_datetime": datetime, "race_concept_id": int, "ethnicity_concept_id": int, "person_source_value": str,
        "gender_source_value": str,
    },
    "measurement": {
        "measurement_id": int, "person_id": int, "measurement_concept_id": int, "measurement_date": date,
        "measurement_type_concept_id": int, "operator_concept_id": int, "value_as_number": float,
        "value_as_concept_id": int, "unit_concept_id": int, "measurement_source_value": str,
        "unit_source_value": str, "value_source_value": str, "measurement_event_id": int,
    },
    "observation": {
        "observation_id": int, "person_id": int, "observation_concept_id": int, "observation_date": date,
        "observation_type_concept_id": int, "value_as_number": float, "value_as_concept_id": int,
        "unit_concept_id": int, "observation_source_value": str, "value_source_value": str,
        "observation_event_id": int,
    },
    "procedure_occurrence": {
        "procedure_occurrence_id": int, "person_id": int, "procedure_concept_id": int, "procedure_date": date,
        "procedure_type_concept_id": int, "modifier_concept_id": int, "procedure_source_value": str,
        "modifier_source_value": str,
    },
    "condition_occurrence": {
        "condition_occurrence_id": int, "person_id": int, "condition_concept_id": int, "condition_start_date": date,
        "condition_type_concept_id": int, "condition_source_value": str,
    },
    "concept": {
        "concept_id": int, "concept_name": str, "domain_id": str, "vocabulary_id": str, "concept_class_id": str,
        "standard_concept": str, "concept_code": str,
    },
}  # fmt: skip


def omop_tables(men: Sequence[Man], *, varied: bool = False) -> list[Sheet]:
    """The CDM's tables with all their rows. `varied`: units as the laboratory spelt them, not mapped to concepts."""
    site = _Site(varied)
    for number, man in enumerate(men, start=1):
        site.add(man, number)
    return [
        Sheet(name, columns, tuple(tuple(row.get(column) for column in columns) for row in site.rows[name]))
        for name, columns in _COLUMNS.items()
    ]


class _Site:
    def __init__(self, varied: bool) -> None:
        self._varied = varied
        self.rows: dict[str, list[dict[str, Cell]]] = {name: [] for name in _COLUMNS}
        for (vocabulary, code), own in _IDS.items():
            name = next(n for v, c, n in _CONCEPTS if (v, c) == (vocabulary, code))
            self.rows["concept"].append({
                "concept_id": own, "concept_name": name, "domain_id": "Metadata", "vocabulary_id": vocabulary,
                "concept_class_id": vocabulary, "standard_concept": "S", "concept_code": code,
            })  # fmt: skip

    def add(self, man: Man, number: int) -> None:
        midnight = datetime.combine(man.birth, time())
        self.rows["person"].append({
            "person_id": number, "gender_concept_id": _IDS["Gender", "M" if man.gender == "male" else "F"],
            "year_of_birth": man.birth.year, "month_of_birth": man.birth.month, "day_of_birth": man.birth.day,
            "birth_datetime": midnight, "race_concept_id": 0, "ethnicity_concept_id": 0,
            "person_source_value": man.patient, "gender_source_value": man.gender,
        })  # fmt: skip
        self._laboratory(man, number)
        self._imaging(man, number)
        self._examination(man, number)
        self._biopsies(man, number)
        self._family(man, number)

    # --- events ------------------------------------------------------------------------------------

    def _laboratory(self, man: Man, person: int) -> None:
        index = None if man.psa is None else (man.psa_day, man.psa)
        for test in (index, man.earlier_psa, man.later_psa):
            if test is not None:
                self._measure(person, ("LOINC", PSA_CODE), test[0], test[1], man.psa_unit)
        self._measure(person, ("LOINC", "718-7"), man.psa_day, 14.2, "g/dL")

    def _imaging(self, man: Man, person: int) -> None:
        study = None
        if man.mri is not None:
            scores = (man.pirads, man.second_lesion)
            study = self._study(person, man.mri, scores, man.mri + timedelta(man.report_days))
        if man.volume is not None:
            self._measure(person, ("SNOMED", VOLUME_CODE), man.mri or man.psa_day, man.volume, man.volume_unit, study)
        if man.earlier_mri is not None:
            day, score = man.earlier_mri
            self._study(person, day, (score,), day)

    def _study(self, person: int, day: date, scores: Sequence[int | None], reported: date) -> int:
        study = self._procedure(person, ("SNOMED", _MRI), day)
        for score in scores:
            if score is not None:
                self._measure(person, ("SNOMED", PIRADS_CODE), reported, score, "", study)
        return study

    def _examination(self, man: Man, person: int) -> None:
        if man.dre is not None:
            self._observe(
                person, ("SNOMED", DRE_CODE), man.psa_day, ("SNOMED", (DRE_NORMAL, DRE_SUSPICIOUS)[man.dre])
            )
        if man.dre_volume_class is not None:
            self._observe(person, ("FLUTE", VOLUME_CLASS_CODE), man.psa_day, number=man.dre_volume_class)

    def _biopsies(self, man: Man, person: int) -> None:
        if man.earlier_biopsy is not None:
            day, grade = man.earlier_biopsy
            self._procedure(person, ("SNOMED", PROSTATE_BIOPSY_CODE), day, ("SNOMED", BIOPSY_INITIAL))
            self._outcome(person, day, grade)
        if man.biopsy is None:
            return
        kind = BIOPSY_REPEATED if man.repeated else BIOPSY_INITIAL
        day = NO_DATE if man.age_only else man.biopsy
        biopsy = self._procedure(person, ("SNOMED", PROSTATE_BIOPSY_CODE), day, ("SNOMED", kind))
        if man.age_only:
            self._observe(person, ("SNOMED", _AGE), NO_DATE, number=man.age, unit="a", event=biopsy)
        if man.isup is not None:
            self._outcome(person, man.biopsy, man.isup)
            if man.isup:
                self._add("condition_occurrence", person, "condition", ("SNOMED", MALIGNANT_PROSTATE_TUMOUR), {
                    "condition_start_date": man.biopsy + timedelta(7),
                })  # fmt: skip

    def _outcome(self, person: int, biopsy: date, grade: int) -> None:
        answer = _OUTCOMES[grade]
        self._add("measurement", person, "measurement", ("LOINC", OUTCOME_TERM_CODE), {
            "measurement_date": biopsy + timedelta(7), "value_as_concept_id": _IDS[answer],
            "value_source_value": answer[1],
        })  # fmt: skip

    def _family(self, man: Man, person: int) -> None:
        if man.family_history is not None:
            answer = MALIGNANT_PROSTATE_TUMOUR if man.family_history else _NO
            self._observe(person, ("SNOMED", _FAMILY), man.psa_day, ("SNOMED", answer))
        if man.second_condition:
            self._observe(person, ("SNOMED", _FAMILY), man.psa_day, ("SNOMED", _HYPERTENSION))

    # --- rows ----------------------------------------------------------------------------------------

    def _measure(
        self, person: int, what: tuple[str, str], day: date, number: float, unit: str, event: int | None = None
    ) -> None:
        spelt, concept = unit, _IDS.get(("UCUM", unit))
        if self._varied and what[1] == PSA_CODE:
            spelt, concept = UNIT_SPELLINGS[len(self.rows["measurement"]) % 2][0], 0
        self._add("measurement", person, "measurement", what, {
            "measurement_date": day, "value_as_number": number, "unit_concept_id": concept,
            "unit_source_value": spelt or None, "value_source_value": str(number), "measurement_event_id": event,
        })  # fmt: skip

    def _observe(
        self, person: int, what: tuple[str, str], day: date, answer: tuple[str, str] | None = None,
        *, number: float | None = None, unit: str = "", event: int | None = None,
    ) -> None:  # fmt: skip
        self._add("observation", person, "observation", what, {
            "observation_date": day, "value_as_number": number, "observation_event_id": event,
            "value_as_concept_id": _IDS[answer] if answer else None, "unit_concept_id": _IDS.get(("UCUM", unit)),
            "value_source_value": answer[1] if answer else str(number),
        })  # fmt: skip

    def _procedure(
        self, person: int, what: tuple[str, str], day: date, modifier: tuple[str, str] | None = None
    ) -> int:
        return self._add("procedure_occurrence", person, "procedure", what, {
            "procedure_date": day, "modifier_concept_id": _IDS[modifier] if modifier else None,
            "modifier_source_value": modifier[1] if modifier else None,
        })  # fmt: skip

    def _add(self, table: str, person: int, stem: str, what: tuple[str, str], row: dict[str, Cell]) -> int:
        own = len(self.rows[table]) + 1
        self.rows[table].append(row | {
            next(iter(_COLUMNS[table])): own, "person_id": person, f"{stem}_concept_id": _IDS[what],
            f"{stem}_type_concept_id": EHR, f"{stem}_source_value": what[1],
        })  # fmt: skip
        return own
