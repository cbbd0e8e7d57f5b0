"""The frozen vectors of `threshold-he`: what must come out, what must be refused with which error, and the library
against the RFC."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rbcl
from tests.vectors import make_threshold
from tests.vectors import threshold_reference as reference

from flute import errors
from flute.messages.threshold import Contribution, KeyDealing, KeyTerms, OpeningShare, SumTerms
from flute.threshold import opening, totals
from flute.threshold.ceremony import public_key
from flute.threshold.context import message_digest
from flute.threshold.group import add, multiply, multiply_base, read_element

FOLDER = Path(__file__).parent / "threshold"
BAD = sorted(path.stem for path in (FOLDER / "bad").glob("*.json"))
KINDS = {"dealings": KeyDealing, "contributions": Contribution, "opening_shares": OpeningShare}


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


RFC, FROZEN = load("rfc9496"), load("transcript")


def read(kind: type, text: str) -> Any:
    return msgspec.msgpack.decode(bytes.fromhex(text), type=kind)


# --- the library, the skin, and the reference against the RFC -------------------------------------------------


def test_multiples_of_the_generator_are_the_rfcs() -> None:
    for i, text in enumerate(RFC["multiples"]):
        expected = bytes.fromhex(text)
        assert multiply_base(i) == expected
        assert reference.encode(reference.multiply(i, reference.BASE)) == expected
        if i:
            assert read_element(expected) == expected
            assert add(multiply_base(i - 1), multiply_base(1)) == expected
            assert multiply(i, multiply_base(1)) == expected


@pytest.mark.parametrize("name", RFC["bad"])
def test_the_rfcs_bad_encodings_are_refused(name: str) -> None:
    raw = bytes.fromhex(RFC["bad"][name])
    assert reference.decode(raw) is None
    with pytest.raises(errors.Malformed):
        read_element(raw)


def test_control_the_library_alone_takes_a_second_encoding() -> None:
    """Why `read_element` looks at the highest bit itself. If this fails, the library has been mended."""
    passed = [
        n for n, text in RFC["bad"].items() if rbcl.crypto_core_ristretto255_is_valid_point(bytes.fromhex(text))
    ]
    second = bytes.fromhex(RFC["multiples"][3])
    assert passed == []
    assert rbcl.crypto_core_ristretto255_is_valid_point(second[:31] + bytes([second[31] | 0x80]))


def test_elements_from_hashes_are_the_rfcs() -> None:
    """Of the library: nothing of ours makes elements from hashes."""
    for case in RFC["from_sha512_of"]:
        made = rbcl.crypto_core_ristretto255_from_hash(hashlib.sha512(case["text"].encode()).digest())
        assert made.hex() == case["element"]


def test_the_library_agrees_with_the_reference_on_other_elements() -> None:
    for i in range(5):
        scalar = int.from_bytes(hashlib.sha512(bytes([i])).digest(), "little") % reference.ORDER
        one, other = multiply_base(scalar), multiply_base(scalar * 7 + i)
        assert reference.encode(reference.multiply(scalar, reference.BASE)) == one
        assert reference.encode(reference.add(reference.known(one), reference.known(other))) == add(one, other)


# --- the transcript ---------------------------------------------------------------------------------------------


def mail(step: str) -> dict[str, Any]:
    return {hub: read(KINDS[step], text) for hub, text in FROZEN[step].items()}


KEYS = {hub: bytes.fromhex(text) for hub, text in FROZEN["keys"].items()}
KEY_TERMS = read(KeyTerms, FROZEN["key_terms"])
SUM_TERMS = read(SumTerms, FROZEN["sum_terms"])


def test_the_transcript_comes_out_byte_for_byte() -> None:
    assert make_threshold.written(*make_threshold.transcript()) == FROZEN


def test_the_transcript_opens_to_its_totals() -> None:
    public = public_key(KEY_TERMS, mail("dealings").values(), keys=KEYS)
    assert public.digest().hex() == FROZEN["public_key"]
    summed = opening.add_up(SUM_TERMS, mail("contributions").values(), public=public, keys=KEYS)
    opened = opening.combine(public, summed, mail("opening_shares").values(), keys=KEYS)
    assert totals.read_totals(opened.elements, bound=SUM_TERMS.bound) == tuple(FROZEN["totals"])


def test_the_reference_accepts_every_proof_and_opens_the_same_totals() -> None:
    for hub, dealing in mail("dealings").items():
        proof = dealing.possession.challenge, dealing.possession.responses
        assert reference.possession_holds(dealing.ctx, hub, dealing.elements, proof)
    sent, shown = mail("contributions"), mail("opening_shares")
    for hub, message in sent.items():
        proof = message.challenge, message.response
        assert reference.pads_proof_holds(message.ctx, hub, message.pads, message.boxes, proof)
    pads, boxes = (reference.sums([getattr(m, name) for m in sent.values()]) for name in ("pads", "boxes"))
    public = public_key(KEY_TERMS, mail("dealings").values(), keys=KEYS)
    for hub, message in shown.items():
        proof = message.challenge, message.response
        held = public.share_of(hub)
        assert reference.parts_proof_holds(message.ctx, hub, held, message.summed, pads, message.parts, proof)
    parts = [(x, message.parts) for x, message in enumerate(shown.values(), 1)]
    for chosen in (parts[:2], parts[1:], [parts[2], parts[0]]):
        assert reference.opened(boxes, chosen, SUM_TERMS.bound) == FROZEN["totals"]


def test_control_the_reference_refuses_the_proofs_of_another_hub_and_of_changed_cells() -> None:
    message = mail("contributions")["hub-a"]
    proof = message.challenge, message.response
    assert not reference.pads_proof_holds(message.ctx, "hub-b", message.pads, message.boxes, proof)
    swapped = message.pads[32:] + message.pads[:32]
    assert not reference.pads_proof_holds(message.ctx, "hub-a", swapped, message.boxes, proof)


# --- bad vectors -------------------------------------------------------------------------------------------------


def test_bad_vectors_are_those_that_are_made() -> None:
    assert set(BAD) == set(make_threshold.bad_vectors(*make_threshold.transcript()))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_vector_is_refused_with_its_error(name: str) -> None:
    vector = load(f"bad/{name}")
    step = vector["step"]
    message = read(KINDS[step], vector["message"])
    with pytest.raises(errors.FluteError) as caught:
        received(step, message)
    assert type(caught.value).__name__ == vector["raises"]
    if isinstance(caught.value, errors.Cheating):
        assert caught.value.blamed == ("hub-b",)


def received(step: str, message: Any) -> None:
    messages = {**mail(step), "hub-b": message}
    public = public_key(KEY_TERMS, mail("dealings").values(), keys=KEYS)
    if step == "dealings":
        public_key(KEY_TERMS, messages.values(), keys=KEYS)
    elif step == "contributions":
        opening.add_up(SUM_TERMS, messages.values(), public=public, keys=KEYS)
    else:
        summed = opening.add_up(SUM_TERMS, mail("contributions").values(), public=public, keys=KEYS)
        opening.check_share(public, summed, message, keys=KEYS)


def test_control_every_step_passes_with_the_good_message() -> None:
    for step in KINDS:
        received(step, mail(step)["hub-b"])
    assert len({message_digest(message) for message in mail("contributions").values()}) == 3
