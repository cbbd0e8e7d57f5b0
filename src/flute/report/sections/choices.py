"""Which of several models does best on patients that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flute.report.charts.intervals import IntervalPanel, IntervalRow, Reading, interval_panels
from flute.report.numbers import decimal, finite
from flute.report.reading import Z_95, Interval, Names, mapping, sequence
from flute.report.sections.figures import Figure, Table, counted, described
from flute.report.sections.shown import Answer, Asked, axis_around
from flute.report.texts import ALGORITHMS

_MAX_ROWS: Final = 32
_LOSSES: Final = {"log-loss": "log-loss", "brier": "Brier score"}


@dataclass(frozen=True, slots=True)
class _Model:
    """differs: from others of its kind; empty where there are none. above: how much more it loses than the best one,
    and the 95 % interval of the noise in that."""

    kind: str
    differs: str
    above: float
    reach: float

    @property
    def label(self) -> str:
        return f"{self.kind} ({self.differs})" if self.differs else self.kind

    def said(self) -> str:
        return f"+{decimal(self.above, 4)} ± {decimal(self.reach, 4)}" if self.reach else "the best"


def chosen(asked: Asked) -> Answer:
    """Every model's distance from the best one, with the noise in it."""
    models = sorted(_models(asked.names, sequence(asked.result.get("models"))), key=lambda m: m.above)[:_MAX_ROWS]
    if not models:
        return Answer(asked.heading)
    loss = _LOSSES.get(str(asked.result.get("loss")), "loss")
    figure = _distances(asked, models, loss)
    n = Interval(finite(asked.result.get("n")), noise=finite(asked.result.get("n_noise_se")))
    note = (
        f"Scored on {counted(n)} patients, each by fits without them. Bars are of the noise alone: how much another "
        "cohort would move the models is not in them."
    )
    return Answer(asked.heading, (figure,), note=note)


def _models(names: Names, found: list[Any]) -> list[_Model]:
    models = []
    for one in map(mapping, found):
        above, noise = finite(one.get("above_best")), finite(one.get("above_best_noise_se"))
        if above is not None:
            kind = str(one.get("model", ""))
            differs = _settings(names, mapping(one.get("settings")))
            models.append(_Model(ALGORITHMS.get(kind, kind), differs, above, Z_95 * (noise or 0.0)))
    return models


def _settings(names: Names, told: Mapping[str, Any]) -> str:
    """Predictors speak for themselves; other elements are named."""
    return "; ".join(
        _value(names, v) if name == "predictors" else f"{name.replace('_', ' ')} {_value(names, v)}"
        for name, v in told.items()
    )


def _value(names: Names, value: object) -> str:
    if isinstance(value, list | tuple):
        return " + ".join(_value(names, v) for v in value) or "none"
    if isinstance(value, str):
        return names.variable(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _distances(asked: Asked, models: list[_Model], loss: str) -> Figure:
    title, identity = f"By how much each model’s {loss} is above the best", f"{asked.identity}-models"
    best, others = models[0], models[1:]
    takeaway = f"Best: {best.label}."
    if others and asked.result.get("told_apart") is not True:
        takeaway += f" Noise hides whether it is better than {others[0].label}."
    elif others:
        takeaway += f" Next: {others[0].label}, {others[0].said()}."
    rows = tuple(
        IntervalRow(
            m.differs or m.kind,
            (Reading(m.above, m.above - m.reach, m.above + m.reach, m.said()),),
            says=m.kind if m.differs else "",
        )
        for m in models
    )
    reach = [0.0, *(v for m in models for v in (m.above - m.reach, m.above + m.reach))]
    panel = IntervalPanel(axis_around(reach, f"{loss} above the best (less is better)"), rows, 0.0)
    svg = interval_panels(identity, title, described(takeaway, "Distances with their noise."), [panel], ("distance",))
    cells = tuple((m.label, decimal(m.above, 4), decimal(m.reach, 4) if m.reach else "none") for m in models)
    head = ("Model", f"{loss} above the best", "± noise (95%)")
    return Figure(identity, title, takeaway, svg, Table(title, head, cells))
