"""People: cards, and calls signed by an enrolled key (RFC 9421)."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import itertools

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flute.defaults import MAX_CLOCK_SKEW_S, MAX_NONCES_PER_PERSON
from flute.errors import BadSignature, FluteError, Malformed, MisuseError, NotInRoster, Replayed, Stale
from flute.primitives.keys import SigningKey
from flute.trust.people import (
    NonceMemory,
    asgi_target,
    read_card,
    sign_request,
    signature_base,
    verify_request,
    write_card,
)
from flute.trust.roster import Person, Roster
from unit.test_trust_roster import NOW, content, person, roster_of, signing

ROSTER = roster_of(content(people=[person("ada"), person("old", revoked=True)]))
_COUNTER = itertools.count(1)


def signed(**other: object) -> dict[str, str]:
    facts: dict[str, object] = {
        "person": "ada", "federation": "cancer-net", "method": "POST", "target": "/studies?draft=1", "body": b"{}",
        "now": NOW, "rand": next(_COUNTER).to_bytes(16, "big"), "key": signing("ada"),
    }  # fmt: skip
    facts |= other
    return sign_request(facts.pop("key"), **facts)  # type: ignore[arg-type]


def verified(
    headers: dict[str, str], *, roster: Roster = ROSTER, nonces: NonceMemory | None = None, **other: object
) -> Person:
    facts: dict[str, object] = {"method": "POST", "target": "/studies?draft=1", "body": b"{}", "now": NOW}
    facts |= other
    return verify_request(roster=roster, headers=headers, nonces=nonces or NonceMemory(), **facts)  # type: ignore[arg-type]


# --- cards -----------------------------------------------------------------------------------


def test_a_card_gives_id_and_key_and_proves_the_key() -> None:
    assert read_card(write_card("ada", signing("ada"))) == ("ada", signing("ada").public)
    for change in (("ada", "eve"), (signing("ada").public.hex(), signing("eve").public.hex())):
        with pytest.raises(BadSignature):
            read_card(write_card("ada", signing("ada")).replace(*change))
    for text in ("", "x" * 2_000, write_card("ada", signing("ada")).replace("v1", "v2")):
        with pytest.raises(Malformed):
            read_card(text)
    with pytest.raises(Malformed, match="anybody can sign"):
        read_card(f"flute-person v1 ada {'01' + '00' * 31} {'01' + '00' * 63}")
    with pytest.raises(MisuseError):
        write_card("Ada", signing("ada"))


# --- the standard ----------------------------------------------------------------------------


def test_the_signature_of_rfc_9421_appendix_b_2_6_comes_out() -> None:
    """Ed25519 is deterministic: base and signature must be the RFC's, letter by letter."""
    key = SigningKey(base64.urlsafe_b64decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU="))
    assert base64.urlsafe_b64encode(key.public) == b"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs="
    covered = '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    params = f'{covered};created=1618884473;keyid="test-key-ed25519"'
    base = signature_base(
        [
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("@method", "POST"),
            ("@path", "/foo"),
            ("@authority", "example.com"),
            ("content-type", "application/json"),
            ("content-length", "18"),
        ],
        params,
    )
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert base64.b64encode(key.sign(base)).decode() == expected


def test_another_implementation_of_rfc_9421_accepts_our_signatures() -> None:
    hms = pytest.importorskip("http_message_signatures")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    class Keys(hms.HTTPSignatureKeyResolver):  # type: ignore[misc,name-defined]
        def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
            assert key_id == "ada"
            return Ed25519PublicKey.from_public_bytes(signing("ada").public)

    now = int(dt.datetime.now(dt.UTC).timestamp())  # that package reads the clock itself
    for target, body in (("/studies?draft=1&x=%20y", b"{}"), ("/", b"")):
        headers = signed(target=target, body=body, now=now)
        message = httpx.Request("POST", f"https://flute.example{target}", headers=headers, content=body)
        verifier = hms.HTTPMessageVerifier(signature_algorithm=hms.algorithms.ED25519, key_resolver=Keys())
        (result,) = verifier.verify(
            message, require_components=("@method", "@path", "@query", "content-digest"), body=body,
            expect_tag="flute:cancer-net",
        )  # fmt: skip
        assert result.body == body


# --- accepted --------------------------------------------------------------------------------


def test_a_signed_call_names_its_person() -> None:
    assert verified(signed()).id == "ada"
    assert verified(httpx.Headers(signed())).id == "ada"  # type: ignore[arg-type]
    assert verified(signed(method="GET", target="/", body=b""), method="GET", target="/", body=b"").id == "ada"


def test_calls_travel_from_httpx_to_starlette() -> None:
    seen = NonceMemory()

    async def endpoint(request: Request) -> Response:
        try:
            who = verify_request(
                roster=ROSTER, method=request.method, target=asgi_target(request.scope), headers=request.headers,
                body=await request.body(), now=NOW, nonces=seen,
            )  # fmt: skip
        except FluteError as error:
            return PlainTextResponse(error.code, 401)
        return PlainTextResponse(who.id)

    class Signed(httpx.Auth):
        requires_request_body = True

        def auth_flow(self, request: httpx.Request):  # type: ignore[no-untyped-def]
            target = request.url.raw_path.decode()
            request.headers.update(signed(method=request.method, target=target, body=request.content))
            yield request

    async def calls() -> list[str]:
        app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST", "DELETE"])])
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://flute.example", auth=Signed()) as client:
            replies = [
                await client.get("/"),
                await client.get("/studies", params={"name": "breast cancer & co", "é": "ü"}),
                await client.get("/a%2Fb/ü c"),
                await client.post("/studies", json={"x": 1}),
                await client.delete("/studies/7?sure=yes"),
                await client.get("/studies", auth=httpx.Auth()),
            ]
        return [f"{reply.status_code} {reply.text}" for reply in replies]

    assert asyncio.run(calls()) == ["200 ada"] * 5 + ["401 malformed"]


# --- refused ---------------------------------------------------------------------------------


def test_an_altered_body_method_path_or_query_is_refused() -> None:
    headers = signed()
    assert verified(headers).id == "ada"
    with pytest.raises(BadSignature, match="body"):
        verified(headers, body=b"{ }")
    for change in (
        {"method": "PUT"},
        {"target": "/studies/other?draft=1"},
        {"target": "/studies?draft=2"},
        {"target": "/studies"},
        {"target": "//studies?draft=1"},
    ):
        with pytest.raises(BadSignature, match="altered"):
            verified(headers, **change)


def test_a_new_digest_for_an_altered_body_does_not_help() -> None:
    headers = signed() | {"content-digest": signed(body=b"{ }")["content-digest"]}
    with pytest.raises(BadSignature):
        verified(headers, body=b"{ }")
    with pytest.raises(BadSignature):
        verified(headers)


def test_a_call_is_accepted_once() -> None:
    seen, headers = NonceMemory(), signed()
    verified(headers, nonces=seen)
    with pytest.raises(Replayed):
        verified(headers, nonces=seen)
    with pytest.raises(Replayed):
        verified(headers, nonces=seen, now=NOW + MAX_CLOCK_SKEW_S)
    verified(signed(), nonces=seen)


def test_a_call_from_the_future_cannot_be_replayed_when_its_time_has_come() -> None:
    """The nonce is kept until the date of the call, not its arrival, lets it go."""
    seen, headers = NonceMemory(), signed(now=NOW + MAX_CLOCK_SKEW_S)
    verified(headers, nonces=seen)
    for _ in range(MAX_NONCES_PER_PERSON + 5):
        seen.remember("ada", str(next(_COUNTER)), until=NOW - 1, now=NOW)
    with pytest.raises(Replayed):
        verified(headers, nonces=seen, now=NOW + 2 * MAX_CLOCK_SKEW_S)


def test_memory_is_bounded_and_one_person_cannot_fill_anothers() -> None:
    seen = NonceMemory()
    for i in range(MAX_NONCES_PER_PERSON):
        seen.remember("ada", str(i), until=NOW, now=NOW)
    with pytest.raises(Stale, match="too many calls"):
        seen.remember("ada", "one more", until=NOW, now=NOW)
    seen.remember("eve", "0", until=NOW, now=NOW)
    seen.remember("ada", "later", until=NOW + 1, now=NOW + 1)


@pytest.mark.parametrize("away", [-MAX_CLOCK_SKEW_S - 1, MAX_CLOCK_SKEW_S + 1, 10**6, -(10**6)])
def test_a_call_with_an_old_or_future_date_is_stale(away: int) -> None:
    with pytest.raises(Stale, match="Compare the clocks"):
        verified(signed(now=NOW + away))
    verified(signed(now=NOW + (MAX_CLOCK_SKEW_S if away > 0 else -MAX_CLOCK_SKEW_S)))


def test_unknown_revoked_and_other_parties_do_not_call() -> None:
    for name in ("eve", "old", "chu", "coordinator"):
        with pytest.raises(NotInRoster):
            verified(signed(person=name, key=signing(name)))


def test_nobody_signs_for_somebody_else() -> None:
    with pytest.raises(BadSignature, match="in the name of ada"):
        verified(signed(key=signing("eve")))


def test_a_call_to_another_federation_is_refused() -> None:
    with pytest.raises(BadSignature, match="signed for other-net"):
        verified(signed(federation="other-net"))


def test_a_refused_call_does_not_use_up_its_nonce() -> None:
    seen, headers = NonceMemory(), signed()
    for change in ({"body": b"x"}, {"now": NOW + 999}, {"target": "/x"}):
        with pytest.raises(FluteError):
            verified(headers, nonces=seen, **change)
    assert verified(headers, nonces=seen).id == "ada"


def test_coverage_cannot_be_narrowed() -> None:
    """An attacker may write any Signature-Input; only the one fixed form is looked at."""
    headers = signed()
    for old, new in [
        (' "content-digest"', ""),
        ('"@path" ', ""),
        (' "@query"', ""),
        ('alg="ed25519"', 'alg="hmac-sha256"'),
        ("flute=(", "sig1=("),
        (";created=", ";expires=9999999999;created="),
        ('"@method"', '"@method";req'),
    ]:
        assert old in headers["signature-input"]
        with pytest.raises(Malformed):
            verified(headers | {"signature-input": headers["signature-input"].replace(old, new)})
    for name in ("signature", "signature-input"):
        with pytest.raises(Malformed):
            verified({key: value for key, value in headers.items() if key != name})
        with pytest.raises(Malformed):
            verified(headers | {name: f"{headers[name]}, {headers[name]}"})
        with pytest.raises(Malformed):
            verified(headers | {name: headers[name] + "\n"})


def test_parts_that_cannot_be_signed_are_refused_at_both_ends() -> None:
    targets = ("studies", "/a\nb", "/é", "/a#b", "/a b", "/" + "a" * 5_000)
    for change in ({"method": "post"}, {"method": "POST\n"}, *({"target": target} for target in targets)):
        with pytest.raises(MisuseError):
            signed(**change)
        with pytest.raises(Malformed):
            verified(signed(), **change)
    for change in ({"rand": b"short"}, {"person": "Ada"}, {"federation": 'x";y="'}):
        with pytest.raises(MisuseError):
            signed(**change)
    with pytest.raises(Malformed):
        signature_base([("x", 'a\n"@method": GET')], "()")
    with pytest.raises(Malformed):
        asgi_target({"raw_path": b"/\xff", "query_string": b""})


def test_a_signature_has_one_writing() -> None:
    """The last letter of the base64 has four spare bits: a decoder alone would take sixteen writings."""
    headers = signed()
    text = headers["signature"]
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/":
        other = f"{text[:-4]}{letter}{text[-3:]}"
        if other == text:
            assert verified(headers | {"signature": other}).id == "ada"
            continue
        with pytest.raises((Malformed, BadSignature)):
            verified(headers | {"signature": other})


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["content-digest", "signature-input", "signature"]), st.integers(0, 400), st.integers(0, 6))
def test_no_bit_of_a_header_can_be_flipped(name: str, place: int, bit: int) -> None:
    headers = signed()
    raw = bytearray(headers[name].encode())
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(FluteError):
        verified(headers | {name: raw.decode("latin-1")})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.text(max_size=100))
def test_arbitrary_headers_are_refused_in_words(first: str, second: str) -> None:
    with pytest.raises(Malformed):
        verified({"signature-input": first, "signature": second})
