"""The suite: every attack by name, and what its figures say to a data protection officer.

A hospital runs it on its own study file (`flute attack`). No record is read and nothing is sent: the study's own
question is carried out over SIMULATED patients by the code that hubs run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from flute.algorithms.contract import Describe, JointAlgorithm, LogisticRegression
from flute.attacks import inference, inversion, membership, networks, poisoning, updates
from flute.attacks.chance import Chance
from flute.attacks.figures import Figure
from flute.attacks.releases import Subject, subject_of
from flute.attacks.trial import Found, Trial
from flute.deep.spec import NeuralNetwork
from flute.errors import MisuseError
from flute.questions.registry import algorithm_for, makes_model
from flute.study.agreement import Agreement, Question

Judged = Literal["within", "exceeds", "undecided", "no promise"]
"""Against the bound: the whole interval is below it; the whole interval is above it, so the promise is broken; the
interval holds it, more trials are needed; the plan promises nothing here."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack. says: a sentence with {unprotected}, {protected} and {bound} in it. unbounded: what stands in place
    of the bound where the plan promises nothing."""

    name: str
    run: Callable[[Trial], Found]
    figure: str
    needs: Literal["model", "readable", "several", "any"]
    says: str
    unbounded: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attack came to on a study. skipped: why it was not tried; `found` is then None."""

    attack: str
    figure: str
    found: Found | None
    judged: Judged
    says: str
    skipped: str = ""


_EXACT: Final = "this study opens exact sums, and nothing bounds what they tell"
_LIES: Final = "the plan does not promise to bound this, and where only sums open nobody can be named"
_WHO: Final = (
    "Whoever knows a patient's record and {sees} accuses {unprotected} more of those who took part than of others "
    "where nothing protects them, {protected} more under this plan; {bound}."
)
_BEND: Final = "{who}: the model's ranking loses {unprotected} of AUC in clear, {protected} under this plan; {bound}."


def _who(sees: str) -> str:
    return _WHO.replace("{sees}", sees)


def _bend(who: str) -> str:
    return _BEND.replace("{who}", who)


def _of_a_model(trial: Trial) -> Found:
    network = isinstance(trial.subject.question.what, NeuralNetwork)
    return networks.of_a_network(trial) if network else membership.of_a_model(trial)


def _reconstruction(trial: Trial) -> Found:
    if not isinstance(trial.subject.question.what, NeuralNetwork):
        return inversion.reconstruction(trial)
    from flute.attacks import network_inversion

    return network_inversion.reconstruction(trial)


_ALL: Final = (
    Attack(
        "membership-model", _of_a_model, "advantage", "model", _who("sees the model"), _EXACT,
    ),
    Attack(
        "membership-sums", updates.of_sums, "advantage", "any", _who("sees every opened sum"), _EXACT,
    ),
    Attack(
        "cheating-coordinator", updates.cheating_coordinator, "advantage", "model",
        _who("chooses what the hubs are asked, to make her weigh as much as she can,"), _EXACT,
    ),
    Attack(
        "difference", updates.difference, "advantage", "any",
        _who("compares two answers that differ by one patient"), _EXACT,
    ),
    Attack(
        "epsilon-audit", updates.audited, "epsilon", "any",
        "Attacked with everybody else's record known, the answers show an epsilon of at least {unprotected} in "
        "clear, {protected} under this plan; {bound}.", _EXACT,
    ),
    Attack(
        "reconstruction", _reconstruction, "fields read", "readable",
        "Of a patient's fields, {unprotected} are read off a hub's update in clear, {protected} under this plan "
        "though she is alone in it; {bound}.", _EXACT,
    ),
    Attack(
        "attribute", inference.attribute, "right", "any",
        "Of two values that a known patient may have, the right one is named {unprotected} of the time in clear, "
        "{protected} under this plan; {bound}.", _EXACT,
    ),
    Attack(
        "attribute-model", inference.attribute_of_a_model, "right", "model",
        "Of two values that a known patient may have, the right one is named {unprotected} of the time from an "
        "ordinary model, {protected} from this plan's; {bound}.", _EXACT,
    ),
    Attack(
        "property", inference.property_share, "right", "any",
        "Whether few or many of one hospital's patients have a property is told rightly {unprotected} of the time in "
        "clear, {protected} under this plan; {bound}. This is about the hospital, which epsilon does not protect.",
        _EXACT,
    ),
    Attack("label-flip", poisoning.flipped, "AUC loss", "several", _bend("One hub turns all outcomes over"), _LIES),
    Attack(
        "scaling", poisoning.scaled, "AUC loss", "several",
        _bend("One hub's owner pushes a hundred times as hard (by its answer in clear, by its records under the "
              "plan, since the service bounds every patient)"), _LIES,
    ),
    Attack(
        "scaling-by-a-hub", poisoning.scaled_by_a_hub, "AUC loss", "several",
        _bend("One hub cheats and multiplies its whole answer by a hundred"), _LIES,
    ),
    Attack(
        "backdoor", poisoning.backdoor, "trigger works", "several",
        "One hub plants a trigger: it makes {unprotected} more of the healthy look ill in clear, {protected} under "
        "this plan; {bound}.", _LIES,
    ),
    Attack(
        "free-riding", poisoning.free_riding, "AUC loss", "several", _bend("One hub takes part without patients"),
        "masked sums do not show who gave nothing",
    ),
)  # fmt: skip
ATTACKS: Final = MappingProxyType({attack.name: attack for attack in _ALL})
_BOUND_SAYS: Final = {
    "epsilon-audit": "the plan charges for {bound}",
    "property": "{bound} is what the sum of the honest hubs tells by itself",
    "reconstruction": "its epsilon allows {bound} at most, most of it by guessing",
    "attribute-model": "its epsilon allows {bound} at most, and a coin has 50.0 %",
    "attribute": "its epsilon allows {bound} at most, and a coin has 50.0 %",
}


def attacked_question(agreement: Agreement) -> Question:
    """The first logistic regression of the study, or else its first network, or else its first question that opens
    sums.

    Raises: MisuseError: hubs compute all of it together, so there are no sums to attack.
    """
    sums = [q for q in agreement.questions if not isinstance(algorithm_for(q.what), JointAlgorithm)]
    if not sums:
        raise MisuseError(
            "Every question of this study is computed by the hubs together and opens its result alone; the suite "
            "attacks models and sums, and there are none."
        )
    for kind in (LogisticRegression, NeuralNetwork):
        for question in sums:
            if isinstance(question.what, kind):
                return question
    return sums[0]


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The attacks named, all where none is. Raises: MisuseError: there is none of that name."""
    for name in names:
        if name not in ATTACKS:
            raise MisuseError(f"There is no attack {name!r}; there are {', '.join(ATTACKS)}.")
    return tuple(dict.fromkeys(names)) or tuple(ATTACKS)


def run(agreement: Agreement, names: Sequence[str], seed: bytes, *, effort: float = 1.0) -> Iterator[Verdict]:
    """Tries the attacks in turn. effort: how many trials, beside the usual.

    Raises: MisuseError: an unknown name. StudyFileError: the study cannot be carried out.
    """
    subject = subject_of(agreement, attacked_question(agreement))
    for name in chosen(names):
        attack = ATTACKS[name]
        lacking = _lacking(attack, subject)
        if lacking:
            yield Verdict(name, attack.figure, None, "no promise", lacking, lacking)
        else:
            yield verdict(attack, attack.run(Trial(subject, Chance(seed + name.encode()), effort)))


def _lacking(attack: Attack, subject: Subject) -> str:
    """Why this attack does not apply, or nothing."""
    what = subject.question.what
    if isinstance(what, NeuralNetwork):
        return networks.lacking(attack.name, subject)
    if attack.needs == "readable" and not isinstance(what, LogisticRegression | Describe):
        return "Records are read off models' gradients and descriptions; this study asks for neither."
    if attack.needs in ("model", "several") and not isinstance(what, LogisticRegression):
        if makes_model(what):
            return "The suite attacks logistic regressions and neural networks as models; this study's is neither."
        return "This study makes no model, so there is none to attack."
    if attack.needs == "several" and len(subject.hubs) < 2:
        return "Every hub is asked alone, so a hub that poisons bends nothing but its own result."
    return ""


def verdict(attack: Attack, found: Found) -> Verdict:
    bounded = _BOUND_SAYS.get(attack.name, "its epsilon allows {bound} at most")
    tail = attack.unbounded if found.bound is None else bounded.format(bound=shown(attack, found.bound))
    says = attack.says.format(
        unprotected=shown(attack, found.unprotected.value), protected=shown(attack, found.protected.value), bound=tail
    )  # fmt: skip
    return Verdict(attack.name, attack.figure, found, judged(found), says)


def judged(found: Found) -> Judged:
    if found.bound is None:
        return "no promise"
    if found.protected.method == "bound":
        return "within" if found.protected.low <= found.bound else "exceeds"
    if found.protected.high <= found.bound:
        return "within"
    return "exceeds" if found.protected.low > found.bound else "undecided"


def shown(attack: Attack, value: float) -> str:
    """A figure as people read it: percent, a loss with three digits, an epsilon with two."""
    if not math.isfinite(value):
        return "no limit"
    if attack.figure == "epsilon":
        return f"{value:.2f}"
    if attack.figure == "AUC loss":
        return f"{value:.3f}"
    return f"{100 * value:.1f} %"


def interval(attack: Attack, figure: Figure) -> str:
    return f"{shown(attack, figure.low)} to {shown(attack, figure.high)}"
