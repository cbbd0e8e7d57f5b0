"""Attacks before and after: membership, reconstruction, inference (row 9), poisoning by one hub of five (row 11).

    python benchmarks/attacks.py [--quick] [--json]

Everything runs on SIMULATED patients through the code that hubs run (`flute.attacks`), the whole budget of a study at
epsilon 1 (row 9) or 3 (row 11), delta 1e-6, three hubs of which one colludes (row 11: five). Intervals are at 95 %;
for membership a row holds where the whole interval does. Goals of row 9: at least .5 in clear, at most
(e - 1 + 2 delta)/(e + 1) = .462 under the plan. Row 11's goal, a loss of AUC of at most .01, is judged for the plans
that claim the cells of row D; none does for every question, so figures of sums are told and not judged, except where
clipping by the hub's own service is what is claimed. `robust-model`, which claims it for itself, is judged.

A deep network and a generator join when the project has them. `--quick` has a quarter of the trials.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.attacks import inference, inversion, membership, poisoning, updates
from flute.attacks.chance import Chance
from flute.attacks.figures import Figure, dp_advantage
from flute.attacks.records import simulated
from flute.attacks.releases import longest_asks, protected, unprotected
from flute.attacks.trial import Found, Trial
from flute.study.agreement import Agreement
from support.attack_pictures import pictures
from support.attack_studies import FIVE, mixed, subject, wide
from support.robust_attacks import POISONS, Scene, bent

COLUMNS, QUICK_COLUMNS = 40, 20
PICTURES = 20
LEAST_IN_CLEAR, MOST_AUC_LOSS = 0.5, 0.01


def main() -> None:
    args = options(__doc__ or "")
    for row in rows(args.quick):
        show(row, as_json=args.json)


def rows(quick: bool) -> Iterator[Row]:
    yield from row_nine(quick)
    yield from picture_rows(quick)
    yield from row_eleven(quick)
    yield from robust_rows(quick)


def trial(agreement: Agreement, seed: str, effort: float) -> Trial:
    return Trial(subject(agreement), Chance(seed.encode()), effort)


# --- row 9 -------------------------------------------------------------------------------------------


def row_nine(quick: bool) -> Iterator[Row]:
    effort = 0.35 if quick else 2.0
    columns = QUICK_COLUMNS if quick else COLUMNS
    model = membership.of_a_model(trial(wide(columns, 1.0), "model", effort))
    yield from member_rows(f"LiRA, {columns + 1} columns, as many patients, half in", model, judged=True)
    yield from member_rows("loss threshold, the same models", by_detail(model, "advantage by loss"), judged=True)
    small = trial(mixed(1.0), "small", effort)
    for name, attack in (
        ("gradients over rounds, likelihood ratio", updates.of_sums),
        ("coordinator chooses what is asked", updates.cheating_coordinator),
        ("two releases that differ by a patient", updates.difference),
    ):
        yield from member_rows(name, attack(small), judged=True)
    audit = updates.audited(small)
    yield Row("audit, lower bound in clear", audit.unprotected.value, "epsilon", "", "none is claimed", None)
    yield Row(
        "audit, lower bound at epsilon 1", audit.protected.value, "epsilon", f"at most {audit.bound:.3f}", "charged",
        audit.protected.value <= (audit.bound or 0.0),
    )  # fmt: skip
    yield from bounded("fields of a record read", inversion.reconstruction(small))
    yield from bounded("attribute of a known patient, of two", inference.attribute(small))
    guessed = inference.attribute_of_a_model(trial(wide(columns, 1.0), "margins", effort))
    yield from bounded("attribute of a member, of two, from the model", guessed)
    yield from bounded("property of a hub, of two", inference.property_share(small))


def by_detail(found: Found, name: str) -> Found:
    return Found(*found.details[name], found.bound, {})


def member_rows(name: str, found: Found, *, judged: bool) -> Iterator[Row]:
    clear, covered = found.unprotected, found.protected
    bound = dp_advantage(1.0, 1e-6)
    yield Row(
        f"membership advantage in clear, {name}", clear.value, "", f"at least {LEAST_IN_CLEAR}", ends(clear),
        clear.low >= LEAST_IN_CLEAR if judged else None,
    )  # fmt: skip
    yield Row(
        f"membership advantage at epsilon 1, {name}", covered.value, "", f"at most {bound:.3f}", ends(covered),
        covered.high <= bound,
    )  # fmt: skip
    for detail, (before, after) in found.details.items():
        yield Row(f"{detail} in clear, {name}", before.value, "", "", ends(before), None)
        yield Row(f"{detail} at epsilon 1, {name}", after.value, "", "", ends(after), None)


def bounded(name: str, found: Found) -> Iterator[Row]:
    bound = found.bound or 1.0
    yield Row(f"{name}, in clear", found.unprotected.value, "", "", ends(found.unprotected), None)
    yield Row(
        f"{name}, at epsilon 1", found.protected.value, "", f"at most {bound:.3f}", ends(found.protected),
        found.protected.low <= bound,
    )  # fmt: skip


def ends(figure: Figure) -> str:
    return f"95 % interval {figure.low:.3f} to {figure.high:.3f}, {figure.method}"


# --- pictures ------------------------------------------------------------------------------------------


def picture_rows(quick: bool) -> Iterator[Row]:
    """8 x 8 pixels as a study's 64 variables, so that the plan's own road covers them."""
    attacked = subject(wide(64, 1.0))
    names, asks, chance = attacked.model.predictors, longest_asks(attacked)[:2], Chance(b"pictures")
    levels = []
    for shown in pictures(PICTURES // 4 if quick else PICTURES, 8, seed=3):
        fixed = {name: np.array([pixel]) for name, pixel in zip(names, shown.ravel(), strict=True)}
        patient = simulated(attacked.setting, attacked.fields, 1, chance, fixed)
        there = dict.fromkeys(attacked.hubs, patient.where(np.zeros(1, dtype=bool))) | {"north": patient}
        seen = (
            unprotected(attacked, there, asks=asks, steps=2).steps,
            protected(attacked, there, chance, asks=asks, steps=2).steps,
        )
        found = [inversion.record(attacked.model, attacked.setting, list(steps)) for steps in seen]
        levels.append([inversion.psnr(np.array([f[n] for n in names]), shown.ravel()) for f in found])
    clear, covered = np.array(levels).T
    worst, best, said = float(clear.min()), float(covered.max()), f"{len(levels)} SIMULATED pictures, 8 x 8"
    yield Row("picture from a gradient, worst PSNR in clear", worst, "dB", "at least 30", said, worst >= 30)
    yield Row("picture from a gradient, best PSNR at epsilon 1", best, "dB", "at most 12", said, best <= 12)
    grey = [inversion.psnr(np.full(64, 0.5), p.ravel()) for p in pictures(len(levels), 8, seed=3)]
    yield Row("a grey square instead, mean PSNR", float(np.mean(grey)), "dB", "", said, None)


# --- row 11 --------------------------------------------------------------------------------------------


def row_eleven(quick: bool) -> Iterator[Row]:
    effort = 0.35 if quick else 2.0
    study = trial(mixed(3.0, hubs=FIVE), "poison", effort)
    for name, attack, claimed in (
        ("labels flipped", poisoning.flipped, False),
        ("records x100, which the service drops or clips", poisoning.scaled, True),
        ("backdoor", poisoning.backdoor, False),
        ("free rider", poisoning.free_riding, False),
        ("a hub's whole answer x100, after its service", poisoning.scaled_by_a_hub, False),
    ):
        yield from poison_rows(name, attack(study), claimed=claimed)
    tight = trial(mixed(3.0, hubs=FIVE, most=250), "poison", effort)
    found = poisoning.scaled_by_a_hub(tight)
    yield from poison_rows("a hub's whole answer x100, max_patients 250", found, claimed=True)
    stopped = found.details["stopped"][1]
    yield Row("of these rounds stopped, nobody named", stopped.value, "", "1", ends(stopped), stopped.value == 1)


def robust_rows(quick: bool) -> Iterator[Row]:
    """The same poisons, and a hub that cheats with its vote, against `robust-model` (plan mpc, exact)."""
    scene = Scene()
    for name, poison in POISONS.items():
        found = bent(scene, poison, 6 if quick else 40)
        unprotected = found.mean_loss if poison.ballot else found.pooled_loss
        without = "mean of votes" if poison.ballot else "pooled fit"
        yield Row(f"AUC loss of the {without}, {name}", unprotected.value, "", "", ends(unprotected), None)
        yield Row(
            f"AUC loss of robust-model, {name}", found.robust_loss.value, "", f"at most {MOST_AUC_LOSS}",
            ends(found.robust_loss), found.robust_loss.high <= MOST_AUC_LOSS,
        )  # fmt: skip
        if name.startswith("backdoor"):
            trigger = found.pooled_trigger
            yield Row(f"trigger works on the pooled fit, {name}", trigger.value, "", "", ends(trigger), None)
            trigger = found.robust_trigger
            yield Row(
                f"trigger works on robust-model, {name}", trigger.value, "", "at most 0.05", ends(trigger),
                trigger.value <= 0.05,
            )  # fmt: skip
    cost = bent(scene, POISONS["labels flipped"], 6 if quick else 40).efficiency
    yield Row("AUC that robust-model gives up, nobody poisons", cost.value, "", "", ends(cost), None)


def poison_rows(name: str, found: Found, *, claimed: bool) -> Iterator[Row]:
    loss = found.details.get("AUC loss", (found.unprotected, found.protected))
    trigger = found.details.get("backdoor", (found.unprotected, found.protected))
    goal = f"at most {MOST_AUC_LOSS}" if claimed else ""
    yield Row(f"AUC loss in clear, {name}", loss[0].value, "", "", ends(loss[0]), None)
    yield Row(
        f"AUC loss at epsilon 3, {name}", loss[1].value, "", goal, ends(loss[1]),
        loss[1].value <= MOST_AUC_LOSS if claimed else None,
    )  # fmt: skip
    if name == "backdoor":
        yield Row("trigger works in clear", trigger[0].value, "", "", ends(trigger[0]), None)
        yield Row("trigger works at epsilon 3", trigger[1].value, "", "", ends(trigger[1]), None)


if __name__ == "__main__":
    main()
