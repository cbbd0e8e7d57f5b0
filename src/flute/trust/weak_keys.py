"""Public keys for which anybody can sign, or with which every agreement comes out the same.

A curve point of small order has no private key worth the name: for the neutral element, R = neutral and s = 0
is a valid Ed25519 signature over *every* message, and X25519 with such a point always gives zero. A party that
enrols one could later deny whatever it signed.
Source: RFC 8032 section 5.1; RFC 7748 section 6.1; the list of small-order encodings, non-canonical ones
included, of libsodium's `ge25519_has_small_order` and `has_small_order` (X25519).
"""

from __future__ import annotations

from typing import Final

from flute.errors import Malformed

_P: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    {
        0,  # Ed25519 order 4, X25519 order 4
        1,  # Ed25519 neutral element, X25519 order 1
        _P - 1,  # Ed25519 order 2, X25519 twist
        _P,  # the same as 0, not reduced
        _P + 1,  # the same as 1, not reduced
        # Ed25519, order 8: y and -y
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
        # X25519, order 8
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)


def refuse_weak_key(public: bytes, party: str) -> None:
    """Raises: Malformed: a key of small order; `party` is named so that it can be told to make another."""
    if int.from_bytes(public, "little") & (2**255 - 1) in _SMALL_ORDER:
        raise Malformed(
            f"A public key of {party} is one that anybody can sign for. It was not made by this program; "
            f"{party} has to make new keys."
        )
