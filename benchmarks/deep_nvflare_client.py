"""A client of NVFLARE's FedAvg recipe, for `deep_round.py`: trains with the code that FLUTE's hubs train with."""

from __future__ import annotations

import sys

import numpy as np
import nvflare.client as client
from deep_network import HUBS, Local

from flute.deep.weights import named_weights, write_weights


def main(name: str) -> None:
    client.init()
    local = Local(name, HUBS.index(client.get_site_name()))
    while client.is_running():
        given = client.receive()
        if given is None:
            break
        flat = np.concatenate([np.asarray(given.params[p.name], dtype=np.float64).ravel() for p in local.parameters])
        weights = local.trained(given.current_round, flat)
        client.send(client.FLModel(params=named_weights(write_weights(local.parameters, weights), local.parameters)))


main(sys.argv[1])
