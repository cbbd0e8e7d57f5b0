"""What each field is (identifier, quasi-identifier, sensitive, other), declared in tables, not in code.

FHIR elements are declared in `fhir_elements.csv` beside this file: resource type, path, treatment, class. It is an
allow list: an element that is not in it does not leave the hub, whatever it is called. Paths are those of FHIR R4,
choices spelt out (`valueQuantity`); what is inside a datatype follows from the treatment:

    id, reference, subject     replaced by the keyed name; a reference keeps nothing but its type and that name
    coding, concept            system, version and code of public terminologies; no display, no text
    quantity, range, ratio     numbers with UCUM code, and a unit of the known spellings
    code, plain                a word of small letters as FHIR's own codes are; a number or a boolean
    date, birth, period        moved by the patient's shift, or turned to his age
    uid, uids                  DICOM UIDs replaced as in the images; `urn:dicom:uid` identifiers
    meta, group                profiles and tags of listed origin; an element with elements of its own

Classes of a dataset's variables are declared beside the dataset, and `Classes` checks that none is left out.
Source: ISO 25237 and ISO/IEC 20889 (the four classes); FHIR R4.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal, cast, get_args

from flute.errors import MisuseError

FieldClass = Literal["identifier", "quasi-identifier", "sensitive", "other"]
"""Names one person; may, together with others, single one out; what nobody must learn about him; neither."""
Treatment = Literal[
    "id", "reference", "subject", "coding", "concept", "quantity", "range", "ratio", "code", "plain", "date", "birth",
    "deceased", "period", "uid", "uids", "meta", "group",
]  # fmt: skip
_TABLE: Final = "fhir_elements.csv"
UCUM: Final = "http://unitsofmeasure.org"
PUBLIC_SYSTEMS: Final = (
    "http://snomed.info/sct", "http://loinc.org", UCUM, "http://terminology.hl7.org/", "http://hl7.org/fhir/",
    "http://dicom.nema.org/", "http://www.whocc.no/atc", "http://www.nlm.nih.gov/research/umls/rxnorm",
    "urn:oid:2.16.840.1.113883.6.", "urn:iso:std:iso:", "http://www.orpha.net", "http://purl.obolibrary.org/obo/",
    "http://human-phenotype-ontology.org", "http://www.genenames.org", "urn:x-flute:",
)  # fmt: skip
"""How the names of public terminologies begin, and of ours (which label simulated data)."""
PUBLIC_PROFILES: Final = ("http://hl7.org/fhir/", "http://hl7.eu/fhir/")
_UNIT: Final = re.compile(r"[A-Za-zµμ%0-9]+|[/.*^ ²³()\[\]-]")
_BETWEEN: Final = "/.*^ ²³()[]-"
_UNITS: Final = """
    pg ng ug µg μg mcg mg g kg fl ul µl μl ml cl dl l cc ccm cm mm um nm m cm2 cm3 mm2 mm3 m2 m3 mmol umol µmol nmol
    pmol mol meq iu u ku miu mu % percent a y yr yrs year years mo month months wk week weeks d day days h hr hour
    hours min s sec mmhg bpm c cel k score 1 10 2 3 6 9 12 s2
"""
_UNIT_WORDS: Final = frozenset(_UNITS.split())


@dataclass(frozen=True, slots=True)
class Element:
    """How an element leaves the hub, and what it is. `inner`: elements of a group, by name."""

    treatment: Treatment
    field_class: FieldClass
    inner: Mapping[str, Element]


@cache
def fhir_elements() -> Mapping[str, Mapping[str, Element]]:
    """Elements that may leave, by resource type and name.

    Raises: MisuseError: the table beside this file says something that it cannot mean.
    """
    rows: dict[str, dict[str, tuple[str, str]]] = {}
    table = files(__package__).joinpath(_TABLE).read_text(encoding="ascii")
    for row in csv.DictReader(table.splitlines()):
        if row["treatment"] not in get_args(Treatment) or row["class"] not in get_args(FieldClass):
            raise MisuseError(f"{_TABLE} declares {row['type']}.{row['path']} by words that do not exist.")
        rows.setdefault(row["type"], {})[row["path"]] = (row["treatment"], row["class"])
    return {kind: _inner("", paths) for kind, paths in rows.items()}


def _inner(above: str, paths: Mapping[str, tuple[str, str]]) -> Mapping[str, Element]:
    here = {p.removeprefix(above) for p in paths if p.startswith(above) and "." not in p.removeprefix(above)}
    return {
        name: Element(
            cast(Treatment, paths[above + name][0]),
            cast(FieldClass, paths[above + name][1]),
            _inner(f"{above}{name}.", paths),
        )
        for name in sorted(here)
    }


def is_unit(text: str) -> bool:
    """Whether a unit's text consists of known spellings, and so of nobody's name."""
    pieces = _UNIT.findall(text)
    words = [piece.lower() for piece in pieces if piece not in _BETWEEN]
    return "".join(pieces) == text and bool(words) and all(word in _UNIT_WORDS for word in words)


@dataclass(frozen=True, slots=True)
class Classes:
    """The class of every variable of a dataset."""

    of: Mapping[str, FieldClass]

    def named(self, wanted: FieldClass) -> tuple[str, ...]:
        return tuple(name for name, given in self.of.items() if given == wanted)


def declared(variables: Iterable[str], classes: Mapping[str, str]) -> Classes:
    """The declared classes of a dataset's variables, in their order.

    Raises: MisuseError: a variable without a class, a class that does not exist, or one of a variable that does not.
    """
    names = list(variables)
    unknown = sorted(set(classes) - set(names))
    missing = [name for name in names if name not in classes]
    if unknown or missing:
        raise MisuseError(
            f"Every variable needs one class, and only variables have one. Without a class: {missing or 'none'}; "
            f"not among the variables: {unknown or 'none'}."
        )
    wrong = sorted({given for given in classes.values() if given not in get_args(FieldClass)})
    if wrong:
        raise MisuseError(f"There is no class {wrong[0]!r}; write one of {', '.join(get_args(FieldClass))}.")
    return Classes({name: cast(FieldClass, classes[name]) for name in names})
