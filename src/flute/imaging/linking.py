"""Which study in the PACS belongs to which patient and examination of the clinical record, and which to none.

By the study's UID where the record names it, else by accession number, else by the patient's id. Two ways that lead
to two patients link nothing: a study under the wrong patient is worse than a missing one. Ids are compared as they
are, without guessing at leading zeros. Everything unmatched is counted with a reason, on both sides.
Source: FHIR R4 ImagingStudy (identifier `urn:dicom:uid`, accession number), Patient.identifier; DICOM PS3.3 C.7.1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal

from flute.fhirpath.references import reference_key
from flute.imaging.sources.source import FoundStudy, day_of

By = Literal["study-uid", "accession", "patient-id"]
DAYS_APART: Final = 1
"""Between a record's date and the PACS's for one examination: midnight and time zones, no more."""
_UID_SYSTEM: Final = "urn:dicom:uid"


@dataclass(frozen=True, slots=True)
class ClinicalStudy:
    """An ImagingStudy of the record. `patient`: his id in the record. uids, accessions: what names it in a PACS."""

    patient: str
    uids: frozenset[str]
    accessions: frozenset[str]
    started: date | None


@dataclass(frozen=True, slots=True)
class ClinicalRecord:
    """`patients`: the id that the PACS knows a patient by, to his id in the record. `ambiguous`: ids of two
    patients."""

    patients: Mapping[str, str]
    studies: Sequence[ClinicalStudy] = ()
    ambiguous: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Linked:
    """`patient`: his id in the record. `flags`: "study-not-in-record", "date-differs"."""

    study: FoundStudy
    patient: str
    by: By
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Links:
    """`unlinked`: studies of the PACS, with the reason. `unfound`: examinations of the record without a study in the
    PACS. `without_study`: patients of the record for whom nothing was found."""

    linked: tuple[Linked, ...]
    unlinked: tuple[tuple[FoundStudy, str], ...]
    unfound: tuple[ClinicalStudy, ...]
    without_study: frozenset[str]

    def counts(self) -> dict[str, int]:
        """Reasons and ways to counts: what a report may say, without an id."""
        count = Counter(f"linked-by-{link.by}" for link in self.linked)
        count.update(flag for link in self.linked for flag in link.flags)
        count.update(reason for _, reason in self.unlinked)
        count.update(
            {"record-study-not-in-pacs": len(self.unfound), "patient-without-study": len(self.without_study)}
        )
        return {reason: n for reason, n in sorted(count.items()) if n}


@dataclass(slots=True)
class _Index:
    by_uid: dict[str, ClinicalStudy] = field(default_factory=dict)
    by_accession: dict[str, set[ClinicalStudy]] = field(default_factory=lambda: defaultdict(set))
    of_patient: dict[str, list[ClinicalStudy]] = field(default_factory=lambda: defaultdict(list))


def link(found: Iterable[FoundStudy], record: ClinicalRecord) -> Links:
    """Match studies of a PACS with a record. The order of `found` does not matter for who is linked to whom."""
    index = _Index()
    for clinical in record.studies:
        index.by_uid.update(dict.fromkeys(clinical.uids, clinical))
        for accession in clinical.accessions:
            index.by_accession[accession].add(clinical)
        index.of_patient[clinical.patient].append(clinical)
    linked: list[Linked] = []
    unlinked: list[tuple[FoundStudy, str]] = []
    met: set[ClinicalStudy] = set()
    for study in found:
        outcome = _match(study, record, index)
        if isinstance(outcome, str):
            unlinked.append((study, outcome))
            continue
        link_made, clinical_met = outcome
        linked.append(link_made)
        met |= {clinical_met} if clinical_met is not None else set()
    everyone = set(record.patients.values()) | {c.patient for c in record.studies}
    return Links(
        tuple(linked),
        tuple(unlinked),
        tuple(c for c in record.studies if c not in met),
        frozenset(everyone - {one.patient for one in linked}),
    )


def _match(study: FoundStudy, record: ClinicalRecord, index: _Index) -> tuple[Linked, ClinicalStudy | None] | str:
    """The link, or the reason why there is none."""
    by_id = record.patients.get(study.patient_id) if study.patient_id else None
    if study.patient_id in record.ambiguous:
        return "patient-id-ambiguous"
    clinical, by = index.by_uid.get(study.uid), "study-uid"
    if clinical is None and study.accession:
        candidates = index.by_accession.get(study.accession, set())
        if len(candidates) > 1:
            return "accession-ambiguous"
        clinical, by = next(iter(candidates), None), "accession"
    if clinical is not None:
        if by_id is not None and by_id != clinical.patient:
            return "patients-contradict"
        if by == "accession" and not _same_day(study.day, clinical.started):
            return "date-differs"  # accession numbers are used again after years
        flags = () if _same_day(study.day, clinical.started) else ("date-differs",)
        return Linked(study, clinical.patient, "study-uid" if by == "study-uid" else "accession", flags), clinical
    if by_id is None:
        return "patient-unknown" if study.patient_id else "patient-id-missing"
    of_day = [c for c in index.of_patient[by_id] if not c.uids and c.started is not None and c.started == study.day]
    flags = ("study-not-in-record",) if index.of_patient[by_id] and not of_day else ()
    return Linked(study, by_id, "patient-id", flags), of_day[0] if of_day else None


def _same_day(one: date | None, other: date | None) -> bool:
    """Unknown dates contradict nothing."""
    return one is None or other is None or abs((one - other).days) <= DAYS_APART


# --- from FHIR -----------------------------------------------------------------------------------


def record_of(resources: Iterable[Mapping[str, Any]], *, id_system: str | None = None) -> ClinicalRecord:
    """The record out of FHIR R4 Patient and ImagingStudy resources; others are passed over.

    `id_system`: system of the identifier that the PACS uses as Patient ID; None takes every identifier, and the
    resource's own id.
    """
    owners: dict[str, set[str]] = defaultdict(set)
    studies = []
    for resource in resources:
        if resource.get("resourceType") == "Patient" and resource.get("id"):
            if id_system is None:
                owners[resource["id"]].add(resource["id"])
            for identifier in resource.get("identifier") or []:
                if identifier.get("value") and id_system in (None, identifier.get("system")):
                    owners[str(identifier["value"]).strip()].add(resource["id"])
        elif resource.get("resourceType") == "ImagingStudy":
            study = clinical_study(resource)
            if study is not None:
                studies.append(study)
    return ClinicalRecord(
        {known: next(iter(found)) for known, found in owners.items() if len(found) == 1},
        studies,
        frozenset(known for known, found in owners.items() if len(found) > 1),
    )


def clinical_study(resource: Mapping[str, Any]) -> ClinicalStudy | None:
    """An ImagingStudy of a patient, or None where it names no patient by a literal reference."""
    patient = reference_key((resource.get("subject") or {}).get("reference"), "Patient")
    if patient is None:
        return None
    uids, accessions = set(), set()
    for identifier in resource.get("identifier") or []:
        value = str(identifier.get("value", "")).strip()
        if identifier.get("system") == _UID_SYSTEM:
            uids.add(value.removeprefix("urn:oid:"))
        elif any(c.get("code") == "ACSN" for c in (identifier.get("type") or {}).get("coding") or []):
            accessions.add(value)
    started = day_of(str(resource.get("started", ""))[:10].replace("-", ""))
    return ClinicalStudy(patient, frozenset(uids - {""}), frozenset(accessions - {""}), started)
