"""Who carries out a study that may do without some of its hubs (`hubs_min`), and on what that rests.

1 An agreement names every hub that is asked, the fewest that carry it out, and the fewest in any sum. What is charged
  and how much noise each hub adds follow from that smallest sum, whoever takes part: m honest hubs, m = n - dropouts
  - colluding, are in any sum that can be opened.
2 The set of hubs is told by their study keys: each is signed by its hub for this very agreement, which no hub does
  that has not consented. Every hub checks them before it sets up channels, and the set is in its terms, so in every
  ticket, mask and signature: hubs that were told different sets cannot be in one sum.
3 A hub's set only ever gets smaller, never below `hubs_min`; without noise it never changes, since two sums that
  differ by one hub reveal that hub. So a coordinator that leaves a hub out gains what it gains by calling it dropped:
  a sum of fewer hubs, no fewer than agreed, under noise that was scaled for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from flute.aggregation.terms import default_threshold
from flute.errors import Equivocation, TooFewHubs
from flute.study.agreement import Agreement

GRANTED: Final = "granted"
UNDECIDED: Final = "asked"
LEFT: Final = {
    "denied": "did not consent",
    "absent": "had not decided when the study began",
    "withdrawn": "withdrew its consent",
    "refused": "refused a question",
    "away": "did not answer",
}
"""Why a hub takes no part (any more), in words that follow its name."""


def among(agreement: Agreement, hubs: Sequence[str]) -> Agreement:
    """The agreement as these of its hubs carry it out: none of its sums is of fewer hubs than was agreed.

    Its digest is not the agreement's own; whoever asks for terms gives that one besides.
    Raises: Equivocation: strangers, or one hub twice. TooFewHubs: fewer than may carry it out.
    """
    chosen = tuple(sorted(hubs))
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(agreement.hubs):
        raise Equivocation(f"Study {agreement.study} is to be carried out by hubs that its agreement does not name.")
    if len(chosen) < agreement.least:
        missing = ", ".join(sorted(set(agreement.hubs) - set(chosen)))
        raise TooFewHubs(
            f"Study {agreement.study} is carried out by at least {agreement.least} of its hubs; {missing} would be "
            "missing."
        )
    if agreement.hubs_min is UNSET:
        return agreement
    return msgspec.structs.replace(agreement, hubs=chosen, plan=_plan_among(agreement, len(chosen)))


def _plan_among(agreement: Agreement, n: int) -> msgspec.Struct:
    """As many dropouts within a round as the smallest agreed sum and the threshold of n hubs leave room for."""
    smallest = n if agreement.mode == "exact" else len(agreement.hubs) - agreement.plan.dropouts
    dropouts = n - max(smallest, default_threshold(n, agreement.plan.colluding))
    return msgspec.structs.replace(agreement.plan, dropouts=dropouts)


def settled(agreement: Agreement, decisions: Mapping[str, str], now: int) -> bool:
    """Is it settled who takes part? Enough granted, and the others said no or had their time. decisions: per hub."""
    granted = _count(decisions.values(), GRANTED)
    if granted < agreement.least:
        return False
    if not _count(decisions.values(), UNDECIDED):
        return True
    return agreement.decide_by is not UNSET and now > agreement.decide_by


def goes_on(agreement: Agreement, decisions: Mapping[str, str], *, began: bool) -> bool:
    """May a study still be carried out, now that hubs decided anew? began: they were told who takes part."""
    if began and agreement.mode == "exact":
        return False
    kept = _count(decisions.values(), GRANTED) + (0 if began else _count(decisions.values(), UNDECIDED))
    return kept >= agreement.least


def missing(decisions: Mapping[str, str]) -> dict[str, str]:
    """Who took no part, or not to the end, and why; in words."""
    return {hub: LEFT[decision] for hub, decision in sorted(decisions.items()) if decision in LEFT}


def _count(decisions: Iterable[str], which: str) -> int:
    return sum(decision == which for decision in decisions)
