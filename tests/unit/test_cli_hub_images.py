"""`flute hub images`: what is wrong is said before a hub is asked; what came of it in lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flute.cli.hub import app as hub
from flute.cli.hub.images import _column
from flute.cli.records.import_text import attached_text
from flute.errors import FluteError, MisuseError, PeerUnreachable


def told(*typed: str) -> FluteError:
    result = CliRunner().invoke(hub.APP, ["images", "hub", "--dataset", "pilot", "--person", "eva", *typed])
    assert isinstance(result.exception, FluteError), result.output
    return result.exception


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--as", "mri", "--size", "16x64"), "whole numbers such as 16x64x64"),
        (("--as", "mri", "--size", "16x64xa"), "whole numbers such as 16x64x64"),
        (("--as", "mri", "--size", "16x64x1024"), "channels, depth, height, width"),
        (("--as", "mri", "--size", "300x300x300"), "may hold 4000000 numbers"),
        (("--as", "mri", "--spacing", "3x1"), "numbers such as 3x0.75x0.75"),
        (("--as", "mri", "--from", "."), "--from and --shape go together"),
        (("--as", "mri", "--shape", "1x8x8"), "--from and --shape go together"),
        (("--as", "mri", "--from", ".", "--shape", "1x8x8", "--low", "2"), "needs a range"),
        (("--as", "mri", "--from", "no/where", "--shape", "1x8x8"), "There is nothing at no/where"),
    ],
)
def test_a_slip_is_told_with_what_to_write(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    error = told(*options)
    assert isinstance(error, MisuseError)
    assert said in error.text


def test_what_is_right_reaches_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(told("--as", "mri"), PeerUnreachable)
    assert isinstance(told("--as", "mri", "--from", ".", "--shape", "1x8x8"), PeerUnreachable)


def test_the_column_is_what_was_typed(tmp_path: Path) -> None:
    made = _column("mri", "16x64x64", "3x0.75x0.75", None, None, (0.0, 1.0), "MRI", pseudonyms=False)
    assert (made.variable.shape, made.variable.low, made.variable.high) == ((3, 16, 64, 64), -1, 1)
    assert (made.folder, made.spacing) == ("", (3.0, 0.75, 0.75))
    given = _column("mri", "", "", tmp_path, "1x8x8", (0.0, 16.0), "", pseudonyms=True)
    assert (given.variable.shape, given.variable.high, given.folder) == ((1, 8, 8), 16, str(tmp_path))
    assert given.pseudonyms


def test_counts_are_said_in_lines() -> None:
    text = attached_text([
        {
            "variable": "mri", "images": 180, "missing": 17, "unusable": {"out-of-range": 2, "no-array": 1},
            "unmatched": 4, "left_out": {"no-adc": 3},
        }
    ])  # fmt: skip
    assert text.splitlines() == [
        "mri: 180 patients with an image, 17 without one, 3 with one that is unusable.",
        "  Unusable: 1 no-array, 2 out-of-range.",
        "  Left out: 3 no-adc.",
        "  4 images of somebody who is not in the dataset.",
    ]
