"""What is kept of a round's messages: once it has ended, large ones without what made them large.

Who said what, when, under which receipt and signature stays; what a masked sum was added up from does not. Small
messages stay as they are. Of a large one the row has from the beginning what stays, and a file all of it, which is
given up when the round ends: rounds of models of sums stay whole, those of networks would fill the disk.
"""

from __future__ import annotations

from types import TracebackType

import msgspec
from msgspec import Struct

from flute.defaults.enclaves import SEAL_BYTES
from flute.messages.answer import MaskedAnswer, OwnTotal, SplitAnswer
from flute.messages.envelope import parse_envelope
from flute.messages.question import AnyQuestion
from flute.transport.bodies import Bodies, is_large


def kept_question(body: Struct) -> bytes:
    """A question is kept without its parameters: its round has them."""
    if isinstance(body, AnyQuestion):
        body = msgspec.structs.replace(body, parameters=b"")
    return msgspec.msgpack.encode(body)


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


class Filing:
    """The files of one transaction: what it added is deleted where it fails, what it gave up once it is committed."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._added: list[str] = []
        self._given_up: list[str] = []

    def keep(self, whole: bytes, lighter: bytes) -> tuple[bytes, str | None]:
        """What the row has, and the file that has the whole where the row does not. Raises: OSError."""
        if not is_large(len(whole)) or len(lighter) >= len(whole):
            return whole, None
        self._added.append(self._bodies.put(whole))
        return lighter, self._added[-1]

    def give_up(self, *files: str | None) -> None:
        self._given_up += [file for file in files if file is not None]

    def committed(self) -> None:
        self._added.clear()
        self._bodies.drop(self._given_up)

    def __enter__(self) -> Filing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bodies.drop(self._added)
