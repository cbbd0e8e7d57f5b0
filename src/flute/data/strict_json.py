"""JSON as FHIR files hold it, read strictly: what is not one clear value is refused, with the reason.

Two keys of one name are the trap: parsers keep the last and say nothing, so that the value that is checked and the
value that another program reads may be different ones.
Source: RFC 8259 (JSON), section 4 on names that are not unique, section 8.1 on byte order marks; FHIR R4, json.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from flute.data.findings import Finding, shown
from flute.defaults.records import MAX_JSON_DEPTH

MALFORMED: Final = "malformed-json"
BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
"""Of UTF-8 and the two UTF-16; the UTF-32 ones begin with the same bytes."""
_SPACE_BEFORE_COLON: Final = re.compile(rb'"[ \t\r\n]+:')
_HALF_A_CHARACTER: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_QUOTED_CHARS: Final = 40
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class NotStrict(ValueError):
    """The bytes are not taken. The finding says why; `path` is still empty in it."""

    def __init__(self, rule: str, found: str, mend: str) -> None:
        super().__init__(rule)
        self.finding = Finding(MALFORMED, "", rule, shown(found), mend)


def decode(raw: bytes) -> Any:
    """The one value that the bytes say.

    Raises: NotStrict: no JSON, not UTF-8, a byte order mark, a number or nesting beyond all measure, a key twice.
    """
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _why(raw, error) from None
    if raw.count(b"{") + raw.count(b"[") > MAX_JSON_DEPTH and _depth(value) > MAX_JSON_DEPTH:
        raise _why(raw, RecursionError())
    if _keys(raw) != _keys(_encode(value)) or _SPACE_BEFORE_COLON.search(raw) or b'\\\\":' in raw:
        _look_for_twins(raw)
    return value


def _depth(value: Any) -> int:
    """Levels of objects and lists, without recursion; stops where there are too many."""
    depth, level = 0, [value]
    while level and depth <= MAX_JSON_DEPTH:
        depth += 1
        below = [inner.values() if isinstance(inner, dict) else inner for inner in level]
        level = [inner for items in below for inner in items if isinstance(inner, dict | list)]
    return depth


def _keys(raw: bytes) -> int:
    """How many keys stand there, up to blanks before a colon and keys that end in a backslash: `decode` looks closer
    where one of these is possible, and where the number is not that of the value that was understood."""
    return raw.count(b'":') - raw.count(b'\\":')


def _look_for_twins(raw: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in names if names.count(name) > 1)
            mend = "Write each key once: which of the two values counts cannot be told."
            raise NotStrict("one-key-one-value", twin, mend)
        return kept

    json.loads(raw, object_pairs_hook=once)


def _why(raw: bytes, error: Exception) -> NotStrict:
    start = bytes(raw[:_QUOTED_CHARS]).decode("utf-8", "replace")
    if raw.startswith(BOMS):
        return NotStrict("no-byte-order-mark", start[:1], "Save it as UTF-8 without a byte order mark.")
    if isinstance(error, RecursionError):
        return NotStrict("nesting", start, "Nested beyond what any resource needs: export it anew.")
    if isinstance(error, UnicodeDecodeError) or "UTF-8" in str(error):
        return NotStrict("utf-8", start, "Save it in the encoding UTF-8.")
    if isinstance(error, msgspec.ValidationError):
        return NotStrict("number", start, "A number in it is too large for any computer: look it up in the record.")
    if _HALF_A_CHARACTER.search(raw):
        return NotStrict("unicode", start, "It holds half a character (an escape \\ud…): correct the record.")
    return NotStrict("json", start, "Export it anew: one whole JSON object, in FHIR's JSON form, is needed.")
