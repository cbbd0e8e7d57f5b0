"""What a budget means, said as odds. Never as a percentage of safety: there is none.

Whatever somebody believed about a patient before, seeing the answers multiplies the odds by the ratio of the
answers' chances with and without that patient. Privacy loss is the logarithm of that ratio.
"""

from __future__ import annotations

import math
from typing import Final

from flute.dp.ceiling import odds_of
from flute.errors import MisuseError

MAX_FACTOR: Final = 1e6
"""Above a million a factor is not worth a number: the sentence says that nothing useful is bounded."""
_ROUNDS: Final = 200
_EXACT: Final = "Exact answers have no bound (epsilon = infinity): nothing limits what can be concluded from them"
_UNBOUNDED_TOO: Final = "; noised answers add more than can usefully be bounded"


def odds(rho: float, delta: float) -> float:
    """eps' such that rho-zCDP answers move the odds by more than a factor e^eps', up or down, with chance <= delta.

    Up, the loss exceeds rho + 2 sqrt(rho L) with a chance of at most e^-L. Down, it is below minus that with a
    chance of at most e^-L e^-eps'. Both together make delta at L = ln((1 + e^-eps')/delta), which is solved
    for; one direction alone, L = ln(1/delta), is up to 2.5 % less at 1e-6.
    Args: rho >= 0, infinity allowed. delta: 0 < delta < 1.
    Raises: MisuseError: outside those ranges.
    Source: Bun and Steinke 2016, Lemma 3.5 (Chernoff on the Renyi divergence), applied to both tails.
    """
    if math.isnan(rho) or rho < 0 or not 0 < delta < 1:
        raise MisuseError("Odds need a rho that is not negative and a delta between 0 and 1.")
    if math.isinf(rho):
        return math.inf
    # The right side falls in eps', so iterating from 0 would alternate; the upper end of a bisection is safe.
    low, high = 0.0, _tail(rho, math.log(2 / delta))
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if middle >= _tail(rho, math.log1p(math.exp(-middle)) - math.log(delta)):
            high = middle
        else:
            low = middle
    return high


def _tail(rho: float, exponent: float) -> float:
    return rho + 2 * math.sqrt(rho * exponent)


def odds_sentence(rho: float, delta: float) -> str:
    """The guarantee of noised answers charged `rho` in all (`dp.ceiling`), for people."""
    return factor_sentence(odds_of(rho, delta), delta)


def exact_sentence(rho: float, delta: float) -> str:
    """The guarantee where exact answers were given too; `rho`: price of the noised ones, 0 if there were none."""
    return factor_sentence(odds_of(rho, delta), delta, exact=True)


def factor_sentence(log_odds: float, delta: float, *, exact: bool = False) -> str:
    """The guarantee, for people, of noised answers that change the odds by more than e^log_odds with a chance of
    at most `delta`; `exact`: numbers were opened without noise, too.

    Raises: MisuseError: a negative log_odds, or delta outside (0, 1).
    """
    if not log_odds >= 0:
        raise MisuseError(f"Odds change by a factor of at least 1; its logarithm cannot be {log_odds}.")
    factor = math.exp(min(log_odds, 2 * math.log(MAX_FACTOR)))
    bounded = factor <= MAX_FACTOR
    if exact:
        return f"{_EXACT}{_further(factor, delta) if bounded else _UNBOUNDED_TOO}." if log_odds else f"{_EXACT}."
    if not bounded:
        return (
            "Compared with not taking part, what anyone can conclude about one patient is not usefully bounded: the "
            "odds may change by a factor of more than 1,000,000."
        )
    return (
        "Compared with not taking part, what anyone can conclude about one patient changes the odds by at most a "
        f"factor of {factor_text(factor)}, except with a chance of at most {chance_text(delta)}."
    )


def _further(factor: float, delta: float) -> str:
    return (
        f"; noised answers add at most a further change of the odds by a factor of {factor_text(factor)}, except "
        f"with a chance of at most {chance_text(delta)}"
    )


def factor_text(factor: float) -> str:
    """A factor in two or three digits, rounded up so that it never understates: 1.05, 3.2, 27, 1,200."""
    if not (math.isfinite(factor) and factor >= 1):
        raise MisuseError(f"A factor of odds must be finite and at least 1, not {factor}.")
    digits = 2 if factor < 2 else 1
    if factor < 10:
        return f"{_ceiling(factor * 10**digits) / 10**digits:.{digits}f}".removesuffix(".0")
    unit = 10 ** (len(str(_ceiling(factor))) - 2)
    return f"{_ceiling(factor / unit) * unit:,}"


def chance_text(delta: float) -> str:
    """delta as "1 in 1,000,000", never claiming a smaller chance than delta."""
    if not 0 < delta < 1:
        raise MisuseError(f"A chance must lie between 0 and 1, not at {delta}.")
    return f"1 in {max(1, math.floor(1 / delta * (1 + 1e-12))):,}"


def _ceiling(value: float) -> int:
    """The next integer up; a value that is one but for float error stays."""
    return math.ceil(value * (1 - 1e-12))
