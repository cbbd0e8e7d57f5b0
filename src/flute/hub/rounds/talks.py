"""Talks under way at this hub, in memory: a restart ends them, and the charge of their questions stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from flute.errors import OutOfOrder
from flute.messages.talk import Heard, Said
from flute.study.plans.talk import Ended, Talk


@dataclass
class _Open:
    """release: of the question that the talk answers; empty for a key ceremony. last: makes the message that says
    what came out."""

    study: str
    release: bytes
    talk: Talk[Any]
    last: Callable[[Any], Struct]
    heard: tuple[int, Struct] | None = None
    """The last step and what was answered to it, once the talk has ended: the coordinator may have missed it."""


class Talks:
    """At most one talk per study: a new one ends the one before."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Open] = {}

    def begin(self, study: str, release: bytes, talk: Talk[Any], last: Callable[[Any], Struct]) -> Said:
        self.drop_study(study)
        self._open[talk.session] = _Open(study, release, talk, last)
        return talk.begin()

    def hear(self, study: str, heard: Heard) -> Struct:
        """`Said`, or the talk's last message. Raises: OutOfOrder: no such talk here (any more). As `Talk.hear`; the
        talk is then over."""
        entry = self._open.get(heard.session)
        if entry is None or entry.study != study:
            raise OutOfOrder("This hub is in no such computation (any more); the question has to be asked anew.")
        if entry.heard is not None:
            step, body = entry.heard
            if heard.step != step:
                raise OutOfOrder("This computation is over; what came out was said.")
            return body
        said = entry.talk.hear(heard)
        if not isinstance(said, Ended):
            return said
        body = entry.last(said.result)
        entry.heard = (heard.step, body)
        return body

    def release(self, session: bytes) -> bytes:
        """Of the question that a talk answers."""
        return self._open[session].release

    def drop(self, release: bytes) -> None:
        self._drop(lambda entry: entry.release == release)

    def drop_study(self, study: str) -> None:
        self._drop(lambda entry: entry.study == study)

    def _drop(self, which: Callable[[_Open], bool]) -> None:
        for session in [s for s, entry in self._open.items() if which(entry)]:
            del self._open[session]
