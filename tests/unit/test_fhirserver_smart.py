"""SMART backend services: what is signed, where it is sent, how long a token is used, who learns nothing of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from flute.data.reader import Reader
from flute.errors import KeyFileError, Unmappable, Unreachable
from flute.fhirserver.options import ServerOptions, Smart
from flute.fhirserver.server import open_server
from support.standard_server import Asked, Said, StandardServer, serving
from support.taking import Patience, Taker, plain_transport

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP384R1())


def pem(key: Any) -> bytes:
    return key.private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def written(folder: Path, content: bytes, mode: int = 0o600) -> str:
    path = folder / "client.pem"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


class Authority:
    """A token endpoint beside the FHIR server. It takes an assertion once, and knows the keys of one client."""

    def __init__(self, server: StandardServer, key: Any = RSA_KEY) -> None:
        self.server, self.public = server, key.public_key()
        self.lifetime: float = 300
        self.seen: set[str] = set()
        self.forms: list[dict[str, str]] = []
        self.assertions: list[str] = []
        self.fetched = 0
        self.configuration: dict[str, Any] = {
            "token_endpoint": self.endpoint,
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
            "capabilities": ["permission-v2"],
        }
        self.fail: list[Said] = []
        server.ways.token = "none yet"
        server.before = self.answer

    @property
    def endpoint(self) -> str:
        return self.server.base.removesuffix("/fhir") + "/auth/token"

    def answer(self, asked: Asked) -> Said | None:
        if asked.path.endswith("/.well-known/smart-configuration"):
            assert "authorization" not in asked.headers
            return Said(200, json.dumps(self.configuration).encode(), {"content-type": "application/json"})
        if asked.path == "/auth/token":
            return self.fail.pop(0) if self.fail else self.token(asked)
        return None

    def token(self, asked: Asked) -> Said:
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        self.forms.append(form)
        assertion = form["client_assertion"]
        self.assertions.append(assertion)
        try:
            claims = jwt.decode(
                assertion, self.public, algorithms=["RS384", "ES384"], audience=self.endpoint,
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iss", "sub", "aud", "jti"]},
            )  # fmt: skip
        except jwt.PyJWTError:
            return Said(401, b'{"error":"invalid_client","error_description":"SECRET-DIAGNOSTICS"}')
        now = Patience().now.timestamp()
        if claims["iss"] != "flute-hub" or claims["sub"] != "flute-hub" or claims["jti"] in self.seen:
            return Said(400, b'{"error":"invalid_client"}')
        if not now < claims["exp"] <= now + 300:
            return Said(400, b'{"error":"invalid_grant"}')
        self.seen.add(claims["jti"])
        self.fetched += 1
        self.server.ways.token = f"token-{self.fetched}"
        body = {"access_token": self.server.ways.token, "token_type": "Bearer", "expires_in": self.lifetime}
        return Said(200, json.dumps(body).encode(), {"content-type": "application/json"})


@pytest.fixture
def server() -> Iterator[StandardServer]:
    with serving(StandardServer()) as running:
        running.put(*({"resourceType": "Patient", "id": f"p{n}"} for n in range(9)))
        yield running


def reader(server: StandardServer, key_file: str, patience: Patience | None = None, **smart: Any) -> Reader:
    auth = Smart(client_id="flute-hub", key_file=key_file, **smart)
    return open_server(
        server.base,
        ServerOptions(auth=auth, page_size=2, overlap_s=0),
        queries=["Patient"],
        around=(patience or Patience()).around(),
        transport=plain_transport,
    )


@pytest.mark.requirement("F-SRS-7")
@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS384"), (EC_KEY, "ES384")], ids=["RS384", "ES384"])
def test_a_signed_request_gets_a_token_and_the_token_opens_the_server(
    server: StandardServer, tmp_path: Path, key: Any, algorithm: str
) -> None:
    authority = Authority(server, key)
    taker = Taker()
    taker.take(reader(server, written(tmp_path, pem(key)), key_id="k-1"))
    assert taker.all == server.all()
    header = jwt.get_unverified_header(authority.assertions[0])
    assert header == {"typ": "JWT", "alg": algorithm, "kid": "k-1"}
    assert authority.forms[0]["grant_type"] == "client_credentials"
    assert authority.forms[0]["scope"] == "system/*.rs"
    assert authority.fetched == 1, "one token for the whole import"


def test_a_key_may_be_a_jwk(server: StandardServer, tmp_path: Path) -> None:
    Authority(server, EC_KEY)
    jwk = ECAlgorithm.to_jwk(EC_KEY)
    taker = Taker()
    taker.take(reader(server, written(tmp_path, jwk.encode())))
    assert taker.all == server.all()


def test_an_older_server_is_asked_for_the_older_scope_and_an_operator_may_choose(
    server: StandardServer, tmp_path: Path
) -> None:
    authority = Authority(server)
    authority.configuration["capabilities"] = ["permission-v1"]
    Taker().take(reader(server, written(tmp_path, pem(RSA_KEY))))
    Taker().take(reader(server, written(tmp_path, pem(RSA_KEY)), scope="system/Patient.rs"))
    assert [form["scope"] for form in authority.forms] == ["system/*.read", "system/Patient.rs"]


def test_a_token_is_renewed_before_its_end(server: StandardServer, tmp_path: Path) -> None:
    """Each request of the server takes 100 seconds of the clock; a token of 300 is good for two of them."""
    authority, patience = Authority(server), Patience()
    inner = authority.answer

    def slowly(asked: Asked) -> Said | None:
        if asked.path == "/fhir/Patient":
            patience.slept.append(100)
        return inner(asked)

    server.before = slowly
    taker = Taker()
    taker.take(reader(server, written(tmp_path, pem(RSA_KEY)), patience))
    assert taker.all == server.all()
    assert authority.fetched >= 2
    assert not [asked for asked in server.asked if asked.headers.get("authorization") == "Bearer none yet"]


def test_a_token_that_the_server_takes_back_is_replaced_once(server: StandardServer, tmp_path: Path) -> None:
    authority = Authority(server)
    inner = authority.answer
    times = iter([False, False, True])

    def revoke(asked: Asked) -> Said | None:
        if asked.path == "/fhir/Patient" and next(times, False):
            server.ways.token = "another"
        return inner(asked)

    server.before = revoke
    taker = Taker()
    taker.take(reader(server, written(tmp_path, pem(RSA_KEY))))
    assert taker.all == server.all()
    assert authority.fetched == 2


def test_a_server_that_takes_no_token_at_all_is_not_asked_for_ever(server: StandardServer, tmp_path: Path) -> None:
    authority = Authority(server)
    inner = authority.answer

    def never(asked: Asked) -> Said | None:
        said = inner(asked)
        server.ways.token = "another"
        return said

    server.before = never
    with pytest.raises(Unreachable, match=r"does not accept FLUTE's credentials.*status 401, it says login"):
        Taker().take(reader(server, written(tmp_path, pem(RSA_KEY))))
    assert authority.fetched == 2


def test_a_token_endpoint_that_stumbles_is_asked_again_with_a_new_assertion(
    server: StandardServer, tmp_path: Path
) -> None:
    authority = Authority(server)
    authority.fail = [Said(503), Said(200, b"<html>")]
    taker = Taker()
    taker.take(reader(server, written(tmp_path, pem(RSA_KEY))))
    assert taker.all == server.all()


def test_a_client_that_the_server_does_not_know_is_told_so(server: StandardServer, tmp_path: Path) -> None:
    Authority(server, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(
        Unreachable, match=r"no access token \(status 401, it says invalid_client\).*flute-hub"
    ) as caught:
        Taker().take(reader(server, written(tmp_path, pem(RSA_KEY))))
    assert "SECRET-DIAGNOSTICS" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"token_endpoint": ""}, "names no token endpoint"),
        ({"grant_types_supported": ["authorization_code"]}, "offers no SMART backend services"),
        ({"token_endpoint_auth_signing_alg_values_supported": ["ES384"]}, "does not take signatures by RS384"),
    ],
)
def test_a_server_that_offers_something_else_is_said(
    server: StandardServer, tmp_path: Path, change: Any, sentence: str
) -> None:
    authority = Authority(server)
    authority.configuration |= change
    with pytest.raises(Unmappable, match=sentence):
        Taker().take(reader(server, written(tmp_path, pem(RSA_KEY))))


def test_a_token_endpoint_that_the_operator_named_needs_no_description(
    server: StandardServer, tmp_path: Path
) -> None:
    authority = Authority(server)
    inner = authority.answer
    server.before = lambda asked: Said(404) if "well-known" in asked.path else inner(asked)
    taker = Taker()
    taker.take(reader(server, written(tmp_path, pem(RSA_KEY)), token_endpoint=authority.endpoint))
    assert taker.all == server.all()


BAD_KEYS = {
    "no key": (b"hello", 0o600, "holds no private key"),
    "a public key": (
        RSA_KEY.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        0o600,
        "holds no private key",
    ),
    "a short key": (pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)), 0o600, "2048 bits"),
    "another curve": (pem(ec.generate_private_key(ec.SECP256R1())), 0o600, "P-384"),
    "a secret of two": (b'{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}', 0o600, "holds no private key"),
    "open to all": (pem(RSA_KEY), 0o644, "every account of this machine"),
}


@pytest.mark.parametrize(("content", "mode", "sentence"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_that_cannot_be_used_is_said_before_a_call(
    server: StandardServer, tmp_path: Path, content: bytes, mode: int, sentence: str
) -> None:
    with pytest.raises(KeyFileError, match=sentence):
        reader(server, written(tmp_path, content, mode))
    assert server.asked == []


def test_a_key_and_an_algorithm_that_do_not_fit_are_said(server: StandardServer, tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="a key for RS384, and the options say ES384"):
        reader(server, written(tmp_path, pem(RSA_KEY)), algorithm="ES384")
