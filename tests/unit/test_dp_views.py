"""Each onlooker's figure, and a patient's who is at several hubs, said as odds with their chance."""

from __future__ import annotations

import math

import pytest

from flute.defaults import ROUNDING_BETA
from flute.dp.accounting import epsilon
from flute.dp.calibrate import Mechanism, mechanism_for
from flute.dp.composition import Method
from flute.dp.events import AddedDelta, DiscreteGaussian, Exact, Gaussian, Onlooker, PoissonSubsampled
from flute.dp.gaussian import gaussian_epsilon, mu_for
from flute.dp.views import by_onlooker, events_of, patient_at
from flute.errors import MisuseError

DELTA = 1e-6


def pilot(epsilon_charged: float, steps: int = 1) -> list[Mechanism]:
    """Three hubs, all answer, one may collude: m = 2. `steps` equal releases of 35 numbers."""
    mu = mu_for(epsilon_charged, DELTA - steps * ROUNDING_BETA) / math.sqrt(steps)
    return [mechanism_for(mu * mu / 2, 1.0, 35, 3, 3, 1)] * steps


@pytest.mark.requirement("F-PIL-11")
@pytest.mark.parametrize("steps", [1, 5])
def test_the_pilot_at_epsilon_one_is_said_as_080_100_and_145(steps: int) -> None:
    told = {onlooker: found.epsilon for onlooker, found in by_onlooker(pilot(1.0, steps), DELTA).items()}
    assert told[Onlooker.OUTSIDER] == pytest.approx(0.80, abs=0.005)
    assert told[Onlooker.ONE_HUB] == pytest.approx(1.00, abs=0.005)
    assert told[Onlooker.CHARGED] == told[Onlooker.ONE_HUB]
    assert told[Onlooker.BEYOND] == pytest.approx(1.45, abs=0.005)


@pytest.mark.requirement("F-PIL-11")
def test_rule_odds_of_every_onlooker_are_said_with_delta_and_without_a_percentage() -> None:
    for found in by_onlooker(pilot(1.0), DELTA).values():
        sentence = found.sentence()
        assert "factor of" in sentence
        assert "1 in 1,000,000" in sentence
        assert "%" not in sentence
    charged = by_onlooker(pilot(1.0), DELTA)[Onlooker.CHARGED]
    assert 1.153 < charged.odds < 1.2


def test_the_price_of_an_onlooker_is_the_mechanisms_own() -> None:
    (mechanism,) = pilot(1.0)
    for onlooker, rho in (
        (Onlooker.OUTSIDER, mechanism.views().outsider),
        (Onlooker.ONE_HUB, mechanism.views().one_hub),
        (Onlooker.CHARGED, mechanism.rho),
        (Onlooker.BEYOND, mechanism.views().two_hubs),
    ):
        noise, rounding = events_of(mechanism, onlooker)
        assert noise.rho <= rho <= noise.rho * (1 + 5e-6), (
            "what is charged is mu^2/2: the grid's variance is taken off"
        )
        assert rounding == AddedDelta(mechanism.delta)


def test_a_hub_that_answers_alone_is_seen_alike_by_all() -> None:
    alone = mechanism_for(0.02, 1.0, 3, 1, 1, 0)
    assert len({found.epsilon for found in by_onlooker([alone], DELTA).values()}) == 1


@pytest.mark.requirement("F-PIL-11")
def test_rule_a_patient_at_two_hubs_faces_212_where_one_hub_says_1() -> None:
    events = [event for mechanism in pilot(1.0, 4) for event in events_of(mechanism, Onlooker.CHARGED)]
    assert patient_at([events], DELTA).epsilon == pytest.approx(1.0, abs=0.002)
    both = patient_at([events, events], DELTA)
    assert both.epsilon == pytest.approx(2.12, abs=0.005)
    assert both.method is Method.GAUSSIAN
    assert both.odds > 2


def test_unequal_hubs_add_their_mu_while_releases_of_one_hub_add_their_squares() -> None:
    found = patient_at([[Gaussian(0.3), Gaussian(0.4)], [Gaussian(0.2)]], DELTA)
    assert found.epsilon == pytest.approx(gaussian_epsilon(0.7, DELTA), rel=1e-9)


def test_without_a_proved_mu_the_roots_of_rho_add_up_over_hubs() -> None:
    little = DiscreteGaussian(0.2, 1.0, 1)
    found = patient_at([[little], [little]], DELTA)
    assert found.method is Method.RENYI
    assert found.epsilon == pytest.approx(epsilon(4 * little.rho, DELTA), rel=1e-9)


def test_rounding_at_every_hub_is_taken_off_the_one_delta_and_exact_numbers_are_counted() -> None:
    hub = [Gaussian(0.2), AddedDelta(2e-7), Exact(3)]
    found = patient_at([hub, hub], DELTA)
    assert found.numbers == 6
    assert found.epsilon == math.inf
    assert found.noised == pytest.approx(gaussian_epsilon(0.4, 6e-7), rel=1e-9)
    assert patient_at([[AddedDelta(6e-7)], [AddedDelta(6e-7)]], DELTA).noised == math.inf


def test_no_amplification_is_counted_for_a_patient_at_several_hubs() -> None:
    step = PoissonSubsampled(Gaussian(0.2), 0.01, frozenset(Onlooker), "drawn inside the hub")
    assert patient_at([[step]], DELTA).epsilon == pytest.approx(gaussian_epsilon(0.2, DELTA), rel=1e-9)


def test_a_patient_at_no_hub_is_refused() -> None:
    with pytest.raises(MisuseError):
        patient_at([], DELTA)
