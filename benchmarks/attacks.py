"""Attacks before and after: membership, reconstruction, inference (row 9), poisoning by one hub of five (row 11).

    python benchmarks/attacks.py [--quick] [--json]

Everything runs on SIMULATED patients through the code that hubs run (`flute.attacks`), the whole budget of a study at
epsilon 1 (row 9) or 3 (row 11), delta 1e-6, three hubs of which one colludes (row 11: five). Intervals are at 95 %;
for membership a row holds where the whole interval does. Goals of row 9: at least .5 in clear, at most
(e - 1 + 2 delta)/(e + 1) = .462 under the plan. Row 11's goal, a loss of AUC of at most .01, is judged for the plans
that claim the cells of row D; none does for every question, so figures of sums are told and not judged, except where
clipping by the hub's own service is what is claimed. `robust-model`, which claims it for itself, is judged.

Networks: a small convolutional one on scikit-learn's digits and on SIMULATED pictures, plain federated averaging in
clear, the plan at epsilon 1; without torch they are left out, visibly. Goal of pictures: more than 25 dB in clear for
most, under the plan no more than a blank guess. A generator joins when the project has one. `--quick` has about a
quarter of the trials.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from rows import Row, options, show

from flute.attacks import inference, inversion, membership, networks, poisoning, updates
from flute.attacks.chance import Chance
from flute.attacks.figures import Figure, dp_advantage
from flute.attacks.records import simulated
from flute.attacks.releases import longest_asks, protected, unprotected
from flute.attacks.trial import Found, Trial
from flute.study.agreement import Agreement
from support.attack_networks import cnn, digit_images, digits
from support.attack_pictures import pictures
from support.attack_studies import FIVE, mixed, subject, wide
from support.robust_attacks import POISONS, Scene, bent

COLUMNS, QUICK_COLUMNS = 40, 20
PICTURES = 20
LEAST_IN_CLEAR, MOST_AUC_LOSS = 0.5, 0.01
CLEAR_DB = 25.0


def main() -> None:
    args = options(__doc__ or "")
    for row in rows(args.quick):
        show(row, as_json=args.json)


def rows(quick: bool) -> Iterator[Row]:
    yield from row_nine(quick)
    yield from picture_rows(quick)
    yield from network_rows(quick)
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


# --- networks ------------------------------------------------------------------------------------------


def network_rows(quick: bool) -> Iterator[Row]:
    if find_spec("torch") is None:
        yield Row("attacks on networks, left out", 0.0, "", "", "torch is not installed", None)
        return
    import torch

    torch.set_num_threads(1)  # tensors are tiny: more threads take longer
    yield from network_pictures(quick)
    yield from crowd_pictures()
    yield from network_members(quick)


def network_pictures(quick: bool) -> Iterator[Row]:
    """A patient alone at her hub; under the plan alone in the whole sum."""
    from flute.attacks import network_inversion

    attacked, count = trial(cnn(1.0), "network pictures", 1.0), 4 if quick else PICTURES
    images, _ = digit_images(count, seed=3)
    levels = []
    for k, shown in enumerate(images):
        chance = Chance(b"network picture %d" % k)
        patient = simulated(attacked.subject.setting, ("scan", "ill"), 1, chance, {"scan": shown[None]})
        found = [
            network_inversion.inverted(who, carried.steps, chance).image
            for who, carried in network_inversion.seen_alone(attacked, patient, chance)
        ]
        levels.append([inversion.psnr((image + 1) / 2, shown / 16) for image in found])
    clear, covered = np.array(levels).T
    blank = blank_levels(images)
    said = f"{count} digits, 8 x 8, one round of federated averaging"
    part = float((clear > CLEAR_DB).mean())
    yield Row("picture from a CNN's update in clear, PSNR (median)", float(np.median(clear)), "dB", "", said, None)
    yield Row("the same above 25 dB", part, "", "more than 0.5", said, part > 0.5)
    guess, level = float(blank.mean()), float(covered.mean())
    yield Row(
        "picture from a CNN's steps at epsilon 1, PSNR (mean)", level, "dB", f"at most {guess:.1f}",
        f"the mean of other digits instead: {guess:.1f} dB; best of these {covered.max():.1f}", level <= guess,
    )  # fmt: skip


def blank_levels(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """PSNR of a guess that looks at nothing: the mean of other digits."""
    others, _ = digit_images(1000, seed=99)
    middle = others.mean(axis=0) / 16
    return np.array([inversion.psnr(middle, shown / 16) for shown in images])


def crowd_pictures() -> Iterator[Row]:
    """What secure aggregation does by itself: the exact sum over two honest hubs (the third colludes and takes off
    its part) is inverted as if it were one patient's, and compared with whoever is most like what comes out."""
    from flute.attacks import network_inversion

    for training, local in (("{rounds: 1, batch: 256}", "one step"), ("{rounds: 1}", "batches of 32")):
        attacked = trial(cnn(None, training), "crowd", 1.0)
        there = {hub: digits(attacked, 150, seed) for seed, hub in enumerate(attacked.subject.hubs)}
        images = np.concatenate([data.images("scan") for data in there.values()])
        seen = (
            ("a hub of 150 in clear", unprotected(attacked.subject, there, steps=1).steps),
            ("two honest hubs of 150, secagg alone", protected(attacked.subject, there, Chance(b""), steps=1).steps),
        )
        for name, steps in seen:
            found = network_inversion.inverted(attacked.subject, steps, Chance(b"crowd")).image
            nearest = max(inversion.psnr((found + 1) / 2, shown / 16) for shown in images)
            same = max(inversion.psnr(images.mean(axis=0) / 16, shown / 16) for shown in images)
            yield Row(
                f"picture from an update of {name}, {local}: best PSNR of any of theirs", nearest, "dB", "",
                f"the mean of all their pictures: {same:.1f} dB", None,
            )  # fmt: skip


def network_members(quick: bool) -> Iterator[Row]:
    attacked = trial(cnn(1.0), "network members", 1.0)
    pool = attacked.patients(32, Chance(b"network pool"))
    sets = [("CNN of 32 SIMULATED pictures", pool, 20 if quick else 120, True)]
    if not quick:
        sets.append(("CNN of 32 digits, outcomes as coins", digits(attacked, 32, 1, coins=True), 60, False))
        sets.append(("CNN of 32 digits, at least 5?", digits(attacked, 32, 2), 60, False))
    for name, patients, models, judged in sets:
        found = networks.networks_played(attacked, patients, models)
        yield from member_rows(f"LiRA, {name}", membership.found_of(attacked, *found), judged=judged)


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
