"""NVFLARE's own FedAvg recipe in its simulator environment, one process for each client, for `deep_round.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from deep_network import HUBS, SIZES, layers
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe.sim_env import SimEnv

from flute.deep.build import Network


class _Sized(Network):
    """The engine makes its models without arguments."""

    name = ""

    def __init__(self) -> None:
        super().__init__(layers(SIZES[self.name]), 0, SIZES[self.name].shape)


class Volumes(_Sized):
    name = "volumes"


class Pictures(_Sized):
    name = "pictures"


class Quick(_Sized):
    name = "quick"


def main(name: str, folder: str) -> None:
    recipe = FedAvgRecipe(
        name="deep-round",
        model={"class_path": f"deep_nvflare_job.{name.capitalize()}", "args": {}},
        min_clients=len(HUBS),
        num_rounds=SIZES[name].rounds,
        train_script=str(Path(__file__).with_name("deep_nvflare_client.py")),
        train_args=name,
    )
    recipe.execute(SimEnv(clients=list(HUBS), num_threads=len(HUBS), workspace_root=folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
