"""The hub opens its journal with its witness, and its store with the policy that the journal names."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flute.errors import JournalBroken, LedgerError, MisuseError, NotPossible
from flute.hub.home import HubHome
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import HubPolicy, HubStore, policy_digest
from flute.hub.witness import open_journal, recover_hub, set_witness_folder, witness_folder, witness_of
from flute.ledger.budgets.budget import Ledger
from flute.ledger.lines.entries import PolicySet
from flute.primitives.keys import SigningKey
from support.ledger_faults import charge

KEY = SigningKey(b"h" * 32)
pytestmark = [pytest.mark.requirement("F-SRS-8")]


@pytest.fixture
def home(tmp_path: Path) -> HubHome:
    (tmp_path / "hub").mkdir()
    return HubHome(tmp_path / "hub")


def spend(home: HubHome, number: int) -> None:
    store = HubStore(home.folder)
    with open_journal(home, KEY, store) as journal:
        Ledger(journal, hub_ceilings(store.policy())).reserve(charge(number), now=1)
    store.close()


def set_policy(home: HubHome, policy: HubPolicy, *, crash: str = "") -> None:
    store = HubStore(home.folder)
    with open_journal(home, KEY, store) as journal:
        store.prepare_policy(policy)
        if crash != "before the line":
            journal.append(PolicySet("eva", policy_digest(policy), policy.sentence), now=1)
        if not crash:
            store.put_policy(policy)
    store.close()


def policy_of(home: HubHome) -> HubPolicy:
    store = HubStore(home.folder)
    with open_journal(home, KEY, store):
        found = store.policy()
    store.close()
    return found


def backup(home: HubHome) -> Path:
    return Path(shutil.copytree(home.folder, home.folder.parent / "backup"))


def restore(home: HubHome, copy: Path, *names: str) -> None:
    for name in names or [p.name for p in copy.iterdir()]:
        for end in ("", "-wal", "-shm"):
            (home.folder / f"{name}{end}").unlink(missing_ok=True)
        shutil.copy(copy / name, home.folder / name)


def recovered(home: HubHome) -> object:
    store = HubStore(home.folder)
    try:
        return recover_hub(home, KEY, store, person="eva", reason="disk failed", now=9, export=None)
    finally:
        store.close()


def test_the_witness_lies_beside_the_hubs_folder_not_in_it(home: HubHome) -> None:
    spend(home, 1)
    assert witness_folder(home) == home.folder.parent / "hub.witness"
    assert max(witness_of(home, KEY.public).heads(KEY.public)).number == 2


def test_a_hubs_restored_folder_is_noticed_at_start(home: HubHome) -> None:
    spend(home, 1)
    copy = backup(home)
    spend(home, 2)
    restore(home, copy)
    with pytest.raises(JournalBroken, match="an older copy"):
        spend(home, 3)
    assert recovered(home).charged  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="is left for"):
        spend(home, 3)
    with pytest.raises(NotPossible):
        recovered(home)


def test_the_witness_can_be_moved_and_is_still_asked(home: HubHome, tmp_path: Path) -> None:
    spend(home, 1)
    copy = backup(home)
    with pytest.raises(MisuseError, match="inside the hub's folder"):
        set_witness_folder(home, home.folder / "inside", KEY)
    set_witness_folder(home, tmp_path / "elsewhere", KEY)
    assert witness_folder(home) == tmp_path / "elsewhere"
    assert list((home.folder.parent / "hub.witness").iterdir()) == []
    spend(home, 2)
    restore(home, copy, "journal.db")
    with pytest.raises(JournalBroken, match="an older copy"):
        spend(home, 3)
    with pytest.raises(JournalBroken, match="an older copy"):  # moving it washes nothing clean
        set_witness_folder(home, tmp_path / "third", KEY)


def test_another_hub_in_the_same_place_does_not_meet_the_old_ones_witness(home: HubHome) -> None:
    spend(home, 1)
    shutil.rmtree(home.folder)
    home.folder.mkdir()
    store = HubStore(home.folder)
    open_journal(home, SigningKey(b"o" * 32), store).close()
    store.close()


@pytest.mark.parametrize(("crash", "holds"), [("before the line", 3.0), ("after the line", 2.0), ("", 2.0)])
def test_a_crash_while_the_policy_is_set_leaves_the_one_that_the_journal_names(
    home: HubHome, crash: str, holds: float
) -> None:
    set_policy(home, HubPolicy(epsilon=2.0), crash=crash)
    assert policy_of(home).epsilon == holds


def test_an_older_store_with_a_wider_policy_is_refused_and_recovered_to_the_narrower(home: HubHome) -> None:
    set_policy(home, HubPolicy(epsilon=5.0, epsilon_all=10.0))
    copy = backup(home)
    set_policy(home, HubPolicy(epsilon=1.0))
    restore(home, copy, "hub.db")
    with pytest.raises(LedgerError, match=r"hub\.db is an older copy"):
        policy_of(home)
    assert recovered(home) is None  # the journal itself lacks nothing
    assert (policy_of(home).epsilon, policy_of(home).epsilon_all) == (3.0, 6.0)


def test_a_policy_that_no_line_names_is_refused(home: HubHome) -> None:
    spend(home, 1)
    store = HubStore(home.folder)
    store.put_policy(HubPolicy(epsilon=50.0, epsilon_all=100.0))
    store.close()
    with pytest.raises(LedgerError, match="not the one that the journal names"):
        policy_of(home)
