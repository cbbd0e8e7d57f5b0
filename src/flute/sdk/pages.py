"""Small self-contained pieces of HTML for notebooks: no script, nothing loaded, every text escaped, dark where the
reader's system is dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

_STYLE: Final = """<style>
.flute{font:14px/1.45 system-ui,sans-serif;color:#1c2733;background:#fff;border:1px solid #d5dce3;border-radius:6px;
padding:.7em 1em;max-width:60em;overflow-x:auto}
.flute h4{margin:0 0 .3em;font-size:1.05em}.flute p{margin:.3em 0}.flute .quiet{color:#5a6875}
.flute table{border-collapse:collapse;margin:.4em 0}.flute th,.flute td{text-align:left;padding:.2em .8em .2em 0;
border-bottom:1px solid #e3e8ed;font-variant-numeric:tabular-nums}.flute th{font-weight:600}
.flute .bar{background:#e3e8ed;border-radius:3px;height:.55em;width:14em;display:inline-block}
.flute .bar i{background:#1f6f8b;border-radius:3px;height:100%;display:block}
.flute .simulated{background:#fdf0d0;color:#6b4b00;padding:.1em .5em;border-radius:3px;font-weight:600}
@media (prefers-color-scheme:dark){.flute{color:#dfe6ec;background:#161c22;border-color:#37424d}
.flute .quiet{color:#9aa7b3}.flute th,.flute td{border-color:#2b343d}.flute .bar{background:#2b343d}
.flute .bar i{background:#5fb3cf}.flute .simulated{background:#4a3a10;color:#ffdf8a}}
</style>"""


def page(*pieces: str) -> str:
    """Pieces that are HTML already, in one frame with its style."""
    return f'{_STYLE}<div class="flute">{"".join(pieces)}</div>'


def heading(text: str) -> str:
    return f"<h4>{escape(text)}</h4>"


def words(text: str, *, quiet: bool = False) -> str:
    return f'<p class="quiet">{escape(text)}</p>' if quiet else f"<p>{escape(text)}</p>"


def simulated() -> str:
    return '<span class="simulated">SIMULATED</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Cells are escaped; numbers are shortened to four digits."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(shown(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def bar(done: float, text: str) -> str:
    """`done`: 0 to 1."""
    width = round(100 * min(max(done, 0.0), 1.0))
    return f'<p><span class="bar"><i style="width:{width}%"></i></span> {escape(text)}</p>'


def shown(value: Any) -> str:
    """A cell for people: whole numbers whole, others in four digits, nothing as a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
