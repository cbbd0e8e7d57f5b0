"""Arrays for a network: whatever the acquisition, a place in the patient is the same place on the grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from flute.imaging.phantoms.phantom import labels_at
from flute.imaging.volumes import tensors
from flute.imaging.volumes.tensors import Grid, Shelved, tensor_of
from support.phantoms import MAKERS, as_file, segmentation, series, study

Array = NDArray[np.float64]
GRID = Grid((12, 40, 48), (3.0, 1.0, 0.9))
LESION, INNER = 4, 3


def volume(centre: Array, angles: tuple[float, float, float], spacing: tuple[float, float, float]) -> sitk.Image:
    """A ball of 8 mm at `centre` as an acquisition of that direction (degrees) and spacing (x first) sees it."""
    x, y, z = np.radians(angles)
    turn = sitk.Euler3DTransform((0.0, 0.0, 0.0), x, y, z)
    direction = np.array(turn.GetMatrix()).reshape(3, 3)
    size = [int(90 / side) for side in spacing]
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(direction.ravel().tolist())
    middle = (np.array(size) - 1) / 2 * np.array(spacing)
    image.SetOrigin((np.array([10.0, -20.0, 30.0]) - direction @ middle).tolist())
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
    places = index * np.array(spacing) @ direction.T + np.array(image.GetOrigin())
    # A soft edge, so that the centre of mass is that of the ball and not of the voxels that it happens to hit.
    values = np.clip((8.0 - np.linalg.norm(places - centre, axis=-1)) / 4.0 + 0.5, 0, 1)
    filled = sitk.GetImageFromArray(values.transpose(2, 1, 0).astype(np.float32))
    filled.CopyInformation(image)
    return filled


@pytest.mark.parametrize(
    ("angles", "spacing"),
    [
        ((0, 0, 0), (1.0, 1.0, 1.0)), ((8, 0, 0), (0.4, 0.4, 3.0)), ((0, 0, 35), (2.0, 2.0, 4.0)),
        ((90, 0, 0), (0.7, 0.7, 3.3)), ((20, -15, 120), (1.7, 1.7, 4.5)),
    ],
)  # fmt: skip
def test_a_ball_stays_at_its_place_whatever_the_direction_and_spacing(
    angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    ball = np.array([13.0, -24.0, 27.0])
    grid_centre = np.array([10.0, -20.0, 30.0])
    found = tensors._resampled(volume(ball, angles, spacing), GRID, GRID.origin(grid_centre), 0.0)
    assert found.shape == GRID.size
    mass = np.array([(found * axis).sum() / found.sum() for axis in np.indices(found.shape)])
    expected = (ball - np.array(GRID.origin(grid_centre)))[::-1] / np.array(GRID.spacing)
    assert np.abs(mass - expected).max() < 0.5
    elsewhere = expected + np.array([0.0, 0.0, 1.0])
    assert np.abs(mass - elsewhere).max() > 0.5, "half a voxel is seen"


def labels_on(grid: Grid, centre: Array) -> NDArray[np.int64]:
    """Which tissue of the phantom lies at every place of the grid."""
    origin = np.array(grid.origin(centre))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.size[::-1]), indexing="ij"), axis=-1)
    return labels_at(origin + index * np.array(grid.spacing[::-1])).transpose(2, 1, 0)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_three_series_meet_on_one_grid_and_show_the_lesion_where_it_is(maker: str) -> None:
    found = tensor_of(study(maker), GRID)
    assert found.dtype == np.float32
    assert found.shape == (3, *GRID.size)
    assert np.abs(found).max() <= 1
    tissue = labels_on(GRID, np.zeros(3))  # the phantom's gland is at the origin, and so is its T2W volume
    t2w, adc, dwi = (image[tissue == LESION].mean() - image[tissue == INNER].mean() for image in found)
    assert t2w < -0.1, "dark on T2W"
    assert adc < -0.2, "dark on the ADC map"
    assert dwi > 0.1, "bright on DWI"
    assert adc == pytest.approx((720 - 1300) * 2 / 3000, abs=0.15), "ADC keeps its unit"


def test_a_mask_of_the_prostate_says_where_the_middle_is() -> None:
    images = study("siemens")
    t2 = series(images, 2)
    drawn = np.zeros((len(t2), *t2[0].pixel_array.shape), dtype=bool)
    drawn[3:6, 20:40, 60:80] = True
    moved = tensor_of([*images, segmentation(t2, {"Prostate": drawn})], GRID)
    named_otherwise = tensor_of([*images, segmentation(t2, {"bladder": drawn})], GRID)
    np.testing.assert_array_equal(named_otherwise, tensor_of(images, GRID))
    assert not np.array_equal(moved, named_otherwise)
    bright = tensors.volume_of(t2)
    centre = tensors._centre(bright, [segmentation(t2, {"prostata": drawn})], tensors._frame(t2))
    voxel = np.array(bright.TransformPhysicalPointToContinuousIndex(centre.tolist()))
    np.testing.assert_allclose(voxel[:2], [69.5, 29.5], atol=0.01)


def on_a_shelf(shelf: Path, patient: str, images: list[Dataset]) -> None:
    folder = shelf / patient / "2.25.1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(images):
        (folder / f"{number}.dcm").write_bytes(as_file(ds))


def moved_frame(images: list[Dataset]) -> list[Dataset]:
    for ds in series(images, 6):
        ds.FrameOfReferenceUID = "2.25.99"
    return images


def flat(images: list[Dataset]) -> list[Dataset]:
    for ds in series(images, 2):
        ds.PixelData = bytes(len(ds.PixelData))
    return images


def test_whoever_lacks_a_series_has_no_image_and_is_counted(tmp_path: Path) -> None:
    on_a_shelf(tmp_path, "a" * 32, study("siemens"))
    on_a_shelf(tmp_path, "b" * 32, study("siemens", "no-adc"))
    on_a_shelf(tmp_path, "c" * 32, [ds for ds in study("ge") if ds.SeriesNumber not in (4, 5)])
    on_a_shelf(tmp_path, "d" * 32, study("siemens", "missing-slice"))
    on_a_shelf(tmp_path, "e" * 32, moved_frame(study("siemens")))
    on_a_shelf(tmp_path, "f" * 32, flat(study("siemens")))
    shelved = Shelved(tmp_path, GRID)
    found = dict(shelved.images())
    assert [name[0] for name, image in found.items() if image is not None] == ["a"]
    assert len(found) == 6
    assert shelved.left_out == {
        "no-adc": 1, "no-high-b-dwi": 1, "no-volume": 1, "other-frame-of-reference": 1, "no-contrast": 1,
    }  # fmt: skip
