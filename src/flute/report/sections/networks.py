"""A neural network: how its loss fell from round to round, what it is made of, how it was trained. No weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flute.report.charts.curves import Curve, curves_chart, value_axis
from flute.report.charts.svg import Axis, nice_ticks
from flute.report.numbers import count, decimal, finite, short
from flute.report.reading import Interval, mapping, sequence
from flute.report.sections.figures import Figure, Table, counted, described
from flute.report.sections.shown import Answer, Asked

_SOUND: Final = ("", "agreed-rounds")
_MAX_LISTED: Final = 12
_MAX_CHARS: Final = 80


def networked(asked: Asked) -> Answer:
    """The course of the training as a curve; layers and settings as tables."""
    losses = [v for raw in sequence(asked.result.get("losses")) if (v := finite(raw)) is not None]
    figure = _course(asked, losses) if len(losses) > 1 else None
    ending = str(asked.result.get("ending", ""))
    warnings = () if ending in _SOUND else (str(asked.result.get("ending_text") or ending),)
    n = Interval(finite(asked.result.get("n")), noise=finite(asked.result.get("n_noise_se")))
    size = finite(asked.result.get("size"))
    note = f"{counted(n)} patients; {count(size)} weights, which stand in the results, not here."
    tables = tuple(table for table in (_layers(asked), _training(asked)) if table.rows)
    return Answer(asked.heading, (figure,) if figure else (), tables, warnings, note)


def _course(asked: Asked, losses: list[float]) -> Figure:
    outcome = asked.names.variable(str(asked.result.get("outcome"))) or "the outcome"
    title, identity = f"Learning to tell “{outcome}”: loss per round", f"{asked.identity}-losses"
    takeaway = (
        f"The loss went from {decimal(losses[0], 3)} to {decimal(losses[-1], 3)} in {count(len(losses))} rounds; "
        f"lowest: {decimal(min(losses), 3)}."
    )
    x = Axis(1.0, float(len(losses)), _rounds(len(losses)), count, "Round")
    points = tuple((k + 1.0, v) for k, v in enumerate(losses))
    svg = curves_chart(
        identity, title, described(takeaway, "The loss over rounds."),
        [Curve("log loss", "on the patients it learns from", points)], x, value_axis(losses, "Log loss"),
    )  # fmt: skip
    rows = tuple((count(k + 1), decimal(v, 4)) for k, v in enumerate(losses))
    note = "On the patients that it learns from: for others expect more."
    return Figure(identity, title, takeaway, svg, Table("Loss per round", ("Round", "Log loss"), rows), note)


def _rounds(number: int) -> tuple[float, ...]:
    return tuple(t for t in nice_ticks(1.0, float(number)) if t == int(t)) or (1.0, float(number))


def _layers(asked: Asked) -> Table:
    layers = [mapping(layer) for layer in sequence(asked.result.get("layers"))]
    rows = tuple((count(k + 1), *_layer(layer)) for k, layer in enumerate(layers))
    return Table("Its layers, from the inputs on", ("", "Layer", "With"), rows, (0, 1, 2))


def _layer(layer: Mapping[str, Any]) -> tuple[str, str]:
    return str(layer.get("layer", "")), _settings({k: v for k, v in layer.items() if k != "layer"})


def _settings(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in list(found.items())[:_MAX_LISTED])


def _said(value: object) -> str:
    number = finite(value)
    if number is not None:
        return short(number)
    if isinstance(value, list | tuple):
        inside = [_layer(v)[0] if isinstance(v, Mapping) else _said(v) for v in value[:_MAX_LISTED]]
        return "(" + ", ".join(inside) + ")"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)[:_MAX_CHARS]


def _training(asked: Asked) -> Table:
    given = {"seed": asked.result.get("seed"), **mapping(asked.result.get("training"))}
    rows = tuple((key.replace("_", " "), _said(value)) for key, value in given.items() if value is not None)
    return Table("How it was trained", ("Setting", "Value"), rows)
