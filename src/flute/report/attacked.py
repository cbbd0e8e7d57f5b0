"""What `flute attack` found, as one self-contained page: per family of attacks a chart, a sentence each, and a table.

Everything is of SIMULATED patients. The page states no more than the verdicts do: an interval that holds the bound is
"not decided", and where a plan promises nothing, it says that and draws no bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from flute.attacks import figures
from flute.attacks.suite import ATTACKS, Judged, Verdict, attacked_question, interval, shown
from flute.defaults.attacks import LEVEL
from flute.report import texts
from flute.report.charts.curves import value_axis
from flute.report.charts.intervals import IntervalPanel, IntervalRow, Reading, Tone, interval_panels
from flute.report.charts.svg import Axis, nice_ticks
from flute.report.numbers import UNKNOWN, listed, plural, short, when
from flute.report.page import Tile
from flute.report.render import pages
from flute.report.sections.figures import Figure, Table, described
from flute.study.agreement import Agreement

_SERIES: Final = ("unprotected", "under this plan")
_VERDICTS: Final[dict[Judged, tuple[str, Tone, str]]] = {
    "within": ("✓ within the bound", "good", "holds"),
    "exceeds": ("✗ above the bound", "bad", "fails"),
    "undecided": ("? not decided", "warn", "unsure"),
    "no promise": ("– no promise", "muted", "unbound"),
}
"""How a verdict is said: a shape and words; the tone of its text; the class of its tag."""
_NOT_TRIED: Final = ("– not tried", "unbound")
_NO_PROMISE: Final = (
    "Nothing about a single patient: exact results are opened, and nothing limits mathematically what can be "
    "concluded from them."
)
_OPEN: Final = (
    "The bound lies within the interval of {names}: so few trials cannot tell. Try again with a larger --effort."
)
_MIND: Final = (
    f"Patients are simulated from the study's declared ranges; no record was read. Intervals are at {LEVEL:.0%}, "
    "each by itself. That an attack fails here does not show that a better one would; the bounds, where there are "
    "any, hold for every attack."
)


@dataclass(frozen=True, slots=True)
class _Family:
    anchor: str
    title: str
    lead: str
    figures: tuple[str, ...]


FAMILIES: Final = (
    _Family(
        "told-apart", "Who is told apart",
        "Somebody knows a patient's whole record and wants to know whether she is among those who took part. What "
        "counts is how much more often those who took part are accused than others.", ("advantage", "epsilon"),
    ),
    _Family(
        "read", "What is read",
        "Somebody knows a part of a patient's record, or of a hospital, and wants the rest.",
        ("fields read", "right"),
    ),
    _Family(
        "bent", "Who bends the result",
        "A hub, or whoever fills its records, sends false ones. This is about what the result is worth, not about "
        "patients' secrets, and epsilon does not bound it.", ("AUC loss", "trigger works"),
    ),
)  # fmt: skip
_AXES: Final = {
    "advantage": "accused more often than others",
    "epsilon": "epsilon that is shown, at least",
    "fields read": "of a patient's fields read rightly",
    "right": "named rightly (line: a coin)",
    "AUC loss": "AUC that the model loses",
    "trigger works": "more of the healthy look ill",
}
_COIN: Final = {"right": 0.5}


@dataclass(frozen=True, slots=True)
class Told:
    """One attack in words. css: class of the verdict's tag."""

    name: str
    verdict: str
    css: str
    says: str


@dataclass(frozen=True, slots=True)
class FamilyShown:
    anchor: str
    title: str
    lead: str
    figure: Figure | None
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class AttackPage:
    title: str
    made: str
    study: str
    summary: tuple[tuple[str, str], ...]
    tiles: tuple[Tile, ...]
    families: tuple[FamilyShown, ...]
    again: str
    simulated: bool = True


def render_attacks(agreement: Agreement, verdicts: Sequence[Verdict], *, at: int, again: str) -> str:
    """One HTML document. at: Unix time. again: the command that gives the same figures.

    Guarantees: it loads nothing, runs no script, and shows every text of the study as text.
    """
    page = attack_page(agreement, verdicts, at=at, again=again)
    return pages().get_template("attacked.html").render(page=page, texts=texts)


def attack_page(agreement: Agreement, verdicts: Sequence[Verdict], *, at: int, again: str) -> AttackPage:
    families = tuple(_family(f, [v for v in verdicts if v.figure in f.figures]) for f in FAMILIES)
    return AttackPage(
        title=f"{agreement.title}: attacked",
        made=when(at),
        study=agreement.study,
        summary=tuple(_summary(agreement, verdicts)),
        tiles=tuple(_tiles(verdicts)),
        families=tuple(f for f in families if f.told),
        again=again,
    )


# --- the summary ------------------------------------------------------------------------------


def _tiles(verdicts: Sequence[Verdict]) -> Iterator[Tile]:
    tried = [v for v in verdicts if v.found is not None]
    says: tuple[tuple[Judged, str], ...] = (
        ("within", "stay within the bound"),
        ("exceeds", "are above the bound: the promise is broken"),
        ("undecided", "are not decided: more trials are needed"),
        ("no promise", "meet no promise: nothing bounds them"),
    )
    for judged, said in says:
        found = sum(v.judged == judged for v in tried)
        if found or judged in ("within", "exceeds"):
            yield Tile(f"{found} of {len(tried)}", said)


def _summary(agreement: Agreement, verdicts: Sequence[Verdict]) -> list[tuple[str, str]]:
    undecided = [v.attack for v in verdicts if v.judged == "undecided"]
    lines = [
        ("Attacked", _asked(agreement, len(verdicts))),
        ("Promised", _NO_PROMISE if agreement.mode == "exact" else ""),
        ("Found", _found(verdicts)),
        ("Open", _OPEN.format(names=listed(undecided)) if undecided else ""),
        ("Mind", _MIND),
    ]
    return [(label, said) for label, said in lines if said]


def _asked(agreement: Agreement, attacks: int) -> str:
    question = attacked_question(agreement)
    kind = texts.ALGORITHMS.get(tag := str(question.what.__struct_config__.tag), tag)
    covered = "exact results" if agreement.mode == "exact" else f"noise for epsilon {short(agreement.epsilon)}"
    return (
        f"Question “{question.id}” ({kind}) of {plural(len(agreement.hubs), 'hub', 'hubs')}, plan "
        f"{agreement.plan.name}, {covered}, by {plural(attacks, 'attack', 'attacks')}: each once where nothing "
        "protects the answers and once under this plan."
    )


def _found(verdicts: Sequence[Verdict]) -> str:
    broken = [v.attack for v in verdicts if v.judged == "exceeds"]
    if broken:
        return f"The promise does not hold: {listed(broken)} did more than the plan's bound allows. Do not consent."
    bounded = [v for v in verdicts if v.judged in ("within", "undecided")]
    if not bounded:
        return "This plan bounds none of these attacks."
    within = sum(v.judged == "within" for v in bounded)
    return f"No attack was shown to be above its bound; of {len(bounded)} that have one, {within} stay within it."


# --- one family -------------------------------------------------------------------------------


def _family(family: _Family, verdicts: Sequence[Verdict]) -> FamilyShown:
    tried = [v for v in verdicts if v.found is not None]
    figure = _figure(family, tried) if tried else None
    return FamilyShown(family.anchor, family.title, family.lead, figure, tuple(map(_told, verdicts)))


def _told(verdict: Verdict) -> Told:
    if verdict.found is None:
        return Told(verdict.attack, *_NOT_TRIED, verdict.says)
    said, _, css = _VERDICTS[verdict.judged]
    return Told(verdict.attack, said, css, verdict.says)


def _figure(family: _Family, verdicts: Sequence[Verdict]) -> Figure:
    identity, title = f"{family.anchor}-intervals", f"{family.title}, with {LEVEL:.0%} intervals"
    panels = [
        _panel(figure, [v for v in verdicts if v.figure == figure])
        for figure in family.figures
        if any(v.figure == figure for v in verdicts)
    ]
    bounded = any(row.mark is not None for panel in panels for row in panel.rows)
    takeaway = _takeaway(verdicts)
    desc = described(takeaway, "Intervals per attack, unprotected and protected, with the bound.")
    svg = interval_panels(identity, title, desc, panels, _SERIES, "bound of this plan" if bounded else "")
    return Figure(identity, title, takeaway, svg, _table(family, verdicts), _note(verdicts))


def _takeaway(verdicts: Sequence[Verdict]) -> str:
    said = {"within": "within the bound", "exceeds": "above the bound", "undecided": "not decided"}
    kinds = {v.judged for v in verdicts}
    if len(kinds) == 1:
        each = said.get(verdicts[0].judged, "without any promise")
        return f"{plural(len(verdicts), 'attack', 'attacks')}, {each}."
    counts = [
        (sum(v.judged == judged for v in verdicts), said.get(judged, "without any promise")) for judged in _VERDICTS
    ]
    return f"{plural(len(verdicts), 'attack', 'attacks')}: {listed([f'{n} {name}' for n, name in counts if n])}."


def _note(verdicts: Sequence[Verdict]) -> str:
    one_sided = any(_one_sided(f) for v in verdicts if v.found for f in (v.found.unprotected, v.found.protected))
    return "An arrow: at least so much is shown; no upper end is known." if one_sided else ""


def _one_sided(figure: figures.Figure) -> bool:
    return figure.method == "bound"


def _panel(figure: str, verdicts: Sequence[Verdict]) -> IntervalPanel:
    rows = tuple(_row(v) for v in verdicts)
    ends = [e for row in rows for r in row.readings for e in (r.value, r.low, r.high) if e is not None]
    return IntervalPanel(_axis(figure, [*ends, *(r.mark for r in rows if r.mark is not None)]), rows, _line(figure))


def _line(figure: str) -> float:
    return _COIN.get(figure, 0.0)


def _axis(figure: str, values: Sequence[float]) -> Axis:
    """From 0 (or below, where an interval goes there) to 100 %, or around the values."""
    label = _AXES.get(figure, figure)
    if figure in ("epsilon", "AUC loss"):
        least = 0.1 if figure == "AUC loss" else 1.0
        around = value_axis([0.0, least, *values], label)
        return Axis(around.low, around.high, around.ticks, lambda v: short(v, 2), label)
    low = min(0.0, *values)
    return Axis(low - 0.04, 1.04, nice_ticks(low, 1.0, 4), lambda v: f"{short(100 * v, 3)} %", label)


def _row(verdict: Verdict) -> IntervalRow:
    assert verdict.found is not None
    attack, found = ATTACKS[verdict.attack], verdict.found
    said, tone, _ = _VERDICTS[verdict.judged]
    bound = "no bound" if found.bound is None else f"bound {shown(attack, found.bound)}"
    readings = tuple(_reading(verdict.attack, f) for f in (found.unprotected, found.protected))
    return IntervalRow(verdict.attack, readings, _finite(found.bound), bound, said, tone)


def _reading(name: str, figure: figures.Figure) -> Reading:
    ends = (_finite(figure.value), _finite(figure.low), _finite(figure.high))
    return Reading(*ends, _said(name, figure), _one_sided(figure))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _said(name: str, figure: figures.Figure) -> str:
    attack = ATTACKS[name]
    if _one_sided(figure):
        return f"at least {shown(attack, figure.low)}"
    return f"{shown(attack, figure.value)} ({interval(attack, figure)})"


def _table(family: _Family, verdicts: Sequence[Verdict]) -> Table:
    """Every figure of every attack; the one that is judged first, those beside it after."""
    rows: list[tuple[str, ...]] = []
    for verdict in verdicts:
        assert verdict.found is not None
        found, attack = verdict.found, ATTACKS[verdict.attack]
        bound = "none" if found.bound is None else shown(attack, found.bound)
        pairs = {verdict.figure: (found.unprotected, found.protected)}
        judged = (bound, _VERDICTS[verdict.judged][0])
        rows.append(
            (verdict.attack, verdict.figure, *(_said(verdict.attack, f) for f in pairs[verdict.figure]), *judged)
        )
        rows += [
            (verdict.attack, name, *(_beside(name, f) for f in pair), UNKNOWN, UNKNOWN)
            for name, pair in found.details.items()
        ]
    head = ("Attack", "Figure", "Unprotected", "Under this plan", "Bound", "Verdict")
    return Table(f"{family.title}: every figure with its {LEVEL:.0%} interval", head, tuple(rows), (0, 1, 5))


def _beside(name: str, figure: figures.Figure) -> str:
    """A figure that is told and not judged: a share in percent, an AUC or a loss with three digits."""
    share = not name.startswith("AUC")

    def write(value: float) -> str:
        return f"{100 * value:.1f} %" if share else f"{value:.3f}"

    return f"{write(figure.value)} ({write(figure.low)} to {write(figure.high)})"
