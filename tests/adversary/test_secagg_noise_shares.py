"""Cells H and P of plan `secagg` in private mode: the noise that is left when others have taken theirs away.

Every hub that sees a total knows its own noise, the coordinator that of its colluding hubs, and nobody adds the noise
of a hub that dropped out. What is left must have at least the variance that is charged. Real hubs, real noise, real
masks, zero answers, so that the opened total is noise alone. False alarm ALPHA = 1e-6 per verdict; 20,000 coordinates
tell variances apart by 10 % with that certainty.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from tests.adversary.secagg_rounds import Chance, Federation, any_of, group, spy, strip, words
from tests.statistics.noise_laws import Draws, scale_fits

from flute.aggregation import terms
from flute.aggregation.codec import Bounds, width_for
from flute.defaults import SENTINELS
from flute.dp import calibrate
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.errors import MisuseError, OutOfOrder
from flute.messages.protocol import GroupTerms

pytestmark = pytest.mark.requirement("F-SRS-4")

SIZE, SIGMA = 20_000, 600.0
"""SIGMA: deviation that is charged for, on the grid."""
LIAR = "hub-b"


def plan(made: GroupTerms, shares: int) -> Mechanism:
    """Hubs that add variance SIGMA^2 / shares each."""
    return Mechanism(
        1.0, SIZE, 5_000.0, SIGMA / math.sqrt(shares), len(made.hubs), made.survivors_min, made.colluding
    )


def noise_of(mechanism: Mechanism, hubs: tuple[str, ...], seed: object) -> dict[str, Draws]:
    nobody = np.empty((0, SIZE))
    return {hub: mechanism.contribution(nobody, rand=Chance((seed, hub))(64)) for hub in hubs}


def opened_without_own(made: GroupTerms, shares: int, silent: tuple[str, ...]) -> Draws:
    """An opened total of nothing but noise, less the colluding hub's own."""
    federation, mechanism = Federation(made, seed="noise"), plan(made, shares)
    noise = noise_of(mechanism, made.hubs, shares)
    reach = mechanism.reach(0)
    bounds = Bounds(reach.part, reach.total, reach.norm)
    opened = federation.run(noise, bounds=bounds, width=width_for(bounds.total), silent=silent)
    return opened.total.astype(np.int64) - noise[LIAR]


def variance_over(rest: Draws) -> float:
    """In parts of what is charged."""
    return float(np.square(rest, dtype=np.float64).mean()) / SIGMA**2


PRIVATE = group(5, 1, survivors_min=4)


def test_a_coalition_that_subtracts_its_own_noise_faces_what_is_charged() -> None:
    m = terms.sharers(PRIVATE)
    assert m == 3
    assert scale_fits(opened_without_own(PRIVATE, m, ("hub-d",)), SIGMA)
    assert variance_over(opened_without_own(PRIVATE, m, ())) > 1.2, "all answer: one share more than is charged"


@pytest.mark.parametrize("shares", [4, 5])
def test_control_a_number_of_shares_that_forgets_dropouts_or_colluders_leaves_too_little(shares: int) -> None:
    """4 counts n - c, or survivors_min alone; 5 counts everyone: three honest shares remain either way."""
    rest = opened_without_own(PRIVATE, shares, ("hub-d",))
    assert not scale_fits(rest, SIGMA)
    assert variance_over(rest) == pytest.approx(3 / shares, rel=0.07)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
def test_the_shares_counted_on_are_the_fewest_honest_ones_in_any_set_that_may_open(n: int) -> None:
    """Every survivor set that hubs sign and every choice of colluding hubs, one by one."""
    for c in range(n - 1):
        t = terms.default_threshold(n, c)
        for least in range(max(t, 3), n + 1):
            made = group(n, c, survivors_min=least, threshold=t)
            fewest = min(
                len(set(chosen) - set(bad))
                for k in range(least, n + 1)
                for chosen in combinations(made.hubs, k)
                for bad in combinations(made.hubs, max(c, 1))
            )
            assert terms.sharers(made) == fewest


def test_control_counting_by_the_threshold_of_the_whole_group_counts_too_many() -> None:
    """m = ceil(t n) with t = 2/3, the rule before dropouts were thought of."""
    made = group(30, 6, survivors_min=21)
    assert terms.sharers(made) == 15 < math.ceil(2 / 3 * 30)


def test_the_price_is_for_those_shares_and_a_plan_without_any_is_refused() -> None:
    made = mechanism_for(0.05, 1.0, 35, hubs=5, survivors_min=4, colluding=1)
    assert made.shares == terms.sharers(PRIVATE)
    assert made.sigma == made.hub_sigma * math.sqrt(made.shares)
    with pytest.raises(MisuseError, match="no honest noise"):
        mechanism_for(0.05, 1.0, 35, hubs=5, survivors_min=4, colluding=4)
    forgetful = mechanism_for(0.05, 1.0, 35, hubs=5, survivors_min=5, colluding=1)
    assert forgetful.rho_against(made.shares) > 1.2 * forgetful.rho, "control: priced as if nobody dropped out"


# --- crashes -----------------------------------------------------------------------------------------

REPEATS = 16


def once_and_again(crash: bool) -> tuple[Draws, Draws]:
    """One hub masks its answer under fresh noise again and again, as after crashes before its state was on disk. What
    the averaged vectors show under the mask, and the answer's first noise."""
    federation = Federation(group(3, 1), seed="crash")
    mechanism = plan(federation.terms, terms.sharers(federation.terms))
    spied, starts = spy(federation), federation.starts(SIZE)
    hub = federation.hubs["hub-a"]
    hub.begin(starts["hub-a"])
    backup, sent = hub.disk, []
    for k in range(REPEATS):
        if crash:
            hub.disk = backup
        sent.append(hub.mask(noise_of(mechanism, ("hub-a",), k)["hub-a"]))
    first = strip(sent[0], any_of(starts), spied)
    steps = [(words(s) - words(sent[0]))[:-SENTINELS].view(np.int64) for s in sent]
    return first + np.mean(steps, axis=0), first


def test_a_hub_masks_once_so_nothing_can_be_averaged() -> None:
    with pytest.raises(OutOfOrder, match="cannot mask an answer now"):
        once_and_again(crash=False)


def test_control_r_encodings_under_one_mask_leave_a_share_of_the_noise_in_r() -> None:
    """Sixteen: sigma^2 / (m r) is left of one hub's sigma^2 / m."""
    averaged, first = once_and_again(crash=True)
    share = SIGMA / math.sqrt(2)
    assert scale_fits(first, share)
    assert scale_fits(averaged, share / math.sqrt(REPEATS))
    assert not scale_fits(averaged, share)


# --- how often noise is drawn --------------------------------------------------------------------------


def draws_for(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often one contribution draws noise and rounding."""
    calls: list[str] = []
    for name in ("GridSum", "discrete_gaussian"):
        real = getattr(calibrate, name)
        monkeypatch.setattr(calibrate, name, lambda *a, real=real, name=name: calls.append(name) or real(*a))
    mechanism_for(0.05, 1.0, 35, hubs=5, survivors_min=4, colluding=1).contribution(rows, rand=Chance(1)(64))
    monkeypatch.undo()
    return len(calls)


def test_noise_is_drawn_once_whatever_the_records_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redraw when a rounded row is too long would take time that depends on the records; there is none, and the
    chance of a long row is charged as delta."""
    tables = [np.zeros((0, 35)), np.zeros((9, 35)), np.full((9, 35), 0.5), np.full((9, 35), np.nan), np.eye(35) * 1e9]
    assert {draws_for(table, monkeypatch) for table in tables} == {2}


def test_control_rounding_again_until_a_row_is_short_takes_longer_for_some_records() -> None:
    def tries(row: np.ndarray, limit: float) -> int:
        rng, count = np.random.default_rng(3), 0
        while True:
            count += 1
            if np.linalg.norm(np.floor(row + rng.random(len(row)))) <= limit or count == 50:
                return count

    assert tries(np.zeros(35), 3.5) == 1
    assert tries(np.full(35, 0.5), 3.5) > 1
