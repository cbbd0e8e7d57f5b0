"""Images of a notebook's frames at hubs that are processes of their own; a network over them, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import flute.sdk as flute
from flute.intake.snapshot import SnapshotSource
from support.networks_of_images import DIGITS, agreement_over

pd = pytest.importorskip("pandas")
HUBS = ("north", "south", "west")
MEN = 60


def frame(seed: int) -> Any:
    """SIMULATED: who is ill has a bright upper half; every seventh patient has no image."""
    chance = np.random.default_rng(seed)
    ill = chance.integers(0, 2, MEN)
    pictures = [chance.uniform(0, 8, (1, 4, 4)) for _ in ill]
    for picture, is_ill in zip(pictures, ill, strict=True):
        picture[0, :2] += 8 * is_ill
    return pd.DataFrame({"ill": ill, "mri": [None if n % 7 == 0 else p for n, p in enumerate(pictures)]})


def test_a_hub_s_own_process_takes_the_images_in() -> None:
    with flute.local({"north": frame(0), "south": frame(1)}, simulated=True) as federation:
        place: Any = federation.place
        place.prepare(agreement_over("ill", "mri"))
        with place.federation.hub("north") as door:
            (held,) = door.get("/status")["datasets"]
        assert (held["report"]["missing"]["mri"], held["report"]["unusable"]["mri"]) == (9, 0)
        source = SnapshotSource(place.federation.hub_folder("north"), bytes.fromhex(held["snapshot"]))
        sums = source.open((DIGITS,)).images("mri").sum(axis=(1, 2, 3))
    given = np.stack([p for p in frame(0)["mri"] if p is not None]).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(np.sort(sums[sums > 0]), np.sort(given), rtol=1e-5)


@pytest.mark.soak
def test_a_network_is_trained_over_images_that_stay_at_their_hubs() -> None:
    pytest.importorskip("torch", reason="networks need torch: make deep")
    variables = flute.Variables(ill=flute.binary(), mri=flute.image((1, 4, 4), 0, 16))
    with flute.local({hub: frame(n) for n, hub in enumerate(HUBS)}, simulated=True) as federation:
        study = federation.study(
            "pictures", purpose="Test.", variables=variables, exact=flute.Exact(max_numbers=20_000)
        )
        layers = [{"layer": "conv", "channels": 2}, {"layer": "activation"}]
        network = flute.NeuralNetwork("ill", image="mri", network=layers, rounds=2, local_epochs=3)
        study.run([network], timeout=200.0)
    assert network.n_ == sum(frame(n)["mri"].notna().sum() for n in range(3))
    assert network.losses_[-1] < network.losses_[0]
