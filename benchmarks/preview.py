"""Previewed errors beside measured ones, over 200 runs of the whole road but masks and messages.

    python benchmarks/preview.py [--quick] [--json]

Eight numbers and a flag, 2,000 patients at each of three hubs, drawn anew from what the preview assumes of them:
a table with 20 bins a number, and a logistic regression. Every answer is clipped, rounded and covered at every hub as
in a study (`study.protection`). A kind's figure is the root of the mean squared ratio of measured to previewed errors
over all its numbers. Anchor: the exact result of the same patients, of which errors are taken.
The model is measured over fifty cohorts, four answers each: what a fit of few steps leaves differs between cohorts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.study.agreement import Agreement
from flute.study.preview import cheapest, foreseen, read_accuracy
from support.previewed import ASSUMED, Measured, by_kind, cohorts_measured, drawn_hubs, measured_errors, preview_study

RUNS, QUICK_RUNS, EACH = 200, 40, 4
EPSILONS, QUICK_EPSILONS = (1.0, 2.0, 4.0), (2.0,)
TOLERANCE = 0.10


def main() -> None:
    args = options(__doc__ or "")
    runs = QUICK_RUNS if args.quick else RUNS
    study = preview_study()
    for epsilon in QUICK_EPSILONS if args.quick else EPSILONS:
        asked = msgspec.structs.replace(study, epsilon=epsilon)
        for row in ratios(asked, runs):
            show(row, as_json=args.json)
    for row in search(study):
        show(row, as_json=args.json)


def ratios(study: Agreement, runs: int) -> list[Row]:
    table, model = study.questions
    found = []
    for question in (table, model):
        start = time.process_time()
        expected = {n.what: n.sd for n in foreseen(study, question, ASSUMED).numbers}
        took = time.process_time() - start
        if question is table:
            errors = measured_errors(Measured(study, table, drawn_hubs(study, seed=1), 7, whole=True), runs)
        else:
            errors = cohorts_measured(study, model, cohorts=runs // EACH, each=EACH, whole=True)
        for kind, ratio in by_kind(errors, expected).items():
            held = 1 - TOLERANCE <= ratio <= 1 + TOLERANCE
            name = f"{question.id}: measured over previewed error, {kind}, epsilon {study.epsilon:g}, {runs} runs"
            found.append(Row(name, ratio, "", "0.9 to 1.1", "exact result of the same patients", held))
        found.append(Row(f"{question.id}: preview, epsilon {study.epsilon:g}", took, "s of processor", "", "-", None))
    return found


def search(study: Agreement) -> list[Row]:
    start = time.process_time()
    found = cheapest(study, "table", read_accuracy("2 % of patients", "*.count"), ASSUMED, draws=60)
    took = time.process_time() - start
    asked = "counts within 2 % of patients, 6,000 of them"
    return [
        Row(f"cheapest epsilon: {asked}", found.epsilon, "", "", "bisection over prices", None),
        Row("cheapest epsilon: time to find it", took, "s of processor", "", "-", None),
    ]


if __name__ == "__main__":
    main()
