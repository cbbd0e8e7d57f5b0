"""What the shares of message 5 open: of every participant its seed or its private key.

All at once where all shares hold, which is nearly always: one long number per holder, made of its shares of all
dealers, is weighted and added. Accepted if both of these hold for every dealer; else every share is compared with its
commitment, and who sent a bad one is named.
  1 all holders' shares lie on one polynomial of degree below t: they are orthogonal to a word of the dual code, drawn
    by a hash of all shares, so that nobody can choose shares for it
  2 its value at 0 is the secret that the dealer committed to, in full
So a wrong share is named, or changes nothing: of an honest dealer's shares none is wrong if t - 1 are right, for two
polynomials of degree below t that agree there and at 0 are one. With fewer right ones comparing could open nothing.
Source: Cascudo and David 2017, "SCRAPE" (the test by a dual word); docs/proofs/secagg.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from math import comb, factorial, prod
from typing import Final

from flute.aggregation.commitments import Committer, Kind, place
from flute.aggregation.context import info
from flute.aggregation.masks import Secret, seed_commitment
from flute.errors import BadShare
from flute.messages.protocol import GroupTerms, Shares, Start, Survivors, Ticket, TicketPub
from flute.primitives.keys import AgreementKey, digest
from flute.primitives.sharing import PRIME, SECRET_SIZE, SHARE_SIZE, Interpolation

_BOUND: Final = PRIME.to_bytes(SHARE_SIZE, "big")
_SLOT: Final = 2 * SHARE_SIZE + 1
"""Bytes for a sum of up to 256 products of a share and a weight."""
_APART: Final = bytes(_SLOT - SHARE_SIZE)


class Secrets(Secret, frozen=True):
    """Hub to opened secret, and the hubs whose shares did not hold, sorted."""

    of: dict[str, bytes]
    bad: tuple[str, ...]


def open_secrets(
    start: Start, told: Survivors, tickets: Mapping[str, Ticket], shares: Mapping[str, Shares]
) -> Secrets:
    """Of every participant the seed if it is in the set, else the private key.

    Raises: BadShare: fewer than t good shares of a secret (names the holders of bad ones), or a dealer whose own
    commitments contradict each other (names the dealer).
    """
    kinds = {pub.hub: Kind.SEED if pub.hub in told.hubs else Kind.POINT for pub in start.pubs}
    together = _open_together(start, told, kinds, shares)
    if together is not None:
        return Secrets(together, ())
    good = _good_shares(start, told, kinds, tickets, shares)
    bad = tuple(sorted(holder for holder in shares if any(holder not in verified for verified in good.values())))
    secrets = _combine_singly(start.terms, good, bad)
    for pub in start.pubs:
        if not _is_secret(pub, secrets[pub.hub], kinds[pub.hub]):
            raise BadShare(_bad_dealer(pub.hub))
    return Secrets(secrets, bad)


# --- all at once -------------------------------------------------------------------------------


def _open_together(
    start: Start, told: Survivors, kinds: Mapping[str, Kind], shares: Mapping[str, Shares]
) -> dict[str, bytes] | None:
    """None: some share may be bad."""
    terms = start.terms
    places = {hub: x for x, hub in enumerate(terms.hubs, start=1)}
    rows: dict[int, bytes] = {}
    for holder, message in sorted(shares.items()):
        if holder not in kinds or not _is_whole(message, told.ctx, holder, len(kinds)):
            return None
        rows[places[holder]] = _APART.join(message.shares)
    if len(rows) < terms.threshold:
        return None
    numbers = {x: int.from_bytes(row, "big") for x, row in rows.items()}
    if any(_weighted(numbers, _dual_word(rows, terms.threshold), len(kinds))):
        return None
    at_zero = _weights_at_zero(list(islice(numbers, terms.threshold)))
    opened = dict(zip(kinds, _weighted(numbers, at_zero, len(kinds)), strict=True))
    if max(opened.values()) >> 8 * SECRET_SIZE:
        return None
    secrets = {hub: value.to_bytes(SECRET_SIZE, "big") for hub, value in opened.items()}
    return secrets if all(_is_secret(pub, secrets[pub.hub], kinds[pub.hub]) for pub in start.pubs) else None


def _is_whole(message: Shares, ctx: bytes, holder: str, dealers: int) -> bool:
    """Is it this holder's for this round, a field element in its one encoding for every dealer?"""
    shares = message.shares
    return (
        message.ctx == ctx
        and message.hub == holder
        and len(shares) == dealers
        and set(map(len, shares)) == {SHARE_SIZE}
        and max(shares) < _BOUND
    )


def _weighted(numbers: Mapping[int, int], weights: Mapping[int, int], dealers: int) -> list[int]:
    """The weighted sum of holders' shares, dealer by dealer."""
    total = sum([numbers[x] * weight for x, weight in weights.items()])
    raw = total.to_bytes(_SLOT * dealers, "big")
    return [int.from_bytes(raw[at : at + _SLOT], "big") % PRIME for at in range(0, len(raw), _SLOT)]


def _dual_word(rows: Mapping[int, bytes], threshold: int) -> dict[int, int]:
    """Weights under which shares on one polynomial of degree below t add up to 0, and others do so with probability
    below 2^-240 for each set of shares that is tried. None where there are no more than t holders.

    The polynomial of degree n - t - 1 is (x - r)^(n - t - 1), which misses a wrong word for at most n - t - 1 of r.
    """
    spare = len(rows) - threshold - 1
    if spare < 0:
        return {}
    drawn = int.from_bytes(digest(info("dual-word"), bytes(rows), *rows.values()), "big")
    return {x: part * pow(x - drawn, spare, PRIME) % PRIME for x, part in _over_differences(rows).items()}


def _weights_at_zero(holders: Collection[int]) -> dict[int, int]:
    """Lagrange's: the product over the other holders of other / (other - x)."""
    scale = pow(factorial(max(holders) - 1), -1, PRIME)
    whole = prod(holders)
    return {x: part * (whole // x) * scale % PRIME for x, part in _over_differences(holders).items()}


def _over_differences(holders: Collection[int]) -> dict[int, int]:
    """For each x the product over the other holders of 1 / (other - x), times (N - 1)! with N the largest holder.

    Were all of 1..N there, it would be (-1)^(x - 1) over (x - 1)! (N - x)!, a binomial coefficient over (N - 1)!; the
    factors of those that are not are taken out again. So no fraction has to be inverted.
    """
    largest = max(holders)
    missing = set(range(1, largest)).difference(holders)
    return {x: (-1) ** (x - 1) * comb(largest - 1, x - 1) * prod([other - x for other in missing]) for x in holders}


# --- one by one --------------------------------------------------------------------------------


def _good_shares(
    start: Start,
    told: Survivors,
    kinds: Mapping[str, Kind],
    tickets: Mapping[str, Ticket],
    shares: Mapping[str, Shares],
) -> dict[str, dict[str, bytes]]:
    """Dealer to holder to verified share."""
    terms = start.terms
    good: dict[str, dict[str, bytes]] = {dealer: {} for dealer in kinds}
    committers = [Committer(pub.study, pub.hub, pub.serial, len(terms.hubs)) for pub in start.pubs]
    for x, holder in enumerate(terms.hubs, start=1):
        message = shares.get(holder)
        if message is None or message.ctx != told.ctx or message.hub != holder or holder not in good:
            continue
        for committer, share in zip(committers, message.shares, strict=False):
            index = place(x, kinds[committer.dealer])
            if committer.commit(index, share) == tickets[committer.dealer].commitments[index]:
                good[committer.dealer][holder] = share
    return good


def _combine_singly(
    terms: GroupTerms, good: Mapping[str, Mapping[str, bytes]], bad: Sequence[str]
) -> dict[str, bytes]:
    """Every participant's opened secret, from its first t good shares; the weights of a set of holders are kept."""
    t = terms.threshold
    places = {hub: x for x, hub in enumerate(terms.hubs, start=1)}
    weights: dict[tuple[int, ...], Interpolation] = {}
    secrets = {}
    for dealer, shares in good.items():
        if len(shares) < t:
            blame = f" {', '.join(bad)} sent shares that do not hold." if bad else ""
            raise BadShare(
                f"Only {len(shares)} of {t} good shares of the mask of {dealer} arrived.{blame} Nothing can be opened"
                "; the round must be repeated with fresh tickets and is charged again."
            )
        chosen = {places[hub]: share for hub, share in islice(shares.items(), t)}
        holders = tuple(chosen)
        if holders not in weights:
            weights[holders] = Interpolation(holders)
        try:
            secrets[dealer] = weights[holders].combine(chosen)
        except BadShare as error:
            raise BadShare(_bad_dealer(dealer)) from error
    return secrets


def _is_secret(pub: TicketPub, secret: bytes, kind: Kind) -> bool:
    """Is it what the dealer committed to?"""
    if kind is Kind.SEED:
        return seed_commitment(secret, study=pub.study, dealer=pub.hub, serial=pub.serial) == pub.seed_commitment
    return AgreementKey(secret).public == pub.point


def _bad_dealer(hub: str) -> str:
    return (
        f"The shares that {hub} dealt and committed to do not give the secret it committed to: {hub} dealt a bad "
        "ticket. The round must be repeated with fresh tickets and is charged again."
    )
