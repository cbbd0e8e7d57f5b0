"""The rules of a group: thresholds, smallest sets, exact mode. Sources: SECAGG design §3, §3b.

Three numbers are kept apart: `colluding` c (hubs that may work with the coordinator), `threshold` t (shares
that open a seed) and `survivors_min` (hubs without which no sum is opened).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from flute.defaults import MAX_HUBS, MIN_HUBS
from flute.errors import Equivocation, MisuseError, NotPossible, TooFewHubs
from flute.messages.protocol import GroupTerms

_REPEAT = (
    "Recovery of dropouts is not available: the round must be repeated with fresh tickets, and every hub that "
    "answered is charged again."
)


def default_threshold(hubs: int, colluding: int) -> int:
    """The smallest t with 2t > n + c and t >= 2.

    Two sets of t among n hubs then share an honest hub, which signs only one survivor set per round.
    Raises: NotPossible: so many colluding hubs leave no such threshold.
    """
    threshold = max((hubs + colluding) // 2 + 1, 2)
    if threshold > hubs:
        raise NotPossible(
            f"With {hubs} hubs, {colluding} of them colluding, no threshold protects the others. "
            "Name more hubs or assume fewer colluding ones."
        )
    return threshold


def check(terms: GroupTerms) -> None:
    """Every rule a group must meet before a hub deals a ticket under it.

    Raises: NotPossible: with a sentence that says which rule and what to change.
    """
    _check_hubs(terms)
    _check_threshold(terms)
    if terms.exact:
        _check_exact(terms)
    elif noise_sharers(terms) < 1:
        raise NotPossible(
            "In two-message mode a lying coordinator could reach a set without an honest hub in it. "
            "Use the echo mode, or raise survivors_min or the threshold."
        )


def _check_hubs(terms: GroupTerms) -> None:
    n = len(terms.hubs)
    if not terms.study:
        raise NotPossible("A group must name its study.")
    if not MIN_HUBS <= n <= MAX_HUBS:
        raise NotPossible(
            f"Secure aggregation needs {MIN_HUBS} to {MAX_HUBS} hubs; {n} are named. "
            "With two, each could subtract its own part and see the other's."
        )
    if any(a >= b for a, b in pairwise(terms.hubs)):
        raise NotPossible("The hubs of a group must be listed once each, in alphabetical order.")


def _check_threshold(terms: GroupTerms) -> None:
    n, t, c = len(terms.hubs), terms.threshold, terms.colluding
    if not 2 <= t <= n:
        raise NotPossible(f"The share threshold must lie between 2 and the {n} hubs of the group; it is {t}.")
    if 2 * t <= n + c:
        raise NotPossible(
            f"A threshold of {t} is too low for {n} hubs of which {c} may collude: the coordinator could open "
            f"two different sums. Twice the threshold must exceed {n + c}."
        )
    if not max(t, MIN_HUBS) <= terms.survivors_min <= n:
        raise NotPossible(
            f"survivors_min must lie between {max(t, MIN_HUBS)} and {n}; it is {terms.survivors_min}. "
            "A smaller set could not be opened or would say too much about each hub."
        )


def _check_exact(terms: GroupTerms) -> None:
    n = len(terms.hubs)
    if terms.survivors_min != n:
        raise NotPossible(
            f"Without noise every sum must contain all {n} hubs, since two sums that differ by one hub reveal "
            f"that hub: survivors_min must be {n}."
        )
    if n - max(terms.colluding, 1) < 2:
        raise NotPossible(
            f"Without noise at least two honest hubs must remain; {terms.colluding} colluding of {n} leave fewer. "
            "Use private mode."
        )
    if n == MIN_HUBS and terms.threshold != n:
        raise NotPossible("Three hubs may be summed without noise only where all three must agree to open it.")


def index_of(terms: GroupTerms, hub: str) -> int:
    """The hub's x among share holders, from 1. Raises: MisuseError: not of this group."""
    try:
        return terms.hubs.index(hub) + 1
    except ValueError:
        raise MisuseError(f"{hub} is not a hub of study {terms.study}.") from None


def noise_sharers(terms: GroupTerms) -> int:
    """m: honest hubs that are certain to be in any sum that can be opened; each adds variance sigma^2 / m.

    One hub always counts as colluding here, for any hub that sees a total can subtract its own noise.
    In passive mode a liar may tell each hub another set. To leave an honest hub out of a sum it needs t - c
    honest hubs that were told so, and each of the n - c honest ones lets n - survivors_min be left out
    (SECAGG §3: n = 30, t = 21, c = 6 leaves 10 honest hubs where the echo leaves 15).
    """
    n, c = len(terms.hubs), max(terms.colluding, 1)
    echoed = max(terms.survivors_min - c, 0)
    if terms.mode == "echo":
        return echoed
    honest = n - c
    left_out = honest * (n - terms.survivors_min) // max(terms.threshold - c, 1)
    return max(min(echoed, honest - left_out), 0)


def check_participants(terms: GroupTerms, hubs: Sequence[str]) -> None:
    """May a round start among these hubs, in this order?

    Raises: Equivocation: not hubs of the group in alphabetical order, each once. TooFewHubs.
    """
    if any(a >= b for a, b in pairwise(hubs)) or not set(hubs) <= set(terms.hubs):
        raise Equivocation("The hubs of this round are not hubs of the group, each once, in alphabetical order.")
    _check_enough(terms, hubs)


def check_survivors(terms: GroupTerms, participants: Sequence[str], survivors: Sequence[str]) -> None:
    """May the sum over `survivors` be opened, in a round that began among `participants`?

    Raises: Equivocation: the set is not part of the round. TooFewHubs: someone is missing (named), or too small.
    """
    if any(a >= b for a, b in pairwise(survivors)) or not set(survivors) <= set(participants):
        raise Equivocation("The survivor set names hubs that did not take part in this round, or not each once.")
    missing = sorted(set(participants) - set(survivors))
    if missing:
        raise TooFewHubs(f"The answer of {', '.join(missing)} is missing from this round. {_REPEAT}")
    _check_enough(terms, survivors)


def _check_enough(terms: GroupTerms, hubs: Sequence[str]) -> None:
    if terms.exact and tuple(hubs) != terms.hubs:
        missing = ", ".join(sorted(set(terms.hubs) - set(hubs)))
        raise TooFewHubs(
            f"Without noise every sum must contain all hubs of the study, and {missing} is missing: the difference "
            f"to another sum would reveal it. {_REPEAT}"
        )
    needed = max(terms.threshold, terms.survivors_min, MIN_HUBS)
    if len(hubs) < needed:
        raise TooFewHubs(f"{len(hubs)} hubs are left, and study {terms.study} sums no fewer than {needed}. {_REPEAT}")
