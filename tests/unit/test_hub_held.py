"""Images of a run: read and checked once, never changed, and gone when nobody may or does ask for them any more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flute.hub.rounds.held as held_module
from flute.data.variables import Variable
from flute.errors import Unmappable, Unreachable
from flute.hub.rounds.held import HeldRecords
from flute.intake import pixels
from flute.intake.snapshot import SnapshotSource, attach_images, delete_snapshot, snapshot_without
from unit.test_intake_images import AGE, MRI, WHO, image, plain


class Shelf:
    """Four patients with images, how often they were read, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.opened = root, 0.0, list[tuple[str, ...]]()
        self.snapshot = attach_images(root, plain(root), MRI, [(who, image(0.5)) for who in WHO]).snapshot
        self.records = HeldRecords(
            lambda digest: SnapshotSource(root, digest, self.opened.append), clock=lambda: self.now
        )


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_images_of_a_run_are_read_once(shelf: Shelf) -> None:
    first = shelf.records.open(shelf.snapshot, [MRI, AGE])
    assert shelf.records.open(shelf.snapshot, [MRI, AGE]) is first
    assert shelf.opened == [("mri", "age")]


def test_a_file_that_is_changed_afterwards_is_not_looked_at_and_is_refused_when_it_is_read_again(
    shelf: Shelf,
) -> None:
    shelf.records.open(shelf.snapshot, [MRI])
    for file in (shelf.root / pixels.FOLDER).iterdir():
        file.write_bytes(file.read_bytes()[:-4] + np.float32(-0.5).tobytes())
    assert shelf.records.open(shelf.snapshot, [MRI]).images("mri").min() == 0.5
    shelf.records.drop()
    with pytest.raises(Unmappable, match="another than its name"):
        shelf.records.open(shelf.snapshot, [MRI])


def test_nobody_can_write_to_what_is_held(shelf: Shelf) -> None:
    data = shelf.records.open(shelf.snapshot, [MRI, AGE])
    for array in (data.images("mri"), data.column("age")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize("variables", [[MRI], [AGE, MRI], [Variable("mri", "image", 0.75, 1, shape=(1, 2, 3)), AGE]])
def test_other_variables_or_another_range_are_other_records(shelf: Shelf, variables: list[Variable]) -> None:
    shelf.records.open(shelf.snapshot, [MRI, AGE])
    data = shelf.records.open(shelf.snapshot, variables)
    assert len(shelf.opened) == 2
    assert np.isnan(data.column("mri")).all() == (variables[0].low == 0.75)


def test_records_without_images_are_read_each_time(shelf: Shelf) -> None:
    for _ in range(2):
        shelf.records.open(shelf.snapshot, [AGE])
    assert len(shelf.opened) == 2


def test_what_is_too_large_is_read_each_time(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_module, "HELD_RECORDS_BYTES", 4 * 6 * 4 - 1)
    for _ in range(2):
        shelf.records.open(shelf.snapshot, [MRI])
    assert len(shelf.opened) == 2


def test_of_a_withdrawn_patient_nothing_is_answered_and_nothing_stays(shelf: Shelf) -> None:
    shelf.records.open(shelf.snapshot, [MRI])
    left = snapshot_without(shelf.root, shelf.snapshot, {WHO[0]})
    delete_snapshot(shelf.root, shelf.snapshot)
    with pytest.raises(Unreachable):
        shelf.records.open(shelf.snapshot, [MRI])
    assert shelf.records._held is not None
    shelf.records.tidy()
    assert shelf.records._held is None
    assert len(shelf.records.open(left, [MRI])) == 3


def test_what_nobody_asks_for_goes_and_what_is_asked_for_stays(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_module, "HELD_RECORDS_S", 10.0)
    for now in (0.0, 9.0, 18.0):
        shelf.now = now
        shelf.records.open(shelf.snapshot, [MRI])
        shelf.records.tidy()
    assert len(shelf.opened) == 1
    shelf.now = 28.5
    shelf.records.tidy()
    assert shelf.records._held is None
