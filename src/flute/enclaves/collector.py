"""The coordinator's side of plan `enclave`: pure functions over messages that it has stored. No hub has to trust it.

Privacy rests on hubs and on one honest aggregator. What this side protects is the result: it takes a total only if
every aggregator signed that it summed the very boxes that the hubs signed, and if check numbers, sentinels and bounds
hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds, Layout, read_total
from flute.defaults.enclaves import CHECKS
from flute.enclaves.checks import without_checks
from flute.enclaves.context import (
    begin_of,
    box_digest,
    check_terms,
    list_digest,
    list_to_sign,
    round_context,
    total_to_sign,
)
from flute.errors import BadSignature, Cheating, Equivocation, Malformed, MisuseError, NotInRoster, TooFewHubs
from flute.messages.enclave import (
    EnclaveBegin,
    EnclaveBox,
    EnclaveBoxes,
    EnclaveOffer,
    EnclaveStart,
    EnclaveTerms,
    EnclaveTotal,
)
from flute.primitives.keys import verify
from flute.primitives.ring import Ring, add_into, from_bytes


def begin(
    terms: EnclaveTerms, *, round_number: int, question: bytes, layout: Layout, offers: Mapping[str, EnclaveOffer],
    policies: Mapping[str, bytes], check_key: bytes,
) -> EnclaveStart:  # fmt: skip
    """Message 2, the same for all hubs. check_key: 32 fresh bytes for this attempt alone, kept from aggregators.

    The caller runs `offers.accept_offers` on it before it asks any hub: what hubs would refuse is seen at no charge.
    Raises: NotPossible: the terms break a rule. TooFewHubs: names the aggregators without an offer. MisuseError.
    """
    check_terms(terms)
    missing = [name for name in terms.aggregators if name not in offers or name not in policies]
    if missing:
        raise TooFewHubs(f"There is no offer, or no policy, of {', '.join(missing)}; all aggregators are needed.")
    if len(check_key) != 32:
        raise MisuseError("A check key has 32 bytes.")
    return EnclaveStart(
        terms, round_number, question, layout.size, layout.width, tuple(offers[n] for n in terms.aggregators),
        tuple(policies[n] for n in terms.aggregators), check_key,
    )  # fmt: skip


def for_aggregators(start: EnclaveStart) -> EnclaveBegin:
    """Message 2 as aggregators get it."""
    return begin_of(start)


def check_boxes(start: EnclaveStart, boxes: EnclaveBoxes, keys: Mapping[str, bytes]) -> None:
    """Is this a hub's list for this round? keys: hub to roster key.

    Raises: Equivocation: of another round. NotInRoster, BadSignature: names the hub.
    """
    ctx = round_context(begin_of(start))
    if boxes.ctx != ctx or boxes.hub not in start.terms.hubs or len(boxes.boxes) != len(start.terms.aggregators):
        raise Equivocation(f"The boxes of {boxes.hub} belong to another round than this one.")
    if boxes.hub not in keys:
        raise NotInRoster(f"The roster has no key of {boxes.hub}.")
    try:
        verify(keys[boxes.hub], boxes.signature, list_to_sign(ctx, boxes.hub, _digests(boxes)))
    except BadSignature as error:
        raise BadSignature(f"The list of boxes that claims to come from {boxes.hub} is not signed by it.") from error


def box_for(start: EnclaveStart, boxes: EnclaveBoxes, aggregator: str) -> EnclaveBox:
    """Message 4: what one aggregator gets of a hub's list that `check_boxes` took."""
    place = start.terms.aggregators.index(aggregator)
    return EnclaveBox(boxes.ctx, boxes.hub, _digests(boxes), boxes.boxes[place], boxes.signature)


def total(
    start: EnclaveStart, boxes: Mapping[str, EnclaveBoxes], totals: Mapping[str, EnclaveTotal], *, bounds: Bounds
) -> NDArray[np.int64]:
    """The sum of all hubs' vectors, int64 [size], noise and all. boxes: lists that `check_boxes` took.

    Raises: as `total_words`. BadTotal: also where sentinels, a coordinate or the norm are out of bounds.
    """
    layout = Layout(start.width, start.size)
    words = total_words(start, boxes, totals)
    return read_total(words, layout, survivors=len(start.terms.hubs), bounds=bounds).astype(np.int64)


def total_words(start: EnclaveStart, boxes: Mapping[str, EnclaveBoxes], totals: Mapping[str, EnclaveTotal]) -> Ring:
    """The sum of what hubs split, as words whose check numbers hold.

    Raises: TooFewHubs: names whose message is missing. Cheating: names aggregators that summed other boxes or another
    length. BadSignature: a total that its aggregator's attested key did not sign. BadTotal.
    """
    _require_all("boxes", start.terms.hubs, boxes)
    _require_all("total", start.terms.aggregators, totals)
    layout = Layout(start.width, start.size)
    size = layout.block_words(0) + CHECKS
    added: Ring | None = None
    for offer in start.offers:
        words = _checked(start, offer, totals[offer.aggregator], boxes, size, layout.word_bytes)
        if added is None:
            added = words.copy()
        else:
            add_into(added, words)
    assert added is not None
    return without_checks(added, start.check_key)


def _checked(
    start: EnclaveStart, offer: EnclaveOffer, given: EnclaveTotal, boxes: Mapping[str, EnclaveBoxes], size: int,
    word_bytes: int,
) -> Ring:  # fmt: skip
    name = offer.aggregator
    try:
        verify(offer.signing_key, given.signature, total_to_sign(given))
    except BadSignature as error:
        raise BadSignature(f"The total that claims to come from aggregator {name} is not signed by it.") from error
    ctx = round_context(begin_of(start))
    lists = tuple(list_digest(ctx, hub, _digests(boxes[hub])) for hub in start.terms.hubs)
    if (given.ctx, given.aggregator, given.lists) != (ctx, name, lists):
        raise Cheating(f"Aggregator {name} says that it summed other boxes than the hubs sent.", blamed=(name,))
    try:
        return from_bytes(given.words, size, word_bytes)
    except Malformed as error:
        raise Cheating(f"The total of aggregator {name} has another length.", blamed=(name,)) from error


def _digests(boxes: EnclaveBoxes) -> tuple[bytes, ...]:
    return tuple(box_digest(box) for box in boxes.boxes)


def _require_all(what: str, names: Sequence[str], found: Mapping[str, object]) -> None:
    if missing := [name for name in names if name not in found]:
        raise TooFewHubs(
            f"The {what} of {', '.join(missing)} did not come; a sum in enclaves is over all. Nothing was opened."
        )
