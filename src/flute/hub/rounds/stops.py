"""Studies that are stopped while the hub is busy with them: what takes long asks here whether it should go on.

Messages are dealt with one after the other; a question whose code runs for minutes would keep the word that its study
is stopped waiting. So messages are taken in by a thread of their own, which looks at this one kind first.
"""

from __future__ import annotations

import threading


class Stops:
    """Safe for threads. A study that was stopped stays so: its name is not used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped: dict[str, threading.Event] = {}

    def of(self, study: str) -> threading.Event:
        """Set as soon as the study is stopped."""
        with self._lock:
            return self._stopped.setdefault(study, threading.Event())

    def stop(self, study: str) -> None:
        self.of(study).set()

    def forget(self, study: str) -> None:
        """The message itself was dealt with; the store knows from now on."""
        with self._lock:
            self._stopped.pop(study, None)
