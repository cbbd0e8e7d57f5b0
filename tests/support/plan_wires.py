"""What plans mpc, threshold-he and enclave put on the wire: read out of envelopes, and tested for chance.

    boxes      of a talk, steps 1 and on: AES-256-GCM, ciphertext and tag. Step 0 is a signed key, in clear, left out
    elements   pads, boxes and opening parts of encrypted sums: ristretto255, 32 bytes each. An encoding is an even
               number below 2^255 - 19, so its lowest and its highest bit are 0, and the 254 between are tested;
               which of these numbers are encodings is a question of squares, and shows in no bit
    sealed     shares for enclaves: HPKE, 32 bytes of a fresh X25519 key (left out), ciphertext and tag
    shares     the same, opened: what one aggregator alone is told

As a program, `python -m support.plan_wires leaky|spied:FILE|listening …` runs `flute` with leaks, an aggregator that
writes down what it opens, or a coordinator whose wire listens on every link of its host and not on loopback alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2, norm

import flute.enclaves.hub as enclaves_hub
import flute.threshold.encryption as encryption
from flute.enclaves.context import box_info, share_key
from flute.errors import Malformed
from flute.messages import talk
from flute.messages.answer import EncryptedAnswer, JointBegun, KeyBegun, OpeningAnswer, SplitAnswer
from flute.messages.enclave import EnclaveBoxes
from flute.primitives.keys import AgreementKey
from flute.primitives.prg import PRG_KEY_SIZE, Stream
from flute.primitives.ring import Ring
from flute.study.plans.talk import Talk
from flute.threshold.group import IDENTITY, SIZE, Element, multiply_base, read_element, slices, subtract
from flute.transport.relay import RelayChannel
from support.wiretap import Said

ALPHA = 1e-9
"""False alarm of each test on bytes that are uniform. The laws are approximate; with EACH values of each kind their
tails are right within a factor of 10, so one test raises a false alarm with a chance below 1e-8."""
EACH = 20
"""As often each value has to be expected: of 8 bits in 5,120 bytes and more, of 4 bits in 160 and more."""
LAGS = (1, 8, 32)
"""Distances at which bytes may not go together: the next one, the next word, the next element."""
_BLOCK = 16
"""Bytes of a block that may not come twice: 10^4 of them are all different but for a chance of 2^-100."""
_BITS = 254
_PUBLIC_KEY = 32


@dataclass
class Payloads:
    """What one hub sent in one study, in order."""

    boxes: list[bytes] = field(default_factory=list)
    elements: list[bytes] = field(default_factory=list)
    contributed: list[tuple[list[bytes], list[bytes]]] = field(default_factory=list)
    """Pads and boxes of each contribution; they stand in `elements` too."""
    split: list[EnclaveBoxes] = field(default_factory=list)

    @property
    def sealed(self) -> list[bytes]:
        return [box[_PUBLIC_KEY:] for sent in self.split for box in sent.boxes]


def payloads(said: Iterable[Said], study: str) -> Payloads:
    found = Payloads()
    for body in (each.body for each in said if each.header.study == study):
        match body:
            case JointBegun() | KeyBegun():
                _take_boxes(found, body.said)
            case talk.Said():
                _take_boxes(found, body)
            case EncryptedAnswer():
                parts = (slices(body.contribution.pads, SIZE), slices(body.contribution.boxes, SIZE))
                found.contributed.append(parts)
                found.elements += [*parts[0], *parts[1]]
            case OpeningAnswer():
                found.elements += slices(body.share.parts, SIZE)
            case SplitAnswer():
                found.split.append(body.boxes)
    return found


def _take_boxes(found: Payloads, said: talk.Said) -> None:
    if said.step:
        found.boxes += said.boxes.values()


# --- chance -----------------------------------------------------------------------------------------------


def byte_faults(content: bytes) -> list[str]:
    """What tells these bytes from uniform ones: how often each value comes, and what comes after it, two-sided.

    False alarm: below 4e-8, four tests."""
    values = np.frombuffer(content, dtype=np.uint8)
    digits, kinds = (values, 256) if len(values) >= 256 * EACH else (np.concatenate([values >> 4, values & 15]), 16)
    expected = len(digits) / kinds
    assert expected >= EACH, f"{len(content)} bytes are too few to say anything"
    square = float(((np.bincount(digits, minlength=kinds) - expected) ** 2).sum() / expected)
    found = []
    if not chi2.ppf(ALPHA / 2, kinds - 1) < square < chi2.isf(ALPHA / 2, kinds - 1):
        found.append(f"chi-squared of {kinds} values is {square:.0f}, not near {kinds - 1}")
    for lag in LAGS:
        score = _correlation(values.astype(np.float64), lag)
        if abs(score) > norm.isf(ALPHA / 2):
            found.append(f"bytes go with those {lag} further on: {score:.1f} deviations")
    return found


def _correlation(values: NDArray[np.float64], lag: int) -> float:
    """Standard normal where values are independent: bytes have mean 127.5 and variance (256^2 - 1) / 12."""
    centred = (values - 127.5) / math.sqrt((256**2 - 1) / 12)
    return float(centred[:-lag] @ centred[lag:]) / math.sqrt(len(values) - lag)


def repeated(parts: Iterable[bytes]) -> list[str]:
    """Blocks of any of these parts, cut from its start, that came before."""
    blocks = [part[i : i + _BLOCK] for part in parts for i in range(0, len(part) - _BLOCK + 1, _BLOCK)]
    twice = len(blocks) - len(set(blocks))
    return [f"{twice} of {len(blocks)} blocks of {_BLOCK} bytes came before"] if twice else []


def element_faults(elements: Sequence[bytes]) -> list[str]:
    """What tells these encodings from those of uniform elements: form, all bits together, and each bit alone.

    False alarm: below 5e-8."""
    found = [f"{sum(map(_is_no_element, elements))} are no elements, or nothing"] if any(
        map(_is_no_element, elements)) else []  # fmt: skip
    if len(set(elements)) < len(elements):
        found.append(f"{len(elements) - len(set(elements))} of {len(elements)} elements came before")
    middles = [(int.from_bytes(raw, "little") >> 1) % 2**_BITS for raw in elements]
    stream = sum(middle << _BITS * i for i, middle in enumerate(middles))
    found += byte_faults(stream.to_bytes(-(-_BITS * len(middles) // 8), "little")[:-1])
    least, most = binom.ppf((ALPHA / _BITS / 2, 1 - ALPHA / _BITS / 2), len(middles), 0.5)
    for bit in range(_BITS):
        ones = sum(middle >> bit & 1 for middle in middles)
        if not least <= ones <= most:
            found.append(f"bit {bit + 1} is set in {ones} of {len(middles)}")
    return found


def _is_no_element(raw: bytes) -> bool:
    try:
        read_element(raw)
    except Malformed:
        return True
    return False


# --- numbers ----------------------------------------------------------------------------------------------


def encrypted_findings(where: str, sent: Payloads, clear: NDArray[np.int64]) -> list[str]:
    """Whether a hub's encrypted numbers can be read without a key: box less number is what only the key makes."""
    found = []
    for pads, boxes in sent.contributed:
        assert len(boxes) == len(clear)
        told = sum(
            subtract(Element(box), multiply_base(int(number))) == IDENTITY
            for box, number in zip(boxes, clear, strict=True)
        )
        if told:
            found.append(f"{where}: {told} of {len(clear)} numbers stand in clear in the exponent")
        if any(pad == IDENTITY for pad in pads):
            found.append(f"{where}: pads are empty")
    return found


@dataclass(frozen=True)
class Spied:
    """What one aggregator opened: the box's place and purpose (its HPKE info) to what was in it."""

    name: str
    opened: Mapping[bytes, bytes]

    @classmethod
    def read(cls, name: str, file: Path) -> Spied:
        decoder = msgspec.json.Decoder(tuple[bytes, bytes])
        return cls(name, dict(decoder.decode(line) for line in file.read_bytes().splitlines()))

    def share(self, sent: EnclaveBoxes) -> bytes:
        return self.opened[box_info(sent.ctx, sent.hub, self.name)]


def split_findings(where: str, sent: EnclaveBoxes, aggregators: Sequence[Spied], words: Ring) -> list[str]:
    """Whether the last aggregator alone reads a hub's words [size + sentinels], by its share or with empty seeds."""
    *seeded, last = aggregators
    share = np.frombuffer(last.share(sent), dtype=words.dtype)
    with_nothing = share.copy()
    for each in seeded:
        Stream(share_key(bytes(PRG_KEY_SIZE), sent.ctx, sent.hub, each.name)).add_to(with_nothing)
    found = []
    for what, tried in (("its share", share), ("its share and empty seeds", with_nothing)):
        told = int((tried[: words.size] == words).sum())
        if told >= 2:
            found.append(f"{where}: {told} of {words.size} numbers follow from {what}")
    return found


# --- leaky builds -----------------------------------------------------------------------------------------


def open_talk() -> None:
    """Boxes of a talk are not encrypted."""

    def sealed(self: Any, outgoing: Mapping[int, bytes]) -> dict[str, bytes]:
        return {hub: outgoing[self._place(hub)] for hub in self._peers}

    Talk._sealed = sealed  # type: ignore[method-assign]
    Talk._unseal = lambda self, hub, step, box: box  # type: ignore[method-assign, assignment]


def empty_pads() -> None:
    """Numbers are encrypted with r = 0."""
    scalars = encryption.scalars_from
    vars(encryption)["scalars_from"] = lambda rand, count: [0] * (count - 1) + scalars(rand, count)[-1:]


def empty_seeds() -> None:
    """An answer is split with seeds that are all zero."""
    split = enclaves_hub.split

    def splitting(*args: Any, rand: bytes, **more: Any) -> EnclaveBoxes:
        return split(*args, rand=bytes(len(rand)), **more)

    vars(enclaves_hub)["split"] = splitting


def spied(file: Path) -> None:
    """An aggregator notes what it opens."""
    opening = AgreementKey.open

    def noting(self: AgreementKey, sealed: bytes, *, info: bytes) -> bytes:
        opened = opening(self, sealed, info=info)
        with file.open("ab") as notes:
            notes.write(msgspec.json.encode((info, opened)) + b"\n")
        return opened

    AgreementKey.open = noting  # type: ignore[method-assign]


def listening() -> None:
    """`coordinator serve` leaves the wire on loopback, whatever its engine's host; hubs on other hosts need more."""
    defaults = RelayChannel.__init__.__kwdefaults__
    assert defaults is not None
    defaults["listen"] = "0.0.0.0"


def changes(named: str) -> Sequence[Any]:
    if named == "leaky":
        return open_talk, empty_pads, empty_seeds
    if named == "listening":
        return (listening,)
    return (partial(spied, Path(named.removeprefix("spied:"))),)


if __name__ == "__main__":
    from flute.cli import main

    for change in changes(sys.argv[1]):
        change()
    sys.argv = ["flute", *sys.argv[2:]]
    main()
