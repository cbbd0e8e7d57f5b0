"""What corrupt hubs see is what their inputs and the outputs say: exactly where it can be, else in distribution.

Corrupt are the last t hubs, t the most there may be. Their view is all messages of the others, and all that opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable
from itertools import combinations
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from scipy import stats

from flute.mpc.chance import Chance
from flute.mpc.field import WIDE, Elements, Prime
from flute.mpc.opening import Room
from flute.mpc.party import Party
from flute.mpc.shares import concatenate
from flute.mpc.wire import Opened, Wire, weights
from support.mpc_parties import Run, agreed_keys, circles, compute

Steps = Generator[Any, Any, Any]
DIGEST = 32
FALSE_ALARM = 1e-6
"""Of each test below, over all its comparisons (Bonferroni)."""
HUBS = pytest.mark.parametrize("hubs", [3, 5, 10])
PRIMES = pytest.mark.parametrize("prime", WIDE, ids=lambda prime: str(prime.bits))


def corrupt(hubs: int) -> int:
    return (hubs - 1) // 2


# --- exact: messages of sums ------------------------------------------------------------------


class Given:
    """A source whose words are told."""

    def __init__(self, word: int) -> None:
        self.word = word

    def words(self, count: int) -> Elements:
        return np.full(count, self.word, np.uint64)


def honest_keys(hubs: int) -> list[tuple[int, ...]]:
    """The groups that no corrupt hub is in: one of n - t, and all pairs of its members."""
    honest = tuple(range(1, hubs - corrupt(hubs) + 1))
    return [honest, *combinations(honest, 2)] if len(honest) > 2 else [honest, honest]


def messages(hubs: int, prime: Prime, draws: list[int], secret: int) -> list[int]:
    """What each honest hub shows of a product under a uniform mask, when honest keys give these words."""
    shown = []
    for me in range(1, hubs - corrupt(hubs) + 1):
        circle = circles(hubs)[me]
        chance = Chance(circle, agreed_keys(hubs)[me])
        group, *pairs = honest_keys(hubs)
        chance._groups[group] = Given(draws[0])
        for pair, word in zip(pairs, draws[1:], strict=True):
            if me in pair:
                chance._pairs[pair] = Given(word)
        product = np.array([(secret + me) ** 2 % prime.p], np.uint64)
        masked = prime.add(product, chance.element(prime, (1,)))
        shown.append(int(Wire(circle, chance)._additive(prime, masked)[0]))
    return shown


def rank(rows: list[list[int]], p: int) -> int:
    rows, found = [list(row) for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(found, len(rows)) if rows[r][column] % p), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        inverse = pow(rows[found][column], -1, p)
        for r in range(found + 1, len(rows)):
            factor = rows[r][column] * inverse % p
            rows[r] = [(a - factor * b) % p for a, b in zip(rows[r], rows[found], strict=True)]
        found += 1
    return found


def effects(hubs: int, prime: Prime, secret: int) -> list[list[int]]:
    """By honest key: what one more in its word adds to each honest message."""
    count = len(honest_keys(hubs))
    base = messages(hubs, prime, [0] * count, secret)
    units = [messages(hubs, prime, [int(i == k) for i in range(count)], secret) for k in range(count)]
    return [[(a - b) % prime.p for a, b in zip(unit, base, strict=True)] for unit in units]


@pytest.mark.defence("private H", "exact H")
@pytest.mark.parametrize("hubs", [3, 5])
@PRIMES
def test_messages_of_a_product_are_exactly_uniform_whatever_is_multiplied(hubs: int, prime: Prime) -> None:
    """They are an affine map of uniform words that corrupt hubs lack, of full rank: uniform, and independent of the
    secret, which moves the constant alone."""
    honest = hubs - corrupt(hubs)
    change = effects(hubs, prime, secret=5)
    assert rank(change, prime.p) == honest
    assert effects(hubs, prime, secret=999_999) == change
    count = len(honest_keys(hubs))
    words = [(k + 3) * 2**50 % prime.p for k in range(count)]
    base = messages(hubs, prime, [0] * count, 5)
    moved = [sum(w * row[i] for w, row in zip(words, change, strict=True)) for i in range(honest)]
    assert messages(hubs, prime, words, 5) == [(b + m) % prime.p for b, m in zip(base, moved, strict=True)]


def test_messages_of_ten_hubs_are_exactly_uniform_too() -> None:
    assert rank(effects(10, WIDE[1], secret=5), WIDE[1].p) == 6


@pytest.mark.control("private H", "exact H")
@PRIMES
def test_control_without_either_mask_they_are_not(prime: Prime) -> None:
    change = effects(5, prime, secret=5)
    assert rank(change[1:], prime.p) == 2  # without the group's: the sum is the product
    assert rank(change[:1], prime.p) == 1  # without the pairs'


@HUBS
@PRIMES
def test_an_input_is_shown_under_a_word_that_corrupt_hubs_lack(hubs: int, prime: Prime) -> None:
    circle = circles(hubs)[1]
    shown = []
    for word in (0, 1):
        chance = Chance(circle, agreed_keys(hubs)[1])
        chance._groups[honest_keys(hubs)[0]] = Given(word)
        value = chance.owned(prime, 1, (1,))[1]
        assert value is not None
        shown.append(int(value[0]))
    assert shown[0] != shown[1]  # a factor times a uniform word is uniform


# --- exact: shares that are opened ----------------------------------------------------------------


def small_program(party: Party) -> Steps:
    x = yield from party.inputs(np.array([party.me * 7]) if party.me < 3 else None, {1: (1,), 2: (1,)}, bound=5)
    y = yield from party.mul(x[1], x[2])
    return (yield from party.open(y))


@HUBS
def test_shares_of_an_opened_value_say_nothing_but_the_value(hubs: int) -> None:
    """All honest shares follow from the value and the t shares that corrupt hubs hold."""
    run = compute(small_program, hubs)
    last, bad = run.messages[-1], range(hubs - corrupt(hubs) + 1, hubs + 1)
    words = {place: last[place, place % hubs + 1][DIGEST:] for place in range(1, hubs + 1)}
    for k, prime in enumerate(WIDE):
        shares = {place: int.from_bytes(raw[8 * k : 8 * k + 8], "little") for place, raw in words.items()}
        known = {0: 7 * 14, **{place: shares[place] for place in bad}}
        for place in range(1, hubs - corrupt(hubs) + 1):
            followed = sum(w * known[x] for x, w in zip(known, weights(prime, tuple(known), place), strict=True))
            assert shares[place] == followed % prime.p


# --- in distribution: real runs and simulated ones --------------------------------------------------


def program(mine: dict[int, Elements]) -> Any:
    """Product, rounding, comparison and bits of two honest hubs' values; one exact output."""

    def steps(party: Party) -> Steps:
        x = yield from party.inputs(mine.get(party.me), {place: v.shape for place, v in mine.items()}, bound=12)
        product = yield from party.mul_truncate(x[1], x[2] + 4000, 6)
        less = yield from party.less_than_zero(concatenate([x[1] - x[2], product - 410_000]), 26)
        wide = yield from party.widen(less, 1)
        return (yield from party.open(wide.sum().reshape(1)))

    return steps


def corrected(hubs: int, last: int, change: int) -> Any:
    """The simulator's last step: honest shares of the output are moved onto the polynomial that goes through the real
    output and the shares that corrupt hubs hold."""
    bad = tuple(range(hubs - corrupt(hubs) + 1, hubs + 1))

    def rewrite(number: int, sender: int, recipient: int, raw: bytes) -> bytes:
        if number != last or sender in bad:
            return raw
        words = []
        for k, prime in enumerate(WIDE):
            share = int.from_bytes(raw[DIGEST + 8 * k : DIGEST + 8 * k + 8], "little")
            moved = share + change * weights(prime, (0, *bad), sender)[0]
            words.append((moved % prime.p).to_bytes(8, "little"))
        return raw[:DIGEST] + b"".join(words)

    return rewrite


class View:
    """Of the corrupt hubs: words of honest messages and opened values, by round."""

    def __init__(self, hubs: int) -> None:
        self.hubs = hubs
        self.opened: list[Opened] = []

    def __enter__(self) -> View:
        view, plain = self, Wire._read

        def read(wire: Wire, *args: Any) -> Opened:
            opened = plain(wire, *args)
            if wire.circle.me == view.hubs:
                view.opened.append(opened)
            return opened

        self._patch = patch.object(Wire, "_read", read)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()

    def features(self, run: Run) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        honest = range(1, self.hubs - corrupt(self.hubs) + 1)
        for number, ways in enumerate(run.messages):
            for place in honest:
                if (place, self.hubs) in ways:
                    words = np.frombuffer(ways[place, self.hubs][DIGEST:], "<u8")
                    _count(found, f"message {number}", words)
        for number, opened in enumerate(self.opened):
            for kind, parts in (("sum", opened.sums), ("share", opened.shares), ("own", opened.own)):
                for k, part in enumerate(parts):
                    _count(found, f"{kind} {k} of round {number}", part.reshape(-1))
        return found


def _count(found: dict[str, list[float]], name: str, words: Any) -> None:
    """Size and lowest digit: what bounded masks would show first, and last."""
    found[f"{name}, size"] += list(words.astype(float))
    found[f"{name}, low"] += list((words % 8).astype(float))


def views(hubs: int, size: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """A real run, and one simulated without the honest hubs' values: theirs are 0, the output is set at the end."""
    rng = np.random.default_rng(hubs)
    real = {1: rng.integers(3000, 4000, size), 2: rng.integers(3000, 4000, size), hubs: np.arange(2)}
    with View(hubs) as seen:
        run = compute(program(real), hubs, context=b"real")
        first = seen.features(run)
    last, output = len(run.messages) - 1, int(run.sole[0])
    assert 0 < output < 2 * size
    nothing = real | {1: np.zeros(size, int), 2: np.zeros(size, int)}
    simulated = size  # of zeros: none is less than the other, each product is below its limit
    with View(hubs) as seen:
        run = compute(program(nothing), hubs, context=b"simulated", rewrite=corrected(hubs, last, output - simulated))
        corrupt_hubs = range(hubs - corrupt(hubs) + 1, hubs + 1)
        assert [int(run.results[place][0]) for place in corrupt_hubs] == [output] * corrupt(hubs)
        second = seen.features(run)
    return first, second


def smallest_p(first: dict[str, list[float]], second: dict[str, list[float]]) -> tuple[float, int]:
    """Over all features with 100 words or more: two samples in 8 cells of equal numbers, chi-squared, 7 degrees of
    freedom or fewer."""
    assert first.keys() == second.keys()
    found = []
    for name, ours in first.items():
        if len(ours) < 100:
            continue
        edges = np.unique(np.quantile([*ours, *second[name]], np.arange(1, 8) / 8))
        table = np.array([np.bincount(np.searchsorted(edges, of), minlength=8) for of in (ours, second[name])])
        table = table[:, table.sum(axis=0) > 0]
        if table.shape[1] > 1:
            found.append(float(stats.chi2_contingency(table).pvalue))
    return min(found), len(found)


@pytest.mark.defence("private H", "exact H")
@pytest.mark.parametrize(("hubs", "size"), [(3, 400), (5, 150), (10, 50)])
def test_real_and_simulated_views_have_one_distribution(hubs: int, size: int) -> None:
    p, comparisons = smallest_p(*views(hubs, size))
    assert comparisons > 60
    assert p > FALSE_ALARM / comparisons


@pytest.mark.control("private H", "exact H")
def test_control_masks_of_few_bits_tell_real_and_simulated_views_apart() -> None:
    """Masks of 26 bits over products of 24."""
    with (
        patch.object(Room, "mask_bits", lambda self, ring: 26 if len(ring) == 2 else 19),
        patch.object(Room, "require", lambda self, bound: 25),
        patch.object(Room, "narrow_bits", 13),
    ):
        p, comparisons = smallest_p(*views(3, 400))
    assert p < FALSE_ALARM / comparisons / 1000


def uniform_words(run: Run, hubs: int) -> Iterable[tuple[str, Any]]:
    """Messages of a round in which only products are reduced, by honest sender and prime."""
    for place in range(1, hubs - corrupt(hubs) + 1):
        words = np.frombuffer(run.messages[0][place, hubs][DIGEST:], "<u8")
        half = len(words) // 2
        yield f"{place}, first prime", words[:half] / WIDE[0].p
        yield f"{place}, second prime", words[half:] / WIDE[1].p


@pytest.mark.parametrize("hubs", [3, 5, 10])
def test_received_words_are_uniform(hubs: int) -> None:
    """Chi-squared over 32 cells, 1,200 words of each honest hub and prime. Words raised to 1.6 are seen."""

    def one_product(party: Party) -> Steps:
        party.products._fresh = []  # nothing but the product in this round
        yield from party.mul(party.constant(np.arange(600)), party.constant(np.arange(600)))

    found = list(uniform_words(compute(one_product, hubs), hubs))
    for name, values in found:
        counts = np.histogram(values, bins=32, range=(0, 1))[0]
        assert stats.chisquare(counts).pvalue > FALSE_ALARM / len(found), name
        skewed = np.histogram(values**1.6, bins=32, range=(0, 1))[0]
        assert stats.chisquare(skewed).pvalue < FALSE_ALARM / len(found)
