"""Exact sums of what networks' training came to travel in 32 bits where that leaves digits enough, others never."""

from __future__ import annotations

import numpy as np
import pytest

from flute.aggregation.codec import ROOM, Layout
from flute.defaults import FIXED_POINT_BITS
from flute.defaults.rounds import NARROW_FRACTION_BITS
from flute.errors import MisuseError
from flute.study import protection
from flute.study.agreement import Agreement
from flute.study.files.file import read_study_file
from flute.study.protection import RAND_SIZE, Price, cover, prices, uncover
from support.studies import study_text

NETWORK = """\
  net:
    algorithm: neural-network
    outcome: ill
    predictors: [age, pressure]
    network: [{layer: dense, size: SIZE}, {layer: activation}]
    training: {rounds: 2}
"""
WIDE = "  cohort: {algorithm: describe, variables: [age], bins: 1024}\n"


def agreed(most: int, questions: str) -> Agreement:
    text = study_text("exact: {max_numbers: 100000}", questions).replace(
        "simulated: true", f"simulated: true\nmax_patients: {most}"
    )
    return read_study_file(text, path="study.yaml", code=bytes(32))[0]


def price(most: int, size: int = 2000) -> Price:
    agreement = agreed(most, NETWORK.replace("SIZE", str(size)))
    return prices(agreement, agreement.questions[0])[1]


@pytest.mark.parametrize("most", [10, 1000, 5000])
def test_a_large_network_s_sums_travel_in_half_the_bytes(most: int) -> None:
    found = price(most)
    assert found.layout == Layout(32, found.shape.size)
    assert found.fraction_bits >= NARROW_FRACTION_BITS
    assert found.bounds.total <= ROOM[32]
    assert found.bounds.part >= most * 2**found.fraction_bits


@pytest.mark.parametrize(("most", "size"), [(100_000, 2000), (1000, 20)])
def test_control_too_many_patients_or_few_weights_take_64_bits(most: int, size: int) -> None:
    found = price(most, size)
    assert (found.layout.width, found.fraction_bits) == (64, FIXED_POINT_BITS)


def test_control_other_questions_take_64_bits_however_long_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "NARROW_FROM", 100)
    assert price(100, 30).layout.width == 32
    agreement = agreed(100, WIDE)
    (found, *_) = prices(agreement, agreement.questions[0])
    assert (found.layout.width, found.fraction_bits) == (64, FIXED_POINT_BITS)


def test_the_sum_of_hubs_is_off_by_no_more_than_is_said() -> None:
    """Three hubs of 100 patients each, which may be 1,000."""
    found, chance = price(1000), np.random.default_rng(11)
    hubs = [chance.uniform(-100, 100, (1, found.shape.size)) for _ in range(3)]
    total = sum(cover(one, found, hubs=3, rand=bytes(RAND_SIZE)) for one in hubs)
    assert np.abs(total).max() <= found.bounds.total
    opened, sigma = uncover(total, found)
    off = np.abs(opened - np.concatenate(hubs).sum(axis=0)).max()
    assert sigma == 0
    assert 0 < off <= 3 * 2.0 ** -(found.fraction_bits + 1)
    assert 4 * off / 300 < 3e-7


def test_a_hub_of_more_patients_than_agreed_answers_nothing() -> None:
    found = price(1000)
    answer = cover(np.full((1, found.shape.size), 1002.0), found, hubs=3, rand=bytes(RAND_SIZE))
    with pytest.raises(MisuseError, match="beyond the range"):
        found.layout.pack(0, answer, found.bounds)
    inside = cover(np.full((1, found.shape.size), 1000.0), found, hubs=3, rand=bytes(RAND_SIZE))
    assert found.layout.pack(0, inside, found.bounds).nbytes == found.layout.length
