"""Opening all secrets at once: its arithmetic, and that it opens what opening one by one does."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adversary.secagg_rounds import Federation, answers, any_of, group

from flute.aggregation import opening
from flute.primitives.sharing import PRIME, SHARE_SIZE, combine, split, split_rand_size


def expanded(seed: int, size: int) -> bytes:
    return hashlib.shake_256(seed.to_bytes(8, "big")).digest(size)


def dealt(threshold: int, holders: int, dealers: int, seed: int = 1) -> list[tuple[bytes, ...]]:
    """Each dealer's shares; the first dealer's secret is all ones, so that the largest number is among them."""
    secrets = [b"\xff" * 32, *(expanded(seed + d, 32) for d in range(1, dealers))]
    rand = [expanded(seed + 1000 * d, split_rand_size(threshold)) for d in range(1, dealers + 1)]
    return [split(s, threshold=threshold, holders=holders, rand=r) for s, r in zip(secrets, rand, strict=True)]


def rows_of(shares: list[tuple[bytes, ...]], holders: list[int]) -> tuple[dict[int, bytes], dict[int, int]]:
    rows = {x: opening._APART.join(own[x - 1] for own in shares) for x in holders}
    return rows, {x: int.from_bytes(row, "big") for x, row in rows.items()}


@given(st.data())
def test_any_holders_open_every_dealers_secret_at_once(data: st.DataObject) -> None:
    holders = data.draw(st.integers(3, 40))
    threshold = data.draw(st.integers(2, holders))
    chosen = sorted(data.draw(st.permutations(range(1, holders + 1)))[:threshold])
    shares = dealt(threshold, holders, 3, data.draw(st.integers(0, 2**32)))
    _, numbers = rows_of(shares, chosen)
    found = opening._weighted(numbers, opening._weights_at_zero(chosen), 3)
    secrets = [combine({x: own[x - 1] for x in chosen}, threshold=threshold) for own in shares]
    assert [value.to_bytes(32, "big") for value in found] == secrets


def test_two_hundred_holders_of_the_largest_shares_fit_their_slots() -> None:
    """The largest numbers that can be added: every share p - 1, and weights up to p - 1."""
    largest = (PRIME - 1).to_bytes(SHARE_SIZE, "big")
    _, numbers = rows_of([(largest,) * 200] * 3, list(range(1, 201)))
    weights = dict.fromkeys(numbers, PRIME - 1)
    assert opening._weighted(numbers, weights, 3) == [200 * (PRIME - 1) ** 2 % PRIME] * 3


@pytest.mark.parametrize(("holders", "threshold"), [(5, 3), (5, 4), (30, 19), (29, 19), (200, 121)])
def test_the_dual_word_is_zero_on_shares_and_on_nothing_that_differs_in_a_bit(holders: int, threshold: int) -> None:
    """A false pass has a probability below 2^-240. The lowest and highest degree that is too large are among them."""
    shares = dealt(threshold, holders, 3)
    present = [x for x in range(1, holders + 1) if x != 2 or threshold == holders - 1]
    rows, numbers = rows_of(shares, present)
    assert opening._weighted(numbers, opening._dual_word(rows, threshold), 3) == [0, 0, 0]
    for x in present[:: max(1, holders // 10)]:
        for at in range(3):
            wrong = [list(own) for own in shares]
            wrong[at][x - 1] = ((int.from_bytes(wrong[at][x - 1], "big") + 1) % PRIME).to_bytes(SHARE_SIZE, "big")
            rows, numbers = rows_of(wrong, present)
            found = opening._weighted(numbers, opening._dual_word(rows, threshold), 3)
            assert [value != 0 for value in found] == [k == at for k in range(3)]


@pytest.mark.parametrize("more", [1, 2, 9])
def test_shares_of_a_higher_degree_are_no_shares_of_the_group(more: int) -> None:
    """A dealer that shares with t + 1 and more coefficients: any t of its shares open another secret."""
    shares = [dealt(19 + more, 30, 1)[0], dealt(19, 30, 2)[1]]
    rows, numbers = rows_of(shares, list(range(1, 31)))
    found = opening._weighted(numbers, opening._dual_word(rows, 19), 2)
    assert found[0] != 0
    assert found[1] == 0


def test_the_dual_word_depends_on_every_share_and_on_who_is_there() -> None:
    shares = dealt(3, 6, 2)
    rows, _ = rows_of(shares, [1, 2, 3, 4, 5, 6])
    word = opening._dual_word(rows, 3)
    fewer = {x: row for x, row in rows.items() if x != 6}
    assert opening._dual_word(fewer, 3) != {x: word[x] for x in fewer}
    for x, row in rows.items():
        assert opening._dual_word({**rows, x: row[:-1] + bytes([row[-1] ^ 1])}, 3)[1] != word[1]


def test_t_holders_have_no_dual_word() -> None:
    rows, numbers = rows_of(dealt(3, 3, 2), [1, 2, 3])
    assert opening._dual_word(rows, 3) == {}
    assert opening._weighted(numbers, {}, 2) == [0, 0]


@pytest.mark.parametrize("silent", [(), ("hub-a",), ("hub-c", "hub-i")])
def test_at_once_and_one_by_one_open_the_same(silent: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    federation = Federation(group(9, 1))
    starts = federation.starts(6)
    values = {name: own for name, own in answers(federation.terms).items() if name not in silent}
    told = federation.told(starts, federation.masked(starts, values))
    given = (any_of(starts), told, federation.named, federation.shares(starts, told))
    kept = opening._open_together
    seen = []
    monkeypatch.setattr(opening, "_open_together", lambda *args: seen.append(kept(*args)) or seen[-1])
    at_once = opening.open_secrets(*given)
    assert seen == [at_once.of]
    monkeypatch.setattr(opening, "_open_together", lambda *args: None)
    assert opening.open_secrets(*given) == at_once
