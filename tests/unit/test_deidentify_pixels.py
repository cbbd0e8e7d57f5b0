"""Text in pixels: found where it is, not seen where there is none, blanked or refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from flute.deidentify.dicom import DicomRules, deidentified
from flute.deidentify.eyes import Rapid, Tesseract, eyes
from flute.deidentify.pixels import RapidReader, Region, blanked, decoded, pictures, text_in
from flute.deidentify.withheld import Withheld
from flute.errors import MisuseError
from support.planted_leaks import KEY, anatomy, image, put_picture, written

READER = RapidReader()
TEXTS = ("MUELLER ANNA", "19570301", "J. Garcia", "PID 4711-22")


def test_nothing_is_read_in_pictures_of_anatomy() -> None:
    """12 phantoms of three sizes: no false alarm (measured on 60 more: none)."""
    found = [text_in(anatomy(side, seed), READER) for side in (100, 192, 384) for seed in range(4)]
    assert found == [[]] * 12


@pytest.mark.parametrize("side", [100, 192, 384])
def test_names_and_numbers_are_read_in_letters_of_ten_pixels(side: int) -> None:
    found = [
        text_in(written(anatomy(side, n), text, size=11, at=(3, 5 + 20 * n)), READER) for n, text in enumerate(TEXTS)
    ]
    assert all(found)


def test_text_darker_than_the_brightest_anatomy_is_read() -> None:
    picture = written(anatomy(), "MUELLER ANNA", value=450)
    picture[100:104, 100:104] = 4095  # a vessel outshines everything
    assert text_in(picture, READER)


def test_a_flat_picture_is_no_picture() -> None:
    assert list(pictures(np.zeros((8, 8)))) == []
    assert text_in(np.full((40, 40), 7), READER) == []


def test_blanking_takes_the_text_and_nothing_far_from_it() -> None:
    picture = written(anatomy(), "MUELLER ANNA")
    result, regions = blanked(picture, READER)
    assert regions >= 1
    assert text_in(result, READER) == []
    assert np.array_equal(result[60:], picture[60:])
    assert not np.array_equal(result, picture)


def test_what_cannot_be_blanked_is_not_released() -> None:
    class Stubborn:
        def read(self, picture: object) -> list[Region]:
            return [Region(0, 4, 0, 4, "text")]

    with pytest.raises(Withheld, match="left after blanking"):
        blanked(anatomy(), Stubborn())


def test_an_image_with_burnt_in_text_is_refused_or_blanked_as_the_rule_says() -> None:
    ds = image()
    put_picture(ds, np.stack([anatomy(seed=1), written(anatomy(seed=2), "MUELLER ANNA")]))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    with pytest.raises(Withheld) as caught:
        deidentified(ds, DicomRules(KEY), READER)
    assert caught.value.reason == "burnt-in-text"
    released = deidentified(ds, DicomRules(KEY, burnt_in="blank"), READER)
    assert released.frames == 2
    assert released.blanked >= 1
    assert np.array_equal(released.dataset.pixel_array[0], anatomy(seed=1))


def test_bits_above_the_stored_ones_are_gone() -> None:
    ds = image()
    plain = anatomy()
    ds.PixelData = (plain | np.uint16(0xF000)).astype("<u2").tobytes()
    assert np.array_equal(decoded(ds)[0], plain)


def test_the_second_look_reads_too() -> None:
    words = [text for text, sure in Rapid().words(written(anatomy(), "MUELLER ANNA")) if sure]
    assert any("MUELLER" in word.upper() for word in words)
    assert [text for text, sure in Rapid().words(anatomy()) if sure] == []


def test_tesseract_reads_too() -> None:
    command = shutil.which("tesseract")
    if command is None:
        pytest.skip("needs Debian's tesseract-ocr, an optional second reader: apt-get install tesseract-ocr")
    words = " ".join(text for text, _ in Tesseract(command).words(written(anatomy(), "MUELLER ANNA", size=18)))
    assert "MUELLER" in words.upper()


def test_a_reader_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MisuseError, match="apt-get install tesseract-ocr"):
        eyes("tesseract")
    assert eyes("rapidocr") == Rapid()
