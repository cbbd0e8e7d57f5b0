"""Masks and enclaves together (plan secagg-enclave): either of the two alone keeps an answer closed.

Each attack takes one of the two away: all enclaves malicious, or all masks known, as where more hubs collude than
agreed. Beside it stands its control, which takes the other away as well and reads the answer. Every statistical test
states its false alarm and rejects its control. What a whole study does: `tests/unit/test_study_enclaves.py`.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from tests.adversary.enclave_rounds import Round, party, terms
from tests.adversary.secagg_rounds import Federation, answers, any_of, group, spy, strip, uniform_bytes
from tests.adversary.test_enclaves_malicious import share_words, shifted

from flute.aggregation import collector as masked_sums
from flute.aggregation.codec import exact_bounds
from flute.aggregation.context import context
from flute.aggregation.masks import MaskStreams, pair_mask, self_mask
from flute.enclaves import collector, hub
from flute.enclaves.combined import open_masked, split_masked
from flute.errors import BadTotal, Malformed
from flute.messages.enclave import EnclaveBoxes, EnclaveTotal
from flute.messages.protocol import Masked
from flute.primitives.ring import Ring, to_bytes

pytestmark = pytest.mark.requirement("URS-14")

SIZE = 300
RUNS = 20
FIXED = {name: np.full(SIZE, 9, dtype=np.int64) for name in group(3).hubs}
ONE = "hub-a"


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
        self.admitted = self.enclaves.admit()
        self.boxes = {name: self.split(name, message.vector) for name, message in self.masked.items()}
        self.totals: dict[str, EnclaveTotal] = self.enclaves.totals(self.boxes)

    def split(self, name: str, vector: bytes) -> EnclaveBoxes:
        rand = self.enclaves.chance(hub.rand_size(self.enclaves.terms))
        return split_masked(self.admitted, vector, me=name, key=party(name).signing, rand=rand)

    def words(self) -> Ring:
        """What the enclaves give together; still under every hub's self mask."""
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
    closed, opened = b"", b""
    for run in range(RUNS):
        round_ = Combined(FIXED, seed=("closed", run))
        words = round_.words()
        closed += words.tobytes()
        with pytest.raises(BadTotal):
            open_masked(words, (), round_.enclaves.layout, hubs=3, bounds=exact_bounds(3))
        opened += round_.opened().tobytes()
    assert uniform_bytes(closed)
    assert not uniform_bytes(opened)


# --- all enclaves are malicious -----------------------------------------------------------------


@pytest.mark.defence("private H", "private PN", "exact H")
def test_all_enclaves_malicious_see_masked_answers() -> None:
    """20 runs of 2,400 bytes; false alarm 1e-6."""
    seen = b""
    for run in range(RUNS):
        round_ = Combined(FIXED, seed=("seen", run))
        seen += _both(round_.enclaves, round_.boxes[ONE])[:SIZE].tobytes()
    assert uniform_bytes(seen)


@pytest.mark.control("private H", "private PN", "exact H")
def test_control_without_masks_all_enclaves_malicious_see_every_answer() -> None:
    """Split as under plan enclave, by the same hubs."""
    round_ = Combined(FIXED)
    for name, vector in FIXED.items():
        seen = _both(round_.enclaves, round_.enclaves.boxes(name, vector))[:SIZE]
        assert np.array_equal(seen.view(np.int64), vector)
        assert not uniform_bytes(np.tile(seen, RUNS).tobytes())


# --- all masks are known ------------------------------------------------------------------------


@pytest.mark.defence("private PS", "private PA")
@pytest.mark.parametrize("bad", ["first", "second"])
def test_all_masks_known_show_no_single_answer_as_long_as_one_enclave_is_honest(bad: str) -> None:
    """All hubs but one collude with the coordinator and one enclave. 20 runs, 2,400 bytes each; false alarm 1e-6."""
    seen = b""
    for run in range(RUNS):
        round_ = Combined(FIXED, seed=("known", run))
        share = to_bytes(
            share_words(round_.enclaves, bad, round_.boxes[ONE])[: round_.enclaves.layout.block_words(0)]
        )
        message = replace(round_.masked[ONE], vector=share)
        seen += strip(message, any_of(round_.starts), round_.spied).tobytes()
    assert uniform_bytes(seen)


@pytest.mark.control("private PS", "private PA")
def test_control_without_enclaves_whoever_knows_all_masks_reads_every_answer() -> None:
    """What plan secagg sends, and the same masks."""
    round_ = Combined(FIXED)
    for name, vector in FIXED.items():
        assert np.array_equal(strip(round_.masked[name], any_of(round_.starts), round_.spied), vector)


def tried_out(round_: Combined, guess: NDArray[np.int64], sent: bytes) -> bool:
    """Does what a hub sent tell whether this guess at its answer is right? By the hash of the guess under its masks,
    which whoever knows these makes."""
    start, mine = any_of(round_.starts), round_.spied[ONE]
    ctx = context(start)
    others = [pub for pub in start.pubs if pub.hub != ONE]
    masks = [pair_mask(mine.point, pub.point, ctx=ctx, me=ONE, other=pub.hub) for pub in others]
    words = round_.enclaves.layout.pack(0, guess, exact_bounds(3))
    MaskStreams([*masks, self_mask(mine.seed, ctx=ctx, hub=ONE)]).add_to(words)
    return hashlib.sha256(to_bytes(words)).digest() in sent


@pytest.mark.defence("private PS", "private PA")
def test_all_masks_known_no_guess_at_an_answer_can_be_tried_out() -> None:
    round_ = Combined(FIXED)
    assert not tried_out(round_, FIXED[ONE], msgspec.msgpack.encode(round_.boxes[ONE]))


@pytest.mark.control("private PS", "private PA")
def test_control_the_signed_hash_of_a_masked_answer_confirms_a_guess() -> None:
    """Were message 1 of plan secagg to leave besides, even without its vector."""
    round_ = Combined(FIXED)
    sent = msgspec.msgpack.encode(replace(round_.masked[ONE], vector=b""))
    assert tried_out(round_, FIXED[ONE], sent)
    assert not tried_out(round_, FIXED[ONE] + 1, sent)


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", ["first", "second"])
def test_a_total_that_an_enclave_changed_is_noticed_before_hubs_shares_are_used(liar: str) -> None:
    round_ = Combined()
    round_.totals[liar] = shifted(round_.enclaves, round_.totals[liar], at=3, by=1)
    with pytest.raises(BadTotal, match="check numbers"):
        round_.words()


@pytest.mark.control("exact P")
def test_control_a_hub_takes_its_own_answer_off_an_exact_total() -> None:
    """Masks and both enclaves hold, and no plan prevents it: what is left is the exact sum of the other two."""
    round_ = Combined()
    known = round_.opened() - round_.vectors[ONE]
    assert np.array_equal(known, round_.vectors["hub-b"] + round_.vectors["hub-c"])


def test_a_masked_vector_of_another_length_is_refused() -> None:
    round_ = Combined()
    with pytest.raises(Malformed):
        round_.split(ONE, bytes(8 * SIZE))


def _both(enclaves: Round, boxes: EnclaveBoxes) -> NDArray[np.uint64]:
    shares = [share_words(enclaves, name, boxes) for name in enclaves.terms.aggregators]
    total: NDArray[np.uint64] = shares[0] + shares[1]
    return total
