"""A shelf of invented patients, by a small common model that has one of everything the FHIR face shows."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from flute.conformance.model import Age, Code, Coded, Coding, Element, Flag, Model, Moment, Part, Quantity, Whole
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.face.shelf import Column, Fixed, Shelf
from flute.hub.store import DatasetEntry

LOINC, SCT = "http://loinc.org", "http://snomed.info/sct"
_FIRST, _AGAIN = Coding(SCT, "884001"), Coding(SCT, "27582007")
MODEL = Model(
    name="heart", title="Heart failure", url="urn:x-flute:", version="1",
    person=Element("patient", "Person", "Patient", (Part("gender", "gender", Code({"male": "male"})),), subject=""),
    elements=(
        Element(
            "pressure", "Pressure", "Observation", status=("final",), code=(Coding(LOINC, "8480-6", "Systolic"),),
            parts=(
                Part("value", "value", Quantity("mm[Hg]", ("mm[Hg]",), {}, Decimal(0), Decimal(400), 1), True),
                Part("when", "effective", Moment(("dateTime",))),
            ),
        ),
        Element(
            "nyha_class", "Class", "Observation", status=("final",), code=(Coding(SCT, "420816009"),),
            parts=(Part("value", "value", Whole(1, 4), required=True),),
        ),
        Element(
            "echo", "Echo", "Procedure", status=("completed",), code=(Coding(SCT, "40701008"),),
            sites=(Coding(SCT, "80891009"),),
            parts=(
                Part("category", "category", Coded({"first": (_FIRST,), "again": (_AGAIN,)}), required=True),
                Part("age", "performed", Age(), required=True),
            ),
        ),
        Element(
            "relatives", "Relatives", "FamilyMemberHistory", subject="patient", status=("completed",),
            parts=(Part("value", "condition", Flag((Coding(SCT, "84114007"),)), required=True),),
            always={"relationship": Coding("http://terminology.hl7.org/CodeSystem/v3-RoleCode", "FAMMEMB")},
        ),
    ),
)  # fmt: skip
SHOWN = {
    "patient": {"gender": Fixed("male")},
    "pressure": {"value": Column("pressure")},
    "nyha_class": {"value": Column("grade")},
    "echo": {"category": Column("again", {"0": "first", "1": "again"}), "age": Column("age")},
    "relatives": {"value": Column("relatives")},
}
VARIABLES = (
    Variable("age", "number", 18, 110, unit="a"),
    Variable("pressure", "number", 60, 260, unit="mm[Hg]"),
    Variable("grade", "category", levels=("1", "2", "3", "4")),
    Variable("again", "binary"),
    Variable("relatives", "binary"),
    Variable("secret", "number", 0, 1),
)
IMPORTED = 1_790_000_000


def columns(n: int = 30, seed: int = 1) -> dict[str, Any]:
    """Some values are missing: pressure of the first, grade of the second, the examination of the third."""
    rng = np.random.default_rng(seed)
    made = {
        "age": rng.integers(30, 90, n).astype(float),
        "pressure": rng.normal(130, 15, n).clip(70, 240).round(1),
        "grade": rng.integers(0, 4, n).astype(float),
        "again": rng.integers(0, 2, n).astype(float),
        "relatives": rng.integers(0, 2, n).astype(float),
        "secret": rng.random(n),
    }
    for row, name in enumerate(("pressure", "grade", "again")):
        made[name][row] = np.nan
    return made


def pseudonyms(n: int = 30) -> list[str]:
    return sorted(f"{i * 7919 % 2**32:032x}" for i in range(n))


def entry(simulated: bool = True, snapshot: bytes = bytes(range(32))) -> DatasetEntry:
    return DatasetEntry("heart", snapshot, VARIABLES, {}, IMPORTED, simulated)


def shelf(
    n: int = 30, *, hidden: tuple[str, ...] = (), simulated: bool = True, snapshot: bytes = bytes(range(32))
) -> Shelf:
    held = entry(simulated, snapshot)
    opened = Shelf.variables(held, SHOWN, hidden)
    made = columns(n)
    data = Dataset(np.array(pseudonyms(n)), {v.name: made[v.name] for v in opened}, opened)
    return Shelf(held, MODEL, SHOWN, opened, data)
