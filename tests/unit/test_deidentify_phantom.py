"""A SIMULATED study of each maker through the de-identifier: no finding after, and recognised as it was before."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from flute.deidentify.dicom import DicomRules
from flute.deidentify.eyes import Rapid
from flute.deidentify.needles import known_of_dicom
from flute.deidentify.pixels import RapidReader
from flute.deidentify.release import Images
from flute.deidentify.residual import Look, search_dicom
from flute.imaging.bvalues import b_value
from flute.imaging.headers import headers_of
from flute.imaging.phantoms.phantom import SMALL, Subject, phantom
from flute.imaging.volumes.series import recognise
from support.planted_leaks import KEY, as_file

pytestmark = pytest.mark.requirement("F-PIL-6")
RULES = DicomRules(KEY, b_value=lambda source: b_value(source)[0])
SUBJECT = Subject(patient_id="4711229", name="Roth^Anneliese", birth_date="19570301", accession="ACC20191127")


class NoText:
    def read(self, picture: Any) -> list[Any]:
        return []


def seen(images: list[Any]) -> list[tuple[Any, ...]]:
    """What is recognised of a study, without its UIDs."""
    found = recognise([header for ds in images for header in headers_of(ds)])
    return sorted((s.kind, s.calculated, s.plane, s.images, tuple(s.b_values)) for s in found)


@pytest.mark.parametrize("maker", ["siemens", "ge", "philips"])
@pytest.mark.parametrize("dates", ["shift", "ages"])
def test_a_study_is_clean_and_recognised_as_before(maker: str, dates: Any) -> None:
    originals = list(phantom(maker, subject=SUBJECT, size=SMALL))
    known = known_of_dicom(originals[0])
    assert all(search_dicom(as_file(ds), Look(known, known.days)) for ds in originals[:5])
    clean = Images(DicomRules(KEY, dates, b_value=RULES.b_value), NoText(), None)
    released = [clean(copy.deepcopy(ds)) for ds in originals]  # raises where the residual check finds anything
    assert len({ds.StudyInstanceUID for ds in released}) == 1
    assert len({ds.SeriesInstanceUID for ds in released}) == len({ds.SeriesInstanceUID for ds in originals})
    assert seen(released) == seen(originals)
    for before, after in zip(originals, released, strict=True):
        assert np.array_equal(before.pixel_array, after.pixel_array)


def test_the_pictures_of_a_study_raise_no_false_alarm() -> None:
    """One image in eight, read by both readers."""
    images = list(phantom("siemens", subject=SUBJECT, size=SMALL))[::8]
    clean = Images(RULES, RapidReader(), Rapid())
    assert all("SIMULATED" in str(clean(ds).ImageComments).upper() for ds in images)
