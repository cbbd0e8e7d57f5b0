"""A whole study in this process: the hubs' algorithms, clipping, rounding and noise are the real ones, drawn from the
operating system; there is no network, no mask, no key, and one process holds all records.

What comes out is distributed as it would be from real hubs. Nothing is protected here from this process itself.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.algorithms.contract import Ask, Finished, JointAlgorithm, Opened, OwnCode
from flute.data.dataset import Dataset
from flute.data.variables import Variable
from flute.defaults import DELTA
from flute.dp.ceiling import odds_of
from flute.dp.odds import exact_sentence, odds_sentence
from flute.errors import BudgetExceeded, FluteError, MisuseError, UnderFloor, WrongStudy
from flute.hub.rounds.own_code import own_rows
from flute.hub.rounds.resources import require_runs
from flute.hub.rounds.round import floor_holds
from flute.intake.flat import read_csv
from flute.intake.snapshot import SnapshotSource, write_rows
from flute.local.run import StudyStopped
from flute.questions.registry import algorithm_for
from flute.sdk.place import ENDED, Account, Document
from flute.sdk.places.processes import OWN_CONDITIONS, own_catalogue
from flute.sdk.places.records import as_files, require_columns, require_images
from flute.sdk.places.shares import on_shares
from flute.sdk.terms import Conditions
from flute.study.agreement import Agreement, agreement_digest, write_agreement
from flute.study.contribution import covered, given_by
from flute.study.files.check import Checked, check_study
from flute.study.program import Track, next_step, tracks
from flute.study.protection import RAND_SIZE, Price, budget_of, epsilon_at, study_budget, uncover
from flute.study.release import Release, ReleaseReceipt, analysis_plan_digest, total_digest

LOG = logging.getLogger("flute.sdk")
_KEY_SIZE: Final = 32
_OWN: Final = "nobody has to: the records are yours"
_END_S: Final = 5.0
"""How long closing waits for a step to end, so that no thread is left when the interpreter ends."""


@dataclass(slots=True)
class _Run:
    """One study run. `lock` of the place guards it."""

    checked: Checked
    state: str = "consenting"
    why: str = ""
    now: dict[str, Any] | None = None
    rounds: int = 0
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    receipts: list[ReleaseReceipt] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)
    cancelled: bool = False


class SimulatorPlace:
    """`epsilon`: ceiling over all studies of one dataset, as a hub's; `floor`: of exact counts."""

    name = "simulator"
    fingerprint = ""
    conditions: Conditions | None = OWN_CONDITIONS

    def __init__(
        self, records: Mapping[str, Any], *, researcher: str, epsilon: float, floor: int, simulated: bool,
        id_column: str | None, max_numbers: int,
    ) -> None:  # fmt: skip
        self._scratch = tempfile.TemporaryDirectory(prefix="flute-")
        self._folder = Path(self._scratch.name)
        self._files = as_files(records, self._folder)
        self.hubs = tuple(sorted(records))
        self.researcher = researcher
        self.simulated = simulated
        self._id_column = id_column
        self._ceiling = (epsilon, max_numbers)
        self._floor = floor
        self._key = os.urandom(_KEY_SIZE)
        self._imported: dict[str, dict[str, Variable]] = {}
        self._sources: dict[tuple[str, str], SnapshotSource] = {}
        self._runs: dict[str, _Run] = {}
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        atexit.register(self.close)

    # --- the port ------------------------------------------------------------------------------------

    def prepare(self, agreement: Agreement) -> None:
        wanted = {v.variable.name: v.variable for v in agreement.variables}
        used = {name: wanted[name] for name in agreement.fields()}
        have = self._imported.setdefault(agreement.dataset, {})
        if all(have.get(name) == variable for name, variable in used.items()):
            return
        require_columns(self._files, tuple(used.values()))
        declared = have | used
        for hub, path in self._files.items():
            rows, report = read_csv(path, tuple(declared.values()), key=self._key, id_column=self._id_column)
            root = self._folder / "hubs" / hub
            written = write_rows(rows, root)
            require_images(hub, declared.values(), written.counted(report))
            self._sources[hub, agreement.dataset] = SnapshotSource(root, written.snapshot)
        have.update(used)

    def propose(self, agreement: Agreement) -> None:
        with self._lock:
            if agreement.study in self._runs:
                raise WrongStudy(f"There is a study {agreement.study} already; choose another name.")
            self._runs[agreement.study] = _Run(check_study(agreement, roster_hubs=self.hubs))
        thread = threading.Thread(target=self._carry_out, args=(agreement.study,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def status(self, study: str) -> dict[str, Any]:
        with self._lock:
            run = self._run(study)
            agreement = run.checked.agreement
            wanted = [t.reference for group in tracks(agreement) for t in group]
            return {
                "study": study, "title": agreement.title, "state": run.state, "why": run.why, "mode": agreement.mode,
                "consents": dict.fromkeys(agreement.hubs, "granted"), "missing": {}, "now": run.now,
                "rounds": run.rounds, "repeated": 0, "done": sum(r in run.results for r in wanted), "of": len(wanted),
            }  # fmt: skip

    def stop(self, study: str, why: str) -> None:
        with self._lock:
            run = self._run(study)
            if run.state not in ENDED:
                run.cancelled, run.state, run.why = True, "stopped", f"{self.researcher} stopped it: {why}"

    def release(self, study: str) -> dict[str, Any]:
        with self._lock:
            run = self._run(study)
            agreement = run.checked.agreement
            exact = agreement.mode == "exact"
            statement = (
                exact_sentence(0.0, DELTA) if exact else odds_sentence(study_budget(agreement)[0], agreement.delta)
            )
            made = Release(
                study, agreement.title, agreement.simulated, agreement.mode, statement,
                analysis_plan_digest(agreement.questions), dict(run.results), tuple(run.receipts),
            )  # fmt: skip
            built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
            return built

    def traffic(self, study: str) -> list[dict[str, Any]]:
        """Answers of each hub and their bytes, without what hides and carries them between real ones."""
        with self._lock:
            run = self._run(study)
            return [
                {"sender": hub, "recipient": "simulator", "kind": "answer", "messages": n, "bytes": run.size[hub]}
                for hub, n in sorted(run.answers.items())
            ]

    def document(self, study: str) -> Document:
        with self._lock:
            return Document(write_agreement(self._run(study).checked.agreement), signed=False)

    def agreements(self) -> dict[str, Agreement]:
        with self._lock:
            return {study: run.checked.agreement for study, run in self._runs.items()}

    def taken(self) -> set[str]:
        return set(self._runs)

    def accounts(self, runs: Sequence[str], dataset: str) -> list[Account]:
        with self._lock:
            mine = {name: self._runs[name] for name in runs if name in self._runs}
            here = [run for run in self._runs.values() if run.checked.agreement.dataset == dataset]
            return [
                Account(
                    hub,
                    {name: _decided(run) | _words([run], hub) for name, run in mine.items()},
                    _words(here, hub, self._ceiling[0]),
                    _words(list(self._runs.values()), hub),
                )
                for hub in self.hubs
            ]

    def catalogue(self) -> list[dict[str, Any]]:
        return own_catalogue(self._imported, self._files)

    def close(self) -> None:
        for study in list(self._runs):
            self.stop(study, "the simulator was closed")
        for thread in self._threads:
            thread.join(_END_S)
        self._scratch.cleanup()
        atexit.unregister(self.close)

    # --- carrying out --------------------------------------------------------------------------------

    def _run(self, study: str) -> _Run:
        try:
            return self._runs[study]
        except KeyError:
            raise WrongStudy(f"There is no study {study!r} here.") from None

    def _carry_out(self, study: str) -> None:
        run = self._runs[study]
        try:
            self._require_room(run)
            run.state = "running"
            for group in tracks(run.checked.agreement):
                for track in group:
                    self._answer(run, track)
            with self._lock:
                if not run.cancelled:
                    run.state, run.now = "finished", None
        except FluteError as error:
            with self._lock:
                if not run.cancelled:
                    run.state, run.why = "stopped", f"{error.text}"
        except Exception:  # the thread would die in silence, and the notebook wait for ever
            LOG.exception("study run %s", study)
            run.state, run.why = "stopped", "a fault of the simulator, which its log shows"

    def _require_room(self, run: _Run) -> None:
        """As the hubs' ledgers: everything that may be charged has to fit below the ceilings, beforehand."""
        agreement = run.checked.agreement
        require_runs(agreement)
        epsilon, numbers = self._ceiling
        if agreement.mode == "exact":
            if run.checked.numbers > numbers:
                raise BudgetExceeded(f"Every hub allows {numbers:,} exact numbers; this may open more.")
            data = {hub: self._data(hub, agreement, agreement.fields()) for hub in self.hubs}
            if not all(floor_holds(agreement, rows, self._floor) for rows in data.values()):
                raise UnderFloor(f"A count that this could show has fewer than {self._floor} persons at a hub.")
            return
        others = [r for r in self._runs.values() if r is not run and r.checked.agreement.dataset == agreement.dataset]
        spent = math.fsum(_charged(r) for r in others)
        if spent + study_budget(agreement)[0] > budget_of(epsilon, agreement.delta)[0] * (1 + 1e-9):
            raise BudgetExceeded(
                f"Every hub allows epsilon {epsilon:g} over its records in all; less than that is left."
            )

    def _answer(self, run: _Run, track: Track) -> None:
        history: list[Opened] = []
        while True:
            reached = next_step(run.checked.agreement, track, tuple(history), run.results)
            with self._lock:
                if run.cancelled:
                    raise StudyStopped("It was stopped.")
                if isinstance(reached, Finished):
                    run.results[track.reference] = msgspec.json.decode(msgspec.json.encode(reached.result))
                    return
                run.now = {"question": track.question.id, "step": len(history), "state": "asked"}
            history.append(self._open(run, track, len(history), reached))

    def _open(self, run: _Run, track: Track, step: int, ask: Ask) -> Opened:
        agreement = run.checked.agreement
        price = run.checked.prices[track.question.id][step]
        hubs = (track.party,) if track.party else tuple(sorted(agreement.hubs))
        names = algorithm_for(track.question.what).fields(track.question.what, agreement.setting)
        data = {hub: self._data(hub, agreement, names) for hub in hubs}
        total = _total(agreement, track, step, ask, price, data)
        with self._lock:
            for hub in hubs:
                run.answers[hub] = run.answers.get(hub, 0) + 1
                run.size[hub] = run.size.get(hub, 0) + total.nbytes
        receipt = _receipt(agreement, track, step, price, hubs, total)
        with self._lock:
            run.receipts.append(receipt)
            run.rounds += 1
        values, sigma = uncover(total, price)
        return Opened(ask.parameters, values, sigma)

    def _data(self, hub: str, agreement: Agreement, names: tuple[str, ...]) -> Dataset:
        variables = agreement.setting.variables
        data = self._sources[hub, agreement.dataset].open([variables[name].variable for name in names])
        if len(data) > agreement.max_patients:
            raise MisuseError(
                f"Hub {hub} has {len(data)} patients; the study says max_patients {agreement.max_patients}."
            )
        return data


def _total(
    agreement: Agreement, track: Track, step: int, ask: Ask, price: Price, data: Mapping[str, Dataset]
) -> NDArray[np.int64]:
    """The opened integers of one step: what a plan would open, without what hides the parts of it."""
    what, setting = track.question.what, agreement.setting
    algorithm = algorithm_for(what)
    if isinstance(algorithm, JointAlgorithm):
        return on_shares(algorithm, what, agreement, data, price)

    def part(rows: Dataset) -> NDArray[np.int64]:
        given = given_by(algorithm, what, setting, step, ask.parameters, rows)
        if isinstance(algorithm, OwnCode):
            given = partial(own_rows, algorithm, track.question, setting, rows, threading.Event())
        rand = os.urandom(RAND_SIZE)
        return covered(given, len(rows), price, hubs=len(data), rand=rand, question=track.question.id)

    parts = [part(rows) for rows in data.values()]
    total: NDArray[np.int64] = np.sum(parts, axis=0, dtype=np.int64)
    return total


def _receipt(
    agreement: Agreement, track: Track, step: int, price: Price, hubs: tuple[str, ...], total: NDArray[np.int64]
) -> ReleaseReceipt:
    """As a federation's, but for the journals: simulated hubs have none."""
    return ReleaseReceipt(
        study=agreement.study, question=track.question.id, step=step, hubs=hubs, roster_version=0,
        agreement=agreement_digest(write_agreement(agreement)).hex(), code=agreement.code.hex(),
        plan=agreement.plan.name, mode=agreement.mode, rho=price.rho, numbers=price.numbers,
        total=total_digest(total.astype("<i8").tobytes()).hex(), journal=(),
    )  # fmt: skip


def _charged(run: _Run) -> float:
    """rho of a run that was not stopped before anything was opened."""
    untouched = run.state == "stopped" and not run.receipts
    return 0.0 if untouched else study_budget(run.checked.agreement)[0]


def _decided(run: _Run) -> dict[str, Any]:
    """Nobody has to consent to a simulation of one's own records."""
    return {"decision": "granted", "decided_at": 0, "ended": run.state in ENDED, "by": _OWN}


def _words(runs: list[_Run], hub: str, ceiling: float | None = None) -> dict[str, Any]:
    """As a hub's ledger says it."""
    counted = [r for run in runs for r in run.receipts if hub in r.hubs]
    rho, delta = math.fsum(r.rho for r in counted), DELTA
    numbers = sum(r.numbers for r in counted)
    left = None if ceiling is None else max(budget_of(ceiling, delta)[0] - rho, 0.0)
    sentence = exact_sentence(rho, delta) if numbers else odds_sentence(rho, delta)
    return {
        "rho": rho, "rho_reserved": 0.0, "rho_left": left, "epsilon_noised": epsilon_at(rho, delta),
        "exact_numbers": numbers, "unbounded": bool(numbers), "odds": odds_of(rho, delta),
        "sentence": sentence if counted else "Nothing was asked yet: nothing can be learnt.",
    }  # fmt: skip
