"""Masks and enclaves together: either of the two alone keeps an answer closed, and the total is the same."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.adversary.enclave_rounds import Round, party, terms
from tests.adversary.secagg_rounds import Federation, answers, any_of, group, spy, strip, uniform_bytes
from tests.adversary.test_enclaves_malicious import share_words

from flute.aggregation import collector as masked_sums
from flute.aggregation.codec import exact_bounds
from flute.enclaves import collector, hub
from flute.enclaves.combined import open_masked, split_masked
from flute.errors import BadTotal, Malformed
from flute.messages.enclave import EnclaveBoxes, EnclaveTotal
from flute.messages.protocol import Masked
from flute.primitives.ring import Ring

SIZE = 300


class Combined:
    """One round of both plans among the same hubs."""

    def __init__(self, vectors: dict[str, NDArray[np.int64]] | None = None, seed: object = 0) -> None:
        self.federation = Federation(group(3), seed=seed)
        hubs = self.federation.terms.hubs
        self.vectors = vectors or answers(self.federation.terms, size=SIZE)
        self.enclaves = Round(terms=terms(hubs=hubs), size=SIZE, seed=seed)
        self.spied = spy(self.federation)
        self.starts = self.federation.starts(SIZE)
        self.masked: dict[str, Masked] = self.federation.masked(self.starts, self.vectors)
        self.totals: dict[str, EnclaveTotal] = {}
        self.admitted = self.enclaves.admit()
        self.boxes = {name: self.split(name, message.vector) for name, message in self.masked.items()}

    def split(self, name: str, vector: bytes) -> EnclaveBoxes:
        rand = self.enclaves.chance(hub.rand_size(self.enclaves.terms))
        return split_masked(self.admitted, vector, me=name, key=party(name).signing, rand=rand)

    def words(self) -> Ring:
        """What the enclaves give together; still under every hub's self mask."""
        self.totals = self.totals or self.enclaves.totals(self.boxes)
        return collector.total_words(self.enclaves.start, self.boxes, self.totals)

    def opened(self) -> NDArray[np.int64]:
        told = self.federation.told(self.starts, self.masked)
        shares = self.federation.shares(self.starts, told)
        left = masked_sums.unmask(any_of(self.starts), told, self.federation.named, shares)
        return open_masked(self.words(), left.masks, self.enclaves.layout, hubs=3, bounds=exact_bounds(3))


def test_the_total_is_the_plain_sum() -> None:
    round_ = Combined()
    assert np.array_equal(round_.opened(), sum(round_.vectors.values()))


def test_what_the_enclaves_give_is_closed_until_hubs_open_it() -> None:
    """2,400 bytes a run, 20 runs; false alarm 1e-6. Opened, it is the same small numbers every time: rejected."""
    fixed = {name: np.full(SIZE, 9, dtype=np.int64) for name in group(3).hubs}
    closed, opened = b"", b""
    for run in range(20):
        round_ = Combined(fixed, seed=("closed", run))
        words = round_.words()
        closed += words.tobytes()
        with pytest.raises(BadTotal):
            open_masked(words, (), round_.enclaves.layout, hubs=3, bounds=exact_bounds(3))
        opened += round_.opened().tobytes()
    assert uniform_bytes(closed)
    assert not uniform_bytes(opened)


def test_all_enclaves_malicious_see_masked_answers_and_without_masks_the_answers() -> None:
    """20 runs of 2,400 bytes; false alarm 1e-6. The control is plan enclave alone."""
    fixed = {name: np.full(SIZE, 9, dtype=np.int64) for name in group(3).hubs}
    seen, control = b"", b""
    for run in range(20):
        round_ = Combined(fixed, seed=("seen", run))
        name = next(iter(fixed))
        seen += _both(round_.enclaves, round_.boxes[name])[:SIZE].tobytes()
        control += _both(round_.enclaves, round_.enclaves.boxes(name, fixed[name]))[:SIZE].tobytes()
    assert uniform_bytes(seen)
    assert np.array_equal(np.frombuffer(control, dtype=np.int64), np.full(20 * SIZE, 9))


def test_all_masks_known_show_no_single_answer_as_long_as_one_enclave_is_honest() -> None:
    """Every hub but one colludes with the coordinator, so all masks are known: without enclaves it is read."""
    name = "hub-a"
    fixed = {each: np.full(SIZE, 9, dtype=np.int64) for each in group(3).hubs}
    seen = b""
    for run in range(20):
        round_ = Combined(fixed, seed=("known", run))
        seen += share_words(round_.enclaves, "second", round_.boxes[name])[:SIZE].tobytes()
        assert np.array_equal(strip(round_.masked[name], any_of(round_.starts), round_.spied), fixed[name])
    assert uniform_bytes(seen)


def test_a_masked_vector_of_another_length_is_refused() -> None:
    round_ = Combined()
    with pytest.raises(Malformed):
        round_.split("hub-a", bytes(8 * SIZE))


def _both(enclaves: Round, boxes: EnclaveBoxes) -> NDArray[np.uint64]:
    shares = [share_words(enclaves, name, boxes) for name in enclaves.terms.aggregators]
    total: NDArray[np.uint64] = shares[0] + shares[1]
    return total
