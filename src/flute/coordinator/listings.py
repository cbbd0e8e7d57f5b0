"""The federation's catalogue, as its hubs publish it: one file for each dataset's newest listing."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from flute.catalogue.listing import Listing, SignedListing, check_listing, read_listing
from flute.defaults import MAX_CLOCK_SKEW_S
from flute.defaults.accounts import MAX_HUB_LISTINGS
from flute.errors import BadSignature, NotPossible, Stale
from flute.homes import private_folder, write_private
from flute.trust.roster import Roster


class Listings:
    """`folder`: its own. A listing proves itself by its hub's signature, whoever brings it."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)
        self._lock = threading.Lock()

    def publish(self, signed: SignedListing, roster: Roster, now: int) -> Listing:
        """Keep a listing in place of the dataset's older one; the same again changes nothing.

        Raises: Malformed, TooLarge, NotInRoster, BadSignature. Stale: older than what is here, or of another time.
          NotPossible: too many datasets of one hub.
        """
        listing = read_listing(signed)
        check_listing(signed, listing, roster.hub(listing.hub).signing_key)
        if listing.federation != roster.content.federation:
            raise BadSignature(f"This entry was published for {listing.federation}, and not for this federation.")
        if listing.at > now + MAX_CLOCK_SKEW_S:
            raise Stale(f"The entry of {listing.hub} is dated in the future; compare both machines' clocks.")
        path = self._folder / f"{listing.hub}@{listing.dataset}.json"
        with self._lock:
            self._require_newer(path, signed, listing)
            if not path.exists() and len(list(self._folder.glob(f"{listing.hub}@*.json"))) >= MAX_HUB_LISTINGS:
                raise NotPossible(f"{listing.hub} has {MAX_HUB_LISTINGS} datasets in the catalogue; take one out.")
            write_private(path, msgspec.json.encode(signed))
        return listing

    def newest(self) -> list[SignedListing]:
        """One for each dataset; those that were taken out as well, so that whoever reads them learns of it."""
        with self._lock:
            return [_read(path) for path in sorted(self._folder.glob("*@*.json"))]

    @staticmethod
    def _require_newer(path: Path, signed: SignedListing, listing: Listing) -> None:
        if not path.exists():
            return
        kept = _read(path)
        if read_listing(kept).at > listing.at or (read_listing(kept).at == listing.at and kept != signed):
            raise Stale(f"A newer entry of {listing.dataset} of {listing.hub} is in the catalogue already.")


def _read(path: Path) -> SignedListing:
    return msgspec.json.decode(path.read_bytes(), type=SignedListing)
