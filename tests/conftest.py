"""Fixtures that every kind of test may use."""

from __future__ import annotations

import pytest

from support.parties import Party, TableRoster


@pytest.fixture
def parties() -> dict[str, Party]:
    return {name: Party(name) for name in ("coordinator", "huvh", "chu", "irst", "ada")}


@pytest.fixture
def table_roster(parties: dict[str, Party]) -> TableRoster:
    return TableRoster(parties)
