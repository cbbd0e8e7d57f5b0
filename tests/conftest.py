"""Fixtures that every kind of test may use."""

from __future__ import annotations

import pytest

from support.parties import Party, TableRoster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long fault runs wait for `-m soak`; any other choice of markers leaves them out."""
    if "soak" in config.getoption("-m", default=""):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


@pytest.fixture
def parties() -> dict[str, Party]:
    return {name: Party(name) for name in ("coordinator", "huvh", "chu", "irst", "ada")}


@pytest.fixture
def table_roster(parties: dict[str, Party]) -> TableRoster:
    return TableRoster(parties)
