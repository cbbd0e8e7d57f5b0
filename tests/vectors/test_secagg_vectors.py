"""The frozen vectors of `secagg`: what must come out, and what must be refused with which error."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.adversary.secagg_rounds import QUESTION, Federation, group
from tests.vectors import make_secagg
from tests.vectors.secagg_reference import gcm, x25519

from flute import errors
from flute.aggregation import collector, member
from flute.aggregation.codec import Bounds, Layout, encode_exact
from flute.aggregation.commitments import proofs, root
from flute.aggregation.context import context
from flute.aggregation.state import decode_state
from flute.aggregation.terms import check
from flute.aggregation.tickets import check_ticket, deal
from flute.messages.envelope import read_body
from flute.messages.protocol import (
    Echoes,
    GroupTerms,
    Masked,
    MaskedBlock,
    Shares,
    Start,
    Survivors,
    Ticket,
)
from flute.primitives.keys import SigningKey
from flute.primitives.prg import keystream
from flute.primitives.ring import from_bytes, to_bytes
from flute.primitives.sharing import combine, split

FOLDER = Path(__file__).parent / "secagg"
BAD = sorted(path.stem for path in (FOLDER / "bad").glob("*.json"))
ROUNDS = sorted(path.stem for path in FOLDER.glob("round_*.json"))


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def read(kind: type, text: str) -> Any:
    return msgspec.msgpack.decode(bytes.fromhex(text), type=kind)


def read_all(kind: type, texts: dict[str, str]) -> dict[str, Any]:
    return {name: read(kind, text) for name, text in texts.items()}


def unhexed(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, texts))


def test_reference_agrees_with_the_rfc() -> None:
    """RFC 7748 section 5.2, first vector of X25519."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519(scalar, u).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_reference_agrees_with_published_gcm() -> None:
    """McGrew and Viega, test case 14; and OpenSSL at lengths that fill no whole block."""
    assert gcm(bytes(32), bytes(16), b"").hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    key, text, extra = bytes(range(32)), bytes(range(66)), b"e" * 32
    assert gcm(key, text, extra) == AESGCM(key).encrypt(bytes(12), text, extra)
    assert gcm(key, text[:5], extra[:7]) == AESGCM(key).encrypt(bytes(12), text[:5], extra[:7])


def test_keystreams() -> None:
    for case in load("keystream")["cases"]:
        stream = bytes.fromhex(case["stream"])
        assert keystream(bytes.fromhex(case["key"]), len(stream)) == stream


def test_shares() -> None:
    for case in load("sharing")["cases"]:
        shares = unhexed(case["shares"])
        secret, t = bytes.fromhex(case["secret"]), case["threshold"]
        assert split(secret, threshold=t, holders=len(shares), rand=bytes.fromhex(case["rand"])) == shares
        assert combine({x: shares[x - 1] for x in range(len(shares) - t + 1, len(shares) + 1)}, threshold=t) == secret


def test_fixed_point() -> None:
    case = load("codec")
    values = np.array([float.fromhex(v) for v in case["values"]])
    assert encode_exact(values, hubs=case["hubs"]).tolist() == case["encoded"]


def test_layouts() -> None:
    for case in load("layouts")["cases"]:
        layout, values = Layout(case["width"], len(case["values"])), np.array(case["values"], dtype=np.int64)
        most = max(abs(value) for value in case["values"])
        raw = bytes.fromhex(case["bytes"])
        assert to_bytes(layout.pack(0, values, Bounds(most, most))) == raw
        assert layout.length == len(raw)
        read_back = layout.unpack(0, from_bytes(raw, len(raw) // layout.word_bytes, layout.word_bytes))
        assert read_back.tolist() == [*case["values"], 1, 1, 1, 1]


def test_a_ticket() -> None:
    case = load("ticket")
    terms, chains = read(GroupTerms, case["terms"]), {n: bytes.fromhex(key) for n, key in case["chains"].items()}
    dealt = deal(
        terms, case["me"], case["serial"], chains=chains, key=SigningKey(bytes(32)), rand=bytes.fromhex(case["rand"])
    )
    assert (dealt.seed.hex(), dealt.point.hex()) == (case["seed"], case["point"])
    assert dealt.ticket.commitments == unhexed(case["commitments"])
    assert dealt.ticket.boxes == unhexed(case["boxes"])
    pub = msgspec.structs.asdict(dealt.ticket.pub)
    assert {k: pub[k].hex() if isinstance(pub[k], bytes) else pub[k] for k in case["pub"]} == case["pub"]
    at = terms.hubs.index(case["me"])
    assert (dealt.own.seed.hex(), dealt.own.point.hex()) == (case["seed_shares"][at], case["point_shares"][at])
    assert root(dealt.ticket.commitments).hex() == case["pub"]["shares_root"]
    shown = proofs(dealt.ticket.commitments)
    assert [path for _, path in shown] == list(map(unhexed, case["paths"]))
    assert [chunk.hex() for chunk, _ in shown] == [case["chunks"][x // 8] for x in range(len(terms.hubs))]


@pytest.mark.parametrize("name", ROUNDS)
def test_a_round_gives_every_frozen_message_and_the_references_masked_vectors(name: str) -> None:
    case = load(name)
    bounds = Bounds(case["part"], case["hubs"] * case["part"])
    federation = Federation(group(case["hubs"], 1), seed="vectors")
    starts = federation.starts(len(case["total"]), width=case["width"])
    assert make_secagg.all_packed(federation.named) == case["tickets"]
    assert make_secagg.all_packed(starts) == case["starts"]
    assert context(starts["hub-a"]).hex() == case["ctx"]
    values = {n: np.array(v, dtype=np.int64) for n, v in case["values"].items() if n not in case["silent"]}
    masked = federation.masked(starts, values, bounds)
    assert {n: m.vector.hex() for n, m in masked.items()} == case["vectors"]
    assert {n: m.sha256 for n, m in masked.items()} == {
        n: hashlib.sha256(bytes.fromhex(v)).digest() for n, v in case["vectors"].items()
    }
    assert make_secagg.all_packed(masked) == case["masked"]
    told = federation.told(starts, masked)
    assert make_secagg.packed(told) == case["survivors"]
    assert make_secagg.all_packed({n: federation.hubs[n].echo(told) for n in told.hubs}) == case["echoes"]
    assert make_secagg.all_packed(federation.shares(starts, told)) == case["shares"]


@pytest.mark.parametrize("name", ROUNDS)
def test_the_frozen_messages_of_a_round_give_its_total(name: str) -> None:
    case = load(name)
    start, told = read(Start, case["starts"]["hub-b"]), read(Survivors, case["survivors"])
    given = (
        read_all(kind, case[what]) for kind, what in ((Masked, "masked"), (Ticket, "tickets"), (Shares, "shares"))
    )
    opened = collector.total(start, told, *given, bounds=Bounds(case["part"], case["hubs"] * case["part"]))
    assert opened.total.tolist() == case["total"]
    assert opened.bad_shares == ()
    assert case["total"] == [
        sum(own[k] for hub, own in case["values"].items() if hub not in case["silent"])
        for k in range(len(case["total"]))
    ]


def at_coordinator(case: dict[str, Any], federation: Federation) -> None:
    start = read(Start, case["start"])
    if case["step"] == "masked":
        collector.check_masked(start, context(start), read(Masked, case["message"]), federation.keys)
    elif case["step"] == "block":
        block = read(MaskedBlock, case["message"])
        collector.VectorHash(start, context(start), block.hub).take(block.words)
    else:
        assert case["step"] == "total"
        told, masked = read(Survivors, case["survivors"]), read_all(Masked, case["masked"])
        tickets, shares = read_all(Ticket, case["tickets"]), read_all(Shares, case["shares"])
        collector.total(start, told, masked, tickets, shares, bounds=Bounds(2**45, 5 * 2**45))


def at_hub(case: dict[str, Any], federation: Federation) -> None:
    step, key, keys = case["step"], federation.hubs["hub-a"].key, federation.keys
    state, raw = decode_state(bytes.fromhex(case["state"])), case["message"]
    if step == "begin":
        member.begin(state, read(Start, raw), question=QUESTION, keys=keys)
    elif step == "echo":
        member.echo(state, read(Survivors, raw), key=key)
    elif step == "unmask":
        member.unmask(state, read(Echoes, raw), keys=keys, key=key, rand=None)
    else:
        assert step == "unmask_without_echo"
        member.unmask_without_echo(state, read(Survivors, raw), key=key, rand=None)


def run_step(case: dict[str, Any], federation: Federation) -> None:
    match case["step"]:
        case "read":
            read_body("secagg-start", bytes.fromhex(case["message"]), {"secagg-start": Start})
        case "terms":
            check(read(GroupTerms, case["message"]))
        case "ticket":
            ticket = read(Ticket, case["message"])
            check_ticket(ticket, read(GroupTerms, case["terms"]), federation.keys[ticket.pub.hub])
        case "masked" | "block" | "total":
            at_coordinator(case, federation)
        case _:
            at_hub(case, federation)


@cache
def roster() -> Federation:
    """As many hubs as the largest bad round has; a smaller one's are the first of them."""
    return Federation(group(17, 1), seed="bad")


@pytest.mark.parametrize("name", BAD)
def test_bad_vectors_are_refused_as_named(name: str) -> None:
    case = load(f"bad/{name}")
    with pytest.raises(getattr(errors, case["raises"])) as caught:
        run_step(case, roster())
    assert type(caught.value).__name__ == case["raises"]
    assert case["says"] in caught.value.text


def test_files_are_what_their_script_makes() -> None:
    made = {name: make_secagg.as_text(content) for name, content in make_secagg.build().items()}
    assert {str(p.relative_to(FOLDER).with_suffix("")) for p in make_secagg.files()} == set(made)
    for name, text in made.items():
        assert (FOLDER / f"{name}.json").read_text() == text, name
