"""Plan `enclave`: the total is the plain sum at every width and number of aggregators; states follow their table."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from msgspec.structs import replace
from scipy.stats import binom
from tests.adversary.enclave_rounds import SNP, TPM, Round, party, resigned, terms

from flute.aggregation.codec import ROOM, WIDTHS, Bounds, Width
from flute.defaults.enclaves import CHECK_PART, CHECKS
from flute.enclaves import collector, hub
from flute.enclaves.aggregator import TRANSITIONS, Aggregator, Event, Phase
from flute.enclaves.checks import check_numbers, with_checks, without_checks
from flute.enclaves.context import check_terms
from flute.errors import (
    BadTotal,
    Cheating,
    FluteError,
    MisuseError,
    NotPossible,
    OutOfOrder,
    TooFewHubs,
)
from support.evidence_issuer import CcaIssuer

THREE = {"a": SNP, "b": TPM, "c": CcaIssuer()}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [1, 7, 4_099])
def test_the_total_is_the_plain_sum(width: Width, size: int) -> None:
    part = ROOM[width] // 3
    round_ = Round(width=width, size=size, bounds=Bounds(part, 3 * part))
    vectors = round_.vectors(seed=size)
    boxes = round_.all_boxes(vectors)
    total = round_.total(boxes, round_.totals(boxes))
    assert total.dtype == np.int64
    assert np.array_equal(total, sum(vectors.values()))


@pytest.mark.parametrize("names", [("a", "b"), ("c", "a", "b")])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_any_number_of_hubs_and_aggregators_adds_up(names: tuple[str, ...], n: int) -> None:
    hubs = tuple(f"hub-{i}" for i in range(n))
    round_ = Round(terms=terms(hubs=hubs, aggregators=names), platforms=THREE, bounds=Bounds(100, 100 * n))
    round_.roots = SNP.roots
    vectors = round_.vectors()
    boxes = round_.all_boxes(vectors)
    assert np.array_equal(round_.total(boxes, round_.totals(boxes)), sum(vectors.values()))


def test_a_hub_that_splits_twice_sends_other_boxes_each_time() -> None:
    round_ = Round()
    vector = round_.vectors()["north"]
    one, two = round_.boxes("north", vector), round_.boxes("north", vector)
    assert not set(one.boxes) & set(two.boxes)


def test_a_split_takes_exactly_its_fresh_bytes_and_its_own_size() -> None:
    round_ = Round()
    given = {"me": "north", "bounds": round_.bounds, "key": party("north").signing}
    for size in (0, 31, 64):
        with pytest.raises(MisuseError, match="32 fresh bytes"):
            hub.split(round_.admit(), np.zeros(40, dtype=np.int64), rand=bytes(size), **given)
    with pytest.raises(MisuseError):
        hub.split(round_.admit(), np.zeros(39, dtype=np.int64), rand=bytes(32), **given)
    with pytest.raises(MisuseError, match="another length"):
        hub.split_words(
            round_.admit(), np.zeros(40, dtype=np.uint64), me="north", key=party("north").signing, rand=bytes(32)
        )


REPEATS = {(Event.BEGIN, Phase.TAKING), (Event.TAKE, Phase.SUMMED), (Event.SUM, Phase.SUMMED)}
"""Told the same again, an aggregator says the same again, and nothing changes."""

# --- the table ----------------------------------------------------------------------------------


def act(made: Aggregator, event: Event, round_: Round, boxes: dict[str, object]) -> None:
    match event:
        case Event.BEGIN:
            made.begin(collector.for_aggregators(round_.start))
        case Event.TAKE:
            for sent in boxes.values():
                made.take(collector.box_for(round_.start, sent, "second"))  # type: ignore[arg-type]
        case Event.SUM:
            made.finish()
        case Event.CLOSE:
            made.close()


def test_every_order_of_four_events_does_what_the_table_says_and_nothing_else() -> None:
    """All 256 orders on the real object. The very same message again is no event."""
    round_ = Round(size=2)
    boxes = round_.all_boxes()
    for order in product(Event, repeat=4):
        made, phase, taken = round_.aggregator("second"), Phase.OFFERED, False
        for event in order:
            again = (event, phase) in REPEATS
            allowed = again or (phase, event) in TRANSITIONS
            try:
                act(made, event, round_, boxes)
                reached = True
            except OutOfOrder:
                reached = False
            except TooFewHubs:
                assert event is Event.SUM
                assert not taken
                continue
            assert reached == allowed, (order, event, phase)
            if reached and not again:
                phase = TRANSITIONS[phase, event]
            taken = taken or (reached and event is Event.TAKE)


def test_no_path_of_the_table_leads_back() -> None:
    rank = {Phase.OFFERED: 0, Phase.TAKING: 1, Phase.SUMMED: 2, Phase.CLOSED: 3}
    for (before, event), after in TRANSITIONS.items():
        assert rank[after] > rank[before] or (before, event) == (Phase.TAKING, Event.TAKE)
    assert not any(before is Phase.CLOSED for before, _ in TRANSITIONS)


def test_after_its_total_an_aggregator_has_no_key_and_no_sum_any_more() -> None:
    round_ = Round()
    made = round_.deliver(round_.all_boxes(), round_.aggregators["first"], "first")
    secrets = [value for value in vars(made).values() if type(value).__name__ in ("AgreementKey", "SigningKey")]
    assert len(secrets) == 2
    made.finish()
    left = [type(value).__name__ for value in vars(made).values()]
    assert not {"AgreementKey", "SigningKey", "ndarray"} & set(left)


def test_an_aggregator_is_made_only_for_a_study_that_names_it() -> None:
    round_ = Round()
    with pytest.raises(NotPossible, match="third"):
        round_.aggregator("third", rand=bytes(64))
    with pytest.raises(MisuseError):
        round_.aggregator("first", rand=bytes(63))
    with pytest.raises(MisuseError):
        round_.aggregator("first", keys={})


@pytest.mark.parametrize(
    "changes",
    [
        {"study": ""},
        {"hubs": ("east", "north")},
        {"hubs": ("north", "east", "south")},
        {"hubs": ("east", "east", "south")},
        {"aggregators": ("first",)},
        {"aggregators": ("first", "first")},
        {"aggregators": ("first", "a" * 60)},
    ],
)
def test_terms_that_protect_nobody_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(NotPossible):
        check_terms(terms(**changes))


# --- the coordinator ------------------------------------------------------------------------------


def test_a_missing_message_stops_the_total_and_names_whose_it_is() -> None:
    round_ = Round()
    boxes = round_.all_boxes()
    totals = round_.totals(boxes)
    for part, name in ((boxes, "north"), (totals, "second")):
        kept = part.pop(name)
        with pytest.raises(TooFewHubs, match=name):
            round_.total(boxes, totals)
        part[name] = kept  # type: ignore[assignment]
    round_.total(boxes, totals)


def test_a_total_of_another_length_names_its_aggregator() -> None:
    round_ = Round()
    boxes = round_.all_boxes()
    totals = round_.totals(boxes)
    short = resigned(round_, replace(totals["first"], words=totals["first"].words[:-8]))
    with pytest.raises(Cheating) as found:
        round_.total(boxes, totals | {"first": short})
    assert found.value.blamed == ("first",)


def test_no_text_of_an_error_shows_the_check_key_or_a_share() -> None:
    round_ = Round()
    assert round_.start.check_key.hex() not in repr(round_.start)
    assert str(round_.start.check_key) not in repr(round_.start)


# --- check numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_check_numbers_add_up_like_the_words(bits: int) -> None:
    rng = np.random.default_rng(bits)
    parts = [rng.integers(0, 2**bits, CHECK_PART + 5, dtype=np.dtype(f"u{bits // 8}")) for _ in range(3)]
    key = b"k" * 32
    total = with_checks(parts[0], key) + with_checks(parts[1], key) + with_checks(parts[2], key)
    assert np.array_equal(without_checks(total, key), parts[0] + parts[1] + parts[2])
    with pytest.raises(BadTotal):
        without_checks(total, b"l" * 32)
    with pytest.raises(MisuseError):
        without_checks(total[:CHECKS], key)


def passes(change: np.ndarray, key: bytes) -> int:
    """How many of the check numbers do not see a change of the words, the check numbers left as they are."""
    return int((check_numbers(change, key) == 0).sum())


@pytest.mark.parametrize("change", ["one", "top bit", "everywhere"])
def test_each_check_number_misses_a_change_half_of_the_time_at_most(change: str) -> None:
    """500 keys, 32,000 coins; false alarm 1e-6. Half miss a change of one word; a tenth fewer would be seen."""
    words = np.zeros(300, dtype=np.uint64)
    words[7] = 1 << 63 if change == "top bit" else 1
    if change == "everywhere":
        words[:] = np.arange(1, 301)
    missed = sum(passes(words, i.to_bytes(32, "big")) for i in range(500))
    most, least = binom.isf(1e-6, 500 * CHECKS, 0.5), binom.ppf(1e-6, 500 * CHECKS, 0.5)
    assert missed <= most
    if change != "everywhere":
        assert least <= missed
        assert not least <= missed * 0.9
    assert max(passes(words, i.to_bytes(32, "big")) for i in range(500)) < CHECKS


def test_all_errors_of_a_bad_offer_are_ours() -> None:
    """Evidence, collateral and policies of any bytes: what comes out is one of our errors."""
    rng = np.random.default_rng(5)
    round_ = Round()
    for _ in range(60):
        junk = rng.bytes(int(rng.integers(0, 2_000)))
        changed = replace(round_.offer("second"), **{str(rng.choice(["evidence", "collateral"])): junk})
        with pytest.raises(FluteError):
            round_.admit(round_.started(offers={"first": round_.offer("first"), "second": changed}))
