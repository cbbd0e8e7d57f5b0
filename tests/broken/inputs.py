"""Broken inputs: what somebody puts beside a good export, and what must come of it.

Every folder also holds one good man's chart; whatever else is wrong, he comes in whole.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from flute.pilot.resources import Resource, resources_of
from support.mutants import man

GOOD = [json.loads(json.dumps(resource)) for resource in resources_of(man("good"))]
UUID = "urn:uuid:8a80b7e2-1879-418e-92eb-36418846b599"
STRANGER = "urn:uuid:08e6398c-85fa-4d32-97ef-3d7aa9969bb8"


@dataclass(frozen=True)
class Broken:
    """`write` puts it into a folder. `refused`: (where, reason, path, rule) of each finding that is expected, in
    order. `accepted`: resources besides the good man's. `decisions`: of further men, by id, why they are left out."""

    name: str
    write: Callable[[Path], None]
    refused: tuple[tuple[str, str, str, str], ...] = ()
    accepted: int = 0
    decisions: dict[str, str] = field(default_factory=dict)


def chart(key: str = "bad", /, **changes: Any) -> dict[str, Resource]:
    """Another man's resources, by what they are."""
    found = [json.loads(json.dumps(resource)) for resource in resources_of(man(key, second_lesion=None, **changes))]
    return {resource["id"].partition("-")[2] or "patient": resource for resource in found}


PSA = chart()["psa"]


def raw(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def lines(*resources: Any, name: str = "bad.ndjson") -> Callable[[Path], None]:
    return raw(name, b"".join(json.dumps(resource).encode() + b"\n" for resource in resources))


def of_bad(what: str, /, **values: Any) -> Resource:
    """A resource of the other man with elements set, or (`...`) removed."""
    merged = chart()[what] | values
    return {name: value for name, value in merged.items() if value is not ...}


def measured(**values: Any) -> Resource:
    quantity = PSA["valueQuantity"] | values
    return of_bad("psa", valueQuantity={name: value for name, value in quantity.items() if value is not ...})


def one(name: str, resource: Any, reason: str, path: str, rule: str = "r4") -> Broken:
    """The other man's patient comes in, this resource of his does not."""
    expected = (("bad.ndjson, line 2", reason, path, rule),)
    decisions = {"bad": "no-biopsy"}
    return Broken(name, lines(chart()["patient"], resource), expected, accepted=1, decisions=decisions)


def line(name: str, content: bytes, reason: str, rule: str) -> Broken:
    """One line of a file is bad, the next one is read."""
    whole = content + b"\n" + json.dumps(chart()["patient"]).encode() + b"\n"
    return Broken(
        name, raw("bad.ndjson", whole), (("bad.ndjson, line 1", reason, "", rule),), 1, {"bad": "no-biopsy"}
    )


def file(name: str, write: Callable[[Path], None], where: str, reason: str, rule: str) -> Broken:
    """A file of which nothing comes in."""
    return Broken(name, write, ((where, reason, "", rule),))


# --- files -------------------------------------------------------------------------------------------------

PACKED = gzip.compress(b"".join(json.dumps(r).encode() + b"\n" for r in chart().values()))
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY lol{i} "' + f"&lol{i - 1 if i > 1 else ''};" * 10 + '">' for i in range(1, 10))
    + ']><Patient xmlns="http://hl7.org/fhir"><id value="&lol9;"/></Patient>'
).encode()


def gzip_bomb(folder: Path) -> None:
    with gzip.open(folder / "bad.ndjson.gz", "wb", compresslevel=9) as file:
        for _ in range(80):
            file.write(bytes(2**20))


def zip_bomb(folder: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Patient.ndjson", bytes(10 * 2**20))
    (folder / "bad.zip").write_bytes(packed.getvalue())


def endless_line(folder: Path) -> None:
    """2 GiB without a line's end, then a good line. Sparse: it takes no disk."""
    with (folder / "bad.ndjson").open("wb") as file:
        file.truncate(2 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + json.dumps(chart()["patient"]).encode() + b"\n")


def link_in_a_circle(folder: Path) -> None:
    (folder / "bad.ndjson").symlink_to(folder / "bad2.ndjson")
    (folder / "bad2.ndjson").symlink_to(folder / "bad.ndjson")


FILES = [
    file("gzip that breaks off", raw("bad.ndjson.gz", PACKED[:-20]), "bad.ndjson.gz", "file-broken", "file-whole"),
    file("gzip with another checksum", raw("bad.ndjson.gz", PACKED[:-8] + bytes(8)), "bad.ndjson.gz", "file-broken",
         "file-whole"),
    file("no gzip at all", raw("bad.ndjson.gz", b"PK"), "bad.ndjson.gz", "file-broken", "file-whole"),
    file("gzip of nothing", raw("bad.ndjson.gz", gzip.compress(b"")), "bad.ndjson.gz", "file-broken", "file-empty"),
    file("gzip bomb", gzip_bomb, "bad.ndjson.gz", "file-broken", "file-inflates"),
    file("zip bomb", zip_bomb, "bad.zip", "format-not-read", "file-form"),
    file("billion laughs", raw("bad.xml", LAUGHS), "bad.xml", "format-not-read", "file-form"),
    file("UTF-16", raw("bad.ndjson", json.dumps(PSA).encode("utf-16")), "bad.ndjson", "file-broken", "utf-8"),
    file("empty file", raw("bad.ndjson", b""), "bad.ndjson", "file-broken", "file-empty"),
    file("folder in place of a file", lambda folder: (folder / "bad.ndjson").mkdir(), "bad.ndjson", "file-broken",
         "file-readable"),
    Broken("links in a circle", link_in_a_circle, (
        ("bad.ndjson", "file-broken", "", "file-readable"), ("bad2.ndjson", "file-broken", "", "file-readable"))),
    file("link to nowhere", lambda folder: (folder / "bad.json").symlink_to("/nowhere"), "bad.json", "file-broken",
         "file-readable"),
    file("document that is cut off", raw("bad.json", json.dumps(PSA).encode()[:-5]), "bad.json", "malformed-json",
         "json"),
]  # fmt: skip

# --- lines -------------------------------------------------------------------------------------------------------


def spoilt(old: bytes, new: bytes) -> bytes:
    text = json.dumps(PSA).encode()
    assert old in text
    return text.replace(old, new)


LINES = [
    line("byte order mark", b"\xef\xbb\xbf" + json.dumps(PSA).encode(), "malformed-json", "no-byte-order-mark"),
    line("Latin-1", spoilt(b'"final"', b'"f\xefnal"'), "malformed-json", "utf-8"),
    line("line of 5 MiB", json.dumps(PSA | {"text": "x" * 5 * 2**20}).encode(), "too-long", "resource-size"),
    line("nested without end", b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "malformed-json", "nesting"),
    line("the same key twice", spoilt(b'"status": "final"', b'"status": "final", "status": "cancelled"'),
         "malformed-json", "one-key-one-value"),
    line("NaN", spoilt(b"6.7", b"NaN"), "malformed-json", "json"),
    line("a number without end", spoilt(b"6.7", b"1e999"), "malformed-json", "number"),
    line("half a character", spoilt(b'"final"', b'"\\ud83d"'), "malformed-json", "unicode"),
    line("line that is cut off", json.dumps(PSA).encode()[:100], "malformed-json", "json"),
    line("two values in one line", json.dumps(PSA).encode() + b" {}", "malformed-json", "json"),
    line("carriage returns alone", b"\r".join([json.dumps(PSA).encode()] * 2), "malformed-json", "json"),
]  # fmt: skip

# --- resources ------------------------------------------------------------------------------------------------------

_ISUP = {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.1", "code": "LA30796-9"}]}
RESOURCES = [
    one("no object", [1], "wrong-type", "", "resource"),
    one("no resource type", of_bad("psa", resourceType=...), "required-element-missing", "resourceType", "resource"),
    one("another resource type", of_bad("psa", resourceType="Obsevration"), "wrong-type", "resourceType"),
    one("type of FHIR R5", {"resourceType": "NutritionIntake", "id": "n"}, "wrong-type", "resourceType"),
    one("element of FHIR R5", of_bad("psa", triggeredBy=[]), "unknown-element", "Observation.triggeredBy"),
    one("element that is unknown", of_bad("psa", valueQuantitiy={}), "unknown-element", "Observation.valueQuantitiy"),
    one("no id", of_bad("psa", id=...), "required-element-missing", "id", "resource"),
    one("id that is too long", of_bad("psa", id="x" * 65), "id-invalid", "id", "resource"),
    one("control characters", of_bad("psa", note=[{"text": "a\x07b"}]), "wrong-type", "Observation.note[0].text"),
    one("two values", of_bad("psa", valueString="6.7"), "wrong-type", "Observation.value[x]"),
    one("PSA with a decimal comma", measured(value="3,4"), "wrong-type", "Observation.valueQuantity.value"),
    one("PSA below the limit of measurement", measured(comparator="<"), "wrong-type",
        "Observation.valueQuantity.comparator", "psa-value"),
    one("wrong unit", measured(code="mmol/L"), "unit-not-convertible", "Observation.valueQuantity.code", "psa-value"),
    one("unit of another system", measured(system="urn:local"), "unit-not-convertible",
        "Observation.valueQuantity.code", "psa-value"),
    one("PSA without end", measured(value=10**300), "value-out-of-range", "Observation.valueQuantity.value",
        "psa-value"),
    one("negative volume", of_bad("volume", valueQuantity={"value": -3, "code": "mL"}), "value-out-of-range",
        "Observation.valueQuantity.value", "volume-value"),
    one("PI-RADS 6", of_bad("pirads", valueInteger=6), "pirads-out-of-range", "Observation.valueInteger",
        "pirads-value"),
    one("wrong code system", of_bad("isup", valueCodeableConcept=_ISUP), "code-not-in-value-set",
        "Observation.valueCodeableConcept", "outcome-value"),
    one("year of two digits", of_bad("psa", effectiveDateTime="01.03.23"), "date-invalid",
        "Observation.effectiveDateTime"),
    one("30 February", of_bad("psa", effectiveDateTime="2023-02-30"), "date-invalid",
        "Observation.effectiveDateTime", "psa-when"),
    one("time without a zone", of_bad("psa", effectiveDateTime="2023-03-01T10:00:00"), "date-invalid",
        "Observation.effectiveDateTime"),
    one("preliminary report", of_bad("psa", status="preliminary"), "status-not-final", "Observation.status",
        "psa-status"),
    one("no subject", of_bad("psa", subject=...), "required-element-missing", "Observation.subject.reference",
        "psa-subject"),
    one("biopsy that is neither initial nor repeated", of_bad("biopsy", category=...), "required-element-missing",
        "Procedure.category", "biopsy-category"),
    one("examination of an unknown site", of_bad("dre", bodySite=...), "required-element-missing",
        "Procedure.bodySite", "dre-site"),
    Broken("gender of one letter", lines(chart()["patient"] | {"gender": "m"}), (
        ("bad.ndjson, line 1", "code-not-in-value-set", "Patient.gender", "patient-gender"),)),
    Broken("missing reference", lines(PSA), (("bad.ndjson, line 1", "reference-not-resolved", "", "recipe"),), 1),
    Broken("contained patient", lines(PSA | {
        "contained": [{"resourceType": "Patient", "id": "p"}], "subject": {"reference": "#p"}}),
        (("bad.ndjson, line 1", "reference-not-resolved", "", "recipe"),), 1),
]  # fmt: skip

# --- bundles and persons ---------------------------------------------------------------------


def bundle(kind: str, *resources: Any, name: str = "bad.json") -> Callable[[Path], None]:
    entries = [{"resource": resource} for resource in resources]
    return raw(name, json.dumps({"resourceType": "Bundle", "type": kind, "entry": entries}).encode())


def _transaction(folder: Path) -> None:
    """The observation refers to somebody who is in no transaction."""
    observation = PSA | {"subject": {"reference": STRANGER}}
    entries = [
        {"fullUrl": UUID, "resource": chart()["patient"], "request": {"method": "POST", "url": "Patient"}},
        {"resource": observation, "request": {"method": "POST", "url": "Observation"}},
    ]
    text = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    (folder / "bad.json").write_text(text, encoding="utf-8")


_WENT = ("transaction-refused", "", "transaction")
BUNDLES = [
    Broken("bundle that is no export", bundle("history", *chart().values()), (
        ("bad.json", "wrong-type", "Bundle.type", "bundle-type"),)),
    Broken("transaction with one bad entry",
           bundle("transaction", chart()["patient"], measured(code="mmol/L"), chart()["volume"]), (
               ("bad.json, entry 2", "unit-not-convertible", "Observation.valueQuantity.code", "psa-value"),
               ("bad.json, entry 1", *_WENT), ("bad.json, entry 3", *_WENT))),
    Broken("transaction that refers to nobody", _transaction, (
        ("bad.json, entry 2", "reference-not-resolved", "Bundle.entry.resource", "transaction"),
        ("bad.json, entry 1", *_WENT))),
    Broken("transaction with an entry without an id",
           bundle("transaction", chart()["patient"], of_bad("psa", id=...)), (
               ("bad.json, entry 2", "required-element-missing", "id", "resource"), ("bad.json, entry 1", *_WENT))),
    Broken("collection with one bad entry", bundle("collection", chart()["patient"], 7), (
        ("bad.json, entry 2", "wrong-type", "", "resource"),), 1, {"bad": "no-biopsy"}),
    Broken("two births for one patient",
           lines(*chart().values(), chart()["patient"] | {"birthDate": "1961-01-01"}), (
               ("bad.ndjson, line 11", "duplicate-id", "id", "one-id-one-resource"),), 10, {"bad": ""}),
]  # fmt: skip

NOTHING_WRONG = [
    Broken("carriage returns and empty lines", raw(
        "bad.ndjson", b"\r\n\r\n".join(json.dumps(r).encode() for r in chart().values())), (), 10, {"bad": ""}),
    Broken("the same export twice", lambda folder: [lines(*chart().values(), name=f"{n}.ndjson")(folder)
                                                     for n in ("bad", "worse")] and None, (), 10, {"bad": ""}),
    Broken("MRI after the biopsy", lines(*chart(mri=date(2023, 6, 1)).values()), (), 10, {"bad": "mri-after-biopsy"}),
]  # fmt: skip
"""Looks broken, and is none of the reader's business."""


ALONE = [*FILES, *BUNDLES, *NOTHING_WRONG]
"""Each is tried in a folder of its own."""
TOGETHER = [*LINES, *RESOURCES]
"""Each is one file of NDJSON: they are tried in one folder, each under a name of its own."""


def written_together(folder: Path, room: Path) -> dict[str, str]:
    """Put the files of TOGETHER into a folder. Gives their names to the word that stands for "bad" in them."""
    words = {}
    for number, broken in enumerate(TOGETHER):
        own = room / str(number)
        own.mkdir()
        broken.write(own)
        words[broken.name] = f"c{number:02d}"
        content = (own / "bad.ndjson").read_bytes().replace(b"bad", words[broken.name].encode())
        (folder / f"{words[broken.name]}.ndjson").write_bytes(content)
    return words
