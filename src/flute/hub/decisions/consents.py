"""Granting a study here: what has to hold of the dataset, one look at the floor, one line in the journal.

Called for a steward who has read the agreement, and for a study that follows one a steward has read
(`hub.decisions.standing`).
"""

from __future__ import annotations

import msgspec

from flute.errors import ExactNotAllowed, NotPossible
from flute.hub.decisions.standing import Standing, Stands
from flute.hub.parts import Parts
from flute.hub.rounds.own_code import require_allowed
from flute.hub.rounds.resources import require_runs
from flute.hub.rounds.round import floor_holds
from flute.hub.store import DatasetEntry, StudyEntry
from flute.ledger.lines.entries import ConsentFollowed, ConsentGranted, RecordSourceOpened
from flute.study.agreement import Agreement, read_agreement
from flute.study.exact_rule import FEWEST, counts_of_few


class Consents:
    """Its callers hold the service's lock."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self.standing = Standing(parts)

    def granted(self, entry: StudyEntry, person: str, now: int) -> StudyEntry:
        """Journaled, not yet stored. Raises: NotPossible, ExactNotAllowed, CodeNotApproved."""
        snapshot, holds = self._held(entry, now)
        self._p.journal.append(ConsentGranted(entry.study, entry.digest, snapshot, person), now)
        return _granted(entry, snapshot, holds, now)

    def followed(self, entry: StudyEntry, now: int) -> StudyEntry | None:
        """As `granted`, on account of a study alike that a steward has read; None where there is none such.

        Raises: NotPossible: the dataset does not serve it; a steward has to look."""
        stands = self.standing.of(read_agreement(entry.agreement), now)
        if stands is None:
            return None
        snapshot, holds = self._held(entry, now)
        self._take(entry, snapshot, stands, now)
        return _granted(entry, snapshot, holds, now)

    def _take(self, entry: StudyEntry, snapshot: bytes, stands: Stands, now: int) -> None:
        said = stands.said
        line = ConsentFollowed(entry.study, entry.digest, snapshot, said.person, said.study)
        self._p.journal.append(line, now)
        self.standing.take(line)

    def _held(self, entry: StudyEntry, now: int) -> tuple[bytes, bool]:
        """The snapshot that answers, and whether an exact study keeps to the floor there."""
        agreement = read_agreement(entry.agreement)
        dataset = self._p.store.dataset(agreement.dataset)
        lacking = sorted(set(agreement.fields()) - {v.name for v in dataset.variables})
        if lacking:
            raise NotPossible(
                f"Dataset {dataset.name} has no {', '.join(lacking)}; import it with these, or deny the study."
            )
        _require_same_images(agreement, dataset)
        self._require_no_more_patients(agreement, dataset)
        if agreement.mode == "exact" and not self._p.store.policy().exact_allowed:
            raise ExactNotAllowed(
                f"{self._p.me} does not allow exact results, so study {entry.study} cannot be granted; its owner can "
                "allow them first (flute hub policy --exact), or the study can be denied."
            )
        require_allowed(agreement, allowed=self._p.store.policy().own_code_allowed, me=self._p.me)
        require_runs(agreement)
        holds = agreement.mode != "exact" or self._judge_floor(entry.study, agreement, dataset.snapshot, now)
        return dataset.snapshot, holds

    def _require_no_more_patients(self, agreement: Agreement, dataset: DatasetEntry) -> None:
        """The room that sums have follows from a public bound; more patients could overflow it.

        Raises: NotPossible: the frozen dataset has more. The steward sees that, before any consent."""
        found = self._p.sources(dataset.snapshot).size()
        if found > agreement.max_patients:
            raise NotPossible(
                f"Dataset {dataset.name} has {found} patients, and study {agreement.study} allows a hub "
                f"{agreement.max_patients} (max_patients). Its researcher has to propose it with a larger number."
            )

    def _judge_floor(self, study: str, agreement: Agreement, snapshot: bytes, now: int) -> bool:
        """One look, one yes or no over all exact studies of the dataset, before any answer; no question is asked
        again on account of it. After a no there is no further look at this snapshot: it would be an oracle."""
        others = self._exact_studies(study, agreement.dataset)
        if any(entry.snapshot == snapshot and not entry.floor_holds for entry in others):
            return False
        agreements = [*(read_agreement(entry.agreement) for entry in others), agreement]
        variables = {name: a.setting.variables[name].variable for a in agreements for name in a.fields()}
        self._p.journal.append(RecordSourceOpened(study, "floor", b"", snapshot, tuple(variables)), now)
        data = self._p.sources(snapshot).open(list(variables.values()))
        floor = self._p.store.policy().floor
        return floor_holds(agreement, data, floor) and not counts_of_few(agreements, data, min(FEWEST, floor))

    def _exact_studies(self, study: str, dataset: str) -> list[StudyEntry]:
        """Every other exact study over the dataset that was ever judged here."""
        judged = [entry for entry in self._p.store.studies() if entry.study != study and entry.snapshot]
        read = [(entry, read_agreement(entry.agreement)) for entry in judged]
        return [entry for entry, a in read if a.mode == "exact" and a.dataset == dataset]


def _require_same_images(agreement: Agreement, dataset: DatasetEntry) -> None:
    """Raises: NotPossible: images are asked for where there are none, or of another shape: all would be missing."""
    held = {v.name: v.shape for v in dataset.variables}
    asked = {name: agreement.setting.variables[name].variable.shape for name in agreement.fields()}
    other = sorted(name for name, shape in asked.items() if held[name] != shape)
    if other:
        shown = " x ".join(map(str, held[other[0]] or ())) or "no image"
        raise NotPossible(
            f"Study {agreement.study} reads {other[0]} in another shape than dataset {dataset.name} has it "
            f"({shown}); attach images of the study's shape ('flute hub images'), or deny the study."
        )


def _granted(entry: StudyEntry, snapshot: bytes, holds: bool, now: int) -> StudyEntry:
    return msgspec.structs.replace(entry, state="granted", snapshot=snapshot, floor_holds=holds, decided_at=now)
