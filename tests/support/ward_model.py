"""A small common model that has nothing to do with the pilot: what a ward records, for tests of tables."""

from __future__ import annotations

from decimal import Decimal

from flute.conformance.model import Code, Coded, Coding, Element, Flag, Links, Model, Moment, Part, Quantity, Whole

_SYSTEM = "urn:x-test:ward"
_WHEN = Part("when", "effective", Moment(("dateTime",)))
PERSON = Element(
    name="person", title="Person", resource="Patient", subject="",
    parts=(Part("gender", "gender", Code({"male": "male", "female": "female"})),
           Part("birth", "birthDate", Moment(("date",)))),
)  # fmt: skip
WEIGHT = Element(
    name="weight", title="Body weight", resource="Observation", status=("final",), code=(Coding(_SYSTEM, "weight"),),
    parts=(Part("value", "value", Quantity("kg", ("kg", "g"), {"Kilo": "kg"}, Decimal(0), Decimal(500), 1),
                required=True), _WHEN),
)  # fmt: skip
SMOKER = Element(
    name="smoker", title="Smoking", resource="Observation", status=("final",), code=(Coding(_SYSTEM, "smoker"),),
    parts=(Part("value", "value", Coded({"0": (Coding(_SYSTEM, "no"),), "1": (Coding(_SYSTEM, "yes"),)}),
                required=True), _WHEN),
)  # fmt: skip
PAIN = Element(
    name="pain", title="Pain", resource="Observation", status=("final",), code=(Coding(_SYSTEM, "pain"),),
    parts=(Part("value", "value", Whole(0, 10), required=True), _WHEN),
)  # fmt: skip
GOUT = Element(
    name="gout", title="Gout in the family", resource="FamilyMemberHistory", subject="patient", status=("completed",),
    parts=(Part("value", "condition", Flag((Coding(_SYSTEM, "gout"),)), required=True),),
    always={"relationship": Coding(_SYSTEM, "any")},
)  # fmt: skip
SCAN = Element(
    name="scan", title="Scan", resource="ImagingStudy", status=("available",), modality=Coding(_SYSTEM, "CT"),
    parts=(Part("when", "started", Moment(("dateTime",))),
           Part("links", "extension", Links("urn:x-test:read-from", ("weight", "pain")))),
)  # fmt: skip
WARD = Model("ward", "A ward", "urn:x-test:ward", "1", PERSON, (WEIGHT, SMOKER, PAIN, GOUT, SCAN))

PEOPLE = "  people: {file: people.csv, patient: id, make: person, parts: {gender: sex, birth: born}}\n"
"""One line of `tables:` that every mapping needs."""


def mapping(tables: str, head: str = "") -> str:
    """The text of a mapping file with people and `tables` (indented by two)."""
    return f"flute: mapping/1\n{head}tables:\n{PEOPLE}{tables}"
