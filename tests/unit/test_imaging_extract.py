"""Features from a shelf: one row per patient, inside masks that fit, the same numbers as computed alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from support.phantoms import as_file, segmentation, series, study

pytest.importorskip("radiomics", reason="needs a compiler: pip install 'flute[radiomics]'")

from flute.imaging.measures.extract import extract, write_csv
from flute.imaging.measures.features import FeatureSettings, digest, features_of
from flute.imaging.volumes.masks import segments_of
from flute.imaging.volumes.volume import volume_of

SETTINGS = FeatureSettings(classes=("firstorder",), bin_count=16)


def on_a_shelf(shelf: Path, patient: str, *, mask_of: str = "lesion") -> None:
    """A SIMULATED study and a mask drawn on its T2W series, as the import lays them down."""
    images = study("siemens")
    t2 = series(images, 2)
    drawn = np.zeros((len(t2), *t2[0].pixel_array.shape), dtype=bool)
    drawn[2:5, 10:20, 12:22] = True
    mask = segmentation(t2, {mask_of: drawn})
    folder = shelf / patient / "2.25.1"
    folder.mkdir(parents=True)
    for number, ds in enumerate([*images, mask]):
        (folder / f"{number}.dcm").write_bytes(as_file(ds))


@pytest.mark.requirement("F-IMSD-7")
def test_a_row_per_patient_with_the_numbers_of_the_volume_in_its_mask(tmp_path: Path) -> None:
    on_a_shelf(tmp_path / "images", "a" * 32)
    on_a_shelf(tmp_path / "images", "b" * 32, mask_of="Lesion 2 (left)")
    found = extract(tmp_path / "images", SETTINGS)
    assert set(found.rows) == {"a" * 32, "b" * 32}
    t2 = series(study("siemens"), 2)
    volume = volume_of(t2)
    drawn = np.zeros((len(t2), *t2[0].pixel_array.shape), dtype=bool)
    drawn[2:5, 10:20, 12:22] = True
    mask = segments_of(segmentation(t2, {"lesion": drawn}), volume)["lesion"]
    alone = features_of(volume, mask, SETTINGS, prefix="t2w_lesion")
    assert {name: found.rows["a" * 32][name] for name in alone} == pytest.approx(alone)
    assert "t2w_lesion_2_left_firstorder_Mean" in found.columns
    assert found.settings == digest(SETTINGS)


def test_the_table_is_one_that_an_import_can_add(tmp_path: Path) -> None:
    on_a_shelf(tmp_path / "images", "a" * 32)
    found = extract(tmp_path / "images", SETTINGS)
    write_csv(found, tmp_path / "features.csv")
    with (tmp_path / "features.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == ["a" * 32]
    assert float(rows[0]["t2w_lesion_firstorder_Mean"]) == found.rows["a" * 32]["t2w_lesion_firstorder_Mean"]


def test_a_patient_without_a_mask_that_fits_has_no_row_and_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "images" / ("c" * 32) / "2.25.1"
    folder.mkdir(parents=True)
    for number, ds in enumerate(study("siemens")):
        (folder / f"{number}.dcm").write_bytes(as_file(ds))
    found = extract(tmp_path / "images", SETTINGS)
    assert found.rows == {}
    assert found.left_out["no-mask-that-fits"] == 1
