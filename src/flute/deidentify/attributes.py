"""What of a DICOM header passes, attribute by attribute, into a new dataset.

Attributes of PS3.15 table E.1-1 follow the table. Of the rest nothing passes by default: numbers and coded strings
that have their type's form stay, dates move, UIDs are replaced, text passes for a few attributes of the scanner and
then word by word, and everything else (names, private attributes, curves, overlays, binaries, types that the
dictionary does not give the attribute) goes.
Source: DICOM PS3.15 annex E, PS3.5 section 6.2, PS3.6.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from flute.defaults.records import AGE_CAP
from flute.deidentify.dates import Shift, shift_da, shift_dt, shift_tm
from flute.deidentify.pixels import PIXELS
from flute.deidentify.profile import Rule, profile
from flute.deidentify.pseudonyms import object_uid
from flute.deidentify.words import clean, holds

_TEXT: Final = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_TEMPORAL: Final[dict[str, Callable[[str, Shift], str | None]]] = {"DA": shift_da, "TM": shift_tm, "DT": shift_dt}
_NUMBERS: Final = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "US or SS", "AT"})
_MAX_DEPTH: Final = 16
"""Sequences within sequences. Real objects have up to 8; what is nested on purpose could exhaust the writer."""
_MAX_NUMBERS: Final = 64
"""Binary numbers of one attribute: longer lists are tables in which anything may stand; geometry needs 16."""
_CODED: Final = re.compile(r"[A-Z0-9 _]{0,16}")
_NUMERIC: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d+)?")
_AGE: Final = re.compile(r"\d{3}[DWMY]")
_CODE: Final = re.compile(r"[A-Za-z0-9.\-_{}\[\]/%*^']{1,64}")
_SCANNER_TEXT: Final = frozenset({
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "SequenceName", "PulseSequenceName", "StackID",
    "ReceiveCoilName", "TransmitCoilName", "ImagedNucleus", "ConvolutionKernel", "SegmentLabel", "LUTLabel",
    "LUTExplanation", "DimensionDescriptionLabel",
})  # fmt: skip
"""Text that table E.1-1 does not list, and that programs need to recognise a series or a segment."""
_SCHEMES: Final = frozenset({
    "DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "FMA", "RADLEX", "UMLS", "NCIT", "NCIt", "IBSI", "I10", "ICDO3", "ATC",
    "MDC", "UBERON",
})  # fmt: skip
"""Public terminologies. A code of a hospital's own scheme says which hospital."""
_CODE_ELEMENTS: Final = ("CodeValue", "LongCodeValue")
_ITEMS_KEPT: Final = frozenset({
    "CONTAINER", "NUM", "CODE", "UIDREF", "IMAGE", "COMPOSITE", "SCOORD", "SCOORD3D", "DATE", "TIME", "DATETIME"
})  # fmt: skip
"""Kinds of content of a structured report that hold no free text; TEXT and PNAME go with all that hangs on them."""
_DUMMIES: Final[dict[str, Any]] = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y", "UR": "about:blank", "OB": b"\0\0",
    "UN": b"\0\0", "DS": "0", "IS": "0", "US": 0, "FD": 0.0,
}  # fmt: skip
_REMOVED: Final = "REMOVED"
_GONE: Final = object()


@dataclass(slots=True)
class Header:
    """One patient's headers on their way. `forbidden`: words that name him, lower case. `dropped`: attributes that
    did not pass, by why."""

    key: bytes = field(repr=False)
    words: frozenset[str]
    forbidden: frozenset[str] = field(repr=False)
    shift: Shift = field(repr=False)
    modified_dates: bool
    dropped: Counter[str] = field(default_factory=Counter)
    _depth: int = 0

    def written(self, source: Any) -> Any:
        """A new pydicom Dataset with what passes of `source`, pixels not included."""
        from pydicom.dataset import Dataset

        result = Dataset()
        for tag in sorted(source.keys()):
            if tag in PIXELS:
                continue
            try:
                element = source[tag]
                value = self._value(element)
                if value is not _GONE:
                    result.add_new(tag, element.VR, value)
            except Exception:  # noqa: BLE001 a value that its type does not allow: pydicom raises many kinds
                self.dropped["unreadable"] += 1
        return result

    def _value(self, element: Any) -> Any:
        if element.tag.is_private:
            return self._drop("private")
        if element.tag.group & 0xFF00 in (0x5000, 0x6000):
            return self._drop("curve-or-overlay")
        if element.VR not in _types(element.tag):
            return self._drop("wrong-type")
        rule = profile(self.modified_dates).get(int(element.tag))
        return self._unlisted(element) if rule is None else self._listed(element, rule)

    # --- table E.1-1 --------------------------------------------------------------------------------

    def _listed(self, element: Any, rule: Rule) -> Any:
        if rule.option == "K":
            return self._unlisted(element)
        if element.VR == "SQ":
            return self._sequence(element, rule)
        if rule.option == "C":
            cleaned = self._cleaned(element)
            if cleaned is not _GONE and cleaned not in ("", [], None):
                return cleaned
        return self._basic(element, rule)

    def _basic(self, element: Any, rule: Rule) -> Any:
        if rule.basic == "X":
            return self._drop("profile")
        if rule.basic == "U":
            return self._each(element, self._uid)
        if rule.basic == "Z" or element.is_empty:
            self.dropped["profile"] += 1
            return None
        self.dropped["profile"] += 1
        if element.VR == "UI":
            return object_uid(self.key, "dummy")
        return _DUMMIES.get(element.VR, _REMOVED)

    def _sequence(self, element: Any, rule: Rule) -> Any:
        """A listed sequence. Its items are looked at once, whatever the rule: what is nested is not looked at twice
        per level."""
        if rule.option == "C" or rule.basic in ("D", "U"):
            items = self._items(element)
            if items is not _GONE or rule.basic == "U":
                return items
        return self._drop("profile") if rule.basic == "X" else []

    def _cleaned(self, element: Any) -> Any:
        if element.VR in _TEMPORAL:
            return self._each(element, self._moved(element.VR))
        return self._each(element, self._words) if element.VR in _TEXT else _GONE

    # --- what the table does not list ---------------------------------------------------------------

    def _unlisted(self, element: Any) -> Any:
        vr = element.VR
        if vr == "SQ":
            return self._items(element)
        if vr == "UI":
            return self._each(element, self._uid)
        if vr in _TEMPORAL:
            if self.modified_dates:
                return self._each(element, self._moved(vr))
            return self._drop("date")
        if vr in _NUMBERS and element.VM > _MAX_NUMBERS:
            return self._drop("binary")
        if vr in _NUMBERS:
            return self._each(element, self._number)
        if vr in ("CS", "DS", "IS", "AS"):
            return self._each(element, {"CS": self._coded, "AS": self._age}.get(vr, self._numeric))
        if vr in _TEXT and element.keyword in _SCANNER_TEXT:
            return self._each(element, lambda text: self._words(text) or _REMOVED)
        return self._drop("text" if vr in _TEXT or vr in ("PN", "AE", "UR") else "binary")

    # --- values: each gives what stays, or None -------------------------------------------------------

    def _each(self, element: Any, keep: Callable[[Any], Any]) -> Any:
        """Every value of an element, kept; if one of several does not pass, none does, since places have meaning."""
        if element.is_empty:
            return None
        several = element.VM > 1 and not isinstance(element.value, str)
        kept = [keep(value) for value in (element.value if several else [element.value])]
        if any(value is None for value in kept):
            return self._drop("value")
        return kept if several else kept[0]

    def _uid(self, value: Any) -> str | None:
        from pydicom._uid_dict import UID_dictionary

        uid = str(value).strip(" \0")
        return uid if uid in UID_dictionary else object_uid(self.key, uid)

    def _moved(self, vr: str) -> Callable[[Any], str | None]:
        return lambda value: _TEMPORAL[vr](str(value), self.shift)

    def _words(self, value: Any) -> str:
        return clean(str(value), self.words, self.forbidden)

    def _coded(self, value: Any) -> str | None:
        text = str(value).strip()
        return None if not _CODED.fullmatch(text) or holds(text, self.forbidden) else text

    def _age(self, value: Any) -> str | None:
        text = str(value).strip()
        if not _AGE.fullmatch(text):
            return None
        return f"{AGE_CAP:03}Y" if text[3] == "Y" and int(text[:3]) > AGE_CAP else text

    def _numeric(self, value: Any) -> Any:
        text = str(getattr(value, "original_string", value)).strip()
        return None if not _NUMERIC.fullmatch(text) or self._names_him(text) else text

    def _number(self, value: Any) -> Any:
        return None if self._names_him(str(value)) else value

    def _names_him(self, number: str) -> bool:
        digits = number.split(".")[0].lstrip("+-")
        return len(digits) > 4 and digits in self.forbidden

    # --- sequences ------------------------------------------------------------------------------------

    def _items(self, element: Any) -> Any:
        if self._depth == _MAX_DEPTH:
            return self._drop("too-deep")
        self._depth += 1
        try:
            items = [item for item in map(self._item, element.value) if item is not None]
        finally:
            self._depth -= 1
        return self._drop("codes") if not items and len(element.value) else items

    def _item(self, item: Any) -> Any:
        """An item that passes, or None: codes of a scheme of one's own, free text in structured content."""
        if any(name in item for name in ("CodeValue", "LongCodeValue", "URNCodeValue")):
            return self._code(item)
        if "ValueType" in item and str(item.ValueType).strip() not in _ITEMS_KEPT:
            return None
        return self.written(item)

    def _code(self, item: Any) -> Any:
        name = next((name for name in _CODE_ELEMENTS if name in item), None)
        value = str(item[name].value) if name else ""
        scheme = str(item.get("CodingSchemeDesignator", "")).strip()
        if scheme not in _SCHEMES or not _CODE.fullmatch(value) or holds(value, self.forbidden):
            return None
        return code_item(value, scheme, self._words(item.get("CodeMeaning", "")) or value[:64])

    def _drop(self, why: str) -> Any:
        self.dropped[why] += 1
        return _GONE


def code_item(value: str, scheme: str, meaning: str) -> Any:
    """One item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    setattr(item, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
    item.CodingSchemeDesignator, item.CodeMeaning = scheme, meaning
    return item


def _types(tag: Any) -> tuple[str, ...]:
    """The value representations that the dictionary gives an attribute; none for one that it does not know."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if not dictionary_has_tag(tag):
        return ()
    vr = dictionary_VR(tag)
    return (vr, *vr.split(" or "))
