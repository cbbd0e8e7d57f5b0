"""Keyed names: the same for the same, of the right form, and none without the key."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flute.deidentify.pseudonyms import keyed, object_uid, pseudonym, resource_name
from flute.errors import MisuseError

KEY = b"k" * 32
TEXTS = st.text(max_size=64)


def test_a_pseudonym_is_what_earlier_snapshots_have() -> None:
    assert pseudonym(KEY, "p1") == "a62b56eb055f47dcbe25cddedf8a0d06"


@given(TEXTS)
def test_a_patients_resource_and_rows_are_called_alike(patient: str) -> None:
    assert resource_name(KEY, "Patient", patient) == pseudonym(KEY, patient)
    assert resource_name(KEY, "Observation", patient) != pseudonym(KEY, patient)


@given(TEXTS, TEXTS)
def test_names_of_two_are_two(one: str, other: str) -> None:
    assert (pseudonym(KEY, one) == pseudonym(KEY, other)) is (one == other)
    assert (object_uid(KEY, one) == object_uid(KEY, other)) is (one == other)
    assert pseudonym(b"j" * 32, one) != pseudonym(KEY, one)


@given(TEXTS)
def test_a_uid_is_valid_and_a_uuid(original: str) -> None:
    uid = object_uid(KEY, original)
    assert len(uid) <= 64
    assert all(part == "0" or not part.startswith("0") for part in uid.split("."))
    found = uuid.UUID(int=int(uid.removeprefix("2.25.")))
    assert found.version == 8
    assert found.variant == uuid.RFC_4122


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(MisuseError, match="32 bytes"):
        keyed(b"short", b"")
