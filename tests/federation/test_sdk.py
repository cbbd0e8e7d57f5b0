"""One script, three federations: in this process, as processes of this machine, and behind a coordinator whose hubs
have stewards. And what a notebook's kernel started outlives it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flute.sdk as flute
from flute.errors import MisuseError, PeerUnreachable, RosterUnsigned
from flute.hub.doors.catalogue_client import CatalogueClient
from flute.local.federation import LocalFederation
from flute.local.run import STEWARD
from support.heart import EXAMPLE

README = """\
import flute.sdk as flute

heart = flute.example("heart")  # four hospitals' tables, SIMULATED
fed = flute.local(heart)  # a coordinator and four hubs, as processes of this machine
study = fed.study("heart", purpose="Tell who is ill.", variables=heart.variables, budget=flute.Budget(epsilon=3))
model = flute.FederatedLogisticRegression("heart_disease", ["age", "sex", "smoker", "chest_pain", "max_heart_rate"])
auc = flute.Evaluate(model)
study.run([model, auc], epsilon=2)
print(auc.auc_, study.budget)
"""
"""From the installation to a first federated AUC; docs/how-to/notebook.md shows these very lines."""
CONDITIONS = flute.Conditions("test", "test", "2099-12-31")
LIMIT_S = 120.0
NIGHT = """\
import os, sys
import flute.sdk as flute
from support.heart import EXAMPLE
url, person = sys.argv[1:]
fed = flute.connect(url, person=person, simulated=True)
study = fed.study("night", purpose="Test.", variables=EXAMPLE.variables, budget=1.0,
                  conditions=flute.Conditions("test", "test", "2099-12-31"))
print(study.start(flute.Describe(["age"]), epsilon=0.5).id, flush=True)
os._exit(9)
"""


ENTRY = """\
flute: 1
dataset: records
address: https://hospital.example.org/data/heart
title: Heart clinic
description: Everyone seen at the clinic.
keywords: [heart disease]
publisher: {name: Example Hospital, type: inpatient-institute, email: data@hospital.example.org}
access_body: {name: Example Access Body, type: national-authority, page: "https://access.example.org"}
contact: {email: data@hospital.example.org}
access: {rights: non-public, page: "https://hospital.example.org/ask", conditions: Under a permit.}
legal_basis: Article 9(2)(j).
purpose: Collected for care.
population: Adults.
provenance: Exported from the clinic's records.
period: {from: 2018-01-01, until: 2024-12-31}
category: [EHRS]
"""


def script(fed: flute.Federation) -> tuple[list[float], float, float, dict[str, Any]]:
    """What a researcher writes once: exact, so that all three have to say the same."""
    study = fed.study("script", purpose="Test.", variables=EXAMPLE.variables, exact=True, conditions=CONDITIONS)
    model = flute.FederatedLogisticRegression("heart_disease", ["age", "sex", "chest_pain"])
    scores = flute.Evaluate(model, bins=16)
    study.run([model, scores], timeout=LIMIT_S)
    agreed, budget, run = study.agreement(), study.budget, next(iter(study.runs))
    said = {name: text for name, text in agreed.to_dict().items() if name not in ("run", "digest", "signed")}
    facts = {
        "catalogue": {offer["hub"] for offer in fed.catalogue().search("chest_pain")},
        "declared": fed.catalogue().variables()["chest_pain"],
        "described": set(fed.catalogue().describe().to_frame().loc["north"].index) >= set(agreed.agreement.fields()),
        "agreement": said,
        "approvals": study.approvals.of(run),
        "opened": {account.hub: account.runs[run]["exact_numbers"] for account in budget.accounts},
        "unbounded": {account.hub for account in budget.accounts if account.dataset and account.dataset["unbounded"]},
        "left": budget.numbers_left,
    }
    return [*model.intercept_, *model.coef_[0]], scores.auc_, model.n_, facts


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, Any]]:
    """What the README's lines left behind, processes included."""
    made: dict[str, Any] = {}
    began = time.monotonic()
    exec(README, made)
    made["seconds"] = time.monotonic() - began
    yield made
    made["fed"].close()


@contextmanager
def stewards(federation: LocalFederation) -> Iterator[list[str]]:
    """Whoever decides at the hubs: consents to what is proposed, at every hub by itself."""
    stop, granted = threading.Event(), list[str]()

    def decide() -> None:
        while not stop.wait(0.1):
            for hub in federation.hubs:
                with federation.hub(hub) as door:
                    for one in door.get("/status")["studies"]:
                        if one["state"] == "proposed":
                            door.decide(one["study"], "grant", person=STEWARD)
                            granted.append(f"{hub}: {one['study']}")

    worker = threading.Thread(target=decide)
    worker.start()
    try:
        yield granted
    finally:
        stop.set()
        worker.join()


def publish(federation: LocalFederation) -> None:
    """What stewards do once: an entry for every dataset, handed to the coordinator ('flute hub catalogue')."""
    for hub in federation.hubs:
        with CatalogueClient(federation.hub_folder(hub)) as door, federation.client() as coordinator:
            door.declare("records", ENTRY, person=STEWARD)
            coordinator.post("/catalogue", door.publish("records", person=STEWARD, shown=True))


def address(federation: LocalFederation) -> str:
    config = federation.coordinator_home.config()
    return f"http://{config.api_host}:{config.api_port}"


@pytest.fixture
def person(names: dict[str, Any], tmp_path: Path) -> Path:
    """The researcher's key on another machine, without what was noted on this one."""
    folder = tmp_path / "ada"
    shutil.copytree(names["fed"].place.federation.person_folder, folder, ignore=shutil.ignore_patterns("studies"))
    folder.chmod(0o700)
    return folder


@pytest.mark.requirement("F-HUF-1")
def test_nine_lines_lead_from_an_installation_to_a_federated_auc(names: dict[str, Any]) -> None:
    lines = [line for line in README.splitlines() if line]
    assert len(lines) < 10
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "notebook.md").read_text(encoding="utf-8")
    assert README in page
    assert names["seconds"] < 300
    assert 0.7 < names["auc"].auc_ < 0.9
    assert "SIMULATED" in repr(names["model"].result_)


@pytest.mark.requirement("F-HUF-1")
def test_one_script_says_the_same_in_three_federations(names: dict[str, Any], person: Path) -> None:
    local = names["fed"].place.federation
    with flute.simulator(EXAMPLE) as simulated:
        expected = script(simulated)
    processes = script(names["fed"])
    publish(local)
    root = names["fed"].fingerprint
    with flute.connect(address(local), person=person, simulated=True, root=root) as real, stewards(local) as granted:
        hubs = script(real)
    assert len(granted) == len(EXAMPLE)
    assert set(expected[3]["approvals"].values()) == {"granted"}
    assert expected[3]["catalogue"] == expected[3]["unbounded"] == set(EXAMPLE)
    for found in (processes, hubs):
        assert np.allclose(found[0], expected[0], rtol=1e-9)
        assert found[1:3] == pytest.approx(expected[1:3], rel=1e-9)
        assert found[3] == expected[3]
    assert not np.allclose(np.array(expected[0]) * (1 + 1e-6), expected[0], rtol=1e-9)


@pytest.mark.requirement("F-PIL-17")
def test_the_hubs_ledgers_charge_what_the_notebook_says(names: dict[str, Any]) -> None:
    study = names["study"]
    budget = study.budget
    assert len(budget.accounts) == len(EXAMPLE)
    for account in budget.accounts:
        mine = sum(account.runs[run]["rho"] for run in study.runs)
        assert mine == pytest.approx(budget.rho_spent, rel=0.01)
        assert account.dataset is not None
    assert budget.spent == pytest.approx(2.0, rel=0.01)
    before = budget.rho_spent
    study.run([names["model"], names["auc"]], epsilon=2)  # looked up
    assert study.budget.rho_spent == before


@pytest.mark.soak
@pytest.mark.requirement("F-PIL-17")
def test_a_steward_who_read_the_first_run_may_let_further_ones_follow(names: dict[str, Any], person: Path) -> None:
    local = names["fed"].place.federation
    with flute.connect(address(local), person=person, simulated=True) as fed:
        study = fed.study("led", purpose="Follow.", variables=EXAMPLE.variables, budget=2.0, conditions=CONDITIONS)
        first = study.start(flute.Describe(["age", "sex"]), epsilon=0.5)
        for hub in local.hubs:
            grant_when_there(local, hub, first.id, alike=2.0)
        first.result(LIMIT_S)
        follows = study.start(flute.Describe(["sex"], bins=8), epsilon=0.5)
        assert follows.result(LIMIT_S).algorithm == "describe"  # no steward was asked
        beyond = study.start(flute.Describe(["smoker"]), epsilon=0.5)  # what the first run did not read
        with pytest.raises(TimeoutError, match="waiting for the consent of"):
            beyond.result(1)
        beyond.cancel()


def grant_when_there(federation: LocalFederation, hub: str, study: str, *, alike: float) -> None:
    deadline = time.monotonic() + LIMIT_S
    with federation.hub(hub) as door:
        while study not in {one["study"] for one in door.get("/status")["studies"]}:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        door.decide(study, "grant", person=STEWARD, alike=alike)


@pytest.mark.requirement("F-HUF-1")
def test_a_run_outlives_the_kernel_that_started_it(names: dict[str, Any], person: Path) -> None:
    local = names["fed"].place.federation
    tests = Path(__file__).resolve().parents[1]
    died = subprocess.run(
        [sys.executable, "-c", NIGHT, address(local), str(person)], capture_output=True, text=True, cwd=tests,
        check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert died.returncode == 9, died.stderr
    run = died.stdout.strip()
    with flute.connect(address(local), person=person, simulated=True) as fed:
        found = fed.attach(run)
        assert found.status()["state"] == "consenting"
        with pytest.raises(TimeoutError, match="waiting for the consent of"):
            found.result(0.3)
        with stewards(local):
            result = found.result(LIMIT_S)
        assert result.algorithm == "describe"
        assert "age" in result.to_frame().index


@pytest.mark.requirement("F-HUF-1")
def test_a_run_that_waits_is_cancelled_and_costs_nothing(names: dict[str, Any], person: Path) -> None:
    with flute.connect(address(names["fed"].place.federation), person=person, simulated=True) as fed:
        study = fed.study("away", purpose="Test.", variables=EXAMPLE.variables, budget=1.0, conditions=CONDITIONS)
        running = study.start(flute.Describe(["age"]), epsilon=1.0)
        assert study.budget.reserved == pytest.approx(1.0, rel=0.01)
        running.cancel("no longer needed")
        with pytest.raises(flute.StudyStopped, match="no longer needed"):
            running.result(LIMIT_S)
        assert study.budget.rho_left == pytest.approx(study.budget.rho)


def test_a_proposal_that_never_arrived_is_no_run(names: dict[str, Any], person: Path) -> None:
    with flute.connect(address(names["fed"].place.federation), person=person, simulated=True) as fed:
        study = fed.study("lost", purpose="Test.", variables=EXAMPLE.variables, budget=1.0, conditions=CONDITIONS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fed.place._client, "propose", unreachable)  # type: ignore[attr-defined]
            with pytest.raises(PeerUnreachable):
                study.start(flute.Describe(["age"]), epsilon=0.5)
        assert study.runs == {}
        assert study.budget.rho_left == study.budget.rho


def unreachable(*_: object) -> None:
    raise PeerUnreachable("The line went dead.")


def test_a_root_that_no_owner_read_out_is_noticed(names: dict[str, Any], person: Path) -> None:
    root = names["fed"].fingerprint
    other = root[:-1] + ("A" if root[-1] != "A" else "B")
    with pytest.raises(RosterUnsigned, match="not the one that was given"):
        flute.connect(address(names["fed"].place.federation), person=person, root=other)


def test_another_federation_than_the_one_that_was_meant_is_noticed(names: dict[str, Any], person: Path) -> None:
    url = address(names["fed"].place.federation)
    with pytest.raises(MisuseError, match="answers federation 'local', not 'pilot'"):
        flute.connect(url, person=person, federation="pilot")
