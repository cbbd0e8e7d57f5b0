"""Checks of what is public: the statement, the outline, what is asked next, the result, and plans that carry it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from flute.aggregation.plan import PLANS
from flute.algorithms.contract import Ask, Finished, Opened, StepShape
from flute.defaults import DELTA
from flute.errors import MisuseError, StudyFileError
from flute.questions.registry import REGISTRY, registered
from flute.study.agreement import VERSION, Agreement, HubConditions, PlanChoice, Question
from flute.study.protection import RAND_SIZE, cover, prices, uncover
from flute.testing.course import Trial, carried, clipped, divided, first_difference, leaves, written
from flute.testing.example import NotConforming, repeated

_LOUD: Final = 1e4
"""Times the usual noise: nothing of the patients is left in what is opened."""
_GROWTH: Final = 4
"""Times as many patients, each copied: a result that tells of single ones grows with them."""


def statement(trial: Trial) -> None:
    """It can be registered: a whole privacy statement, its operations, and questions of their own kind."""
    try:
        registered([trial.registration])
    except MisuseError as error:
        raise trial.fail("statement", error.text) from error
    spec = trial.example.spec
    if type(spec) is not trial.registration.spec:
        raise trial.fail("statement", f"the example asks a {type(spec).__name__}, not what was registered.")
    try:
        travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec))
    except msgspec.ValidationError as error:
        raise trial.fail("example", f"its own struct does not admit it: {error}") from error
    if travelled != spec:
        raise trial.fail("statement", "the question is another one after it has travelled; use plain fields.")


def example(trial: Trial) -> None:
    """The example is a question that the algorithm's own `check` accepts."""
    try:
        trial.algorithm.check(trial.example.spec, trial.setting)
    except StudyFileError as error:
        raise trial.fail("example", f"the algorithm refuses it: {error.text}") from error


def outline(trial: Trial) -> None:
    """Steps with sizes and bounds, the same before and after anything was read or opened."""
    now, at_first = trial.outline(), trial.pristine.outline(trial.example.spec, trial.setting)
    if not now:
        raise trial.fail("outline", "it has no step; a question opens at least one vector.")
    if now != at_first or now != trial.outline():
        raise trial.fail(
            "outline",
            "it is another one after patients were read: it has to follow from the agreement alone, which is priced "
            "before anything is read.",
        )
    for step in now:
        _require_sound(trial, step)
    weights = sum(step.weight for step in now)
    if trial.mode == "private" and not 1 - 1e-9 <= weights <= 1 + 1e-9:
        raise trial.fail("outline", f"the weights of its steps add up to {weights}, not to 1.")


def _require_sound(trial: Trial, step: StepShape) -> None:
    bounds = (step.clip_norm, step.magnitude, step.weight)
    if type(step.size) is not int or any(type(b) is not float for b in bounds):
        raise trial.fail(
            "outline",
            f"step {step.name}: its size has to be a plain int, its bounds plain floats; ledgers take nothing else.",
        )
    if step.size < 1 or not all(np.isfinite(b) and b > 0 for b in bounds):
        raise trial.fail("outline", f"step {step.name}: size, clip norm, magnitude and weight must be positive.")


def ending(trial: Trial) -> None:
    """Asked step by step it comes to a result, within its outline, with finite parameters."""
    if trial.stopped is not None:
        raise trial.fail("ending", f"it stops before there is a result: {trial.stopped!r}") from trial.stopped
    assert trial.course is not None
    for asked in trial.course.asked:
        if not np.isfinite(asked).all():
            raise trial.fail("ending", "it asks with parameters that are not finite.")
    written(trial, "ending", trial.course.result)


def result(trial: Trial) -> None:
    """Plain JSON that tells of no single patient: no pseudonym, and no longer for more patients."""
    assert trial.course is not None
    text = written(trial, "result", trial.course.result)
    carried_out = [p for p in trial.data.pseudonyms.tolist() if p in text]
    if carried_out:
        raise trial.fail("result", f"it holds the pseudonyms of {len(carried_out)} patients.")
    more = repeated(trial.example, trial.data, _GROWTH, trial.chance("more"))
    longer = carried(trial, [more]).result
    grown = sum(1 for _ in leaves(longer)) - sum(1 for _ in leaves(trial.course.result))
    if grown >= len(trial.data) // 2:
        raise trial.fail(
            "result",
            f"of {_GROWTH} times the patients it has {grown} entries more: it tells of each patient.",
        )


def replay(trial: Trial) -> None:
    """`next` is a function of what was opened: killed, copied, asked in any order, it says the same."""
    assert trial.course is not None
    spec, inputs, history = trial.example.spec, trial.example.inputs, trial.course.history
    kept = [o.total.copy() for o in history]
    stages = [*range(len(history) + 1)]
    fresh = copy.deepcopy(trial.pristine)
    for stage in [*reversed(stages), *stages[-1:], *stages[:1]]:
        for algorithm in (trial.algorithm, fresh):
            answer = algorithm.next(spec, trial.setting, history[:stage], inputs)
            if _as_text(answer) != _expected(trial, stage):
                raise trial.fail(
                    "replay",
                    f"after {stage} opened vectors it says something else than the first time. A coordinator that "
                    "was killed goes on from stored totals, so nothing may be kept between calls.",
                )
    if any(not np.array_equal(o.total, k) for o, k in zip(history, kept, strict=True)):
        raise trial.fail("replay", "it changes the opened totals; copy them first.")


def _as_text(answer: Ask | Finished) -> str:
    said: Any = answer.parameters.tolist() if isinstance(answer, Ask) else answer.result
    return json.dumps([type(answer).__name__, said], sort_keys=True)


def _expected(trial: Trial, stage: int) -> str:
    assert trial.course is not None
    asked = trial.course.asked
    return _as_text(Ask(asked[stage]) if stage < len(asked) else Finished(trial.course.result))


def splits(trial: Trial) -> None:
    """The same patients give the same result at one hub, at three and at ten, an empty one among them.

    Of training at each hub, which depends on who is there together: a result in plain JSON, whatever the division."""
    assert trial.course is not None
    alone = any(scope == "each" for _, scope in trial.example.questions.values())
    for hubs in (3, 10):
        setting = trial.setting if alone else trial.example.setting(trial.mode, hubs)
        parts = divided(trial.data, hubs, trial.chance(f"split {hubs}"))
        found = carried(trial, parts, setting=setting).result
        written(trial, "splits", found)
        if trial.at_once:
            continue
        if different := first_difference(trial.course.result, found, trial.example.tolerance):
            raise trial.fail("splits", f"over {hubs} hubs the same patients give another result: {different}.")


def dropout(trial: Trial) -> None:
    """A hub that fell silent costs its patients, no more: the rest gives what the rest alone gives."""
    parts = divided(trial.data, 3, trial.chance("dropout"))[:2]
    both = [carried(trial, hubs).result for hubs in (parts, [trial.data.where(_among(trial, parts))])]
    written(trial, "dropout", both[0])
    if trial.at_once:
        return
    if different := first_difference(both[0], both[1], trial.example.tolerance):
        raise trial.fail("dropout", f"without one hub, the others' patients give another result: {different}.")


def _among(trial: Trial, parts: list[Any]) -> Any:
    left = {p for part in parts for p in part.pseudonyms.tolist()}
    return np.array([p in left for p in trial.data.pseudonyms.tolist()])


def nobody(trial: Trial) -> None:
    """Without a single patient, and under noise that drowns all, there is still a result in plain JSON."""
    none = trial.data.where(np.zeros(len(trial.data), dtype=np.bool_))
    for data, loud, what in ((none, 1.0, "without a patient"), (trial.data, _LOUD, "drowned in noise")):
        try:
            found = carried(trial, [data], loud=loud).result
        except Exception as error:
            raise trial.fail("nobody", f"{what} it stops: {error!r}. Give None where nothing can be said.") from error
        written(trial, "nobody", found)


def plans(trial: Trial) -> None:
    """A plan carries it, and every one that offers what it needs brings it to a result or says beforehand why not.

    Prices, clipping, rounding and noise are those of a study (`study.protection`); only registered algorithms can be
    asked in one, so for others this looks at the operations alone.
    """
    needs = {o.value for o in trial.algorithm.operations}
    able = [plan.name for plan in PLANS.values() if needs <= plan.offers]
    if not able:
        raise trial.fail("plans", f"no plan offers {' and '.join(sorted(needs))}.")
    known = REGISTRY.get(trial.registration.spec)
    if known is None or known.algorithm is not trial.algorithm:
        return
    refused: list[str] = []
    for name in able:
        try:
            written(trial, "plans", _under(trial, name))
        except StudyFileError as error:
            refused.append(f"{name}: {error.text}")
        except NotConforming:
            raise
        except Exception as error:
            raise trial.fail("plans", f"under plan {name} it stops: {error!r}") from error
    if len(refused) == len(able):
        raise trial.fail("plans", f"no plan can carry it: {' '.join(refused)}")


def _under(trial: Trial, plan: str) -> Mapping[str, Any]:
    """The result as three hubs and a coordinator would have it under this plan."""
    agreement = _agreement(trial, plan)
    question = agreement.question("tried")
    priced, chance = prices(agreement, question), trial.chance(f"plan {plan}")
    parts, history = divided(trial.data, 3, chance), list[Opened]()
    while True:
        answer = trial.algorithm.next(question.what, agreement.setting, tuple(history), trial.example.inputs)
        if isinstance(answer, Finished):
            return answer.result
        price, step = priced[len(history)], len(history)
        answers = []
        for data in parts:
            rows = trial.algorithm.update(question.what, agreement.setting, step, answer.parameters, data)
            if trial.example.clipped_by_hub and trial.mode == "private":
                rows = clipped(rows, price.shape.clip_norm)
            answers.append(cover(rows, price, hubs=3, rand=chance.bytes(RAND_SIZE)))
        total, sigma = uncover(np.sum(answers, axis=0), price)
        history.append(Opened(answer.parameters, total, sigma))


def _agreement(trial: Trial, plan: str) -> Agreement:
    """A study that asks the example's question under `plan`, with a generous budget."""
    setting, private = trial.setting, trial.mode == "private"
    earlier = tuple(Question(k, what, scope) for k, (what, scope) in trial.example.questions.items())
    conditions = {hub: HubConditions("test", "test", 0) for hub in setting.hubs}
    return Agreement(
        version=VERSION, study="tried", title="tried", purpose="tried", researcher="tried", hubs=setting.hubs,
        conditions=conditions, starts=0, ends=1, dataset="tried", missing=setting.missing,
        variables=trial.example.variables, plan=PlanChoice(plan), mode=trial.mode, epsilon=6.0 if private else 0.0,
        delta=DELTA if private else 0.0, max_numbers=0 if private else 10**6,
        questions=(*earlier, Question("tried", trial.example.spec, "pooled", 1.0 if private else 0.0)),
        code=bytes(32), guarantees=bytes(32), max_patients=setting.max_patients,
    )  # fmt: skip
