"""A reader over pages that a test writes down, which can be cut off at any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flute.data.reader import Page, Record
from flute.errors import Unreachable


@dataclass
class PagesReader:
    """`scripts`: the pages of each import, one after the other. `cut`: break off before that page."""

    pages_: Sequence[Page]
    cut: int | None = None
    asked: list[bytes | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        return "a test"

    def pages(self, mark: bytes | None) -> Iterator[Page]:
        self.asked.append(mark)
        start = 0 if mark is None else 1 + [p.mark for p in self.pages_].index(mark)
        for number, page in enumerate(self.pages_[start:], start):
            if number == self.cut:
                raise Unreachable("The system broke off.")
            yield page


def record(kind: str, key: str, bundle: str = "", **fields: Any) -> Record:
    return Record({"resourceType": kind, "id": key, **fields}, f"file, {key}", bundle)


def patient(key: str, **fields: Any) -> Record:
    return record("Patient", key, **fields)


def weight(key: str, who: str, kg: object, bundle: str = "", **fields: Any) -> Record:
    own = {"subject": {"reference": f"Patient/{who}"}, "valueQuantity": {"value": kg}}
    return record("Observation", key, bundle, **own, **fields)
