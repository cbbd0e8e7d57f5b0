"""A researcher's own code at a hub: nothing runs that the owner did not allow and a steward did not read, failures
that depend on records show in nothing, those that do not are told with their line before a record is read."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flute.errors import CodeNotApproved, NotPossible, SandboxRefusal, StudyFileError
from flute.hub.rounds import own_code
from flute.hub.store import HubPolicy
from flute.sandbox.limits import Offer
from flute.sandbox.machine import available
from flute.study.agreement import Agreement
from flute.study.files.check import check_study
from support.inprocess import InProcessFederation
from support.inprocess import TestHub as HubAtTest
from support.studies import study

GOOD = """\
import numpy as np

def step(rows, parameters):
    age, ill = rows[0]
    if np.isnan(age) or np.isnan(ill):
        return [0.0, 0.0]
    return [ill, (age - 60) / 40 * ill]
"""
N = 20


def asking(code: str, protection: str = "budget: {epsilon: 3}", **changed: object) -> Agreement:
    body = "".join(f"      {line}\n" for line in code.splitlines())
    elements = {"outputs": 2, "clip_norm": 1.5, "seconds": 1, "memory_mb": 64} | changed
    lines = "".join(f"    {name}: {value}\n" for name, value in elements.items())
    share = "    share: 1\n" if protection.startswith("budget") else ""
    made = study(
        protection,
        f"  own:\n    algorithm: own-step\n    variables: [age, ill]\n    code: |\n{body}{lines}{share}",
    )
    return msgspec.structs.replace(made, max_patients=N)


def people(seed: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {"age": chance.uniform(30, 90, N), "ill": chance.integers(0, 2, N).astype(float)}


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[InProcessFederation]:
    try:
        available().require()
    except SandboxRefusal as refusal:
        if os.environ.get("CI"):
            raise
        pytest.skip(refusal.text)
    base = asking(GOOD)
    data = {hub: people(k) for k, hub in enumerate(base.hubs)}
    used = [v.variable for v in base.variables if v.variable.name in data["north"]]
    made = InProcessFederation(
        tmp_path, data, used, policy=HubPolicy(epsilon=5, epsilon_all=10, own_code_allowed=True)
    )  # fmt: skip
    yield made
    made.close()


@pytest.mark.requirement("F-PIL-23")
def test_sums_of_own_code_come_out_under_noise(fed: InProcessFederation) -> None:
    release = fed.run(asking(GOOD))
    result = release["results"]["own"]
    pooled = np.zeros(2)
    for hub in fed.hubs.values():
        columns = hub.source.columns
        pooled += [columns["ill"].sum(), ((columns["age"] - 60) / 40 * columns["ill"]).sum()]
    assert result["noise_se"] > 0
    assert np.abs(np.array(result["sums"]) - pooled).max() < 6 * result["noise_se"]  # false alarm 4e-9


def test_it_runs_nowhere_unless_the_owner_allows_it(fed: InProcessFederation) -> None:
    agreement = asking(GOOD)
    fed.propose(agreement)
    hub = fed.hubs["north"]
    hub.parts.store.put_policy(HubPolicy())
    with pytest.raises(CodeNotApproved, match="--own-code"):
        hub.steward.decide(agreement.study, grant=True, person="eva")


def test_a_permission_that_was_taken_back_counts_at_once(fed: InProcessFederation) -> None:
    agreement = asking(GOOD)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.hubs["north"].parts.store.put_policy(HubPolicy(epsilon=5, epsilon_all=10))
    fed.runner.run(agreement.study)
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert row.state in ("stopped", "failed")
    assert "own code" in row.why


def test_code_that_fails_on_invented_rows_is_told_with_its_line_and_nothing_is_read(fed: InProcessFederation) -> None:
    agreement = asking("def step(rows, parameters):\n    return [1.0, rows[0][7]]\n")
    fed.propose(agreement)
    with pytest.raises(NotPossible, match=r"IndexError in its line 2"):
        fed.hubs["north"].steward.decide(agreement.study, grant=True, person="eva")
    assert fed.hubs["north"].source.opened == []


def test_code_that_fails_on_somebody_counts_her_as_zero_and_says_so_to_the_steward_alone(
    fed: InProcessFederation, caplog: pytest.LogCaptureFixture
) -> None:
    """The code raises on the very value of one patient; her hub answers like any other."""
    secret = float(fed.hubs["north"].source.columns["age"][3])
    code = GOOD.replace(
        "    if np.isnan", f"    if age == {secret!r}:\n        raise ValueError(str(age))\n    if np.isnan"
    )
    with caplog.at_level(logging.WARNING, logger="flute.hub"):
        release = fed.run(asking(code))
    assert release["results"]["own"]["noise_se"] > 0
    assert "failed on 1 patients" in caplog.text
    assert str(secret) not in repr(release)
    for hub in fed.hubs.values():
        assert all("ValueError" not in line.entry.says() for line in hub.parts.journal.lines())


def test_more_patients_than_the_agreed_time_serves_are_told_to_the_researcher() -> None:
    slow = asking(GOOD, memory_mb=2048)
    with pytest.raises(StudyFileError, match=r"serve \d+; max_patients is 20"):
        check_study(slow)


@pytest.mark.requirement("F-PIL-14")
def test_a_hub_that_has_too_little_for_it_refuses_before_anything_is_charged(
    fed: InProcessFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_code, "offer_of_machine", lambda: Offer(memory_bytes=2**20))
    agreement = asking(GOOD)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)
    fed.settle()
    row = fed.rounds.study(agreement.study)
    assert row is not None
    assert "bytes of memory" in row.why
    for hub in fed.hubs.values():
        assert list(hub.parts.journal.lines(kinds=("reserved",))) == []
        assert hub.source.opened == []


@pytest.mark.requirement("F-PIL-14")
def test_a_stopped_study_frees_every_hub_within_two_seconds(fed: InProcessFederation) -> None:
    """Hubs are busy with code that takes a minute when the coordinator says that the study is stopped."""
    agreement = asking(GOOD, seconds=60)
    fed.propose(agreement)
    fed.consent(agreement.study)
    fed.runner.run(agreement.study)
    ended = threading.Event()
    serving = [threading.Thread(target=h.service.serve, args=(ended,), daemon=True) for h in fed.hubs.values()]
    for thread in serving:
        thread.start()
    try:
        _pump_until(fed, lambda: all(busy(hub) for hub in fed.hubs.values()), within_s=30)
        time.sleep(0.5)  # the sandbox has started
        fed.runner.stop(agreement.study, "on request")
        _pump_until(fed, lambda: all(closed(hub, agreement.study) for hub in fed.hubs.values()), within_s=2)
    finally:
        ended.set()
        for thread in serving:
            thread.join(10)
    for hub in fed.hubs.values():
        assert list(hub.parts.journal.lines(kinds=("released",))) == []


def busy(hub: HubAtTest) -> bool:
    return hub.source.opened != []


def closed(hub: HubAtTest, study: str) -> bool:
    return hub.parts.store.study(study).state == "closed"


def _pump_until(fed: InProcessFederation, reached: Callable[[], bool], *, within_s: float) -> None:
    """The coordinator's part, while hubs serve in threads of their own."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < within_s
        while (delivery := fed.channel.receive(0.02)) is not None:
            fed.runner.receive(delivery.body)
            fed.channel.done(delivery)


def test_there_is_no_exact_mode() -> None:
    exact = asking(GOOD, "exact: {max_numbers: 100}")
    with pytest.raises(StudyFileError, match="private studies only"):
        check_study(exact)
