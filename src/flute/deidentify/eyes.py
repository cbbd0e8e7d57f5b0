"""Readers of pictures for the residual check; not the de-identifier's.

RapidOCR looks again at a picture that is prepared differently: inverted and enlarged. That is a second look by the
same pair of eyes. Tesseract (Debian's tesseract-ocr, or a hospital's own) is another program with other models:
independent, but it reads small letters less surely and takes longer, so it looks where it is asked to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from flute.defaults.records import MAX_PIXEL_READING_S
from flute.errors import MisuseError

_THRESHOLDS: Final = (0.65, 0.4)
"""Parts of the brightest value; what is brighter is ink. Anatomy and noise are grey, letters are not."""
_ENLARGED: Final = 3
_SURE: Final = 0.85


@dataclass(frozen=True, slots=True)
class Tesseract:
    """`command`: the program. What it reads is never "sure": it makes words of noise, so only known ones count."""

    command: str

    def words(self, picture: Any) -> Iterator[tuple[str, bool]]:
        """Raises: subprocess.TimeoutExpired: a frame took longer than MAX_PIXEL_READING_S."""
        from PIL import Image

        values = _normalised(picture)
        rows, columns = values.shape
        large = Image.fromarray((values * 255).astype(np.uint8)).resize(
            (columns * _ENLARGED, rows * _ENLARGED), Image.Resampling.BICUBIC
        )
        for threshold in _THRESHOLDS:
            ink = Image.fromarray(np.where(np.asarray(large) >= threshold * 255, 0, 255).astype(np.uint8))
            png = BytesIO()
            ink.save(png, "PNG")
            read = subprocess.run(
                [self.command, "-", "-", "--psm", "11"],
                input=png.getvalue(), capture_output=True, check=False, timeout=MAX_PIXEL_READING_S,
                env={"OMP_THREAD_LIMIT": "1", "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
            lines = read.stdout.decode("utf-8", errors="replace").splitlines()
            yield from ((line, False) for line in lines if len(line.strip()) > 1)
            yield " ".join(lines), False


@dataclass(frozen=True, slots=True)
class Rapid:
    """RapidOCR on the inverted picture at twice its size."""

    def words(self, picture: Any) -> Iterator[tuple[str, bool]]:
        values = 1.0 - _normalised(picture)
        large = np.kron(values, np.ones((2, 2)))
        found = _rapid()(np.repeat((large * 255).astype(np.uint8)[:, :, None], 3, axis=2))
        for text, score in zip(found.txts or (), found.scores or (), strict=True):
            yield text, score >= _SURE and sum(letter.isalnum() for letter in text) > 2


@cache
def _rapid() -> Any:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # its engine would note on disk, for its maker, that it was started
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise MisuseError("RapidOCR is not installed: pip install 'flute[imaging]'.") from error

    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Det.limit_side_len": 320,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        }
    )


@dataclass(frozen=True, slots=True)
class Both:
    """Every reader in turn."""

    readers: tuple[Tesseract | Rapid, ...]

    def words(self, picture: Any) -> Iterator[tuple[str, bool]]:
        for reader in self.readers:
            yield from reader.words(picture)


def eyes(which: Literal["rapidocr", "tesseract", "both"]) -> Tesseract | Rapid | Both:
    """The readers that are asked for. Raises: MisuseError: one is not installed on this machine."""
    if which == "rapidocr":
        return Rapid()
    command = shutil.which("tesseract")
    if command is None:
        raise MisuseError(
            "The program tesseract is not installed: apt-get install tesseract-ocr, or let rapidocr look."
        )
    return Tesseract(command) if which == "tesseract" else Both((Rapid(), Tesseract(command)))


def _normalised(picture: Any) -> NDArray[np.float64]:
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    low, high = float(values.min()), float(np.quantile(values, 0.999))
    return np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(values)
