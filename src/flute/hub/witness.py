"""The hub's journal as the hub opens it: witnessed outside its folder, and with the policy that the journal names.

The witness lies beside the hub's folder, or where `witness.json` says; it must not be in the backup that holds the
journal. Whether `hub.db` holds the policy in force is told by the journal, which names its digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from flute.errors import LedgerError, MisuseError, NotPossible
from flute.homes import read_config, write_config
from flute.hub.home import HubHome
from flute.hub.rounds.gate import hub_ceilings
from flute.hub.store import HubPolicy, HubStore, narrower, policy_digest
from flute.ledger.journals.journal import Journal
from flute.ledger.journals.witness import FileWitness
from flute.ledger.lines.entries import PolicySet
from flute.ledger.recovery import Recovered, recover
from flute.primitives.keys import SigningKey

_CONFIG: Final = "witness.json"


class WitnessConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`folder`: where the newest head is kept."""

    folder: Annotated[str, Meta(min_length=1, max_length=1_000)]


def witness_of(home: HubHome, public: bytes) -> FileWitness:
    """One file a hub key, so that a hub made anew in the same place does not meet another's."""
    return FileWitness(witness_folder(home) / f"{public.hex()[:16]}.head")


def witness_folder(home: HubHome) -> Path:
    if (home.folder / _CONFIG).exists():
        return Path(read_config(home.folder / _CONFIG, WitnessConfig, made_by="flute hub witness").folder)
    return home.folder.parent / f"{home.folder.name}.witness"


def set_witness_folder(home: HubHome, folder: Path, key: SigningKey) -> None:
    """Keep the newest head elsewhere from now on. The hub must be stopped: its journal is checked on the way.

    Raises: MisuseError: inside the hub's own folder, where the journal's backup reaches. LedgerError, JournalBroken:
      as when the hub starts; a witness is not moved away from a journal that it contradicts."""
    folder = folder.absolute()
    if folder.is_relative_to(home.folder):
        raise MisuseError(f"{folder} is inside the hub's folder; a backup of that would hold the witness as well.")
    old = witness_of(home, key.public)
    with Journal.open(home.journal, key, create=not home.journal.exists(), witness=old) as journal:
        new = FileWitness(folder / Path(old.place).name)
        new.start_over(journal.signed_head())
        write_config(home.folder / _CONFIG, WitnessConfig(str(folder)))
        if new.place != old.place:
            Path(old.place).unlink(missing_ok=True)


def open_journal(home: HubHome, key: SigningKey, store: HubStore) -> Journal:
    """Raises: JournalBroken: an older copy, or damaged. LedgerError: it cannot be opened, its witness is gone, or
    `store` holds another policy than the one that it names: an older copy of `hub.db`."""
    journal = Journal.open(home.journal, key, create=not home.journal.exists(), witness=witness_of(home, key.public))
    try:
        settle_policy(journal, store)
    except BaseException:
        journal.close()
        raise
    return journal


def settle_policy(journal: Journal, store: HubStore) -> None:
    """Finish what a crash cut short. Raises: LedgerError: the policy stored is not the one journaled."""
    named = _journaled(journal)
    prepared = store.prepared_policy()
    if named == policy_digest(store.policy()):
        return
    if prepared is None or policy_digest(prepared) != named:
        raise LedgerError(
            "The policy in hub.db is not the one that the journal names: hub.db is an older copy. Restore the newest "
            "one, or run 'flute hub recover', which takes what both the stored and the first policy allow."
        )
    store.put_policy(prepared)


def recover_hub(
    home: HubHome, key: SigningKey, store: HubStore, *, person: str, reason: str, now: int, export: Path | None
) -> Recovered | None:
    """Go on from an older copy, knowingly: see `ledger.recovery`. None where only the policy had to be mended.

    Raises: NotPossible: nothing is wrong. JournalBroken, LedgerError: see there."""
    witness, wrong = witness_of(home, key.public), _policy_is_older(home, key, store)
    ceilings, found = hub_ceilings(store.policy()), None
    try:
        found = recover(home.journal, key, witness, ceilings, person=person, reason=reason, now=now, export=export)
    except NotPossible:
        if not wrong:
            raise
    if _policy_is_older(home, key, store):
        policy = narrower(store.policy(), HubPolicy())
        with Journal.open(home.journal, key, witness=witness) as journal:
            store.prepare_policy(policy)
            journal.append(PolicySet(person, policy_digest(policy), policy.sentence), now)
            store.put_policy(policy)
    return found


def _policy_is_older(home: HubHome, key: SigningKey, store: HubStore) -> bool:
    with Journal.open(home.journal, key) as journal:
        try:
            settle_policy(journal, store)
        except LedgerError:
            return True
    return False


def _journaled(journal: Journal) -> bytes:
    """Digest of the policy in force; of the first one where none was ever set."""
    named = policy_digest(HubPolicy())
    for line in journal.lines(kinds=("policy-set",)):
        if isinstance(line.entry, PolicySet) and not line.entry.study:
            named = line.entry.policy
    return named
