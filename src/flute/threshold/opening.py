"""Opening one sum: each hub checks and adds up for itself, then gives its share with one proof; k right ones open.

A hub's share of cell A, B of the sum is x_j·A. From k of them comes x·A = sum of their Lagrange weights times shares,
and m·G = B - x·A. Fewer than k say nothing about m (docs/proofs/threshold.md).

Nobody is asked to decrypt a ciphertext that somebody else chose. A hub is given all hubs' signed contributions, and
what it opens is the sum that it made of them (`add_up`): of exactly the agreed hubs, each with its proof, its own as
it left. So a coordinator that wants one hub's numbers alone, a sum over fewer, or a sum with a stranger's ciphertext
in it gets no share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from flute.errors import Cheating, Equivocation, MisuseError, OutOfOrder, TooFewHubs
from flute.messages.threshold import Contribution, OpeningShare, SumTerms
from flute.primitives.keys import SigningKey, digest
from flute.threshold.context import blaming, check_signature, gather, info, message_digest, signed, sum_context
from flute.threshold.encryption import Event, SumState, check_sum_terms, follow
from flute.threshold.group import (
    WIDE,
    Element,
    add,
    hash_to_scalar,
    multiply,
    read_elements,
    read_scalar,
    scalar_from,
    subtract,
)
from flute.threshold.keys import KeyShare, PublicKey, place_of, weights_at_zero
from flute.threshold.proofs import Cells, Parts, check_pads, check_parts, prove_parts

SHARE_RAND_SIZE = WIDE
"""Fresh random bytes that `share` needs."""


@dataclass(frozen=True, slots=True)
class Summed:
    """Sums of all contributions, cell by cell; only `add_up` makes it. digest: of everything that was added up, by
    whom. own: digest of each hub's contribution."""

    terms: SumTerms
    pads: tuple[Element, ...]
    boxes: tuple[Element, ...]
    digest: bytes
    own: dict[str, bytes]


def add_up(
    terms: SumTerms, contributions: Iterable[Contribution], *, public: PublicKey, keys: Mapping[str, bytes]
) -> Summed:
    """Check every contribution, then sum. keys: roster keys, by which each is authentic.

    Raises: MisuseError: terms that do not fit the key or what was agreed. TooFewHubs: names whose is missing.
    Cheating: names whose are none, of another size, or not made by it. Malformed: a stranger's. Equivocation,
    BadSignature.
    """
    check_sum_terms(terms, public)
    ctx = sum_context(terms)
    heard = gather(contributions, what="contribution", ctx=ctx, hubs=terms.contributors, keys=keys)
    columns = [_read(message, terms.size) for message in heard.values()]
    own = {hub: message_digest(message) for hub, message in heard.items()}
    pads, boxes = (_sums([column[i] for column in columns]) for i in (0, 1))
    return Summed(terms, pads, boxes, digest(info("summed"), ctx, *own.values()), own)


def share(
    state: SumState, held: KeyShare, summed: Summed, *, rand: bytes, key: SigningKey
) -> tuple[SumState, OpeningShare]:
    """This hub's share of the opening of the sum that it made itself. The caller writes the state (fsync) first.

    rand: SHARE_RAND_SIZE fresh bytes; they are mixed with the secret, so that a repeat does not lay it open.
    Raises: MisuseError: another sum or key than the state's, or `rand`'s size. Equivocation: this hub's own
    contribution is not the one that left. OutOfOrder: it opened another sum under these terms, or has not
    contributed.
    """
    if summed.terms != state.terms or held.me != state.me:
        raise MisuseError("A sum is opened under the terms, and by the hub, that it was begun with.")
    check_sum_terms(state.terms, held.public)
    if state.me in state.terms.contributors and not state.own:
        raise OutOfOrder(
            f"{state.me} has not contributed to this sum, so what is in it for {state.me} is not its own."
        )
    if summed.own.get(state.me, b"") != state.own:
        raise Equivocation(f"What is passed around as the contribution of {state.me} is not what it sent.")
    phase = follow(state, Event.OPEN)
    if state.opened not in (b"", summed.digest):
        raise OutOfOrder(f"{state.me} gave its share for another sum under these terms; it opens one.")
    message = _make_share(held, summed, rand, key)
    return replace(state, phase=phase, opened=summed.digest), message


@dataclass(frozen=True, slots=True)
class Opened:
    """elements: m·G of each cell's total m; `totals.read_totals` finds m. by: whose shares opened it. wrong: hubs
    whose shares were refused, as their proofs show."""

    elements: tuple[Element, ...]
    by: tuple[str, ...]
    wrong: tuple[str, ...]


def combine(
    public: PublicKey, summed: Summed, shares: Iterable[OpeningShare], *, keys: Mapping[str, bytes]
) -> Opened:
    """Open the sum with the first k right shares. Each is checked by its proof before it is used.

    Raises: Cheating: too few right ones, and names who gave wrong ones. TooFewHubs: names whose are missing.
    BadSignature, Equivocation: not signed by its hub, or for another sum.
    """
    good: dict[str, tuple[Element, ...]] = {}
    wrong: list[str] = []
    for message in shares:
        if len(good) == public.terms.threshold:
            break
        if message.hub in good:
            continue
        try:
            good[message.hub] = check_share(public, summed, message, keys=keys)
        except Cheating:
            wrong.append(message.hub)
    if len(good) < public.terms.threshold:
        raise _too_few(public, good, wrong)
    return Opened(_combined(public, summed, good), tuple(good), tuple(sorted(set(wrong) - set(good))))


def check_share(
    public: PublicKey, summed: Summed, message: OpeningShare, *, keys: Mapping[str, bytes]
) -> tuple[Element, ...]:
    """One hub's parts, if they are right. Raises: Cheating, Malformed: its sender's fault.
    BadSignature, Equivocation: none of its sender's, or for another sum."""
    check_signature(message, keys)
    ctx = sum_context(summed.terms)
    if message.ctx != ctx or message.summed != summed.digest:
        raise Equivocation(f"The opening share of {message.hub} is for another sum than this one.")
    parts = Parts(ctx, message.hub, public.share_of(message.hub), summed.digest, summed.pads, message.parts)
    with blaming(message.hub):
        column = read_elements(message.parts, summed.terms.size)
        check_parts(parts, column, (message.challenge, message.response))
    return column


def _read(message: Contribution, size: int) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Pads and boxes. Raises: Cheating: names a hub whose are none, or that did not make its own."""
    cells = Cells(message.ctx, message.hub, message.pads, message.boxes)
    with blaming(message.hub):
        pads, boxes = read_elements(message.pads, size), read_elements(message.boxes, size)
        check_pads(cells, pads, (message.challenge, message.response))
    return pads, boxes


def _sums(columns: Sequence[tuple[Element, ...]]) -> tuple[Element, ...]:
    first, *others = columns
    for other in others:
        first = tuple(map(add, first, other))
    return first


def _make_share(held: KeyShare, summed: Summed, rand: bytes, key: SigningKey) -> OpeningShare:
    secret, ctx = read_scalar(held.secret), sum_context(summed.terms)
    column = b"".join(multiply(secret, pad) for pad in summed.pads)
    scalar_from(rand)
    nonce = hash_to_scalar(info("nonce"), held.secret, rand, ctx, summed.digest)
    parts = Parts(ctx, held.me, held.public.share_of(held.me), summed.digest, summed.pads, column)
    challenge, response = prove_parts(parts, secret, nonce)
    return signed(OpeningShare(ctx, held.me, summed.digest, column, challenge, response, bytes(64)), key)


def _combined(public: PublicKey, summed: Summed, good: Mapping[str, tuple[Element, ...]]) -> tuple[Element, ...]:
    """B - sum of weight·part. As the weights sum to 1, that is (B - first) - sum over the others of
    weight·(part - first): one multiplication less for each cell."""
    weights = weights_at_zero([place_of(public.terms, hub) for hub in good])
    first, *others = good.values()
    result = list(map(subtract, summed.boxes, first))
    for weight, column in zip(weights[1:], others, strict=True):
        for i, (part, base) in enumerate(zip(column, first, strict=True)):
            result[i] = subtract(result[i], multiply(weight, subtract(part, base)))
    return tuple(result)


def _too_few(public: PublicKey, good: Mapping[str, object], wrong: Sequence[str]) -> Cheating | TooFewHubs:
    need = public.terms.threshold
    if wrong:
        names = ", ".join(sorted(set(wrong)))
        return Cheating(
            f"Wrong opening shares came from {names}; {len(good)} right ones are not the {need} that open a sum.",
            blamed=tuple(sorted(set(wrong))),
        )
    missing = ", ".join(hub for hub in public.terms.hubs if hub not in good)
    return TooFewHubs(
        f"{len(good)} hubs gave their shares, and {need} must; it waits for {missing}. Nothing was opened."
    )
