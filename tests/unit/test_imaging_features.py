"""Radiomics features as columns: values that can be checked by hand, settings that two hubs share."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from msgspec.structs import replace

from flute.errors import MisuseError, Unmappable
from flute.imaging.measures.features import FeatureSettings, digest, features_of

pytest.importorskip("radiomics", reason="needs the extra radiomics: pip install 'flute[radiomics]'")


def image_and_mask():  # type: ignore[no-untyped-def]
    values = np.zeros((6, 20, 20), dtype=np.float32)
    values[2:4, 5:15, 5:15] = np.arange(200).reshape(2, 10, 10)
    mask = np.zeros((6, 20, 20), dtype=np.uint8)
    mask[2:4, 5:15, 5:15] = 1
    pair = [sitk.GetImageFromArray(values), sitk.GetImageFromArray(mask)]
    for one in pair:
        one.SetSpacing((0.5, 0.5, 3.0))
        one.SetOrigin((-10.0, 4.0, 7.0))
    return pair


def test_first_order_features_and_volume_are_what_they_are_by_hand() -> None:
    found = features_of(*image_and_mask(), FeatureSettings(), prefix="t2w_lesion")
    assert found["t2w_lesion_firstorder_Mean"] == pytest.approx(99.5)
    assert found["t2w_lesion_firstorder_Maximum"] == 199
    assert found["t2w_lesion_firstorder_Variance"] == pytest.approx(np.arange(200).var())
    assert found["t2w_lesion_shape_VoxelVolume"] == pytest.approx(200 * 0.5 * 0.5 * 3)
    assert {name.split("_")[2] for name in found} == {"firstorder", "shape", "glcm"}


def test_every_column_is_a_finite_number_with_a_name_that_a_variable_may_have() -> None:
    found = features_of(*image_and_mask(), FeatureSettings(("firstorder", "glrlm", "ngtdm")), prefix="adc")
    assert len(found) > 30
    assert all(type(v) is float and np.isfinite(v) for v in found.values())
    assert all(len(name) <= 64 and name.isidentifier() for name in found)


def test_the_digest_names_every_setting() -> None:
    base = FeatureSettings()
    others = [
        replace(base, bin_width=10.0), replace(base, bin_count=32), replace(base, voxel_mm=1.0),
        replace(base, normalise=True), replace(base, classes=("firstorder",)), replace(base, smallest_mask=5),
    ]  # fmt: skip
    digests = {digest(s) for s in (base, *others)}
    assert len(digests) == 7
    assert digest(FeatureSettings()) == digest(base)


def test_other_settings_change_texture_and_the_digest_says_so() -> None:
    wide, narrow = FeatureSettings(), FeatureSettings(bin_width=5.0)
    name = "x_glcm_Contrast"
    assert (
        features_of(*image_and_mask(), wide, prefix="x")[name]
        != features_of(*image_and_mask(), narrow, prefix="x")[name]
    )
    assert digest(wide) != digest(narrow)


def test_a_tiny_mask_and_one_on_another_grid_are_refused() -> None:
    image, mask = image_and_mask()
    small = sitk.GetImageFromArray(np.zeros((6, 20, 20), dtype=np.uint8))
    small.CopyInformation(mask)
    with pytest.raises(Unmappable, match="0 voxels"):
        features_of(image, small, FeatureSettings(), prefix="x")
    mask.SetOrigin((0.0, 0.0, 0.0))
    with pytest.raises(Unmappable, match="mm apart"):
        features_of(image, mask, FeatureSettings(), prefix="x")


@pytest.mark.parametrize("prefix", ["1x", "", "x" * 60])
def test_a_prefix_that_makes_no_column_name_is_refused(prefix: str) -> None:
    with pytest.raises(MisuseError, match="prefix"):
        features_of(*image_and_mask(), FeatureSettings(), prefix=prefix)
