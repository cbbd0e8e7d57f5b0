"""AUC of networks trained by opacus DP-SGD, in an environment of its own: PYTHON opacus_anchor.py TASKS.npz

TASKS.npz holds, for every trial k, train_k and test_k (float, one row per patient; images [n, channels, height,
width]), outcome_k and outcometest_k; and epsilons, trials (how many at each of them), delta, quick (two settings
only).
Printed: {"setting": [[AUC of every trial] of every epsilon]} per network and setting, as JSON.
All patients are in one place; Poisson sampling, the PRV accountant; noise from torch's own seeded generator, which
no release should use. Nothing but opacus, torch, scikit-learn and numpy is imported: it runs where FLUTE does not.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True)
class Setting:
    """batch 0: all patients in every step. clip: largest norm of one patient's gradient."""

    network: str
    batch: int
    epochs: int
    optimiser: str
    rate: float
    clip: float = 1.0

    @property
    def name(self) -> str:
        batch = f"batch {self.batch}" if self.batch else "all patients in every step"
        return f"{self.network}, {batch}, {self.epochs} epochs, {self.optimiser} {self.rate:g}, clip {self.clip:g}"


TABLES = (
    *(Setting("dense 16 tanh", 0, 30, "sgd", rate) for rate in (0.3, 1.0)),
    *(Setting("dense 16 tanh", 0, 20, "adam", rate) for rate in (0.02, 0.1)),
    *(Setting("dense 16 tanh", 128, 10, "sgd", rate) for rate in (0.2, 1.0)),
    *(Setting("dense 16 tanh", 128, 20, "adam", rate) for rate in (0.005, 0.02)),
    Setting("dense 16 relu", 0, 20, "sgd", 0.5),
)
IMAGES = (
    *(Setting("conv 8 16 tanh", 0, 30, "sgd", rate) for rate in (1.0, 3.0)),
    *(Setting("conv 8 16 tanh", 0, 30, "adam", rate) for rate in (0.01, 0.03)),
    Setting("conv 8 16 tanh", 256, 15, "sgd", 0.5),
    Setting("conv 8 16 tanh", 256, 15, "adam", 0.01),
)
"""What their caller has to choose from at each epsilon."""


def network(kind: str, shape: tuple[int, ...]) -> nn.Module:
    words = kind.split()
    activation = nn.ReLU if words[-1] == "relu" else nn.Tanh
    if kind == "linear":
        return nn.Linear(shape[0], 1)
    if words[0] == "dense":
        width = int(words[1])
        return nn.Sequential(nn.Linear(shape[0], width), activation(), nn.Linear(width, 1))
    first, second = int(words[1]), int(words[2])
    side = shape[-1] // 4
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 3, padding=1), activation(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), activation(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(second * side * side, 1),
    )  # fmt: skip


@lru_cache(maxsize=1024)
def noise(epsilon: float, delta: float, rate: float, steps: int) -> float:
    accountant = "prv" if rate < 1 else "rdp"
    return float(
        get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant=accountant
        )
    )


def trained(given: Any, k: int, epsilon: float, how: Setting) -> float:
    torch.manual_seed(1_000 * k + round(10 * epsilon))
    x = torch.tensor(given[f"train_{k}"], dtype=torch.float32)
    y = torch.tensor(given[f"outcome_{k}"], dtype=torch.float32)
    model = network(how.network, tuple(x.shape[1:]))
    optimisers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    loader = DataLoader(TensorDataset(x, y), batch_size=how.batch or len(x))
    multiplier = noise(epsilon, float(given["delta"]), 1 / len(loader), how.epochs * len(loader))
    private, optimiser, drawn = PrivacyEngine().make_private(
        module=model, optimizer=optimisers[how.optimiser](model.parameters(), lr=how.rate), data_loader=loader,
        noise_multiplier=multiplier, max_grad_norm=how.clip, poisson_sampling=bool(how.batch),
    )  # fmt: skip
    loss = nn.BCEWithLogitsLoss()
    for _ in range(how.epochs):
        for rows, truth in drawn:
            optimiser.zero_grad()
            loss(private(rows)[:, 0], truth).backward()
            optimiser.step()
    with torch.no_grad():
        scores = model(torch.tensor(given[f"test_{k}"], dtype=torch.float32))[:, 0].numpy()
    return float(roc_auc_score(given[f"outcometest_{k}"], np.nan_to_num(scores)))


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given = np.load(sys.argv[1])
    settings = IMAGES if given["train_0"].ndim > 2 else TABLES
    if given["quick"]:
        settings = settings[1:3]
    counts = list(zip(given["epsilons"].tolist(), given["trials"].tolist(), strict=True))
    found = {
        how.name: [[trained(given, k, epsilon, how) for k in range(trials)] for epsilon, trials in counts]
        for how in settings
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
