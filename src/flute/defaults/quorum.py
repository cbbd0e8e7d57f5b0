"""Studies that go on without a hub: how few may be left."""

from __future__ import annotations

from typing import Final

MIN_NOISED_HUBS: Final = 2
"""Hubs of a sum under noise. Of two, each sees the other's answer, under the other's own noise: it is then scaled so
that this alone is enough (m = 1). An exact sum needs `MIN_HUBS`."""
