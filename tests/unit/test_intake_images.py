"""Images of a snapshot: named by what they hold, checked at every opening, gone when nothing names them any more."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flute.data.variables import Variable
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, Unmappable, Unreachable
from flute.intake import pixels
from flute.intake.arrays import NO_ARRAY, arrays_in, read_array
from flute.intake.flat import read_csv
from flute.intake.snapshot import (
    SnapshotSource,
    attach_images,
    check_snapshot,
    delete_snapshot,
    snapshot_without,
    write_rows,
    write_snapshot,
)

KEY = b"k" * 32
AGE = Variable("age", "number", 0, 120)
MRI = Variable("mri", "image", -1, 1, shape=(1, 2, 3))
WHO = [pseudonym(KEY, str(n)) for n in range(4)]
Array = NDArray[np.float64]


def image(value: float) -> Array:
    return np.full((1, 2, 3), value)


def plain(root: Path) -> bytes:
    """A snapshot of four patients without images."""
    root.mkdir(exist_ok=True)
    (root / "t.csv").write_text("id,age\n0,50\n1,60\n2,\n3,70\n")
    return write_snapshot(read_csv(root / "t.csv", (AGE,), key=KEY)[0], root)


def files(root: Path) -> list[Path]:
    return sorted((root / pixels.FOLDER).iterdir())


def test_what_was_attached_is_opened_and_the_rest_counted(tmp_path: Path) -> None:
    broken = image(0.5)
    broken[0, 1, 1] = np.nan
    offered = [
        (WHO[0], image(0.25)), (WHO[1], broken), (WHO[2], None), ("somebody", image(0.0)), (WHO[3], image(-1.0)),
    ]  # fmt: skip
    written = attach_images(tmp_path, plain(tmp_path), MRI, offered)
    (counts,) = written.attached
    assert (counts.images, counts.missing, counts.unusable, counts.unmatched) == (2, 1, {"out-of-range": 1}, 1)
    data = SnapshotSource(tmp_path, written.snapshot).open((MRI, AGE))
    by_patient = {p: (c, i) for p, c, i in zip(data.pseudonyms, data.column("mri"), data.images("mri"), strict=True)}
    assert data.images("mri").dtype == np.float32
    for who, expected in zip(WHO, (0.25, None, None, -1.0), strict=True):
        there, found = by_patient[who]
        assert there == 1.0 if expected is not None else np.isnan(there)
        np.testing.assert_array_equal(found, np.full((1, 2, 3), expected or 0.0))
    check_snapshot(tmp_path, written.snapshot)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (np.zeros((2, 3)), "another-shape"),
        (np.full((1, 2, 3), 1.01), "out-of-range"),
        (np.full((1, 2, 3), 1e300), "out-of-range"),
        (np.full((1, 2, 3), "x"), "no-array"),
        (np.full((1, 2, 3), 1j), "no-array"),
    ],
)
def test_an_image_that_is_none_is_unusable_by_its_reason(wrong: Array, reason: str, tmp_path: Path) -> None:
    (counts,) = attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], wrong)]).attached
    assert (counts.images, counts.unusable) == (0, {reason: 1})


def test_the_same_images_give_the_same_snapshot_and_one_voxel_another(tmp_path: Path) -> None:
    first, other = image(0.25), image(0.25)
    other[0, 0, 0] += 0.001
    digests = [attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], i)]).snapshot for i in (first, first, other)]
    assert digests[0] == digests[1] != digests[2]
    without = attach_images(tmp_path, plain(tmp_path), MRI, []).snapshot
    minus, zero = (attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], image(z))]) for z in (-0.0, 0.0))
    assert minus.snapshot == zero.snapshot != without


def test_pixels_lie_in_private_files_that_name_nobody(tmp_path: Path) -> None:
    attach_images(tmp_path, plain(tmp_path), MRI, [(who, image(0.5)) for who in WHO])
    (only,) = files(tmp_path)  # four patients, one and the same image
    assert stat.S_IMODE(only.stat().st_mode) == 0o600
    assert len(only.name) == 64
    assert not any(who.encode() in only.read_bytes() for who in WHO)


def test_a_changed_or_lost_pixel_file_is_refused(tmp_path: Path) -> None:
    digest = attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], image(0.5))]).snapshot
    (file,) = files(tmp_path)
    raw = bytearray(file.read_bytes())
    SnapshotSource(tmp_path, digest).open((MRI,))
    for changed in (bytes(raw[:-1]) + b"\x7f", bytes(raw) + b"\0", b""):
        file.write_bytes(changed)
        for refused in (
            lambda: SnapshotSource(tmp_path, digest).open((MRI,)),
            lambda: check_snapshot(tmp_path, digest),
        ):
            with pytest.raises(Unmappable, match="another than its name says"):
                refused()
    SnapshotSource(tmp_path, digest).open((AGE,))  # whoever asks for no image does without
    file.unlink()
    with pytest.raises(Unreachable, match="attach the images again"):
        SnapshotSource(tmp_path, digest).open((MRI,))


def test_a_study_gets_no_image_of_another_shape_or_range_than_it_declares(tmp_path: Path) -> None:
    digest = attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], image(0.5)), (WHO[1], image(0.1))]).snapshot
    source = SnapshotSource(tmp_path, digest)
    turned = source.open((Variable("mri", "image", -1, 1, shape=(1, 3, 2)),))
    assert np.isnan(turned.column("mri")).all()
    narrower = source.open((Variable("mri", "image", 0, 0.25, shape=(1, 2, 3)),))
    assert np.nansum(narrower.column("mri")) == 1
    assert narrower.images("mri").max() <= 0.25


def test_images_are_no_values_and_values_no_images(tmp_path: Path) -> None:
    digest = attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], image(0.5))]).snapshot
    for asked in (Variable("mri", "binary"), Variable("age", "image", -1, 1, shape=(1, 2, 3))):
        with pytest.raises(Unmappable, match="holds images where values are asked for, or none"):
            SnapshotSource(tmp_path, digest).open((asked,))


def test_a_patient_who_leaves_takes_the_image_along(tmp_path: Path) -> None:
    before = plain(tmp_path)
    all_of_them = attach_images(tmp_path, before, MRI, [(who, image(n / 8)) for n, who in enumerate(WHO)]).snapshot
    assert len(files(tmp_path)) == 4
    left = snapshot_without(tmp_path, all_of_them, {WHO[1]})
    assert len(files(tmp_path)) == 4, "the old snapshot is still there and names it"
    delete_snapshot(tmp_path, all_of_them)
    assert len(files(tmp_path)) == 3
    check_snapshot(tmp_path, left)
    assert np.nansum(SnapshotSource(tmp_path, left).open((MRI,)).column("mri")) == 3
    delete_snapshot(tmp_path, left)
    assert files(tmp_path) == []
    check_snapshot(tmp_path, before)


def test_a_sweep_leaves_what_is_being_taken_in_and_clears_what_a_crash_left(tmp_path: Path) -> None:
    before, more = plain(tmp_path), plain(tmp_path / "more")
    crashed = tmp_path / pixels.FOLDER / "incoming-crashed"
    crashed.mkdir(parents=True)
    (crashed / "half").write_bytes(b"a patient's image")

    def offered() -> object:
        yield WHO[0], image(0.5)
        delete_snapshot(tmp_path, more)  # of another dataset, meanwhile
        yield WHO[1], image(0.25)

    written = attach_images(tmp_path, before, MRI, offered())  # type: ignore[arg-type]
    assert not crashed.exists()
    check_snapshot(tmp_path, written.snapshot)
    assert [path.is_file() for path in files(tmp_path)] == [True, True]


def test_an_attempt_that_fails_leaves_nothing(tmp_path: Path) -> None:
    before = plain(tmp_path)
    with pytest.raises(Unmappable, match="two images"):
        attach_images(tmp_path, before, MRI, [(WHO[0], image(0.5)), (WHO[0], image(0.5))])
    with pytest.raises(MisuseError, match="Age that is no image"):
        attach_images(tmp_path, before, Variable("Age", "image", -1, 1, shape=(1, 2, 3)), [])
    assert files(tmp_path) == []


def test_a_column_is_replaced_by_one_of_the_same_name(tmp_path: Path) -> None:
    first = attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[0], image(0.5))]).snapshot
    second = attach_images(tmp_path, first, MRI, [(WHO[1], image(0.25))])
    assert second.attached[0].images == 1
    direct = attach_images(tmp_path, plain(tmp_path), MRI, [(WHO[1], image(0.25))])
    assert second.snapshot == direct.snapshot


# --- prepared arrays -----------------------------------------------------------------------------------


def test_a_csv_names_npy_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "o'hara").mkdir()
    folder = tmp_path / "o'hara"
    for n in range(2):
        np.save(folder / f"{n}.npy", image(n / 4).astype(np.float32 if n else np.float64))
    np.save(tmp_path / "outside.npy", image(0.0))
    (folder / "t.csv").write_text("id,age,mri\n0,50,0.npy\n1,,1.npy\n2,60,\n3,70,../outside.npy\n4,71,lost.npy\n")
    rows, report = read_csv(folder / "t.csv", (AGE, MRI), key=KEY)
    written = write_rows(rows, tmp_path)
    counted = written.counted(report)
    assert (counted.missing["mri"], counted.unusable["mri"], counted.missing["age"]) == (1, 2, 1)
    assert written.attached[0].unusable == {"no-array": 2}
    assert np.nansum(SnapshotSource(tmp_path, written.snapshot).open((MRI,)).column("mri")) == 2
    images_alone = read_csv(folder / "t.csv", (MRI,), key=KEY)[0]
    assert write_rows(images_alone, tmp_path).attached[0].images == 2


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "it-ran",))  # type: ignore[return-value]

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    assert read_array(tmp_path / "evil.npy") is NO_ARRAY
    assert not (tmp_path / "it-ran").exists()
    np.load(tmp_path / "evil.npy", allow_pickle=True)
    assert (tmp_path / "it-ran").exists(), "the control: whoever reads pickles runs it"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x05\x00{'de\n", b"\x93NUMPY\x07\x00\x00\x00",
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999, 99999), }\n",
        b"\x93NUMPY\x01\x00\x3c\x00{'descr': '<f8', 'fortran_order': False, 'shape': (-9,), }  \n",
        b"\x93NUMPY\x01\x00\x3c\x00{'descr': '<f8', 'fortran_order': False, 'shape': (64,), }  \n\0\0",
    ],
)  # fmt: skip
def test_a_file_that_lies_or_ends_early_is_none(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(raw)
    assert read_array(tmp_path / "x.npy") is NO_ARRAY


def test_a_folder_holds_one_file_of_each_patient(tmp_path: Path) -> None:
    np.save(tmp_path / "4711.npy", image(0.5))
    (tmp_path / "notes.txt").write_text("not one")
    ((who, found),) = arrays_in(tmp_path, KEY)
    assert who == pseudonym(KEY, "4711")
    assert found is not None
    np.testing.assert_array_equal(found, image(0.5))
    assert [name for name, _ in arrays_in(tmp_path, None)] == ["4711"]
    with pytest.raises(Unreachable):
        list(arrays_in(tmp_path / "nowhere", KEY))
