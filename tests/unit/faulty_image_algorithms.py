"""A sound little algorithm over images, and others that differ from it by one fault each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import (
    Ask,
    Finished,
    Opened,
    Operation,
    PrivacyStatement,
    Setting,
    Spec,
    StepShape,
    StudyVariable,
)
from flute.algorithms.design import known
from flute.algorithms.linear import read_parameters
from flute.data.dataset import Dataset
from flute.data.variables import Array, Variable
from flute.messages.limits import Name
from flute.questions.registry import Registration
from flute.testing import Example


class Brightness(Spec, frozen=True, tag="brightness"):
    """How bright images are on average."""

    image: Name


class BrightnessAlgorithm:
    """One vector: how many have an image, and the sum of their mean intensities, the range mapped to [-1, 1]."""

    name: ClassVar[str] = "brightness"
    statement: ClassVar[PrivacyStatement] = PrivacyStatement(
        released="The mean intensity of all images, and how many patients have one.",
        bounded_by="A patient adds one, and a mean that is cut to the declared range.",
        leaked_otherwise="Nothing in private mode; in exact mode the same sums without noise.",
    )
    operations: ClassVar[frozenset[Operation]] = frozenset({Operation.SUMS})

    def check(self, spec: Brightness, setting: Setting) -> None:
        known(spec.image, setting)

    def fields(self, spec: Brightness, setting: Setting) -> tuple[str, ...]:
        return (spec.image,)

    def outline(self, spec: Brightness, setting: Setting) -> tuple[StepShape, ...]:
        return (StepShape("brightness", 2, float(np.sqrt(2)), 1.0, 1.0),)

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        """[n, numbers of an image] in [-1, 1]."""
        v, images = known(spec.image, setting).variable, data.images(spec.image)
        rows = images.reshape(len(images), -1).astype(np.float64)
        return np.clip(np.nan_to_num(2 * (rows - v.low) / (v.high - v.low) - 1, posinf=1, neginf=-1), -1, 1)

    def update(
        self, spec: Brightness, setting: Setting, step: int, parameters: Sequence[float], data: Dataset
    ) -> Array:
        read_parameters(parameters, 0, step, 1)
        there = (data.column(spec.image) == 1).astype(np.float64)
        means = self.taken(spec, setting, data).mean(axis=1) if len(data) else np.zeros(0)
        return np.column_stack([there, means * there])

    def cells(self, spec: Brightness, setting: Setting, data: Dataset) -> NDArray[np.int64]:
        return np.array([int((data.column(spec.image) == 1).sum())], dtype=np.int64)

    def next(
        self, spec: Brightness, setting: Setting, history: Sequence[Opened], inputs: Mapping[str, dict[str, Any]]
    ) -> Ask | Finished:
        if not history:
            return Ask(())
        n, total = (float(number) for number in history[0].total)
        return Finished({"n": n, "mean": float(np.clip(total / n, -1, 1)) if n >= 1 else None})


class TrustsImages(BrightnessAlgorithm):
    """Takes images for what their declaration says: within the range, and finite."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        v, images = known(spec.image, setting).variable, data.images(spec.image)
        return 2 * (images.reshape(len(images), -1).astype(np.float64) - v.low) / (v.high - v.low) - 1


class TrustsTheRange(TrustsImages):
    """Knows that numbers may be missing, but not that they may lie outside."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        found = super().taken(spec, setting, data)
        return np.where(np.abs(found) < 1e9, found, 0.0)


class ScalesInPlace(BrightnessAlgorithm):
    """Writes into what was lent."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        found = super().taken(spec, setting, data)
        data.images(spec.image)[...] *= 0.5
        return found


class AsBrightAsTheBrightest(BrightnessAlgorithm):
    """Scales by the hub's own brightest image."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        found = super().taken(spec, setting, data)
        return found / max(float(np.abs(found).max(initial=0.0)), 0.5)


class AgainstTheOneBefore(BrightnessAlgorithm):
    """Compares an image with that of the row before."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        found = super().taken(spec, setting, data)
        return (found - np.roll(found, 1, axis=0)) / 2


class LooksAtAnother(BrightnessAlgorithm):
    """Reads an image that the question does not name."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        data.images("other")
        return super().taken(spec, setting, data)


class StopsAtDarkness(BrightnessAlgorithm):
    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        if np.isneginf(data.images(spec.image)).any():
            raise ZeroDivisionError("too dark")
        return super().taken(spec, setting, data)


class WaitsForTheBright(BrightnessAlgorithm):
    """Takes longer the more images are white."""

    def taken(self, spec: Brightness, setting: Setting, data: Dataset) -> Array:
        found = super().taken(spec, setting, data)
        time.sleep(0.002 * int((found == 1.0).all(axis=1).sum()))
        return found


FAULTY: dict[str, tuple[type[BrightnessAlgorithm], str]] = {
    "numbers that are not finite": (TrustsImages, "hostile"),
    "numbers outside the range": (TrustsTheRange, "magnitude"),
    "images written to": (ScalesInPlace, "determinism"),
    "a scale of the hub's own images": (AsBrightAsTheBrightest, "own-row"),
    "the image of the row before": (AgainstTheOneBefore, "row-order"),
    "an undeclared image": (LooksAtAnother, "fields"),
    "a failure on an image": (StopsAtDarkness, "hostile"),
    "time that tells of images": (WaitsForTheBright, "duration"),
}
"""Each fault, and the check that has to see it first."""

PICTURE = StudyVariable(Variable("picture", "image", 0, 16, shape=(1, 4, 4)))
OTHER = StudyVariable(Variable("other", "image", -1, 1, shape=(2, 3, 3, 3)))
EXAMPLE = Example(Brightness("picture"), (PICTURE, OTHER))


def registration(algorithm: type[BrightnessAlgorithm]) -> Registration:
    return Registration(Brightness, algorithm())
