"""Where reading a database stands, as bytes that the taker keeps; and what of its rows is remembered."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from flute.errors import MisuseError

HASH_BYTES: Final = 8
Way = Literal["", "whole", "changes"]
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


class Stored(Struct, frozen=True):
    """A value of a key or of a `changed` column, with its type."""

    kind: Literal["none", "int", "text", "float", "decimal", "date", "time", "uuid"]
    text: str = ""


class Window(Struct, frozen=True):
    """The newest change of a table, and the rows near it: their hashes one behind the other, or one digest of all."""

    newest: Stored = Stored("none")
    recent: bytes = b""
    digest: bytes = b""


class Done(Struct, frozen=True):
    """A table that was read to its end, by the rules of that digest. `content`: digest of all its rows."""

    rules: bytes
    content: bytes
    window: Window


class Mark(Struct, forbid_unknown_fields=True):
    """`done`: per table. The others: the table that is being read, which way, and behind which key it goes on."""

    form: Literal["sql/1"] = "sql/1"
    done: dict[str, Done] = {}
    table: str = ""
    rules: bytes = b""
    way: Way = ""
    after: list[Stored] = []
    content: bytes = b""
    window: Window = Window()

    def begin(self, table: str, rules: bytes, way: Way, window: Window) -> None:
        self.table, self.rules, self.way, self.window = table, rules, way, window
        self.after, self.content = [], b""

    def end(self, content: bytes) -> None:
        self.done[self.table] = Done(self.rules, content, self.window)
        self.begin("", b"", "", Window())

    def under_way(self) -> tuple[str, ...]:
        return (self.table,) if self.table else ()

    def forget(self, table: str) -> None:
        """A table that the mapping names no longer."""
        self.done.pop(table, None)
        if self.table == table:
            self.begin("", b"", "", Window())


def decoded(mark: bytes | None) -> Mark:
    """Raises: MisuseError: it is no mark of a database."""
    if mark is None:
        return Mark()
    try:
        return msgspec.msgpack.decode(mark, type=Mark)
    except msgspec.DecodeError as error:
        raise MisuseError(
            "This mark was left by another kind of source; begin a new dataset for this one."
        ) from error


def encoded(state: Mark) -> bytes:
    return msgspec.msgpack.encode(state)


def stored(value: Any) -> Stored:
    """Raises: MisuseError: a type in which no order can be kept."""
    match value:
        case None:
            return Stored("none")
        case bool() | int():
            return Stored("int", str(int(value)))
        case float():
            return Stored("float", value.hex())
        case Decimal():
            return Stored("decimal", str(value))
        case datetime():
            return Stored("time", value.isoformat())
        case date():
            return Stored("date", value.isoformat())
        case UUID():
            return Stored("uuid", str(value))
        case str():
            return Stored("text", value)
    raise MisuseError(
        f"A column of type {type(value).__name__} cannot be a key or say when a row changed; name another, or write "
        "a query that makes it text."
    )


def loaded(value: Stored) -> Any:
    text = value.text
    match value.kind:
        case "none":
            return None
        case "int":
            return int(text)
        case "float":
            return float.fromhex(text)
        case "decimal":
            return Decimal(text)
        case "time":
            return datetime.fromisoformat(text)
        case "date":
            return date.fromisoformat(text)
        case "uuid":
            return UUID(text)
        case "text":
            return text


def earlier(value: Any, seconds: float) -> Any:
    """`value` less `seconds`, of the same type; where it is no time (a counter of versions) the value itself."""
    span = timedelta(seconds=seconds)
    try:
        match value:
            case datetime():
                return value - span
            case date():
                return (datetime(value.year, value.month, value.day, tzinfo=UTC) - span).date()
            case str() if len(value) >= 10:
                moment = datetime.fromisoformat(value) - span
                return moment.isoformat(sep=value[10] if len(value) > 10 else "T")[: len(value)]
    except (ValueError, OverflowError):
        pass
    return value


def row_hash(row: tuple[Any, ...]) -> bytes:
    """16 bytes of a row's content."""
    plain = [bytes(cell) if isinstance(cell, memoryview) else cell for cell in row]
    return hashlib.blake2b(_encode(plain), digest_size=16).digest()


def hashes(recent: bytes) -> frozenset[bytes]:
    return frozenset(recent[i : i + HASH_BYTES] for i in range(0, len(recent), HASH_BYTES))
