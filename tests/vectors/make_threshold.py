"""Writes tests/vectors/threshold/*.json. Run from the repository's root: python -m tests.vectors.make_threshold

`rfc9496.json` is written by hand, from the RFC. Here: a transcript, frozen from this implementation so that a change
of any byte on the wire is seen, and checked by `threshold_reference` (no code of ours); and bad vectors, each a good
message with one thing broken and named after it, signed by its sender again, with the error that must come.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from tests.adversary.threshold_hubs import KeyGroup, Sum, key_terms

from flute.messages.threshold import Possession
from flute.threshold.context import signed
from flute.threshold.group import ORDER, multiply_base, write_scalar

FOLDER = Path(__file__).parent / "threshold"
NUMBERS = {"hub-a": [17, -4], "hub-b": [1, 9], "hub-c": [-20, 0]}
BOUND = 50
Json = dict[str, Any]
Change = Callable[[Any], Any]


def packed(message: msgspec.Struct) -> str:
    return msgspec.msgpack.encode(message).hex()


def transcript() -> tuple[KeyGroup, Sum]:
    group = KeyGroup(key_terms(), seed="vectors").run()
    return group, Sum(group, NUMBERS, bound=BOUND).contribute().share()


def written(group: KeyGroup, run: Sum) -> Json:
    return {
        "origin": "frozen from this implementation; proofs, sums and totals are checked by threshold_reference",
        "keys": {hub: key.hex() for hub, key in group.keys.items()},
        "key_terms": packed(group.terms),
        "commitments": {hub: packed(message) for hub, message in group.commitments.items()},
        "dealings": {hub: packed(message) for hub, message in group.dealings.items()},
        "dealt_shares": {f"{a} to {b}": packed(message) for (a, b), message in group.shares.items()},
        "confirmations": {hub: packed(message) for hub, message in group.answers.items()},
        "public_key": group.public.digest().hex(),
        "sum_terms": packed(run.terms),
        "contributions": {hub: packed(message) for hub, message in run.contributions.items()},
        "opening_shares": {hub: packed(message) for hub, message in run.shares.items()},
        "totals": list(map(sum, zip(*NUMBERS.values(), strict=True))),
    }


def high_bit(column: bytes) -> bytes:
    return column[:31] + bytes([column[31] | 0x80]) + column[32:]


BAD_DEALINGS: dict[str, tuple[Change, str]] = {
    "dealing_with_the_identity_as_constant": (
        lambda d: replace(d, elements=(bytes(32), *d.elements[1:])), "Cheating",
    ),
    "dealing_with_an_element_in_its_second_encoding": (
        lambda d: replace(d, elements=(high_bit(d.elements[0]), *d.elements[1:])), "Cheating",
    ),
    "dealing_of_higher_degree": (lambda d: replace(d, elements=(*d.elements, d.elements[0])), "Cheating"),
    "dealing_with_a_response_not_below_the_order": (
        lambda d: replace(d, possession=Possession(d.possession.challenge, (write_scalar(ORDER),) * 2)), "Cheating",
    ),
    "dealing_with_another_challenge": (
        lambda d: replace(d, possession=replace(d.possession, challenge=write_scalar(1))), "Cheating",
    ),
    "dealing_of_another_ceremony": (lambda d: replace(d, ctx=bytes(32)), "Equivocation"),
}  # fmt: skip
BAD_CONTRIBUTIONS: dict[str, tuple[Change, str]] = {
    "contribution_with_the_identity_as_pad": (lambda c: replace(c, pads=bytes(32) + c.pads[32:]), "Cheating"),
    "contribution_with_a_negative_element": (
        lambda c: replace(c, boxes=write_scalar(1) + c.boxes[32:]), "Cheating",
    ),
    "contribution_with_a_pad_in_its_second_encoding": (lambda c: replace(c, pads=high_bit(c.pads)), "Cheating"),
    "contribution_with_one_cell_too_few": (lambda c: replace(c, boxes=c.boxes[32:]), "Cheating"),
    "contribution_with_one_pad_exchanged": (
        lambda c: replace(c, pads=bytes(multiply_base(3)) + c.pads[32:]), "Cheating",
    ),
    "contribution_with_one_box_exchanged": (
        lambda c: replace(c, boxes=bytes(multiply_base(3)) + c.boxes[32:]), "Cheating",
    ),
    "contribution_with_cells_swapped": (lambda c: replace(c, pads=c.pads[32:] + c.pads[:32]), "Cheating"),
    "contribution_with_a_challenge_not_below_the_order": (
        lambda c: replace(c, challenge=write_scalar(ORDER)), "Cheating",
    ),
    "contribution_to_another_sum": (lambda c: replace(c, ctx=bytes(32)), "Equivocation"),
}  # fmt: skip
BAD_SHARES: dict[str, tuple[Change, str]] = {
    "opening_share_with_one_part_exchanged": (
        lambda s: replace(s, parts=bytes(multiply_base(3)) + s.parts[32:]), "Cheating",
    ),
    "opening_share_with_parts_swapped": (lambda s: replace(s, parts=s.parts[32:] + s.parts[:32]), "Cheating"),
    "opening_share_with_the_identity_as_part": (lambda s: replace(s, parts=bytes(32) + s.parts[32:]), "Cheating"),
    "opening_share_with_another_response": (lambda s: replace(s, response=write_scalar(1)), "Cheating"),
    "opening_share_of_another_sum": (lambda s: replace(s, summed=bytes(32)), "Equivocation"),
}  # fmt: skip


def bad_vectors(group: KeyGroup, run: Sum) -> dict[str, Json]:
    """All by hub-b, whose own signature is under each; and some whose signature is not its own."""
    found: dict[str, Json] = {}
    for step, mail, cases in (
        ("dealings", group.dealings, BAD_DEALINGS),
        ("contributions", run.contributions, BAD_CONTRIBUTIONS),
        ("opening_shares", run.shares, BAD_SHARES),
    ):
        good = mail["hub-b"]
        for name, (change, error) in cases.items():
            message = signed(change(good), group.signing["hub-b"])
            found[name] = {"step": step, "message": packed(message), "raises": error}
        forged = replace(good, signature=bytes(64))
        found[f"unsigned_{step}"] = {"step": step, "message": packed(forged), "raises": "BadSignature"}
        other = signed(replace(good, hub="hub-c"), group.signing["hub-b"])
        found[f"{step}_in_the_name_of_another"] = {"step": step, "message": packed(other), "raises": "BadSignature"}
    return found


def main() -> None:
    group, run = transcript()
    (FOLDER / "bad").mkdir(parents=True, exist_ok=True)
    write("transcript", written(group, run))
    for name, vector in bad_vectors(group, run).items():
        write(f"bad/{name}", vector)


def write(name: str, content: Json) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
