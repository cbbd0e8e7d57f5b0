"""Writes tests/vectors/secagg/*.json. Run from the repository's root: python -m tests.vectors.make_secagg

Origins are in each file. Good vectors come from published test cases or from `secagg_reference` (no code of
ours); transcripts are frozen from this implementation, so that a change of any byte on the wire is seen. Bad
vectors are good ones with one thing broken, named after it: a step, its input, and the error that must come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import asdict, replace
from numpy.typing import NDArray
from tests.adversary.secagg_rounds import AGREEMENT, QUESTION, Chance, Federation, answers, any_of, group
from tests.vectors import secagg_reference as reference

from flute.aggregation import member
from flute.aggregation.codec import Bounds, Width
from flute.aggregation.context import context, masked_to_sign, ticket_to_sign
from flute.aggregation.state import encode_state
from flute.messages.protocol import Echoes, GroupTerms, Masked, MaskedBlock, Start, Survivors, Ticket

FOLDER = Path(__file__).parent / "secagg"
Json = dict[str, Any]


def packed(message: msgspec.Struct) -> str:
    return msgspec.msgpack.encode(message).hex()


def all_packed(messages: Mapping[str, msgspec.Struct]) -> dict[str, str]:
    return {name: packed(message) for name, message in messages.items()}


def hexed(parts: list[bytes]) -> list[str]:
    return [part.hex() for part in parts]


# --- good vectors -------------------------------------------------------------------------------------


def keystream() -> Json:
    first = "cea7403d4d606b6e074ec5d3baf39d18"
    key = bytes(range(32))
    return {
        "origin": "case 1: McGrew and Viega, The Galois/Counter Mode of Operation, test case 14; "
        "case 2: AES-256 in counter mode from 2 (secagg_reference)",
        "cases": [
            {"key": bytes(32).hex(), "stream": first},
            {"key": key.hex(), "stream": reference.keystream(key, 40).hex()},
        ],
    }


def sharing() -> Json:
    cases = []
    for threshold, holders, tag in ((2, 3, 1), (3, 3, 2), (4, 5, 3)):
        secret = bytes([tag]) * 32
        rand = bytes((i * 7 + tag) % 256 for i in range(48 * (threshold - 1)))
        coefficients = [rand[i : i + 48] for i in range(0, len(rand), 48)]
        shares = reference.shares(secret, coefficients, holders)
        cases.append({"secret": secret.hex(), "rand": rand.hex(), "threshold": threshold, "shares": hexed(shares)})
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


LARGEST = {16: 24_576, 21: 786_432, 32: 2**30, 64: 2**62}


def layouts() -> Json:
    """Every width at the ends of its room, at sizes that leave none, one and two places of the last lane empty."""
    cases = []
    for width, most in LARGEST.items():
        for values in ([-1], [most, -most], [0, 1 - most, most - 1, -5, 7, 0, -most]):
            words = reference.pack(values, width)
            raw = reference.to_bytes(words, reference.WORD_BYTES[width])
            assert reference.unpack(words, width, len(values)) == values
            cases.append({"width": width, "values": values, "bytes": raw.hex()})
    return {"origin": "secagg_reference: lanes laid out with integer multiplication", "cases": cases}


def ticket() -> Json:
    """Hub-b's second ticket in a group of 19, whose commitments make three chunks, from all that goes into it."""
    terms, me = group(19, 1), "hub-b"
    chances = {name: Chance(("vectors", name)) for name in terms.hubs}
    secrets = {name: chance() for name, chance in chances.items()}
    rand = [chances[me]() for _ in range(2)][1]
    made, chains = reference_ticket(terms, me, secrets, serial=2, rand=rand)
    return {
        "origin": "secagg_reference: channel keys, ratchet, shares, commitments, Merkle tree and AES-256-GCM",
        "terms": packed(terms), "me": me, "serial": 2, "rand": rand.hex(),
        "chains": {name: key.hex() for name, key in chains.items()},
        "seed": made.seed.hex(), "point": made.point.hex(),
        "pub": {k: v.hex() if isinstance(v, bytes) else v for k, v in made.pub.items()},
        "seed_shares": hexed(made.seed_shares), "point_shares": hexed(made.point_shares),
        "commitments": hexed(made.commitments), "boxes": hexed(made.boxes),
        "chunks": hexed(reference.chunks(made.commitments)),
        "paths": [hexed(reference.path(made.commitments, x)) for x in range(len(terms.hubs))],
    }  # fmt: skip


def reference_ticket(
    terms: GroupTerms, me: str, secrets: Mapping[str, bytes], *, serial: int, rand: bytes
) -> tuple[reference.Ticket, dict[str, bytes]]:
    """The ticket and the chain keys that seal it. secrets: hub to study secret."""
    publics = {name: reference.public(secret) for name, secret in secrets.items()}
    chains = {
        other: reference.chain(
            secrets[me], publics, study=terms.study, agreement=AGREEMENT, me=me, dealer=me, holder=other,
            tickets=serial - 1,
        )
        for other in terms.hubs if other != me
    }  # fmt: skip
    made = reference.ticket(
        msgspec.msgpack.encode(terms), terms.study, me, serial, hubs=terms.hubs, threshold=terms.threshold,
        rand=rand, chains=chains,
    )  # fmt: skip
    return made, chains


def transcript(n: int, width: Width, size: int, part: int, silent: tuple[str, ...] = ()) -> Json:
    """A round: all that goes in, and every message that comes out; tickets, vectors, recovery and total twice."""
    federation = Federation(group(n, 1), seed="vectors")
    terms, bounds = federation.terms, Bounds(part, n * part)
    values = {name: (own % (2 * part + 1) - part).tolist() for name, own in answers(terms, size, 11).items()}
    starts = federation.starts(size, width=width)
    pubs = [asdict(pub) for pub in any_of(starts).pubs]
    ctx = context(any_of(starts))
    assert ctx == reference.context(msgspec.msgpack.encode(terms), 1, QUESTION, size, width, pubs)
    dealt = referenced_tickets(federation)
    points = {pub["hub"]: pub["point"] for pub in pubs}
    vectors = {}
    for name in starts:
        peers = {hub: point for hub, point in points.items() if hub != name}
        vectors[name] = reference.masked(name, values[name], width, dealt[name].seed, dealt[name].point, peers, ctx)
    alive = [name for name in starts if name not in silent]
    masked = federation.masked(starts, {name: numbers(values[name]) for name in alive}, bounds)
    told = federation.told(starts, masked)
    echoes = {name: federation.hubs[name].echo(told) for name in alive}
    shares = federation.shares(starts, told)
    opened = {}
    for at, dealer in enumerate(starts):
        good = {terms.hubs.index(name) + 1: shares[name].shares[at] for name in alive[-terms.threshold :]}
        opened[dealer] = reference.secret_of(good)
        assert opened[dealer] == (dealt[dealer].point if dealer in silent else dealt[dealer].seed)
    total = reference.total({n: vectors[n] for n in alive}, opened, points, ctx, width=width, size=size)
    assert total == [sum(values[name][k] for name in alive) for k in range(size)]
    return {
        "origin": "tickets, ctx, masked vectors, opened secrets and total: secagg_reference; messages: frozen, seed "
        "'vectors'",
        "hubs": n, "width": width, "part": part, "silent": list(silent), "values": values, "ctx": ctx.hex(),
        "tickets": all_packed(federation.named), "starts": all_packed(starts),
        "vectors": {name: vectors[name].hex() for name in alive}, "masked": all_packed(masked),
        "survivors": packed(told), "echoes": all_packed(echoes), "shares": all_packed(shares),
        "opened": {name: secret.hex() for name, secret in opened.items()}, "total": total,
    }  # fmt: skip


def referenced_tickets(federation: Federation) -> dict[str, reference.Ticket]:
    """Every first ticket of a federation of this seed, made a second time; they must be the same."""
    chances = {name: Chance(("vectors", name)) for name in federation.terms.hubs}
    secrets = {name: chance() for name, chance in chances.items()}
    made = {}
    for name, chance in chances.items():
        made[name], _ = reference_ticket(federation.terms, name, secrets, serial=1, rand=chance())
        real = federation.named[name]
        assert {**made[name].pub, "signature": real.pub.signature} == asdict(real.pub)
        assert (tuple(made[name].commitments), tuple(made[name].boxes)) == (real.commitments, real.boxes)
    return made


def numbers(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


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

    def first_box(**changes: object) -> Start:
        return replace(start, boxes=(replace(start.boxes[0], **changes), start.boxes[1]))

    box = start.boxes[0]
    changed_chunk = box.chunk[:-1] + bytes([box.chunk[-1] ^ 1])
    forged = replace(start, pubs=(start.pubs[0], replace(b, point=start.pubs[2].point), start.pubs[2]))
    cases = {
        "ticket_forged": (forged, "BadSignature", "hub-b"),
        "ticket_under_another_threshold": (pub(terms=bytes(32)), "Stale", "hub-b"),
        "ticket_of_serial_that_skips_far": (pub(serial=5_000), "Malformed", "hub-b"),
        "ticket_with_high_bit": (pub(point=bytes(31) + b"\x80"), "Malformed", "hub-b"),
        "ticket_with_another_root": (pub(shares_root=bytes(32)), "BadShare", "hub-b"),
        "box_flipped": (first_box(box=bytes([box.box[0] ^ 1]) + box.box[1:]), "BadShare", "hub-b"),
        "box_missing": (replace(start, boxes=start.boxes[:1]), "Malformed", "one box"),
        "boxes_swapped": (replace(start, boxes=start.boxes[::-1]), "Malformed", "one box"),
        "box_with_a_changed_chunk": (first_box(chunk=changed_chunk), "BadShare", "hub-b"),
        "box_with_a_chunk_of_fewer_holders": (first_box(chunk=box.chunk[:-32]), "BadShare", "hub-b"),
        "box_with_a_chunk_of_another_dealer": (first_box(chunk=start.boxes[1].chunk), "BadShare", "hub-b"),
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


def bad_paths() -> dict[str, Json]:
    """In a group of 17 a ticket has three chunks, and a path two steps."""
    federation = Federation(group(17, 1), seed="bad")
    start, hub = federation.starts(4)["hub-a"], federation.hubs["hub-a"]
    box, other = start.boxes[0], start.boxes[1]
    elsewhere = next(sealed for sealed in federation.starts(4)["hub-i"].boxes if sealed.dealer == box.dealer)
    assert (box.dealer, len(box.path)) == ("hub-b", 2)

    def first_box(**changes: object) -> Start:
        return replace(start, boxes=(replace(box, **changes), *start.boxes[1:]))

    cases = {
        "box_with_a_cut_path": first_box(path=box.path[1:]),
        "box_with_a_longer_path": first_box(path=(*box.path, bytes(32))),
        "box_with_a_path_upside_down": first_box(path=box.path[::-1]),
        "box_with_a_path_of_another_dealer": first_box(path=other.path),
        "box_with_the_proof_of_another_chunk": first_box(chunk=elsewhere.chunk, path=elsewhere.path),
    }
    return {name: at_hub("begin", hub.disk, case, "BadShare", "hub-b dealt to hub-a") for name, case in cases.items()}


def bad_on_arrival() -> dict[str, Json]:
    """What no hub's state is needed to refuse: it is not a message, or not a group."""
    start = Federation(group(3, 1), seed="bad").starts(4)["hub-a"]

    def unread(message: msgspec.Struct) -> Json:
        return {"step": "read", "message": packed(message), "raises": "Malformed", "says": "not a well-formed"}

    box = start.boxes[0]
    cut = replace(start, boxes=(replace(box, box=box.box[:-1]), start.boxes[1]))
    low = group(5, 1, survivors_min=3)
    assert low.survivors_min < low.threshold
    return {
        "box_cut": unread(cut),
        "box_with_no_chunk": unread(replace(start, boxes=(replace(box, chunk=b""), start.boxes[1]))),
        "box_with_a_chunk_of_nine_holders": unread(
            replace(start, boxes=(replace(box, chunk=bytes(9 * 32)), start.boxes[1]))
        ),
        "width_unknown": unread(replace(start, width=20)),
        "size_zero": unread(replace(start, size=0)),
        "terms_with_survivors_min_below_the_threshold": {
            "step": "terms", "message": packed(low), "raises": "NotPossible", "says": "survivors_min must lie",
        },
    }  # fmt: skip


def bad_sets_and_tags() -> dict[str, Json]:
    federation = Federation(group(5, 1, survivors_min=4), seed="bad")
    starts = federation.starts(4)
    federation.masked(starts, answers(federation.terms, size=4))
    hub, hubs, ctx = federation.hubs["hub-a"], federation.terms.hubs, context(any_of(starts))
    sets = {
        "set_without_me": (Survivors(ctx, hubs[1:]), "Equivocation", "leaves out hub-a"),
        "set_below_survivors_min": (Survivors(ctx, hubs[:3]), "TooFewHubs", "no fewer than 4"),
        "set_with_a_stranger": (Survivors(ctx, (*hubs, "hub-z")), "Equivocation", "did not take part"),
        "set_of_another_round": (Survivors(bytes(32), hubs), "Equivocation", "another round"),
        "set_with_a_hub_twice": (Survivors(ctx, (hubs[0], *hubs)), "Equivocation", "not each once"),
    }
    made = {name: at_hub("echo", hub.disk, *case) for name, case in sets.items()}
    told = Survivors(ctx, hubs)
    made["opening_without_echo"] = at_hub("unmask_without_echo", hub.disk, told, "OutOfOrder", "after an echo")
    a, b, c, d, e = (h.echo(told) for h in federation.hubs.values())
    second = Survivors(ctx, hubs[:4])
    made["set_after_another_was_signed"] = at_hub("echo", hub.disk, second, "OutOfOrder", "cannot sign")
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
    return made | bad_exact_set() | bad_layout() | bad_stream()


def bad_exact_set() -> dict[str, Json]:
    federation = Federation(group(5, 1, survivors_min=5, exact=True), seed="bad")
    starts = federation.starts(4)
    federation.masked(starts, answers(federation.terms, size=4))
    told = Survivors(context(any_of(starts)), federation.terms.hubs[:4])
    disk = federation.hubs["hub-a"].disk
    return {"set_without_a_live_hub": at_hub("echo", disk, told, "TooFewHubs", "hub-e is missing")}


def bad_layout() -> dict[str, Json]:
    """Hub-a alone is told another width: it masks in another context, and signs no set of the others'."""
    federation = Federation(group(3, 1), seed="bad")
    starts, hub = federation.starts(4), federation.hubs["hub-a"]
    hub.begin(replace(starts["hub-a"], width=32))
    hub.mask(numbers([1, 2, 3, 4]), Bounds(10, 30))
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    return {"width_changed_in_message_0": at_hub("echo", hub.disk, told, "Equivocation", "another round")}


def bad_stream() -> dict[str, Json]:
    """A hub that took the masks out and never finished its vector."""
    federation = Federation(group(3, 1), seed="bad")
    starts, hub = federation.starts(4), federation.hubs["hub-a"]
    hub.begin(starts["hub-a"])
    state, _ = member.begin_mask(hub.state)
    told = Survivors(context(any_of(starts)), federation.terms.hubs)
    return {
        "set_with_a_vector_that_never_left": at_hub("echo", encode_state(state), told, "OutOfOrder", "never left")
    }


def bad_totals() -> dict[str, Json]:
    federation = Federation(group(3, 1), seed="bad")
    starts = federation.starts(4)
    masked = federation.masked(starts, answers(federation.terms, size=4))
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    mine, key = shares["hub-b"], federation.hubs["hub-b"].key
    _, second, third = mine.shares
    around = {"start": packed(any_of(starts)), "tickets": all_packed(federation.named), "survivors": packed(told)}

    def with_first(share: bytes) -> Json:
        bad = {**shares, "hub-b": replace(mine, shares=(share, second, third))}
        return collected(masked, bad, "BadShare", "hub-b sent shares")

    def collected(vectors: dict[str, Masked], given: dict[str, Any], raises: str, says: str) -> Json:
        made = {"masked": all_packed(vectors), "shares": all_packed(given)}
        return {"step": "total", **around, **made, "raises": raises, "says": says}

    def altered(at: int) -> dict[str, Masked]:
        vector = bytearray(masked["hub-b"].vector)
        vector[at] ^= 0x40
        return {**masked, "hub-b": replace(masked["hub-b"], vector=bytes(vector))}

    def arrived(message: Masked, raises: str, says: str) -> Json:
        return {
            "step": "masked",
            "start": around["start"],
            "message": packed(message),
            "raises": raises,
            "says": says,
        }

    def signed(**changes: object) -> Masked:
        changed = replace(masked["hub-b"], **changes)
        return replace(changed, signature=key.sign(masked_to_sign(changed)))

    b = masked["hub-b"]
    block = MaskedBlock(b.ctx, "hub-b", 0, b.vector[:-8])
    return {
        "bad_share_of_a_stranger": with_first(second),
        "bad_share_outside_the_field": with_first(b"\xff" * 33),
        "shares_of_one_hub_missing": collected(
            masked, {n: s for n, s in shares.items() if n != "hub-b"}, "BadShare", "2 of 3 good shares"
        ),
        "total_with_a_wrong_sentinel": collected(altered(-1), shares, "BadTotal", "check numbers"),
        "total_out_of_range": collected(altered(7), shares, "BadTotal", "outside"),
        "vector_altered": arrived(altered(0)["hub-b"], "BadSignature", "hub-b is not the one that it signed"),
        "vector_hash_wrong": arrived(signed(sha256=bytes(32)), "BadSignature", "hub-b is not the one that it signed"),
        "vector_signed_by_nobody": arrived(replace(b, signature=bytes(64)), "BadSignature", "hub-b is not signed"),
        "vector_length_wrong": arrived(signed(length=len(b.vector) + 8), "Equivocation", "another length"),
        "block_of_another_length": arrived(b, "Equivocation", "another length")
        | {"step": "block", "message": packed(block)},
        "commitments_other_than_signed": bad_ticket(federation),
    }


def bad_ticket(federation: Federation) -> Json:
    """Hub-c's ticket as a relay may have changed it: the commitments of two holders changed places."""
    ticket = federation.named["hub-c"]
    one, two, three, four, *rest = ticket.commitments
    changed: Ticket = replace(ticket, commitments=(three, four, one, two, *rest))
    return {
        "step": "ticket", "terms": packed(federation.terms), "message": packed(changed), "raises": "BadShare",
        "says": "hub-c shows other commitments than hub-c signed",
    }  # fmt: skip


def bad_recovery() -> dict[str, Json]:
    """Hub-e dropped out. Hub-b shows its share of hub-e's seed, where one of its private key is asked for."""
    federation = Federation(group(5, 1), seed="bad")
    values = answers(federation.terms, size=4)
    starts = federation.starts(4)
    masked = federation.masked(starts, {name: x for name, x in values.items() if name != "hub-e"})
    held = federation.hubs["hub-b"].state.round.held["hub-e"]
    told = federation.told(starts, masked)
    shares = federation.shares(starts, told)
    assert shares["hub-b"].shares[4] == held.point
    bad = {**shares, "hub-b": replace(shares["hub-b"], shares=(*shares["hub-b"].shares[:4], held.seed))}
    case = {
        "step": "total", "start": packed(any_of(starts)), "tickets": all_packed(federation.named),
        "survivors": packed(told), "masked": all_packed(masked), "shares": all_packed(bad),
        "raises": "BadShare", "says": "3 of 4 good shares of the mask of hub-e arrived. hub-b sent shares",
    }  # fmt: skip
    return {"share_of_a_seed_shown_for_a_dropped_hub": case}


def build() -> dict[str, Json]:
    good: dict[str, Callable[[], Json]] = {
        "keystream": keystream, "sharing": sharing, "codec": codec, "layouts": layouts, "ticket": ticket,
        "round_of_three": lambda: transcript(3, 64, 4, 2**40),
        "round_of_five_with_a_dropout": lambda: transcript(5, 21, 7, 157_286, silent=("hub-c",)),
        "round_of_four_at_16_bits": lambda: transcript(4, 16, 5, 6_144, silent=("hub-a",)),
        "round_of_three_at_32_bits": lambda: transcript(3, 32, 2, 2**28),
    }  # fmt: skip
    origin = {"origin": "a good round (seed 'bad') with one thing broken, as the name says"}
    bad = bad_starts() | bad_paths() | bad_on_arrival() | bad_sets_and_tags() | bad_totals() | bad_recovery()
    return {name: make() for name, make in good.items()} | {f"bad/{n}": origin | case for n, case in bad.items()}


def files() -> list[Path]:
    """What this script writes; other folders beside `bad` have scripts of their own."""
    return [*FOLDER.glob("*.json"), *(FOLDER / "bad").glob("*.json")]


def as_text(content: Json) -> str:
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    (FOLDER / "bad").mkdir(parents=True, exist_ok=True)
    made = build()
    for name, content in made.items():
        (FOLDER / f"{name}.json").write_text(as_text(content))
    for path in files():
        if str(path.relative_to(FOLDER).with_suffix("")) not in made:
            path.unlink()
