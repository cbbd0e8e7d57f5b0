"""Who a study belongs to, by UID, accession number or patient id; contradictions link nothing; both sides count."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.imaging.linking import ClinicalRecord, ClinicalStudy, link, record_of
from flute.imaging.sources.source import FoundStudy

DAY = date(2020, 1, 10)


def study(uid: str = "1.1", patient: str = "MRN1", day: date | None = DAY, accession: str = "") -> FoundStudy:
    return FoundStudy(uid, patient, day, accession)


def clinical(
    patient: str = "p1", *, uids: str = "", accessions: str = "", started: date | None = DAY
) -> ClinicalStudy:
    return ClinicalStudy(patient, frozenset(uids.split()), frozenset(accessions.split()), started)


def record(*studies: ClinicalStudy, **patients: str) -> ClinicalRecord:
    return ClinicalRecord(patients or {"MRN1": "p1", "MRN2": "p2"}, studies)


def outcome(found: FoundStudy, known: ClinicalRecord):  # type: ignore[no-untyped-def]
    links = link([found], known)
    if links.linked:
        (one,) = links.linked
        return one.patient, one.by, one.flags
    return links.unlinked[0][1]


@pytest.mark.requirement("F-PIL-7")
@pytest.mark.parametrize(
    ("found", "known", "expected"),
    [
        (study(), record(clinical(uids="1.1")), ("p1", "study-uid", ())),
        (study(patient="OTHER"), record(clinical(uids="1.1")), ("p1", "study-uid", ())),
        (study(patient="MRN2"), record(clinical(uids="1.1")), "patients-contradict"),
        (study(accession="A7"), record(clinical(accessions="A7")), ("p1", "accession", ())),
        (study(accession="A7", patient="MRN2"), record(clinical(accessions="A7")), "patients-contradict"),
        (study(accession="A7", day=date(2016, 1, 1)), record(clinical(accessions="A7")), "date-differs"),
        (study(accession="A7", day=date(2020, 1, 11)), record(clinical(accessions="A7")), ("p1", "accession", ())),
        (study(accession="A7", day=None), record(clinical(accessions="A7")), ("p1", "accession", ())),
        (study(accession="A7"), record(clinical("p1", accessions="A7"), clinical("p2", accessions="A7")),
         "accession-ambiguous"),
        (study(day=date(2016, 1, 1)), record(clinical(uids="1.1")), ("p1", "study-uid", ("date-differs",))),
        (study(), record(), ("p1", "patient-id", ())),
        (study(), record(clinical()), ("p1", "patient-id", ())),
        (study(day=date(2016, 1, 1)), record(clinical()), ("p1", "patient-id", ("study-not-in-record",))),
        (study(patient="MRN9"), record(), "patient-unknown"),
        (study(patient="0MRN1"), record(), "patient-unknown"),
        (study(patient=""), record(), "patient-id-missing"),
        (study(), ClinicalRecord({}, (), frozenset({"MRN1"})), "patient-id-ambiguous"),
    ],
)  # fmt: skip
def test_a_study_is_linked_or_told_why_not(found: FoundStudy, known: ClinicalRecord, expected: object) -> None:
    assert outcome(found, known) == expected


def test_both_sides_are_counted_without_an_id() -> None:
    links = link(
        [study("1.1"), study("1.2", "MRN9"), study("1.3", "MRN9")],
        record(clinical(uids="1.1"), clinical("p2", uids="9.9"), clinical("p3", uids="9.8")),
    )
    assert links.counts() == {
        "linked-by-study-uid": 1, "patient-unknown": 2, "record-study-not-in-pacs": 2, "patient-without-study": 2,
    }  # fmt: skip
    assert links.without_study == {"p2", "p3"}


ACCESSIONS = st.sampled_from(["", "A1", "A2"])
IDS = st.sampled_from(["", "MRN1", "MRN2", "MRN3"])


@given(
    st.lists(st.tuples(st.sampled_from(["1.1", "1.2", "1.3", "1.4"]), IDS, ACCESSIONS), unique_by=lambda t: t[0]),
    st.lists(st.tuples(st.sampled_from(["p1", "p2"]), st.sampled_from(["", "1.1", "1.2"]), ACCESSIONS), max_size=4),
)  # fmt: skip
def test_nothing_is_lost_and_no_link_goes_against_the_patients_own_id(
    found: list[tuple[str, str, str]], known: list[tuple[str, str, str]]
) -> None:
    rec = record(*(clinical(p, uids=u, accessions=a) for p, u, a in known))
    links = link([study(u, p, DAY, a) for u, p, a in found], rec)
    assert len(links.linked) + len(links.unlinked) == len(found)
    for one in links.linked:
        owner = rec.patients.get(one.study.patient_id)
        assert owner in (None, one.patient)


# --- from FHIR -------------------------------------------------------------------------------------------


PATIENT = {
    "resourceType": "Patient", "id": "p1",
    "identifier": [{"system": "urn:mrn", "value": " MRN1 "}, {"system": "urn:insurance", "value": "INS7"}],
}  # fmt: skip
IMAGING = {
    "resourceType": "ImagingStudy", "id": "i1", "status": "available", "started": "2020-01-10T09:30:00+01:00",
    "subject": {"reference": "Patient/p1"},
    "identifier": [
        {"system": "urn:dicom:uid", "value": "urn:oid:1.2.840.1"},
        {"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"},
        {"system": "urn:other", "value": "no accession number"},
    ],
}  # fmt: skip


def test_a_record_is_made_of_patient_and_imaging_study() -> None:
    made = record_of([PATIENT, IMAGING, {"resourceType": "Observation"}])
    assert made.patients == {"p1": "p1", "MRN1": "p1", "INS7": "p1"}
    assert made.studies == [ClinicalStudy("p1", frozenset({"1.2.840.1"}), frozenset({"A7"}), DAY)]
    assert record_of([PATIENT], id_system="urn:mrn").patients == {"MRN1": "p1"}


def test_an_id_of_two_patients_belongs_to_neither() -> None:
    twin = {"resourceType": "Patient", "id": "p2", "identifier": [{"system": "urn:mrn", "value": "MRN1"}]}
    made = record_of([PATIENT, twin], id_system="urn:mrn")
    assert made.patients == {}
    assert made.ambiguous == {"MRN1"}


@pytest.mark.parametrize(
    "subject", [None, {}, {"reference": "Group/7"}, {"display": "somebody"}, {"reference": "#p"}]
)
def test_an_examination_of_nobody_in_particular_links_nothing(subject: object) -> None:
    assert record_of([PATIENT, {**IMAGING, "subject": subject}]).studies == []
