"""Reports are within 1 % of the tight epsilon and never below it; dp_accounting's own accountant is the oracle."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from flute.dp import composition
from flute.dp.composition import Method, Report, report, slack, zcdp_epsilon
from flute.dp.events import (
    AddedDelta,
    DiscreteGaussian,
    Event,
    Exact,
    Gaussian,
    Laplace,
    Onlooker,
    PoissonSubsampled,
    Replacement,
)
from flute.dp.filters import GaussianFilter, RenyiFilter, ZcdpFilter
from flute.dp.gaussian import composed_mu, gaussian_epsilon
from flute.dp.losses import adding_curve, float_mass, least_delta, mix, removing_curve
from flute.errors import MisuseError

ALL = frozenset(Onlooker)


def sampled(noise: float, rate: float) -> PoissonSubsampled:
    return PoissonSubsampled(Gaussian(1 / noise), rate, ALL, "every onlooker is outside in this test")


def random_mix(seed: int) -> tuple[list[Event], float]:
    """Up to 5 Gaussians, up to 3 Laplace releases, 1 to 3 kinds of sampled steps of up to 1,000 each."""
    rng = np.random.default_rng(seed)
    events: list[Event] = [Gaussian(float(mu)) for mu in 10 ** rng.uniform(-2, -0.3, rng.integers(0, 6))]
    events += [Laplace(float(epsilon)) for epsilon in 10 ** rng.uniform(-2.5, 0, rng.integers(0, 4))]
    for _ in range(rng.integers(1, 4)):
        step = sampled(float(rng.uniform(0.5, 4)), float(10 ** rng.uniform(-3, -0.7)))
        events += [step] * int(10 ** rng.uniform(0, 3))
    return events, float(10 ** rng.uniform(-7, -4))


def fine_epsilon(events: list[Event], delta: float) -> float:
    """On bins five times finer, every Gaussian convolved by itself; a test below compares the curves it rests on."""
    counts = Counter(events)
    laplace = {event.epsilon: n for event, n in counts.items() if isinstance(event, Laplace)}
    samples = {
        (event.of.mu, event.rate): n for event, n in counts.items() if isinstance(event, PoissonSubsampled)
    } | {(event.mu, 1.0): n for event, n in counts.items() if isinstance(event, Gaussian)}
    return mix(0.0, laplace, samples, finer=5.0).epsilon_at(delta)


def oracle_epsilon(events: list[Event], delta: float) -> float:
    """dp_accounting's own accountant, its own rounding, bins of its default width."""
    import dp_accounting as dpa
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dpa.NeighboringRelation.ADD_OR_REMOVE_ONE, 2e-4)
    for event, times in Counter(events).items():
        match event:
            case Gaussian():
                accountant.compose(dpa.GaussianDpEvent(1 / event.mu), times)
            case Laplace():
                accountant.compose(dpa.LaplaceDpEvent(1 / event.epsilon), times)
            case PoissonSubsampled():
                step = dpa.PoissonSampledDpEvent(event.rate, dpa.GaussianDpEvent(1 / event.of.mu))
                accountant.compose(step, times)
            case _:
                raise AssertionError(event)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("seed", [*range(16), *(pytest.param(s, marks=pytest.mark.soak) for s in range(16, 50))])
def test_a_mix_is_within_one_percent_of_the_tight_epsilon_and_never_below_it(seed: int) -> None:
    """The fine one is above the truth itself, by a 25th of what ours is; two truths without bins follow below."""
    events, delta = random_mix(seed)
    found = report(events, delta)
    ratio = found.epsilon / fine_epsilon(events, delta)
    assert 1 <= ratio <= 1.01
    assert found.method is Method.LOSSES
    assert found.epsilon <= zcdp_epsilon(events, delta)
    assert found.odds >= found.epsilon * 0.8


@pytest.mark.parametrize("seed", [0, 5, 9, 17])
def test_a_mix_agrees_with_the_oracles_own_accountant(seed: int) -> None:
    """Both round up, on bins of their own: within half a per cent of each other."""
    events, delta = random_mix(seed)
    assert report(events, delta).epsilon == pytest.approx(oracle_epsilon(events, delta), rel=5e-3)


@pytest.mark.parametrize(("mu", "rate"), [(1.0, 0.01), (2.0, 0.2), (0.25, 1e-3), (5.0, 0.5)])
def test_the_curves_of_a_sample_are_the_oracles_in_both_directions(mu: float, rate: float) -> None:
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    at = np.concatenate([np.linspace(-5, 8, 401), np.linspace(-0.05, 0.05, 201)])
    for curve, adjacency in ((removing_curve, AdjacencyType.REMOVE), (adding_curve, AdjacencyType.ADD)):
        oracle = GaussianPrivacyLoss(1 / mu, sensitivity=1, sampling_prob=rate, adjacency_type=adjacency)
        assert np.abs(curve(mu, rate, at) - oracle.get_delta_for_epsilon(at)).max() < 1e-14


def test_a_hundred_thousand_convolutions_of_gaussians_are_not_below_their_exact_sum() -> None:
    """What `float_mass` is for. The control: without it the transform's error shows at the smallest delta."""
    steps = 100_000
    base = 1 / math.sqrt(steps)
    exact = gaussian_epsilon(1.0, 1e-12)
    errors = []
    for finer in (1.0, 1.3, 1.74, 0.8, 1.4):
        losses = mix(0.0, {}, {(base, 1.0): steps}, finer)
        for delta in (1e-5, 1e-7, least_delta(steps)):
            assert 1 <= losses.epsilon_at(delta) / gaussian_epsilon(1.0, delta) <= 1.002
        errors.append(losses.together.get_delta_for_epsilon(exact) - 1e-12)
    assert -float_mass(steps) / 10 < min(errors) < 0


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Theorem 8 of Balle and Wang 2018, for an epsilon of either sign."""
    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu))


def delta_of_gaussian_and_laplace(mu: float, scale_epsilon: float, epsilon: float) -> float:
    """By integrating over the Laplace release's answer y: its loss there is |y - 1| e - |y| e, e = 1/scale."""
    e = scale_epsilon

    def density(y: float) -> float:
        return e / 2 * math.exp(-e * abs(y)) * gaussian_delta(mu, epsilon - e * (abs(y - 1) - abs(y)))

    parts = ((-60 / e, 0.0), (0.0, 1.0), (1.0, 60 / e))
    return sum(quad(density, *part, epsabs=1e-14, epsrel=1e-11, limit=400)[0] for part in parts)


@pytest.mark.parametrize(("mu", "scale_epsilon"), [(0.2, 0.5), (1.0, 1.0), (0.5, 0.05)])
def test_a_gaussian_with_a_laplace_release_agrees_with_an_integral(mu: float, scale_epsilon: float) -> None:
    found = report([Gaussian(mu), Laplace(scale_epsilon)], 1e-5).epsilon
    assert delta_of_gaussian_and_laplace(mu, scale_epsilon, found) <= 1e-5
    assert delta_of_gaussian_and_laplace(mu, scale_epsilon, found / 1.01) > 1e-5


def delta_of_gaussian_and_sample(mu: float, base: float, rate: float, epsilon: float, *, removing: bool) -> float:
    """By integrating over the sampled release's answer x, in one direction."""

    def density(x: float) -> float:
        loss = math.log1p(rate * math.expm1(base * x - base * base / 2))
        without = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        if removing:
            return without * math.exp(loss) * gaussian_delta(mu, epsilon - loss)
        return without * gaussian_delta(mu, epsilon + loss)

    return float(quad(density, -12, 12 + base, epsabs=1e-14, epsrel=1e-11, limit=400)[0])


@pytest.mark.parametrize(("mu", "base", "rate"), [(0.3, 1.0, 0.1), (0.2, 2.0, 0.01), (1.0, 0.5, 0.5)])
def test_a_gaussian_with_a_sampled_one_agrees_with_an_integral_in_the_worse_direction(
    mu: float, base: float, rate: float
) -> None:
    found = report([Gaussian(mu), sampled(1 / base, rate)], 1e-5).epsilon

    def worse(epsilon: float) -> float:
        return max(delta_of_gaussian_and_sample(mu, base, rate, epsilon, removing=r) for r in (True, False))

    assert worse(found) <= 1e-5
    assert worse(found / 1.01) > 1e-5


def test_a_thousand_distinct_gaussians_are_reported_within_a_second_and_exactly() -> None:
    mus = np.geomspace(1e-4, 0.2, 1000).tolist()
    started = time.process_time()
    found = report([Gaussian(mu) for mu in mus], 1e-6)
    assert time.process_time() - started < 1.0
    assert found.method is Method.GAUSSIAN
    assert found.epsilon == gaussian_epsilon(composed_mu(mus), 1e-6)


def test_more_samples_than_can_be_composed_singly_are_rounded_together_and_the_slack_is_stated() -> None:
    """300 different noises and rates, where 64 can be: a training run whose batches vary by 10 %."""
    rng = np.random.default_rng(3)
    events: list[Event] = [
        sampled(float(noise), float(rate))
        for noise, rate in zip(rng.uniform(1.0, 1.1, 300), rng.uniform(0.01, 0.011, 300), strict=True)
    ]
    assert 1 < slack(events, 1e-5) < 1.08


def test_rounding_together_never_falls_below_composing_singly_and_the_stated_slack_covers_the_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    samples = {(1 / float(noise), 0.02): 5 for noise in rng.uniform(0.8, 2.0, 20)}
    events: list[Event] = [sampled(1 / mu, rate) for mu, rate in samples for _ in range(5)]
    singly = report(events, 1e-5)
    monkeypatch.setattr(composition, "MAX_GROUPS", 12)
    together, stated = report(events, 1e-5), slack(events, 1e-5)
    assert singly.step == 0 < together.step
    assert singly.epsilon <= together.epsilon <= singly.epsilon * stated
    assert together.epsilon <= 1.05 * singly.epsilon


def test_alike_samples_are_not_rounded_and_have_no_slack() -> None:
    events: list[Event] = [sampled(1.0, 0.01)] * 500
    assert report(events, 1e-5).step == 0.0
    assert slack(events, 1e-5) == 1.0


def test_zcdp_is_above_the_report_for_gaussians_alone_too() -> None:
    for mu in (0.01, 0.2366, 1.0, 5.0):
        exact, plain = report([Gaussian(mu)], 1e-6).epsilon, zcdp_epsilon([Gaussian(mu)], 1e-6)
        assert exact < plain


def test_a_discrete_gaussian_with_proved_mu_is_composed_as_one_and_without_it_by_renyi_divergences() -> None:
    proved = report([DiscreteGaussian(240.0, 1000.0, 35)] * 3, 1e-6)
    assert proved.method is Method.GAUSSIAN
    assert proved.epsilon == pytest.approx(gaussian_epsilon(0.24 * math.sqrt(3), 1e-6), rel=1e-5)
    little = report([DiscreteGaussian(0.2, 1.0, 1), sampled(1.0, 0.01)], 1e-6)
    assert little.method is Method.RENYI
    assert little.epsilon <= zcdp_epsilon([DiscreteGaussian(0.2, 1.0, 1), sampled(1.0, 0.01)], 1e-6)


def test_a_delta_too_small_for_fourier_transforms_is_answered_by_renyi_divergences() -> None:
    events: list[Event] = [sampled(1.0, 0.01)] * 100
    small, usual = report(events, 1e-10), report(events, 1e-6)
    assert (small.method, usual.method) == (Method.RENYI, Method.LOSSES)
    assert small.epsilon > usual.epsilon


@pytest.mark.requirement("F-PIL-11")
def test_rule_rounding_is_taken_off_delta_and_when_nothing_is_left_there_is_no_bound() -> None:
    plain, rounded = report([Gaussian(0.2)], 1e-6), report([Gaussian(0.2), AddedDelta(5e-7)], 1e-6)
    assert rounded.epsilon == report([Gaussian(0.2)], 5e-7).epsilon > plain.epsilon
    for none_left in ([AddedDelta(1e-6)], [AddedDelta(6e-7)] * 2):
        assert report([Gaussian(0.2), *none_left], 1e-6).epsilon == math.inf
        assert zcdp_epsilon([Gaussian(0.2), *none_left], 1e-6) == math.inf


@pytest.mark.requirement("F-PIL-11")
def test_rule_exact_results_are_outside_any_epsilon() -> None:
    found = report([Gaussian(0.2), Exact(35), Exact(2)], 1e-6)
    assert found.epsilon == math.inf
    assert found.numbers == 37
    assert found.noised == report([Gaussian(0.2)], 1e-6).epsilon
    assert found.sentence().startswith("Exact answers have no bound (epsilon = infinity)")
    assert zcdp_epsilon([Exact(1)], 1e-6) == math.inf


@pytest.mark.requirement("F-PIL-11")
def test_rule_sampling_is_counted_only_for_an_onlooker_from_whom_it_is_secret() -> None:
    step = PoissonSubsampled(Gaussian(1.0), 0.01, frozenset({Onlooker.OUTSIDER}), "the hub tells nobody")
    whole = gaussian_epsilon(1.0, 1e-5)
    assert report([step], 1e-5, Onlooker.OUTSIDER).epsilon < whole / 3
    assert report([step], 1e-5, Onlooker.CHARGED).epsilon == whole
    assert report([step], 1e-5).epsilon == whole, "the default is the coalition that is charged for"
    assert report([PoissonSubsampled(Gaussian(1.0), 0.01)], 1e-5, Onlooker.OUTSIDER).epsilon == whole


@pytest.mark.requirement("F-PIL-11")
def test_rule_epsilon_is_said_as_odds_together_with_delta_and_never_as_a_percentage() -> None:
    for events in ([Gaussian(0.2367)], [sampled(1.0, 0.01)] * 100, [Laplace(0.5), Gaussian(0.1)], [Exact(1)]):
        sentence = report(events, 1e-6).sentence()
        assert "%" not in sentence
        if not isinstance(events[0], Exact):
            assert "changes the odds by at most a factor of" in sentence
            assert "1 in 1,000,000" in sentence


def test_the_odds_of_a_mix_hold_for_both_tails_of_its_loss() -> None:
    """One Gaussian, told as a mix because a Laplace release of almost no cost is beside it: the loss is known."""
    mu = 0.5
    found = report([Gaussian(mu), Laplace(1e-6)], 1e-6)
    assert found.method is Method.LOSSES
    up, down = ndtr((mu * mu / 2 - found.odds) / mu), ndtr((-mu * mu / 2 - found.odds) / mu)
    assert up + down <= 1e-6
    assert ndtr((mu * mu / 2 - 0.8 * found.odds) / mu) > 1e-6, "the control"


def test_replacement_is_composed_at_its_own_price() -> None:
    event = Replacement.of_clipped_sum(1.0, 10.0, "a row of zeros")
    assert report([event], 1e-6).epsilon == pytest.approx(gaussian_epsilon(0.2, 1e-6), rel=1e-9)


def test_nothing_released_costs_nothing() -> None:
    assert report([], 1e-6).epsilon == 0.0
    assert zcdp_epsilon([], 1e-6) == 0.0


def test_unknown_events_and_deltas_are_refused() -> None:
    for events, delta in (([0.5], 1e-6), ([Gaussian(0.1)], 0.0), ([Gaussian(0.1)], 1.0), ([Gaussian(0.1)], math.nan)):
        with pytest.raises(MisuseError):
            report(events, delta)  # type: ignore[arg-type]


@pytest.mark.requirement("F-PIL-11")
def test_rule_a_composition_by_loss_distributions_is_no_filter_and_none_takes_one() -> None:
    told = report([sampled(1.0, 0.01)] * 10, 1e-6)
    assert isinstance(told, Report)
    for kind in (ZcdpFilter, GaussianFilter, RenyiFilter):
        with pytest.raises(MisuseError, match="no event"):
            kind.within(1.0, 1e-6, "the hub").after(told)
