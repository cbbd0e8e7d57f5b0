"""A signed head as a line of text: what an export ends with, what a witness keeps, what may travel to one."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from flute.errors import Malformed
from flute.ledger.journals.chain import Head


class _HeadLine(Struct, frozen=True, forbid_unknown_fields=True):
    head: int
    digest: str
    signature: str


def write_head_line(head: Head) -> bytes:
    return msgspec.json.encode(_HeadLine(head.number, head.digest.hex(), head.signature.hex()))


def read_head_line(raw: bytes) -> Head | None:
    """None where it is not exactly what `write_head_line` writes. Whose it is, is not checked."""
    try:
        shown = msgspec.json.decode(raw, type=_HeadLine)
        head = Head(shown.head, bytes.fromhex(shown.digest), bytes.fromhex(shown.signature))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return head if 0 <= head.number < 2**63 and write_head_line(head) == raw else None


def parse_head(raw: bytes) -> Head:
    """A head that came from elsewhere; `Ledger.witnessed` checks whose it is. Raises: Malformed: it is none."""
    head = read_head_line(raw)
    if head is None:
        raise Malformed("This is not a head of a journal.")
    return head


def is_head_line(raw: bytes) -> bool:
    return raw.startswith(b'{"head":')
