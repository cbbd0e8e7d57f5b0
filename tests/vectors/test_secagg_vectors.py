"""The frozen vectors of `secagg`: what must come out, and what must be refused with which error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.adversary.secagg_rounds import QUESTION, Federation, group
from tests.vectors import make_secagg
from tests.vectors.secagg_reference import x25519

from flute import errors
from flute.aggregation import collector, member
from flute.aggregation.codec import encode_exact, largest_part
from flute.aggregation.context import context
from flute.aggregation.state import decode_state
from flute.messages.protocol import Echoes, Masked, Shares, Start, Survivors
from flute.primitives.prg import keystream
from flute.primitives.sharing import combine, split

FOLDER = Path(__file__).parent / "secagg"
BAD = sorted(path.stem for path in (FOLDER / "bad").glob("*.json"))


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def read(kind: type, text: str) -> Any:
    return msgspec.msgpack.decode(bytes.fromhex(text), type=kind)


def read_all(kind: type, texts: dict[str, str]) -> dict[str, Any]:
    return {name: read(kind, text) for name, text in texts.items()}


def test_reference_agrees_with_the_rfc() -> None:
    """RFC 7748 section 5.2, first vector of X25519."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    u = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    assert x25519(scalar, u).hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_keystreams() -> None:
    for case in load("keystream")["cases"]:
        stream = bytes.fromhex(case["stream"])
        assert keystream(bytes.fromhex(case["key"]), len(stream)) == stream


def test_shares() -> None:
    for case in load("sharing")["cases"]:
        shares = [bytes.fromhex(s) for s in case["shares"]]
        secret, t = bytes.fromhex(case["secret"]), case["threshold"]
        assert list(split(secret, threshold=t, holders=len(shares), rand=bytes.fromhex(case["rand"]))) == shares
        assert combine({x: shares[x - 1] for x in range(len(shares) - t + 1, len(shares) + 1)}, threshold=t) == secret


def test_fixed_point() -> None:
    case = load("codec")
    values = np.array([float.fromhex(v) for v in case["values"]])
    assert encode_exact(values, hubs=case["hubs"]).tolist() == case["encoded"]


def test_a_round_gives_every_frozen_message_and_the_references_masked_vectors() -> None:
    case = load("round_of_three")
    federation = Federation(group(3, 1), seed="vectors")
    starts = federation.starts(4)
    assert {n: make_secagg.packed(s) for n, s in starts.items()} == case["starts"]
    assert context(starts["hub-a"]).hex() == case["ctx"]
    masked = federation.masked(starts, {n: np.array(v, dtype=np.int64) for n, v in case["values"].items()})
    assert {n: m.vector.hex() for n, m in masked.items()} == case["vectors"]
    assert {n: make_secagg.packed(m) for n, m in masked.items()} == case["masked"]
    told = federation.told(starts, masked)
    assert make_secagg.packed(told) == case["survivors"]
    assert {n: make_secagg.packed(h.echo(told)) for n, h in federation.hubs.items()} == case["echoes"]
    assert {n: make_secagg.packed(s) for n, s in federation.shares(starts, told).items()} == case["shares"]


def test_the_frozen_messages_of_a_round_give_its_total() -> None:
    case = load("round_of_three")
    start, told = read(Start, case["starts"]["hub-b"]), read(Survivors, case["survivors"])
    masked, shares = read_all(Masked, case["masked"]), read_all(Shares, case["shares"])
    assert collector.total(start, told, masked, shares, part_bound=largest_part(3)).total.tolist() == case["total"]


def run_step(case: dict[str, Any], federation: Federation) -> None:
    step, key, keys = case["step"], federation.hubs["hub-a"].key, federation.keys
    if step in ("total", "survivors"):
        start, masked = read(Start, case["start"]), read_all(Masked, case["masked"])
        if step == "survivors":
            collector.survivors(start, masked, keys)
        told, shares = read(Survivors, case["survivors"]), read_all(Shares, case["shares"])
        collector.total(start, told, masked, shares, part_bound=2**45)
        return
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


@pytest.mark.parametrize("name", BAD)
def test_bad_vectors_are_refused_as_named(name: str) -> None:
    case = load(f"bad/{name}")
    with pytest.raises(getattr(errors, case["raises"])) as caught:
        run_step(case, Federation(group(5, 1), seed="bad"))
    assert type(caught.value).__name__ == case["raises"]
    assert case["says"] in caught.value.text


def test_files_are_what_their_script_makes() -> None:
    made = {name: make_secagg.as_text(content) for name, content in make_secagg.build().items()}
    assert {str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.rglob("*.json")} == set(made)
    for name, text in made.items():
        assert (FOLDER / f"{name}.json").read_text() == text, name
