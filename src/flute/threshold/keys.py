"""The shared key: its public part, a hub's share of it, and the rules that its terms have to meet.

No party ever holds the private key x. Hub j holds x_j = f(j) of a polynomial f of degree threshold - 1 with f(0) = x;
public are x·G and every x_j·G.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from flute.errors import Malformed, MisuseError
from flute.messages.threshold import KeyTerms
from flute.primitives.keys import digest
from flute.threshold.context import Secret, decode, info
from flute.threshold.group import ORDER, Element, multiply_base, read_element, read_scalar, weighted


class PublicKey(Struct, frozen=True):
    """For whoever encrypts, checks or combines. whole: x·G. shares: x_j·G in the order of the terms' hubs."""

    terms: KeyTerms
    whole: Element
    shares: tuple[Element, ...]

    def digest(self) -> bytes:
        """Names this key: hubs that see another one see another context everywhere."""
        return digest(info("public-key"), msgspec.msgpack.encode(self.terms), self.whole, *self.shares)

    def share_of(self, hub: str) -> Element:
        """Raises: MisuseError: no holder of a share."""
        return self.shares[place_of(self.terms, hub) - 1]


class KeyShare(Secret, frozen=True, tag="threshold-key-share"):
    """One hub's x_j: secret, one record per study, in no backup that others hold."""

    me: str
    public: PublicKey
    secret: bytes


def check_terms(terms: KeyTerms) -> None:
    """Raises: MisuseError: the hubs are no sorted list of distinct names; or a threshold at which colluding hubs
    could open, or more than there are; or a sum over so few that colluding hubs could subtract themselves and see
    one.
    """
    n = len(terms.hubs)
    if n < 2 or terms.hubs != tuple(sorted(set(terms.hubs))):
        raise MisuseError("The hubs of a shared key have to be at least two, each once, in order.")
    if not max(terms.colluding + 1, 2) <= terms.threshold <= n:
        raise MisuseError(
            "More hubs must be needed to open than may collude, at least two, and no more than there are."
        )
    if not terms.colluding + 2 <= terms.contributors_min <= n:
        raise MisuseError(
            "A sum has to be over two hubs more than may collude, else they see one hub's numbers in it."
        )


def place_of(terms: KeyTerms, hub: str) -> int:
    """A hub's x, from 1. Raises: MisuseError: it holds no share."""
    try:
        return terms.hubs.index(hub) + 1
    except ValueError:
        raise MisuseError(f"{hub} holds no share of this study's key.") from None


def read_public_key(terms: KeyTerms, whole: bytes, shares: Sequence[bytes]) -> PublicKey:
    """A public key as somebody reports it. That it is this study's key only its dealings show, or that all hubs
    report the same (`ceremony.public_key`, `PublicKey.digest`).

    Raises: Malformed: no elements, of another number of hubs, or not on one polynomial of the threshold's degree, so
    that different hubs would open different numbers. MisuseError: terms that do not protect.
    """
    check_terms(terms)
    key = PublicKey(terms, read_element(whole), tuple(map(read_element, shares)))
    k = terms.threshold
    if len(shares) != len(terms.hubs):
        raise Malformed("A public key has to have one share for each of its hubs.")
    first = key.shares[:k]
    for x, element in [(0, key.whole), *enumerate(key.shares[k:], k + 1)]:
        if weighted(weights_at_zero([place - x for place in range(1, k + 1)]), first) != element:
            raise Malformed("The shares of a public key do not belong to one key.")
    return key


def weights_at_zero(places: Sequence[int]) -> list[int]:
    """Lagrange's basis at 0, modulo ORDER, for distinct places; with all of them moved by -x, the basis at x.

    The weights sum to 1, whatever the places.
    """
    weights = []
    for x in places:
        top = bottom = 1
        for other in places:
            if other != x:
                top, bottom = top * other % ORDER, bottom * (other - x) % ORDER
        weights.append(top * pow(bottom, -1, ORDER) % ORDER)
    return weights


def encode_key(key: KeyShare) -> bytes:
    """Bytes for the hub's secret store."""
    return msgspec.msgpack.encode(key)


def decode_key(raw: bytes) -> KeyShare:
    """Raises: MisuseError: not a key share of this version, or one that does not fit its public key.
    Malformed: an element or number that is none."""
    key = decode(raw, KeyShare, "key share")
    _read_all((key.public.whole, *key.public.shares))
    check_terms(key.public.terms)
    if len(key.public.shares) != len(key.public.terms.hubs):
        raise MisuseError("The stored key share belongs to another number of hubs; the key has to be made anew.")
    if multiply_base(read_scalar(key.secret)) != key.public.share_of(key.me):
        raise MisuseError("The stored key share does not fit its public key; the key has to be made anew.")
    return key


def _read_all(elements: Iterable[bytes]) -> None:
    for element in elements:
        read_element(element)
