"""Can this study's plan be carried out among its hubs? Asked by whoever asks `study.files.check`.

Every finding points at the study file's line where there is one, and says what to write.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from math import comb

from msgspec import UNSET

from flute.aggregation.plan import PLANS, Plan
from flute.defaults import MIN_HUBS
from flute.defaults.joint import MAX_GROUPS
from flute.errors import StudyFileError
from flute.study.agreement import Agreement
from flute.study.files.lines import Lines, line_of
from flute.study.protection import most_dropouts
from flute.study.threats import guarantees_digest

MIN_AGGREGATORS = 2
"""One enclave would see every hub's answer."""


def check_plan(agreement: Agreement, lines: Lines) -> Plan:
    plan = PLANS.get(agreement.plan.name)
    if plan is None:
        raise StudyFileError(
            f"There is no plan {agreement.plan.name!r}; {one_of(agreement.plan.name, PLANS, 'there is')}",
            line=line_of(lines, "plan", "name"),
        )
    n, c = len(agreement.hubs), agreement.plan.colluding
    if n < plan.min_hubs:
        raise StudyFileError(
            f"Plan {plan.name} needs at least {plan.min_hubs} hubs and this study names {n}: of two, each would "
            "learn the other's answer by subtracting its own. Ask one more hub to take part.",
            line=line_of(lines, "hubs"),
        )
    if c < 1:
        raise StudyFileError(
            "colluding is 0, but any hub that sees a total can subtract its own answer and its own noise: write "
            "'colluding: 1', or more if more hubs may work together.",
            line=line_of(lines, "plan", "colluding"),
        )
    if c > n - 2:
        raise StudyFileError(
            f"Of {n} hubs at most {n - 2} may collude, not {c}: at least two must stay honest, or the others see a "
            f"single hub's answer. Write 'colluding: {n - 2}', or ask more hubs to take part.",
            line=line_of(lines, "plan", "colluding"),
        )
    _check_hubs_min(agreement, lines)
    _check_dropouts(agreement, lines)
    _check_own_elements(agreement, lines)
    if agreement.guarantees != guarantees_digest(agreement.mode, agreement.plan, agreement.questions):
        raise StudyFileError(
            f"The agreement promises something else under plan {plan.name} than this version of FLUTE does; write it "
            "anew with the version that all hubs have."
        )
    return plan


def _check_hubs_min(agreement: Agreement, lines: Lines) -> None:
    """May fewer hubs carry the study out than are asked, and is the noise scaled for so few?"""
    if agreement.hubs_min is UNSET:
        if agreement.decide_by is not UNSET:
            raise StudyFileError(
                "decide_by says when a study begins without the hubs that have not decided, and this one needs all: "
                "write 'hubs_min' as well, or leave decide_by out.",
                line=line_of(lines, "decide_by"),
            )
        return
    n, least, plan = len(agreement.hubs), agreement.least, agreement.plan
    line = line_of(lines, "hubs_min")
    if not PLANS[plan.name].recovers_dropouts or not plan.echo:
        what = f"plan {plan.name}" if plan.echo else "'echo: false'"
        raise StudyFileError(
            f"With {what} a study is carried out by all of its hubs: leave hubs_min out, or choose plan secagg with "
            "its echo.",
            line=line,
        )
    fewest = max(plan.colluding + 2, MIN_HUBS) if agreement.mode == "exact" else plan.colluding + 1
    if not fewest <= least <= n:
        why = "two honest ones, at least three in all" if agreement.mode == "exact" else "one honest one"
        raise StudyFileError(
            f"hubs_min is {least}: besides {plan.colluding} colluding hubs {why} must be left, and {n} are asked. "
            f"Write a number from {fewest} to {n}.",
            line=line,
        )
    if agreement.mode == "private" and plan.dropouts < n - least:
        raise StudyFileError(
            f"hubs_min is {least} of {n}, and the noise is scaled for sums that lack at most {plan.dropouts}: write "
            f"'plan: {{dropouts: {n - least}}}', which makes every result coarser, or a larger hubs_min.",
            line=line,
        )
    if agreement.decide_by is not UNSET and agreement.decide_by > agreement.ends:
        raise StudyFileError(
            "decide_by is later than the study's last day; write an earlier day.", line=line_of(lines, "decide_by")
        )


def _check_dropouts(agreement: Agreement, lines: Lines) -> None:
    n, c, missing = len(agreement.hubs), agreement.plan.colluding, agreement.plan.dropouts
    line = line_of(lines, "plan", "dropouts")
    if missing and agreement.mode == "exact":
        raise StudyFileError(
            "Without noise every sum must contain all hubs, since two sums that differ by one hub reveal that hub: "
            "write 'dropouts: 0', or ask for private results.",
            line=line,
        )
    if missing and not PLANS[agreement.plan.name].recovers_dropouts:
        raise StudyFileError(
            f"Under plan {agreement.plan.name} a total is opened of all hubs or of none: write 'dropouts: 0'.",
            line=line,
        )
    most = max(most_dropouts(agreement), n - agreement.least)
    if missing > most:
        raise StudyFileError(
            f"Of {n} hubs, {c} of them colluding, at most {most} may be missing from a sum, not {missing}: a smaller "
            f"one could be opened twice, or would say too much about each hub. Write 'dropouts: {most}'.",
            line=line,
        )


def _check_own_elements(agreement: Agreement, lines: Lines) -> None:
    """What only some plans ask for."""
    plan, n, c = agreement.plan, len(agreement.hubs), agreement.plan.colluding
    split = [name for name, known in PLANS.items() if known.enclaves]
    own = [("openers", plan.openers, ["threshold-he"]), ("aggregators", plan.aggregators, split)]
    for element, value, owners in own:
        if value and plan.name not in owners:
            raise StudyFileError(
                f"{element} belongs to plan {' or '.join(owners)}; this study's plan is {plan.name}. Leave it out.",
                line=line_of(lines, "plan", element),
            )
    if not plan.echo and plan.name != "secagg":
        raise StudyFileError(
            f"'echo: false' belongs to plan secagg, and this study's plan is {plan.name}; leave it out.",
            line=line_of(lines, "plan", "echo"),
        )
    if plan.name == "mpc" and c > (n - 1) // 2:
        raise StudyFileError(
            f"Computing on shares protects while fewer than half of the hubs collude: of {n} at most {(n - 1) // 2}, "
            f"not {c}. Write 'colluding: {(n - 1) // 2}', or ask more hubs to take part.",
            line=line_of(lines, "plan", "colluding"),
        )
    if plan.name == "mpc" and comb(n, c) > MAX_GROUPS:
        raise StudyFileError(
            f"Computing on shares among {n} hubs of which {c} may collude takes {comb(n, c):,} keys, and at most "
            f"{MAX_GROUPS:,} are made: reckon with fewer colluding hubs, or choose plan secagg.",
            line=line_of(lines, "plan", "colluding"),
        )
    if plan.name == "threshold-he" and plan.openers and not c < plan.openers <= n:
        raise StudyFileError(
            f"openers is {plan.openers}: more hubs have to agree to open than may collude ({c}), and no more than "
            f"there are ({n}). Write 'openers: {c + 1}'.",
            line=line_of(lines, "plan", "openers"),
        )
    if plan.name in split and len(set(plan.aggregators)) < max(MIN_AGGREGATORS, len(plan.aggregators)):
        raise StudyFileError(
            f"Plan {plan.name} splits answers among enclaves of different makers: name at least two that the roster "
            "approves, each once, for example 'aggregators: [snp, tdx]'.",
            line=line_of(lines, "plan", "aggregators"),
        )


def one_of(name: str, known: Iterable[str], there: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"{there} {', '.join(sorted(known))}."
