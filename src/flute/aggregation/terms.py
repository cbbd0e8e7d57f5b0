"""The rules of a group: thresholds, smallest sets, who shares masks with whom, exact mode.

Three numbers are kept apart: `colluding` c (hubs that may work with the coordinator), `threshold` t (shares
that open a seed) and `survivors_min` (hubs without which no sum is opened).

Sources: Bonawitz et al. 2017, section 6 (thresholds against a lying server); Bell et al. 2020 (sparse graphs of
masks); Harary 1962 (the connectivity of circulant graphs).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from flute.defaults import COMPLETE_GRAPH_HUBS, MAX_HUBS, MIN_HUBS, MIN_NEIGHBOURS
from flute.defaults.quorum import MIN_NOISED_HUBS
from flute.errors import Equivocation, MisuseError, NotPossible, TooFewHubs
from flute.messages.protocol import GroupTerms

_REPEAT = "The round must be repeated with fresh tickets, and every hub that answered is charged again."


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


def sharers(terms: GroupTerms) -> int:
    """m of a group: `noise_sharers`."""
    return noise_sharers(
        hubs=len(terms.hubs), colluding=terms.colluding, survivors_min=terms.survivors_min,
        threshold=terms.threshold, echo=terms.mode == "echo",
    )  # fmt: skip


def fewest(terms: GroupTerms) -> int:
    """In any sum. Of two hubs each sees the other's answer: the other's own noise is all that is charged (m = 1)."""
    return MIN_HUBS if terms.exact else MIN_NOISED_HUBS


def _check_hubs(terms: GroupTerms) -> None:
    n = len(terms.hubs)
    if not terms.study:
        raise NotPossible("A group must name its study.")
    if not fewest(terms) <= n <= MAX_HUBS:
        raise NotPossible(
            f"Secure aggregation needs {fewest(terms)} to {MAX_HUBS} hubs; {n} are named. "
            "With two, each could subtract its own part and see the other's, which only noise may cover."
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
    if not max(t, fewest(terms)) <= terms.survivors_min <= n:
        raise NotPossible(
            f"survivors_min must lie between {max(t, fewest(terms))} and {n}; it is {terms.survivors_min}. "
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


def degree(terms: GroupTerms, participants: int) -> int:
    """With how many others each of `participants` hubs shares a mask; even, or all of them.

    Masks hide every honest hub in the sum of all honest survivors as long as these stay connected in the graph of
    masks, whoever else colludes or is called dropped. A circulant graph of degree k stays connected without any k - 1
    of its hubs (Harary 1962), and at most colluding + participants - survivors_min are taken away. Without an echo a
    liar can take more away, by telling each hub another set: all pairs share a mask then.
    """
    if participants <= COMPLETE_GRAPH_HUBS or terms.mode != "echo":
        return participants - 1
    lost = terms.colluding + participants - terms.survivors_min
    return min(max(lost + 2 - lost % 2, MIN_NEIGHBOURS), participants - 1)


def neighbours(terms: GroupTerms, participants: Sequence[str], hub: str) -> tuple[str, ...]:
    """The hubs that share a mask with `hub`, sorted: the next ones on both sides on the circle of participants."""
    n, at = len(participants), participants.index(hub)
    k = degree(terms, n)
    if k == n - 1:
        return tuple(h for h in participants if h != hub)
    around = {participants[(at + step) % n] for step in range(-(k // 2), k // 2 + 1)} - {hub}
    return tuple(sorted(around))


def noise_sharers(*, hubs: int, colluding: int, survivors_min: int, threshold: int, echo: bool) -> int:
    """m: honest hubs that are certain to be in any sum that can be opened; each adds variance sigma^2 / m.

    One hub always counts as colluding here, for any hub that sees a total can subtract its own noise.
    Without an echo a liar may tell each hub another set, and of the same tickets in two messages 0: what then remains
    is `_reached_by_a_liar`. 30 hubs, 6 colluding, 21 needed leave 2 honest ones where the echo leaves 15.
    """
    known = max(colluding, 1)
    echoed = max(survivors_min - known, 0)
    if echo:
        return echoed
    return min(echoed, _reached_by_a_liar(hubs - known, hubs - survivors_min, max(threshold - known, 1)))


def _reached_by_a_liar(honest: int, missing: int, holders: int) -> int:
    """The fewest honest hubs in a sum that can be read by a liar who also splits the hubs over two messages 0.

    holders: honest hubs whose shares open a secret beside those of the colluding ones. Of `honest`, `away` are called
    missing, `opened` have their masks taken off, and `size` stay in the sum: every share that opens them comes from a
    hub that was told so, and each hub lets `missing` be called missing, itself never (docs/proofs/secagg.md).
    """
    for size in range(1, honest + 1):
        for away in range(min(missing, honest - size) + 1):
            opened = honest - away - size
            room = size * min(missing - away, opened) + opened * min(missing, opened - 1)
            if opened * holders <= room + away * min(missing, opened):
                return size
    return honest


def check_participants(terms: GroupTerms, hubs: Sequence[str]) -> None:
    """May a round start among these hubs, in this order?

    Raises: Equivocation: not hubs of the group in alphabetical order, each once. TooFewHubs.
    """
    if any(a >= b for a, b in pairwise(hubs)) or not set(hubs) <= set(terms.hubs):
        raise Equivocation("The hubs of this round are not hubs of the group, each once, in alphabetical order.")
    _check_enough(terms, hubs)


def check_survivors(terms: GroupTerms, participants: Sequence[str], survivors: Sequence[str]) -> None:
    """May the sum over `survivors` be opened, in a round that began among `participants`?

    Raises: Equivocation: the set is not part of the round. TooFewHubs: it is too small, or, without noise, not all
    hubs of the study.
    """
    if any(a >= b for a, b in pairwise(survivors)) or not set(survivors) <= set(participants):
        raise Equivocation("The survivor set names hubs that did not take part in this round, or not each once.")
    _check_enough(terms, survivors)


def _check_enough(terms: GroupTerms, hubs: Sequence[str]) -> None:
    if terms.exact and tuple(hubs) != terms.hubs:
        missing = ", ".join(sorted(set(terms.hubs) - set(hubs)))
        raise TooFewHubs(
            f"Without noise every sum must contain all hubs of the study, and {missing} is missing: the difference "
            f"to another sum would reveal it. {_REPEAT}"
        )
    needed = max(terms.threshold, terms.survivors_min, fewest(terms))
    if len(hubs) < needed:
        raise TooFewHubs(f"{len(hubs)} hubs are left, and study {terms.study} sums no fewer than {needed}. {_REPEAT}")
