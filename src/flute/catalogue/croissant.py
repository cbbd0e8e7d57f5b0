"""A catalogue entry as Croissant: the dataset for machine learning tools.

What can be downloaded is the synthetic sample, so the record set `sample` reads from it; `variables` is the data
dictionary, inline. The records themselves have no file here: they stay in the hospital.
Source: MLCommons Croissant Format Specification 1.0; Croissant RAI 1.0.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from flute.catalogue.entry import Entry, EntryVariable
from flute.catalogue.sample import MODEL, sample_name

CONFORMS_TO: Final = ("http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0")
_CONTEXT: Final[dict[str, Any]] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet",
            "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
            "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField",
            "transform",
        )
    },
}  # fmt: skip
"""The standard's own context: readers compare it."""
_TYPES: Final = {"number": "sc:Float", "binary": "sc:Integer", "category": "sc:Text", "image": "sc:Text"}
_DICTIONARY: Final = ("name", "title", "kind", "unit", "low", "high", "levels", "codes", "description")


def croissant(entry: Entry, sample: bytes) -> bytes:
    """JSON-LD. `sample`: the synthetic sample as CSV, whose digest is stated."""
    d, file = entry.declared, f"{sample_name(entry)}.csv"
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": list(CONFORMS_TO),
        "name": entry.title,
        "description": entry.description,
        "url": d.address,
        "version": f"0.0.{int(entry.snapshot[:8], 16)}",
        "datePublished": entry.imported.isoformat(),
        "license": d.access.licence or d.access.page,
        "citeAs": f"{d.publisher.name}: {entry.title}. Snapshot {entry.snapshot[:12]}. {d.address}",
        "keywords": [*d.keywords, *(["SIMULATED"] if entry.simulated else [])],
        "inLanguage": [code.lower() for code in d.language],
        "creator": _organisation(entry),
        "publisher": _organisation(entry),
        "isLiveDataset": False,
        **_responsible(entry),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file,
                "name": file,
                "description": MODEL,
                "contentUrl": file,
                "encodingFormat": "text/csv",
                "sha256": hashlib.sha256(sample).hexdigest(),
            }
        ],
        "recordSet": [_sample(entry, file), _dictionary(entry)],
    }
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def _organisation(entry: Entry) -> dict[str, Any]:
    party = entry.declared.publisher
    said = {"@type": "sc:Organization", "name": party.name, "email": party.email, "url": party.page}
    return {name: value for name, value in said.items() if value is not None}


def _responsible(entry: Entry) -> dict[str, Any]:
    """Croissant RAI: how the data came about, what they are for, and what the reader must not conclude."""
    d = entry.declared
    limits = [MODEL, f"Conditions of use: {d.access.conditions}"]
    if entry.statistics is not None:
        limits.append(entry.statistics.sentence)
    return {
        "rai:dataCollection": d.provenance,
        "rai:dataUseCases": [d.purpose],
        "rai:dataLimitations": limits,
        "rai:personalSensitiveInformation": list(d.personal_data),
        "rai:dataCollectionTimeframe": [d.period.start.isoformat(), d.period.until.isoformat()],
    }


def _sample(entry: Entry, file: str) -> dict[str, Any]:
    person = {
        "@type": "cr:Field", "@id": "sample/patient", "name": "patient", "dataType": "sc:Text",
        "description": "Says SYNTHETIC in every row, and tells the rows apart.", "source": _source(file, "patient"),
    }  # fmt: skip
    return {
        "@type": "cr:RecordSet",
        "@id": "sample",
        "name": "sample",
        "description": MODEL,
        "key": {"@id": "sample/patient"},
        "field": [person, *(_field(file, v) for v in entry.variables)],
    }


def _field(file: str, v: EntryVariable) -> dict[str, Any]:
    name = v.variable.name
    return {
        "@type": "cr:Field",
        "@id": f"sample/{name}",
        "name": name,
        "description": v.text,
        "dataType": _TYPES[v.variable.kind],
        "source": _source(file, name),
    }


def _source(file: str, column: str) -> dict[str, Any]:
    return {"fileObject": {"@id": file}, "extract": {"column": column}}


def _dictionary(entry: Entry) -> dict[str, Any]:
    """The data dictionary; every value is text, empty where there is none."""
    rows = []
    for v in entry.variables:
        x = v.variable
        number = x.kind == "number"
        codes = "; ".join(f"{c.system}|{c.code}" for c in v.codes)
        cells = (
            x.name, v.title, x.kind, x.unit, f"{x.low:g}" if number else "", f"{x.high:g}" if number else "",
            ", ".join(x.levels), codes, v.text,
        )  # fmt: skip
        rows.append({f"variables/{name}": cell for name, cell in zip(_DICTIONARY, cells, strict=True)})
    return {
        "@type": "cr:RecordSet",
        "@id": "variables",
        "name": "variables",
        "description": "Every variable of the dataset, with unit, range or levels, and codes.",
        "key": {"@id": "variables/name"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"variables/{name}",
                "name": name,
                "dataType": "sc:Text",
            }
            for name in _DICTIONARY
        ],
        "data": rows,
    }
