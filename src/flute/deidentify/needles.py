"""What a hospital knows about a patient, and every spelling in which it could still stand in a result.

This is the residual check's own knowledge: it is collected from the originals by what values look like (names of
persons, numbers that name, dates, places, UIDs), without the de-identifier's tables, so that a gap in those tables is
not a gap here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cached_property
from typing import Any, Final

_ENCODINGS: Final = (
    "utf-8", "latin-1", "iso8859_2", "iso8859_5", "iso8859_7", "utf-16-le", "utf-16-be", "iso2022_jp_2", "shift_jis",
    "euc_jp", "iso2022_kr", "euc_kr", "gb18030", "big5", "cp1251", "koi8_r", "cp437",
)  # fmt: skip
_NAMING: Final = re.compile(
    r"Name|ID$|IDs|Number|Address|Phone|Telephone|Institution|Department|Station|Serial|Location|Residence|Insurance|"
    r"Occupation|Contact|Account|Admission"
)
"""Keywords of DICOM attributes whose text names somebody or something."""
_NOT_NAMING: Final = re.compile(
    r"Sequence(Name|ID)|Pulse|Coil|Manufacturer|Model|Protocol(Name|ID)|Scheme|Template|Context|Stack|Kernel|Algorithm|"
    r"ROIName|StructureSet|Filter|Version|NumberOf|"
    r"(Series|Instance|Acquisition|Frame|Echo|Segment|Item|Image|Temporal|ROI|Reference|Contour|Beam|Group).*Number"
)
_PLAIN_WORDS: Final = frozenset({
    "simulated", "phantom", "anonymous", "anonymized", "unknown", "removed", "patient", "mr", "mrs", "dr", "md",
    "prof", "herr", "frau", "hospital", "university", "clinic", "radiology", "institute", "medical", "center",
    "centre", "department", "system", "systems", "test",
})  # fmt: skip
"""Words that name nobody, though they stand where names do."""
_MONTHS: Final = (
    ("january", "januar", "enero", "janvier", "gennaio"), ("february", "februar", "febrero", "fevrier", "febbraio"),
    ("march", "marz", "marzo", "mars"), ("april", "abril", "avril", "aprile"), ("may", "mai", "mayo", "maggio"),
    ("june", "juni", "junio", "juin", "giugno"), ("july", "juli", "julio", "juillet", "luglio"),
    ("august", "agosto", "aout"), ("september", "septiembre", "septembre", "settembre"),
    ("october", "oktober", "octubre", "octobre", "ottobre"), ("november", "noviembre", "novembre"),
    ("december", "dezember", "diciembre", "decembre", "dicembre"),
)  # fmt: skip
SHORT: Final = 4
"""Letters: shorter names are looked for as whole words of text only, since any bytes may look like them."""
LONG: Final = 6
"""Letters: longer names are looked for within words too, and among pixels."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write what is known, as text that `plain` has made plain. `alone`: counts only between characters
    that are no letters (of a number: no digits)."""

    kind: str
    text: str
    alone: bool


@dataclass(frozen=True)
class Known:
    """What is known of one patient. Values as they are written at the hospital."""

    names: frozenset[str] = field(default=frozenset(), repr=False)
    numbers: frozenset[str] = field(default=frozenset(), repr=False)
    places: frozenset[str] = field(default=frozenset(), repr=False)
    births: frozenset[date] = field(default=frozenset(), repr=False)
    days: frozenset[date] = field(default=frozenset(), repr=False)
    uids: frozenset[str] = field(default=frozenset(), repr=False)

    def __or__(self, other: Known) -> Known:
        return Known(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(self)))

    @cached_property
    def spellings(self) -> tuple[Spelling, ...]:
        """Names, numbers, places and UIDs as plain text."""
        return tuple(sorted(set(self._spelt()), key=lambda s: (s.kind, s.text)))

    @cached_property
    def in_bytes(self) -> tuple[tuple[str, bytes, bool], ...]:
        """(kind, bytes in lower case, alone): the spellings, plain and as they were typed, in every encoding."""
        return tuple(sorted({(k, raw, alone) for k, text, alone in self._written() for raw in _encoded(text)}))

    @cached_property
    def secret_dates(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        """(kind, pattern over plain text) of the birth date and of every other date."""
        return (
            *(("birth-date", _date_pattern(day)) for day in sorted(self.births)),
            *(("date", _date_pattern(day)) for day in sorted(self.days - self.births)),
        )

    def _spelt(self) -> Iterator[Spelling]:
        for name in self.names:
            parts = [p for p in re.split(r"[^\w]+", plain(name)) if len(p) > 1 and p not in _PLAIN_WORDS]
            for part in parts:
                yield Spelling("name", part, len(part) < LONG)
            for joined in ("".join(parts), "".join(reversed(parts))):
                if len(parts) > 1:
                    yield Spelling("name", joined, False)
        for number in self.numbers:
            text = plain(number)
            for form in {text, re.sub(r"[^\w]", "", text)}:
                if len(form) >= SHORT and form not in _PLAIN_WORDS:
                    yield Spelling("number", form, True)
        for place in self.places:
            text = " ".join(plain(place).split())
            for form in {text, *(w for w in re.split(r"[^\w]+", text) if len(w) >= LONG and not w.isdigit())}:
                if len(form) >= SHORT and form not in _PLAIN_WORDS:
                    yield Spelling("place", form, len(form) < LONG)
        for uid in self.uids:
            yield Spelling("uid", uid, True)

    def _written(self) -> Iterator[tuple[str, str, bool]]:
        """Spellings for bytes: also as they were typed, since accents and scripts are other bytes."""
        for spelling in self.spellings:
            if len(spelling.text) >= SHORT:
                yield spelling.kind, spelling.text, spelling.alone
        for name in self.names:
            for part in re.split(r"[\s^=,]+", name):
                for form in {part, part.lower(), part.upper(), part.title()}:
                    if not form.isascii() and len(part) > 1:
                        yield "name", form, False
        for day in self.births:
            for form in (f"{day:%Y%m%d}", f"{day:%Y-%m-%d}", f"{day:%d.%m.%Y}", f"{day:%d/%m/%Y}"):
                yield "birth-date", form, True


def known_of_dicom(source: Any) -> Known:
    """What an original DICOM object says about its patient, nested sequences included."""
    found: dict[str, set[Any]] = {f.name: set() for f in fields(Known)}
    for element in source.iterall():
        for value in _each(element.value):
            _note(found, str(element.VR), str(element.keyword), str(value).strip(" \0"))
    # A scanner's maker as the institution is a setting that nobody changed, and stays as the maker.
    found["places"] = {p for p in found["places"] if plain(p) not in plain(str(source.get("Manufacturer", "")))}
    return Known(**{name: frozenset(values) for name, values in found.items()})


def known_of_fhir(resource: Mapping[str, Any]) -> Known:
    """What an original FHIR resource says about its patient."""
    found: dict[str, set[Any]] = {f.name: set() for f in fields(Known)}
    if isinstance(resource.get("id"), str):
        found["numbers"].add(resource["id"])
    person = resource.get("resourceType") in ("Patient", "RelatedPerson", "Person", "Practitioner")
    for name, text in _leaves("", resource):
        day = _iso_day(text)
        if day is not None:
            found["births" if name.endswith(".birthDate") else "days"].add(day)
        elif person and re.search(r"\.name\.(family|given|text)$", name):
            found["names"].add(text)
        elif re.search(r"identifier\.value$|telecom\.value$", name):
            found["numbers"].add(text)
        elif person and re.search(r"address\.(line|text|postalCode)$", name):
            found["places"].add(text)
        elif name.endswith((".reference", ".fullUrl")):
            found["numbers"].add(text.rpartition("/")[2])
    return Known(**{name: frozenset(values) for name, values in found.items()})


def plain(text: str) -> str:
    """Small letters without accents; letters of other scripts stay."""
    folded = unicodedata.normalize("NFKD", text.replace("ß", "ss")).casefold()
    return "".join(letter for letter in folded if not unicodedata.combining(letter))


def _note(found: dict[str, set[Any]], vr: str, keyword: str, text: str) -> None:
    if not text:
        return
    if vr == "PN":
        found["names"].add(text)
    elif vr in ("DA", "DT"):
        digits = text[:10].replace(".", "")
        day = _iso_day(f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}")
        if day is not None:
            found["births" if "Birth" in keyword else "days"].add(day)
    elif vr == "UI" and not text.startswith("1.2.840.10008."):
        found["uids"].add(text)
    elif vr in ("LO", "SH", "ST", "LT", "UC", "AE") and _NAMING.search(keyword) and not _NOT_NAMING.search(keyword):
        place = re.search(r"Institution|Department|Address|Station|Location|Residence|AETitle", keyword)
        found["places" if place else "numbers"].add(text)


def _each(value: Any) -> Iterable[Any]:
    if isinstance(value, (str, bytes)) or value is None:
        return () if isinstance(value, bytes) or value is None else (value,)
    return value if type(value).__name__ == "MultiValue" else () if type(value).__name__ == "Sequence" else (value,)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(path, inner)


def _iso_day(text: str) -> date | None:
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)(?:\Z|T)", text)
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def _date_pattern(day: date) -> re.Pattern[str]:
    """A day as people and machines write it, over plain text: 1957-03-01, 1.3.57, 3/1/1957, 19570301, 570301, 1 mar
    1957 in five languages. Two digits for the year only beside separators or as six digits alone."""
    year, short = f"{day.year:04}", f"{day.year % 100:02}"
    month, number = rf"0?{day.month}", rf"0?{day.day}"
    names = "|".join(sorted({form for name in _MONTHS[day.month - 1] for form in (name, name[:3], name[:4])}))
    gap, either = r"[\s./_-]{1,2}", rf"(?:{year}|{short})"
    forms = (
        rf"{year}{day.month:02}{day.day:02}", rf"{day.day:02}{day.month:02}{year}",
        rf"{day.month:02}{day.day:02}{year}", rf"{year}{gap}{month}{gap}{number}",
        rf"{number}{gap}{month}{gap}{either}", rf"{month}{gap}{number}{gap}{either}",
        rf"{number}\.?[\s-]?(?:de )?(?:{names})\.?[\s-]?(?:de )?{either}", rf"(?:{names})\.?\s?{number},?\s{either}",
        rf"{short}{day.month:02}{day.day:02}(?![.\d])", rf"{day.day:02}{day.month:02}{short}(?![.\d])",
    )  # fmt: skip
    return re.compile(rf"(?<!\d)(?<!\d\.)(?:{'|'.join(forms)})(?!\d)")


def _encoded(text: str) -> Iterator[bytes]:
    for encoding in _ENCODINGS:
        try:
            yield text.encode(encoding).lower()
        except UnicodeEncodeError:
            continue
