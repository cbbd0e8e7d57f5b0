"""What one hub deals in a key ceremony, and whether a share fits it.

A dealing is the polynomial f of its dealer in the exponent, E_t = a_t·G; the share of holder x is f(x), and fits if
f(x)·G = sum of x^t·E_t. Source: Feldman 1987, "A practical scheme for non-interactive verifiable secret sharing".
Dealer and share are bound by signatures, so that a share that does not fit convicts its dealer before anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flute.errors import BadMessageError, Cheating, Malformed
from flute.messages.threshold import KeyComplaint, KeyDealing, KeyDealtShare, KeyTerms
from flute.primitives.keys import digest
from flute.threshold.context import blaming, check_signature, info, key_context, message_digest
from flute.threshold.group import (
    ORDER,
    Element,
    evaluate,
    multiply_base,
    read_element,
    read_scalar,
    total,
)
from flute.threshold.keys import PublicKey, place_of
from flute.threshold.proofs import check_possession


def commitment_to(dealing: KeyDealing) -> bytes:
    """Hides the dealing until it is shown (256-bit salt, hash as a random oracle), and binds to all of it."""
    return digest(info("key-commitment"), message_digest(dealing))


def read_dealing(terms: KeyTerms, dealing: KeyDealing) -> tuple[Element, ...]:
    """The dealer's polynomial. Raises: Cheating: names the dealer: wrong degree, no elements, no proof."""
    with blaming(dealing.hub):
        if len(dealing.elements) != terms.threshold:
            raise Malformed("The dealing is of another degree than the threshold asks for.")
        elements = tuple(map(read_element, dealing.elements))
        check_possession(key_context(terms), dealing.hub, elements, dealing.possession)
    return elements


def evaluate_at(coefficients: Sequence[int], x: int) -> int:
    result = 0
    for coefficient in reversed(coefficients):
        result = (result * x + coefficient) % ORDER
    return result


def fits(share: KeyDealtShare, polynomial: Sequence[Element], place: int) -> bool:
    """place: the holder's x."""
    try:
        return multiply_base(read_scalar(share.share)) == evaluate(polynomial, place)
    except Malformed:
        return False


def shows_bad_share(terms: KeyTerms, complaint: KeyComplaint, keys: Mapping[str, bytes]) -> bool:
    """Does the dealer's own signature convict it? No: then the complaint is false.

    The signature under the share names the dealing by its digest, so the dealing's own need not be looked at.
    """
    ctx, dealing, shown = key_context(terms), complaint.dealing, complaint.shown
    if dealing.hub not in terms.hubs or shown.hub != dealing.hub or shown.holder != complaint.hub:
        return False
    if dealing.ctx != ctx or shown.ctx != ctx or shown.dealing != message_digest(dealing):
        return False
    try:
        check_signature(shown, keys)
    except BadMessageError:
        return False
    try:
        return not fits(shown, read_dealing(terms, dealing), place_of(terms, complaint.hub))
    except Cheating:
        return True


def public_key_of(terms: KeyTerms, polynomials: Sequence[Sequence[Element]]) -> PublicKey:
    """The sum of all dealt polynomials: its value at 0 is the key, at x the public share of holder x."""
    summed = tuple(total(column) for column in zip(*polynomials, strict=True))
    shares = tuple(evaluate(summed, x) for x in range(1, len(terms.hubs) + 1))
    return PublicKey(terms, summed[0], shares)
