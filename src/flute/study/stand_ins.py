"""A study in which a preview can try what scores networks: each network stands in as a logistic regression.

How far noise moves an area under a curve follows from how well risks tell who is ill, which a preview assumes, and
not from what works the risks out. So nothing is trained, no image is made up, and torch is not needed; an image
becomes one number, which tells as much as any other predictor.
"""

from __future__ import annotations

from dataclasses import replace

from flute.algorithms.contract import LogisticRegression, Setting, Spec, StudyVariable
from flute.data.variables import Variable
from flute.deep.spec import NeuralNetwork

_MIDDLE, _SPREAD = 0.5, 0.25
"""Of the number in an image's place, on [0, 1]: as of a number without a stated scale."""


def without_networks(setting: Setting) -> Setting:
    """The same study with a number in the place of every image, and a regression in that of every network."""
    variables = {name: _number(used) for name, used in setting.variables.items()}
    questions = {name: (_regression(spec), scope) for name, (spec, scope) in setting.questions.items()}
    return replace(setting, variables=variables, questions=questions)


def _number(used: StudyVariable) -> StudyVariable:
    v = used.variable
    if v.kind != "image":
        return used
    return StudyVariable(Variable(v.name, "number", 0, 1), scale="reference", centre=_MIDDLE, spread=_SPREAD)


def _regression(spec: Spec) -> Spec:
    if not isinstance(spec, NeuralNetwork):
        return spec
    return LogisticRegression(spec.outcome, (*spec.predictors, *([spec.image] if spec.image else [])))
