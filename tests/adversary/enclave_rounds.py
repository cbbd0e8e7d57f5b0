"""Rounds of plan `enclave` in one process: real hubs' and aggregators' code, evidence of two makers, and who may lie.

`first` shows evidence of a TPM (it gets seeds), `second` an AMD report under the TEST root (it gets the long shares).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from flute.aggregation.codec import Bounds, Layout, Width
from flute.attestation.collateral import write_collateral
from flute.attestation.policy import AppraisalPolicy, write_policy
from flute.attestation.roots import Roots
from flute.enclaves import collector, hub
from flute.enclaves.aggregator import OFFER_RAND_SIZE, Aggregator
from flute.enclaves.context import box_info, policy_digest, policy_name, total_to_sign
from flute.enclaves.hub import Admitted
from flute.errors import CodeNotApproved
from flute.messages.enclave import EnclaveBoxes, EnclaveOffer, EnclaveStart, EnclaveTerms, EnclaveTotal
from flute.primitives.keys import AgreementKey, SigningKey
from support.evidence_issuer import NOW, SnpIssuer, TpmIssuer
from support.parties import Party

HUBS = ("east", "north", "south")
QUESTION = hashlib.sha256(b"question").digest()
BOUNDS = Bounds(10**6, 3 * 10**6)


class Chance:
    """Repeatable bytes for tests."""

    def __init__(self, seed: object) -> None:
        self._seed, self._count = repr(seed).encode(), 0

    def __call__(self, size: int = 32) -> bytes:
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "big")).digest(size)


class Platform(Protocol):
    """Evidence for one aggregator, and the policy that takes it."""

    roots: Roots

    def evidence(self, report_data: bytes, /) -> bytes: ...
    def collateral(self) -> Any: ...
    def policy(self) -> AppraisalPolicy: ...


SNP = SnpIssuer()
TPM = TpmIssuer()


def wire(message: Any) -> Any:
    """As it arrives: encoded, and decoded as the closed struct it is."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message))


def party(name: str) -> Party:
    return Party(name)


def terms(**changes: Any) -> EnclaveTerms:
    agreed = EnclaveTerms(
        study="heart", agreement=hashlib.sha256(b"agreement").digest(), roster=hashlib.sha256(b"roster").digest(),
        roster_version=4, hubs=HUBS, aggregators=("first", "second"), simulated=True,
    )  # fmt: skip
    return msgspec.structs.replace(agreed, **changes)


@dataclass
class Round:
    """One round before anything was sent: offers are made, everybody is told the same."""

    terms: EnclaveTerms = field(default_factory=terms)
    size: int = 40
    width: Width = 64
    number: int = 7
    seed: object = 0
    platforms: Mapping[str, Platform] = field(default_factory=lambda: {"first": TPM, "second": SNP})
    bounds: Bounds = BOUNDS

    def __post_init__(self) -> None:
        self.chance = Chance(self.seed)
        self.keys = {name: party(name).signing.public for name in self.terms.hubs}
        self.secrets = {name: self.chance(OFFER_RAND_SIZE) for name in self.terms.aggregators}
        self.aggregators = {name: self.aggregator(name) for name in self.terms.aggregators}
        self.policies = {name: write_policy(self.platforms[name].policy()) for name in self.terms.aggregators}
        self.codes = {policy_name(name): policy_digest(raw) for name, raw in self.policies.items()}
        self.roots = SNP.roots
        self.now = NOW
        self.layout = Layout(self.width, self.size)
        self.start = self.started()
        self._admitted: Admitted | None = None

    def aggregator(self, name: str, **changes: Any) -> Aggregator:
        given = {"terms": self.terms, "keys": self.keys, "name": name, "round_number": self.number} | changes
        rand = given.pop("rand") if "rand" in given else self.secrets[name]
        return Aggregator(given.pop("terms"), given.pop("keys"), rand=rand, **given)

    def offer(self, name: str, aggregator: Aggregator | None = None) -> EnclaveOffer:
        made, platform = aggregator or self.aggregators[name], self.platforms[name]
        return made.offer(platform.evidence(made.report_data), write_collateral(platform.collateral()))

    def started(self, **changes: Any) -> EnclaveStart:
        given: dict[str, Any] = {
            "round_number": self.number, "question": QUESTION, "layout": self.layout,
            "offers": {name: self.offer(name) for name in self.terms.aggregators}, "policies": self.policies,
            "check_key": self.chance(),
        }  # fmt: skip
        return wire(collector.begin(self.terms, **(given | changes)))

    def approved(self, name: str) -> bytes:
        try:
            return self.codes[name]
        except KeyError:
            raise CodeNotApproved(f"{name} is not approved.") from None

    def admit(self, start: EnclaveStart | None = None, **changes: Any) -> Admitted:
        given: dict[str, Any] = {
            "terms": self.terms, "layout": self.layout, "question": QUESTION, "approved": self.approved,
            "now": self.now, "roots": self.roots,
        }  # fmt: skip
        return hub.admit(start or self.start, **(given | changes))

    def boxes(self, me: str, vector: NDArray[np.int64], start: EnclaveStart | None = None) -> EnclaveBoxes:
        """What an honest hub sends."""
        rand = self.chance(hub.rand_size(self.terms))
        if start is None and self._admitted is None:
            self._admitted = self.admit()
        admitted = self._admitted if start is None else self.admit(start)
        assert admitted is not None
        made = hub.split(admitted, vector, me=me, bounds=self.bounds, key=party(me).signing, rand=rand)
        return wire(made)

    def vectors(self, seed: int = 1) -> dict[str, NDArray[np.int64]]:
        rng = np.random.default_rng(seed)
        most = self.bounds.part
        return {name: rng.integers(-most, most, self.size, endpoint=True) for name in self.terms.hubs}

    def all_boxes(self, vectors: Mapping[str, NDArray[np.int64]] | None = None) -> dict[str, EnclaveBoxes]:
        found = self.vectors() if vectors is None else vectors
        return {name: self.boxes(name, vector) for name, vector in found.items()}

    def deliver(self, boxes: Mapping[str, EnclaveBoxes], to: Aggregator, name: str) -> Aggregator:
        to.begin(wire(collector.for_aggregators(self.start)))
        for sent in boxes.values():
            to.take(wire(collector.box_for(self.start, sent, name)))
        return to

    def totals(self, boxes: Mapping[str, EnclaveBoxes]) -> dict[str, EnclaveTotal]:
        return {name: wire(self.deliver(boxes, made, name).finish()) for name, made in self.aggregators.items()}

    def total(
        self, boxes: Mapping[str, EnclaveBoxes], totals: Mapping[str, EnclaveTotal], bounds: Bounds | None = None
    ) -> NDArray[np.int64]:
        for sent in boxes.values():
            collector.check_boxes(self.start, sent, self.keys)
        return collector.total(self.start, boxes, totals, bounds=bounds or self.bounds)

    def opened(self, name: str, boxes: EnclaveBoxes) -> bytes:
        """What aggregator `name` sees in a hub's box when it is malicious: it has its own key."""
        place = self.terms.aggregators.index(name)
        key = AgreementKey(self.secrets[name][:32])
        return key.open(boxes.boxes[place], info=box_info(boxes.ctx, boxes.hub, name))


def resigned(round_: Round, total: EnclaveTotal) -> EnclaveTotal:
    """As a malicious aggregator sends it: changed, and signed with its own attested key."""
    key = SigningKey(round_.secrets[total.aggregator][32:])
    return msgspec.structs.replace(total, signature=key.sign(total_to_sign(total)))
