"""Plan secagg-enclave over real processes: the results of plan secagg, and an enclave that dies is named."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from flute.local.federation import LocalFederation
from flute.local.processes import Service
from flute.local.run import import_csv, run_study, set_policy, verify_journals
from flute.study.agreement import Agreement, PlanChoice
from support.enclave_processes import aggregators, approve
from support.killing import HUBS, POLICY, table, write_csv
from support.studies import DESCRIBE, EXACT, MODEL, study, under_plan
from support.swtpm import require_swtpm

NAMES = ("first", "second")
TOGETHER = PlanChoice("secagg-enclave", aggregators=NAMES)
TABLE = DESCRIBE.replace("per_hub: true", "per_hub: false").replace("    share: 0.3\n", "")
WITHIN = 1e-9
Federation = tuple[LocalFederation, dict[str, Service]]

pytestmark = [pytest.mark.requirement("F-SRS-4"), pytest.mark.timeout(300)]


def planned(plan: PlanChoice, name: str, questions: str = TABLE + MODEL) -> Agreement:
    return msgspec.structs.replace(under_plan(study(EXACT, questions), plan, max_patients=400), study=name)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    require_swtpm()
    folder = tmp_path_factory.mktemp("plans")
    short = Path(tempfile.mkdtemp(prefix="flute-plans-"))  # a path of a socket has at most 107 characters
    local = LocalFederation(folder / "federation", HUBS, researcher="ada")
    try:
        with aggregators(short, NAMES) as enclaves, local:
            local.build()
            approve(local, short, NAMES)
            local.start()
            set_policy(local, POLICY)
            variables = tuple(v.variable for v in planned(TOGETHER, "any").variables)
            for number, hub in enumerate(HUBS):
                write_csv(folder / f"{hub}.csv", table(number, 80))
                import_csv(local, hub, "records", folder / f"{hub}.csv", variables, simulated=True)
            yield local, enclaves
    finally:
        shutil.rmtree(short)


def figures(found: Any) -> list[float]:
    """Every number of a result, in order."""
    if isinstance(found, dict):
        return [v for key in sorted(found) for v in figures(found[key])]
    if isinstance(found, list):
        return [v for item in found for v in figures(item)]
    return [float(found)] if isinstance(found, int | float) and not isinstance(found, bool) else []


def test_statistics_and_a_model_are_those_of_masked_sums(running: Federation) -> None:
    local, _ = running
    masked = run_study(local, planned(PlanChoice("secagg"), "masked"))
    together = run_study(local, planned(TOGETHER, "together"))
    expected, found = (figures(outcome.release["results"]) for outcome in (masked, together))
    assert len(found) == len(expected) > 100
    assert np.allclose(found, expected, rtol=WITHIN, atol=WITHIN)
    kinds = {line["kind"] for line in together.traffic if line["sender"] != "coordinator"}
    assert kinds == {"consent", "ticket-given", "split-answer", "echo-answer", "shares-answer"}


def test_an_enclave_that_dies_in_a_study_is_named_and_nothing_else_is_lost(running: Federation) -> None:
    """After its first round. No result comes out, hubs' journals hold, and a study without enclaves runs on."""
    local, enclaves = running
    agreement = planned(TOGETHER, "dies", MODEL)
    begin(local, agreement)
    with local.client() as client:
        client.run("dies")
    until(lambda: rows(local, "SELECT id FROM round WHERE study = 'dies' AND state = 'opened'") != [])
    enclaves["second"].kill()
    until(lambda: rows(local, "SELECT state FROM study WHERE study = 'dies'") == [("stopped",)])
    ((why,),) = rows(local, "SELECT why FROM study WHERE study = 'dies'")
    assert "aggregator second does not answer" in why
    assert rows(local, "SELECT reference FROM result WHERE study = 'dies'") == []
    assert set(verify_journals(local)) == set(HUBS)
    assert run_study(local, planned(PlanChoice("secagg"), "without", TABLE)).release["results"]


# --- small pieces ---------------------------------------------------------------------------------------


def begin(local: LocalFederation, agreement: Agreement) -> None:
    """A study that everybody consented to."""
    with local.client() as client:
        client.propose(agreement)
    for hub in HUBS:
        with local.hub(hub) as door:
            until(lambda door=door: agreement.study in {s["study"] for s in door.get("/status")["studies"]})
            door.decide(agreement.study, "grant", person="steward")
    until(lambda: rows(local, "SELECT state FROM study WHERE study = 'dies'") == [("ready",)])


def rows(local: LocalFederation, query: str) -> list[tuple[Any, ...]]:
    """From the coordinator's database."""
    path = local.coordinator_home.database.absolute().as_uri()
    with closing(sqlite3.connect(f"{path}?mode=ro", uri=True, timeout=10)) as db:
        return list(db.execute(query))


def until(condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
