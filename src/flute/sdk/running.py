"""A run in flight: watched, waited for, cancelled, and found again by its name after the notebook's kernel died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flute.local.run import StudyStopped
from flute.sdk.place import ENDED, Place
from flute.sdk.progress import line, shown, status_page
from flute.sdk.results.result import Result
from flute.study.agreement import Agreement
from flute.study.program import tracks

_POLL_S: Final = 0.1
_POLL_CONSENT_S: Final = 1.0
"""Stewards take hours: a slower look at who has decided is soon enough after the first few seconds."""
_POLL_PART: Final = 0.02
"""Of the time waited so far, up to _POLL_CONSENT_S: each look costs the coordinator a signature and a write to disk,
which a round of training does without."""
_SOON_S: Final = 10.0
Results = Mapping[str, Result]


@dataclass(eq=False)
class Running:
    """`id`: by which `Federation.attach` finds it again."""

    place: Place = field(repr=False)
    agreement: Agreement = field(repr=False)
    answered: bool = False
    """It had a result already when it was asked for: the stored release is looked up, and nothing is charged."""
    then: Callable[[Results], None] | None = field(default=None, repr=False)
    """Told the results, once."""

    @property
    def id(self) -> str:
        return self.agreement.study

    def status(self) -> dict[str, Any]:
        """State, consents, progress. A study that every hub consented to is set going by looking."""
        return self.place.status(self.id)

    @property
    def done(self) -> bool:
        return self.status()["state"] in ENDED

    def cancel(self, why: str = "cancelled from a notebook") -> None:
        """Every hub is told; what was charged stays charged."""
        self.place.stop(self.id, why)

    def results(self, timeout: float | None = None, progress: bool | None = None) -> Results:
        """By reference. timeout: seconds; None: for ever.

        Raises: TimeoutError: not ended in time; it goes on, and can be waited for again. StudyStopped: ended without
        results, in the words of who ended it."""
        self._wait(timeout, progress)
        release = self.place.release(self.id)
        found = {
            track.reference: Result(
                self.agreement, track.question.id, track.party, release["results"][track.reference], release
            )
            for group in tracks(self.agreement)
            for track in group
        }
        if self.then is not None:
            self.then(found)
            self.then = None
        return found

    def result(self, timeout: float | None = None, progress: bool | None = None) -> Any:
        """The one result, or all of them by reference. Raises: as `results`."""
        found = self.results(timeout, progress)
        return next(iter(found.values())) if len(found) == 1 else found

    async def aresult(self, timeout: float | None = None) -> Any:
        return await asyncio.to_thread(self.result, timeout, False)

    def _wait(self, timeout: float | None, progress: bool | None) -> None:
        began = time.monotonic()
        with shown(False if self.answered else progress) as show:
            while True:
                status = self.status()
                if show is not None:
                    show(status, self.place.traffic(self.id))
                if status["state"] == "stopped":
                    raise StudyStopped(f"Study run {self.id} was stopped: {status['why'].rstrip('.')}.")
                if status["state"] == "finished":
                    return
                waited = time.monotonic() - began
                if timeout is not None and waited > timeout:
                    raise TimeoutError(f"{line(status)}. It goes on; attach({self.id!r}) finds it again.")
                slow = status["state"] == "consenting" and waited > _SOON_S
                time.sleep(_POLL_CONSENT_S if slow else min(max(_POLL_S, waited * _POLL_PART), _POLL_CONSENT_S))

    def __repr__(self) -> str:
        return f"<{line(self.status())}>"

    def _repr_html_(self) -> str:
        return status_page(self.status(), self.place.traffic(self.id))
