"""Hubs of real processes: one denies a study that goes on without it, one is killed for good in the middle of one."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from flute.local.federation import LocalFederation
from flute.local.run import import_csv, set_policy
from flute.study.agreement import Agreement, PlanChoice
from support.killing import POLICY, table, write_csv
from support.studies import private_model, study, under_plan

HUBS = ("east", "north", "south", "west")
VICTIM = "south"


def four(dropouts: int) -> Agreement:
    questions = "".join(private_model(0.15).replace("model:", f"model-{n}:") for n in range(6))
    base = study("budget: {epsilon: 3}", questions)
    conditions = dict.fromkeys(HUBS, next(iter(base.conditions.values())))
    return msgspec.structs.replace(
        base, hubs=HUBS, conditions=conditions, plan=PlanChoice("secagg", 1, dropouts), study=f"lose-{dropouts}"
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("dropout")
    with LocalFederation(folder / "federation", HUBS, researcher="ada") as local:
        local.build()
        home = local.coordinator_home
        home.write_config(msgspec.structs.replace(home.config(), round_timeout_s=8.0))
        local.start()
        set_policy(local, POLICY)
        for number, hub in enumerate(HUBS):
            path: Path = folder / f"{hub}.csv"
            write_csv(path, table(number, 80))
            import_csv(local, hub, "records", path, tuple(v.variable for v in four(1).variables))
        yield local


def begin(local: LocalFederation, agreement: Agreement) -> None:
    with local.client() as client:
        client.propose(agreement)
        decide(local, agreement)
        until(lambda: state(local, agreement.study)[0] == "ready")
        client.run(agreement.study)


def decide(local: LocalFederation, agreement: Agreement, denies: str = "") -> None:
    for hub in agreement.hubs:
        with local.hub(hub) as door:
            until(lambda door=door: agreement.study in {s["study"] for s in door.get("/status")["studies"]})
            door.decide(agreement.study, "deny" if hub == denies else "grant", person="steward")


def state(local: LocalFederation, name: str) -> tuple[str, str, int]:
    """(state, why, rounds opened) of a study, from the coordinator's database."""
    path = local.coordinator_home.database.absolute().as_uri()
    with closing(sqlite3.connect(f"{path}?mode=ro", uri=True, timeout=10)) as db:
        row = db.execute("SELECT state, why FROM study WHERE study = ?", (name,)).fetchone() or ("", "")
        opened = db.execute("SELECT count(*) FROM round WHERE study = ? AND state = 'opened'", (name,)).fetchone()[0]
    return row[0], row[1], opened


def until(condition: Any, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.requirement("F-SRS-9")
@pytest.mark.timeout(120)
def test_one_hub_of_three_denies_and_two_carry_the_study_out(local: LocalFederation) -> None:
    base = study("budget: {epsilon: 3}", private_model(0.4))
    agreement = under_plan(base, PlanChoice("secagg", 1, 1), hubs_min=2, study="two-of-three")
    with local.client() as client:
        client.propose(agreement)
        decide(local, agreement, denies="south")
        until(lambda: state(local, agreement.study)[0] == "ready")
        client.run(agreement.study)
        until(lambda: state(local, agreement.study)[0] in ("finished", "stopped"))
        status, release = (client.get(f"/studies/{agreement.study}{end}") for end in ("", "/release"))
    assert status["state"] == "finished", status["why"]
    assert status["missing"] == release["missing"] == {"south": "did not consent"}
    assert {tuple(receipt["hubs"]) for receipt in release["receipts"]} == {("north", "west")}
    assert release["results"]["model"]["coefficients"]


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.timeout(240)
def test_a_hub_that_dies_for_good_costs_a_study_that_tolerates_it_nothing_but_time(local: LocalFederation) -> None:
    agreement = four(1)
    begin(local, agreement)
    until(lambda: state(local, agreement.study)[2] >= 1)
    whole = [psutil.Process(local.services[VICTIM].pid), *psutil.Process(local.services[VICTIM].pid).children(True)]
    for process in whole:
        process.kill()
    until(lambda: state(local, agreement.study)[0] in ("finished", "stopped"), 150.0)
    ended, why, _ = state(local, agreement.study)
    assert ended == "finished", why
    with local.client() as client:
        receipts = client.get(f"/studies/{agreement.study}/release")["receipts"]
    sets = [tuple(receipt["hubs"]) for receipt in receipts]
    assert sets[0] == HUBS
    assert sets[-1] == tuple(hub for hub in HUBS if hub != VICTIM)
    assert all(len(hubs) >= 3 for hubs in sets)
