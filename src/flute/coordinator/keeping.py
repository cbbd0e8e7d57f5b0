"""What is kept of a round's messages: once it has ended, large ones without what made them large.

Who said what, when, under which receipt and signature stays; what a masked sum was added up from does not. Small
messages stay as they are.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from flute.defaults.enclaves import SEAL_BYTES
from flute.messages.answer import MaskedAnswer, OwnTotal, SplitAnswer
from flute.messages.envelope import parse_envelope
from flute.messages.question import AnyQuestion

_LARGE = 64 * 1024
"""Bytes of an envelope or a body. Rounds of models of sums stay whole; those of networks would fill the disk."""


def kept_question(body: Struct) -> bytes:
    """A question is kept without its parameters: its round has them."""
    if isinstance(body, AnyQuestion):
        body = msgspec.structs.replace(body, parameters=b"")
    return msgspec.msgpack.encode(body)


def is_large(size: int) -> bool:
    return size > _LARGE


def lighter_envelope(envelope: bytes) -> bytes:
    """Its header and signature, which names what is gone."""
    if not is_large(len(envelope)):
        return envelope
    return msgspec.msgpack.encode(msgspec.structs.replace(parse_envelope(envelope), body=b""))


def lighter_answer(kind: str, body: bytes) -> bytes:
    """A charged answer without its vector; its receipt, digests and signatures stay."""
    if not is_large(len(body)):
        return body
    match kind:
        case "masked-answer":
            answer = msgspec.msgpack.decode(body, type=MaskedAnswer)
            masked = msgspec.structs.replace(answer.masked, vector=b"")
            return msgspec.msgpack.encode(msgspec.structs.replace(answer, masked=masked))
        case "own-total":
            own = msgspec.msgpack.decode(body, type=OwnTotal)
            return msgspec.msgpack.encode(msgspec.structs.replace(own, total=b""))
        case "split-answer":
            split = msgspec.msgpack.decode(body, type=SplitAnswer)
            tails = tuple(box[-SEAL_BYTES:] for box in split.boxes.boxes)
            boxes = msgspec.structs.replace(split.boxes, boxes=tails)
            return msgspec.msgpack.encode(msgspec.structs.replace(split, boxes=boxes))
    return body
