"""A dataset's entry, signed for the federation's catalogue: what its steward declared, and what was released."""

from __future__ import annotations

from flute.catalogue.listing import Listing, SignedListing, sign_listing
from flute.hub.parts import Parts
from flute.hub.records.catalogue import Catalogue
from flute.ledger.lines.entries import PersonAct


def published(parts: Parts, catalogue: Catalogue, dataset: str, *, person: str, shown: bool) -> SignedListing:
    """The listing to hand to the coordinator; journaled. shown: False takes the dataset out of the catalogue.

    It holds nothing that `Catalogue.entry` does not: no number about a record but those that were released and paid.
    Raises: NotPossible: no such dataset, or nothing is declared of it. MisuseError: the hub has not joined.
    TooLarge.
    """
    entry = catalogue.entry(dataset) if shown else None
    now = parts.now()
    listing = Listing(parts.trust.roster.content.federation, parts.me, dataset, now, entry)
    signed = sign_listing(listing, parts.signing)
    act = "catalogue-published" if shown else "catalogue-taken-out"
    parts.journal.append(PersonAct(person, act, dataset), now)
    return signed
