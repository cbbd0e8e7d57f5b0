"""Somebody with the released data, the source code and all of the patients' numbers, but not the hub's key."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from datetime import date
from itertools import pairwise
from typing import Any

import pytest

from flute.deidentify.dates import shift_fhir, shift_of
from flute.deidentify.dicom import DicomRules, deidentified
from flute.deidentify.fhir import FhirRules
from flute.deidentify.fhir import deidentified as fhir_deidentified
from flute.deidentify.pseudonyms import object_uid, pseudonym
from support.planted_leaks import KEY, image

pytestmark = pytest.mark.requirement("F-PIL-6")
NUMBERS = [f"{n:06}" for n in range(20_000)]
GUESSED_KEYS = (bytes(32), b"k" * 31 + b"l", hashlib.sha256(b"flute").digest(), b"flute".ljust(32, b"\0"))


def dictionary(number: str) -> set[str]:
    """Every name that a guesser would derive from a number without the key."""
    raw = number.encode()
    plain = {hashlib.new(name, raw).hexdigest()[:32] for name in ("md5", "sha1", "sha256", "sha512")}
    keyed = {hmac.new(key, b"flute/pseudonym/v1" + raw, hashlib.sha256).hexdigest()[:32] for key in GUESSED_KEYS}
    return plain | keyed


def test_a_dictionary_of_all_numbers_names_nobody() -> None:
    released = {pseudonym(KEY, number) for number in NUMBERS[::100]}
    guessed = {name for number in NUMBERS for name in dictionary(number)}
    assert not released & guessed


def test_the_same_dictionary_wins_against_plain_hashes() -> None:
    """The attack is a real one: it names everybody where names are hashes without a key."""
    released = {hashlib.sha256(number.encode()).hexdigest()[:32] for number in NUMBERS[::100]}
    guessed = {name for number in NUMBERS for name in dictionary(number)}
    assert released <= guessed


def test_the_same_day_of_two_patients_does_not_stay_the_same() -> None:
    """Of 2,000 patients with one date the moved dates spread over the range: no day holds more than chance allows
    (1,827 days; a count of 9 or more on any of them has a chance below 1e-3)."""
    moved = Counter(shift_fhir("2019-11-27", shift_of(KEY, number)) for number in NUMBERS[:2000])
    assert len(moved) > 1000
    assert max(moved.values()) < 9


def test_another_hubs_key_moves_the_same_patient_otherwise() -> None:
    other = [shift_of(b"j" * 32, number) == shift_of(KEY, number) for number in NUMBERS[:1000]]
    assert sum(other) <= 2
    assert object_uid(b"j" * 32, "1.2.3") != object_uid(KEY, "1.2.3")


def test_knowing_one_patients_shift_tells_nothing_of_the_next_numbers() -> None:
    """Neighbours in the hospital's numbering: differences of shifts are no fixed step (a step would repeat)."""
    days = [shift_of(KEY, number).days for number in NUMBERS[:1000]]
    steps = Counter(after - before for before, after in pairwise(days))
    assert max(steps.values()) < 8


def test_two_patients_examined_together_are_not_linked_by_the_minute() -> None:
    """Same scanner, same second: the released times of day differ too."""

    class NoText:
        def read(self, picture: Any) -> list[Any]:
            return []

    one, other = image(), image()
    other.PatientID, other.PatientName = "900001", "Berg^Otto"
    released = [deidentified(ds, DicomRules(KEY), NoText()).dataset for ds in (one, other)]
    assert released[0].StudyTime != released[1].StudyTime
    assert released[0].StudyDate != released[1].StudyDate


def test_ids_of_resources_are_not_those_of_patients_in_disguise() -> None:
    """A patient and an observation with the same number at the hospital do not share a name."""
    rules = FhirRules(KEY, date(2026, 1, 1))
    patient, _ = fhir_deidentified({"resourceType": "Patient", "id": "7"}, rules)
    subject = {"reference": "Patient/7"}
    observation, _ = fhir_deidentified({"resourceType": "Observation", "id": "7", "subject": subject}, rules)
    assert patient["id"] != observation["id"]
