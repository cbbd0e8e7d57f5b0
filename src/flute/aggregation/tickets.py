"""Dealing a ticket, opening the shares in others' tickets, and checking what a ticket says of itself.

A ticket is one round's worth of secrets, dealt ahead: a private key e for pairwise masks and a seed b for
the self mask, both shared t-of-n among all hubs of the group. A coordinator may ever see b or e opened,
never both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flute.aggregation.commitments import Committer, Kind, root
from flute.aggregation.context import info, pub_digest, terms_digest, ticket_to_sign
from flute.aggregation.masks import Secret, box_key, check_point, seed_commitment
from flute.aggregation.terms import index_of
from flute.errors import BadShare, BadSignature, Malformed, MisuseError, Stale
from flute.messages.protocol import GroupTerms, SealedShares, Ticket, TicketPub
from flute.primitives.keys import AgreementKey, SigningKey, derive, verify
from flute.primitives.prg import keystream
from flute.primitives.sharing import SECRET_SIZE, SHARE_SIZE, split, split_rand_size

DEAL_RAND_SIZE: Final = 32
"""Fresh bytes per ticket; every secret of it is expanded from them."""
_NONCE: Final = bytes(12)
"""A box key encrypts one box: `masks.box_key`."""
_known_terms: Final = lru_cache(maxsize=64)(terms_digest)
"""Every ticket of a round is compared with the digest of the same terms."""


class HeldShares(Secret, frozen=True):
    """One holder's shares of a ticket's seed and of its private key. One of them may ever be shown."""

    seed: bytes
    point: bytes


class Dealt(Secret, frozen=True):
    """A ticket of this hub that no message 0 has named yet, with its secrets. `own`: the dealer's own shares."""

    ticket: Ticket
    seed: bytes
    point: bytes
    own: HeldShares


def deal(
    terms: GroupTerms, me: str, serial: int, *, chains: Mapping[str, bytes], key: SigningKey, rand: bytes
) -> Dealt:
    """A new ticket for all hubs of `terms`. chains: holder to chain key at `serial`; key: roster signing key.

    rand: DEAL_RAND_SIZE fresh bytes of operating-system entropy.
    Raises: MisuseError: `rand` of another size.
    """
    if len(rand) != DEAL_RAND_SIZE:
        raise MisuseError(f"A ticket needs {DEAL_RAND_SIZE} random bytes.")
    fields = terms_digest(terms)
    n, rand_size = len(terms.hubs), split_rand_size(terms.threshold)
    expanded = derive(rand, salt=fields, info=info("dealt", terms.study, me, str(serial)))
    stream = _Reader(keystream(expanded, 2 * (SECRET_SIZE + rand_size)))
    secrets = {kind: stream.take(SECRET_SIZE) for kind in Kind}
    seeds, points = (
        split(secrets[kind], threshold=terms.threshold, holders=n, rand=stream.take(rand_size)) for kind in Kind
    )
    held = {hub: HeldShares(*shares) for hub, shares in zip(terms.hubs, zip(seeds, points, strict=True), strict=True)}
    commitments = _commit(terms, me, serial, held)
    seed, point = secrets[Kind.SEED], secrets[Kind.POINT]
    unsigned = TicketPub(
        study=terms.study, hub=me, serial=serial, terms=fields, point=AgreementKey(point).public,
        seed_commitment=seed_commitment(seed, study=terms.study, dealer=me, serial=serial),
        shares_root=root(commitments), signature=bytes(64),
    )  # fmt: skip
    pub = msgspec.structs.replace(unsigned, signature=key.sign(ticket_to_sign(unsigned)))
    pub_id = pub_digest(pub)
    boxes = tuple(_seal(pub, pub_id, held[hub], chains[hub]) for hub in terms.hubs if hub != me)
    return Dealt(Ticket(pub, commitments, boxes), seed, point, held[me])


def check_pub(pub: TicketPub, terms: GroupTerms, key: bytes) -> None:
    """Is this a ticket of its hub, dealt under these very terms? `key`: the hub's roster key.

    Raises: BadSignature, Malformed; Stale: dealt under another roster, agreement, threshold or mode.
    """
    try:
        verify(key, pub.signature, ticket_to_sign(pub))
    except BadSignature as error:
        raise BadSignature(f"The ticket that claims to come from {pub.hub} is not signed by it.") from error
    if pub.study != terms.study or pub.terms != _known_terms(terms):
        raise Stale(
            f"The ticket of {pub.hub} was dealt under another roster, agreement or threshold than this round's. "
            f"{pub.hub} must deal a new one."
        )
    try:
        check_point(pub.point)
    except Malformed as error:
        raise Malformed(f"The ticket of {pub.hub} holds a public key that is not in canonical form.") from error


def check_ticket(ticket: Ticket, terms: GroupTerms, key: bytes) -> None:
    """What the coordinator checks of a ticket: its public part, its commitments, a box for each other hub.

    Raises: as `check_pub`; Malformed: another number of boxes or commitments. BadShare: other commitments than
    those that were signed.
    """
    check_pub(ticket.pub, terms, key)
    n = len(terms.hubs)
    if len(ticket.boxes) != n - 1 or len(ticket.commitments) != 2 * n:
        raise Malformed(f"The ticket of {ticket.pub.hub} does not hold one box and two commitments for each hub.")
    if root(ticket.commitments) != ticket.pub.shares_root:
        raise BadShare(f"The ticket of {ticket.pub.hub} shows other commitments than {ticket.pub.hub} signed.")


def open_box(terms: GroupTerms, pub: TicketPub, sealed: SealedShares, *, me: str, chain: bytes) -> HeldShares:
    """My shares from another hub's ticket. `chain`: the dealer's chain key at pub.serial.

    Raises: BadShare: it does not open, or holds what the dealer did not commit to; names the dealer.
    """
    pub_id = pub_digest(pub)
    key = box_key(chain, study=pub.study, serial=pub.serial, dealer=pub.hub, pub=pub_id)
    try:
        opened = AESGCM(key).decrypt(_NONCE, sealed.box, pub_id)
        shares = opened[:SHARE_SIZE], opened[SHARE_SIZE:]
        committer = Committer(pub.study, pub.hub, pub.serial, len(terms.hubs))
        committer.check_held(index_of(terms, me), shares, sealed.chunk, sealed.path, pub.shares_root)
    except (InvalidTag, BadShare) as error:
        raise BadShare(
            f"The key shares that {pub.hub} dealt to {me} are not usable: {pub.hub} dealt them wrongly, or they "
            f"were changed on the way. {pub.hub} must deal a new ticket; nothing of {me} has left."
        ) from error
    return HeldShares(*shares)


def _commit(terms: GroupTerms, me: str, serial: int, held: Mapping[str, HeldShares]) -> tuple[bytes, ...]:
    committer = Committer(terms.study, me, serial, len(terms.hubs))
    shares = [share for hub in terms.hubs for share in (held[hub].seed, held[hub].point)]
    return tuple(committer.commit(index, share) for index, share in enumerate(shares))


def _seal(pub: TicketPub, pub_id: bytes, shares: HeldShares, chain: bytes) -> bytes:
    key = box_key(chain, study=pub.study, serial=pub.serial, dealer=pub.hub, pub=pub_id)
    return AESGCM(key).encrypt(_NONCE, shares.seed + shares.point, pub_id)


class _Reader:
    """Hands out a byte string piece by piece."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._raw):
            raise MisuseError("More randomness was asked for than was expanded.")
        return self._raw[self._at - size : self._at]
