"""Images in a notebook: arrays in a frame's column, which hubs import as a steward would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flute.sdk as flute
from flute.errors import MisuseError
from flute.intake.flat import read_csv
from flute.intake.snapshot import SnapshotSource, write_rows
from flute.sdk.places.records import as_files
from flute.study.agreement import Agreement
from support.networks_of_images import DIGITS, agreement_over

pd = pytest.importorskip("pandas")
VARIABLE = flute.image((1, 4, 4), 0, 16, label="a picture")


def frame(count: int, seed: int) -> Any:
    chance = np.random.default_rng(seed)
    pictures = [chance.uniform(0, 16, (1, 4, 4)) if n % 5 else None for n in range(count)]
    return pd.DataFrame({"ill": chance.integers(0, 2, count), "mri": pictures})


@pytest.fixture
def records() -> Iterator[dict[str, Any]]:
    return {hub: frame(20 + n, n) for n, hub in enumerate(("north", "south", "west"))}


def test_an_image_is_declared_as_in_a_study_file() -> None:
    variables = flute.Variables(mri=VARIABLE)
    assert dict(variables["mri"]) == {"kind": "image", "shape": [1, 4, 4], "range": [0, 16], "label": "a picture"}
    assert "1 x 4 x 4 numbers from 0 to 16" in variables._repr_html_()
    assert dict(flute.Variables.of((DIGITS,))["mri"]) == {**variables["mri"], "range": [0.0, 16.0], "label": ""} | {
        "label": "a picture"
    }


def test_a_frame_s_arrays_are_what_the_hub_holds(records: dict[str, Any], tmp_path: Path) -> None:
    files = as_files(records, tmp_path)
    assert list(records["north"].columns) == ["ill", "mri"], "the caller's frame is as it was"
    rows, _ = read_csv(files["north"], (DIGITS,), key=None)
    written = write_rows(rows, tmp_path / "hub")
    assert written.attached[0].images == 16
    data = SnapshotSource(tmp_path / "hub", written.snapshot).open((DIGITS,))
    for row, found, there in zip(data.pseudonyms, data.images("mri"), data.column("mri"), strict=True):
        given = records["north"]["mri"][int(row)]
        assert np.isnan(there) == (given is None)
        np.testing.assert_array_equal(found, np.zeros((1, 4, 4)) if given is None else given.astype(np.float32))


def test_the_simulator_holds_images_of_every_hub(records: dict[str, Any]) -> None:
    with flute.simulator(records) as federation:
        place: Any = federation.place
        place.prepare(agreement_over("ill", "mri"))
        held = [source.open((DIGITS,)).column("mri") for source in place._sources.values()]
    assert [int(np.nansum(column)) for column in held] == [16, 16, 17]


@pytest.mark.parametrize("wrong", ["shape", "range"])
def test_a_hub_none_of_whose_images_fits_says_what_to_look_at(wrong: str, records: dict[str, Any]) -> None:
    spoilt = records["south"]["mri"]
    changed = [None if p is None else (p[0] if wrong == "shape" else p * 100) for p in spoilt]
    records["south"] = records["south"].assign(mri=changed)
    agreement: Agreement = agreement_over("ill", "mri")
    with flute.simulator(records) as federation:
        for _ in range(2):  # asked again, it says so again
            with pytest.raises(MisuseError, match=r"Hub south: none of its 16 images mri is an array of shape"):
                federation.place.prepare(agreement)
