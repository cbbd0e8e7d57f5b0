"""Whose signatures count in the end: the makers' root keys, pinned here.

A fingerprint is the SHA-256 of a key's SubjectPublicKeyInfo (DER). AMD signs everything of one processor generation
under one root key (ARK), so the root also says which generation it is. Intel's root is inside `dcap-qvl`; its
certificate's digest is pinned too, for the library does not look at the copy that a chain carries.
Arm names no common root: the keys of platforms are reference values of the appraisal policy, and so are TPMs'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Product(StrEnum):
    """A generation of AMD EPYC, by the name in AMD's certificates."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


@dataclass(frozen=True, slots=True)
class Roots:
    """The ends of trust. Outside tests there is one such value, MAKERS.

    Args: amd: fingerprint of an ARK's key -> product. intel: SHA-256 of the root certificate (DER).
        intel_der: that certificate; None: the one inside dcap-qvl. development: keys that are no maker's; what is
        accepted under them is labelled so.
    """

    amd: Mapping[str, Product]
    intel: str
    intel_der: bytes | None = None
    development: bool = False


MAKERS: Final = Roots(
    amd=MappingProxyType(
        {
            "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": Product.MILAN,
            "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": Product.GENOA,
            "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": Product.TURIN,
        }
    ),
    intel="44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
)
"""AMD's keys as its key distribution service publishes them; Intel SGX Root CA as Intel publishes it."""
