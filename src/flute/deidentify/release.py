"""What leaves: de-identified, then searched for what should be gone, and only then handed on.

`Images` and `release_resource` are the two doors. Both give something that can be written as it is, or raise
`Withheld`; `Leaked` is the case in which the de-identifier was content and the residual check was not: that is a
fault of ours, and the object stays inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from io import BytesIO
from typing import Any, Final

import msgspec

from flute.deidentify import dicom, fhir
from flute.deidentify.dicom import DicomRules
from flute.deidentify.fhir import FhirRules, Person, person_of, subject_of
from flute.deidentify.needles import Known, known_of_dicom, known_of_fhir
from flute.deidentify.pixels import TextReader
from flute.deidentify.residual import Leak, Look, PictureReader, search_dicom, search_fhir
from flute.deidentify.withheld import Withheld
from flute.errors import FluteError

Resource = Mapping[str, Any]
_ENCODE: Final = msgspec.json.Encoder(decimal_format="number").encode


class Leaked(Withheld):
    """The residual check found something. `leaks`: where and of what kind."""

    def __init__(self, leaks: Iterable[Leak]) -> None:
        super().__init__(
            "residual-finding",
            "The residual check found what should be gone after de-identification; it is not released. Please report "
            "the place and kind that it names.",
        )
        self.leaks = tuple(leaks)


@dataclass(frozen=True, slots=True)
class Persons:
    """What the clinical record says of each patient, by his id there. `ids`: what else he is called (his numbers at
    the hospital) to his id; a number of two patients names neither."""

    persons: Mapping[str, Person] = field(default_factory=dict, repr=False)
    known: Mapping[str, Known] = field(default_factory=dict, repr=False)
    ids: Mapping[str, str] = field(default_factory=dict, repr=False)

    def key_of(self, ds: Any) -> str:
        """The id in the record of the patient of a DICOM object; its Patient ID where the record does not know it."""
        own = str(ds.get("PatientID") or "").strip()
        return self.ids.get(own, own)

    def all_known(self, key: str, own: Known) -> Known:
        """What the record says of a patient, and what an object itself says (`own`)."""
        return own | self.known.get(key, Known())


def persons_of(resources: Iterable[Resource]) -> Persons:
    """Read the Patient resources among these."""
    persons: dict[str, Person] = {}
    known: dict[str, Known] = {}
    ids: dict[str, set[str]] = {}
    for resource in resources:
        if resource.get("resourceType") != "Patient" or not isinstance(resource.get("id"), str):
            continue
        key = resource["id"]
        persons[key], known[key] = person_of(resource), known_of_fhir(resource)
        for number in [key, *_numbers(resource)]:
            ids.setdefault(number, set()).add(key)
    return Persons(persons, known, {number: next(iter(keys)) for number, keys in ids.items() if len(keys) == 1})


@dataclass(frozen=True, slots=True)
class Images:
    """How DICOM objects are released. `reader` is the de-identifier's, `eyes` the residual check's (None: the picture
    is not looked at a second time)."""

    rules: DicomRules
    reader: TextReader
    eyes: PictureReader | None
    persons: Persons = field(default_factory=Persons)
    counted: Callable[[dicom.Released], None] = lambda released: None

    def __call__(self, ds: Any, *, patient: str = "") -> Any:
        """A de-identified pydicom dataset. `patient`: his id in the record; else the one that the object's Patient ID
        leads to, else that Patient ID itself.

        Raises: Withheld: it is not released; Leaked: the residual check is why.
        """
        try:
            return self._released(ds, patient or self.persons.key_of(ds))
        except FluteError:
            raise
        except Exception as error:  # bytes of any sort: pydicom raises many kinds where they are not what they say
            raise Withheld("unreadable", "Its attributes are not what DICOM says they are; it is damaged.") from error

    def _released(self, ds: Any, key: str) -> Any:
        person = self.persons.persons.get(key, fhir.NOBODY)
        released = dicom.deidentified(ds, self.rules, self.reader, patient=key, forbidden=person.forbidden)
        raw = BytesIO()
        released.dataset.save_as(raw, enforce_file_format=True)
        own = known_of_dicom(ds)
        leaks = search_dicom(raw.getvalue(), Look(self.persons.all_known(key, own), own.days), self.eyes)
        if leaks:
            raise Leaked(leaks)
        self.counted(released)
        return released.dataset


def release_resource(resource: Resource, rules: FhirRules, persons: Persons) -> tuple[bytes, Counter[str]]:
    """One line of NDJSON without its end, and how many elements did not pass, by why.

    Raises: Withheld: it is not released; Leaked: the residual check is why.
    """
    key = subject_of(resource) or ""
    result, dropped = fhir.deidentified(resource, rules, persons.persons.get(key, fhir.NOBODY))
    line = _ENCODE(result)
    own = known_of_fhir(resource)
    leaks = search_fhir(line, Look(persons.all_known(key, own), own.days))
    if leaks:
        raise Leaked(leaks)
    return line, dropped


def decoded(line: bytes) -> Any:
    """JSON with numbers as they are written (3.10 stays 3.10). Raises: msgspec.DecodeError."""
    return _DECODER.decode(line)


_DECODER: Final = msgspec.json.Decoder(float_hook=Decimal)


def _numbers(resource: Resource) -> Iterator[str]:
    found = resource.get("identifier")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and isinstance(item.get("value"), str):
            yield item["value"].strip()
