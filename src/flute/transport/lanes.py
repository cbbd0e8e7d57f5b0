"""Which stored messages may go out now: a window per recipient, repeats with back-off. No I/O; time is an argument.

A message is *waiting* or *under way*. It leaves the lane when its receipt comes. It waits again when its time
is over, when the peer it went through connects anew, or when the relay died. One lane that stands still never
holds up another.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from flute.defaults import (
    DELIVERY_BYTES_PER_S,
    DELIVERY_RETRY_MAX_S,
    DELIVERY_TIMEOUT_S,
    DELIVERY_WINDOW,
    DELIVERY_WINDOW_BYTES,
)


@dataclass(slots=True)
class _Lane:
    waiting: list[int] = field(default_factory=list)
    """Heap of row numbers: the oldest goes first."""
    under_way: dict[int, float] = field(default_factory=dict)
    """Row to the time at which it is offered again."""
    bytes_under_way: int = 0
    timeout_s: float = DELIVERY_TIMEOUT_S


class Lanes:
    """State of everything that is not yet received. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._sizes: dict[int, int] = {}
        self._recipients: dict[int, str] = {}
        self.bytes_under_way = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, recipient: str, row: int, size: int) -> None:
        self._sizes[row] = size
        self._recipients[row] = recipient
        heapq.heappush(self._lanes.setdefault(recipient, _Lane()).waiting, row)

    def waiting(self, recipient: str) -> int:
        """How many of its messages wait."""
        lane = self._lanes.get(recipient)
        return 0 if lane is None else len(lane.waiting)

    def recipients(self) -> list[str]:
        """Those with a message that waits."""
        return [name for name, lane in self._lanes.items() if lane.waiting]

    def take(self, recipient: str, now: float) -> list[int]:
        """Rows to send now, oldest first; they are under way from here on.

        A window is never too small for one message. Each is given the time that all bytes before it need.
        """
        lane = self._lanes[recipient]
        rows: list[int] = []
        while lane.waiting and len(lane.under_way) < DELIVERY_WINDOW:
            size = self._sizes[lane.waiting[0]]
            if lane.under_way and lane.bytes_under_way + size > DELIVERY_WINDOW_BYTES:
                break
            row = heapq.heappop(lane.waiting)
            lane.bytes_under_way += size
            self.bytes_under_way += size
            lane.under_way[row] = now + lane.timeout_s + lane.bytes_under_way / DELIVERY_BYTES_PER_S
            rows.append(row)
        return rows

    def delivered(self, row: int) -> None:
        """A receipt came, possibly for a message that had been given up and waits again."""
        recipient = self._recipients.pop(row, None)
        if recipient is None:
            return
        lane = self._lanes[recipient]
        size = self._sizes.pop(row)
        if lane.under_way.pop(row, None) is not None:
            lane.bytes_under_way -= size
            self.bytes_under_way -= size
        else:
            lane.waiting.remove(row)
            heapq.heapify(lane.waiting)
        lane.timeout_s = DELIVERY_TIMEOUT_S

    def overdue(self, now: float) -> None:
        """Put back what was not received in time; such a lane is given longer from now on."""
        for lane in self._lanes.values():
            late = [row for row, due in lane.under_way.items() if due <= now]
            if late:
                lane.timeout_s = min(2 * lane.timeout_s, DELIVERY_RETRY_MAX_S)
                self._put_back(lane, late)

    def again(self, recipient: str | None = None) -> None:
        """Everything under way to `recipient` (all, where None) waits again: its connection or our relay is new."""
        names = list(self._lanes) if recipient is None else [recipient]
        for lane in (self._lanes[name] for name in names if name in self._lanes):
            lane.timeout_s = DELIVERY_TIMEOUT_S
            self._put_back(lane, list(lane.under_way))

    def next_due(self) -> float | None:
        """When `overdue` has something to do; None while nothing is under way."""
        return min((due for lane in self._lanes.values() for due in lane.under_way.values()), default=None)

    def _put_back(self, lane: _Lane, rows: list[int]) -> None:
        for row in rows:
            del lane.under_way[row]
            lane.bytes_under_way -= self._sizes[row]
            self.bytes_under_way -= self._sizes[row]
            heapq.heappush(lane.waiting, row)
