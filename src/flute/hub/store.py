"""What a hub remembers besides its journal: datasets, studies, policy; with answers and secrets (`replies`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from flute.data.variables import Variable
from flute.defaults import DELTA, DISCLOSURE_FLOOR, EXACT_MAX_NUMBERS, HUB_EPSILON
from flute.defaults.records import CATALOGUE_EPSILON
from flute.errors import NotPossible, WrongStudy
from flute.hub.replies import Replies
from flute.messages.limits import Count, Name
from flute.primitives.keys import digest

StudyState = Literal["proposed", "granted", "denied", "withdrawn", "closed"]

_HUB_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS dataset(
  name TEXT PRIMARY KEY, snapshot BLOB NOT NULL, variables BLOB NOT NULL, report BLOB NOT NULL,
  imported_at INTEGER NOT NULL, simulated INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS study(
  study TEXT PRIMARY KEY, agreement BLOB NOT NULL, digest BLOB NOT NULL, signature BLOB NOT NULL,
  state TEXT NOT NULL, snapshot BLOB NOT NULL, floor_holds INTEGER NOT NULL, proposed_at INTEGER NOT NULL,
  decided_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS policy(id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS next_policy(id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS change(id BLOB PRIMARY KEY, body BLOB NOT NULL);
"""


class HubPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """What this hub's owner allows at all, whatever a study asks. Changed by the steward, journaled."""

    epsilon: Annotated[float, Meta(gt=0, le=100)] = HUB_EPSILON
    """Ceiling for one study, at `delta`."""
    epsilon_all: Annotated[float, Meta(gt=0, le=100)] = 2 * HUB_EPSILON
    """Ceiling for all studies over one dataset together, at `delta`."""
    epsilon_catalogue: Annotated[float, Meta(gt=0, le=100)] = CATALOGUE_EPSILON
    """Ceiling for all catalogue releases of one dataset together, at `delta`; within `epsilon_all`."""
    delta: Annotated[float, Meta(gt=0, le=1e-3)] = DELTA
    exact_allowed: bool = False
    """Exact results are outside any epsilon: off unless the owner says otherwise."""
    max_numbers: Annotated[int, Meta(ge=0)] = EXACT_MAX_NUMBERS
    floor: Annotated[int, Meta(ge=1)] = DISCLOSURE_FLOOR
    hidden: tuple[Name, ...] = ()
    """Variables that no study may use."""
    own_code_allowed: bool = False
    """Whether researchers' own code may run here, in the sandbox, once a steward has read and granted it."""

    @property
    def sentence(self) -> str:
        exact = (
            f"exact results allowed, at most {self.max_numbers} numbers" if self.exact_allowed else "no exact results"
        )
        return (
            f"epsilon at most {self.epsilon:g} a study, {self.epsilon_catalogue:g} a dataset's catalogue entry and "
            f"{self.epsilon_all:g} a dataset in all, at delta {self.delta:g}; "
            f"{exact}; no exact count under {self.floor} persons; hidden: {', '.join(self.hidden) or 'nothing'}"
            f"{'; own code of researchers allowed' if self.own_code_allowed else ''}."
        )


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a budget as people say it. `epsilon` at the hub's delta: what a budget of it alone would allow."""

    epsilon: Annotated[float, Meta(ge=0, le=100)] = 0.0
    numbers: Count = 0


def write_policy(policy: HubPolicy) -> bytes:
    """Canonical bytes: one encoding, whatever way its numbers were typed (3 or 3.0).

    What came later and is not used is left out, so that policies journaled before have the digest they had."""
    said = msgspec.to_builtins(msgspec.convert(msgspec.to_builtins(policy), HubPolicy))
    if not policy.own_code_allowed:
        del said["own_code_allowed"]
    return msgspec.msgpack.encode(said)


def policy_digest(policy: HubPolicy) -> bytes:
    """What the journal's line about it names."""
    return digest(write_policy(policy))


def wider(new: HubPolicy, old: HubPolicy) -> tuple[str, ...]:
    """In which respects `new` allows more than `old`, in words; none where it allows the same or less."""
    shown = sorted(set(old.hidden) - set(new.hidden))
    found = [
        (new.epsilon > old.epsilon, f"epsilon {new.epsilon:g} a study, {old.epsilon:g} so far"),
        (new.epsilon_all > old.epsilon_all, f"epsilon {new.epsilon_all:g} a dataset, {old.epsilon_all:g} so far"),
        (
            new.epsilon_catalogue > old.epsilon_catalogue,
            f"epsilon {new.epsilon_catalogue:g} a catalogue entry, {old.epsilon_catalogue:g} so far",
        ),
        (new.delta > old.delta, f"delta {new.delta:g}, {old.delta:g} so far"),
        (new.exact_allowed and not old.exact_allowed, "exact results"),
        (
            new.exact_allowed and new.max_numbers > old.max_numbers,
            f"{new.max_numbers} exact numbers, {old.max_numbers} so far",
        ),
        (new.own_code_allowed and not old.own_code_allowed, "own code of researchers"),
        (new.floor < old.floor, f"a disclosure floor of {new.floor}, {old.floor} so far"),
        (bool(shown), f"{', '.join(shown)}, hidden so far"),
    ]  # fmt: skip
    return tuple(words for is_wider, words in found if is_wider)


def narrower(one: HubPolicy, other: HubPolicy) -> HubPolicy:
    """What both allow."""
    return HubPolicy(
        epsilon=min(one.epsilon, other.epsilon),
        epsilon_all=min(one.epsilon_all, other.epsilon_all),
        epsilon_catalogue=min(one.epsilon_catalogue, other.epsilon_catalogue),
        delta=min(one.delta, other.delta),
        exact_allowed=one.exact_allowed and other.exact_allowed,
        max_numbers=min(one.max_numbers, other.max_numbers),
        floor=max(one.floor, other.floor),
        hidden=tuple(sorted({*one.hidden, *other.hidden})),
        own_code_allowed=one.own_code_allowed and other.own_code_allowed,
    )


class DatasetEntry(Struct, frozen=True):
    """A frozen dataset. `report`: the import report (counts only)."""

    name: str
    snapshot: bytes
    variables: tuple[Variable, ...]
    report: dict[str, Any]
    imported_at: int
    simulated: bool


class StudyEntry(Struct, frozen=True):
    """A study agreement and the steward's decision. `floor_holds`: the one yes or no of an exact study."""

    study: str
    agreement: bytes
    digest: bytes
    signature: bytes
    state: StudyState
    snapshot: bytes
    floor_holds: bool
    proposed_at: int
    decided_at: int


class HubStore(Replies):
    """One per hub service; safe for its threads. Replies and secrets: see `Replies`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._hub.executescript(_HUB_SCHEMA)

    # --- datasets ------------------------------------------------------------------------------

    def put_dataset(self, entry: DatasetEntry) -> None:
        with self._write(self._hub) as db:
            db.execute(
                "INSERT OR REPLACE INTO dataset VALUES (?,?,?,?,?,?)",
                (
                    entry.name, entry.snapshot, msgspec.msgpack.encode(entry.variables),
                    msgspec.json.encode(entry.report), entry.imported_at, int(entry.simulated),
                ),
            )  # fmt: skip

    def dataset(self, name: str) -> DatasetEntry:
        """Raises: NotPossible: no such dataset here."""
        for entry in self.datasets():
            if entry.name == name:
                return entry
        raise NotPossible(f"This hub has no dataset {name!r}; its steward has to import one.")

    def datasets(self) -> list[DatasetEntry]:
        with self._lock:
            rows = self._hub.execute("SELECT * FROM dataset ORDER BY name").fetchall()
        return [
            DatasetEntry(
                r[0], r[1], msgspec.msgpack.decode(r[2], type=tuple[Variable, ...]), msgspec.json.decode(r[3]),
                r[4], bool(r[5]),
            )
            for r in rows
        ]  # fmt: skip

    # --- studies -------------------------------------------------------------------------------

    def put_study(self, entry: StudyEntry) -> None:
        with self._write(self._hub) as db:
            db.execute("INSERT OR REPLACE INTO study VALUES (?,?,?,?,?,?,?,?,?)", msgspec.structs.astuple(entry))

    def study(self, study: str) -> StudyEntry:
        """Raises: WrongStudy: this hub was never asked for it."""
        with self._lock:
            row = self._hub.execute("SELECT * FROM study WHERE study = ?", (study,)).fetchone()
        if row is None:
            raise WrongStudy(f"This hub knows no study {study!r}.")
        return _study_entry(row)

    def studies(self) -> list[StudyEntry]:
        with self._lock:
            return [_study_entry(r) for r in self._hub.execute("SELECT * FROM study ORDER BY proposed_at, study")]

    def snapshots(self) -> set[bytes]:
        """Digests of those that datasets or studies answer from."""
        return {d.snapshot for d in self.datasets()} | {s.snapshot for s in self.studies()}

    # --- policy --------------------------------------------------------------------------------

    def policy(self) -> HubPolicy:
        with self._lock:
            row = self._hub.execute("SELECT body FROM policy").fetchone()
        return HubPolicy() if row is None else msgspec.msgpack.decode(row[0], type=HubPolicy)

    def put_policy(self, policy: HubPolicy) -> None:
        with self._write(self._hub) as db:
            db.execute("INSERT OR REPLACE INTO policy VALUES (1, ?)", (write_policy(policy),))
            db.execute("DELETE FROM next_policy")

    def prepare_policy(self, policy: HubPolicy) -> None:
        """Before its journal line is written: whichever of the two a crash leaves, the other is here as well."""
        with self._write(self._hub) as db:
            db.execute("INSERT OR REPLACE INTO next_policy VALUES (1, ?)", (write_policy(policy),))

    def prepared_policy(self) -> HubPolicy | None:
        with self._lock:
            row = self._hub.execute("SELECT body FROM next_policy").fetchone()
        return None if row is None else msgspec.msgpack.decode(row[0], type=HubPolicy)

    def put_change(self, change: bytes, body: bytes) -> None:
        """A change that waits for a second person."""
        with self._write(self._hub) as db:
            db.execute("INSERT OR REPLACE INTO change VALUES (?,?)", (change, body))

    def changes(self) -> dict[bytes, bytes]:
        with self._lock:
            return {bytes(i): bytes(b) for i, b in self._hub.execute("SELECT id, body FROM change ORDER BY rowid")}

    def drop_change(self, change: bytes) -> None:
        with self._write(self._hub) as db:
            db.execute("DELETE FROM change WHERE id = ?", (change,))


def _study_entry(row: tuple[Any, ...]) -> StudyEntry:
    study, agreement, digest, signature, state, snapshot, floor_holds, proposed_at, decided_at = row
    return StudyEntry(
        study, agreement, digest, signature, state, snapshot, bool(floor_holds), proposed_at, decided_at
    )
