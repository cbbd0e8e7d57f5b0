"""Totals are found exactly, from 0 outwards, within a bound and no further."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flute.defaults.threshold import MAX_BABY_STEPS, MAX_TOTAL, MIN_BABY_STEPS
from flute.errors import BadTotal, MisuseError
from flute.threshold import totals
from flute.threshold.group import IDENTITY, multiply_base, subtract
from flute.threshold.totals import read_totals, steps_for

STEPS = 2**8


@pytest.mark.parametrize("bound", [1, 2, 255, 256, 257, 1000])
def test_every_total_within_the_bound_is_found(bound: int) -> None:
    edges = {
        0,
        1,
        -1,
        bound,
        -bound,
        *(sign * (STEPS * k + off) for sign in (1, -1) for k in range(4) for off in (-1, 0, 1)),
    }
    wanted = sorted(m for m in edges if abs(m) <= bound)
    assert read_totals([multiply_base(m) for m in wanted], bound=bound, steps=STEPS) == tuple(wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(-5000, 5000))
def test_any_total_is_found_or_refused_by_its_size(m: int) -> None:
    element, bound = multiply_base(m), 2500
    if abs(m) <= bound:
        assert read_totals([element], bound=bound, steps=STEPS) == (m,)
    else:
        with pytest.raises(BadTotal):
            read_totals([element], bound=bound, steps=STEPS)


@pytest.mark.parametrize("m", [11, -11, 10 + STEPS, 2**40, -(2**40)])
def test_a_total_out_of_bounds_names_its_cell(m: int) -> None:
    with pytest.raises(BadTotal, match="Cell 2 "):
        read_totals([IDENTITY, multiply_base(10), multiply_base(m)], bound=10, steps=STEPS)


@pytest.mark.parametrize("bound", [0, -1, MAX_TOTAL + 1])
def test_a_bound_that_cannot_be_searched_is_refused(bound: int) -> None:
    with pytest.raises(MisuseError):
        read_totals([IDENTITY], bound=bound, steps=STEPS)


@pytest.mark.parametrize("steps", [MIN_BABY_STEPS - 1, MAX_BABY_STEPS + 1])
def test_a_table_beyond_its_limits_is_not_made(steps: int) -> None:
    with pytest.raises(MisuseError):
        totals.baby_steps(steps)


def test_the_table_is_made_once() -> None:
    assert totals.baby_steps(STEPS) is totals.baby_steps(STEPS)


def test_the_table_grows_with_what_is_searched_and_stays_within_its_limits() -> None:
    sizes = [steps_for(bound, 1000) for bound in (1, 2**10, 2**20, MAX_TOTAL)]
    assert sizes == sorted(sizes)
    assert sizes[2] == 2**15
    assert sizes[-1] == MAX_BABY_STEPS
    assert steps_for(1, 1) == MIN_BABY_STEPS


def test_totals_near_zero_are_found_with_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noisy counts are near 0: the search must not begin at the far end."""
    rng = np.random.default_rng(5)
    wanted = tuple(int(v) for v in np.rint(rng.normal(0, 3 * STEPS, 50)))
    elements = [multiply_base(m) for m in wanted]
    made = []
    monkeypatch.setattr(totals, "subtract", lambda a, b: made.append(1) or subtract(a, b))
    assert read_totals(elements, bound=2**20, steps=STEPS) == wanted
    assert len(made) <= sum(abs(m) // STEPS + 1 for m in wanted)
