"""A dataset's entry as a hub publishes it in its federation: signed, so that whoever keeps it cannot change it.

The coordinator keeps the newest listing of each dataset and hands it to researchers, who check the hub's signature.
It can hold a listing back, or show an older one, which says of when it is; it cannot make one.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from flute.catalogue.entry import Entry
from flute.defaults.accounts import MAX_LISTING_BYTES
from flute.errors import BadSignature, Malformed, TooLarge
from flute.messages.limits import Name, PartyId, Seconds, Signature
from flute.primitives.keys import SigningKey, digest, verify

_SIGNED: Final = b"flute/listing/v1"


class Listing(Struct, frozen=True, forbid_unknown_fields=True):
    """`entry`: None where the hub takes the dataset out of the catalogue."""

    federation: Name
    hub: PartyId
    dataset: Name
    at: Seconds
    entry: Entry | None


class SignedListing(Struct, frozen=True, forbid_unknown_fields=True):
    """`raw`: the JSON of a `Listing`, as it was signed."""

    raw: Annotated[bytes, Meta(max_length=2 * MAX_LISTING_BYTES)]
    signature: Signature


def sign_listing(listing: Listing, key: SigningKey) -> SignedListing:
    """Raises: TooLarge: an entry larger than is ever kept."""
    raw = msgspec.json.encode(listing)
    _require_size(raw)
    return SignedListing(raw, key.sign(_to_sign(raw)))


def read_listing(signed: SignedListing) -> Listing:
    """What it says, by whomever. Raises: TooLarge, Malformed."""
    _require_size(signed.raw)
    try:
        listing = msgspec.json.decode(signed.raw, type=Listing)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("These bytes are no catalogue entry of ours.") from error
    if listing.entry is not None and listing.entry.declared.dataset != listing.dataset:
        raise Malformed(f"The entry of {listing.dataset} describes another dataset.")
    return listing


def check_listing(signed: SignedListing, listing: Listing, public: bytes) -> None:
    """public: the roster key of the hub that it names. Raises: BadSignature."""
    try:
        verify(public, signed.signature, _to_sign(signed.raw))
    except BadSignature as error:
        raise BadSignature(
            f"The catalogue entry of {listing.dataset} that claims to come from {listing.hub} is not signed by it."
        ) from error


def _require_size(raw: bytes) -> None:
    if len(raw) > MAX_LISTING_BYTES:
        raise TooLarge(f"A catalogue entry may take {MAX_LISTING_BYTES} bytes; this one takes {len(raw)}.")


def _to_sign(raw: bytes) -> bytes:
    return _SIGNED + digest(raw)
