"""Verdicts of every kind about a study, as the page of attacks gets them; nothing is attacked for it."""

from __future__ import annotations

import math

from flute.attacks.figures import Figure
from flute.attacks.suite import ATTACKS, Verdict, verdict
from flute.attacks.trial import Found
from flute.study.agreement import Agreement
from support.attack_studies import mixed

_BOUNDED = {"advantage": 0.46, "epsilon": 1.0, "fields read": 0.6, "right": 0.8}
AGAIN = "flute attack study.yaml --seed 1"


def figure(value: float, reach: float, method: str = "exact") -> Figure:
    return Figure(value, value - reach, value + reach, method)  # type: ignore[arg-type]


def found(name: str, value: float) -> Found:
    """The protected figure at `value` with 0.1 to both sides, the unprotected one near 1."""
    kind = ATTACKS[name].figure
    if kind == "epsilon":
        ends = (Figure(v, v, math.inf, "bound") for v in (9.5, value))
        return Found(*ends, _BOUNDED[kind], {})
    beside = {"AUC": (figure(0.99, 0.005), figure(0.6, 0.1))}
    return Found(figure(0.9, 0.08), figure(value, 0.1), _BOUNDED.get(kind), beside)


def verdicts() -> list[Verdict]:
    """Every attack: one above its bound, one undecided, one not tried, the others as they come."""
    values = {"difference": 0.7, "membership-model": 0.4, "attribute": 0.6}
    told = [verdict(ATTACKS[name], found(name, values.get(name, 0.1))) for name in ATTACKS if name != "backdoor"]
    skipped = Verdict("backdoor", ATTACKS["backdoor"].figure, None, "no promise", "There is no model.", "No model.")
    return [*told, skipped]


def agreement() -> Agreement:
    return mixed(1.0)
