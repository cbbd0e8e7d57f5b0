"""A study from file to release in a local federation; every person in it is played and named as such."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flute.connectors.sources import Files
from flute.data.variables import Variable
from flute.defaults import DISCLOSURE_FLOOR
from flute.errors import FluteError, MisuseError
from flute.hub.records.plans import FlatTable, ImportPlan, Resources
from flute.hub.store import HubPolicy
from flute.intake.recipe import Recipe
from flute.local.federation import LocalFederation
from flute.study.agreement import Agreement

STEWARD: Final = "steward"
CONSENT_TIMEOUT_S: Final = 60.0
RUN_TIMEOUT_S: Final = 900.0
_POLL_S: Final = 0.05
Progress = Callable[[dict[str, Any]], None]


class StudyStopped(FluteError):
    """The study ended without a result; the text says why, in the words of whoever stopped it."""

    code = "study-stopped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of one study, as JSON-able values."""

    release: dict[str, Any]
    traffic: list[dict[str, Any]]
    times: list[dict[str, Any]]
    ledgers_before: dict[str, Any]
    ledgers_after: dict[str, Any]
    agreements: dict[str, Any]
    seconds: float
    extras: dict[str, Any] = field(default_factory=dict)


def import_fhir(
    federation: LocalFederation, hub: str, dataset: str, source: Path, recipe: Recipe, simulated: bool
) -> Any:
    resources = Resources((Files(str(source.absolute())),), recipe)
    return _import(federation, hub, ImportPlan(dataset, STEWARD, resources=resources, simulated=simulated))


def import_csv(
    federation: LocalFederation, hub: str, dataset: str, source: Path, variables: tuple[Variable, ...], *,
    id_column: str | None = None, simulated: bool = False,
) -> Any:  # fmt: skip
    table = FlatTable(str(source.absolute()), variables, id_column)
    return _import(federation, hub, ImportPlan(dataset, STEWARD, table=table, simulated=simulated))


def _import(federation: LocalFederation, hub: str, plan: ImportPlan) -> Any:
    with federation.hub(hub) as door:
        return door.import_records(plan)["report"]


def set_policy(federation: LocalFederation, policy: HubPolicy) -> None:
    for hub in federation.hubs:
        with federation.hub(hub) as door:
            door.set_policy(policy, person=STEWARD)


def own_data_policy(agreement: Agreement, floor: int = DISCLOSURE_FLOOR) -> HubPolicy:
    """In a throw-away federation all records are the user's own: what the study asks is allowed."""
    epsilon = max(agreement.epsilon, 1e-3)
    return HubPolicy(
        epsilon=epsilon,
        epsilon_all=epsilon,
        delta=agreement.delta or HubPolicy().delta,
        exact_allowed=agreement.mode == "exact",
        max_numbers=max(agreement.max_numbers, HubPolicy().max_numbers),
        floor=floor,
    )


def run_study(federation: LocalFederation, agreement: Agreement, progress: Progress | None = None) -> Outcome:
    """Propose, consent at every hub, run, fetch. Raises: StudyStopped, Answered: with the hub's own words."""
    began = time.monotonic()
    with federation.client() as client:
        client.propose(agreement)
        agreements = {hub: _consent(federation, hub, agreement.study) for hub in federation.hubs}
        before = _ledgers(federation)
        _wait(lambda: client.get(f"/studies/{agreement.study}"), ("ready",), CONSENT_TIMEOUT_S, progress)
        client.run(agreement.study)
        _wait(
            lambda: client.get(f"/studies/{agreement.study}"), ("finished",), RUN_TIMEOUT_S, progress,
            each=federation.note_memory,
        )  # fmt: skip
        release = client.get(f"/studies/{agreement.study}/release")
        seen = client.get(f"/studies/{agreement.study}/traffic")
    return Outcome(
        release=release,
        traffic=seen["traffic"],
        times=seen["times"],
        ledgers_before=before,
        ledgers_after=_ledgers(federation),
        agreements=agreements,
        seconds=time.monotonic() - began,
    )


def _consent(federation: LocalFederation, hub: str, study: str) -> Any:
    """What the steward is shown, and the consent; the proposal takes a moment to arrive."""
    deadline = time.monotonic() + CONSENT_TIMEOUT_S
    with federation.hub(hub) as door:
        while study not in {s["study"] for s in door.get("/status")["studies"]}:
            if time.monotonic() > deadline:
                raise StudyStopped(f"The proposal of {study} did not reach {hub}; see {federation.folder / 'logs'}.")
            time.sleep(_POLL_S)
        shown = door.get(f"/studies/{study}")
        door.decide(study, "grant", person=STEWARD)
    return shown


def _ledgers(federation: LocalFederation) -> dict[str, Any]:
    found = {}
    for hub in federation.hubs:
        with federation.hub(hub) as door:
            found[hub] = door.get("/ledger")
    return found


def verify_journals(federation: LocalFederation) -> dict[str, Any]:
    """Every hub's journal, checked line by line by the hub itself. Raises: Answered: names the broken line."""
    found = {}
    for hub in federation.hubs:
        with federation.hub(hub) as door:
            found[hub] = door.get("/audit/verify")
    return found


def _wait(
    ask: Callable[[], dict[str, Any]],
    states: tuple[str, ...],
    timeout_s: float,
    progress: Progress | None,
    each: Callable[[], None] | None = None,
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        status = ask()
        if progress is not None:
            progress(status)
        if each is not None:
            each()
        if status["state"] in states:
            return
        if status["state"] == "stopped":
            raise StudyStopped(f"Study {status['study']} was stopped: {status['why'].rstrip('.')}.")
        if time.monotonic() > deadline:
            raise StudyStopped(f"Study {status['study']} is still {status['state']} after {timeout_s:.0f} s.")
        time.sleep(2 * _POLL_S)


def hub_paths(named: Mapping[str, str] | list[str]) -> dict[str, Path]:
    """NAME=PATH pairs of the command line. Raises: MisuseError: which pair is wrong and what to write."""
    pairs = [f"{k}={v}" for k, v in named.items()] if isinstance(named, Mapping) else named
    found: dict[str, Path] = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise MisuseError(f"--hub {pair!r} is not NAME=PATH; write for example --hub north=data/north.csv.")
        if name in found:
            raise MisuseError(f"--hub {name} stands twice; each hub has one path.")
        if not Path(path).exists():
            raise MisuseError(f"--hub {name}: there is nothing at {path}.")
        found[name] = Path(path)
    return found
