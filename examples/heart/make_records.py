"""Write the four hospitals' records of this example: SIMULATED, the same bytes every time.

Run it anywhere: `python examples/heart/make_records.py` rewrites north.csv, south.csv, east.csv, west.csv.
Nobody's records went into this. The effects are invented; do not read medicine into them.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from statistics import NormalDist

SEED = 20260101
COLUMNS = "patient,age,sex,pressure,cholesterol,smoker,chest_pain,max_heart_rate,heart_disease"
PAIN = ("none", "atypical", "typical")
HOSPITALS = {
    # patients, mean age, share of men, share of smokers, share of missing (pressure, cholesterol, smoker, heart rate)
    "north": (900, 61, 0.58, 0.22, (0.01, 0.04, 0.02, 0.03)),
    "south": (650, 57, 0.52, 0.31, (0.02, 0.08, 0.05, 0.05)),
    "east": (450, 64, 0.61, 0.26, (0.00, 0.12, 0.09, 0.02)),
    "west": (350, 59, 0.49, 0.19, (0.03, 0.02, 0.12, 0.08)),
}
_NORMAL = NormalDist()


def normal(chance: random.Random) -> float:
    """From `Random.random` alone, whose sequence Python promises to keep."""
    return _NORMAL.inv_cdf(max(chance.random(), 1e-12))


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def patient(chance: random.Random, mean_age: float, men: float, smokers: float) -> list[str]:
    """One invented patient: everything but the id."""
    age = round(min(max(mean_age + 10 * normal(chance), 30), 90))
    sex = "m" if chance.random() < men else "f"
    smoker = int(chance.random() < smokers)
    pressure = round(128 + 0.5 * (age - 60) + 4 * smoker + 16 * normal(chance))
    cholesterol = round(math.exp(math.log(5.4) + 0.18 * normal(chance)), 1)
    rate = round(min(max(208 - 0.7 * age - 6 * smoker + 14 * normal(chance), 70), 210))
    pain = 1.1 * normal(chance)
    logit = (
        -1.15 + 0.045 * (age - 60) + 0.7 * (sex == "m") + 0.016 * (pressure - 130) + 1.4 * math.log(cholesterol / 5.4)
    )
    logit += 0.6 * smoker - 0.02 * (rate - 160) + 0.9 * pain
    kind = PAIN[0] if pain < -0.1 else PAIN[1] if pain < 0.8 else PAIN[2]
    ill = int(chance.random() < logistic(logit))
    return [str(age), sex, str(pressure), f"{cholesterol:.1f}", str(smoker), kind, str(rate), str(ill)]


def records(hospital: str) -> str:
    """One hospital's CSV file. An empty cell is a value that nobody recorded."""
    patients, mean_age, men, smokers, missing = HOSPITALS[hospital]
    chance = random.Random(f"{SEED}/{hospital}")
    lines = [COLUMNS]
    for number in range(1, patients + 1):
        cells = patient(chance, mean_age, men, smokers)
        for column, share in zip((2, 3, 4, 6), missing, strict=True):
            if chance.random() < share:
                cells[column] = ""
        lines.append(",".join([f"{hospital[0].upper()}{number:04d}", *cells]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in HOSPITALS:
        Path(__file__).with_name(f"{name}.csv").write_text(records(name), encoding="utf-8", newline="\n")
