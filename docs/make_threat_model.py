"""Write docs/threat-model.md from the table in the code: `python docs/make_threat_model.py`.

A test fails where the page is stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, get_args

from flute.aggregation.plan import PLANS
from flute.algorithms.contract import Mode
from flute.study.agreement import PlanChoice
from flute.study.threats import ENCLAVES, PARTIES, Cell, guarantees

PAGE: Final = Path(__file__).parent / "threat-model.md"
HEAD: Final = """\
# The threat model

**UNAUDITED.** Written by `python docs/make_threat_model.py` from `src/flute/study/threats.py`; do not edit. The
same table is printed for one study by `flute threats STUDY.yaml`, shown to the steward who consents, and put into the
study agreement by its digest, so that nobody consents to one table and is held to another.

Three assumptions about the parties, crossed with three about enclaves, for every plan and for private and exact
results. A hub's owner, the researcher and the coordinator's operator are parties; a data owner inside a hub who
works with the researcher counts as that hub colluding. Each verdict names the test whose attacks were tried: where it
holds, they win on a build without the defence and lose with it; where it does not, they win.

What plans cost, and which to choose when: [plans](plans.md).
"""
_MARK: Final = {True: "holds", False: "**does not hold**"}


def page() -> str:
    parts = [HEAD]
    for plan in PLANS.values():
        parts.append(f"## Plan `{plan.name}`\n\n{plan.summary}\n")
        parts += [_mode(mode, PlanChoice(plan.name)) for mode in get_args(Mode)]
    parts += [_without_echo(), _outvoting()]
    return "\n".join(parts)


def _mode(mode: Mode, plan: PlanChoice) -> str:
    cells = guarantees(mode, plan)
    lines = [f"### {mode} results\n", "| if … | " + " | ".join(ENCLAVES.values()) + " |", "| --- | --- | --- | --- |"]
    for parties in PARTIES.values():
        row = [c for c in cells if c.parties == parties]
        lines.append(f"| {parties} | " + " | ".join(_MARK[c.holds] for c in row) + " |")
    lines.append("")
    for parties in PARTIES.values():
        row = [c for c in cells if c.parties == parties]
        for because in dict.fromkeys(c.because for c in row):
            same = [c for c in row if c.because == because]
            lines.append(_reason(parties, same, len(same) == len(row)))
    return "\n".join(lines) + "\n"


def _reason(parties: str, cells: list[Cell], whole_row: bool) -> str:
    where = "" if whole_row else f" ({' or '.join(c.enclaves for c in cells)})"
    cell = cells[0]
    verdict = "Holds." if cell.holds else "Does not hold."
    return (
        f"- *{parties[0].upper()}{parties[1:]}{where}.* **{verdict}** {cell.because} Rests on: {cell.assumes} "
        f"What is left: {cell.residual} Tried in `{cell.test}`."
    )


def _without_echo() -> str:
    plan = PlanChoice("secagg", echo=False)
    cell = next(c for c in guarantees("private", plan) if c.parties == PARTIES["P"])
    return f"## `secagg` with `echo: false`\n\nAs above, but for *{PARTIES['P']}*: {cell.because}\n"


def _outvoting() -> str:
    cell = next(c for c in guarantees("exact", PlanChoice("mpc"), outvoting=True) if c.parties == PARTIES["D"])
    head = "## `mpc`, exact, where all questions are `robust-model`\n\nAs above, but for\n\n"
    return head + _reason(PARTIES["D"], [cell], True) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
