"""A hub's datasets: imported, decided about by hand, withdrawn from. Every act is journaled before it counts.

    plan -> readers -> staging (what was read) -> rows -> snapshot (frozen) -> dataset, profile, alarms
An import and a decision make a new snapshot; studies that were granted keep the one they were granted over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from flute.cohort.flow import Flow
from flute.cohort.overrides import Declare, KeepIn, LeaveOut, Override, SamePerson, TakeBack, check_override, settle
from flute.connectors.sources import open_reader
from flute.data.reader import Reader, Refused
from flute.deidentify.anonymity import AnonymityReport
from flute.deidentify.pseudonyms import pseudonym
from flute.errors import MisuseError, NotPossible, SourceError
from flute.hub.parts import Parts
from flute.hub.records.holdings import Holdings
from flute.hub.records.images import CollectedImages, ImageColumn, ImagesPlan, collect, pictures
from flute.hub.records.plans import AttachPlan, ImportPlan, Resources, source_name
from flute.hub.store import DatasetEntry
from flute.intake.columns import with_columns
from flute.intake.flat import read_csv
from flute.intake.freeze import Freezing, Frozen, freeze
from flute.intake.pixels import Picture
from flute.intake.profile import Alarm, Profile, alarms, profile_of
from flute.intake.rows import ImportReport, Rows
from flute.intake.snapshot import (
    Attached,
    SnapshotSource,
    attach_images,
    delete_snapshot,
    snapshot_without,
    write_rows,
)
from flute.intake.spread import Spread
from flute.intake.staging import Staging
from flute.intake.take import Design, Progress, subjects, take
from flute.ledger.lines.data import ByHand, Imported, QualityAlarm
from flute.primitives.keys import digest

STAGING: Final = "intake"
Say = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of an import. `refused` is for the data manager's own eyes and is not kept."""

    report: ImportReport
    snapshot: bytes
    refused: tuple[Refused, ...] = ()
    flow: Flow | None = None
    suspects: tuple[tuple[str, str, str], ...] = ()
    alarms: tuple[Alarm, ...] = ()
    alike: AnonymityReport | None = None
    images: CollectedImages | None = None
    attached: tuple[Attached, ...] = ()


class Curator:
    """Shares the service's lock: a dataset never changes in the middle of a message. Reading does not hold it."""

    def __init__(
        self,
        parts: Parts,
        holdings: Holdings,
        lock: threading.RLock,
        folder: Path,
        key: bytes,
    ) -> None:
        self._p = parts
        self._held = holdings
        self._lock = lock
        self._folder = folder
        self._key = key
        self._busy: set[str] = set()

    @contextmanager
    def _alone(self, dataset: str) -> Iterator[None]:
        """One at a time per dataset: an import and a decision share its staging file.

        Raises: NotPossible: somebody else is at it."""
        with self._lock:
            if dataset in self._busy:
                raise NotPossible(f"Dataset {dataset} is being imported; ask again when that has ended.")
            self._busy.add(dataset)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(dataset)

    # --- imports -------------------------------------------------------------------------------------

    def carry_out(self, plan: ImportPlan | AttachPlan, say: Say | None = None) -> Taken:
        """Raises: as `import_` and `attach`."""
        return self.import_(plan, say) if isinstance(plan, ImportPlan) else self.attach(plan, say)

    def import_(self, plan: ImportPlan, say: Say | None = None) -> Taken:
        """Read what is new, freeze it, make it the dataset.

        Raises: SourceError: the hospital's system, a file, the recipe; the dataset stays as it was, and the same
        call goes on where this one stopped.
        """
        with self._alone(plan.dataset):
            return self._imported(plan, say)

    def _imported(self, plan: ImportPlan, say: Say | None) -> Taken:
        if plan.table is not None:
            rows, report = read_csv(
                Path(plan.table.path), plan.table.variables, key=self._key, id_column=plan.table.id_column
            )
            rows, report = self._with_more(plan, rows, report)
            return self._put(plan, rows, report, say=say)
        assert plan.resources is not None
        design = Design(plan.resources.recipe)
        with self._staging(plan.dataset, design) as staging:
            self._read(plan.resources, staging, design, say)
            frozen = self._freeze(plan, staging, design)
            if plan.images is None:
                return self._put_frozen(plan, frozen, say)
            # What is made of the shelf's images waits for those that this import brings.
            first = msgspec.structs.replace(plan, attach=tuple(c for c in plan.attach if c.folder))
            taken = self._put_frozen(first, frozen, say)
            collected = self._images(plan.images, staging, design, taken.snapshot, say)
        taken = replace(taken, images=collected)
        for column in plan.attach:
            if not column.folder:
                taken = self._attached(AttachPlan(plan.dataset, plan.person, column), taken, say)
        return taken

    def _read(self, resources: Resources, staging: Staging, design: Design, say: Say | None) -> None:
        named = {source_name(source): source for source in resources.sources}
        staging.keep_sources(named.keys())
        gone = self._held.withdrawn()
        judge = design.judge(self._key, (lambda found: self._is_of(gone, found)) if gone else None)
        for name, source in named.items():
            held = partial(staging.keys, name)
            reader: Reader = open_reader(source, design.recipe.model, held)
            take(reader, staging, judge, source=name, say=say)

    def _is_of(self, gone: frozenset[str], resource: dict[str, Any]) -> bool:
        return any(pseudonym(self._key, subject) in gone for subject in subjects(resource))

    def _images(
        self, plan: ImagesPlan, staging: Staging, design: Design, snapshot: bytes, say: Say | None
    ) -> CollectedImages:
        """A PACS that does not answer costs no dataset: what is missing is told, and fetched by the next import."""

        def told(doing: str, done: int, total: int) -> None:
            if say is not None:
                say(Progress(scope=doing, taken=done, total=total or None))

        included = frozenset(SnapshotSource(self._folder, snapshot).patients())
        try:
            return collect(plan, design.recipe.images, staging, included, self._folder, self._key, told)
        except SourceError as error:
            return CollectedImages({}, 0, 0, 0, {}, {}, {}, error.text)

    def _freeze(self, plan: ImportPlan, staging: Staging, design: Design) -> Frozen:
        by_hand = settle(self._held.decisions(plan.dataset))
        withdrawn = len(self._held.withdrawn())
        how = Freezing(self._key, by_hand, withdrawn, plan.simulated)
        return freeze(staging, design.recipe, how)

    def _staging(self, dataset: str, design: Design) -> Staging:
        return Staging(staging_file(self._folder, dataset), design.views, design.digest)

    def _put_frozen(self, plan: ImportPlan, frozen: Frozen, say: Say | None = None) -> Taken:
        rows, report = self._with_more(plan, frozen.rows, frozen.report)
        taken = self._put(plan, rows, report, frozen.days, say)
        self._held.put_flow(plan.dataset, frozen.flow)
        return replace(taken, refused=frozen.refused, flow=frozen.flow, suspects=frozen.suspects, alike=frozen.alike)

    def _with_more(self, plan: ImportPlan, rows: Rows, report: ImportReport) -> tuple[Rows, ImportReport]:
        for more in plan.more:
            key = None if more.pseudonyms else self._key
            rows, report = with_columns(
                rows, report, Path(more.path), more.variables, key=key, id_column=more.id_column
            )
        return rows, report

    def _put(
        self, plan: ImportPlan, rows: Rows, report: ImportReport, days: Spread | None = None, say: Say | None = None
    ) -> Taken:
        found: dict[str, Counter[str]] = {column.variable.name: Counter() for column in plan.attach}
        more = [(c.variable, self._pictures(c, found[c.variable.name], say)) for c in plan.attach]
        written = write_rows(rows, self._folder, more)
        attached = tuple(_left_out(one, found.get(one.variable, Counter())) for one in written.attached)
        report = written.counted(report)
        profile = profile_of(rows, report, days)
        variables = (*rows.variables, *(column.variable for column in plan.attach))
        recipe = plan.resources.recipe.name if plan.resources else "csv"
        with self._lock:
            now = self._p.now()
            snapshot = self._without_withdrawn(written.snapshot)
            raised = self._alarms(plan.dataset, profile, now)
            line = Imported(
                plan.dataset, recipe, snapshot, report.rows, sum(report.excluded.values()), report.resources,
                plan.simulated,
            )  # fmt: skip
            self._p.journal.append(line, now)
            self._held.put_plan(plan)
            self._held.add_profile(plan.dataset, now, snapshot, profile)
            self._p.store.put_dataset(
                DatasetEntry(plan.dataset, snapshot, variables, msgspec.to_builtins(report), now, plan.simulated)
            )
        return Taken(report, snapshot, alarms=raised, attached=attached)

    def _without_withdrawn(self, snapshot: bytes) -> bytes:
        """Somebody may have been withdrawn while an import was reading: nothing of him may stay."""
        left = snapshot_without(self._folder, snapshot, self._held.withdrawn())
        if left != snapshot:
            delete_snapshot(self._folder, snapshot)
        return left

    def _alarms(self, dataset: str, profile: Profile, now: int) -> tuple[Alarm, ...]:
        before = self._held.last_profile(dataset)
        raised = () if before is None else alarms(before, profile)
        if raised:
            self._p.journal.append(QualityAlarm(dataset, tuple(sorted({a.code for a in raised}))), now)
        return raised

    # --- images ---------------------------------------------------------------------------------------

    def attach(self, plan: AttachPlan, say: Say | None = None) -> Taken:
        """Give the dataset a column of images, in place of one of that name; later imports make it anew.

        Raises: NotPossible: there is no such dataset. SourceError: the images; the dataset stays as it was.
        MisuseError: a variable that is none of images has that name, or `flute[imaging]` is not installed."""
        with self._alone(plan.dataset):
            entry = self._p.store.dataset(plan.dataset)
            report = msgspec.convert(entry.report, ImportReport)
            return self._attached(plan, Taken(report, entry.snapshot), say)

    def _attached(self, plan: AttachPlan, taken: Taken, say: Say | None) -> Taken:
        """`taken`: what the dataset is made of now."""
        variable, left_out = plan.column.variable, Counter[str]()
        found = self._pictures(plan.column, left_out, say)
        written = attach_images(self._folder, taken.snapshot, variable, found)
        attached = tuple(_left_out(one, left_out) for one in written.attached)
        report = written.counted(taken.report)
        with self._lock:
            now, entry = self._p.now(), self._p.store.dataset(plan.dataset)
            snapshot = self._without_withdrawn(written.snapshot)
            line = Imported(
                plan.dataset, "images", snapshot, report.rows, 0, sum(one.images for one in attached), entry.simulated
            )
            self._p.journal.append(line, now)
            self._remember(plan)
            others = tuple(v for v in entry.variables if v.name != variable.name)
            self._p.store.put_dataset(
                msgspec.structs.replace(
                    entry, snapshot=snapshot, variables=(*others, variable), report=msgspec.to_builtins(report)
                )
            )
            self._retire(taken.snapshot)
        kept = tuple(one for one in taken.attached if one.variable != variable.name)
        return replace(taken, report=report, snapshot=snapshot, attached=(*kept, *attached))

    def _retire(self, snapshot: bytes) -> None:
        """Images are large: those of a snapshot that nothing answers from any more go."""
        if snapshot not in self._p.store.snapshots():
            delete_snapshot(self._folder, snapshot)

    def _remember(self, plan: AttachPlan) -> None:
        """Every later import makes the column anew."""
        before = self._held.plan(plan.dataset)
        others = tuple(c for c in before.attach if c.variable.name != plan.column.variable.name)
        self._held.put_plan(msgspec.structs.replace(before, attach=(*others, plan.column)))

    def _pictures(self, column: ImageColumn, left_out: Counter[str], say: Say | None) -> Iterator[Picture]:
        def told(done: int) -> None:
            if say is not None:
                say(Progress(scope=f"images {column.variable.name}", taken=done))

        return pictures(column, self._folder, self._key, left_out, told)

    # --- decisions by hand ----------------------------------------------------------------------------

    def decide(self, dataset: str, override: Override) -> Taken:
        """Journal a decision and make the dataset anew from what is staged; nothing is read.

        Raises: MisuseError: the cohort's rules do not allow it. NotPossible: the dataset has no such rules.
        """
        plan = self._held.plan(dataset)
        if plan.resources is None or plan.resources.recipe.cohort is None:
            raise NotPossible(f"Dataset {dataset} was not made by rules, so there is nothing to decide by hand.")
        if isinstance(override, Declare):
            raise MisuseError("A fact about the dataset is declared at its import (flute hub import --declare).")
        check_override(override, plan.resources.recipe.cohort)
        with self._alone(dataset):
            with self._lock:
                now = self._p.now()
                self._p.journal.append(_line(dataset, override), now)
                self._held.add_decision(dataset, now, override)
            return self._frozen_again(plan)

    def known_as(self, patient: str) -> str:
        """The pseudonym of a patient whom the hospital calls so."""
        return pseudonym(self._key, patient)

    def cohort(self, dataset: str) -> dict[str, Any]:
        """How persons came into the dataset, or did not; what was decided by hand. For the steward's own eyes."""
        entry, flow = self._p.store.dataset(dataset), self._held.flow(dataset)
        return {
            "dataset": dataset,
            "snapshot": entry.snapshot.hex(),
            "report": entry.report,
            "flow": None if flow is None else msgspec.to_builtins(flow),
            "decisions": [override.says() for override in self._held.decisions(dataset)],
            "withdrawn": len(self._held.withdrawn()),
        }

    def _frozen_again(self, plan: ImportPlan) -> Taken:
        """The dataset from what is staged already. Raises: NotPossible: nothing is staged; import it again."""
        assert plan.resources is not None
        if not staging_file(self._folder, plan.dataset).exists():
            raise NotPossible(
                f"What was read for dataset {plan.dataset} is not staged any more; the decision counts from the next "
                "import."
            )
        design = Design(plan.resources.recipe)
        with self._staging(plan.dataset, design) as staging:
            frozen = self._freeze(plan, staging, design)
        return self._put_frozen(plan, frozen)


def _left_out(attached: Attached, why: Counter[str]) -> Attached:
    return msgspec.structs.replace(attached, left_out=dict(why))


def staging_file(folder: Path, dataset: str) -> Path:
    """Where what was read for a dataset lies, in a hub's folder."""
    return folder / STAGING / f"{dataset}.duckdb"


def _line(dataset: str, override: Override) -> ByHand:
    patients: tuple[str, ...] = ()
    match override:
        case KeepIn():
            patients, what = (override.patient,), f"despite {', '.join(override.despite)}"
        case SamePerson():
            patients, what = override.patients, "one person"
        case LeaveOut() | TakeBack():
            patients, what = (override.patient,), "this patient"
        case Declare():
            what = f"{override.fact} = {override.value}"
    named = tuple(digest(patient.encode()) for patient in patients)
    return ByHand(dataset, override.person, kind_of(override), named, what[:200], override.why)


def kind_of(override: Override) -> str:
    return str(override.__struct_config__.tag)
