"""The flow of persons as a picture: an SVG that stands alone, for eyes, screen readers, dark screens and paper.

Down the left runs who remains; to the right each rule with how many it leaves out. Texts are text, not outlines.
A step that leaves nobody out is drawn quietly: it was applied, and that matters too.
"""

from __future__ import annotations

from typing import Final

from markupsafe import Markup, escape

from flute.cohort.flow import FOR_OWN_EYES, SIMULATED, Flow, Step, broken, joined_says

WIDTH: Final = 760
_SPINE: Final = 118
"""x of the line that the persons go down."""
_SIDE: Final = 252
"""x where the boxes on the right begin."""
_PAD: Final = 12
_LINE: Final = 18
_CHAR: Final = 6.6
"""Mean width of a character at 13 px; generous for the system fonts, so that nothing leaves its box."""
_STYLE: Final = Markup("""
.flow{color-scheme:light dark;background:#fff;font:13px/1.4 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.flow text{fill:#1b2631}.flow .quiet{fill:#51606d}.flow .figure{font-weight:650;font-variant-numeric:tabular-nums}
.flow .main{fill:#e4f0f5;stroke:#0b5a78}.flow .out{fill:#f7f8f8;stroke:#b9c3cb}.flow .none{fill:none;stroke:#d9dfe4}
.flow .spine{stroke:#51606d;fill:none;stroke-width:1.5}.flow .tip{fill:#51606d}.flow .thin{stroke:#9fabb5;fill:none}
.flow .warn{fill:#7d4600;font-weight:600}.flow .hand{fill:#0b5a78}
@media (prefers-color-scheme:dark){.flow{background:#11161b}.flow text{fill:#e8edf1}.flow .quiet{fill:#a9b5bf}
.flow .main{fill:#1b323e;stroke:#86c9e4}.flow .out{fill:#1a2128;stroke:#4a5965}.flow .none{stroke:#34404b}
.flow .spine{stroke:#a9b5bf}.flow .tip{fill:#a9b5bf}.flow .thin{stroke:#5c6a76}.flow .warn{fill:#f4c57f}
.flow .hand{fill:#86c9e4}}
@media print{.flow{background:none}}""")


def flow_svg(flow: Flow, identity: str = "flow") -> str:
    """The picture. `identity`: what its ids begin with, where several stand on one page."""
    parts: list[Markup] = []
    y = 20
    for label in ([SIMULATED] if flow.simulated else []) + ([flow.purpose] if flow.purpose else []):
        parts.append(_text(20, y + 4, label, "warn" if label == SIMULATED else "figure"))
        y += _LINE + 4
    parts += _main(y, f"{flow.found:,}", f"{flow.persons} found", joined_says(flow))
    y += 56
    for step in flow.steps:
        drawn, height = _step(y, step)
        parts += drawn
        y += height
    parts.append(_arrow(y, y + 22))
    y += 22
    parts += _main(y, f"{flow.included:,}", f"{flow.persons} in the cohort", _kept(flow))
    y += 56 + _LINE + 8
    for note in flow.notes:
        lines = broken(note.says, int((WIDTH - 138) / _CHAR))
        parts.append(_text(88, y, f"{note.persons:,}", "figure", "end"))
        parts += [_text(100, y + k * _LINE, line, "quiet") for k, line in enumerate(lines)]
        y += _LINE * len(lines)
    if flow.small:
        y += 8
        parts.append(_text(20, y, FOR_OWN_EYES, "warn"))
        y += _LINE
    return str(_frame(identity, flow, y + 2, parts))


def _frame(identity: str, flow: Flow, height: int, parts: list[Markup]) -> Markup:
    title, said = f"From {flow.found:,} {flow.persons} to a cohort of {flow.included:,}", _said(flow)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="flow" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        'role="img" aria-labelledby="{i}-t {i}-d"><title id="{i}-t">{title}</title><desc id="{i}-d">{said}</desc>'
        "<style>{style}</style>{body}</svg>"
    ).format(w=WIDTH, h=height, i=identity, title=title, said=said, style=_STYLE, body=Markup("").join(parts))


def _said(flow: Flow) -> str:
    """The whole picture in sentences."""
    told = [f"{flow.found:,} {flow.persons} were found."]
    told += [f"{s.left:,} left out, {s.remain:,} remain: {s.says}." for s in flow.steps if s.left]
    idle = [s.word for s in flow.steps if not s.left]
    told += [f"These rules left nobody out: {', '.join(idle)}."] if idle else []
    told.append(f"{flow.included:,} {flow.persons} are in the cohort.")
    told += [f"Of these {note.persons:,}: {note.says}." for note in flow.notes]
    return " ".join([*([SIMULATED] if flow.simulated else []), *told])


def _main(y: int, figure: str, label: str, more: str) -> list[Markup]:
    """A box on the spine; `more` stands beside it."""
    parts = [
        Markup('<rect class="main" x="20" y="{}" width="{}" height="56" rx="8"/>').format(y, 2 * (_SPINE - 20)),
        Markup('<text class="figure" x="{}" y="{}" text-anchor="middle" font-size="17">{}</text>').format(
            _SPINE, y + 25, figure
        ),
        _text(_SPINE, y + 44, label, "quiet", "middle"),
    ]
    return [*parts, _text(_SIDE, y + 33, more, "hand")] if more else parts


def _step(y: int, step: Step) -> tuple[list[Markup], int]:
    """A box to the right of the spine, and how much height it takes."""
    lines = broken(step.says, int((WIDTH - _SIDE - 20 - 2 * _PAD - 70) / _CHAR))
    small = f"{step.word} · {step.requirement}" if step.requirement else step.word
    hand = f"{step.kept:,} kept in by hand" if step.kept else ""
    box = 2 * _PAD + _LINE * (len(lines) + 1) - 4
    top, middle = y + 12, y + 12 + box // 2
    parts = [
        Markup('<path class="spine" d="M{x} {a}V{b}"/>').format(x=_SPINE, a=y, b=top + box),
        Markup('<path class="{c}" d="M{x} {m}H{s}"/>').format(
            c="spine" if step.left else "thin", x=_SPINE, m=middle, s=_SIDE - (7 if step.left else 0)
        ),
        Markup('<rect class="{c}" x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>').format(
            c="out" if step.left else "none", x=_SIDE, y=top, w=WIDTH - _SIDE - 20, h=box
        ),
        _text(WIDTH - 20 - _PAD, top + _PAD + 11, f"−{step.left:,}" if step.left else "0",
              "figure" if step.left else "quiet", "end"),
        *(_text(_SIDE + _PAD, top + _PAD + 11 + k * _LINE, line, "" if step.left else "quiet")
          for k, line in enumerate(lines)),
        _text(_SIDE + _PAD, top + _PAD + 11 + len(lines) * _LINE, small, "quiet", size=11),
        _text(_SPINE - 10, middle + 4, f"{step.remain:,}", "quiet figure", "end"),
    ]  # fmt: skip
    if step.left:
        parts.append(_tip(_SIDE, middle, "M{x} {y}l-8 -4v8z"))
    if hand:
        parts.append(_text(WIDTH - 20 - _PAD, top + _PAD + 11 + len(lines) * _LINE, hand, "hand", "end", size=11))
    return parts, 12 + box


def _arrow(start: int, end: int) -> Markup:
    shaft = Markup('<path class="spine" d="M{} {}V{}"/>').format(_SPINE, start, end - 7)
    return shaft + _tip(_SPINE, end, "M{x} {y}l-4 -8h8z")


def _tip(x: int, y: int, shape: str) -> Markup:
    return Markup('<path class="tip" d="{}"/>').format(shape.format(x=x, y=y))


def _text(x: int, y: int, said: str, style: str = "", anchor: str = "", size: int = 0) -> Markup:
    attributes = Markup("").join(
        Markup(' {}="{}"').format(name, value)
        for name, value in (("class", style), ("text-anchor", anchor), ("font-size", size))
        if value
    )
    return Markup('<text x="{}" y="{}"{}>{}</text>').format(x, y, attributes, escape(said))


def _kept(flow: Flow) -> str:
    return f"of whom {flow.kept:,} kept in by hand" if flow.kept else ""
