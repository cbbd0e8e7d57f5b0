"""Row of the enclave columns: one malicious aggregator, then the other, learns nothing and changes nothing unnoticed.

The two aggregators show evidence of two technologies: a TPM's (of a real software TPM where one is installed) and an
AMD report under the TEST root, since a published report cannot bind our key. A malicious aggregator is one whose keys
and sums the adversary has; it may also give any total it likes. Both together see every hub's answer: that is the
control, and what the study agreement says. Every statistical test states its false alarm and rejects its control.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray
from tests.adversary.enclave_rounds import SNP, Round, party, resigned, terms
from tests.adversary.secagg_rounds import uniform_bytes

from flute.aggregation.codec import WIDTHS, Bounds, Layout, Width
from flute.attestation.collateral import TpmCollateral
from flute.attestation.policy import AppraisalPolicy
from flute.attestation.roots import MAKERS
from flute.defaults.enclaves import CHECKS
from flute.enclaves.checks import check_numbers, with_checks
from flute.enclaves.context import begin_of, list_digest, round_context, total_to_sign
from flute.enclaves.hub import share_key
from flute.errors import BadSignature, BadTotal, Cheating
from flute.messages.enclave import EnclaveBoxes, EnclaveTotal
from flute.primitives.prg import Stream
from flute.primitives.ring import Ring, from_bytes, to_bytes
from flute.study.agreement import PlanChoice
from flute.study.threats import guarantees
from support.swtpm import Swtpm, require_swtpm

pytestmark = pytest.mark.requirement("URS-14")

BOTH = ("first", "second")


class RealTpm:
    """A running software TPM behind the same calls as the issuers that exist in tests only."""

    roots = MAKERS

    def __init__(self, tpm: Swtpm) -> None:
        self._tpm = tpm

    def evidence(self, report_data: bytes, /) -> bytes:
        return self._tpm.quote(report_data)

    def collateral(self) -> TpmCollateral:
        return TpmCollateral()

    def policy(self) -> AppraisalPolicy:
        return self._tpm.policy()


@pytest.fixture(scope="module")
def tpm() -> Iterator[RealTpm]:
    require_swtpm()
    with tempfile.TemporaryDirectory(prefix="flute-tpm-") as folder:
        running = Swtpm.start(Path(folder))
        try:
            yield RealTpm(running)
        finally:
            running.stop()


def share_words(round_: Round, name: str, boxes: EnclaveBoxes) -> Ring:
    """The share that aggregator `name` holds of a hub's answer, check numbers included."""
    opened = round_.opened(name, boxes)
    size = round_.layout.block_words(0) + CHECKS
    if name == round_.terms.aggregators[-1]:
        return from_bytes(opened, size, round_.layout.word_bytes)
    share = np.zeros(size, dtype=f"u{round_.layout.word_bytes}")
    Stream(share_key(opened, boxes.ctx, boxes.hub, name)).add_to(share)
    return share


def shifted(round_: Round, total: EnclaveTotal, at: int, by: int) -> EnclaveTotal:
    words = from_bytes(total.words, len(total.words) // round_.layout.word_bytes, round_.layout.word_bytes).copy()
    words[at] += np.array(by, dtype=words.dtype)
    return resigned(round_, replace(total, words=to_bytes(words)))


# --- with evidence of a real TPM and of an AMD processor ----------------------------------------


def test_a_sum_goes_through_two_aggregators_with_evidence_of_two_technologies(tpm: RealTpm) -> None:
    round_ = Round(platforms={"first": tpm, "second": SNP})
    vectors = round_.vectors()
    admitted = round_.admit()
    assert [(a.maker, a.development) for a in admitted.accepted] == [("TPM", True), ("AMD", True)]
    boxes = round_.all_boxes(vectors)
    assert np.array_equal(round_.total(boxes, round_.totals(boxes)), sum(vectors.values()))


@pytest.mark.defence("private H", "private P", "exact H")
@pytest.mark.parametrize("bad", BOTH)
def test_one_malicious_aggregator_learns_nothing_and_its_change_is_noticed(tpm: RealTpm, bad: str) -> None:
    """The whole road once, with a real TPM; the two halves of the claim are taken apart below."""
    round_ = Round(size=2_000, platforms={"first": tpm, "second": SNP})
    fixed = {name: np.arange(2_000, dtype=np.int64) for name in round_.terms.hubs}
    boxes = round_.all_boxes(fixed)
    view = b"".join(to_bytes(share_words(round_, bad, sent)) for sent in boxes.values())
    assert uniform_bytes(view)  # 48 kB, false alarm 1e-6
    assert not uniform_bytes(b"".join(vector.tobytes() for vector in fixed.values()))
    totals = round_.totals(boxes)
    totals[bad] = shifted(round_, totals[bad], at=5, by=1)
    with pytest.raises(BadTotal, match="check numbers"):
        round_.total(boxes, totals)


# --- it learns nothing ----------------------------------------------------------------------------


def shares_of(name: str, values: NDArray[np.int64], width: Width, runs: int = 40) -> bytes:
    """What one aggregator has of one hub's fixed answer under fresh chance, run after run."""
    seen = []
    round_ = Round(size=values.size, width=width, bounds=Bounds(8_000, 24_000))
    for run in range(runs):
        round_.chance = type(round_.chance)((name, width, run))
        seen.append(to_bytes(share_words(round_, name, round_.boxes("north", values))))
    return b"".join(seen)


@pytest.mark.defence("private H", "exact H")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", BOTH)
def test_a_share_is_uniform_whatever_it_is_a_share_of(name: str, width: Width) -> None:
    """At least 15 kB for each; false alarm 1e-6 per test, eight tests. The answer alone is rejected."""
    values = np.full(150, 77, dtype=np.int64)
    assert uniform_bytes(shares_of(name, values, width))
    bare = Layout(width, values.size).pack(0, values, Bounds(8_000, 24_000))
    assert not uniform_bytes(np.tile(bare, 40).tobytes())


def test_the_uniformity_test_sees_a_share_of_which_every_eighth_byte_is_bare() -> None:
    leaky = np.frombuffer(shares_of("second", np.full(150, 77, dtype=np.int64), 64), dtype=np.uint8).copy()
    leaky[::8] = 77
    assert not uniform_bytes(leaky.tobytes())


def test_what_the_first_aggregator_gets_is_the_same_for_every_answer() -> None:
    """It gets a seed, drawn before the answer is looked at: equal chance, equal view, to the last byte."""
    answers = (np.zeros(40, dtype=np.int64), np.full(40, 10**6, dtype=np.int64))
    seen = {Round(seed="same").opened("first", Round(seed="same").boxes("north", x)) for x in answers}
    assert len(seen) == 1


def test_what_the_last_aggregator_gets_fits_every_other_answer_as_well() -> None:
    """For its share and any answer there is exactly one stream that the others would hold; so it says nothing."""
    round_ = Round()
    share = share_words(round_, "second", round_.boxes("north", np.full(40, 5, dtype=np.int64)))
    other = with_checks(round_.layout.pack(0, np.full(40, -9, dtype=np.int64), round_.bounds), round_.start.check_key)
    assert np.array_equal((other - share) + share, other)


@pytest.mark.parametrize("bad", BOTH)
def test_with_the_coordinator_it_learns_the_sum_over_all_hubs_and_no_more(bad: str) -> None:
    """All that comes to a malicious aggregator's shares, which say nothing, is the honest one's total. With them it
    is one and the same number in two worlds with one sum; a third world with another sum is told apart."""
    one = Round().vectors()
    move = np.arange(40)
    two = one | {"east": one["east"] // 2, "north": one["north"] + (one["east"] - one["east"] // 2)}
    worlds = [known_of(bad, vectors) for vectors in (one, two, one | {"south": one["south"] + move})]
    assert np.array_equal(worlds[0], worlds[1])
    assert not np.array_equal(worlds[0], worlds[2])


def known_of(bad: str, vectors: dict[str, NDArray[np.int64]]) -> Ring:
    """The honest aggregator's total, and the malicious one's shares taken together."""
    round_ = Round(bounds=Bounds(10**7, 3 * 10**7))
    boxes = round_.all_boxes(vectors)
    honest = next(name for name in BOTH if name != bad)
    shares = _added([share_words(round_, bad, sent) for sent in boxes.values()])
    return from_bytes(round_.totals(boxes)[honest].words, shares.size, 8) + shares


# --- it changes nothing unnoticed -----------------------------------------------------------------


@pytest.mark.defence("private P")
@pytest.mark.parametrize("bad", BOTH)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_changed_total_is_noticed(bad: str, width: Width) -> None:
    """Every position class: a coordinate, a sentinel, a check number; by one, and by the top bit, which a product
    with an even number would lose. Each of the 80 passes with chance 2^-64."""
    round_ = Round(width=width, bounds=Bounds(8_000, 24_000))
    boxes = round_.all_boxes()
    totals = round_.totals(boxes)
    last = round_.layout.block_words(0)
    for at in (0, last // 2, last - 1, last, last + CHECKS - 1):
        for by in (1, 1 << 8 * round_.layout.word_bytes - 1):
            with pytest.raises(BadTotal, match="check numbers"):
                round_.total(boxes, totals | {bad: shifted(round_, totals[bad], at, by)})
    round_.total(boxes, totals)


@pytest.mark.control("private P")
def test_without_check_numbers_a_small_change_of_a_total_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: sentinels and bounds alone do not see one patient more."""
    monkeypatch.setattr("flute.enclaves.collector.without_checks", lambda added, _key: added[:-CHECKS], raising=True)
    round_ = Round()
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    totals = round_.totals(boxes)
    totals["first"] = shifted(round_, totals["first"], at=0, by=1)
    assert round_.total(boxes, totals)[0] == sum(vectors.values())[0] + 1


def test_an_aggregator_that_was_told_the_check_key_changes_a_total_unnoticed() -> None:
    """The residual risk, as the proof states it: a hub or the coordinator tells it the key. Bounds still hold."""
    round_ = Round()
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    totals = round_.totals(boxes)
    change = np.zeros(round_.layout.block_words(0), dtype=np.uint64)
    change[3] = 10
    words = from_bytes(totals["first"].words, change.size + CHECKS, 8) + np.concatenate(
        [change, check_numbers(change, round_.start.check_key)]
    )
    totals["first"] = resigned(round_, replace(totals["first"], words=to_bytes(words)))
    assert round_.total(boxes, totals)[3] == sum(vectors.values())[3] + 10
    change[3] = 10**7
    words = words + np.concatenate([change, check_numbers(change, round_.start.check_key)])
    totals["first"] = resigned(round_, replace(totals["first"], words=to_bytes(words)))
    with pytest.raises(BadTotal, match="outside"):
        round_.total(boxes, totals)


@pytest.mark.parametrize("bad", BOTH)
def test_an_aggregator_that_leaves_a_hub_out_or_counts_it_twice_is_named_or_noticed(bad: str) -> None:
    round_ = Round()
    boxes = round_.all_boxes()
    totals = round_.totals(boxes)
    share = share_words(round_, bad, boxes["north"])
    for sign in (1, -1):
        words = from_bytes(totals[bad].words, share.size, 8)
        changed = words + share if sign > 0 else words - share
        lied = resigned(round_, replace(totals[bad], words=to_bytes(changed)))
        with pytest.raises(BadTotal):
            round_.total(boxes, totals | {bad: lied})
    stranger = list_digest(round_context_of(round_), "north", (bytes(32), bytes(32)))
    told = (totals[bad].lists[0], stranger, totals[bad].lists[2])
    with pytest.raises(Cheating) as found:
        round_.total(boxes, totals | {bad: resigned(round_, replace(totals[bad], lists=told))})
    assert found.value.blamed == (bad,)


def round_context_of(round_: Round) -> bytes:
    return round_context(begin_of(round_.start))


def test_a_total_that_the_attested_key_did_not_sign_is_refused() -> None:
    round_ = Round()
    boxes = round_.all_boxes()
    totals = round_.totals(boxes)
    other = party("stranger").signing
    forged = replace(totals["second"], signature=other.sign(total_to_sign(totals["second"])))
    with pytest.raises(BadSignature, match="second"):
        round_.total(boxes, totals | {"second": forged})


# --- both: the control, and what the agreement says -----------------------------------------------


@pytest.mark.control("private H", "private P", "exact H", "exact PN")
def test_both_malicious_aggregators_together_see_every_hubs_answer() -> None:
    round_ = Round()
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    for name, vector in vectors.items():
        both = sum(share_words(round_, k, boxes[name]) for k in BOTH)
        assert np.array_equal(both[: vector.size].view(np.int64), vector)


@pytest.mark.control("exact P")
def test_control_a_hub_takes_its_own_answer_off_an_exact_total() -> None:
    """Both enclaves are honest, and no plan prevents it: what is left is the exact sum of the other two."""
    round_ = Round()
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    known = round_.total(boxes, round_.totals(boxes)) - vectors["south"]
    assert np.array_equal(known, vectors["east"] + vectors["north"])


@pytest.mark.parametrize("mode", ["private", "exact"])
def test_the_agreement_said_that_all_malicious_enclaves_see_everything(mode: str) -> None:
    cells = guarantees(mode, PlanChoice(name="enclave", aggregators=BOTH))
    none_trusted = [c for c in cells if c.enclaves == "no enclave trusted" and "poisoned" not in c.parties]
    assert none_trusted
    assert not any(c.holds for c in none_trusted)
    assert all("see every hub's answer" in c.because for c in none_trusted)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_all_but_one_of_k_aggregators_learn_nothing(k: int) -> None:
    """30 runs, at least 24 kB; false alarm 1e-6. All k together get the answer."""
    names = tuple(f"a{i}" for i in range(k))
    values = np.full(100, 3, dtype=np.int64)
    platforms = dict.fromkeys(names, SNP)
    round_ = Round(terms=terms(aggregators=names), size=100, platforms=platforms)
    for missing in names:
        others: list[bytes] = []
        for run in range(30):
            round_.chance = type(round_.chance)((k, missing, run))
            sent = round_.boxes("north", values)
            shares = {name: share_words(round_, name, sent) for name in names}
            others.append(_added([shares[name] for name in names if name != missing]).tobytes())
            whole = _added(list(shares.values()))
            assert np.array_equal(whole[:100].view(np.int64), values)
        assert uniform_bytes(b"".join(others))


def _added(shares: Sequence[Ring]) -> Ring:
    total = shares[0].copy()
    for share in shares[1:]:
        total += share
    return total
