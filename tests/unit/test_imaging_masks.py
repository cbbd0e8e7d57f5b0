"""Masks from SEG and RTSTRUCT lie on the image's voxels, or are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from flute.errors import Unmappable
from flute.imaging.phantoms.phantom import INNER, LESION, SMALL, labels_at, plans
from flute.imaging.volumes.masks import index_affine, inside, segments_of, structures_of
from flute.imaging.volumes.volume import volume_of
from support.phantoms import segmentation, series, study


def t2() -> list[Dataset]:
    return series(study("siemens"), 2)


def truth() -> np.ndarray:  # type: ignore[type-arg]
    plan = next(p for p in plans(SMALL) if p.sort == "t2")
    return np.stack([labels_at(plan.points(start)) for start in plan.positions()])


def array(image: Any) -> np.ndarray:  # type: ignore[type-arg]
    return sitk.GetArrayFromImage(image)


# --- SEG ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)], ids=["forward", "backward"])
def test_segments_fall_on_the_voxels_they_were_drawn_on(order: slice) -> None:
    images, labels = t2(), truth()
    drawn = {"inner": labels == INNER, "lesion": labels == LESION}
    found = segments_of(segmentation(images, drawn, order), volume_of(images),
                        frame_of_reference=images[0].FrameOfReferenceUID)  # fmt: skip
    assert set(found) == set(drawn)
    for label, mask in drawn.items():
        assert mask.sum() > 50
        assert np.array_equal(array(found[label]), mask)


def test_a_segmentation_of_some_slices_only_finds_its_place() -> None:
    images, labels = t2(), truth()
    seg = segmentation(images[3:6], {"lesion": (labels == LESION)[3:6]})
    found = array(segments_of(seg, volume_of(images))["lesion"])
    assert np.array_equal(found[3:6], (labels == LESION)[3:6])
    assert not found[:3].any()
    assert not found[6:].any()


def moved(images: list[Dataset], offset: tuple[float, float, float]) -> list[Dataset]:
    for ds in images:
        ds.ImagePositionPatient = [
            f"{float(v) + o:.4f}" for v, o in zip(ds.ImagePositionPatient, offset, strict=True)
        ]
    return images


@pytest.mark.parametrize(
    ("offset", "reason"), [((0.3, 0, 0), "0.3 mm off"), ((70.0, 0, 0), "reaches beyond|off the image")]
)
def test_a_segmentation_off_the_images_voxels_is_refused(offset: tuple[float, float, float], reason: str) -> None:
    seg = segmentation(moved(t2(), offset), {"all": np.ones_like(truth(), dtype=bool)})
    with pytest.raises(Unmappable, match=reason):
        segments_of(seg, volume_of(t2()))


def test_a_segmentation_of_another_voxel_size_is_refused() -> None:
    seg = segmentation(series(study("siemens"), 6), {"x": np.ones((9, 40, 40), dtype=bool)})
    with pytest.raises(Unmappable, match="another size or direction"):
        segments_of(seg, volume_of(t2()))


def test_a_segmentation_in_another_frame_of_reference_is_refused() -> None:
    images = t2()
    seg = segmentation(images, {"x": truth() == LESION})
    with pytest.raises(Unmappable, match="another frame of reference"):
        segments_of(seg, volume_of(images), frame_of_reference="2.25.99")


def test_two_segments_of_one_label_are_refused() -> None:
    images = t2()
    seg = segmentation(images, {"a": truth() == LESION, "b": truth() == INNER})
    seg.SegmentSequence[1].SegmentLabel = "a"
    with pytest.raises(Unmappable, match="same label"):
        segments_of(seg, volume_of(images))


# --- RTSTRUCT ------------------------------------------------------------------------------------------


def structure_set(contours: dict[str, list[np.ndarray]], frame: str) -> Dataset:  # type: ignore[type-arg]
    """contours: name to closed polygons, float64 [points, 3] in mm."""
    ds = Dataset()
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, polygons) in enumerate(contours.items(), start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        ds.StructureSetROISequence.append(roi)
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for polygon in polygons:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
            contour.ContourData = [f"{v:.4f}" for v in polygon.ravel()]
            drawn.ContourSequence.append(contour)
        ds.ROIContourSequence.append(drawn)
    return ds


def circle(image: Any, at: int, radius_mm: float, points: int = 200) -> np.ndarray:  # type: ignore[type-arg]
    """A circle in slice `at` around its middle, drawn in the slice's own plane, in patient coordinates."""
    affine = index_affine(image)
    middle = affine @ np.array([(image.GetSize()[0] - 1) / 2, (image.GetSize()[1] - 1) / 2, at, 1])
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    x, y = affine[:3, 0] / np.linalg.norm(affine[:3, 0]), affine[:3, 1] / np.linalg.norm(affine[:3, 1])
    return middle[:3] + radius_mm * (np.cos(angles)[:, None] * x + np.sin(angles)[:, None] * y)


def test_a_contour_holds_the_voxels_whose_centres_it_holds() -> None:
    image = volume_of(t2())
    found = array(structures_of(structure_set({"c": [circle(image, 4, 15.0)]}, ""), image)["c"])
    y, x = np.mgrid[0:96, 0:96]
    disc = ((x - 47.5) * 0.7) ** 2 + ((y - 47.5) * 0.7) ** 2 < 15.0**2
    assert np.array_equal(found[4].astype(bool), disc)
    assert found.sum() == disc.sum()
    assert abs(found.sum() * 0.7**2 / (np.pi * 15**2) - 1) < 0.01


def test_an_inner_contour_is_a_hole_and_a_separate_one_an_island() -> None:
    image = volume_of(t2())
    ring = array(structures_of(structure_set({"c": [circle(image, 4, 15), circle(image, 4, 8)]}, ""), image)["c"])
    assert ring[4, 47, 47] == 0
    assert abs(ring.sum() * 0.49 / (np.pi * (15**2 - 8**2)) - 1) < 0.02
    both = array(structures_of(structure_set({"c": [circle(image, 2, 8), circle(image, 6, 8)]}, ""), image)["c"])
    assert both[2].sum() == both[6].sum() > 0
    assert both[[0, 1, 3, 4, 5, 7, 8]].sum() == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c, image: c + index_affine(image)[:3, 2] * 0.4, "between the image's slices"),
        (lambda c, image: c + index_affine(image)[:3, 2] * 20, "beyond the image"),
        (lambda c, image: c + index_affine(image)[:3, 0] * 80, "beyond the image"),
        (lambda c, image: c[:2], "fewer than three points"),
    ],
)
def test_a_contour_that_does_not_fit_the_image_is_refused(change: Any, reason: str) -> None:
    image = volume_of(t2())
    with pytest.raises(Unmappable, match=reason):
        structures_of(structure_set({"c": [change(circle(image, 4, 15), image)]}, ""), image)


def test_a_contour_that_is_not_closed_is_refused() -> None:
    image = volume_of(t2())
    ds = structure_set({"c": [circle(image, 4, 15)]}, "")
    ds.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "OPEN_PLANAR"
    with pytest.raises(Unmappable, match="no closed one"):
        structures_of(ds, image)


def test_structures_of_another_frame_or_of_one_name_are_refused() -> None:
    image = volume_of(t2())
    with pytest.raises(Unmappable, match="another frame of reference"):
        structures_of(structure_set({"c": [circle(image, 4, 15)]}, "2.25.5"), image, frame_of_reference="2.25.6")
    ds = structure_set({"a": [circle(image, 4, 15)], "b": [circle(image, 4, 9)]}, "")
    ds.StructureSetROISequence[1].ROIName = "a"
    with pytest.raises(Unmappable, match="same name"):
        structures_of(ds, image)


# --- the rule itself ------------------------------------------------------------------------------------


def winding(polygon: list[tuple[float, float]], x: float, y: float) -> bool:
    """Point in polygon by counting crossings of a ray to the left, one edge at a time."""
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y1 <= y) != (y2 <= y) and x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x:
            odd = not odd
    return odd


@settings(max_examples=150)
@given(st.lists(st.tuples(st.floats(-2, 12), st.floats(-2, 12)), min_size=3, max_size=12))
def test_any_polygon_is_filled_as_point_by_point(polygon: list[tuple[float, float]]) -> None:
    found = inside(np.array(polygon), 10, 10)
    expected = [[winding(polygon, x, y) for x in range(10)] for y in range(10)]
    assert found.tolist() == expected


@given(cut=st.floats(0.5, 8.5))
def test_two_polygons_that_share_an_edge_share_no_voxel_and_leave_none(cut: float) -> None:
    whole = inside(np.array([(0.2, 0.2), (9.3, 0.2), (9.3, 9.3), (0.2, 9.3)]), 10, 10)
    left = inside(np.array([(0.2, 0.2), (cut, 0.2), (cut, 9.3), (0.2, 9.3)]), 10, 10)
    right = inside(np.array([(cut, 0.2), (9.3, 0.2), (9.3, 9.3), (cut, 9.3)]), 10, 10)
    assert not (left & right).any()
    assert np.array_equal(left | right, whole)
