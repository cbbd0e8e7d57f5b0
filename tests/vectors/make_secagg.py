"""Writes tests/vectors/secagg/*.json. Run from the repository's root: python -m tests.vectors.make_secagg

Origins are in each file. Good vectors come from published test cases or from `secagg_reference` (no code of
ours); transcripts are frozen from this implementation, so that a change of any byte on the wire is seen. Bad
vectors are good ones with one thing broken, named after it: a step, its input, and the error that must come.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict, replace
from tests.adversary.secagg_rounds import QUESTION, Federation, answers, any_of, group, spy
from tests.vectors import secagg_reference as reference

from flute.aggregation.context import context, ticket_to_sign
from flute.messages.protocol import Echoes, Masked, Start, Survivors

FOLDER = Path(__file__).parent / "secagg"
Json = dict[str, Any]


def packed(message: msgspec.Struct) -> str:
    return msgspec.msgpack.encode(message).hex()


def keystream() -> Json:
    first = "cea7403d4d606b6e074ec5d3baf39d18"
    key = bytes(range(32))
    words = reference.stream(key, 5)
    return {
        "origin": "case 1: McGrew and Viega, The Galois/Counter Mode of Operation, test case 14; "
        "case 2: AES-256 in counter mode from 2 (secagg_reference)",
        "cases": [
            {"key": bytes(32).hex(), "stream": first},
            {"key": key.hex(), "stream": b"".join(w.to_bytes(8, "little") for w in words).hex()},
        ],
    }


def sharing() -> Json:
    cases = []
    for threshold, holders, tag in ((2, 3, 1), (3, 3, 2), (4, 5, 3)):
        secret = bytes([tag]) * 32
        rand = bytes((i * 7 + tag) % 256 for i in range(48 * (threshold - 1)))
        coefficients = [rand[i : i + 48] for i in range(0, len(rand), 48)]
        shares = reference.shares(secret, coefficients, holders)
        cases.append(
            {"secret": secret.hex(), "rand": rand.hex(), "threshold": threshold, "shares": [s.hex() for s in shares]}
        )
    return {"origin": "secagg_reference: the polynomial written out over the integers", "cases": cases}


def codec() -> Json:
    values = [0.0, 1.0, -1.0, 0.1, -123456.789, 2.0**-41, 3 * 2.0**-41, -(2.0**-41), 1e-30, 1398101.0]
    encoded = [round(Fraction(v) * 2**40) for v in values]
    return {
        "origin": "exact rational arithmetic of Python's int and Fraction",
        "hubs": 3,
        "values": [v.hex() for v in values],
        "encoded": encoded,
    }


def transcript() -> Json:
    """A round of three hubs: all that goes in, and every message that comes out."""
    federation = Federation(group(3, 1), seed="vectors")
    spied, starts = spy(federation), federation.starts(4)
    values = answers(federation.terms, size=4, seed=11)
    ctx = context(any_of(starts))
    pubs = [asdict(pub) for pub in any_of(starts).pubs]
    assert ctx == reference.context(msgspec.msgpack.encode(federation.terms), 1, QUESTION, 4, pubs)
    vectors = {}
    for name in starts:
        peers = {p["hub"]: p["point"] for p in pubs if p["hub"] != name}
        vectors[name] = reference.masked(
            name, values[name].tolist(), spied[name].seed, spied[name].point.raw, peers, ctx
        )
    masked = federation.masked(starts, values)
    told = federation.told(starts, masked)
    echoes = {name: packed(hub.echo(told)) for name, hub in federation.hubs.items()}
    shares = federation.shares(starts, told)
    return {
        "origin": "masked vectors and ctx: secagg_reference; messages: frozen, seed 'vectors'",
        "values": {name: v.tolist() for name, v in values.items()},
        "ctx": ctx.hex(),
        "starts": {name: packed(s) for name, s in starts.items()},
        "vectors": {name: v.hex() for name, v in vectors.items()},
        "masked": {name: packed(m) for name, m in masked.items()},
        "survivors": packed(told),
        "echoes": echoes,
        "shares": {name: packed(s) for name, s in shares.items()},
        "total": sum(values.values()).tolist(),
    }


# --- bad vectors ------------------------------------------------------------------------------------


def at_hub(step: str, state: bytes, message: msgspec.Struct, raises: str, says: str) -> Json:
    return {"step": step, "state": state.hex(), "message": packed(message), "raises": raises, "says": says}


def bad_starts() -> dict[str, Json]:
    federation = Federation(group(3, 1), seed="bad")
    start, hub = federation.starts(4)["hub-a"], federation.hubs["hub-a"]
    b = start.pubs[1]

    def pub(**changes: object) -> Start:
        changed = replace(b, **changes)
        signature = federation.hubs["hub-b"].key.sign(ticket_to_sign(changed))
        return replace(start, pubs=(start.pubs[0], replace(changed, signature=signature), start.pubs[2]))

    box = start.boxes[0]
    flipped = replace(box, box=bytes([box.box[0] ^ 1]) + box.box[1:])
    forged = replace(start, pubs=(start.pubs[0], replace(b, point=start.pubs[2].point), start.pubs[2]))
    cases = {
        "ticket_forged": (forged, "BadSignature", "hub-b"),
        "ticket_under_another_threshold": (pub(terms=bytes(32)), "Stale", "hub-b"),
        "ticket_of_serial_that_skips_far": (pub(serial=5_000), "Malformed", "hub-b"),
        "ticket_with_high_bit": (pub(point=bytes(31) + b"\x80"), "Malformed", "hub-b"),
        "ticket_with_another_root": (pub(shares_root=bytes(32)), "BadShare", "hub-b"),
        "box_flipped": (replace(start, boxes=(flipped, start.boxes[1])), "BadShare", "hub-b"),
        "box_missing": (replace(start, boxes=start.boxes[:1]), "Malformed", "one box"),
        "boxes_swapped": (replace(start, boxes=start.boxes[::-1]), "Malformed", "one box"),
        "own_ticket_absent": (replace(start, pubs=start.pubs[1:]), "Equivocation", "does not count it"),
        "own_ticket_changed": (
            replace(start, pubs=(replace(start.pubs[0], signature=bytes(64)), *start.pubs[1:])),
            "Equivocation",
            "hub-a",
        ),
        "two_hubs_alone": (
            replace(start, pubs=start.pubs[:2], boxes=start.boxes[:1]), "TooFewHubs", "no fewer than 3",
        ),
        "another_question": (replace(start, question=bytes(32)), "Equivocation", "another question"),
        "terms_made_passive": (replace(start, terms=replace(start.terms, mode="passive")), "Stale", "other terms"),
        "terms_with_lower_threshold": (
            replace(start, terms=replace(start.terms, threshold=2, colluding=0)), "Stale", "other terms",
        ),
    }  # fmt: skip
    made = {name: at_hub("begin", hub.disk, *case) for name, case in cases.items()}
    hub.begin(start)
    changed = replace(start, round=start.round + 1)
    return made | {"ticket_named_before": at_hub("begin", hub.disk, changed, "Replayed", "hub-a")}


def bad_sets_and_tags() -> dict[str, Json]:
    federation = Federation(group(5, 1, survivors_min=4), seed="bad")
    starts = federation.starts(4)
    federation.masked(starts, answers(federation.terms, size=4))
    hub, hubs, ctx = federation.hubs["hub-a"], federation.terms.hubs, context(any_of(starts))
    sets = {
        "set_without_me": (Survivors(ctx, hubs[1:]), "Equivocation", "leaves out hub-a"),
        "set_without_a_live_hub": (Survivors(ctx, hubs[:4]), "TooFewHubs", "hub-e is missing"),
        "set_with_a_stranger": (Survivors(ctx, (*hubs, "hub-z")), "Equivocation", "did not take part"),
        "set_of_another_round": (Survivors(bytes(32), hubs), "Equivocation", "another round"),
        "set_with_a_hub_twice": (Survivors(ctx, (hubs[0], *hubs)), "Equivocation", "not each once"),
    }
    made = {name: at_hub("echo", hub.disk, *case) for name, case in sets.items()}
    told = Survivors(ctx, hubs)
    made["opening_without_echo"] = at_hub("unmask_without_echo", hub.disk, told, "OutOfOrder", "after an echo")
    a, b, c, d, e = (h.echo(told) for h in federation.hubs.values())
    broken = [replace(tag, signature=bytes(64)) for tag in (d, e)]
    tags = {
        "tags_forged": (a, b, c, *broken),
        "tags_duplicated": (a, b, c, c, c),
        "tags_without_my_own": (b, c, d, e),
        "tag_from_outside_the_set": (a, b, c, replace(d, hub="hub-z")),
        "tag_under_another_name": (a, b, c, replace(c, hub="hub-d")),
    }
    for name, chosen in tags.items():
        made[name] = at_hub("unmask", hub.disk, Echoes(ctx, chosen), "TooFewHubs", "Nothing was opened")
    return made


def bad_totals() -> dict[str, Json]:
    federation = Federation(group(3, 1), seed="bad")
    starts = federation.starts(4)
    masked = federation.masked(starts, answers(federation.terms, size=4))
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    mine = shares["hub-b"]
    first, second, third = mine.seeds

    def with_first(opening: object) -> Json:
        bad = {**shares, "hub-b": replace(mine, seeds=(replace(first, opening=opening), second, third))}
        return collected(masked, bad, "BadShare", "hub-b sent shares")

    def collected(vectors: dict[str, Masked], given: dict[str, Any], raises: str, says: str) -> Json:
        return {
            "step": "total", "start": packed(any_of(starts)), "survivors": packed(told),
            "masked": {n: packed(m) for n, m in vectors.items()}, "shares": {n: packed(s) for n, s in given.items()},
            "raises": raises, "says": says,
        }  # fmt: skip

    def altered(at: int) -> dict[str, Masked]:
        vector = bytearray(masked["hub-b"].vector)
        vector[at] ^= 0x40
        return {**masked, "hub-b": replace(masked["hub-b"], vector=bytes(vector))}

    return {
        "bad_share_of_a_stranger": with_first(second.opening),
        "bad_share_outside_the_field": with_first(replace(first.opening, share=b"\xff" * 33)),
        "bad_share_with_another_salt": with_first(replace(first.opening, salt=bytes(32))),
        "bad_share_with_a_cut_path": with_first(replace(first.opening, path=first.opening.path[1:])),
        "shares_of_one_hub_missing": collected(
            masked, {n: s for n, s in shares.items() if n != "hub-b"}, "BadShare", "2 of 3 good shares"
        ),
        "total_with_a_wrong_sentinel": collected(altered(-1), shares, "BadTotal", "check numbers"),
        "total_out_of_range": collected(altered(7), shares, "BadTotal", "outside"),
        "vector_altered": collected(altered(0), shares, "BadSignature", "hub-b is not signed")
        | {"step": "survivors"},
    }


def build() -> dict[str, Json]:
    good: dict[str, Callable[[], Json]] = {
        "keystream": keystream, "sharing": sharing, "codec": codec, "round_of_three": transcript,
    }  # fmt: skip
    origin = {"origin": "a good round (seed 'bad') with one thing broken, as the name says"}
    bad = bad_starts() | bad_sets_and_tags() | bad_totals()
    return {name: make() for name, make in good.items()} | {f"bad/{n}": origin | case for n, case in bad.items()}


def as_text(content: Json) -> str:
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    (FOLDER / "bad").mkdir(parents=True, exist_ok=True)
    for name, content in build().items():
        (FOLDER / f"{name}.json").write_text(as_text(content))
