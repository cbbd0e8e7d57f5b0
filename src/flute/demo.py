"""`flute demo`: the platform's main job, from simulated records at three hospitals to the pilot's report.

Real parts throughout: separate processes with their own folders and keys, the wire with certificates, FHIR
import, signed agreement, consents, secure rounds, journals. Only the people are played, and it says so.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flute.errors import MisuseError
from flute.homes import private_folder
from flute.hub.store import HubPolicy
from flute.local.federation import LocalFederation
from flute.local.run import Outcome, import_fhir, run_study, set_policy, verify_journals
from flute.local.summary import Look, Step, report_of
from flute.pilot.comparators import BCN1, BCN2
from flute.pilot.recipe import PILOT_RECIPE
from flute.pilot.simulate import write_pilot
from flute.questions.code import code_digest
from flute.report.model import ComparatorReport, to_json
from flute.report.render import render_html
from flute.study.agreement import Agreement
from flute.study.files.check import check_study
from flute.study.files.file import read_study_file

STUDIES: Final = ("pilot", "pilot-exact")
_MARK: Final = "made-by-flute-demo"
POLICY: Final = HubPolicy(epsilon=3.0, epsilon_all=4.0, exact_allowed=True, max_numbers=5_000)
"""Exact results are allowed at the demo's hubs, and said so; a real hub's owner has to switch that on."""


@dataclass(slots=True)
class Stage:
    """What the demo has to say as it goes: a progress line for people, seconds per step for the report."""

    console: Console
    progress: Progress
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[..., None]]:
        task = self.progress.add_task(name, total=None)
        began = time.monotonic()

        def update(**values: Any) -> None:
            self.progress.update(task, **values)

        yield update
        seconds = time.monotonic() - began
        self.steps.append(Step(name, seconds))
        self.progress.remove_task(task)
        self.console.print(f"[green]✓[/green] {escape(name)} [dim]{seconds:.1f} s[/dim]")


def pilot_study(name: str) -> Agreement:
    """One of the pilot's study files, checked."""
    path = files("flute.pilot") / "studies" / f"{name}.yaml"
    agreement, lines = read_study_file(path.read_text(encoding="utf-8"), path=f"{name}.yaml", code=code_digest())
    return check_study(agreement, lines=lines, path=f"{name}.yaml").agreement


def run_demo(out: Path, *, seed: int, keep: bool, quiet: bool, sizes: dict[str, int] | None = None) -> dict[str, Any]:
    """The whole demo. Returns where things are and the main figures.

    Raises: MisuseError: `out` holds something that no demo made. FluteError: a step failed, in its own words.
    """
    folder = _fresh(out)
    console = Console(stderr=True, quiet=quiet, highlight=False)
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console
    )
    console.print("FLUTE demo · all records [bold yellow]SIMULATED[/bold yellow] · protocol [bold]UNAUDITED[/bold]")
    agreements = {name: pilot_study(name) for name in STUDIES}
    hubs = agreements[STUDIES[0]].hubs
    federation = LocalFederation(folder / "federation", hubs, researcher="ada", name="demo")
    began = time.monotonic()
    with _sigterm_is_ctrl_c(), federation:
        with progress:
            stage = Stage(console, progress)
            _prepare(federation, stage, folder, seed, sizes)
            outcomes = [(agreements[name], _study(federation, stage, agreements[name])) for name in STUDIES]
            with stage.step("Verify the hubs' journals, line by line"):
                journals = verify_journals(federation)
        shown = _write(out, federation, stage, outcomes, journals, time.monotonic() - began)
        if keep:
            _wait(console, federation)
    return shown


def _prepare(
    federation: LocalFederation, stage: Stage, folder: Path, seed: int, sizes: dict[str, int] | None
) -> None:
    with stage.step("Simulate three hospitals' records (FHIR R4, labelled SIMULATED)"):
        write_pilot(folder / "records", seed=seed, sizes=sizes)
    with stage.step("Make keys, certificates and a roster that the hub owners sign (owners played by the demo)"):
        federation.build()
    with stage.step("Start coordinator and hubs as separate processes"):
        federation.start()
    with stage.step("Import the records at each hub, into its own store"), ThreadPoolExecutor() as pool:
        set_policy(federation, POLICY)
        imports = [
            pool.submit(import_fhir, federation, hub, "pilot", folder / "records" / hub, PILOT_RECIPE, True)
            for hub in federation.hubs
        ]
        for done in imports:
            done.result()
        federation.note_memory()


def _study(federation: LocalFederation, stage: Stage, agreement: Agreement) -> Outcome:
    stage.console.print(Panel(_terms(agreement), title=f"Study agreement · {agreement.study}", expand=False))
    with stage.step(f"Study {agreement.study}: consents (played by the demo), rounds, results") as update:

        def progress(status: dict[str, Any]) -> None:
            now = status["now"]
            where = f"{now['question']}, step {now['step'] + 1}" if now else "consents"
            update(description=f"Study {agreement.study}: {where}", completed=status["done"], total=status["of"])

        return run_study(federation, agreement, progress)


def _terms(agreement: Agreement) -> str:
    protected = (
        f"exact; at most {agreement.max_numbers} numbers; [yellow]no epsilon bounds what they tell[/yellow]"
        if agreement.mode == "exact"
        else f"epsilon {agreement.epsilon:g} at delta {agreement.delta:g} per patient and hub"
    )
    hub = agreement.conditions[agreement.hubs[0]]
    return "\n".join(
        [
            f"[bold]{escape(agreement.title)}[/bold]",
            escape(agreement.purpose),
            f"Fields: {', '.join(agreement.fields())}",
            f"Questions: {', '.join(q.id for q in agreement.questions)}",
            f"Protection: masked sums ({agreement.plan.name}); {protected}",
            f"Legal basis: {escape(hub.legal_basis)}",
        ]
    )


def _write(
    out: Path,
    federation: LocalFederation,
    stage: Stage,
    outcomes: list[tuple[Agreement, Outcome]],
    journals: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    report = report_of(
        outcomes,
        journals=journals,
        made_at=int(time.time()),
        steps=stage.steps,
        peak_memory_bytes=federation.peak_memory_bytes,
        looks=_looks(federation),
        federation="demo",
        comparators=[ComparatorReport(f"{m.name} (published)", m.auc["external"], m.source) for m in (BCN1, BCN2)],
    )
    paths = {"report": out / "report.html", "results": out / "results.json", "model": out / "model.json"}
    paths["report"].write_text(render_html(report), encoding="utf-8")
    paths["results"].write_bytes(to_json(report))
    model = outcomes[0][1].release["results"]["model"]
    paths["model"].write_bytes(
        msgspec.json.format(msgspec.json.encode({"SIMULATED": True, "study": outcomes[0][0].study, "model": model}))
    )
    for look in _looks(federation):
        stage.console.print(f"  [dim]{escape(look.shows)}:[/dim] {escape(look.command)}")
    stage.console.print(
        f"Done in {seconds:.1f} s; peak memory of all processes {federation.peak_memory_bytes / 2**20:.0f} MiB."
    )
    return {name: str(path.absolute()) for name, path in paths.items()} | {
        "seconds": seconds,
        "peak_memory_bytes": federation.peak_memory_bytes,
        "steps": [{"name": s.name, "seconds": s.seconds} for s in stage.steps],
        "journals": journals,
    }


def _looks(federation: LocalFederation) -> list[Look]:
    hub = federation.hub_folder(federation.hubs[0])
    return [
        Look(f"flute audit show {hub} --last 20", "what a hub journaled"),
        Look(f"flute audit verify {hub}", "whether its journal holds"),
        Look(f"flute roster show {hub}", "who is in the federation"),
        Look("flute demo --keep", "leave it running, then: flute ledger show FOLDER"),
    ]


def _fresh(out: Path) -> Path:
    """A folder for this run below `out`; an earlier demo's is replaced, nothing else is touched."""
    work = out / "work"
    if work.exists() and not (work / _MARK).exists():
        raise MisuseError(f"{work} was not made by a demo and is left alone; choose another --out.")
    shutil.rmtree(work, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    private_folder(work)
    (work / _MARK).touch()
    return work


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Told to stop either way, the demo ends its processes in order."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(console: Console, federation: LocalFederation) -> None:
    config = federation.coordinator_home.config()
    url = f"http://{config.api_host}:{config.api_port}/openapi.json"
    console.print(f"The federation keeps running (API {url}). Ctrl-C ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("Stopping …")
