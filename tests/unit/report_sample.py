"""A realistic report: two studies answered by the real algorithms over made-up patients of three hubs, five
models, private and exact. Only the patients, the ledgers and the traffic are invented here."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec
import numpy as np

from flute.algorithms.contract import Finished, Opened
from flute.data.dataset import Dataset
from flute.questions.registry import algorithm_for
from flute.report.model import (
    Budget,
    Command,
    ComparatorReport,
    HubConditionsReport,
    HubReport,
    JournalReport,
    NoisyCount,
    QuestionReport,
    Report,
    Row,
    StepTime,
    StudyReport,
    ThreatCell,
    TrafficRow,
)
from flute.study.agreement import Agreement
from flute.study.files.file import read_study_file
from flute.study.program import Track, next_step, tracks
from flute.study.protection import RAND_SIZE, cover, prices, uncover
from flute.study.release import HubReceipt, ReleaseReceipt, analysis_plan_digest
from flute.study.threats import promised

HUBS = {"huvh": 1963, "chu": 700, "irst": 400}
MADE_AT = 1_790_000_000
COMMON = """
flute: 1
study: {study}
title: Predicting clinically significant prostate cancer
purpose: Describe three cohorts and compare models that predict significant cancer before a biopsy.
researcher: ada
hubs: [huvh, chu, irst]
simulated: true
dataset: pilot
period: {{from: 2026-01-01, until: 2027-12-31}}
conditions:
  all:
    legal_basis: "DEMO: consent for research, GDPR Art. 6(1)(a) and 9(2)(a); simulated records"
    ethics_approval: "DEMO: none needed for simulated records"
    retain_until: 2032-12-31
variables:
  age: {{kind: number, unit: a, range: [40, 90], centre: 67, spread: 8, label: Age at biopsy}}
  psa: {{kind: number, unit: ng/mL, range: [0.1, 150], log: true, centre: 1.9, spread: 0.65, label: PSA}}
  volume: {{kind: number, unit: cm3, range: [10, 250], log: true, centre: 4, spread: 0.45, label: Prostate volume}}
  dre: {{kind: binary, label: Suspicious rectal examination}}
  family_history: {{kind: binary, label: Family history}}
  repeat_biopsy: {{kind: binary, label: Repeated biopsy}}
  pirads: {{kind: category, levels: [1, 2, 3, 4, 5], reference: 3, label: PI-RADS score}}
  cspca: {{kind: binary, label: Clinically significant cancer}}
"""
MODELS = """
  model:
    algorithm: logistic-regression
    outcome: cspca
    predictors: [age, psa, volume, dre, family_history, repeat_biopsy, pirads]
    share: 0.22
  no-mri:
    algorithm: logistic-regression
    outcome: cspca
    predictors: [age, psa, dre, family_history, repeat_biopsy]
    share: 0.12
"""
PRIVATE = f"""
budget: {{epsilon: 3}}
questions:
  cohort:
    algorithm: describe
    variables: [age, psa, volume, dre, family_history, repeat_biopsy, pirads, cspca]
    per_hub: true
    bins: 32
    share: 0.10
{MODELS}
  own:
    algorithm: logistic-regression
    outcome: cspca
    predictors: [age, psa, volume, dre, family_history, repeat_biopsy, pirads]
    per_hub: true
    share: 0.22
  comparison:
    algorithm: evaluate
    models: [model, no-mri, own]
    by: pirads
    bins: 32
    share: 0.32
"""
EXACT = "exact: {max_numbers: 4000}\nquestions:" + MODELS.replace("    share: 0.22\n", "").replace(
    "    share: 0.12\n", ""
)


@functools.cache
def sample() -> Report:
    studies = tuple(study_report(name) for name in ("pilot", "pilot-exact"))
    return Report(
        title="Predicting clinically significant prostate cancer",
        simulated=True,
        made_at=MADE_AT,
        federation="demo",
        version="0.1.0",
        studies=studies,
        hubs=tuple(hub_report(hub, n) for hub, n in HUBS.items()),
        traffic=traffic(),
        steps=tuple(
            StepTime(name, seconds)
            for name, seconds in (
                ("Simulate three hospitals' records (FHIR R4, labelled SIMULATED)", 3.2),
                ("Make keys, certificates and a roster that the hub owners sign", 2.4),
                ("Start coordinator and hubs as separate processes", 4.1),
                ("Import the records at each hub, into its own store", 6.8),
                ("Study pilot: consents, rounds, results", 9.7),
                ("Study pilot-exact: consents, rounds, results", 5.5),
                ("Verify the hubs' journals, line by line", 0.31),
            )
        ),
        peak_memory_bytes=1_120 * 2**20,
        commands=(
            Command("flute audit show work/federation/huvh --last 20", "what a hub journaled"),
            Command("flute audit verify work/federation/huvh", "whether its journal holds"),
        ),
        comparators=(
            ComparatorReport("BCN1, no MRI (external)", 0.837, "Cancers 2022;14:5100"),
            ComparatorReport("PBCG", None, "Cleveland Clinic risk calculators"),
        ),
    )


def agreement_of(name: str) -> Agreement:
    own = PRIVATE if name == "pilot" else EXACT
    return read_study_file(COMMON.format(study=name) + own, path=name, code=bytes(32))[0]


def study_report(name: str) -> StudyReport:
    agreement = agreement_of(name)
    variables = {v.variable.name: v for v in agreement.variables}
    condition = next(iter(agreement.conditions.values()))
    return StudyReport(
        id=name,
        title=agreement.title,
        mode=agreement.mode,
        purpose=agreement.purpose,
        epsilon=agreement.epsilon or None,
        delta=agreement.delta or None,
        statement=(
            "Exact answers have no bound (epsilon = infinity): nothing limits what can be concluded from them."
            if agreement.mode == "exact"
            else "Compared with not taking part, what anyone can conclude about one patient changes the odds by at "
            "most a factor of 27, except with a chance of at most 1 in 1,000,000."
        ),
        plan="secagg: the coordinator sees only the total of all hubs, covered by every hub's noise.",
        agreement=(Row("Researcher", agreement.researcher), Row("Fields", ", ".join(agreement.fields()))),
        conditions=tuple(
            HubConditionsReport(hub, condition.legal_basis, condition.ethics_approval, condition.retain_until)
            for hub in agreement.hubs
        ),
        cells=tuple(ThreatCell(c.parties, c.enclaves, c.holds, c.because, c.test) for c in promised(agreement)),
        questions=tuple(
            QuestionReport(q.id, str(q.what.__struct_config__.tag), q.scope, q.share or None)
            for q in agreement.questions
        ),
        results=results_of(agreement),
        receipts=receipts(agreement),
        labels={k: v.variable.label for k, v in variables.items()},
        units={k: v.variable.unit for k, v in variables.items() if v.variable.unit},
        references={k: v.reference_level for k, v in variables.items() if v.reference_level},
        analysis_plan=analysis_plan_digest(agreement.questions),
    )


def results_of(agreement: Agreement) -> dict[str, dict]:
    """Every question answered over made-up patients, with the real noise of the study's own prices."""
    rng = np.random.default_rng(7)
    cohorts = {hub: cohort(agreement, hub, rng) for hub in agreement.hubs}
    results: dict[str, dict] = {}
    for group in tracks(agreement):
        for track in group:
            results[track.reference] = answer(agreement, track, cohorts, results, rng)
    # as they come out of the store
    return msgspec.json.decode(msgspec.json.encode(results))


def answer(agreement: Agreement, track: Track, cohorts: dict[str, Dataset], results: dict, rng) -> dict:
    history: list[Opened] = []
    algorithm, what = algorithm_for(track.question.what), track.question.what
    asked = [track.party] if track.party else list(cohorts)
    steps = prices(agreement, track.question)
    while not isinstance(step := next_step(agreement, track, history, results), Finished):
        price = steps[len(history)]
        parts = [
            cover(
                algorithm.update(what, agreement.setting, len(history), step.parameters, cohorts[hub]),
                price,
                hubs=len(asked),
                rand=rng.bytes(RAND_SIZE),
            )
            for hub in asked
        ]
        history.append(Opened(step.parameters, *uncover(sum(parts), price)))
    return step.result


def cohort(agreement: Agreement, hub: str, rng) -> Dataset:
    n, shift = HUBS[hub], {"huvh": 0.0, "chu": 0.35, "irst": -0.25}[hub]
    age = np.clip(np.round(67 + 7 * rng.standard_normal(n)), 45, 85)
    volume = np.clip(np.exp(4 + 0.45 * rng.standard_normal(n)), 15, 240)
    psa = np.clip(np.exp(1.9 + shift / 2 + 0.5 * rng.standard_normal(n)), 0.5, 140)
    dre, fh, rep = (rng.random(n) < p for p in (0.22 + shift / 10, 0.09, 0.27))
    eta = -0.6 + shift + 0.05 * (age - 67) + 1.2 * (np.log(psa) - 1.9) - 1.3 * (np.log(volume) - 4)
    y = rng.random(n) < 1 / (1 + np.exp(-(eta + 1.1 * dre + 0.45 * fh - 0.8 * rep)))
    table = np.array([[0.185, 0.108, 0.382, 0.288, 0.037], [0.018, 0.016, 0.112, 0.570, 0.284]])
    pirads = np.array([rng.choice(5, p=table[int(v)]) for v in y], dtype=float)
    columns = {
        "age": age, "psa": psa, "volume": volume, "dre": dre * 1.0, "family_history": fh * 1.0,
        "repeat_biopsy": rep * 1.0, "pirads": pirads, "cspca": y * 1.0,
    }  # fmt: skip
    for name, share in (("dre", 0.08), ("family_history", 0.05)):
        columns[name][rng.random(n) < share] = np.nan
    names = np.array([f"{hub}-{i}" for i in range(n)])
    return Dataset(names, columns, [v.variable for v in agreement.variables])


def receipts(agreement: Agreement) -> tuple[ReleaseReceipt, ...]:
    return tuple(
        ReleaseReceipt(
            study=agreement.study,
            question=q.id,
            step=step,
            hubs=tuple(agreement.hubs),
            roster_version=4,
            agreement="ab" * 32,
            code="cd" * 32,
            plan="secagg",
            mode=agreement.mode,
            rho=price.rho,
            numbers=price.numbers,
            total=f"{i:02x}" * 32,
            journal=tuple(HubReceipt(hub, "ef" * 32, 10 + i, "01" * 32) for hub in agreement.hubs),
        )
        for i, q in enumerate(agreement.questions)
        for step, price in list(enumerate(prices(agreement, q)))[:3]
    )


def hub_report(hub: str, n: int) -> HubReport:
    return HubReport(
        hub=hub,
        patients=NoisyCount(n + 11.4, 14.2),
        budget_before=Budget(0.0, 4.0, 1.0, "Nothing was asked yet: nothing can be learnt."),
        budget_after=Budget(
            epsilon=2.99,
            epsilon_left=0.62,
            odds_factor=26.7,
            sentence=(
                "Exact answers have no bound (epsilon = infinity): nothing limits what can be concluded from them; "
                "noised answers add at most a further change of the odds by a factor of 27, except with a chance of "
                "at most 1 in 1,000,000."
            ),
            unbounded=True,
        ),
        journal=JournalReport(78, "every line holds; the head is signed by the hub", "9f" * 32),
    )


def traffic() -> tuple[TrafficRow, ...]:
    rows = []
    for hub in HUBS:
        rows += [
            TrafficRow("coordinator", hub, "proposal", 2, 6_120, "the study agreement, signed by the researcher"),
            TrafficRow(
                "coordinator", hub, "secure-question", 21, 48_300, "the question's id and parameters, tickets"
            ),
            TrafficRow(hub, "coordinator", "masked-answer", 21, 139_400, "one vector under masks; a receipt"),
            TrafficRow(hub, "coordinator", "own-total", 4, 21_400, "one sum of this hub under its own full noise"),
        ]
    return tuple(rows)


def write_sample(folder: Path) -> Path:
    """For looking at it: `python -c "from unit.report_sample import …"` from tests/."""
    from flute.report.render import render_html

    path = folder / "report.html"
    path.write_text(render_html(sample()), encoding="utf-8")
    return path
