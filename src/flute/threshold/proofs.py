"""Three proofs of knowledge, made non-interactive (Fiat and Shamir 1986), each bound to a context and a hub.

    possession   I know every number behind these elements (Schnorr 1991, one challenge for all)
    pads         I know every r behind these pads r·G (Schnorr in a batch: Gennaro, Leigh, Sundaram and Yerazunis
    2004) parts        every part is x·A, with the x of my public share, for its cell's pad A (Chaum and Pedersen
                 1992, of one random combination of all cells)

The batches weight cell i with the i-th power of a challenge that depends on all cells: a column that is wrong
anywhere passes for at most `cells` of 2^252 challenges. Challenges contain everything that the statement says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flute.errors import Cheating
from flute.messages.threshold import Possession
from flute.threshold.context import info
from flute.threshold.group import (
    ORDER,
    Element,
    hash_to_scalar,
    multiply,
    multiply_base,
    powers,
    read_scalar,
    subtract,
    weighted,
    write_scalar,
)

Proof = tuple[bytes, bytes]
"""Challenge and response, as they travel."""


def prove_possession(
    ctx: bytes, hub: str, secrets: Sequence[int], elements: Sequence[Element], nonces: Sequence[int]
) -> Possession:
    """nonces: fresh, one for each secret."""
    first = [multiply_base(nonce) for nonce in nonces]
    challenge = _possession_challenge(ctx, hub, elements, first)
    responses = ((nonce + challenge * secret) % ORDER for nonce, secret in zip(nonces, secrets, strict=True))
    return Possession(write_scalar(challenge), tuple(map(write_scalar, responses)))


def check_possession(ctx: bytes, hub: str, elements: Sequence[Element], proof: Possession) -> None:
    """Raises: Cheating: blames `hub`. Malformed: a number out of range."""
    challenge = read_scalar(proof.challenge)
    responses = [read_scalar(response) for response in proof.responses]
    if len(responses) == len(elements):
        pairs = zip(responses, elements, strict=True)
        first = [subtract(multiply_base(z), multiply(challenge, element)) for z, element in pairs]
        if challenge == _possession_challenge(ctx, hub, elements, first):
            return
    raise Cheating(f"{hub} does not prove that it knows what it deals; a new attempt is needed.", blamed=(hub,))


def _possession_challenge(ctx: bytes, hub: str, elements: Sequence[Element], first: Sequence[Element]) -> int:
    return hash_to_scalar(info("possession"), ctx, hub.encode(), b"".join(elements), b"".join(first))


@dataclass(frozen=True, slots=True)
class Cells:
    """What a hub contributes, as its proof speaks of it: two columns of bytes."""

    ctx: bytes
    hub: str
    pads: bytes
    boxes: bytes

    def challenge(self, first: Element) -> int:
        return hash_to_scalar(info("pads"), self.ctx, self.hub.encode(), self.pads, self.boxes, first)


def prove_pads(cells: Cells, secrets: Sequence[int], nonce: int) -> Proof:
    """secrets: the r of each cell. nonce: fresh."""
    challenge = cells.challenge(multiply_base(nonce))
    weights = powers(challenge, len(secrets))
    response = (nonce + sum(weight * secret for weight, secret in zip(weights, secrets, strict=True))) % ORDER
    return write_scalar(challenge), write_scalar(response)


def check_pads(cells: Cells, pads: Sequence[Element], proof: Proof) -> None:
    """pads: `cells.pads`, read. Raises: Cheating: blames the hub. Malformed: a number out of range."""
    challenge, response = map(read_scalar, proof)
    combined = weighted(powers(challenge, len(pads)), pads)
    if challenge != cells.challenge(subtract(multiply_base(response), combined)):
        raise Cheating(
            f"{cells.hub} does not prove that it made its own encrypted numbers; they may be another hub's. "
            "Nothing was opened.",
            blamed=(cells.hub,),
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """What a hub's opening share says. public: the hub's share of the public key, x·G. summed: digest of what was
    added up. pads: the summed pads; column: the parts, one after the other."""

    ctx: bytes
    hub: str
    public: Element
    summed: bytes
    pads: Sequence[Element]
    column: bytes

    def _words(self) -> tuple[bytes, ...]:
        return self.ctx, self.hub.encode(), self.public, self.summed, b"".join(self.pads), self.column

    def weights(self) -> list[int]:
        return powers(hash_to_scalar(info("parts-weights"), *self._words()), len(self.pads))

    def challenge(self, pad: Element, part: Element, first: tuple[Element, Element]) -> int:
        """pad, part: the random combinations. They depend on `_words` through the weights, which are hashed again."""
        return hash_to_scalar(info("parts"), *self._words(), pad, part, *first)


def prove_parts(parts: Parts, secret: int, nonce: int) -> Proof:
    """secret: x. nonce: fresh. The parts must be right: this does not look."""
    pad = weighted(parts.weights(), parts.pads)
    first = multiply_base(nonce), multiply(nonce, pad)
    challenge = parts.challenge(pad, multiply(secret, pad), first)
    return write_scalar(challenge), write_scalar((nonce + challenge * secret) % ORDER)


def check_parts(parts: Parts, column: Sequence[Element], proof: Proof) -> None:
    """column: `parts.column`, read. Raises: Cheating: blames the hub. Malformed: a number out of range."""
    challenge, response = map(read_scalar, proof)
    weights = parts.weights()
    pad, part = weighted(weights, parts.pads), weighted(weights, column)
    first = (
        subtract(multiply_base(response), multiply(challenge, parts.public)),
        subtract(multiply(response, pad), multiply(challenge, part)),
    )
    if challenge != parts.challenge(pad, part, first):
        raise Cheating(
            f"{parts.hub} gave a wrong share of an opening; it is left out. Enough others still open the sum.",
            blamed=(parts.hub,),
        )
