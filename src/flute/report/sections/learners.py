"""Trees, forests, boosted trees, kernel machines: what they look at; and models tried on patients not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from flute.report.charts.bars import flat_bars
from flute.report.charts.panels import Part, part_panels
from flute.report.numbers import count, decimal, finite, percent, probability, short
from flute.report.reading import Z_95, Evaluation, Interval, Names, interval, mapping, scored_of, sequence, texts
from flute.report.sections.figures import Figure, Table, counted, described, evaluation_figures
from flute.report.sections.shown import Answer, Asked, at, bounded, ends
from flute.report.sections.survivals import column_label
from flute.report.texts import ALGORITHMS, level_said

_MAX_DEPTH: Final = 12
_MAX_BARS: Final = 24


def grown(asked: Asked) -> Answer:
    """Importances as bars, and a single tree's leaves in words."""
    figures = tuple(f for f in (_importances(asked), _curves(asked)) if f is not None)
    tree = mapping(asked.result.get("tree"))
    leaves = tuple(_leaves(asked.names, tree, ())) if tree else ()
    head = ("Who", "Risk", "95% interval", "Patients")
    tables = [Table("The tree: every patient falls into one row", head, leaves, (0,))] if leaves else []
    n = Interval(finite(asked.result.get("n")), noise=finite(asked.result.get("n_noise_se")))
    trees = len(sequence(asked.result.get("trees")))
    note = f"Grown on {counted(n)} patients" + (f", {count(trees)} trees." if trees else ".")
    note += f" {asked.note}" if leaves or len(figures) > 1 else ""
    return Answer(asked.heading, figures, tuple(tables), note=note.strip())


def _importances(asked: Asked) -> Figure | None:
    given = mapping(asked.result.get("importances")).items()
    found = [(asked.names.variable(name), v) for name, raw in given if (v := finite(raw)) is not None]
    if not found:
        return None
    order = sorted(found, key=lambda item: -item[1])
    outcome = asked.names.variable(str(asked.result.get("outcome"))) or "the outcome"
    title, identity = f"What tells “{outcome}”, by importance", f"{asked.identity}-importances"
    unused = sum(v <= 0 for _, v in found)
    takeaway = f"Most comes from {order[0][0]} ({percent(order[0][1])})."
    takeaway += f" {unused} of {len(found)} are not used." if unused else ""
    desc = described(takeaway, "Bars of importance.")
    bars = [(name, max(v, 0.0)) for name, v in order[:_MAX_BARS]]
    svg = flat_bars(identity, title, desc, bars, lambda v: percent(v, 1))
    rows = tuple((name, percent(v, 1)) for name, v in order)
    note = "Share of the gain that splits on it bring; it says how much a model looks at something, not which way."
    return Figure(identity, title, takeaway, svg, Table("Importances", ("Variable", "Share"), rows), note)


def _leaves(names: Names, node: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Each leaf with the answers that lead to it."""
    rule = node.get("rule")
    if isinstance(rule, str) and len(path) < _MAX_DEPTH:
        variable = node.get("variable")
        said = rule.replace(variable, names.variable(variable), 1) if isinstance(variable, str) else rule
        yield from _leaves(names, mapping(node.get("yes")), (*path, said))
        yield from _leaves(names, mapping(node.get("no")), (*path, _opposite(said)))
    else:
        risk = Interval(*(finite(node.get(k)) for k in ("risk", "low", "high", "noise_se")))
        where = " and ".join(path) or "everybody"
        yield where, percent(risk.value, 1), ends(risk, lambda v: percent(v, 1)), count(finite(node.get("n")))


def _opposite(rule: str) -> str:
    for word, other in ((" < ", " ≥ "), (" is ", " is not ")):
        if word in rule:
            return other.join(rule.rsplit(word, 1))
    return f"not ({rule})"


def _curves(asked: Asked) -> Figure | None:
    """What each variable adds to the log odds, where a model is a sum of curves."""
    raw = mapping(asked.result.get("curves"))
    parts = [part for name, curve in raw.items() if (part := _part(asked.names, name, mapping(curve)))]
    if not parts:
        return None
    widest = max(parts, key=lambda p: max(p.values) - min(p.values))
    title, identity = "The model is a sum of curves, one per variable", f"{asked.identity}-curves"
    reach = (decimal(min(widest.values)), decimal(max(widest.values)))
    takeaway = f"{widest.label} moves the log odds most: from {reach[0]} to {reach[1]}."
    desc = described(takeaway, "One panel per variable: what it adds to the log odds.")
    svg = part_panels(identity, title, desc, parts, "log odds")
    rows = tuple(
        (part.label, place, decimal(v, 3), decimal(r / Z_95, 3))
        for part in parts
        for place, v, r in zip(_places(part), part.values, part.reach, strict=True)
    )
    head = ("Variable", "Where", "Adds to the log odds", "± standard error")
    note = "All panels have one scale. Bands and upright lines are 95% intervals."
    return Figure(identity, title, takeaway, svg, Table(title, head, rows, (0, 1)), note)


def _part(names: Names, name: str, curve: Mapping[str, Any]) -> Part | None:
    """None where its numbers do not fit together."""
    values, errors, edges = ([finite(v) for v in sequence(curve.get(k))] for k in ("log_odds", "se", "edges"))
    levels = texts(curve.get("levels"))
    told = [v for v in values if v is not None]
    borders = tuple(e for e in edges if e is not None)
    if not told or len(told) != len(values) or len(errors) != len(values):
        return None
    if len(levels) != len(values) and (len(borders) != len(values) + 1 or borders[0] >= borders[-1]):
        return None
    said = tuple(level_said(level, levels) for level in levels)
    reach = tuple(Z_95 * abs(e or 0.0) for e in errors)
    return Part(names.variable(name), names.unit(name), () if levels else borders, said, tuple(told), reach)


def _places(part: Part) -> list[str]:
    return list(part.levels) or [f"{short(a)} to {short(b)}" for a, b in pairwise(part.edges)]


def weighed(asked: Asked) -> Answer:
    """A kernel machine's weights: signs and sizes in its own scale, no odds ratios."""
    columns = texts(asked.result.get("columns"))
    weights = [finite(v) for v in sequence(asked.result.get("coefficients"))]
    rows = tuple((column_label(asked.names, c), decimal(w, 4)) for c, w in zip(columns, weights, strict=False))
    n = Interval(finite(asked.result.get("n")), noise=finite(asked.result.get("n_noise_se")))
    caption = f"Weights of a {asked.result.get('kernel')} kernel, in the machine's own scale"
    note = f"Fitted on {counted(n)} patients."
    return Answer(asked.heading, tables=(Table(caption, ("Column", "Weight"), rows),) if rows else (), note=note)


# --- tried on patients that were not seen -----------------------------------------------------


def tried(asked: Asked) -> Answer:
    """Scores over folds that the model was not fitted on, as those of an evaluation are drawn."""
    scores = scored_of(asked.names, asked.reference, asked.result)
    evaluation = Evaluation(asked.names, asked.reference, (scores,), "", "", ())
    figures = tuple(evaluation_figures(evaluation, asked.identity))
    model = str(asked.result.get("model", ""))
    note = (
        f"This is {ALGORITHMS.get(model, model)}, fitted on all folds but one and scored on that one, in turn: "
        f"these are figures for patients that it has not seen. {asked.note}"
    )
    tables = [table for table in (_scores(asked), _folds(asked)) if table.rows]
    return Answer(asked.heading, figures, tuple(tables), note=note.strip())


def _scores(asked: Asked) -> Table:
    told = (
        ("AUC, all folds together", ("auc",), probability),
        ("AUC, mean of the folds", ("mean_auc",), probability),
        ("Brier score", ("brier",), probability),
        ("Log loss", ("log_loss",), probability),
        ("Calibration slope", ("calibration", "slope"), decimal),
    )
    found = [(name, at(asked.result, *path), write) for name, path, write in told]
    rows = tuple(
        (name, write(f.value), ends(f, write), decimal(f.noise, 4) if f.noise else "none")
        for name, f, write in found
        if f.value is not None
    )
    return Table("On patients not seen", ("Score", "Value", "95% interval", "Noise (SE)"), rows)


def _folds(asked: Asked) -> Table:
    folds = [mapping(f) for f in sequence(asked.result.get("folds"))]
    rows = tuple(
        (
            f"fold {k + 1}",
            counted(interval(fold.get("n"))),
            counted(interval(fold.get("events"))),
            bounded(interval(fold.get("auc")), probability),
            probability(interval(fold.get("brier")).value),
            str(fold.get("ending", "")),
        )
        for k, fold in enumerate(folds)
        if interval(fold.get("auc")).value is not None
    )
    return Table("The folds", ("Fold", "Patients", "With the outcome", "AUC", "Brier score", "Fit"), rows, (0, 5))
